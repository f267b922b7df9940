"""What LayerNorm and BatchNorm share: mean 0 and variance 1 along an axis, and the way back.

In float64, on `[N, F]` arrays: precision hangs on the sums, and memory takes the time anyway. Sources: Ba et
al. 2016, "Layer Normalization"; Ioffe and Szegedy 2015, "Batch Normalization".
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

DoubleArray: TypeAlias = NDArray[np.float64]


class Normalized(NamedTuple):
    """Numbers `[N, F]` with mean 0 and variance 1 along an axis, and what they had there before."""

    values: DoubleArray
    mean: DoubleArray  # of extent 1 along the axis, as the others
    var: DoubleArray  # of the N or F numbers themselves, not an estimate for others
    scale: DoubleArray  # 1 / sqrt(var + eps), what they were multiplied by


def normalize(x: DoubleArray, axis: int, eps: float) -> Normalized:
    """Return x with mean 0 and variance 1 (less what eps makes of it) along an axis."""
    # 1. the statistics
    mean = _mean(x, axis)
    values = x - mean
    var = _mean(np.square(values), axis)
    # 2. the values
    scale = 1.0 / np.sqrt(var + eps)
    values *= scale
    return Normalized(values, mean, var, scale)


def normalize_backward(d_values: DoubleArray, normalized: Normalized, axis: int) -> DoubleArray:
    """Return the gradient by x, given that by the normalized values."""
    values, _, _, scale = normalized
    # 2. the values, 1. the statistics: through the mean, and through the variance
    through_mean = _mean(d_values, axis)
    through_var = _mean(d_values * values, axis)
    dx: DoubleArray = values * -through_var
    dx += d_values
    dx -= through_mean
    dx *= scale
    return dx


def _mean(array: DoubleArray, axis: int) -> DoubleArray:
    """Return the mean along an axis, which stays with extent 1; 0 of no numbers."""
    total: DoubleArray = array.sum(axis=axis, keepdims=True)
    total /= max(array.shape[axis], 1)
    return total
