"""The linear kernels of every target against the float64 reference: output and all gradients."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lstmx import _core, reference
from tests.kernels.arrays import LAYOUTS, assert_same_bits, output, placed_input
from tests.running_error import bounded
from tests.tolerances import assert_close

SIZES = (1, 7, 8, 9, 15, 16, 17, 31, 33)
COVERING = [(SIZES[(a + b) % 9], SIZES[b], SIZES[a]) for a in range(9) for b in range(9)]


def make_case(rng, rows, inputs, outputs, bias=True, dtype=np.float32):
    shapes = {
        "weight": (outputs, inputs),
        "bias": (outputs,),
        "x": (rows, inputs),
        "dy": (rows, outputs),
    }
    case = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    return case if bias else case | {"bias": None}


def run(case, *, threads=1, layout="contiguous", want_dx=True, initial=0.0, plan=None, version=1):
    (rows, inputs), outputs = case["x"].shape, case["weight"].shape[0]
    dtype = case["x"].dtype
    x, dy = placed_input(case["x"], layout), placed_input(case["dy"], layout)
    y, dx = output((rows, outputs), layout, dtype), output((rows, inputs), layout, dtype)
    d_weight = np.full((outputs, inputs), initial, dtype)
    d_bias = None if case["bias"] is None else np.full(outputs, initial, dtype)
    if plan is None:
        plan = (_core.LinearPlan if dtype == np.float32 else _core.LinearPlan64)(inputs, outputs)
    assert plan.forward(version, case["weight"], case["bias"], x, y.array, False, threads) is None
    inference = y.array.copy()
    tape = plan.forward(version, case["weight"], case["bias"], x, y.array, True, threads)
    assert_same_bits("y in training", y.array, inference)
    tape.backward(x, dy, dx.array if want_dx else None, d_weight, d_bias, threads)
    for name, placed in (("y", y), ("dx", dx)):
        placed.check(name)
    result = {"linear_y": y.array, "linear_dx": dx.array if want_dx else None, "d_weight": d_weight}
    return {name: array for name, array in (result | {"d_bias": d_bias}).items() if array is not None}


def assert_matches(got, case):
    given = {name: bounded(array) for name, array in case.items()}
    y = reference.linear_forward(given["x"], given["weight"], given["bias"])
    gradients = reference.linear_backward(given["x"], given["weight"], given["dy"])
    want = dict(zip(("linear_y", "linear_dx", "d_weight", "d_bias"), (y, *gradients), strict=True))
    for name, array in got.items():
        assert_close(name, array, want[name])


@pytest.mark.parametrize("sizes", COVERING, ids="N{0[0]}-in{0[1]}-out{0[2]}".format)
def test_output_and_all_gradients(target, dtype, rng, sizes):
    case = make_case(rng, *sizes, dtype=dtype)
    assert_matches(run(case), case)


@pytest.mark.slow
@pytest.mark.parametrize("rows", SIZES)
def test_every_combination_of_sizes(target, dtype, rng, rows):
    for inputs, outputs in itertools.product(SIZES, SIZES):
        case = make_case(rng, rows, inputs, outputs, dtype=dtype)
        assert_matches(run(case), case)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_many_rows(target, dtype, rng, threads):
    """Sums over several blocks of rows, and work for more than one thread."""
    case = make_case(rng, 2000, 65, 67, dtype=dtype)
    got = run(case, threads=threads)
    assert_matches(got, case)
    for name, array in run(case).items():
        assert_same_bits(name, got[name], array)


@pytest.mark.parametrize("few", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("many", [1, 5, 16, 33])
@pytest.mark.parametrize("rows", [1, 15, 40])
def test_few_columns(target, dtype, rng, rows, many, few):
    """With few columns in the result, of y or of dx, rows are in the lanes."""
    for sizes in ((rows, many, few), (rows, few, many)):
        case = make_case(rng, *sizes, dtype=dtype)
        assert_matches(run(case), case)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rows", [1, 2, 19])
def test_layouts(target, dtype, rng, layout, rows):
    for outputs in (17, 3):
        case = make_case(rng, rows, 9, outputs, dtype=dtype)
        got = run(case, layout=layout)
        assert_matches(got, case)
        for name, array in run(case).items():
            assert_same_bits(name, got[name], array)


def test_without_bias(target, dtype, rng):
    case = make_case(rng, 9, 5, 17, bias=False, dtype=dtype)
    got = run(case)
    assert "d_bias" not in got
    assert_matches(got, case)


def test_dx_not_wanted(target, rng):
    case = make_case(rng, 9, 5, 17)
    whole = run(case)
    for name, array in run(case, want_dx=False).items():
        assert_same_bits(name, array, whole[name])


def test_no_rows(target, rng):
    got = run(make_case(rng, 0, 5, 17), initial=2.0)
    assert (got["d_weight"] == 2.0).all()
    assert (got["d_bias"] == 2.0).all()


def test_parameter_gradients_are_added(target, dtype, rng):
    case = make_case(rng, 9, 5, 17, dtype=dtype)
    fresh, added = run(case), run(case, initial=3.0)
    for name in ("d_weight", "d_bias"):
        assert_same_bits(name, added[name], fresh[name] + dtype.type(3.0))


def test_versions_and_targets_of_one_plan(rng):
    from lstmx import targets

    plan = _core.LinearPlan(5, 9)
    for version, name in enumerate((*_core.supported_targets(), *reversed(_core.supported_targets()))):
        with targets.use(name):
            case = make_case(rng, 4, 5, 9)
            assert_matches(run(case, plan=plan, version=version), case)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_one_bad_row_leaves_the_others_alone(target, rng, poison):
    case = make_case(rng, 9, 5, 17)
    clean = run(case)
    case["x"][4], case["dy"][4] = poison, poison
    got = run(case)
    others = np.arange(9) != 4
    for name in ("linear_y", "linear_dx"):
        assert_same_bits(name, got[name][others], clean[name][others])
    assert not np.isfinite(got["linear_y"][4]).any()
