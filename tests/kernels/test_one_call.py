"""LstmPlan.call: the bits of LstmPlan.forward in one call from Python, or None where Python must step in."""

from __future__ import annotations

import numpy as np
import pytest

from lstmx import _core
from tests.kernels.arrays import LAYOUTS, assert_same_bits, placed_input
from tests.kernels.lstm_case import PARAMETERS, make_case, run
from tests.kernels.test_bindings import spoilt


def call(case, x, state, *, batch_first=False, training=False, checkpoint_steps=0, threads=1):
    weights = [case[name] for name in PARAMETERS]
    plan = _core.LstmPlan(5, 9)
    return plan.call(1, *weights, x, state, batch_first, training, checkpoint_steps, threads)


def state_of(case):
    return case["h_0"][None], case["c_0"][None]


@pytest.mark.parametrize("layout", [n for n in LAYOUTS if n not in ("batch_first", "reversed_batch_first")])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("with_state", [False, True])
def test_the_bits_of_forward(target, rng, layout, batch_first, with_state):
    case = make_case(rng, 4, 3, 5, 9, () if with_state else ("h_0", "c_0"))
    want = run(case)
    x = placed_input(case["x"].swapaxes(0, 1) if batch_first else case["x"], layout)
    state = state_of(case) if with_state else None
    for training in (False, True):
        y, (h_n, c_n), tape = call(case, x, state, batch_first=batch_first, training=training)
        assert (tape is not None) == training
        assert y.flags.c_contiguous
        y = y.swapaxes(0, 1) if batch_first else y
        for name, got in {"y": y, "h_n": h_n[0], "c_n": c_n[0]}.items():
            assert_same_bits(name, got, want[name])


@pytest.mark.parametrize("checkpoint_steps", [0, 2])
def test_its_tape_serves(target, rng, checkpoint_steps):
    case = make_case(rng, 4, 3, 5, 9)
    y, _, tape = call(case, case["x"], state_of(case), training=True, checkpoint_steps=checkpoint_steps)
    dx, gradients = np.empty_like(case["x"]), [np.zeros_like(case[n]) for n in PARAMETERS]
    upstream = [case[n] for n in ("dy", "dh_n", "dc_n")]
    tape.backward(case["x"], y, case["h_0"], *upstream, dx, None, None, *gradients, 1)
    assert_same_bits("dx", dx, run(case)["dx"])


def test_what_python_must_convert_or_refuse(rng):
    case = make_case(rng, 4, 3, 5, 9)
    h_0, c_0 = state_of(case)
    for what, wrong in spoilt(case["x"]):
        if what not in ("one row less", "transposed"):
            assert call(case, wrong, None) is None, what
    for what, wrong in spoilt(h_0):
        assert call(case, case["x"], (wrong, c_0)) is None, what
        assert call(case, case["x"], (h_0, wrong)) is None, what
    for state in ([h_0, c_0], (h_0,), (h_0, c_0, c_0), h_0, (None, c_0), (h_0[:, :2], c_0)):
        assert call(case, case["x"], state) is None
    for x in (None, "text", case["x"][:, 0]):
        assert call(case, x, None) is None
