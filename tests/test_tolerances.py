"""The tolerances can fail: small mistakes that kernels make are beyond them, and rounding is not."""

from __future__ import annotations

import numpy as np
import pytest

from lstmx import reference
from tests.kernels.lstm_case import PARAMETERS, expected, make_case
from tests.tolerances import TABLE, assert_close, excess


@pytest.fixture
def case(rng):
    return make_case(rng, 7, 9, 33, 17)


def solve(case, **changed):
    """The float64 solution rounded to float32: a kernel without an error of its own."""
    given = case | changed
    y, h_n, c_n, tape = reference.lstm_forward(*(given[n] for n in ("x", *PARAMETERS, "h_0", "c_0")))
    gradients = reference.lstm_backward(tape, given["dy"], given["dh_n"], given["dc_n"])
    outputs = {"y": y, "h_n": h_n, "c_n": c_n, **gradients._asdict()}
    return {name: array.astype(np.float32) for name, array in outputs.items()}


def rejected(name, got, want):
    try:
        assert_close(name, got, want)
    except AssertionError:
        return True
    return False


def test_every_tolerance_has_a_reason():
    for name, tolerance in TABLE.items():
        assert tolerance.multiple > 0, name
        assert tolerance.reason, name


def test_rounding_alone_passes(case):
    want = expected(case)
    for name, array in solve(case).items():
        assert_close(name, array, want[name])


@pytest.mark.parametrize("name", ["weight_ih", "weight_hh"])
def test_one_dropped_product_is_seen_everywhere(case, name):
    """One of 4H (I + H) weights taken as zero shows in every output and gradient."""
    weights = case[name].copy()
    weights[3, 5] = 0.0
    want = expected(case)
    for output, array in solve(case, **{name: weights}).items():
        assert rejected(output, array, want[output]), output


def test_two_exchanged_lanes_are_seen(case):
    want = expected(case)
    for name, array in solve(case).items():
        swapped = array.copy()
        swapped[..., [2, 3]] = swapped[..., [3, 2]]
        assert rejected(name, swapped, want[name]), name


def test_a_lost_step_or_row_is_seen_in_the_merged_gradients(case):
    want = expected(case)
    dy_lost = case["dy"].copy()
    dy_lost[3, 4] = 0.0
    got = solve(case, dy=dy_lost)
    for name in ("dx", "dh_0", "dc_0", "d_weight_ih", "d_weight_hh", "d_bias_ih", "d_bias_hh"):
        assert rejected(name, got[name], want[name]), name


def test_a_relative_error_of_a_ten_thousandth_is_seen_in_most_elements(case):
    want = expected(case)
    for name, array in solve(case).items():
        off = (array * np.float32(1.0001)).astype(np.float32)
        ratio = excess(name, off, want[name])
        assert np.median(ratio) > 1.0, f"{name}: median {np.median(ratio):.2f}"


def test_nan_is_seen(case):
    want = expected(case)
    for name, array in solve(case).items():
        bad = array.copy()
        bad.flat[0] = np.nan
        with pytest.raises(AssertionError, match=f"{name}: 1 of"):
            assert_close(name, bad, want[name])


def test_a_wrong_shape_is_seen(case):
    with pytest.raises(AssertionError, match="y: shape"):
        assert_close("y", solve(case)["y"][:1], expected(case)["y"])
