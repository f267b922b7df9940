"""Products by engines: the error at each precision, what is out of their range, and rows that stand alone.

An engine multiplies numbers given as sums of bf16 parts (cpp/src/kernels/generic/tiles.h). At `highest` it
has to meet every test that multiply-add units meet: the target `emulated` runs all of this folder, as `amx`
does where there is one. Here is what only engines have.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstmx import _core, reference, targets
from tests.kernels import test_linear_kernels as linear
from tests.kernels.arrays import assert_same_bits
from tests.kernels.lstm_case import (
    ACTIVATION_GRADIENTS,
    OUTPUTS,
    PARAMETERS,
    assert_equal_results,
    make_case,
    run,
)

# the largest error beside the largest number, of outputs and gradients; a float32 has 6e-8
LARGEST_ERROR = {"high": 5e-5, "medium": 3e-2}
LOWER = ("high", "medium")


def engines(precision: str) -> list[str]:
    """The targets with an engine for this precision."""
    found = []
    for name in _core.supported_targets():
        with targets.use(name):
            if plan_of(precision, 64, 64).products(64)[1] > 0:
                found.append(name)
    return found


def plan_of(precision, inputs, hidden, engine="tiles"):
    return _core.LstmPlan(inputs, hidden, precision=precision, engine=engine)


def pairs():
    """(target, precision) of every engine and precision there is here."""
    return [(name, precision) for precision in ("highest", *LOWER) for name in engines(precision)]


def in_float64(case):
    names = (*PARAMETERS, "x", "h_0", "c_0", "dy", "dh_n", "dc_n")
    given = {name: case[name].astype(np.float64) for name in names}
    spans = {name: case[name] for name in ("lengths", "resets")}
    y, h_n, c_n, tape = reference.lstm_forward(
        *(given[name] for name in ("x", *PARAMETERS, "h_0", "c_0")), **spans
    )
    gradients = reference.lstm_backward(tape, given["dy"], given["dh_n"], given["dc_n"])
    return {"y": y, "h_n": h_n, "c_n": c_n} | gradients._asdict()


def errors(got, want):
    return {name: np.abs(got[name] - want[name]).max() / np.abs(want[name]).max() for name in got}


def solve(case, precision, **options):
    inputs, hidden = case["x"].shape[2], case["weight_hh"].shape[1]
    return run(case, plan=plan_of(precision, inputs, hidden), **options)


needs_engine = pytest.mark.skipif(
    not pairs(), reason="no engine runs on this machine: products by engines were NOT tested"
)


@needs_engine
class TestPrecision:
    @pytest.mark.parametrize("sizes", [(6, 21, 37, 43), (3, 5, 7, 33), (40, 33, 9, 12)], ids=str)
    @pytest.mark.parametrize("precision", LOWER)
    def test_errors(self, rng, precision, sizes):
        """Each precision keeps its bound, and is too much worse than the one above to be that one."""
        case = make_case(rng, *sizes)
        case["lengths"] = rng.integers(0, sizes[0] + 1, sizes[1])
        case["resets"] = rng.random(sizes[:2]) < 0.1
        want = in_float64(case)
        with targets.use("portable"):
            exact = errors(run(case), want)
        for name in engines(precision):
            with targets.use(name):
                got = errors(solve(case, precision), want)
            for what, error in got.items():
                assert 3 * exact[what] < error < LARGEST_ERROR[precision], (name, what)

    def test_engines_agree(self, rng):
        """One product of the same parts: only the order of the sums differs."""
        names = engines("medium")
        case = make_case(rng, 5, 20, 30, 40)
        with targets.use(names[0]):
            want = solve(case, "medium")
        for name in names[1:]:
            with targets.use(name):
                got = solve(case, "medium")
            for what, array in got.items():
                assert np.abs(array - want[what]).max() < 1e-2 * np.abs(want[what]).max(), (name, what)

    @pytest.mark.parametrize("precision", LOWER)
    def test_linear(self, rng, precision):
        case = linear.make_case(rng, 300, 70, 37)
        weight, x, dy = (case[name].astype(np.float64) for name in ("weight", "x", "dy"))
        want = {"linear_y": x @ weight.T + case["bias"], "linear_dx": dy @ weight, "d_weight": dy.T @ x}
        for name in engines(precision):
            with targets.use(name):
                plan = _core.LinearPlan(70, 37, precision=precision, engine="tiles")
                got = linear.run(case, plan=plan)
            for what, value in want.items():
                error = np.abs(got[what] - value).max() / np.abs(value).max()
                assert 1e-6 < error < LARGEST_ERROR[precision], (name, what)

    def test_errors_at_highest_beside_multiply_add_units(self, request):
        """Over random cases the median of the ratio of both largest errors is below 1."""
        cases = 1000 if request.config.getoption("--runslow") else 60
        ratios = {}
        for seed in range(cases):
            case = random_case(np.random.default_rng(seed), heavy_tailed=seed % 2 == 1)
            want = in_float64(case)
            with targets.use("emulated"):
                by_parts = solve(case, "highest")
            with targets.use("avx512"):
                by_units = run(case)
            for name, value in want.items():
                rounding = np.finfo(np.float32).eps * np.abs(value).max()
                error, other = (np.abs(got[name] - value).max() for got in (by_parts, by_units))
                ratios.setdefault(name, []).append(error / max(other, rounding))
        for name, found in ratios.items():
            assert np.median(found) <= 1.0, name
            assert np.quantile(found, 0.95) <= 2.0, name


def random_case(rng, heavy_tailed):
    """Sizes spread evenly over orders of magnitude."""
    sizes = [round(np.exp(rng.uniform(0, np.log(most)))) for most in (40, 80, 150, 150)]
    case = make_case(rng, *sizes)
    if heavy_tailed:
        for name in ("x", "dy", "weight_ih", "weight_hh", "h_0", "c_0"):
            tail = np.exp(1.5 * rng.standard_normal(case[name].shape)) / 3
            case[name] = (case[name] * tail).astype(np.float32)
    return case


@needs_engine
class TestRange:
    """A row or a column that bf16 cannot carry goes to the multiply-add units, with all that it holds."""

    @pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3.4e38, 1e-31, 1e-40, 0.0])
    @pytest.mark.parametrize("precision", ["highest", *LOWER])
    def test_rows(self, rng, precision, value):
        """Rows of one step: each has the bits that it has alone, those out of range the bits of the units."""
        case = make_case(rng, 1, 19, 20, 18)
        rows = [3, 17]
        case["x"][:, rows] = value if not 0 < abs(value) < 1 else value * rng.uniform(0.5, 1, (1, 2, 20))
        case["h_0"][rows] = 0
        for name in engines(precision):
            with targets.use(name), np.errstate(all="ignore"):
                got = solve(case, precision, training=False)
            with targets.use("avx512"):
                by_units = run(case, training=False)
            others = np.delete(np.arange(19), rows)
            with targets.use(name):
                alone = solve(only_rows(case, others), precision, training=False)
            for what in OUTPUTS:
                axis = 1 if what == "y" else 0
                assert_same_bits(what, np.take(got[what], rows, axis), np.take(by_units[what], rows, axis))
                assert_same_bits(what, np.take(got[what], others, axis), alone[what])

    @pytest.mark.parametrize("value", [np.inf, np.nan, 1e-38])
    @pytest.mark.parametrize("where", ["weight_ih", "weight_hh"])
    @pytest.mark.parametrize("precision", ["highest", *LOWER])
    def test_weights(self, rng, precision, where, value):
        """Then the whole call is the units'."""
        case = make_case(rng, 3, 17, 20, 18)
        case[where][5] = value
        for name in engines(precision):
            with targets.use(name):
                got = solve(case, precision)
            with targets.use("avx512"):
                assert_equal_results(got, run(case))

    @pytest.mark.parametrize("exponent", [-108, -60, 60])
    @pytest.mark.parametrize("precision", ["highest", *LOWER])
    def test_small_and_large_gradients(self, rng, precision, exponent):
        """Scaled by a power of two, they have the same relative error: by units where parts would vanish."""
        case = make_case(rng, 3, 33, 20, 18)
        for name in ("dy", "dh_n", "dc_n"):
            case[name] = np.ldexp(case[name], exponent)
        want = in_float64(case)
        for name in engines(precision):
            with targets.use(name):
                got = solve(case, precision)
            bound = LARGEST_ERROR.get(precision, 3e-6)
            assert max(errors(got, want).values()) < bound, name

    def test_one_huge_row_among_gradients(self, rng):
        """Neither its infinities nor its size touch what they do not belong to."""
        case = make_case(rng, 2, 20, 12, 18)
        case["x"][:, 4, 3] = np.inf
        for name, precision in pairs():
            with targets.use(name), np.errstate(all="ignore"):
                got = solve(case, precision)
            others = np.delete(np.arange(20), 4)
            assert np.isfinite(got["y"][:, others]).all()
            assert np.isfinite(got["dx"][:, others]).all()
            assert not np.isfinite(got["d_weight_ih"][:, 3]).all()

    def test_linear(self, rng):
        case = linear.make_case(rng, 40, 20, 18)
        case["x"][7] = np.nan
        case["dy"][9] = 1e-36
        for name, precision in pairs():
            with targets.use(name):
                got = linear.run(case, plan=_core.LinearPlan(20, 18, precision=precision, engine="tiles"))
            with targets.use("avx512"):
                by_units = linear.run(case)
            assert_same_bits("y", got["linear_y"][7], by_units["linear_y"][7])
            assert_same_bits("dx", got["linear_dx"][9], by_units["linear_dx"][9])
            assert_same_bits("d_weight", got["d_weight"], by_units["d_weight"])  # of the units, all of it


def only_rows(case, rows):
    """The same problem with these rows of the batch."""
    axes = {"x": 1, "dy": 1} | dict.fromkeys(("h_0", "c_0", "dh_n", "dc_n"), 0)
    return case | {name: np.ascontiguousarray(np.take(case[name], rows, axis)) for name, axis in axes.items()}


@needs_engine
class TestSameBits:
    """Promise 3, within an engine and at every precision of it."""

    @settings(max_examples=25)
    @given(st.data())
    def test_any_row_anywhere(self, data):
        name, precision = data.draw(st.sampled_from(pairs()))
        sizes = [data.draw(st.integers(1, most)) for most in (4, 50, 40, 40)]
        case = make_case(np.random.default_rng(data.draw(st.integers(0, 99))), *sizes)
        rows = np.array(data.draw(st.lists(st.integers(0, sizes[1] - 1), min_size=1, max_size=sizes[1])))
        with targets.use(name):
            whole, part = solve(case, precision), solve(only_rows(case, rows), precision)
        for what in (*OUTPUTS, *ACTIVATION_GRADIENTS):
            axis = 1 if what in ("y", "dx") else 0
            assert_same_bits(what, part[what], np.take(whole[what], rows, axis))

    @pytest.mark.parametrize("sizes", [(40, 37, 40, 40), (30, 20, 150, 70), (8, 300, 20, 50)], ids=str)
    def test_threads(self, rng, sizes):
        case = make_case(rng, *sizes)
        for name, precision in pairs():
            with targets.use(name):
                want = solve(case, precision)
                for threads in (2, 3):
                    assert_equal_results(solve(case, precision, threads=threads), want)

    def test_chunks_and_checkpoints(self, rng):
        case = make_case(rng, 12, 21, 10, 18)
        for name, precision in pairs():
            with targets.use(name):
                whole = solve(case, precision)
                again = solve(case, precision, checkpoint_steps=5)
                for what in (*OUTPUTS, *ACTIVATION_GRADIENTS):
                    assert_same_bits(what, again[what], whole[what])
                first = solve(
                    case | {"x": case["x"][:7].copy(), "dy": case["dy"][:7].copy()}, precision, training=False
                )
                rest = case | {"x": case["x"][7:].copy(), "dy": case["dy"][7:].copy()}
                rest |= {"h_0": first["h_n"], "c_0": first["c_n"]}
                assert_same_bits("y", solve(rest, precision, training=False)["y"], whole["y"][7:])


@needs_engine
class TestChoice:
    def test_off(self, rng):
        """fma: the bits of the units, at any precision."""
        case = make_case(rng, 3, 20, 30, 40)
        with targets.use("avx512"):
            want = run(case)
        for name, precision in pairs():
            with targets.use(name):
                plan = plan_of(precision, 30, 40, engine="fma")
                assert plan.products(20) == ("fma", 0)
                assert_equal_results(run(case, plan=plan), want)

    def test_a_precision_without_an_engine_is_the_highest(self, rng):
        case = make_case(rng, 3, 20, 30, 40)
        with targets.use("avx512"):
            assert plan_of("medium", 30, 40).products(20) == ("fma", 0)
            assert_equal_results(solve(case, "medium"), run(case))

    def test_a_plan_that_changes_its_engine(self, rng):
        """Weights are packed for what a call uses, also when calls take turns."""
        case = make_case(rng, 3, 20, 30, 40)
        plan = plan_of("medium", 30, 40)
        names = engines("medium")
        with targets.use(names[0]):
            want = solve(case, "medium")
        for name in (names[0], "avx512", names[-1], "portable", names[0]):
            with targets.use(name):
                got = run(case, plan=plan)
        assert_equal_results(got, want)

    def test_double_has_none(self):
        with targets.use(engines("medium")[0]):
            assert _core.LstmPlan64(64, 64, precision="medium", engine="tiles").products(64) == ("fma", 0)
