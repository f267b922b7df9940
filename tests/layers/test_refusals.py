"""Bad arguments: refused with name, expected and got, before anything is written."""

from __future__ import annotations

import numpy as np
import pytest

import lstmx


def zeros(*shape):
    return np.zeros(shape, np.float32)


def lstm():
    return lstmx.LSTM(4, 3, num_layers=2, rng=0)


def model():
    return lstmx.Sequential(
        lstmx.Dropout(0.5, rng=0), lstmx.Linear(2, 4, rng=0), lstm(), lstmx.Linear(3, 1, rng=0)
    )


S = zeros(2, 5, 3)

CONSTRUCTORS = [
    (lambda: lstmx.LSTM(0, 3), ValueError, "input_size: expected at least 1, got 0"),
    (lambda: lstmx.LSTM(4, -1), ValueError, "hidden_size: expected at least 1, got -1"),
    (lambda: lstmx.LSTM(4, 3.0), TypeError, "hidden_size: expected an integer, got 3.0"),
    (lambda: lstmx.LSTM(True, 3), TypeError, "input_size: expected an integer, got True"),
    (lambda: lstmx.LSTM(4, 3, 0), ValueError, "num_layers: expected at least 1"),
    (lambda: lstmx.LSTM(4, 3, bias=1), TypeError, "bias: expected True or False, got 1"),
    (
        lambda: lstmx.LSTM(4, 3, batch_first="yes"),
        TypeError,
        "batch_first: expected True or False, got 'yes'",
    ),
    (lambda: lstmx.LSTM(4, 3, 2, dropout=1.5), ValueError, "dropout: expected at most 1"),
    (lambda: lstmx.LSTM(4, 3, 2, dropout="a"), TypeError, "dropout: expected a number, got 'a'"),
    (lambda: lstmx.LSTM(4, 3, forget_bias=np.nan), ValueError, "forget_bias: expected a finite number"),
    (
        lambda: lstmx.LSTM(4, 3, bias=False, forget_bias=1),
        ValueError,
        "forget_bias: expected 0 with bias=False",
    ),
    (
        lambda: lstmx.LSTM(4, 3, init="zeros"),
        ValueError,
        "init: expected one of 'pytorch', 'glorot', got 'zeros'",
    ),
    (lambda: lstmx.LSTM(4, 3, rng="seed"), TypeError, "."),
    (lambda: lstmx.Linear(4, 0), ValueError, "out_features: expected at least 1, got 0"),
    (lambda: lstmx.Linear("4", 1), TypeError, "in_features: expected an integer, got '4'"),
    (lambda: lstmx.Linear(4, 1, bias_init=np.inf), ValueError, "bias_init: expected a finite number"),
    (
        lambda: lstmx.Linear(4, 1, bias=False, bias_init=0),
        ValueError,
        "bias_init: expected None with bias=False",
    ),
    (lambda: lstmx.Dropout(-0.1), ValueError, "p: expected at least 0"),
    (lambda: lstmx.Dropout(None), TypeError, "p: expected a number, got None"),
]


@pytest.mark.parametrize(("call", "error", "match"), CONSTRUCTORS, ids=[c[2] for c in CONSTRUCTORS])
def test_constructors(call, error, match):
    with pytest.raises(error, match=match):
        call()


CALLS = [
    (lstm, (zeros(6, 5, 7),), ValueError, r"x: expected shape \(T, B, 4\) or \(T, 4\), got \(6, 5, 7\)"),
    (lstm, (zeros(4),), ValueError, r"x: expected shape .*, got \(4,\)"),
    (lstm, (zeros(2, 6, 5, 4),), ValueError, r"x: expected shape .*, got \(2, 6, 5, 4\)"),
    (lstm, (np.zeros((6, 5, 4), complex),), TypeError, "x: expected real numbers, got dtype complex128"),
    (lstm, ("text",), TypeError, "x: expected real numbers"),
    (lstm, (None,), TypeError, "x: expected real numbers"),
    (lstm, ([[1, 2], [3]],), TypeError, "x: expected an array of real numbers, got list"),
    (lstm, (np.zeros((6, 5, 4), "datetime64[s]"),), TypeError, "x: expected real numbers"),
    (lstm, (zeros(6, 5, 4), S), TypeError, r"state: expected a pair \(h_0, c_0\), got ndarray"),
    (lstm, (zeros(6, 5, 4), (S,)), ValueError, r"state: expected a pair \(h_0, c_0\), got 1 items"),
    (lstm, (zeros(6, 5, 4), (S, S, S)), ValueError, r"state: expected a pair \(h_0, c_0\), got 3 items"),
    (
        lstm,
        (zeros(6, 5, 4), (S[:1], S)),
        ValueError,
        r"state\[0\] \(h_0\): expected shape \(2, 5, 3\), got \(1, 5, 3\)",
    ),
    (
        lstm,
        (zeros(6, 5, 4), (S, S[:, :4])),
        ValueError,
        r"state\[1\] \(c_0\): expected shape .*, got \(2, 4, 3\)",
    ),
    (
        lstm,
        (zeros(6, 4), (S, S)),
        ValueError,
        r"state\[0\] \(h_0\): expected shape \(2, 3\), got \(2, 5, 3\)",
    ),
    (lstm, (zeros(6, 5, 4), (S, None)), TypeError, r"state\[1\] \(c_0\): expected real numbers"),
    (
        lambda: lstmx.Linear(4, 1),
        (zeros(6, 5),),
        ValueError,
        r"x: expected shape \(\.\.\., 4\), got \(6, 5\)",
    ),
    (lambda: lstmx.Linear(4, 1), (1.0,), ValueError, r"x: expected shape \(\.\.\., 4\), got \(\)"),
    (
        lambda: lstmx.Linear(4, 1),
        (zeros(6, 4), S),
        TypeError,
        r"state: expected None \(Linear keeps no state\)",
    ),
    (
        lstmx.Dropout,
        (zeros(6, 4), S),
        TypeError,
        r"state: expected None \(Dropout keeps no state\), got ndarray",
    ),
    (lstmx.LastStep, (zeros(6, 4),), ValueError, r"x: expected shape \(B, T, F\).*got \(6, 4\)"),
    (
        lstmx.LastStep,
        (zeros(6, 0, 4),),
        ValueError,
        r"x: expected shape \(B, T, F\) with T at least 1, got \(6, 0, 4\)",
    ),
    (model, (zeros(6, 5, 3),), ValueError, r"x: expected shape \(\.\.\., 2\), got \(6, 5, 3\)"),
    (model, (zeros(2),), ValueError, r"x: expected shape"),
    (model, (zeros(6, 5, 2), (S, S)), ValueError, "state: expected 4 items, one a layer, got 2"),
    (model, (zeros(6, 5, 2), S), TypeError, "state: expected a tuple of 4 items, one a layer, got ndarray"),
    (model, (zeros(6, 5, 2), (None, S, None, None)), TypeError, r"state\[1\]: expected None \(Linear"),
    (
        model,
        (zeros(6, 5, 2), (None, None, (S, S[:, 1:]), None)),
        ValueError,
        r"state\[2\]\[1\] \(c_0\): expected shape",
    ),
]


@pytest.mark.parametrize(("make", "arguments", "error", "match"), CALLS, ids=[c[3] for c in CALLS])
def test_calls(make, arguments, error, match):
    layer = make()
    generators = [g.bit_generator.state for g in layer.rngs()]
    with pytest.raises(error, match=match):
        layer(*arguments)
    with pytest.raises(error, match=match):
        layer.forward(*arguments)
    assert [g.bit_generator.state for g in layer.rngs()] == generators


GOOD = {lstm: (zeros(6, 5, 4), np.ones((6, 5, 3))), model: (zeros(6, 5, 2), np.ones((6, 5, 1)))}
BACKWARDS = [
    (lstm, (zeros(6, 5, 4),), ValueError, r"dy: expected shape \(6, 5, 3\), got \(6, 5, 4\)"),
    (lstm, (zeros(6, 5, 3), S), TypeError, r"dstate: expected a pair \(dh_n, dc_n\), got ndarray"),
    (lstm, (None, (S, S, S)), ValueError, r"dstate: expected a pair \(dh_n, dc_n\), got 3 items"),
    (
        lstm,
        (None, (S[1:], S)),
        ValueError,
        r"dstate\[0\] \(dh_n\): expected shape \(2, 5, 3\), got \(1, 5, 3\)",
    ),
    (
        lstm,
        (None, (None, S[1:])),
        ValueError,
        r"dstate\[1\] \(dc_n\): expected shape \(2, 5, 3\), got \(1, 5, 3\)",
    ),
    (model, (None,), TypeError, "dy: expected real numbers"),
    (model, (zeros(6, 5),), ValueError, r"dy: expected shape \(6, 5, 1\), got \(6, 5\)"),
    (model, (zeros(6, 5, 1), (None,)), ValueError, "dstate: expected 4 items, one a layer, got 1"),
    (model, (zeros(6, 5, 1), (S, None, None, None)), TypeError, r"dstate\[0\]: expected None"),
    (
        model,
        (zeros(6, 5, 1), (None, None, (S, S[1:]), None)),
        ValueError,
        r"dstate\[2\]\[1\] \(dc_n\): expected",
    ),
]


@pytest.mark.parametrize(("make", "arguments", "error", "match"), BACKWARDS, ids=[c[3] for c in BACKWARDS])
def test_backward(make, arguments, error, match):
    layer = make()
    x, dy = GOOD[make]
    backward = layer.forward(x)[2]
    with pytest.raises(error, match=match):
        backward(*arguments)
    assert not layer.arena.grads.any()
    backward(dy)
    assert layer.arena.grads.any()
