"""How far a float32 kernel may be from the float64 reference: one table, never loosened at a call site.

The tolerance of an element is `multiple * eps * E + FLUSHED`. E is the error, in float32 eps, that rounding
can put on that very element, found by `tests.running_error` along with its value: an element that is a sum
of large terms cancelling to little may be off by more than its own eps, one that is not may not. A dropped
term, a wrong lane or a wrong gate is off by thousands of E (`tests/test_tolerances.py` checks that such
errors fail).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.running_error import EPS, Bounded


class Tolerance(NamedTuple):
    multiple: float
    reason: str


_FORWARD = "1: the kernel evaluates the very formulas that E was found for"
_BACKWARD = (
    "1: as forward; tanh(c) comes back as h / o, whose two roundings are within the 4 ulp that E has for it"
)
_MERGED = "1: as backward; summing over T * B in blocks only makes the error smaller than E"
_LINEAR = "1: a bias and one sum of products"
_STEP = "1: few operations an element, each of them in E; constants are rounded once, as E's inputs are"

TABLE = {
    # LSTM
    "y": Tolerance(1.0, _FORWARD),
    "h_n": Tolerance(1.0, _FORWARD),
    "c_n": Tolerance(1.0, _FORWARD),
    "dx": Tolerance(1.0, _BACKWARD),
    "dh_0": Tolerance(1.0, _BACKWARD),
    "dc_0": Tolerance(1.0, _BACKWARD),
    "d_weight_ih": Tolerance(1.0, _MERGED),
    "d_weight_hh": Tolerance(1.0, _MERGED),
    "d_bias_ih": Tolerance(1.0, _MERGED),
    "d_bias_hh": Tolerance(1.0, _MERGED),
    # linear layer
    "linear_y": Tolerance(1.0, _LINEAR),
    "linear_dx": Tolerance(1.0, _LINEAR),
    "d_weight": Tolerance(1.0, _LINEAR),
    "d_bias": Tolerance(1.0, _LINEAR),
    # optimisers
    "params": Tolerance(1.0, _STEP),
    "velocity": Tolerance(1.0, _STEP),
    "m": Tolerance(1.0, _STEP),
    "v": Tolerance(1.0, _STEP),
}

# Kernels write numbers below the smallest normal float as zero; a few of them may meet in one element.
FLUSHED = 8 * float(np.finfo(np.float32).tiny)


def excess(name: str, got: NDArray[np.float32], expected: Bounded) -> NDArray[np.float64]:
    """The error of each element as a multiple of its tolerance; NaN where `got` is NaN."""
    tolerance = TABLE[name].multiple * EPS * expected.error + FLUSHED
    return np.abs(got.astype(np.float64) - expected.value) / tolerance


def assert_close(name: str, got: NDArray[np.float32], expected: Bounded) -> None:
    """Fail unless every element is within its tolerance."""
    assert got.shape == expected.shape, f"{name}: shape {got.shape}, expected {expected.shape}"
    ratio = excess(name, got, expected)
    wrong = ~(ratio <= 1.0)  # NaN is wrong as well
    if wrong.any():
        where = tuple(int(i) for i in np.unravel_index(np.argmax(np.where(wrong, ratio, 0.0)), got.shape))
        if np.isnan(ratio).any():
            where = tuple(int(i) for i in np.argwhere(np.isnan(ratio))[0])
        raise AssertionError(
            f"{name}: {int(wrong.sum())} of {got.size} elements beyond tolerance; worst at {where}: "
            f"got {got[where]!r}, expected {expected.value[where]!r}, {ratio[where]:.3g} times its tolerance"
        )
