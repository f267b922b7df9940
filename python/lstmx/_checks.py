"""Argument checks with one wording: the name, what was expected, what came.

Every public entry point runs its checks, in argument order, before it computes or writes anything. Only real
numbers become arrays of floats; complex, text, dates and objects are refused rather than cast.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32]  # or float64, where a layer or an argument says so

FLOAT32 = np.dtype(np.float32)

_REAL_KINDS = "biuf"


def describe_shape(shape: tuple[int | None, ...]) -> str:
    """`(None, 3)` as the text `(*, 3)`."""
    inner = ", ".join("*" if n is None else str(n) for n in shape)
    return f"({inner},)" if len(shape) == 1 else f"({inner})"


def check_shape(name: str, shape: tuple[int, ...], expected: tuple[int | None, ...]) -> None:
    """Refuse a shape that is not as expected with ValueError; None stands for any extent along its axis."""
    if len(expected) != len(shape) or any(
        want is not None and want != got for want, got in zip(expected, shape, strict=True)
    ):
        raise ValueError(f"{name}: expected shape {describe_shape(expected)}, got {shape}")


def check_array(
    name: str,
    value: Any,
    *,
    ndim: int | None = None,
    shape: tuple[int | None, ...] | None = None,
    finite: bool = False,
    dtype: np.dtype[Any] = FLOAT32,
) -> FloatArray:
    """Return `value` as an array of `dtype`, without a copy where it is one already.

    Args:
        name: The argument's name, for the message.
        value: An array or nested sequence of real numbers.
        ndim: The number of axes expected, or None for any.
        shape: The shape expected; None stands for any extent along that axis.
        finite: Whether NaN and infinity are refused.
        dtype: float32 or float64.

    Raises:
        TypeError: `value` does not hold real numbers.
        ValueError: The number of axes, the shape or a value is not as expected.
    """
    array = value if isinstance(value, np.ndarray) else _as_array(name, value)
    if array.dtype != dtype:
        if array.dtype.kind not in _REAL_KINDS:
            raise TypeError(f"{name}: expected real numbers, got dtype {array.dtype}")
        array = array.astype(dtype)
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name}: expected {ndim} dimensions, got shape {array.shape}")
    if shape is not None:
        check_shape(name, array.shape, shape)
    if finite and not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name}: expected finite numbers, got {array[where]} at index {where}")
    return array


def _as_array(name: str, value: Any) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise TypeError(
            f"{name}: expected an array of real numbers, got {type(value).__name__} ({error})"
        ) from None


def check_int(name: str, value: Any, *, minimum: int | None = None, maximum: int | None = None) -> int:
    """Return `value` as an int; bool and float are a TypeError, a value out of range a ValueError."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {value!r}") from None
    if minimum is not None and number < minimum:
        raise ValueError(f"{name}: expected at least {minimum}, got {number}")
    if maximum is not None and number > maximum:
        raise ValueError(f"{name}: expected at most {maximum}, got {number}")
    return number


def check_float(
    name: str,
    value: Any,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    exclusive: bool = False,
) -> float:
    """Return `value` as a finite float within the bounds (`exclusive`: the bounds themselves are refused)."""
    if isinstance(value, (bool, np.bool_, str, bytes)):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number, got {value!r}") from None
    if not math.isfinite(number):
        raise ValueError(f"{name}: expected a finite number, got {number}")
    if minimum is not None and (number < minimum or (exclusive and number == minimum)):
        raise ValueError(
            f"{name}: expected {'more than' if exclusive else 'at least'} {minimum}, got {number}"
        )
    if maximum is not None and (number > maximum or (exclusive and number == maximum)):
        raise ValueError(
            f"{name}: expected {'less than' if exclusive else 'at most'} {maximum}, got {number}"
        )
    return number


def check_bool(name: str, value: Any) -> bool:
    """Return `value` as a bool; anything but True and False is refused with TypeError."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def check_choice(name: str, value: Any, choices: Collection[str]) -> str:
    """Return `value` if it is one of `choices`; otherwise a ValueError that lists them."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}")
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}")
    return value
