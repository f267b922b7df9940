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


def sum_rows(function: Callable[..., DoubleArray], *arrays: FloatArray) -> DoubleArray:
    """Return the sum over all rows of `function(*blocks)`, where a block of each array is `[n, F]`."""
    total = np.zeros(arrays[0].shape[1])
    for part in row_blocks(arrays[0]):
        total += np.add.reduce(function(*[array[part] for array in arrays]), axis=0, dtype=np.float64)
    return total
