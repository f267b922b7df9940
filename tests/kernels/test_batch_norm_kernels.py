"""Batch normalization inside the recurrence, in the kernels of every target, against the float64 reference.

Beside test_variant_kernels.py, as no row is alone here unless running statistics are given.
"""

from __future__ import annotations

import numpy as np
import pytest

from lstmx import reference
from tests.kernels.arrays import assert_same_bits
from tests.kernels.variant_case import MASKS, STATISTICS, Variant, expected, make_case, run
from tests.tolerances import assert_close

OPTIONS = {"batch_norm": True, "eps": 0.1}
EVERYTHING = {"peephole": True, "coupled": True, "gate_clip": 0.8, "cell_clip": 0.7, **OPTIONS}
VARIANTS = [
    Variant("batch_norm", OPTIONS),
    Variant("everything", EVERYTHING, MASKS, projects=True),
    Variant("everything_but_a_projection", EVERYTHING, MASKS),
]
SIZES = [(3, 5, 2, 3), (7, 6, 9, 17), (2, 13, 5, 20), (5, 3, 17, 33), (4, 9, 3, 16)]
every_variant = pytest.mark.parametrize("variant", VARIANTS, ids=[variant.name for variant in VARIANTS])


def compare(got, want):
    for name, array in got.items():
        assert_close(name, array, want[name])


def running_for(rng, hidden, steps=3, dtype=np.float32):
    """Running statistics of fewer steps than there are."""
    shapes = [(steps, hidden * (1 if name.endswith("_c") else 4)) for name in STATISTICS]
    return [rng.uniform(0.5, 2.0, shape).astype(dtype) for shape in shapes]


@every_variant
@pytest.mark.parametrize("given", [False, True], ids=["batch", "running"])
@pytest.mark.parametrize("spans", [False, True], ids=["full", "spans"])
@pytest.mark.parametrize("sizes", SIZES, ids="T{0[0]}-B{0[1]}-I{0[2]}-H{0[3]}".format)
def test_outputs_and_all_gradients(target, dtype, rng, variant, sizes, spans, given):
    case = make_case(rng, variant, *sizes, spans=spans, dtype=dtype)
    running = running_for(rng, sizes[3], dtype=dtype) if given else None
    compare(run(variant, case, trace=True, running=running), expected(variant, case, running=running))
    got = run(variant, case, training=False, running=running)
    compare(got, expected(variant, case, training=False, running=running))


@every_variant
def test_chunks_threads_and_checkpoints(target, rng, variant):
    case = make_case(rng, variant, 70, 19, 7, 21)
    case["weight_hh"] *= np.float32(0.5)
    got = run(variant, case)
    compare(got, expected(variant, case))
    for name, array in run(variant, case, threads=2).items():
        assert_same_bits(name, array, got[name])
    running = running_for(rng, 21, steps=40)
    want = run(variant, case, running=running)
    for options, other in (({}, got), ({"running": running}, want)):
        for name, array in run(variant, case, checkpoint_steps=16, **options).items():
            if name.startswith("d_"):
                np.testing.assert_allclose(array, other[name], rtol=1e-3, atol=1e-3)
            else:
                assert_same_bits(name, array, other[name])


def test_statistics_of_the_batch(target, rng):
    """What is made is what the reference's running statistics are made of."""
    variant = VARIANTS[0]
    case = make_case(rng, variant, 6, 7, 4, 19)
    made = [np.zeros((6, width * 19), np.float32) for width in (4, 4, 4, 4, 1, 1)]
    run(variant, case, made=made)
    result = reference.recurrent_forward(
        case["x"],
        {name: case[name] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "gain_ih", "gain_hh")}
        | {name: case[name] for name in ("gain_c", "bias_c")},
        (case["h_0"], case["c_0"]),
        cell=variant.cell,
        lengths=case["lengths"],
        resets=case["resets"],
    )
    zeros = {name: np.zeros_like(array) for name, array in zip(STATISTICS, made, strict=True)}
    want = reference.running_statistics(result.tape, zeros, momentum=1.0)
    rows = np.array([(case["lengths"] > t).sum() for t in range(6)])
    assert (rows > 1).any()
    for name, array in zip(STATISTICS, made, strict=True):
        unbiased = (rows / np.maximum(rows - 1, 1))[:, None] if "var" in name else 1.0
        there = rows > 1
        np.testing.assert_allclose((array * unbiased)[there], want[name][there], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", [VARIANTS[0], VARIANTS[2]], ids=["batch_norm", "everything"])
def test_with_running_statistics_a_row_is_alone(target, rng, variant):
    case = make_case(rng, variant, 9, 7, 4, 21, spans=False)
    running = running_for(rng, 21)
    whole = run(variant, case, training=False, running=running)
    for b in (0, 4, 6):
        part = case | {name: case[name][b : b + 1] for name in ("h_0", "c_0")}
        part["x"] = case["x"][:, b : b + 1]
        for name in MASKS[:2]:
            part[name] = None if case[name] is None else case[name][:, b : b + 1]
        alone = run(variant, part, training=False, running=running)
        for name in ("y", "cells"):
            assert_same_bits(name, alone[name], whole[name][:, b : b + 1])
