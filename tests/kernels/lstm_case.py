"""One problem for the LSTM kernels, and its solution by a kernel and by the reference."""

from __future__ import annotations

import numpy as np

from lstmx import _core, reference
from tests.kernels.arrays import assert_same_bits, output, placed_input
from tests.running_error import bounded
from tests.tolerances import assert_close

OUTPUTS = ("y", "h_n", "c_n")
ACTIVATION_GRADIENTS = ("dx", "dh_0", "dc_0")
PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def make_case(rng, steps, batch, inputs, hidden, without=(), dtype=np.float32):
    """Random arrays for one layer, the names in `without` being None; all rows of full length, no resets."""

    def normal(*shape, scale=1.0):
        return (scale * rng.standard_normal(shape)).astype(dtype)

    scale = 1.5 / np.sqrt(inputs + hidden)  # the gates then cover their range without saturating
    case = {
        "weight_ih": normal(4 * hidden, inputs, scale=scale),
        "weight_hh": normal(4 * hidden, hidden, scale=scale),
        "bias_ih": normal(4 * hidden),
        "bias_hh": normal(4 * hidden),
        "x": normal(steps, batch, inputs),
        "h_0": normal(batch, hidden),
        "c_0": normal(batch, hidden),
        "dy": normal(steps, batch, hidden),
        "dh_n": normal(batch, hidden),
        "dc_n": normal(batch, hidden),
        "lengths": None,
        "resets": None,
    }
    return case | dict.fromkeys(without)


def sizes(case):
    """T, B, I, H."""
    return (*case["x"].shape, case["weight_hh"].shape[1])


def new_plan(inputs, hidden, dtype):
    return (_core.LstmPlan if dtype == np.float32 else _core.LstmPlan64)(inputs, hidden)


def run(
    case,
    *,
    training=True,
    threads=1,
    checkpoint_steps=0,
    layouts=None,
    unwanted=(),
    initial=0.0,
    plan=None,
    version=1,
):
    """What the kernels of the active target make of a case: outputs and, in training, all gradients.

    `layouts` names the memory layout of x, y, dy and dx; `unwanted` the activation gradients not asked for;
    the parameter gradients start at `initial`. Nothing outside the outputs may be written.
    """
    steps, batch, inputs, hidden = sizes(case)
    dtype = case["x"].dtype
    layouts = {} if layouts is None else layouts
    shapes = {
        "y": (steps, batch, hidden),
        "dx": (steps, batch, inputs),
        **dict.fromkeys(("h_n", "c_n", "dh_0", "dc_0"), (batch, hidden)),
    }
    placed = {name: output(shape, layouts.get(name, "contiguous"), dtype) for name, shape in shapes.items()}
    out = {name: p.array for name, p in placed.items()}
    x = placed_input(case["x"], layouts.get("x", "contiguous"))
    dy = placed_input(case["dy"], layouts.get("dy", "contiguous"))
    parameters = [case[name] for name in PARAMETERS]
    gradients = {
        f"d_{name}": None if case[name] is None else np.full(case[name].shape, initial, dtype)
        for name in PARAMETERS
    }

    plan = new_plan(inputs, hidden, dtype) if plan is None else plan
    given = [case[name] for name in ("h_0", "c_0", "lengths", "resets")]
    outputs = [out[name] for name in OUTPUTS]
    tape = plan.forward(version, *parameters, x, *given, *outputs, training, checkpoint_steps, threads)
    assert (tape is not None) == training
    names = OUTPUTS
    if training:
        y_before = out["y"].copy()
        wanted = [None if name in unwanted else out[name] for name in ACTIVATION_GRADIENTS]
        tape.backward(
            x, out["y"], case["h_0"], dy, case["dh_n"], case["dc_n"], *wanted, *gradients.values(), threads
        )
        assert_same_bits("y after backward", out["y"], y_before)
        names = (*OUTPUTS, *(name for name in ACTIVATION_GRADIENTS if name not in unwanted))
    for name, p in placed.items():
        p.check(name)
    result = {name: out[name] for name in names}
    if training:
        result |= {name: gradient for name, gradient in gradients.items() if gradient is not None}
    return result


def expected(case, training=True):
    """The same by the reference, with error bounds."""
    given = {name: bounded(case[name]) for name in (*PARAMETERS, "x", "h_0", "c_0", "dy", "dh_n", "dc_n")}
    forward = [given[name] for name in ("x", *PARAMETERS, "h_0", "c_0")]
    spans = {name: case[name] for name in ("lengths", "resets")}
    y, h_n, c_n, tape = reference.lstm_forward(*forward, **spans)
    result = {"y": y, "h_n": h_n, "c_n": c_n}
    if training:
        gradients = reference.lstm_backward(tape, given["dy"], given["dh_n"], given["dc_n"])
        result |= gradients._asdict()
    return {name: bounded(v) if isinstance(v, np.ndarray) else v for name, v in result.items()}


def assert_matches(got, want):
    """Compare what a kernel gave, name by name, with the reference."""
    for name, array in got.items():
        assert_close(name, array, want[name])


def assert_equal_results(a, b):
    """Compare two results bit for bit."""
    assert a.keys() == b.keys()
    for name in a:
        assert_same_bits(name, a[name], b[name])
