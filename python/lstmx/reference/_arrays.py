"""What the reference shares: conversion with a shape check to float64, lengths and resets, and stacking.

An object that is not an ndarray but speaks NumPy's protocols (`__array_ufunc__`) passes unchanged, so that an
array that carries an error bound beside its values can travel through the same formulas.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lstmx._checks import describe_shape

Array: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]


def as_float64(name: str, value: ArrayLike) -> Array:
    """Return `value` as a new float64 array; what does not hold real numbers is refused with TypeError."""
    if not isinstance(value, np.ndarray) and hasattr(value, "__array_ufunc__"):
        return value  # type: ignore[return-value]
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected real numbers, got dtype {array.dtype}")
    return array.astype(np.float64)


def float64(name: str, value: ArrayLike, shape: tuple[int | None, ...]) -> Array:
    """The same, after comparing the shape (None: any extent) with `shape`."""
    array = as_float64(name, value)
    matches = len(shape) == array.ndim and all(
        want is None or want == got for want, got in zip(shape, array.shape, strict=True)
    )
    if not matches:
        raise ValueError(f"{name}: expected shape {describe_shape(shape)}, got {array.shape}")
    return array


def float64_or_zeros(name: str, value: ArrayLike | None, shape: tuple[int, ...]) -> Array:
    """Return `value` as float64, or zeros of `shape` where it is None."""
    return np.zeros(shape) if value is None else float64(name, value, shape)


def read_lengths(lengths: ArrayLike | None, steps: int, batch: int) -> NDArray[np.int64]:
    """Return the number of steps of each row, [B]; None is all of them."""
    if lengths is None:
        return np.full(batch, steps)
    array = np.asarray(lengths)
    if array.dtype.kind not in "iu":
        raise TypeError(f"lengths: expected integers, got dtype {array.dtype}")
    if array.shape != (batch,):
        raise ValueError(f"lengths: expected shape ({batch},), got {array.shape}")
    if np.any(array < 0) or np.any(array > steps):
        raise ValueError(f"lengths: expected 0 to {steps}, the steps of x, got {array.tolist()}")
    return array.astype(np.int64)


def read_resets(resets: ArrayLike | None, steps: int, batch: int) -> Flags:
    """Return whether the state is zero before each step, [T, B]; None is nowhere."""
    if resets is None:
        return np.zeros((steps, batch), bool)
    array = np.asarray(resets)
    if array.dtype.kind != "b":
        raise TypeError(f"resets: expected True and False, got dtype {array.dtype}")
    if array.shape != (steps, batch):
        raise ValueError(f"resets: expected shape ({steps}, {batch}), got {array.shape}")
    return array.copy()


def stack(items: list[Array], shape: tuple[int, ...]) -> Array:
    """Stack arrays of one `shape` along a new first axis; no items give an array of length 0."""
    return np.stack(items) if items else np.zeros((0, *shape))
