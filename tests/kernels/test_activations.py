"""Sigmoid and tanh of every target within 4 ulp over the whole range, measured through the LSTM kernel
itself.

One step with weights chosen so that all but one of the five activations are exactly 0 or 1, and the fifth is
the output: a saturated sigmoid is exactly 1 or below the smallest normal number, tanh(0) is 0.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernels.arrays import assert_same_bits
from tests.kernels.lstm_case import new_plan

ULP_BOUND = 4.0
OPEN, SHUT = 800.0, -800.0
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


def arguments(dtype: np.dtype) -> np.ndarray:
    """The range of interest evenly, every exponent, and numbers from all of the dtype."""
    info = np.finfo(dtype)
    bits = 8 * dtype.itemsize
    end = 1.25 * -np.log(float(info.tiny))  # where a sigmoid is zero, and beyond
    rng = np.random.default_rng(20240229)
    exponents = np.ldexp(1.0 + rng.random(64), np.arange(info.minexp, info.maxexp - 1)[:, None]).ravel()
    around_zero = np.linspace(-1.0, 1.0, 20011)
    every_bit_pattern = rng.integers(0, 2**bits, 20000, dtype=f"u{dtype.itemsize}").view(dtype)
    parts = [
        np.linspace(-end, end, 60013),
        np.linspace(-20.0, 20.0, 20011),
        around_zero,
        exponents,
        -exponents,
        every_bit_pattern,
        [0.0, -0.0],
    ]
    x = np.concatenate([np.asarray(p, dtype) for p in parts])
    return x[np.isfinite(x)]


def evaluate(through: str, x: np.ndarray) -> np.ndarray:
    """The activation of x, [len(x), UNITS]: every unit computes the same."""
    _, gate, biases, c_0, read = THROUGH[through]
    rows = len(x)
    dtype = x.dtype
    weight_ih = np.zeros((4, UNITS, 1), dtype)
    if gate is not None:
        weight_ih[GATES.index(gate)] = 1.0
    bias = np.repeat(np.array(biases, dtype), UNITS)
    cell = np.broadcast_to(x[:, None] if c_0 is None else dtype.type(c_0), (rows, UNITS))
    inputs = (x if gate is not None else np.zeros_like(x)).reshape(1, rows, 1)
    y, h_n, c_n = np.empty((1, rows, UNITS), dtype), *np.empty((2, rows, UNITS), dtype)
    new_plan(1, UNITS, dtype).forward(
        1,
        weight_ih.reshape(4 * UNITS, 1),
        np.zeros((4 * UNITS, UNITS), dtype),
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
    """Distance from the exact value in units of the last place, in the dtype of `got`, of that value."""
    info = np.finfo(got.dtype)
    _, exponent = np.frexp(np.maximum(np.abs(exact), info.tiny))
    return np.abs(got - exact) / np.ldexp(np.longdouble(1.0), exponent - 1 - info.nmant)


@pytest.mark.parametrize("through", THROUGH)
def test_within_four_ulp(target, dtype, through):
    """The exact values are NumPy's in a longer float, where the machine has one."""
    x, tiny = arguments(dtype), np.finfo(dtype).tiny
    function = sigmoid if THROUGH[through][0] == "sigmoid" else np.tanh
    exact = function(np.where(np.abs(x) < tiny, 0.0, x).astype(np.longdouble))[:, None]
    got = evaluate(through, x)
    flushed = (np.abs(exact) < tiny) & (got == 0.0)
    error = np.where(flushed, 0.0, error_in_ulp(got, exact))
    row, unit = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error)), error.shape)
    assert error[row, unit] <= ULP_BOUND, (
        f"{through} of {x[row]!r} in unit {unit}: got {got[row, unit]!r}, exact {exact[row, 0]!r}, "
        f"{error[row, unit]:.2f} ulp"
    )


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-x), without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


@pytest.mark.parametrize("through", THROUGH)
def test_range_and_symmetry(target, dtype, through):
    """No value leaves [0, 1] or [-1, 1]; tanh is odd to the last bit."""
    x = arguments(dtype)
    got = evaluate(through, x)
    if THROUGH[through][0] == "sigmoid":
        assert got.min() >= 0.0
        assert got.max() <= 1.0
    else:
        assert np.abs(got).max() <= 1.0


@pytest.mark.parametrize("through", THROUGH)
def test_limits(target, dtype, through):
    sigmoid = THROUGH[through][0] == "sigmoid"
    low = 0.0 if sigmoid else -1.0
    largest = float(np.finfo(dtype).max)
    if THROUGH[through][1] is None:
        x = np.array([largest, -largest, np.inf, -np.inf, np.nan], dtype)
        got = evaluate(through, x)
    else:  # infinity comes as a bias: times the zero weights of the other gates it would be NaN
        x = np.array([largest, -largest, np.inf, -np.inf, np.nan], dtype)
        got = np.concatenate([_with_bias(through, value) for value in x])
    np.testing.assert_array_equal(got[:4], np.repeat([[1.0], [low], [1.0], [low]], UNITS, axis=1))
    assert np.isnan(got[4]).all()


def _with_bias(through: str, value: np.floating) -> np.ndarray:
    function, gate, biases, c_0, read = THROUGH[through]
    changed = tuple(value if g == gate else b for g, b in zip(GATES, biases, strict=True))
    THROUGH["with bias"] = (function, gate, changed, c_0, read)
    try:
        return evaluate("with bias", np.zeros(1, value.dtype))
    finally:
        del THROUGH["with bias"]
