"""The kernels of the variants and of the GRU against the float64 reference: outputs and all gradients.

Each on every target, with lengths, resets, initial states, gradients into cell states; threads, checkpoints
and chunks bit for bit.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernels.arrays import assert_same_bits
from tests.kernels.variant_case import MASKS, VARIANTS, expected, make_case, run
from tests.tolerances import assert_close

SIZES = [(1, 1, 1, 1), (3, 5, 2, 3), (7, 6, 9, 17), (2, 13, 5, 20), (5, 3, 17, 33), (4, 9, 3, 16)]
BY_NAME = {variant.name: variant for variant in VARIANTS}
every_variant = pytest.mark.parametrize("variant", VARIANTS, ids=list(BY_NAME))


def compare(variant, got, want):
    if not variant.has_cells:  # of the GRU h is c: the parts of the gradient meet above the kernels
        got = dict(got)
        got["dh_0"] = got["dh_0"] + got.pop("dc_0") if "dc_0" in got else None
        got = {n: a for n, a in got.items() if n not in ("c_n", "cells", "gates") and a is not None}
    for name, array in got.items():
        assert_close(name, array, want[name])


@every_variant
@pytest.mark.parametrize("spans", [False, True], ids=["full", "spans"])
@pytest.mark.parametrize("sizes", SIZES, ids="T{0[0]}-B{0[1]}-I{0[2]}-H{0[3]}".format)
def test_outputs_and_all_gradients(target, rng, variant, sizes, spans):
    if variant.projects and sizes[3] == 1:
        pytest.skip("one unit has no smaller projection")
    case = make_case(rng, variant, *sizes, spans=spans)
    compare(variant, run(variant, case, trace=True), expected(variant, case))
    compare(variant, run(variant, case, training=False), expected(variant, case, training=False))


@every_variant
def test_several_chunks_and_threads(target, rng, variant):
    case = make_case(rng, variant, 70, 19, 7, 21)
    case["weight_hh"] *= np.float32(0.5)
    got = run(variant, case)
    compare(variant, got, expected(variant, case))
    for name, array in run(variant, case, threads=2).items():
        assert_same_bits(name, array, got[name])


@pytest.mark.parametrize("variant", [BY_NAME[n] for n in ("everything_but_a_projection", "gru_with_masks")])
def test_hidden_units_split_between_threads(target, rng, variant):
    """Few rows: the threads split the hidden units and meet after every step."""
    case = make_case(rng, variant, 60, 2, 40, 130, spans=False)
    case["weight_hh"] *= np.float32(0.2)
    got = run(variant, case)
    for name, array in run(variant, case, threads=2).items():
        assert_same_bits(name, array, got[name])


@every_variant
@pytest.mark.parametrize("steps", [1, 3, 4])
def test_checkpoints(target, rng, variant, steps):
    """Recomputed gates: what belongs to a row has the bits that it has without."""
    case = make_case(rng, variant, 10, 5, 4, 11)
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


@pytest.mark.parametrize("variant", [BY_NAME["plain"]], ids=["plain"])
def test_the_plain_cell_is_near_the_fused_one(target, rng, variant):
    """The same equations, staged and fused; both accumulate alike."""
    case = make_case(rng, variant, 6, 5, 4, 19)
    fused = run(variant._replace(kernel="lstm"), case)
    for name, array in run(variant, case).items():
        if name in ("y", "h_n", "c_n", "cells"):
            assert_same_bits(name, array, fused[name])


@pytest.mark.parametrize("hidden", [1, 6, 16, 35])
def test_cells_and_gates_of_the_fused_cell(target, rng, hidden):
    variant = BY_NAME["plain"]
    case = make_case(rng, variant, 5, 7, 3, hidden)
    compare(variant, run(variant._replace(kernel="lstm"), case, trace=True), expected(variant, case))
