"""What kernels are given: arrays of floats as they read them, and which steps of each row they compute.

`Spans` holds `lengths` and `resets`, checked and time-major, None where they would change nothing. Layers and
`lstmx.functional` share these checks; the reference has arrays of its own. Nothing is computed here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lstmx._checks import FLOAT32 as FLOAT32  # layers take it from here
from lstmx._checks import FloatArray, check_array, check_choice, check_int, describe_shape

Lengths = NDArray[np.int64]
Resets = NDArray[np.bool_]


class Spans(NamedTuple):
    """Which steps of each row are computed, and where a row begins anew.

    Attributes:
        lengths: int64 [B], the number of steps of each row; None: all T.
        resets: bool [T,B], True where the state is zero before the step; None: nowhere.
    """

    lengths: Lengths | None
    resets: Resets | None


def check_dtype(name: str, value: Any) -> np.dtype[Any]:
    """Return the dtype of a layer's numbers: "float32" or "float64"."""
    return np.dtype(check_choice(name, value, ("float32", "float64")))


def as_floats(
    name: str, value: Any, shape: tuple[int, ...] | None = None, dtype: np.dtype[Any] = FLOAT32
) -> FloatArray:
    """Return `value` as kernels read it (aligned, last axis contiguous); a copy only if need be."""
    if type(value) is np.ndarray and value.dtype == dtype:
        if shape is not None and value.shape != shape:
            check_array(name, value, shape=shape)
        array = value
    else:
        array = np.asarray(check_array(name, value, shape=shape, dtype=dtype))
    flags = array.flags
    if flags.carray:  # C-contiguous, aligned (and writable: the usual case, in one question)
        return array
    if not flags.aligned or (array.shape[-1] > 1 and array.strides[-1] != array.itemsize):
        return array.copy(order="C")
    return array


def as_dense(name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype[Any] = FLOAT32) -> FloatArray:
    """Return `value` as kernels read parameters and states: C-contiguous, of `shape`."""
    return np.ascontiguousarray(as_floats(name, value, shape, dtype))


def check_spans(lengths: Any, resets: Any, shape: tuple[int, ...], batch_first: bool = False) -> Spans | None:
    """Return what `lengths` and `resets` say of an x of `shape`; None where that is nothing.

    Args:
        lengths: Integers [B], from 0 to T; of an unbatched x [T,I] a single one.
        resets: bool of the shape of x without its last axis: [T,B], [B,T] if `batch_first`, or [T].
        shape: The shape of x, [T,B,I], [B,T,I] if `batch_first`, or [T,I].
        batch_first: Whether x has the batch as its first axis.

    Raises:
        TypeError: `lengths` are not integers or `resets` not bool.
        ValueError: A shape differs or a length is out of range.
    """
    steps, *rows = (shape[1], shape[0]) if batch_first and len(shape) == 3 else shape[:-1]
    checked = None if lengths is None else _check_lengths(lengths, steps, tuple(rows))
    marks = None if resets is None else _check_resets(resets, shape[:-1])
    if marks is not None:
        if len(shape) == 2:
            marks = marks[:, np.newaxis]
        elif batch_first:
            marks = marks.T
    return None if checked is None and marks is None else Spans(checked, marks)


def padded_steps(
    spans: Spans | None, shape: tuple[int, ...], batch_first: bool | None
) -> NDArray[np.bool_] | None:
    """Return which steps of an x of `shape` are padding, as bool of that shape without its last axis.

    None: none of them, or the layer reads no time (`batch_first` is None).
    """
    if spans is None or spans.lengths is None or batch_first is None:
        return None
    if len(shape) == 2:
        return np.arange(shape[0]) >= spans.lengths
    if batch_first:
        return np.arange(shape[1]) >= spans.lengths[:, np.newaxis]
    return np.arange(shape[0])[:, np.newaxis] >= spans.lengths


def check_checkpoint_steps(value: Any) -> int | None:
    """Return `value` if it is None or an integer of at least 1."""
    return None if value is None else check_int("checkpoint_steps", value, minimum=1)


def _check_lengths(value: Any, steps: int, rows: tuple[int, ...]) -> Lengths | None:
    array = _asarray("lengths", value, "integers")
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"lengths: expected integers, got dtype {array.dtype}")
    if array.shape != rows:
        raise ValueError(f"lengths: expected shape {describe_shape(rows)}, got {array.shape}")
    wrong = (array < 0) | (array > steps)
    if wrong.any():
        raise ValueError(f"lengths: expected 0 to {steps}, the steps of x, got {array[wrong][0]}")
    if (array == steps).all():
        return None
    return array.astype(np.int64).reshape(-1)  # a copy: the caller may change his own before backward


def _check_resets(value: Any, shape: tuple[int, ...]) -> Resets | None:
    array = _asarray("resets", value, "True and False")
    if array.dtype != np.bool_:
        raise TypeError(f"resets: expected True and False, got dtype {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"resets: expected shape {describe_shape(shape)}, got {array.shape}")
    return array if array.any() else None


def _asarray(name: str, value: Any, what: str) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise TypeError(f"{name}: expected {what}, got {type(value).__name__} ({error})") from None
