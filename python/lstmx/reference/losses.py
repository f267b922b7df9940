"""The losses, each returning its value and its gradient by the prediction.

A loss is the sum over elements of weight * loss(element), divided by the divisor:

- "elements": the sum of the weights of the unmasked elements (their number, where there are no weights);
- "batch": the length of the prediction's first axis;
- "none": 1.

Weights and mask broadcast to the elements. Elements whose mask is False are never read: NaN there changes
nothing and their gradient is 0. Where every element is masked, the loss is 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lstmx.reference._arrays import Array


def mse(
    pred: ArrayLike,
    target: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    divisor: str = "elements",
) -> tuple[float, Array]:
    """Squared error (pred - target)^2, without the factor 1/2, as PyTorch's `mse_loss`.

    >>> mse([1.0, 3.0], [1.0, 1.0])
    (2.0, array([0., 2.]))
    """
    error, scale = _errors(pred, target, weights, mask, divisor)
    return float(np.sum(scale * error**2)), scale * 2.0 * error


def mae(
    pred: ArrayLike,
    target: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    divisor: str = "elements",
) -> tuple[float, Array]:
    """Absolute error |pred - target|; its gradient at 0 is 0, as PyTorch's `l1_loss`.

    >>> mae([1.0, 3.0], [1.0, 1.0])
    (1.0, array([0. , 0.5]))
    """
    error, scale = _errors(pred, target, weights, mask, divisor)
    return float(np.sum(scale * np.abs(error))), scale * np.sign(error)


def huber(
    pred: ArrayLike,
    target: ArrayLike,
    *,
    delta: float = 1.0,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    divisor: str = "elements",
) -> tuple[float, Array]:
    """Huber's loss of e = pred - target: e^2 / 2 where |e| <= delta, else delta (|e| - delta / 2).

    Huber (1964); PyTorch's `huber_loss`.

    >>> huber([1.0, 4.0], [1.0, 1.0])
    (1.25, array([0. , 0.5]))
    """
    error, scale = _errors(pred, target, weights, mask, divisor)
    size = np.abs(error)
    values = np.where(size <= delta, 0.5 * error**2, delta * (size - 0.5 * delta))
    return float(np.sum(scale * values)), scale * np.clip(error, -delta, delta)


def cross_entropy(
    logits: ArrayLike,
    classes: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    divisor: str = "elements",
) -> tuple[float, Array]:
    """The negative log of the probability that softmax over the last axis gives to the true class.

    Args:
        logits: Unnormalised log-probabilities, [..., C].
        classes: The true classes, integers [...] from 0 to C - 1; here an element is one of these.
        weights: [...], or what broadcasts to it.
        mask: [...], or what broadcasts to it.
        divisor: See the module.

    Returns:
        The loss and its gradient by the logits, [..., C].

    Example:
        >>> value, gradient = cross_entropy([[0.0, 0.0]], [1])
        >>> f"{value:.6f}", gradient.tolist()
        ('0.693147', [[0.5, -0.5]])
    """
    z = np.asarray(logits, np.float64)
    keep, scale = _scale(z.shape[:-1], z.shape[:1], weights, mask, divisor)
    z = np.where(keep[..., None], z, 0.0)
    true = np.where(keep, classes, 0)[..., None].astype(np.intp)
    # 1. log-softmax, shifted by the maximum so that exp cannot overflow
    shifted = z - z.max(axis=-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    # 2. the true class
    values = -np.take_along_axis(log_p, true, axis=-1)[..., 0]
    # 2. and 1. together: softmax - one-hot
    gradient = np.exp(log_p)
    np.put_along_axis(gradient, true, np.take_along_axis(gradient, true, axis=-1) - 1.0, axis=-1)
    return float(np.sum(scale * values)), scale[..., None] * gradient


def _errors(
    pred: ArrayLike, target: ArrayLike, weights: ArrayLike | None, mask: ArrayLike | None, divisor: str
) -> tuple[Array, Array]:
    """`pred - target`, 0 where masked, and the factor of each element."""
    pred, target = np.asarray(pred, np.float64), np.asarray(target, np.float64)
    if pred.shape != target.shape:
        raise ValueError(f"target: expected shape {pred.shape}, got {target.shape}")
    keep, scale = _scale(pred.shape, pred.shape[:1], weights, mask, divisor)
    return np.where(keep, pred, 0.0) - np.where(keep, target, 0.0), scale


def _scale(
    shape: tuple[int, ...],
    batch: tuple[int, ...],
    weights: ArrayLike | None,
    mask: ArrayLike | None,
    divisor: str,
) -> tuple[NDArray[np.bool_], Array]:
    """Which elements count, and weight / divisor for each of them (0 where masked)."""
    keep = np.broadcast_to(np.asarray(True if mask is None else mask, bool), shape)
    weight = np.where(keep, np.asarray(1.0 if weights is None else weights, np.float64), 0.0)
    if divisor == "elements":
        total = float(weight.sum())
    elif divisor == "batch":
        total = float(batch[0]) if batch else 1.0
    elif divisor == "none":
        total = 1.0
    else:
        raise ValueError(f"divisor: expected one of 'elements', 'batch', 'none', got {divisor!r}")
    return keep, weight / (total if total != 0.0 else 1.0)
