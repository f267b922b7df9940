"""With a given target, a row's result is the same bit for bit whatever stands beside it.

It does not depend on the batch size, its position, its neighbours (NaN in them included), the thread count,
whether the sequence came whole or in chunks with carried state, nor on whether a tape was written. The same
holds backward for dx, dh_0 and dc_0; gradients of parameters sum over rows, and are the same for any thread
count.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from lstmx import _core
from tests.kernels.arrays import assert_same_bits, output
from tests.kernels.lstm_case import (
    ACTIVATION_GRADIENTS,
    OUTPUTS,
    PARAMETERS,
    assert_equal_results,
    make_case,
    run,
)

BY_TIME = ("x", "dy", "y", "dx")  # [T,B,...]; all others [B,...]
PER_ROW = ("x", "h_0", "c_0", "dy", "dh_n", "dc_n")
DTYPES = st.sampled_from([np.dtype(np.float32), np.dtype(np.float64)])
EXTENTS = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 23, 31, 32, 33, 40])


def take_rows(arrays, index):
    """The rows of a case or of a result; parameters and their gradients stay."""
    return {
        name: np.ascontiguousarray(array[:, index] if name in BY_TIME else array[index])
        if name in (*PER_ROW, *OUTPUTS, *ACTIVATION_GRADIENTS) and array is not None
        else array
        for name, array in arrays.items()
    }


def run_in_chunks(case, cuts, threads):
    """The case cut before the steps in `cuts`: states carried forward, their gradients carried back."""
    steps = case["x"].shape[0]
    edges = [0, *cuts, steps]
    pieces = [case | {"x": case["x"][a:b], "dy": case["dy"][a:b]} for a, b in itertools.pairwise(edges)]
    for before, piece in zip([None, *pieces], pieces, strict=False):
        if before is not None:
            carried = run(before, training=False, threads=threads)
            piece |= {"h_0": carried["h_n"], "c_0": carried["c_n"]}
    results = [run(pieces[-1], threads=threads)]
    for piece in reversed(pieces[:-1]):
        piece |= {"dh_n": results[0]["dh_0"], "dc_n": results[0]["dc_0"]}
        results.insert(0, run(piece, threads=threads))
    whole = {name: np.concatenate([r[name] for r in results]) for name in ("y", "dx")}
    return whole | {
        **{name: results[-1][name] for name in ("h_n", "c_n")},
        **{name: results[0][name] for name in ("dh_0", "dc_0")},
    }


@st.composite
def problems(draw):
    """A case, a row of it, where that row goes in another batch, and the neighbours it has there."""
    steps, inputs, hidden = draw(st.integers(1, 12)), draw(EXTENTS), draw(EXTENTS)
    batch, others = draw(EXTENTS), draw(EXTENTS)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(DTYPES)
    without = [name for name in ("bias_ih", "bias_hh", "h_0", "c_0") if draw(st.booleans())]
    case = make_case(rng, steps, batch, inputs, hidden, without, dtype)
    company = make_case(rng, steps, others, inputs, hidden, without, dtype)
    poison = draw(st.sampled_from(["ordinary", "nan", "inf", "huge", "denormal"]))
    info = np.finfo(dtype)
    value = {"nan": np.nan, "inf": np.inf, "huge": 0.9 * info.max, "denormal": 0.01 * info.tiny}
    if poison != "ordinary":
        for name in ("x", "h_0", "c_0", "dy"):
            if company[name] is not None:
                company[name][rng.random(company[name].shape) < 0.3] = value[poison]
    return {
        "case": case,
        "company": company,
        "row": draw(st.integers(0, batch - 1)),
        "place": draw(st.integers(0, others - 1)),
        "threads": draw(st.sampled_from([1, 2, 3])),
        "cuts": sorted(draw(st.sets(st.integers(1, steps - 1), max_size=3))) if steps > 1 else [],
        "poison": poison,
    }


@settings(max_examples=100)
@given(problem=problems())
def test_a_row_is_the_same_wherever_it_stands(target, problem):
    case, company, row = problem["case"], problem["company"], problem["row"]
    event(f"neighbours: {problem['poison']}")
    alone_case = take_rows(case, slice(row, row + 1))
    alone = run(alone_case)
    names = (*OUTPUTS, *ACTIVATION_GRADIENTS)

    def assert_row(got, at, what):
        for name in names:
            if name in got:
                mine = take_rows({name: got[name]}, slice(at, at + 1))[name]
                assert_same_bits(f"{what}: {name}", mine, alone[name])

    # 1. in its batch, in training and in inference
    assert_row(run(case, threads=problem["threads"]), row, "in its batch")
    assert_row(run(case, training=False, threads=problem["threads"]), row, "inference")
    # 2. elsewhere, among others
    place = problem["place"]
    moved = {name: None if array is None else array.copy() for name, array in company.items()}
    moved |= {name: case[name] for name in PARAMETERS}
    for name in PER_ROW:
        if case[name] is not None:
            at = (slice(None), place) if name in BY_TIME else place
            moved[name][at] = case[name][:, row] if name in BY_TIME else case[name][row]
    assert_row(run(moved, threads=problem["threads"]), place, "among others")
    # 3. in chunks
    if problem["cuts"]:
        assert_row(run_in_chunks(case, problem["cuts"], problem["threads"]), row, f"cut at {problem['cuts']}")
        assert_row(run_in_chunks(alone_case, problem["cuts"], 1), 0, f"alone, cut at {problem['cuts']}")


# Kernels use a second thread from about 3 million multiply-adds on: T B 4H (I + H) is 5 to 17 million here.
@pytest.mark.parametrize("threads", [2, 3, 5])
@pytest.mark.parametrize(
    "shape", [(20, 33, 33, 33), (90, 33, 9, 33), (6, 2, 200, 300), (30, 5, 70, 64), (400, 1, 33, 64)]
)
def test_thread_counts_give_the_same_bits(target, dtype, rng, shape, threads):
    case = make_case(rng, *shape, dtype=dtype)
    assert_equal_results(run(case, threads=threads), run(case))
    assert_equal_results(run(case, threads=threads, training=False), run(case, training=False))


@pytest.mark.parametrize("threads", [1, 2])
def test_large_sequences_whole_or_in_chunks(target, dtype, rng, threads):
    """Long enough for several time chunks inside backward, and for two threads."""
    case = make_case(rng, 90, 33, 9, 33, dtype=dtype)
    whole = run(case, threads=threads)
    cut = run_in_chunks(case, [1, 2, 50, 89], threads)
    for name, array in cut.items():
        assert_same_bits(name, array, whole[name])


def test_the_same_call_gives_the_same_bits(target, rng):
    case = make_case(rng, 90, 33, 9, 33)
    plan = _core.LstmPlan(9, 33)
    first = run(case, plan=plan, threads=2)
    for _ in range(5):
        assert_equal_results(run(case, plan=plan, threads=2), first)


@settings(max_examples=100)
@given(
    extents=st.tuples(EXTENTS, EXTENTS, EXTENTS, EXTENTS),
    seed=st.integers(0, 2**32 - 1),
    position=st.floats(0, 1, exclude_max=True),
    threads=st.sampled_from([1, 2, 3]),
)
def test_a_linear_row_is_the_same_wherever_it_stands(target, dtype, extents, seed, position, threads):
    rows, others, inputs, outputs = extents
    rng = np.random.default_rng(seed)
    weight, bias = (rng.standard_normal(s).astype(dtype) for s in ((outputs, inputs), (outputs,)))
    x, dy = (rng.standard_normal((rows, n)).astype(dtype) for n in (inputs, outputs))
    here, there = int(position * rows), int(position * others)
    other_x, other_dy = (np.full((others, n), np.nan, dtype) for n in (inputs, outputs))
    other_x[there], other_dy[there] = x[here], dy[here]

    def linear(x, dy):
        y, dx = output((len(x), outputs), dtype=dtype), output((len(x), inputs), dtype=dtype)
        plan = _core.LinearPlan if dtype == np.float32 else _core.LinearPlan64
        tape = plan(inputs, outputs).forward(1, weight, bias, x, y.array, True, threads)
        tape.backward(x, dy, dx.array, np.zeros_like(weight), np.zeros_like(bias), threads)
        return y.array, dx.array

    alone = linear(x[here : here + 1], dy[here : here + 1])
    for index, arrays in ((here, linear(x, dy)), (there, linear(other_x, other_dy))):
        for name, array, mine in zip(("y", "dx"), arrays, alone, strict=True):
            assert_same_bits(name, array[index : index + 1], mine)
