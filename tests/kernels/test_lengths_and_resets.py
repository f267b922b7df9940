"""Lengths, resets and checkpoints in the LSTM kernels of every target.

Three sorts of test: outputs and all gradients against the reference; what belongs to a row is bit for bit
that of the row (or of its pieces) run alone, whatever its neighbours; padding and discarded states are never
read. Gradients of parameters are sums over rows and steps: their last bits follow the stretches summed.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.kernels.arrays import LAYOUTS, assert_same_bits
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
from tests.kernels.test_row_independence import BY_TIME, DTYPES, EXTENTS, PER_ROW, take_rows

SHAPES = [(7, 1, 1, 1), (7, 5, 3, 8), (2, 17, 9, 16), (7, 33, 5, 17), (12, 9, 31, 33), (90, 33, 9, 33)]
SPANS = ["lengths", "resets", "both"]
ROW_RESULTS = (*OUTPUTS, *ACTIVATION_GRADIENTS)


def spanned(rng, case, which, share=0.25):
    """The case with random lengths, random resets or both; short and long rows, unsorted."""
    steps, batch = case["x"].shape[:2]
    spans = {}
    if which in ("lengths", "both"):
        spans["lengths"] = rng.integers(0, steps + 1, batch)
    if which in ("resets", "both"):
        spans["resets"] = rng.random((steps, batch)) < share
    return case | spans


def padding(case):
    """[T,B]: where a row has ended."""
    return np.arange(case["x"].shape[0])[:, None] >= case["lengths"]


def pieces(case, b):
    """The stretches of row b between resets, as (start, stop)."""
    steps = case["x"].shape[0]
    stop = steps if case["lengths"] is None else int(case["lengths"][b])
    cuts = [] if case["resets"] is None else [t for t in range(1, stop) if case["resets"][t, b]]
    return list(itertools.pairwise([0, *cuts, stop]))


def run_in_pieces(case, b):
    """Row b of the case computed piece by piece, without lengths and resets: its outputs and gradients."""
    row = take_rows(case, slice(b, b + 1)) | {"lengths": None, "resets": None}
    result = {
        "y": np.zeros_like(row["dy"][:, 0]),
        "dx": np.zeros_like(row["x"][:, 0]),
    }
    stretches = pieces(case, b)
    discards = stretches[0][1] > 0 and case["resets"] is not None and case["resets"][0, b]
    for start, stop in stretches:
        piece = row | {name: row[name][start:stop] for name in ("x", "dy")}
        if start > 0 or discards:
            piece |= {"h_0": None, "c_0": None}
        if stop != stretches[-1][1]:
            piece |= {"dh_n": None, "dc_n": None}
        got = run(piece)
        result["y"][start:stop], result["dx"][start:stop] = got["y"][:, 0], got["dx"][:, 0]
        if start == 0:
            result |= {n: np.zeros_like(got[n][0]) if discards else got[n][0] for n in ("dh_0", "dc_0")}
    return result | {name: got[name][0] for name in ("h_n", "c_n")}


def assert_rows(got, case, rows):
    """What belongs to `rows` is, bit for bit, what their pieces give alone."""
    for b in rows:
        for name, want in run_in_pieces(case, b).items():
            mine = got[name][:, b] if name in BY_TIME else got[name][b]
            assert_same_bits(f"row {b}: {name}", mine, want)


class TestAgainstTheReference:
    @pytest.mark.parametrize("which", SPANS)
    @pytest.mark.parametrize("sizes", SHAPES, ids=str)
    def test_outputs_and_all_gradients(self, target, dtype, rng, sizes, which):
        case = make_case(rng, *sizes, dtype=dtype)
        if sizes[0] > 20:
            case["weight_hh"] *= 0.5  # gradients that neither vanish nor grow over many steps
        case = spanned(rng, case, which)
        want = expected(case)
        for threads, checkpoint_steps in ((1, 0), (2, 0), (1, 3), (2, 8)):
            assert_matches(run(case, threads=threads, checkpoint_steps=checkpoint_steps), want)
        assert_matches(run(case, training=False), want)

    @pytest.mark.parametrize(
        "without",
        [("bias_ih", "bias_hh"), ("h_0",), ("c_0",), ("h_0", "c_0"), ("dy",), ("dh_n",), ("dc_n",)],
        ids="+".join,
    )
    @pytest.mark.parametrize("which", SPANS)
    def test_absent_arguments(self, target, rng, which, without):
        case = spanned(rng, make_case(rng, 7, 9, 5, 17, without), which)
        want = expected(case)
        assert_matches(run(case), want)
        assert_matches(run(case, checkpoint_steps=2), want)

    @pytest.mark.parametrize("unwanted", ACTIVATION_GRADIENTS)
    def test_activation_gradients_not_wanted(self, target, rng, unwanted):
        case = spanned(rng, make_case(rng, 7, 9, 5, 17), "both")
        whole = run(case)
        for name, array in run(case, unwanted=(unwanted,)).items():
            assert_same_bits(name, array, whole[name])

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_layouts(self, target, dtype, rng, layout):
        """Nothing around the outputs is written, in the padding neither."""
        case = spanned(rng, make_case(rng, 7, 5, 9, 17, dtype=dtype), "both")
        plain = run(case)
        turned = case | {"resets": np.asfortranarray(case["resets"])}
        reversed_resets = case | {"resets": np.ascontiguousarray(case["resets"][::-1])[::-1]}
        layouts = dict.fromkeys(("x", "y", "dy", "dx"), layout)
        for one in (case, turned, reversed_resets):
            assert_equal_results(run(one, layouts=layouts), plain)


class TestRowsAndPieces:
    @pytest.mark.parametrize("which", SPANS)
    @pytest.mark.parametrize("sizes", SHAPES, ids=str)
    def test_are_what_they_are_alone(self, target, dtype, rng, sizes, which):
        case = spanned(rng, make_case(rng, *sizes, dtype=dtype), which)
        assert_rows(run(case), case, range(min(sizes[1], 9)))

    def test_many_short_pieces(self, target, rng):
        """Episodes of one or two steps, the initial state discarded by half of the rows."""
        case = spanned(rng, make_case(rng, 12, 18, 5, 9), "resets", share=0.7)
        assert_rows(run(case), case, range(18))
        everywhere = case | {"resets": np.ones((12, 18), bool)}
        assert_rows(run(everywhere), everywhere, range(18))

    def test_full_lengths_and_no_resets_change_nothing(self, target, rng):
        case = make_case(rng, 7, 9, 5, 17)
        given = {"lengths": np.full(9, 7), "resets": np.zeros((7, 9), bool)}
        plain = run(case)
        for spans in ({"lengths": given["lengths"]}, {"resets": given["resets"]}, given):
            got = run(case | spans)
            for name in ROW_RESULTS:
                assert_same_bits(name, got[name], plain[name])

    @pytest.mark.parametrize("threads", [1, 2, 3])
    @pytest.mark.parametrize("which", SPANS)
    def test_thread_counts_give_the_same_bits(self, target, dtype, rng, which, threads):
        for sizes in ((90, 33, 9, 33), (30, 5, 70, 64), (3, 2, 200, 300)):
            case = spanned(rng, make_case(rng, *sizes, dtype=dtype), which, share=0.05)
            assert_equal_results(run(case, threads=threads), run(case))
            assert_equal_results(run(case, threads=threads, training=False), run(case, training=False))

    def test_order_does_not_matter(self, target, rng):
        case = spanned(rng, make_case(rng, 12, 33, 5, 17), "both")
        order = rng.permutation(33)
        permuted = take_rows(case, order)
        permuted |= {"lengths": case["lengths"][order], "resets": case["resets"][:, order]}
        got, want = run(permuted), run(case)
        for name in ROW_RESULTS:
            assert_same_bits(name, got[name], take_rows({name: want[name]}, order)[name])


class TestNothingToDo:
    @pytest.mark.parametrize("checkpoint_steps", [0, 2])
    def test_all_lengths_zero(self, target, rng, checkpoint_steps):
        """The states pass through, forward and backward; gradients of parameters stay as they were."""
        case = make_case(rng, 7, 9, 5, 17) | {"lengths": np.zeros(9, np.int64)}
        case |= {"x": np.full_like(case["x"], np.nan), "resets": np.ones((7, 9), bool)}
        got = run(case, initial=2.0, checkpoint_steps=checkpoint_steps)
        for name, source in (("h_n", "h_0"), ("c_n", "c_0"), ("dh_0", "dh_n"), ("dc_0", "dc_n")):
            assert_same_bits(name, got[name], case[source])
        assert not got["y"].any()
        assert not got["dx"].any()
        for name in PARAMETERS:
            assert (got[f"d_{name}"] == 2.0).all()

    def test_no_rows_and_no_steps(self, target, rng):
        for steps, batch in ((7, 0), (0, 9)):
            case = spanned(rng, make_case(rng, steps, batch, 5, 17), "both")
            assert_equal_results(run(case, checkpoint_steps=3), run(case | {"lengths": None, "resets": None}))


class TestNeverRead:
    @pytest.mark.parametrize("poison", [np.nan, np.inf])
    @pytest.mark.parametrize("threads", [1, 2])
    @pytest.mark.parametrize("sizes", [(7, 9, 5, 17), (90, 33, 9, 33)], ids=str)
    def test_padding(self, target, dtype, rng, sizes, threads, poison):
        case = spanned(rng, make_case(rng, *sizes, dtype=dtype), "lengths")
        bad = case | {name: case[name].copy() for name in ("x", "dy")}
        bad["x"][padding(case)] = bad["dy"][padding(case)] = poison
        for checkpoint_steps in (0, 5):
            got = run(bad, threads=threads, checkpoint_steps=checkpoint_steps)
            assert_equal_results(got, run(case, threads=threads, checkpoint_steps=checkpoint_steps))
            for name in ("y", "dx"):
                assert not got[name][padding(case)].any(), name
        assert_equal_results(run(bad, training=False), run(case, training=False))

    @pytest.mark.parametrize("poison", [np.nan, np.inf])
    def test_states_that_a_reset_discards(self, target, rng, poison):
        case = make_case(rng, 7, 9, 5, 17)
        case["resets"] = np.zeros((7, 9), bool)
        case["resets"][0, 3:6] = True
        bad = case | {name: case[name].copy() for name in ("h_0", "c_0")}
        bad["h_0"][3:6] = bad["c_0"][3:6] = poison
        for checkpoint_steps in (0, 3):
            got = run(bad, checkpoint_steps=checkpoint_steps)
            assert_equal_results(got, run(case, checkpoint_steps=checkpoint_steps))
            assert not got["dh_0"][3:6].any()
            assert not got["dc_0"][3:6].any()

    def test_nan_ends_at_a_reset(self, target, rng):
        """A piece that went wrong leaves the next one alone, forward and backward."""
        case = make_case(rng, 7, 9, 5, 17)
        case["resets"] = np.zeros((7, 9), bool)
        case["resets"][4, 2] = True
        clean = run(case)
        case["x"][1, 2] = np.nan
        for checkpoint_steps in (0, 3):
            got = run(case, checkpoint_steps=checkpoint_steps)
            assert np.isnan(got["y"][1:4, 2]).all()
            for name in ("y", "dx"):
                assert_same_bits(name, got[name][4:], clean[name][4:])
                assert_same_bits(name, np.delete(got[name], 2, axis=1), np.delete(clean[name], 2, axis=1))
            for name in ("h_n", "c_n"):
                assert_same_bits(name, got[name], clean[name])

    def test_nan_in_the_state_of_a_row_without_steps(self, target, rng):
        case = make_case(rng, 7, 9, 5, 17)
        case["lengths"] = np.array([7, 0, 3, 7, 0, 1, 7, 7, 2])
        bad = case | {"h_0": case["h_0"].copy()}
        bad["h_0"][[1, 4]] = np.nan
        got, clean = run(bad), run(case)
        assert np.isnan(got["h_n"][[1, 4]]).all()
        for name in got:
            if name != "h_n":
                assert_same_bits(name, got[name], clean[name])


class TestCheckpoints:
    @pytest.mark.parametrize("which", ["none", *SPANS])
    @pytest.mark.parametrize(
        "sizes", [(7, 5, 3, 8), (13, 33, 9, 33), (90, 33, 9, 33), (64, 1, 5, 17)], ids=str
    )
    def test_change_no_bit_of_what_belongs_to_a_row(self, target, dtype, rng, sizes, which):
        case = make_case(rng, *sizes, dtype=dtype)
        case["weight_hh"] *= 0.5
        case = spanned(rng, case, which)
        kept, want = run(case), expected(case)
        steps = sizes[0]
        for checkpoint_steps in (1, 2, 3, 8, steps - 1, steps, steps + 1, 10**9):
            got = run(case, checkpoint_steps=checkpoint_steps)
            for name in ROW_RESULTS:
                assert_same_bits(f"checkpoint_steps={checkpoint_steps}: {name}", got[name], kept[name])
            assert_matches(got, want)
            assert_equal_results(run(case, checkpoint_steps=checkpoint_steps, threads=2), got)
            if checkpoint_steps >= steps:
                assert_equal_results(got, kept)

    def test_change_nothing_in_inference(self, target, rng):
        case = spanned(rng, make_case(rng, 13, 9, 5, 17), "both")
        assert_equal_results(run(case, training=False, checkpoint_steps=4), run(case, training=False))

    def test_with_weights_changed_in_between(self, target, rng):
        """Backward computes with the weights of its forward, as everywhere."""
        from lstmx import _core

        plan = _core.LstmPlan(5, 17)
        case, other = make_case(rng, 13, 9, 5, 17), make_case(rng, 3, 2, 5, 17)
        y, h_n, c_n = (np.empty(s, np.float32) for s in ((13, 9, 17), (9, 17), (9, 17)))
        inputs = [case[n] for n in (*PARAMETERS, "x", "h_0", "c_0", "lengths", "resets")]
        tape = plan.forward(1, *inputs, y, h_n, c_n, True, 4, 1)
        run(other, plan=plan, version=2)
        gradients = [np.zeros_like(case[n]) for n in PARAMETERS]
        dx = np.empty_like(case["x"])
        upstream = [case[n] for n in ("dy", "dh_n", "dc_n")]
        tape.backward(case["x"], y, case["h_0"], *upstream, dx, None, None, *gradients, 1)
        want = run(case)
        assert_same_bits("dx", dx, want["dx"])
        assert_matches({f"d_{n}": g for n, g in zip(PARAMETERS, gradients, strict=True)}, expected(case))

    def test_lengths_and_resets_may_change_after_forward(self, target, rng):
        from lstmx import _core

        case = spanned(rng, make_case(rng, 13, 9, 5, 17), "both")
        want = run(case)
        given = case | {name: case[name].copy() for name in ("lengths", "resets")}
        for checkpoint_steps in (0, 4):
            spans = given["lengths"].copy(), given["resets"].copy()
            y, h_n, c_n = (np.empty(s, np.float32) for s in ((13, 9, 17), (9, 17), (9, 17)))
            inputs = [case[n] for n in (*PARAMETERS, "x", "h_0", "c_0")]
            tape = _core.LstmPlan(5, 17).forward(1, *inputs, *spans, y, h_n, c_n, True, checkpoint_steps, 1)
            spans[0][...], spans[1][...] = 0, True
            dx, gradients = np.empty_like(case["x"]), [np.zeros_like(case[n]) for n in PARAMETERS]
            upstream = [case[n] for n in ("dy", "dh_n", "dc_n")]
            tape.backward(case["x"], y, case["h_0"], *upstream, dx, None, None, *gradients, 1)
            assert_same_bits("dx", dx, want["dx"])


@st.composite
def problems(draw):
    """A case with lengths and resets, a row of it, and where that row goes among other rows."""
    steps, inputs, hidden = draw(st.integers(1, 12)), draw(EXTENTS), draw(EXTENTS)
    batch, others = draw(EXTENTS), draw(EXTENTS)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(DTYPES)
    without = [name for name in ("bias_ih", "bias_hh", "h_0", "c_0") if draw(st.booleans())]
    which = draw(st.sampled_from(["none", *SPANS]))
    share = draw(st.sampled_from([0.05, 0.3, 1.0]))
    case = spanned(rng, make_case(rng, steps, batch, inputs, hidden, without, dtype), which, share)
    company = spanned(rng, make_case(rng, steps, others, inputs, hidden, without, dtype), which, share)
    if draw(st.booleans()):
        for name in ("x", "h_0", "c_0", "dy"):
            if company[name] is not None:
                company[name][rng.random(company[name].shape) < 0.3] = np.nan
    return {
        "case": case,
        "company": company,
        "which": which,
        "row": draw(st.integers(0, batch - 1)),
        "place": draw(st.integers(0, others - 1)),
        "threads": draw(st.sampled_from([1, 2, 3])),
        "checkpoint_steps": draw(st.sampled_from([0, 1, 2, 5, 12, 100])),
    }


@settings(max_examples=100)
@given(problem=problems())
def test_any_row_anywhere(target, problem):
    case, company, row, place = (problem[n] for n in ("case", "company", "row", "place"))
    event(problem["which"])
    options = {name: problem[name] for name in ("threads", "checkpoint_steps")}
    # 1. in its batch: as its pieces alone, and as without checkpoints
    got = run(case, **options)
    assert_rows(got, case, [row])
    kept = run(case)
    for name in ROW_RESULTS:
        assert_same_bits(f"without checkpoints: {name}", kept[name], got[name])
    for name, array in run(case, training=False, threads=problem["threads"]).items():
        assert_same_bits(f"inference: {name}", array, got[name])
    # 2. elsewhere, among others with lengths, resets and NaN of their own
    moved = {name: None if array is None else array.copy() for name, array in company.items()}
    moved |= {name: case[name] for name in PARAMETERS}
    for name in (*PER_ROW, "lengths", "resets"):
        if case[name] is not None:
            by_time = name in BY_TIME or name == "resets"
            moved[name][(slice(None), place) if by_time else place] = case[name][
                (slice(None), row) if by_time else row
            ]
    other = run(moved, **options)
    for name in ROW_RESULTS:
        at = (slice(None), place) if name in BY_TIME else place
        here = (slice(None), row) if name in BY_TIME else row
        assert_same_bits(f"among others: {name}", other[name][at], got[name][here])
