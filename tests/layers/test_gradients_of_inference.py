"""`forward(..., training=False)`: outputs of inference, with all gradients; nothing drawn or moved."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import lstmx
from lstmx import reference
from tests.layers.agree import agree
from tests.layers.test_batchnorm import make as make_norm
from tests.layers.test_lengths_and_resets import LENGTHS
from tests.layers.test_lstm import normal
from tests.layers.test_lstm_options import make

DROPS = [
    {"hidden_size": 5, "weight_dropout": 0.5},
    {"hidden_size": 5, "num_layers": 2, "dropout": 0.5},
    {"hidden_size": 5, "num_layers": 2, "bidirectional": True, "dropout": 0.5, "weight_dropout": 0.5},
    {"hidden_size": [5, 4], "dropout": 0.5, "connection": "highway", "learn_initial_state": True},
]


def without_drops(lstm):
    options = {k: v for k, v in lstm.config().items() if k not in ("type", "dropout", "weight_dropout")}
    plain = lstmx.LSTM(**options)
    plain.load_state_dict(lstm.state_dict())
    return plain


def draws_of(model):
    return [copy.deepcopy(rng.bit_generator.state) for rng in model.rngs()]


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
@pytest.mark.parametrize("options", DROPS, ids=str)
def test_lstm(rng, options, lengths):
    """As a layer without dropout, whose training and inference are one; with cells and without."""
    lstm = copy.deepcopy(make(rng, options))  # with a generator of its own
    plain, before = without_drops(lstm), draws_of(lstm)
    x = normal(rng, 6, 4, 3)
    dy = normal(rng, *plain(x)[0].shape)
    dcells = [normal(rng, *c.shape) for c in plain(x, return_cells=True)[2]]
    for asked, given in (({}, ()), ({"return_cells": True, "trace": True}, (None, dcells))):
        results = []
        for model, training in ((lstm, False), (plain, True)):
            model.zero_grad()
            y, _, backward, *_ = model.forward(x, lengths=lengths, training=training, **asked)
            dx, _ = backward(dy, *given)
            results.append([y, dx, model.arena.grads.copy()])
        for got, want in zip(*results, strict=True):
            np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(results[0][0], lstm(x, lengths=lengths)[0])
    assert draws_of(lstm) == before


def test_dropout(rng):
    layer, x, dy = lstmx.Dropout(0.5, rng=0), normal(rng, 4, 3), normal(rng, 4, 3)
    y, _, backward = layer.forward(x, training=False)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(backward(dy)[0], dy)
    assert layer.forward(x, training=False)[2](dy, need_dx=False) == (None, None)
    assert draws_of(layer) == draws_of(lstmx.Dropout(0.5, rng=0))


@pytest.mark.parametrize("lengths", [None, LENGTHS, [0, 0, 0, 0]])
def test_batch_norm(rng, lengths):
    """The reference is linear in x, in the weight and in the bias: differences are gradients."""
    layer = make_norm(rng, eps=1e-3)
    arrays = {"x": 2 + 3 * normal(rng, 6, 4, 3)} | layer.state_dict()
    dy, before = normal(rng, 6, 4, 3), layer.state_dict()

    def loss(**changed):
        return (dy * reference.batch_norm_inference(**arrays | changed, lengths=lengths, eps=1e-3)).sum()

    want = {}
    for name in ("x", "weight", "bias"):
        value = arrays[name].astype(np.float64)
        want[name] = np.empty(value.shape)
        for index in np.ndindex(value.shape):
            step = np.zeros(value.shape)
            step[index] = 1
            want[name][index] = loss(**{name: value + step}) - loss(**{name: value})
    y, _, backward = layer.forward(arrays["x"], lengths=lengths, training=False)
    np.testing.assert_array_equal(y, layer(arrays["x"], lengths=lengths)[0])
    dx, _ = backward(dy)
    for name, got in ({"x": dx} | dict(layer.grads)).items():
        agree(name, got, np.round(want[name], 12))
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_models_pass_it_on(rng):
    """By differences of inference itself, along one direction of all parameters and of x."""
    model = lstmx.Sequential(
        lstmx.Linear(3, 4, rng=0),
        lstmx.Residual(lstmx.LSTM(4, 4, 2, dropout=0.5, weight_dropout=0.3, rng=1)),
        lstmx.Residual(lstmx.Sequential(lstmx.Dropout(0.5, rng=2), lstmx.BatchNorm(4))),
        lstmx.Linear(4, 2, rng=3),
    )
    with model.editing() as views:
        views["2.layer.1.running_mean"][...] = normal(rng, 4)
        views["2.layer.1.running_var"][...] = 2.5
    x, buffers, draws = normal(rng, 6, 4, 3), {n: a.copy() for n, a in model.buffers.items()}, draws_of(model)
    y, _, backward = model.forward(x, training=False)
    np.testing.assert_array_equal(y, model(x)[0])
    dy = normal(rng, *y.shape)
    dx, _ = backward(dy)
    assert draws_of(model) == draws
    for name, value in model.buffers.items():
        np.testing.assert_array_equal(value, buffers[name], err_msg=name)

    step, d_x = 1e-2, normal(rng, *x.shape)
    d_params = {name: normal(rng, *view.shape) for name, view in model.params.items()}
    start, losses = model.state_dict(), []
    for sign in (1, -1):
        with model.editing() as views:
            for name, direction in d_params.items():
                views[name][...] = start[name] + sign * step * direction
        losses.append((dy.astype(np.float64) * model(x + np.float32(sign * step) * d_x)[0]).sum())
    got = (dx * d_x).sum() + sum((model.grads[name] * d).sum() for name, d in d_params.items())
    np.testing.assert_allclose((losses[0] - losses[1]) / (2 * step), got, rtol=0.01)


@pytest.mark.parametrize("layer", [lstmx.LSTM(3, 5), lstmx.Linear(3, 5)], ids=["LSTM", "Linear"])
def test_what_is_no_bool_is_refused(layer):
    with pytest.raises(TypeError, match="training: expected True or False, got 'no'"):
        layer.forward(np.zeros((6, 4, 3), np.float32), training="no")
