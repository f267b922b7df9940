"""How far a kernel may be from the float64 reference: one table, never loosened at a call site.

The tolerance of an element is `multiple * eps * E + flushed`, eps being that of the kernel's dtype. E is the
size, in eps, of the rounding error of that very element, found by `tests.running_error` along with its value:
an element that is a sum of large terms cancelling to little may be off by more than its own eps, one that is
not may not. E behaves as a standard deviation, so that the multiple says how many of them may occur. A
dropped term, a wrong lane or a wrong gate is off by thousands of E (`tests/test_tolerances.py` checks that
such mistakes fail). In float64 the reference errs as well, which the multiples have room for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.running_error import Bounded


class Tolerance(NamedTuple):
    multiple: float
    reason: str


_STATE = (
    "8 E: errors along c and h are partly correlated, which E neglects; in 10^7 elements the largest is 3.9 E"
)
_CARRIED = "8 E: the mirror image of c through the forget gates; the largest seen is 2.4 E"
_PRODUCT = "4 E: a sum of products, whose E is that of the worst data; the largest seen is 1.8 E"
_MERGED = (
    "8 E: as dx, then summed over T * B in blocks; rows share the errors of long sums in the gates, which E "
    "neglects: the largest seen is 1.9 E at 33 units, 4.3 E at 500 features"
)
_LINEAR = "4 E: a bias and a sum of products, whose E is that of the worst data"
_STEP = "4 E: some ten operations an element, each at most its u, so that even the worst signs make about 3 E"

TABLE = {
    # LSTM
    "y": Tolerance(8.0, _STATE),
    "h_n": Tolerance(8.0, _STATE),
    "c_n": Tolerance(8.0, _STATE),
    "dx": Tolerance(4.0, _PRODUCT),
    "dh_0": Tolerance(4.0, _PRODUCT),
    "dc_0": Tolerance(8.0, _CARRIED),
    "d_weight_ih": Tolerance(8.0, _MERGED),
    "d_weight_hh": Tolerance(8.0, _MERGED),
    "d_bias_ih": Tolerance(8.0, _MERGED),
    "d_bias_hh": Tolerance(8.0, _MERGED),
    # its variants
    "cells": Tolerance(8.0, _STATE),
    "gates": Tolerance(8.0, _STATE),
    "d_weight_ch": Tolerance(8.0, _MERGED),
    "d_weight_hr": Tolerance(8.0, _MERGED),
    "d_gain_ih": Tolerance(8.0, _MERGED),
    "d_gain_hh": Tolerance(8.0, _MERGED),
    "d_gain_c": Tolerance(8.0, _MERGED),
    "d_bias_c": Tolerance(8.0, _MERGED),
    # linear layer
    "linear_y": Tolerance(4.0, _LINEAR),
    "linear_dx": Tolerance(4.0, _LINEAR),
    "d_weight": Tolerance(4.0, _LINEAR),
    "d_bias": Tolerance(4.0, _LINEAR),
    # optimisers
    "params": Tolerance(4.0, _STEP),
    "velocity": Tolerance(4.0, _STEP),
    "m": Tolerance(4.0, _STEP),
    "v": Tolerance(4.0, _STEP),
}

# Kernels write numbers below the smallest normal one as zero; a few of them may meet in one element.
FLUSHED = 8


def excess(name: str, got: NDArray[np.floating], expected: Bounded) -> NDArray[np.float64]:
    """The error of each element as a multiple of its tolerance; NaN where `got` is NaN."""
    info = np.finfo(got.dtype)
    tolerance = TABLE[name].multiple * float(info.eps) * expected.error + FLUSHED * float(info.tiny)
    return np.abs(got.astype(np.float64) - expected.value) / tolerance


def assert_close(name: str, got: NDArray[np.floating], expected: Bounded) -> None:
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
