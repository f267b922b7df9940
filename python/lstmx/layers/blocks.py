"""Arrays `[N, F]` in blocks of rows: float64 copies that stay in the cache instead of going through memory.

For layers that are a few passes of NumPy over all steps. The blocks depend on the width F alone, so that sums
over rows have one order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lstmx._checks import FloatArray

DoubleArray: TypeAlias = NDArray[np.float64]

_NUMBERS = 1 << 14  # in a block: 128 KiB of float64


def row_blocks(rows: FloatArray) -> Iterator[slice]:
    """Yield slices that cover the rows of `[N, F]` in order."""
    count = max(_NUMBERS // rows.shape[1], 1)
    for start in range(0, len(rows), count):
        yield slice(start, start + count)


def map_rows(function: Callable[..., DoubleArray], *arrays: FloatArray) -> FloatArray:
    """Return what `function(*blocks)` gives for the blocks of arrays of one shape `[..., F]`, put together.

    The blocks `[n, F]` are copies, as of `sum_rows`; the result has the arrays' dtype.
    """
    shape, dtype = arrays[0].shape, arrays[0].dtype
    rows = [np.ascontiguousarray(array).reshape(-1, max(shape[-1], 1)) for array in arrays]
    made = np.empty(rows[0].shape, dtype)
    for part in row_blocks(made):
        made[part] = function(*[array[part].astype(np.float64) for array in rows])
    return made.reshape(shape)


def sum_rows(function: Callable[..., DoubleArray], *arrays: FloatArray) -> DoubleArray:
    """Return the sum over all rows of what `function(*blocks)` gives for a block of each array, [F].

    The blocks `[n, F]` are copies, which `function` may change.
    """
    total = np.zeros(arrays[0].shape[1])
    for part in row_blocks(arrays[0]):
        total += function(*[array[part].astype(np.float64) for array in arrays])
    return total


def column_sums(a: DoubleArray, b: DoubleArray | None = None) -> DoubleArray:
    """Return the sum of each column of a, or of a * b: `[F]` of `[n, F]`."""
    sums: DoubleArray = np.add.reduce(a, axis=0) if b is None else np.einsum("nf,nf->f", a, b)
    return sums


def row_sums(a: DoubleArray, b: DoubleArray | None = None) -> DoubleArray:
    """Return the sum of each row of a, or of a * b: `[n, 1]` of `[n, F]`."""
    sums: DoubleArray = np.add.reduce(a, axis=1) if b is None else np.einsum("nf,nf->n", a, b)
    return sums[:, np.newaxis]
