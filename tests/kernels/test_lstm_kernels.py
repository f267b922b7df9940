"""The LSTM kernels of every target against the float64 reference: outputs and all gradients, element by
element.

Bit-for-bit promises are in test_row_independence.py, the accuracy of the activations in test_activations.py.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lstmx import _core
from tests.kernels.arrays import LAYOUTS, assert_same_bits, output
from tests.kernels.lstm_case import (
    ACTIVATION_GRADIENTS,
    OUTPUTS,
    PARAMETERS,
    assert_equal_results,
    assert_matches,
    expected,
    make_case,
    run,
)

SIZES = (1, 7, 8, 9, 15, 16, 17, 31, 33)  # around the vector widths 4, 8 and 16, and tails of every kind
STEPS = (1, 2, 7)

# A Latin square: every pair of sizes of H and I, of H and B and of I and B occurs once, T runs along.
COVERING = [
    (STEPS[(a + 2 * b) % 3], SIZES[(a + b) % 9], SIZES[b], SIZES[a]) for a in range(9) for b in range(9)
]


def name_of(sizes):
    return "T{}-B{}-I{}-H{}".format(*sizes)


@pytest.mark.parametrize("sizes", COVERING, ids=name_of)
def test_outputs_and_all_gradients(target, dtype, rng, sizes):
    case = make_case(rng, *sizes, dtype=dtype)
    want = expected(case)
    assert_matches(run(case), want)
    assert_matches(run(case, training=False), want)


@pytest.mark.slow
@pytest.mark.parametrize("hidden", SIZES)
@pytest.mark.parametrize("steps", STEPS)
def test_every_combination_of_sizes(target, dtype, rng, steps, hidden):
    for batch, inputs in itertools.product(SIZES, SIZES):
        case = make_case(rng, steps, batch, inputs, hidden, dtype=dtype)
        want = expected(case)
        assert_matches(run(case), want)
        assert_matches(run(case, training=False), want)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("sizes", [(90, 33, 9, 33), (300, 3, 5, 20), (2, 300, 17, 9)], ids=name_of)
def test_more_rows_than_one_block_or_chunk(target, dtype, rng, sizes, threads):
    """Backward works in chunks of steps and sums in blocks of rows; here there are several of both."""
    case = make_case(rng, *sizes, dtype=dtype)
    case["weight_hh"] *= 0.5  # gradients that neither vanish nor grow over many steps
    assert_matches(run(case, threads=threads), expected(case))


@pytest.mark.parametrize("hidden", [2, 3, 4, 5, 6, 10, 11, 12, 13, 14, 20, 28])
@pytest.mark.parametrize("batch", [1, 3, 6, 13])
def test_units_beyond_whole_vectors(target, dtype, rng, batch, hidden):
    """They go into quads of four, and rows of a quad together: every number of either that is left over."""
    case = make_case(rng, 3, batch, 5, hidden, dtype=dtype)
    want = expected(case)
    assert_matches(run(case), want)
    assert_matches(run(case, training=False), want)


@pytest.mark.parametrize("sizes", [(2, 7, 400, 130), (3, 5, 12, 800)], ids=name_of)
def test_large_layers(target, dtype, rng, sizes):
    """Many features are packed for the gradients of weights; large weights are used a stretch at a time."""
    case = make_case(rng, *sizes, dtype=dtype)
    for name in ("weight_ih", "weight_hh"):
        case[name] *= 0.1
    got = run(case)
    assert_matches(got, expected(case))
    assert_equal_results(run(case, threads=2), got)


class TestLayouts:
    """Strided, reversed, padded and misaligned arrays; nothing around the outputs is written."""

    @pytest.mark.parametrize("argument", ["x", "y", "dy", "dx"])
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_one_argument(self, target, dtype, rng, layout, argument):
        self.check(make_case(rng, 7, 5, 9, 17, dtype=dtype), {argument: layout})

    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("threads", [1, 2])
    def test_all_arguments(self, target, rng, layout, threads):
        self.check(make_case(rng, 60, 13, 9, 33), dict.fromkeys(("x", "y", "dy", "dx"), layout), threads)

    @pytest.mark.parametrize("batch", [1, 2])
    @pytest.mark.parametrize("steps", [1, 2])
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_single_rows_and_steps(self, target, rng, layout, steps, batch):
        """An axis of extent 1 has a stride that means nothing."""
        self.check(make_case(rng, steps, batch, 3, 5), dict.fromkeys(("x", "y", "dy", "dx"), layout))

    def check(self, case, layouts, threads=1):
        """Agreement with the reference; what belongs to a row has the bits that it has without strides."""
        got, plain = run(case, layouts=layouts, threads=threads), run(case)
        assert_matches(got, expected(case))
        for name in (*OUTPUTS, *ACTIVATION_GRADIENTS):
            assert_same_bits(name, got[name], plain[name])

    def test_one_input_row_for_the_whole_batch(self, target, rng):
        """A broadcast x has a row stride of 0."""
        case = make_case(rng, 4, 6, 5, 9)
        row = np.ascontiguousarray(case["x"][:, :1])
        case["x"] = np.broadcast_to(row, case["x"].shape)
        copied = case | {"x": case["x"].copy()}
        plan = _core.LstmPlan(5, 9)
        y, h_n, c_n = output((4, 6, 9)), output((6, 9)), output((6, 9))
        out = y.array, h_n.array, c_n.array
        plan.forward(
            1, *(case[n] for n in (*PARAMETERS, "x", "h_0", "c_0", "lengths", "resets")), *out, False, 0, 1
        )
        assert_same_bits("y", y.array, run(copied, training=False)["y"])

    def test_misaligned_parameters_and_states(self, target, rng):
        case = make_case(rng, 5, 4, 7, 9)
        shifted = dict(case)
        for name, array in case.items():
            if array is None:
                continue
            raw = np.empty(array.size + 1, np.float32)
            shifted[name] = raw[1:].reshape(array.shape)
            shifted[name][...] = array
        assert_equal_results(run(shifted), run(case))


class TestAbsentArguments:
    @pytest.mark.parametrize(
        "without",
        [
            ("bias_ih",),
            ("bias_hh",),
            ("bias_ih", "bias_hh"),
            ("h_0",),
            ("c_0",),
            ("h_0", "c_0"),
            ("bias_ih", "bias_hh", "h_0", "c_0"),
        ],
        ids="+".join,
    )
    def test_parameters_and_states(self, target, dtype, rng, without):
        case = make_case(rng, 7, 9, 5, 17, without, dtype=dtype)
        assert_matches(run(case), expected(case))
        zeros = {name: np.zeros_like(make_case(rng, 7, 9, 5, 17, dtype=dtype)[name]) for name in without}
        whole = run(case | zeros)
        for name, array in run(case).items():
            assert_same_bits(name, array, whole[name])

    @pytest.mark.parametrize("given", list(itertools.product([False, True], repeat=3)))
    def test_output_gradients(self, target, dtype, rng, given):
        names = ("dy", "dh_n", "dc_n")
        without = [name for name, is_given in zip(names, given, strict=True) if not is_given]
        case = make_case(rng, 7, 9, 5, 17, without, dtype=dtype)
        got = run(case)
        assert_matches(got, expected(case))
        if not any(given):
            assert not any(got[f"d_{name}"].any() for name in PARAMETERS)

    @pytest.mark.parametrize("wanted", list(itertools.product([False, True], repeat=3)))
    def test_activation_gradients_not_wanted(self, target, rng, wanted):
        unwanted = [n for n, is_wanted in zip(ACTIVATION_GRADIENTS, wanted, strict=True) if not is_wanted]
        case = make_case(rng, 7, 9, 5, 17)
        whole = run(case)
        for name, array in run(case, unwanted=unwanted).items():
            assert_same_bits(name, array, whole[name])


class TestNothingToDo:
    def test_no_rows(self, target, rng):
        case = make_case(rng, 7, 0, 5, 17)
        got = run(case, initial=2.0)
        assert got["y"].shape == (7, 0, 17)
        for name in PARAMETERS:
            assert (got[f"d_{name}"] == 2.0).all()
        run(case, training=False, threads=2)

    def test_no_steps(self, target, dtype, rng):
        """The state passes through, forward and backward."""
        case = make_case(rng, 0, 9, 5, 17, dtype=dtype)
        got = run(case, initial=2.0)
        for name, source in (("h_n", "h_0"), ("c_n", "c_0"), ("dh_0", "dh_n"), ("dc_0", "dc_n")):
            assert_same_bits(name, got[name], case[source])
        for name in PARAMETERS:
            assert (got[f"d_{name}"] == 2.0).all()

    def test_no_steps_and_no_states(self, target, rng):
        case = make_case(rng, 0, 9, 5, 17, ["h_0", "c_0", "dh_n", "dc_n"])
        got = run(case)
        for name in ("h_n", "c_n", "dh_0", "dc_0"):
            assert not got[name].any()


class TestAccumulation:
    def test_parameter_gradients_are_added_to_what_is_there(self, target, dtype, rng):
        case = make_case(rng, 7, 9, 5, 17, dtype=dtype)
        fresh, added = run(case), run(case, initial=3.0)
        for name in PARAMETERS:
            assert_same_bits(name, added[f"d_{name}"], fresh[f"d_{name}"] + dtype.type(3.0))

    def test_activation_gradients_are_set(self, target, rng):
        """Twice into the same arrays: what lay there before does not show."""
        case = make_case(rng, 3, 4, 5, 9)
        plan = _core.LstmPlan(5, 9)
        dx, dh_0, dc_0 = (np.full(s, np.nan, np.float32) for s in ((3, 4, 5), (4, 9), (4, 9)))
        y, h_n, c_n = (np.full(s, np.nan, np.float32) for s in ((3, 4, 9), (4, 9), (4, 9)))
        for _ in range(2):
            gradients = [np.zeros_like(case[name]) for name in PARAMETERS]
            inputs = [case[n] for n in (*PARAMETERS, "x", "h_0", "c_0", "lengths", "resets")]
            tape = plan.forward(1, *inputs, y, h_n, c_n, True, 0, 1)
            given = [case[n] for n in ("h_0", "dy", "dh_n", "dc_n")]
            tape.backward(case["x"], y, *given, dx, dh_0, dc_0, *gradients, 1)
        want = run(case)
        for name, array in {"y": y, "h_n": h_n, "c_n": c_n, "dx": dx, "dh_0": dh_0, "dc_0": dc_0}.items():
            assert_same_bits(name, array, want[name])


class TestPlan:
    def test_new_version_means_new_weights(self, target, rng):
        plan = _core.LstmPlan(5, 9)
        for version in (1, 2, 7):
            case = make_case(rng, 3, 4, 5, 9)
            assert_matches(run(case, plan=plan, version=version), expected(case))

    def test_same_version_is_not_packed_again(self, target, rng):
        """The caller promises that equal versions mean equal weights; a plan relies on it."""
        plan = _core.LstmPlan(5, 9)
        case = make_case(rng, 3, 4, 5, 9)
        first = run(case, plan=plan, training=False)
        changed = case | {"weight_ih": np.zeros_like(case["weight_ih"])}
        assert_equal_results(run(changed, plan=plan, training=False), first)

    def test_new_batch_and_length_through_one_plan(self, target, rng):
        plan = _core.LstmPlan(5, 9)
        case = make_case(rng, 9, 17, 5, 9)
        for steps, batch in ((9, 17), (1, 1), (3, 17), (9, 2), (0, 5), (2, 0), (9, 17)):
            part = case | {
                "x": case["x"][:steps, :batch],
                "dy": case["dy"][:steps, :batch],
                **{name: case[name][:batch].copy() for name in ("h_0", "c_0", "dh_n", "dc_n")},
            }
            assert_equal_results(run(part, plan=plan), run(part))

    def test_a_plan_follows_the_active_target(self, rng):
        """Packed weights belong to a target: a plan used under another one packs again."""
        from lstmx import targets

        plan = _core.LstmPlan(5, 9)
        case = make_case(rng, 3, 4, 5, 9)
        want = expected(case)
        names = _core.supported_targets()
        for name in (*names, *reversed(names)):
            with targets.use(name):
                got = run(case, plan=plan)
                assert_matches(got, want)
                assert_equal_results(got, run(case))

    def test_a_tape_keeps_the_weights_and_the_target_of_its_forward(self, rng):
        """Other weights, other targets and other forwards in between change nothing."""
        from lstmx import targets

        plan = _core.LstmPlan(5, 9)
        case, other = make_case(rng, 3, 4, 5, 9), make_case(rng, 6, 2, 5, 9)
        y, h_n, c_n = (np.empty(s, np.float32) for s in ((3, 4, 9), (4, 9), (4, 9)))
        for name in _core.supported_targets():
            with targets.use(name):
                inputs = [case[n] for n in (*PARAMETERS, "x", "h_0", "c_0", "lengths", "resets")]
                tape = plan.forward(10, *inputs, y, h_n, c_n, True, 0, 1)
                want = run(case)
            for between in _core.supported_targets():
                with targets.use(between):
                    run(other, plan=plan, version=11)
            dx, dh_0, dc_0 = (np.empty(s, np.float32) for s in ((3, 4, 5), (4, 9), (4, 9)))
            gradients = [np.zeros_like(case[n]) for n in PARAMETERS]
            given = [case[n] for n in ("h_0", "dy", "dh_n", "dc_n")]
            tape.backward(case["x"], y, *given, dx, dh_0, dc_0, *gradients, 1)
            got = {"dx": dx, "dh_0": dh_0, "dc_0": dc_0}
            got |= {f"d_{n}": g for n, g in zip(PARAMETERS, gradients, strict=True)}
            for gradient, array in got.items():
                assert_same_bits(gradient, array, want[gradient])

    def test_a_tape_serves_once(self, target, rng):
        case = make_case(rng, 3, 4, 5, 9)
        y, h_n, c_n = (np.empty(s, np.float32) for s in ((3, 4, 9), (4, 9), (4, 9)))
        inputs = [case[n] for n in (*PARAMETERS, "x", "h_0", "c_0", "lengths", "resets")]
        tape = _core.LstmPlan(5, 9).forward(1, *inputs, y, h_n, c_n, True, 0, 1)
        gradients = [np.zeros_like(case[n]) for n in PARAMETERS]
        tape.backward(case["x"], y, case["h_0"], case["dy"], None, None, None, None, None, *gradients, 1)
        before = [g.copy() for g in gradients]
        with pytest.raises(RuntimeError):
            tape.backward(case["x"], y, case["h_0"], case["dy"], None, None, None, None, None, *gradients, 1)
        for name, a, b in zip(PARAMETERS, gradients, before, strict=True):
            assert_same_bits(name, a, b)


class TestSpecialNumbers:
    @pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("where", ["x", "h_0", "c_0"])
    def test_one_bad_row_leaves_the_others_alone(self, target, dtype, rng, where, poison):
        case = make_case(rng, 7, 9, 5, 17, dtype=dtype)
        clean = run(case)
        bad = case[where].copy()
        bad[(slice(None), 4) if where == "x" else 4] = poison
        got = run(case | {where: bad})
        others = np.arange(9) != 4
        for name in ("y", "dx"):
            assert_same_bits(name, got[name][:, others], clean[name][:, others])
        for name in ("h_n", "c_n", "dh_0", "dc_0"):
            assert_same_bits(name, got[name][others], clean[name][others])

    def test_nan_propagates(self, target, dtype, rng):
        case = make_case(rng, 7, 9, 5, 17, dtype=dtype)
        case["x"][3, 4, 2] = np.nan
        got = run(case)
        assert np.isnan(got["y"][3:, 4]).all()
        assert np.isfinite(got["y"][:3, 4]).all()
        assert np.isnan(got["h_n"][4]).all()
        assert np.isnan(got["c_n"][4]).all()
        assert np.isnan(got["dx"][3, 4]).all()

    def test_nan_in_a_weight_stays_in_its_unit(self, target, rng):
        """One step, so that no recurrence spreads it."""
        case = make_case(rng, 1, 9, 5, 17)
        case["weight_ih"][3, 1] = np.nan  # the input gate of unit 3
        y = run(case, training=False)["y"]
        assert np.isnan(y[:, :, 3]).all()
        assert np.isfinite(np.delete(y, 3, axis=2)).all()

    def test_saturated_gates_give_finite_gradients(self, target, rng):
        case = make_case(rng, 7, 9, 5, 17)
        case["x"] *= np.float32(1e6)
        case["c_0"] *= np.float32(1e6)
        got = run(case)
        for name, array in got.items():
            assert np.isfinite(array).all(), name
        assert_matches(got, expected(case))

    @pytest.mark.parametrize("sign", [1, -1])
    def test_gates_saturated_by_their_biases(self, target, rng, sign):
        case = make_case(rng, 7, 9, 5, 17)
        for gate in range(4):
            biased = case["bias_ih"].copy()
            biased[17 * gate : 17 * (gate + 1)] = sign * 1e30
            one = case | {"bias_ih": biased}
            got = run(one)
            for name, array in got.items():
                assert np.isfinite(array).all(), (gate, name)
            assert_matches(got, expected(one))

    def test_denormal_input_is_zero(self, target, rng):
        """Numbers below 1.2e-38 are read as zero, everywhere."""
        case = make_case(rng, 7, 9, 5, 17)
        for name in ("x", "h_0", "c_0", "dy", "dh_n", "dc_n"):
            zero = case | {name: np.zeros_like(case[name])}
            tiny = np.where(rng.random(case[name].shape) < 0.5, 1e-39, -1e-42).astype(np.float32)
            a, b = run(case | {name: tiny}), run(zero)
            for output_name in a:
                np.testing.assert_array_equal(
                    a[output_name], b[output_name], err_msg=f"{name}: {output_name}"
                )
