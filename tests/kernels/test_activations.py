"""Sigmoid and tanh of every target within 4 ulp over the whole range, measured through the LSTM kernel
itself.

One step with weights chosen so that all but one of the five activations are exactly 0 or 1, and the fifth is
the output: a saturated sigmoid is exactly 1 or below the smallest normal float, tanh(0) is 0.
"""

from __future__ import annotations

import numpy as np
import pytest

from lstmx import _core, reference
from tests.kernels.arrays import assert_same_bits

ULP_BOUND = 4.0
TINY = float(np.finfo(np.float32).tiny)
OPEN, SHUT = 100.0, -100.0
UNITS = 17  # a whole vector and a tail of each target
GATES = ("i", "f", "g", "o")

# name: (the function, the gate that gets x, the biases of the gates i f g o, c_0, the output to read)
THROUGH = {
    "sigmoid of the input gate": ("sigmoid", "i", (0.0, SHUT, OPEN, OPEN), 0.0, "c"),
    "sigmoid of the forget gate": ("sigmoid", "f", (SHUT, 0.0, 0.0, OPEN), 1.0, "c"),
    "tanh of the candidate": ("tanh", "g", (OPEN, SHUT, 0.0, OPEN), 0.0, "c"),
    "sigmoid of the output gate": ("sigmoid", "o", (SHUT, OPEN, 0.0, 0.0), 50.0, "h"),
    "tanh of the cell state": ("tanh", None, (SHUT, OPEN, 0.0, OPEN), None, "h"),
}


def arguments() -> np.ndarray:
    """The range of interest evenly, every exponent, and numbers from all of float32."""
    rng = np.random.default_rng(20240229)
    exponents = np.ldexp(1.0 + rng.random(64), np.arange(-126, 127)[:, None]).ravel()
    around_zero = np.linspace(-1.0, 1.0, 20011)
    every_bit_pattern = rng.integers(0, 2**32, 20000, dtype=np.uint32).view(np.float32)
    parts = [
        np.linspace(-110.0, 110.0, 60013),
        around_zero,
        exponents,
        -exponents,
        every_bit_pattern,
        [0.0, -0.0],
    ]
    x = np.concatenate([np.asarray(p, np.float32) for p in parts])
    return x[np.isfinite(x)]


def evaluate(through: str, x: np.ndarray) -> np.ndarray:
    """The activation of x, [len(x), UNITS]: every unit computes the same."""
    _, gate, biases, c_0, read = THROUGH[through]
    rows = len(x)
    weight_ih = np.zeros((4, UNITS, 1), np.float32)
    if gate is not None:
        weight_ih[GATES.index(gate)] = 1.0
    bias = np.repeat(np.array(biases, np.float32), UNITS)
    cell = np.broadcast_to(x[:, None] if c_0 is None else np.float32(c_0), (rows, UNITS))
    inputs = (x if gate is not None else np.zeros_like(x)).reshape(1, rows, 1)
    y, h_n, c_n = np.empty((1, rows, UNITS), np.float32), *np.empty((2, rows, UNITS), np.float32)
    _core.LstmPlan(1, UNITS).forward(
        1,
        weight_ih.reshape(4 * UNITS, 1),
        np.zeros((4 * UNITS, UNITS), np.float32),
        bias,
        None,
        np.ascontiguousarray(inputs),
        None,
        np.ascontiguousarray(cell),
        None,
        None,
        y,
        h_n,
        c_n,
        False,
        0,
        1,
    )
    assert_same_bits("h_n", h_n, y[0])
    return c_n if read == "c" else h_n


def error_in_ulp(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Distance from the exact value in units of the last place of a float32 of that size."""
    _, exponent = np.frexp(np.maximum(np.abs(exact), TINY))
    return np.abs(got - exact) / np.ldexp(1.0, exponent - 24)


@pytest.mark.parametrize("through", THROUGH)
def test_within_four_ulp(target, through):
    x = arguments()
    function = reference.sigmoid if THROUGH[through][0] == "sigmoid" else np.tanh
    exact = function(np.where(np.abs(x) < TINY, 0.0, x).astype(np.float64))[:, None]
    got = evaluate(through, x).astype(np.float64)
    flushed = (np.abs(exact) < TINY) & (got == 0.0)
    error = np.where(flushed, 0.0, error_in_ulp(got, exact))
    row, unit = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error)), error.shape)
    assert error[row, unit] <= ULP_BOUND, (
        f"{through} of {x[row]!r} in unit {unit}: got {got[row, unit]!r}, exact {exact[row, 0]!r}, "
        f"{error[row, unit]:.2f} ulp"
    )


@pytest.mark.parametrize("through", THROUGH)
def test_range_and_symmetry(target, through):
    """No value leaves [0, 1] or [-1, 1]; tanh is odd to the last bit."""
    x = arguments()
    got = evaluate(through, x)
    if THROUGH[through][0] == "sigmoid":
        assert got.min() >= 0.0
        assert got.max() <= 1.0
    else:
        assert np.abs(got).max() <= 1.0


@pytest.mark.parametrize("through", THROUGH)
def test_limits(target, through):
    sigmoid = THROUGH[through][0] == "sigmoid"
    low = 0.0 if sigmoid else -1.0
    largest = float(np.finfo(np.float32).max)
    if THROUGH[through][1] is None:
        x = np.array([largest, -largest, np.inf, -np.inf, np.nan], np.float32)
        got = evaluate(through, x)
    else:  # infinity comes as a bias: times the zero weights of the other gates it would be NaN
        x = np.array([largest, -largest, np.inf, -np.inf, np.nan], np.float32)
        got = np.concatenate([_with_bias(through, value) for value in x])
    np.testing.assert_array_equal(got[:4], np.repeat([[1.0], [low], [1.0], [low]], UNITS, axis=1))
    assert np.isnan(got[4]).all()


def _with_bias(through: str, value: np.float32) -> np.ndarray:
    function, gate, biases, c_0, read = THROUGH[through]
    changed = tuple(value if g == gate else b for g, b in zip(GATES, biases, strict=True))
    THROUGH["with bias"] = (function, gate, changed, c_0, read)
    try:
        return evaluate("with bias", np.zeros(1, np.float32))
    finally:
        del THROUGH["with bias"]
