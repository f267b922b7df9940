"""The kernels of the variants and of the GRU against the float64 reference: outputs and all gradients.

Each on every target, with lengths, resets, initial states, gradients into cell states. What belongs to a row
is bit for bit the same for any threads, checkpoints, chunks, batch and neighbours; padding is never read.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.kernels.arrays import LAYOUTS, assert_same_bits
from tests.kernels.test_row_independence import DTYPES, EXTENTS
from tests.kernels.variant_case import (
    ACTIVATION_GRADIENTS,
    GAINS,
    MASKS,
    PARAMETERS,
    VARIANTS,
    expected,
    make_case,
    run,
)
from tests.tolerances import assert_close

SIZES = [(1, 1, 1, 1), (3, 5, 2, 3), (7, 6, 9, 17), (2, 13, 5, 20), (5, 3, 17, 33), (4, 9, 3, 16)]
CELLS = Path(__file__).parents[2] / "cpp/src/kernels/cells.inc"
FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
BY_NAME = {variant.name: variant for variant in VARIANTS}
BY_TIME = ("x", "dy", "dcells", "keep_h", "keep_c", "resets", "y", "cells", "dx")  # [T,B,...]
PER_ROW = ("h_0", "c_0", "dh_n", "dc_n", "h_mask", "lengths", "h_n", "c_n", "dh_0", "dc_0")  # [B,...]
ROW_RESULTS = ("y", "cells", "dx", "h_n", "c_n", "dh_0", "dc_0")
every_variant = pytest.mark.parametrize("variant", VARIANTS, ids=list(BY_NAME))


def some_variants(*names):
    return pytest.mark.parametrize("variant", [BY_NAME[name] for name in names], ids=names)


# together all cells and options that change what the drivers do
of_each_kind = some_variants("everything", "everything_but_a_projection", "gru_with_masks", "rnn_with_masks")


def test_every_cell_of_the_core_is_here():
    names = re.findall(r"^LSTMX_CELL\((\w+), ", CELLS.read_text(), re.MULTILINE)
    assert set(names) == {"lstm", *(variant.kernel for variant in VARIANTS)}


def compare(variant, got, want):
    if not variant.has_cells:  # of the GRU h is c: the parts of the gradient meet above the kernels
        got = dict(got)
        got["dh_0"] = got["dh_0"] + got.pop("dc_0") if "dc_0" in got else None
        got = {n: a for n, a in got.items() if n not in ("c_n", "cells", "gates") and a is not None}
    for name, array in got.items():
        assert_close(name, array, want[name])


def assert_equal_results(got, want):
    for name, array in got.items():
        assert_same_bits(name, array, want[name])


def covering():
    """float32: every variant with all sizes, with and without spans; float64: spans at every other size."""
    for dtype, (i, sizes), spans, (v, variant) in itertools.product(
        (FLOAT32, FLOAT64), enumerate(SIZES), (False, True), enumerate(VARIANTS)
    ):
        if variant.projects and sizes[3] == 1:
            continue  # one unit has no smaller projection
        if dtype == FLOAT32 or spans == (i + v) % 2:
            name = f"{dtype}-T{sizes[0]}-B{sizes[1]}-I{sizes[2]}-H{sizes[3]}-{'spans' if spans else 'full'}"
            yield pytest.param(variant, sizes, spans, dtype, id=f"{name}-{variant.name}")


@pytest.mark.parametrize(("variant", "sizes", "spans", "scalar"), list(covering()))
def test_outputs_and_all_gradients(target, rng, variant, sizes, spans, scalar):
    case = make_case(rng, variant, *sizes, spans=spans, dtype=scalar)
    compare(variant, run(variant, case, trace=True), expected(variant, case))
    compare(variant, run(variant, case, training=False), expected(variant, case, training=False))


def check_several_chunks_and_threads(variant, case):
    """Backward works in chunks of steps, of which there are two; a thread may be ahead of another."""
    case["weight_hh"] *= 0.5
    got = run(variant, case)
    compare(variant, got, expected(variant, case))
    for threads in (2, 3):
        assert_equal_results(run(variant, case, threads=threads), got)


@every_variant
def test_several_chunks_and_threads(target, rng, variant):
    check_several_chunks_and_threads(variant, make_case(rng, variant, 90, 19, 7, 21, dtype=FLOAT64))


@of_each_kind
def test_several_chunks_and_threads_in_single(target, rng, variant):
    check_several_chunks_and_threads(variant, make_case(rng, variant, 170, 19, 7, 21))


@of_each_kind
@pytest.mark.parametrize("spans", [False, True], ids=["full", "spans"])
def test_hidden_units_split_between_threads(target, dtype, rng, variant, spans):
    """Few rows: the threads split the hidden units and meet after every step."""
    case = make_case(rng, variant, 60, 2, 40, 130, spans=spans, dtype=dtype)
    if spans:
        case["lengths"][:] = 60, 41
    case["weight_hh"] *= 0.2
    got = run(variant, case)
    assert_equal_results(run(variant, case, threads=2), got)


@of_each_kind
def test_large_layers(target, dtype, rng, variant):
    """Many features are packed for the gradients of weights; large weights are used a stretch at a time."""
    case = make_case(rng, variant, 2, 7, 400, 130, spans=False, dtype=dtype)
    for name in ("weight_ih", "weight_hh"):
        case[name] *= 0.1
    got = run(variant, case)
    compare(variant, got, expected(variant, case))
    assert_equal_results(run(variant, case, threads=2), got)


@every_variant
@pytest.mark.parametrize("steps", [1, 3, 4])
def test_checkpoints(target, dtype, rng, variant, steps):
    """Recomputed gates: what belongs to a row has the bits that it has without."""
    case = make_case(rng, variant, 10, 5, 4, 11, dtype=dtype)
    want = run(variant, case)
    for name, array in run(variant, case, checkpoint_steps=steps).items():
        if name.startswith("d_"):
            np.testing.assert_allclose(array, want[name], rtol=1e-4, atol=1e-4)
        else:
            assert_same_bits(name, array, want[name])


@every_variant
def test_a_row_alone_and_in_chunks(target, rng, variant):
    case = make_case(rng, variant, 9, 7, 4, 21, spans=False)
    whole = run(variant, case, training=False)
    for b in (0, 4, 6):
        state = {name: case[name][b : b + 1] for name in ("h_0", "c_0")}
        for begin, end in ((0, 4), (4, 9)):
            part = case | state | {"x": case["x"][begin:end, b : b + 1]}
            for name in MASKS[:2]:
                part[name] = None if case[name] is None else case[name][begin:end, b : b + 1]
            alone = run(variant, part, training=False)
            for name in ("y", "cells"):
                assert_same_bits(name, alone[name], whole[name][begin:end, b : b + 1])
            state = {"h_0": alone["h_n"], "c_0": alone["c_n"]}


@some_variants("plain")
def test_the_plain_cell_is_near_the_fused_one(target, dtype, rng, variant):
    """The same equations, staged and fused; both accumulate alike."""
    case = make_case(rng, variant, 6, 5, 4, 19, dtype=dtype)
    fused = run(variant._replace(kernel="lstm"), case)
    for name, array in run(variant, case).items():
        if name in ("y", "h_n", "c_n", "cells"):
            assert_same_bits(name, array, fused[name])


@pytest.mark.parametrize("hidden", [1, 6, 16, 35])
def test_cells_and_gates_of_the_fused_cell(target, dtype, rng, hidden):
    variant = BY_NAME["plain"]
    case = make_case(rng, variant, 5, 7, 3, hidden, dtype=dtype)
    compare(variant, run(variant._replace(kernel="lstm"), case, trace=True), expected(variant, case))


class TestLayouts:
    """Strided, reversed, padded and misaligned arrays; nothing around the outputs is written."""

    ARRAYS = ("x", "y", "dy", "dx", "cells", "dcells", "gates", "keep_h", "keep_c")

    @of_each_kind
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_all_arguments(self, target, dtype, rng, layout, variant):
        case = make_case(rng, variant, 6, 5, 9, 21, dtype=dtype)
        layouts = dict.fromkeys(self.ARRAYS, layout)
        assert_equal_results(run(variant, case, layouts=layouts, trace=True), run(variant, case, trace=True))

    @pytest.mark.parametrize("argument", ARRAYS)
    def test_one_argument(self, target, rng, argument):
        variant = BY_NAME["everything"]
        case = make_case(rng, variant, 6, 5, 9, 21)
        got = run(variant, case, layouts={argument: "reversed_batch_first"}, trace=True)
        assert_equal_results(got, run(variant, case, trace=True))

    @of_each_kind
    @pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)], ids=str)
    def test_one_mask_for_all_steps_or_rows(self, target, rng, variant, axes):
        """A broadcast mask has strides of 0."""
        case = make_case(rng, variant, 6, 5, 9, 21)
        broadcast, copied = dict(case), dict(case)
        for name in MASKS[:2]:
            if case[name] is not None:
                one = case[name][tuple(slice(1) if axis in axes else slice(None) for axis in (0, 1))]
                broadcast[name] = np.broadcast_to(one, case[name].shape)
                copied[name] = broadcast[name].copy()
        assert_equal_results(run(variant, broadcast), run(variant, copied))


class TestAbsentArguments:
    @every_variant
    @pytest.mark.parametrize("without", [("bias_ih",), ("bias_hh",), ("bias_ih", "bias_hh")], ids="+".join)
    def test_biases(self, target, rng, variant, without):
        case = make_case(rng, variant, 5, 4, 3, 19, without=without)
        compare(variant, run(variant, case), expected(variant, case))

    @of_each_kind
    def test_states(self, target, dtype, rng, variant):
        case = make_case(rng, variant, 5, 4, 3, 19, without=("h_0", "c_0"), dtype=dtype)
        zeros = {"h_0": np.zeros_like(case["dh_n"]), "c_0": np.zeros((4, 19), dtype)}
        assert_equal_results(run(variant, case), run(variant, case | zeros))

    @of_each_kind
    def test_output_gradients(self, target, rng, variant):
        case = make_case(rng, variant, 5, 4, 3, 19)
        for name in ("dy", "dh_n", "dc_n", "dcells"):
            if case[name] is not None:
                zeros = case | {name: np.zeros_like(case[name])}
                assert_equal_results(run(variant, case | {name: None}), run(variant, zeros))

    @of_each_kind
    @pytest.mark.parametrize("wanted", list(itertools.product([False, True], repeat=3)))
    def test_activation_gradients_not_wanted(self, target, rng, variant, wanted):
        unwanted = [n for n, is_wanted in zip(ACTIVATION_GRADIENTS, wanted, strict=True) if not is_wanted]
        case = make_case(rng, variant, 7, 9, 5, 17)
        whole = run(variant, case)
        for checkpoint_steps in (0, 3):
            got = run(variant, case, unwanted=unwanted, checkpoint_steps=checkpoint_steps)
            assert got.keys() == whole.keys() - set(unwanted)
            for name in got.keys() & set(ROW_RESULTS) if checkpoint_steps else got:
                assert_same_bits(name, got[name], whole[name])


class TestNothingToDo:
    @of_each_kind
    def test_no_rows(self, target, dtype, rng, variant):
        case = make_case(rng, variant, 7, 0, 5, 17, dtype=dtype)
        got = run(variant, case, initial=2.0)
        for name in PARAMETERS:
            assert case[name] is None or (got[f"d_{name}"] == 2.0).all()
        run(variant, case, training=False, threads=2)

    @of_each_kind
    @pytest.mark.parametrize("steps", [0, 7])
    def test_no_steps(self, target, dtype, rng, variant, steps):
        """None at all, or in no row: the state passes through, forward and backward."""
        case = make_case(rng, variant, steps, 9, 5, 17, spans=False, dtype=dtype)
        if steps:
            case["lengths"] = np.zeros(9, np.int64)
            case["x"][...] = np.nan
        got = run(variant, case, initial=2.0)
        for name, source in (("h_n", "h_0"), ("c_n", "c_0"), ("dh_0", "dh_n"), ("dc_0", "dc_n")):
            if case[source] is not None:
                assert_same_bits(name, got[name], case[source])
        for name in PARAMETERS:
            assert case[name] is None or (got[f"d_{name}"] == 2.0).all()
        for name in ("y", "cells", "dx"):
            assert not got[name].any()


@every_variant
def test_parameter_gradients_are_added_to_what_is_there(target, rng, variant):
    """Most are rounded once by the addition; what is summed in place is rounded as it goes."""
    case = make_case(rng, variant, 5, 9, 3, 17)
    fresh, added = run(variant, case), run(variant, case, initial=3.0)
    for name in PARAMETERS:
        if case[name] is not None:
            np.testing.assert_allclose(added[f"d_{name}"], fresh[f"d_{name}"] + 3.0, rtol=1e-5, atol=1e-5)


@some_variants("gru", "gru_with_masks")
def test_cells_of_the_gru_are_its_h(target, dtype, rng, variant):
    case = make_case(rng, variant, 5, 6, 3, 19, dtype=dtype)
    case |= {"dcells": 2 * case["dy"], "dc_n": 2 * case["dh_n"]}
    summed = case | {"dy": 3 * case["dy"], "dh_n": 3 * case["dh_n"], "dcells": None, "dc_n": None}
    got, want = run(variant, case), run(variant, summed)
    assert_same_bits("cells", got["cells"], got["y"])
    assert_same_bits("c_n", got["c_n"], got["h_n"])
    for result in (got, want):
        result["dh_0"] = result["dh_0"] + result["dc_0"]
    for name in got.keys() - {"dc_0"}:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-4, atol=1e-4, err_msg=name)


@some_variants("rnn", "rnn_with_masks")
def test_cells_of_the_plain_recurrent_cell_are_zeros(target, dtype, rng, variant):
    """Whatever their gradients are, nothing comes of them, but where a row has no step."""
    case = make_case(rng, variant, 5, 6, 3, 19, dtype=dtype)
    given = case | {"dcells": np.ones((5, 6, 19), dtype), "dc_n": np.ones((6, 19), dtype)}
    got, want = run(variant, given), run(variant, case)
    assert not got["cells"].any()
    stepped = case["lengths"] > 0
    assert not got["dc_0"][stepped].any()
    for name in got.keys() - {"dc_0"}:
        assert_same_bits(name, got[name], want[name])


class TestNeverRead:
    @of_each_kind
    @pytest.mark.parametrize("sizes", [(7, 9, 5, 17), (60, 19, 7, 21)], ids=str)
    def test_padding(self, target, dtype, rng, variant, sizes):
        """Of no argument, the masks included."""
        case = make_case(rng, variant, *sizes, dtype=dtype)
        ended = np.arange(sizes[0])[:, None] >= case["lengths"]
        bad = {name: None if array is None else array.copy() for name, array in case.items()}
        for name in ("x", "dy", "dcells", "keep_h", "keep_c"):
            if bad[name] is not None:
                bad[name][ended] = np.nan
        for threads, checkpoint_steps in ((1, 0), (2, 0), (1, 5)):
            options = {"threads": threads, "checkpoint_steps": checkpoint_steps}
            got = run(variant, bad, **options)
            assert_equal_results(got, run(variant, case, **options))
            for name in ("y", "dx"):
                assert not got[name][ended].any(), name
        assert_equal_results(run(variant, bad, training=False), run(variant, case, training=False))

    @of_each_kind
    def test_states_that_a_reset_discards(self, target, dtype, rng, variant):
        case = make_case(rng, variant, 7, 9, 5, 17, spans=False, dtype=dtype)
        case["resets"] = np.zeros((7, 9), bool)
        case["resets"][0, 3:6] = case["resets"][4, 2] = True
        bad = case | {name: case[name].copy() for name in ("h_0", "c_0", "x")}
        bad["h_0"][3:6] = bad["c_0"][3:6] = bad["x"][1, 2] = np.nan
        clean = run(variant, case)
        for checkpoint_steps in (0, 3):
            got = run(variant, bad, checkpoint_steps=checkpoint_steps)
            for name in ("y", "dx"):  # NaN of the piece that went wrong ends at the reset
                assert_same_bits(name, got[name][4:], clean[name][4:])
                others = np.arange(9) != 2
                assert_same_bits(name, got[name][:, others], clean[name][:, others])
            assert not got["dh_0"][3:6].any()
            assert not got["dc_0"][3:6].any()


def take_rows(arrays, index):
    """The rows of a case or of a result; parameters stay."""
    out = dict(arrays)
    for name, array in arrays.items():
        if array is not None and name in BY_TIME + PER_ROW:
            out[name] = np.ascontiguousarray(array[:, index] if name in BY_TIME else array[index])
    return out


def put_row(case, place, other, row):
    """The case with parameters of `other` and a row of it at `place`."""
    moved = {name: None if array is None else array.copy() for name, array in case.items()}
    moved |= {name: other[name] for name in (*PARAMETERS, *GAINS)}
    for name in BY_TIME + PER_ROW:
        if other.get(name) is not None:
            by_time = name in BY_TIME
            moved[name][(slice(None), place) if by_time else place] = other[name][
                (slice(None), row) if by_time else row
            ]
    return moved


def run_in_chunks(variant, case, cuts):
    """The case cut before the steps in `cuts`: states carried forward, their gradients carried back."""
    parts, carried = [], {}
    for begin, end in itertools.pairwise([0, *cuts, len(case["x"])]):
        part = case | carried
        for name in ("x", "dy", "dcells", "keep_h", "keep_c", "resets"):
            part[name] = None if case[name] is None else case[name][begin:end]
        if case["lengths"] is not None:
            part["lengths"] = np.clip(case["lengths"] - begin, 0, end - begin)
        parts.append(part)
        got = run(variant, part)
        carried = {"h_0": got["h_n"], "c_0": got["c_n"]}
    results = []
    for part in reversed(parts):
        if results:
            part |= {"dh_n": results[0]["dh_0"], "dc_n": results[0]["dc_0"]}
        results.insert(0, run(variant, part))
    whole = {name: np.concatenate([r[name] for r in results]) for name in ("y", "cells", "dx")}
    return (
        whole
        | {name: results[-1][name] for name in ("h_n", "c_n")}
        | {n: results[0][n] for n in ("dh_0", "dc_0")}
    )


@st.composite
def problems(draw):
    """A case, a row of it, and where that row goes among others, which may be NaN."""
    variant = draw(st.sampled_from(VARIANTS))
    steps, inputs, hidden = draw(st.integers(1, 12)), draw(EXTENTS), draw(EXTENTS)
    hidden = max(hidden, 2 if variant.projects else 1)
    batch, others = draw(EXTENTS), draw(EXTENTS)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    options = {"spans": draw(st.booleans()), "dtype": draw(DTYPES)}
    case = make_case(rng, variant, steps, batch, inputs, hidden, **options)
    company = make_case(rng, variant, steps, others, inputs, hidden, **options)
    if draw(st.booleans()):
        for name in ("x", "h_0", "c_0", "dy", "dcells", *MASKS):
            if company[name] is not None:
                company[name][rng.random(company[name].shape) < 0.3] = np.nan
    return {
        "variant": variant,
        "case": case,
        "company": company,
        "row": draw(st.integers(0, batch - 1)),
        "place": draw(st.integers(0, others - 1)),
        "threads": draw(st.sampled_from([1, 2, 3])),
        "checkpoint_steps": draw(st.sampled_from([0, 1, 2, 5, 12, 100])),
        "cuts": sorted(draw(st.sets(st.integers(1, steps - 1), max_size=2))) if steps > 1 else [],
    }


@settings(max_examples=100)
@given(problem=problems())
def test_any_row_anywhere(target, problem):
    variant, case, row, place = (problem[name] for name in ("variant", "case", "row", "place"))
    event(variant.name)
    options = {name: problem[name] for name in ("threads", "checkpoint_steps")}
    alone_case = take_rows(case, slice(row, row + 1))
    alone = run(variant, alone_case)

    def assert_row(got, at, what):
        mine = take_rows(got, slice(at, at + 1))
        for name in ROW_RESULTS:
            if name in got:
                assert_same_bits(f"{what}: {name}", mine[name], alone[name])

    assert_row(run(variant, case, **options), row, "in its batch")
    assert_row(run(variant, put_row(problem["company"], place, case, row), **options), place, "among others")
    if problem["cuts"]:
        assert_row(run_in_chunks(variant, alone_case, problem["cuts"]), 0, f"cut at {problem['cuts']}")
    if case["h_mask"] is None:
        inferred = run(variant, case, training=False, threads=problem["threads"])
        assert_row(inferred, row, "inference")
