"""Normalization over the features of each step, forward and backward."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lstmx.reference._arrays import Array, float64


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
