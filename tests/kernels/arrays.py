"""Arrays for the kernels to read and write: every memory layout they must cope with, and a guard around each.

An output is placed in a buffer full of a sentinel; `check` proves that nothing but the array's own elements
was written. Inputs are placed the same way, their surroundings being NaN, so that reading beyond them shows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]  # or float64
FLOAT32 = np.dtype(np.float32)
SENTINEL = -1234.5
MARGIN = 16  # elements on either side

Carve = Callable[..., NDArray]

# name -> function of (allocate, T, B, K) giving a view [T,B,K]
LAYOUTS: dict[str, Carve] = {
    "contiguous": lambda new, t, b, k: new(t, b, k),
    "batch_first": lambda new, t, b, k: new(b, t, k).swapaxes(0, 1),
    "reversed_time": lambda new, t, b, k: new(t, b, k)[::-1],
    "reversed_rows": lambda new, t, b, k: new(t, b, k)[:, ::-1],
    "reversed_batch_first": lambda new, t, b, k: new(b, t, k).swapaxes(0, 1)[::-1],
    "padded_rows": lambda new, t, b, k: new(t, b, k + 3)[:, :, :k],
    "column_slice": lambda new, t, b, k: new(t, b, k + 5)[:, :, 2 : k + 2],
    "every_other_step": lambda new, t, b, k: new(2 * t, b, k)[::2],
    "misaligned": lambda new, t, b, k: new(t * b * k + 1)[1:].reshape(t, b, k),
}


class Placed:
    """An array in one of the layouts, with what lies around it."""

    def __init__(self, shape: tuple[int, ...], layout: str, fill: float, dtype: np.dtype) -> None:
        carve = LAYOUTS[layout] if len(shape) == 3 else _two_dimensional(LAYOUTS[layout])
        self._fill = fill
        self._buffer = np.zeros(0, dtype)
        self.array: FloatArray = carve(self._new_floats, *shape)
        self._inside = np.zeros(0, bool)
        carve(self._new_flags, *shape)[...] = True

    def check(self, name: str) -> None:
        """Fail if anything around the array was written."""
        around = self._buffer[~self._inside]
        assert (around == self._fill).all(), f"{name}: the kernel wrote outside of it"

    def _new_floats(self, *shape: int) -> FloatArray:
        count = int(np.prod(shape))
        # start on a cache line, so that only "misaligned" is
        raw = np.full(count + 2 * MARGIN + 16, self._fill, self._buffer.dtype)
        start = -raw.ctypes.data % 64 // raw.itemsize
        self._buffer = raw[start : start + count + 2 * MARGIN]
        return self._buffer[MARGIN : MARGIN + count].reshape(shape)

    def _new_flags(self, *shape: int) -> NDArray[np.bool_]:
        self._inside = np.zeros(self._buffer.size, bool)
        return self._inside[MARGIN : MARGIN + int(np.prod(shape))].reshape(shape)


def _two_dimensional(carve: Carve) -> Carve:
    return lambda new, n, k: carve(new, 1, n, k)[0]


def output(shape: tuple[int, ...], layout: str = "contiguous", dtype: np.dtype = FLOAT32) -> Placed:
    """A guarded array to be written."""
    return Placed(shape, layout, SENTINEL, dtype)


def placed_input(values: FloatArray | None, layout: str = "contiguous") -> FloatArray | None:
    """The values in the given layout, read-only, NaN around them."""
    if values is None:
        return None
    placed = Placed(values.shape, layout, np.nan, values.dtype)
    placed.array[...] = values
    placed.array.setflags(write=False)
    return placed.array


def same_bits(a: FloatArray, b: FloatArray) -> bool:
    """Whether two arrays are equal bit for bit."""
    return (
        a.shape == b.shape
        and a.dtype == b.dtype
        and np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()
    )


def assert_same_bits(name: str, a: FloatArray, b: FloatArray) -> None:
    """Fail, with the first difference, unless two arrays are equal bit for bit."""
    if same_bits(a, b):
        return
    assert a.dtype == b.dtype, f"{name}: dtypes {a.dtype} and {b.dtype}"
    assert a.shape == b.shape, f"{name}: shapes {a.shape} and {b.shape}"
    bits = f"u{a.itemsize}"
    different = np.ascontiguousarray(a).view(bits) != np.ascontiguousarray(b).view(bits)
    where = tuple(int(i) for i in np.argwhere(different)[0])
    raise AssertionError(
        f"{name}: {int(different.sum())} of {a.size} elements differ in their bits; "
        f"first at {where}: {a[where]!r} and {b[where]!r}"
    )
