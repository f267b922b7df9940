"""The losses: the value and its gradient by the prediction, with weights, a mask and a known divisor.

A loss is the sum over elements of weight * loss(element), divided by the divisor:

- `"elements"`: the sum of the weights of the unmasked elements (their number, where there are no weights);
- `"batch"`: the batch size, the extent of the prediction's first axis, masked or not;
- `"none"`: 1.

An element whose mask is False is never read: NaN there changes nothing, and its gradient is 0. Where nothing
counts (all masked, an empty batch, weights that sum to 0), the loss is 0. NumPy float32 with float64 sums;
the formulas in float64, to be read, are `lstmx.reference`'s. Not here: metrics and activations.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lstmx import _core
from lstmx._checks import FLOAT32, FloatArray, check_array, check_choice, check_float

DIVISORS = ("elements", "batch", "none")

Mask: TypeAlias = NDArray[np.bool_]
LossFunction: TypeAlias = Callable[..., tuple[float, FloatArray]]


class Loss(ABC):
    """What the losses share; call one as `loss(pred, target, *, weights=None, mask=None)`.

    A loss of your own need not be a `Loss`: any function with this call and this result will do. (Its mean
    over unequal batches is then weighted by the batch sizes.)

    Args:
        divisor: `"elements"`, `"batch"` or `"none"`; what it means stands at the top of `lstmx.losses`.
    """

    def __init__(self, divisor: str = "elements") -> None:
        self._divisor = check_choice("divisor", divisor, DIVISORS)

    @property
    def divisor(self) -> str:
        """What the sum over the elements is divided by."""
        return self._divisor

    def __repr__(self) -> str:
        return f"{type(self).__name__}(divisor={self._divisor!r})"

    def __call__(
        self,
        pred: ArrayLike,
        target: ArrayLike,
        *,
        weights: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> tuple[float, FloatArray]:
        """The loss and its gradient by the prediction.

        Args:
            pred: Predictions, of any shape with at least one axis (cross-entropy: logits `[..., C]`).
            target: The shape of `pred`; one of the two may have a last axis of extent 1 more. (Cross-entropy:
                integer classes `[...]`.)
            weights: One weight, at least 0, for each element: the shape of `pred` or its leading axes, such
                as `[B]` or `[B, T]`; an axis may have extent 1. (Cross-entropy: the shape of `target`.)
            mask: Booleans, shaped as `weights`; False leaves an element out, its weight included.

        Returns:
            `(value, gradient)`: a float and a new array of the shape of `pred`, float64 if that is a NumPy
            array of float64, otherwise float32. Infinity or NaN in what is read shows in the value; no
            warning is given.

        Raises:
            TypeError: An argument does not hold real numbers (classes: integers; mask: booleans).
            ValueError: A shape does not fit, a weight is negative, a class is not in 0 .. C-1.
        """
        pred = check_array("pred", pred, dtype=_dtype_of(pred))
        if pred.ndim == 0:
            raise ValueError("pred: expected at least 1 dimension, got shape ()")
        truth = self._check_target(target, pred)
        shape = self._element_shape(pred)
        keep = None if mask is None else _check_mask(mask, shape)
        weight = None if weights is None else _check_weights(weights, shape, keep, pred.dtype)
        with np.errstate(all="ignore"):
            count = self._count(pred, shape, weight, keep)
            total, gradient = self._sum(pred, truth, weight, keep, 1.0 / count if count else 0.0)
        return (total / count if count else 0.0), gradient

    def count(
        self, pred: FloatArray, *, weights: ArrayLike | None = None, mask: ArrayLike | None = None
    ) -> float:
        """The number that the call with these arguments divides by, for means over unequal batches."""
        shape = self._element_shape(pred)
        keep = None if mask is None else _check_mask(mask, shape)
        weight = None if weights is None else _check_weights(weights, shape, keep, pred.dtype)
        return self._count(pred, shape, weight, keep)

    def _count(
        self, pred: FloatArray, shape: tuple[int, ...], weight: FloatArray | None, keep: Mask | None
    ) -> float:
        if self._divisor == "none":
            return 1.0
        if self._divisor == "batch":
            return float(len(pred))
        if weight is not None:
            return float(np.add.reduce(weight, axis=None, dtype=np.float64))
        if keep is not None:
            return float(np.count_nonzero(keep))
        return float(math.prod(shape))

    # What a loss defines. `weight` and `keep` have the shape of the elements or are None.

    def _element_shape(self, pred: FloatArray) -> tuple[int, ...]:
        return pred.shape

    def _check_target(self, target: ArrayLike, pred: FloatArray) -> NDArray[Any]:
        truth = check_array("target", target, dtype=pred.dtype)
        if truth.shape == pred.shape:
            return truth
        if (*truth.shape, 1) == pred.shape:
            return truth[..., None]
        if truth.shape == (*pred.shape, 1):
            return truth[..., 0]
        raise ValueError(f"target: expected shape {pred.shape}, got {truth.shape}")

    @abstractmethod
    def _sum(
        self,
        pred: FloatArray,
        target: NDArray[Any],
        weight: FloatArray | None,
        keep: Mask | None,
        scale: float,
    ) -> tuple[float, FloatArray]:
        """The weighted sum over the unmasked elements, and its gradient times `scale`."""


class MSE(Loss):
    """Squared error `(pred - target)^2`, without a factor 1/2: PyTorch's `mse_loss`.

    Args:
        divisor: `"elements"` (the mean), `"batch"` (the sum divided by the batch size) or `"none"` (the sum).

    Example:
        >>> MSE()([1.0, 3.0], [1.0, 1.0])
        (2.0, array([0., 2.], dtype=float32))
        >>> MSE()([1.0, 3.0, 5.0], [1.0, 1.0, float("nan")], mask=[True, True, False])
        (2.0, array([0., 2., 0.], dtype=float32))
    """

    def __call__(
        self,
        pred: ArrayLike,
        target: ArrayLike,
        *,
        weights: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> tuple[float, FloatArray]:
        """As every `Loss`."""
        # the usual call in one crossing of the border; the core gives None for what it does not take as it is
        plain = weights is None and mask is None
        direct = _core.squared_error(pred, target, self._divisor) if plain else None
        return super().__call__(pred, target, weights=weights, mask=mask) if direct is None else direct

    def _sum(
        self,
        pred: FloatArray,
        target: NDArray[Any],
        weight: FloatArray | None,
        keep: Mask | None,
        scale: float,
    ) -> tuple[float, FloatArray]:
        error = _difference(pred, target, keep)
        if weight is None:
            total = _core.sum_of_squares(error.reshape(-1))
            error *= 2.0 * scale
            return total, error
        weighted = weight * error
        total = _dot(weighted, error)
        weighted *= 2.0 * scale
        return total, weighted


class MAE(Loss):
    """Absolute error `|pred - target|`; its gradient at 0 is 0: PyTorch's `l1_loss`.

    Args:
        divisor: `"elements"` (the mean), `"batch"` (the sum divided by the batch size) or `"none"` (the sum).

    Example:
        >>> MAE()([1.0, 3.0], [1.0, 1.0])
        (1.0, array([0. , 0.5], dtype=float32))
    """

    def _sum(
        self,
        pred: FloatArray,
        target: NDArray[Any],
        weight: FloatArray | None,
        keep: Mask | None,
        scale: float,
    ) -> tuple[float, FloatArray]:
        error = _difference(pred, target, keep)
        gradient = np.sign(error)
        if weight is not None:
            gradient *= weight
        total = _dot(gradient, error)
        gradient *= scale
        return total, gradient


class Huber(Loss):
    """Huber's loss of `e = pred - target`: `e^2 / 2` where `|e| <= delta`, else `delta (|e| - delta / 2)`.

    Huber, Robust estimation of a location parameter (1964); PyTorch's `huber_loss`.

    Args:
        delta: Where the parabola becomes a line, more than 0, in the unit of the target.
        divisor: `"elements"` (the mean), `"batch"` (the sum divided by the batch size) or `"none"` (the sum).

    Example:
        >>> Huber()([1.0, 4.0], [1.0, 1.0])
        (1.25, array([0. , 0.5], dtype=float32))
    """

    def __init__(self, delta: float = 1.0, divisor: str = "elements") -> None:
        self._delta = check_float("delta", delta, minimum=0.0, exclusive=True)
        super().__init__(divisor)

    @property
    def delta(self) -> float:
        """Where the parabola becomes a line."""
        return self._delta

    def __repr__(self) -> str:
        return f"Huber(delta={self._delta!r}, divisor={self._divisor!r})"

    def _sum(
        self,
        pred: FloatArray,
        target: NDArray[Any],
        weight: FloatArray | None,
        keep: Mask | None,
        scale: float,
    ) -> tuple[float, FloatArray]:
        error = _difference(pred, target, keep)
        delta = self._delta
        gradient = np.clip(error, -delta, delta)
        # Both branches are slope * (e - slope / 2), the slope being e limited to +-delta.
        error -= 0.5 * gradient
        if weight is not None:
            gradient *= weight
        total = _dot(gradient, error)
        gradient *= scale
        return total, gradient


class CrossEntropy(Loss):
    """Cross-entropy of softmax over the last axis against integer classes: PyTorch's `cross_entropy`.

    An element is one class to be told: `pred` is `[..., C]` logits (unnormalised log-probabilities), `target`
    `[...]` integers in 0 .. C-1, and so are weights and mask. The class of a masked element is not read, be
    it -100 or whatever marks padding.

    Args:
        divisor: `"elements"` (the mean), `"batch"` (the sum divided by the batch size) or `"none"` (the sum).

    Example:
        >>> value, gradient = CrossEntropy()([[0.0, 0.0]], [1])
        >>> f"{value:.6f}", gradient.tolist()
        ('0.693147', [[0.5, -0.5]])
    """

    def _element_shape(self, pred: FloatArray) -> tuple[int, ...]:
        return pred.shape[:-1]

    def _check_target(self, target: ArrayLike, pred: FloatArray) -> NDArray[Any]:
        truth = np.asarray(target)
        if truth.size == 0 and not isinstance(target, np.ndarray):
            truth = truth.astype(np.intp)  # an empty list has no integers to tell its kind
        if truth.dtype.kind not in "iu":
            raise TypeError(f"target: expected integer classes, got dtype {truth.dtype}")
        if truth.shape != pred.shape[:-1]:
            raise ValueError(f"target: expected shape {pred.shape[:-1]}, got {truth.shape}")
        return truth

    def _sum(
        self,
        pred: FloatArray,
        target: NDArray[Any],
        weight: FloatArray | None,
        keep: Mask | None,
        scale: float,
    ) -> tuple[float, FloatArray]:
        if keep is not None:
            gradient = np.zeros_like(pred, order="C")
            if weight is not None:
                weight = weight[keep]
            total, gradient[keep] = self._sum(pred[keep], target[keep], weight, None, scale)
            return total, gradient
        classes = pred.shape[-1]
        logits, rows = pred.reshape(-1, classes), target.reshape(-1)
        if len(rows) == 0:
            return 0.0, np.zeros_like(pred, order="C")
        if rows.min() < 0 or rows.max() >= classes:
            wrong = rows[(rows < 0) | (rows >= classes)][0]
            raise ValueError(f"target: expected classes in 0 .. {classes - 1}, got {wrong}")
        index = np.arange(len(rows))
        # Shifted by the maximum so that exp cannot overflow.
        shifted = logits - logits.max(axis=1, keepdims=True)
        p = np.exp(shifted)
        sums = p.sum(axis=1)
        losses = np.log(sums) - shifted[index, rows]
        # softmax - one-hot
        p *= (1.0 / sums)[:, None]
        p[index, rows] -= 1.0
        if weight is None:
            total = float(np.add.reduce(losses, dtype=np.float64))
            p *= scale
        else:
            weight = weight.reshape(-1)
            total = _dot(weight, losses)
            p *= (weight * scale)[:, None]
        return total, p.reshape(pred.shape)


_BY_NAME: dict[str, type[Loss]] = {"mse": MSE, "mae": MAE, "huber": Huber, "cross_entropy": CrossEntropy}


def get(loss: str | LossFunction) -> LossFunction:
    """The loss of this name with its defaults, or `loss` itself where it is one.

    Args:
        loss: `"mse"`, `"mae"`, `"huber"`, `"cross_entropy"`, a `Loss`, or a function called like one.

    Raises:
        TypeError: `loss` is neither a name nor callable.
        ValueError: There is no loss of this name.

    Example:
        >>> get("mse")
        MSE(divisor='elements')
    """
    if isinstance(loss, str):
        return _BY_NAME[check_choice("loss", loss, _BY_NAME)]()
    if isinstance(loss, type) or not callable(loss):
        raise TypeError(f"loss: expected a name, a Loss or a function, got {loss!r}")
    return loss


def _dtype_of(pred: ArrayLike) -> np.dtype[Any]:
    """What a loss computes in."""
    return pred.dtype if isinstance(pred, np.ndarray) and pred.dtype == np.float64 else FLOAT32


def _difference(pred: FloatArray, target: NDArray[Any], keep: Mask | None) -> FloatArray:
    """`pred - target` as a new C-contiguous array, 0 where masked, without reading there."""
    if keep is None:
        error = np.empty(pred.shape, pred.dtype)
        np.subtract(pred, target, out=error)
    else:
        error = np.zeros(pred.shape, pred.dtype)
        np.subtract(pred, target, out=error, where=keep)
    return error


def _dot(a: FloatArray, b: FloatArray) -> float:
    """Sum of the products, in float64."""
    return float(np.add.reduce(a * b, axis=None, dtype=np.float64))


def _check_mask(mask: ArrayLike, shape: tuple[int, ...]) -> Mask:
    array = np.asarray(mask)
    if array.dtype != np.bool_:
        raise TypeError(f"mask: expected booleans, got dtype {array.dtype}")
    return _spread("mask", array, shape)


def _check_weights(
    weights: ArrayLike, shape: tuple[int, ...], keep: Mask | None, dtype: np.dtype[Any]
) -> FloatArray:
    """The weights in the shape of the elements, 0 where masked."""
    array: FloatArray = _spread("weights", check_array("weights", weights, dtype=dtype), shape)
    if keep is not None:
        array = np.where(keep, array, dtype.type(0))
    if not (array >= 0).all():
        wrong = array[~(array >= 0)][0]
        raise ValueError(f"weights: expected numbers of at least 0, got {wrong}")
    return array


def _spread(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """View an array of the leading axes of `shape` (or with extents of 1) in the whole of it."""
    if array.ndim == len(shape) + 1 and array.shape[-1] == 1:
        array = array[..., 0]
    fits = array.ndim <= len(shape) and all(
        got in (1, want) for got, want in zip(array.shape, shape[: array.ndim], strict=True)
    )
    if not fits:
        raise ValueError(f"{name}: expected shape {shape}, or its leading axes, got {array.shape}")
    return np.broadcast_to(array.reshape(array.shape + (1,) * (len(shape) - array.ndim)), shape)
