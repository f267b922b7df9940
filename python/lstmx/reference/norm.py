"""Normalization over the features of each step, or over the steps of a batch, forward and backward."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lstmx.reference._arrays import Array, Flags, float64, read_lengths


class NormGradients(NamedTuple):
    """The gradients of a normalization, each of the shape of what it belongs to."""

    dx: Array
    d_weight: Array
    d_bias: Array


def layer_norm_forward(x: ArrayLike, weight: ArrayLike, bias: ArrayLike, eps: float = 1e-5) -> Array:
    """Return x with mean 0 and variance 1 in each row, times weight plus bias.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LayerNorm.html.

    Args:
        x: Input, [N, F].
        weight: [F].
        bias: [F].
        eps: What is added to the variance.

    Returns:
        [N, F].

    Raises:
        TypeError: An argument does not hold real numbers.
        ValueError: A shape does not fit the others.

    Example:
        >>> layer_norm_forward([[1.0, 5.0]], [1.0, 2.0], [0.0, 1.0], eps=0.0).tolist()
        [[-1.0, 3.0]]
    """
    x = float64("x", x, (None, None))
    weight, bias = float64("weight", weight, x.shape[1:]), float64("bias", bias, x.shape[1:])
    mean, var = x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True)
    y: Array = (x - mean) / np.sqrt(var + eps) * weight + bias
    return y


def layer_norm_backward(x: ArrayLike, weight: ArrayLike, dy: ArrayLike, eps: float = 1e-5) -> NormGradients:
    """Return the gradients of a scalar by x, weight and bias, given its gradient by y.

    Args:
        x: The input of the forward pass, [N, F].
        weight: The weights of the forward pass, [F].
        dy: [N, F].
        eps: As in the forward pass.

    Raises:
        TypeError: An argument does not hold real numbers.
        ValueError: A shape does not fit the others.

    Example:
        >>> layer_norm_backward([[1.0, 5.0]], [1.0, 2.0], [[3.0, 4.0]], eps=0.0).d_weight.tolist()
        [-3.0, 4.0]
    """
    x = float64("x", x, (None, None))
    weight, dy = float64("weight", weight, x.shape[1:]), float64("dy", dy, x.shape)
    mean, std = x.mean(axis=1, keepdims=True), np.sqrt(x.var(axis=1, keepdims=True) + eps)
    n = (x - mean) / std
    dn = dy * weight
    dx = (dn - dn.mean(axis=1, keepdims=True) - n * (dn * n).mean(axis=1, keepdims=True)) / std
    return NormGradients(dx, (dy * n).sum(axis=0), dy.sum(axis=0))


class BatchNormResult(NamedTuple):
    """What `batch_norm_forward` returns: y [T, B, F] and the running statistics [F] after the batch."""

    y: Array
    running_mean: Array
    running_var: Array


def batch_norm_forward(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike,
    running_mean: ArrayLike,
    running_var: ArrayLike,
    *,
    lengths: ArrayLike | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> BatchNormResult:
    """Return x with mean 0 and variance 1 in each feature, times weight plus bias: the training pass.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm1d.html.

    Args:
        x: Input, [T, B, F].
        weight: [F].
        bias: [F].
        running_mean: [F], before the batch.
        running_var: [F], before the batch.
        lengths: The steps of each row, integers from 0 to T, [B]; None is T everywhere. Beyond them x is not
            read and y is 0.
        momentum: The share of this batch in the running statistics. One of fewer than two steps leaves them.
        eps: What is added to the variance.

    Raises:
        TypeError: An argument is not of its kind.
        ValueError: A shape does not fit the others, or a length is out of range.

    Example:
        >>> one, zero = np.ones(1), np.zeros(1)
        >>> y, mean, var = batch_norm_forward([[[1.0], [5.0]]], one, zero, zero, one, momentum=0.5, eps=0.0)
        >>> y.tolist(), mean.tolist(), var.tolist()
        ([[[-1.0], [1.0]]], [1.5], [4.5])
    """
    x, counted = _batch(x, lengths)
    weight, bias = float64("weight", weight, x.shape[2:]), float64("bias", bias, x.shape[2:])
    old_mean = float64("running_mean", running_mean, x.shape[2:])
    old_var = float64("running_var", running_var, x.shape[2:])
    steps, y = x[counted], np.zeros(x.shape)
    if len(steps) == 0:
        return BatchNormResult(y, old_mean, old_var)
    mean, var = steps.mean(axis=0), steps.var(axis=0)
    y[counted] = (steps - mean) / np.sqrt(var + eps) * weight + bias
    if len(steps) == 1:
        return BatchNormResult(y, old_mean, old_var)
    new_mean = (1 - momentum) * old_mean + momentum * mean
    new_var = (1 - momentum) * old_var + momentum * steps.var(axis=0, ddof=1)
    return BatchNormResult(y, new_mean, new_var)


def batch_norm_inference(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike,
    running_mean: ArrayLike,
    running_var: ArrayLike,
    *,
    lengths: ArrayLike | None = None,
    eps: float = 1e-5,
) -> Array:
    """Return y [T, B, F] with the running statistics instead of the batch's; see `batch_norm_forward`.

    Example:
        >>> batch_norm_inference([[[1.0], [5.0]]], [2.0], [0.0], [1.0], [4.0], eps=0.0).tolist()
        [[[0.0], [4.0]]]
    """
    x, counted = _batch(x, lengths)
    weight, bias = float64("weight", weight, x.shape[2:]), float64("bias", bias, x.shape[2:])
    mean = float64("running_mean", running_mean, x.shape[2:])
    var = float64("running_var", running_var, x.shape[2:])
    y = np.zeros(x.shape)
    y[counted] = (x[counted] - mean) / np.sqrt(var + eps) * weight + bias
    return y


def batch_norm_backward(
    x: ArrayLike, weight: ArrayLike, dy: ArrayLike, *, lengths: ArrayLike | None = None, eps: float = 1e-5
) -> NormGradients:
    """Return the gradients of a scalar by x, weight and bias, given its gradient by y of the training pass.

    Args:
        x: The input of the forward pass, [T, B, F].
        weight: The weights of the forward pass, [F].
        dy: [T, B, F]; not read beyond a row's length, where dx is 0.
        lengths: As in the forward pass.
        eps: As in the forward pass.

    Raises:
        TypeError: An argument is not of its kind.
        ValueError: A shape does not fit the others, or a length is out of range.

    Example:
        >>> batch_norm_backward([[[1.0], [5.0]]], [2.0], [[[3.0], [4.0]]], eps=0.0).d_weight.tolist()
        [1.0]
    """
    x, counted = _batch(x, lengths)
    weight, dy = float64("weight", weight, x.shape[2:]), float64("dy", dy, x.shape)
    dx = np.zeros(x.shape)
    steps, d_steps = x[counted], dy[counted]
    if len(steps) == 0:
        return NormGradients(dx, np.zeros(weight.shape), np.zeros(weight.shape))
    mean, std = steps.mean(axis=0), np.sqrt(steps.var(axis=0) + eps)
    n = (steps - mean) / std
    dn = d_steps * weight
    dx[counted] = (dn - dn.mean(axis=0) - n * (dn * n).mean(axis=0)) / std
    return NormGradients(dx, (d_steps * n).sum(axis=0), d_steps.sum(axis=0))


def _batch(x: ArrayLike, lengths: ArrayLike | None) -> tuple[Array, Flags]:
    """Return x and which of its steps count, [T, B]."""
    x = float64("x", x, (None, None, None))
    steps, batch, _ = x.shape
    return x, np.arange(steps)[:, np.newaxis] < read_lengths(lengths, steps, batch)
