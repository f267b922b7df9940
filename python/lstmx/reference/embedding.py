"""The embedding y = weight[x], forward and backward."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lstmx.reference._arrays import Array, float64


def embedding_forward(x: ArrayLike, weight: ArrayLike) -> Array:
    """Return weight[x]: https://docs.pytorch.org/docs/stable/generated/torch.nn.Embedding.html.

    Args:
        x: Integers from 0 to N - 1, [...].
        weight: [N, E].

    Returns:
        [..., E].

    Raises:
        TypeError: x does not hold integers, or weight no real numbers.
        ValueError: weight is no matrix, or an integer is out of range.

    Example:
        >>> embedding_forward([1, 0, 1], [[1.0, 2.0], [3.0, 4.0]]).tolist()
        [[3.0, 4.0], [1.0, 2.0], [3.0, 4.0]]
    """
    weight = float64("weight", weight, (None, None))
    return weight[_rows(x, len(weight))]


def embedding_backward(
    x: ArrayLike, weight: ArrayLike, dy: ArrayLike, padding_idx: int | None = None
) -> Array:
    """Return the gradient of a scalar by weight, [N, E], given its gradient by y.

    Args:
        x: The integers of the forward pass, [...].
        weight: The table of the forward pass, [N, E].
        dy: [..., E].
        padding_idx: The row whose gradient is 0; None is none.

    Raises:
        TypeError: x does not hold integers, or another argument no real numbers.
        ValueError: A shape does not fit the others, or an integer is out of range.

    Example:
        >>> embedding_backward([1, 0, 1], np.zeros((3, 1)), [[1.0], [2.0], [4.0]]).tolist()
        [[2.0], [5.0], [0.0]]
    """
    weight = float64("weight", weight, (None, None))
    rows = _rows(x, len(weight))
    dy = float64("dy", dy, (*rows.shape, weight.shape[1]))
    d_weight = np.zeros(weight.shape)
    for index in np.ndindex(rows.shape):
        if rows[index] != padding_idx:
            d_weight[rows[index]] += dy[index]
    return d_weight


def _rows(x: ArrayLike, count: int) -> NDArray[np.int64]:
    array = np.asarray(x)
    if array.dtype.kind not in "iu":
        raise TypeError(f"x: expected integers, got dtype {array.dtype}")
    if np.any(array < 0) or np.any(array >= count):
        raise ValueError(f"x: expected 0 to {count - 1}, the rows of weight, got {array.tolist()}")
    return array.astype(np.int64)
