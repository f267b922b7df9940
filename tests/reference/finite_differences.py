"""Central differences in float64: the judge of every gradient in the reference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

STEP = 1e-5
# Truncation is STEP^2 / 6 = 2e-11 times a third derivative; those met here reach some tens.
TRUNCATION = 2e-9
# Each of the two values is wrong by some eps of its size, and is then divided by 2 STEP.
ROUNDING = 4 * np.finfo(np.float64).eps / STEP

Array = NDArray[np.float64]


def numerical_gradient(scalar: Callable[[Array], float], at: Array) -> Array:
    """The gradient of `scalar` at a point, one element at a time."""
    gradient = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        ahead, behind = at.copy(), at.copy()
        ahead[index] += STEP
        behind[index] -= STEP
        gradient[index] = (scalar(ahead) - scalar(behind)) / (2 * STEP)
    return gradient


def assert_gradient(scalar: Callable[[Array], float], at: Array, gradient: Array, name: str) -> None:
    """Compare a gradient with the numerical one, element by element."""
    assert gradient.shape == at.shape, f"{name}: shape {gradient.shape}, expected {at.shape}"
    expected = numerical_gradient(scalar, at)
    absolute = TRUNCATION + ROUNDING * abs(scalar(at))
    np.testing.assert_allclose(gradient, expected, rtol=TRUNCATION, atol=absolute, err_msg=name)
