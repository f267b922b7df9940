"""Models of float64: results and gradients of float64's accuracy, the dtype kept wherever a model goes."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import lstmx
from lstmx import reference
from lstmx.layers import from_config
from lstmx.optim import SGD, AdamW, clip_grad_norm

CLOSE = {"rtol": 1e-12, "atol": 1e-13}


def model(dtype="float64"):
    return lstmx.Sequential(
        lstmx.LSTM(3, 5, num_layers=2, bidirectional=True, batch_first=True, dtype=dtype, rng=0),
        lstmx.BatchNorm(10, batch_first=True, dtype=dtype),
        lstmx.Dropout(0.0),
        lstmx.LastStep(),
        lstmx.LayerNorm(10, dtype=dtype),
        lstmx.Linear(10, 2, dtype=dtype, rng=1),
    )


def test_an_lstm_is_the_reference(rng):
    layer = lstmx.LSTM(3, 5, dtype="float64", rng=0)
    assert (layer.dtype, layer.arena.params.dtype, layer.arena.grads.dtype) == (np.float64,) * 3
    x, h_0, c_0, dy = (rng.standard_normal(s) for s in ((7, 4, 3), (4, 5), (4, 5), (7, 4, 5)))
    lengths, resets = np.array([7, 2, 0, 5]), rng.random((7, 4)) < 0.2
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    weights = [layer.params[f"{name}_l0"] for name in names]
    for spans in ({}, {"lengths": lengths, "resets": resets}):
        layer.zero_grad()
        y, (h_n, c_n), backward = layer.forward(x, (h_0[None], c_0[None]), **spans)
        dx, (dh_0, dc_0) = backward(dy)
        want_y, want_h, want_c, tape = reference.lstm_forward(x, *weights, h_0, c_0, **spans)
        want = reference.lstm_backward(tape, dy)
        got = [y, h_n[0], c_n[0], dx, dh_0[0], dc_0[0], *(layer.grads[f"{n}_l0"] for n in names)]
        for ours, theirs in zip(got, (want_y, want_h, want_c, *want), strict=True):
            assert ours.dtype == np.float64
            np.testing.assert_allclose(ours, theirs, **CLOSE)


@pytest.mark.parametrize("kind", [lstmx.GRU, lstmx.RNN])
def test_cells_without_c_are_the_reference(rng, kind):
    layer = kind(3, 5, num_layers=2, bidirectional=True, dtype="float64", rng=0)
    shapes = (7, 4, 3), (4, 4, 5), (7, 4, 10), (4, 4, 5)
    x, h_0, dy, dh_n = (rng.standard_normal(shape) for shape in shapes)
    spans = {"lengths": np.array([7, 2, 0, 5]), "resets": rng.random((7, 4)) < 0.2}
    y, h_n, backward = layer.forward(x, h_0, **spans)
    got = [y, h_n, *backward(dy, dh_n), *layer.grads.values()]
    options = {"cell": getattr(reference, kind.__name__), "num_layers": 2, "bidirectional": True}
    want_y, final, undo = reference.recurrent(x, layer.params, (h_0,), **options, **spans)
    dx, d_initial, grads = undo(dy, (dh_n,))
    want = [want_y, *final, dx, *d_initial, *(grads[name] for name in layer.grads)]
    for ours, theirs in zip(got, want, strict=True):
        assert ours.dtype == np.float64
        np.testing.assert_allclose(ours, theirs, **CLOSE)


def test_a_linear_layer_is_the_reference(rng):
    layer = lstmx.Linear(3, 5, dtype="float64", rng=0)
    x, dy = rng.standard_normal((2, 7, 3)), rng.standard_normal((2, 7, 5))
    y, _, backward = layer.forward(x)
    dx, _ = backward(dy)
    weight, bias = layer.params["weight"], layer.params["bias"]
    np.testing.assert_allclose(y, x @ weight.T + bias, **CLOSE)
    np.testing.assert_allclose(dx, dy @ weight, **CLOSE)
    np.testing.assert_allclose(layer.grads["weight"], np.einsum("bto,bti->oi", dy, x), **CLOSE)
    np.testing.assert_allclose(layer.grads["bias"], dy.sum((0, 1)), **CLOSE)


def test_normalizations_are_the_reference(rng):
    x, dy, lengths = rng.standard_normal((6, 4, 3)), rng.standard_normal((6, 4, 3)), [5, 0, 2, 6]
    layers = lstmx.BatchNorm(3, dtype="float64"), lstmx.LayerNorm(3, dtype="float64")
    for layer in layers:
        with layer.editing() as views:
            for view in views.values():
                view[...] = rng.uniform(0.5, 2.0, 3)
    batch, layer = layers
    values = batch.state_dict()
    want_y, *running = reference.batch_norm_forward(x, **values, lengths=lengths)
    want = reference.batch_norm_backward(x, values["weight"], dy, lengths=lengths)
    y, _, backward = batch.forward(x, lengths=lengths)
    dx = backward(dy)[0]
    got = [y, dx, *batch.grads.values(), *batch.buffers.values()]
    inferred = batch(x, lengths=lengths)[0]
    wanted = reference.batch_norm_inference(x, **batch.state_dict(), lengths=lengths)
    x, dy = x.reshape(-1, 3), dy.reshape(-1, 3)
    y, _, backward = layer.forward(x)
    got += [inferred, y, backward(dy)[0], *layer.grads.values()]
    params = layer.params["weight"], layer.params["bias"]
    want = [want_y, *want, *running, wanted, reference.layer_norm_forward(x, *params)]
    want += reference.layer_norm_backward(x, params[0], dy)
    for ours, theirs in zip(got, want, strict=True):
        assert ours.dtype == np.float64
        np.testing.assert_allclose(ours, theirs, **CLOSE)


def test_an_embedding_begins_a_model(rng):
    layers = lstmx.Embedding(5, 3, 0, dtype="float64", rng=0), lstmx.RNN(3, 2, dtype="float64", rng=1)
    net, x, dy = lstmx.Sequential(*layers), np.array([[1, 4], [0, 1], [4, 4]]), rng.standard_normal((3, 2, 2))
    y, _, backward = net.forward(x)
    backward(dy)
    rows, _, inner = layers[1].forward(layers[0].params["weight"][x])
    np.testing.assert_array_equal(y, rows)
    want = np.zeros((5, 3))
    np.add.at(want, x, inner(dy)[0])
    want[0] = 0
    np.testing.assert_allclose(layers[0].grads["weight"], want, **CLOSE)


def test_the_gradient_of_a_model_is_the_slope_of_its_loss(rng):
    net, loss = model(), lstmx.losses.get("mse")
    x, target, lengths = rng.standard_normal((4, 6, 3)), rng.standard_normal((4, 2)), np.array([6, 1, 4, 3])
    y, _, backward = net.forward(x, lengths=lengths)
    backward(loss(y, target)[1])
    params = net.arena.params
    direction = rng.standard_normal(params.shape)
    slope = float(net.arena.grads @ direction)
    values = []
    for step in (1e-6, -1e-6):
        moved = copy.deepcopy(net)
        moved.arena.params[...] = params + step * direction
        moved.arena.touch()
        values.append(loss(moved.forward(x, lengths=lengths)[0], target)[0])
    np.testing.assert_allclose((values[0] - values[1]) / 2e-6, slope, rtol=1e-7)


def test_inputs_and_states_of_other_dtypes_are_converted(rng):
    layer = lstmx.LSTM(3, 5, num_layers=2, dtype="float64", rng=0)
    x = rng.standard_normal((4, 2, 3)).astype(np.float32)
    state = tuple(np.zeros((2, 2, 5), np.float32) for _ in range(2))
    y, final = layer(x, state)
    assert {a.dtype for a in (y, *final)} == {np.dtype(np.float64)}
    np.testing.assert_array_equal(y, layer(x.astype(np.float64))[0])


@pytest.mark.parametrize(
    "optimizer", [SGD(0.1, momentum=0.9), AdamW(0.1, weight_decay=0.01)], ids=["sgd", "adamw"]
)
def test_a_step_of_an_optimiser_is_the_reference(rng, optimizer):
    layer = lstmx.Linear(3, 5, dtype="float64", rng=0)
    params = layer.arena.params.copy()
    layer.arena.grads[...] = rng.standard_normal(params.shape)
    norm = float(np.linalg.norm(layer.arena.grads))
    np.testing.assert_allclose(clip_grad_norm(layer, 1.0), norm, rtol=1e-14)
    grads = layer.arena.grads.copy()
    np.testing.assert_allclose(np.linalg.norm(grads), 1.0, rtol=2e-6)
    optimizer.step(layer)
    if isinstance(optimizer, SGD):
        want = params - 0.1 * grads
    else:  # the first step of Adam has the length of the learning rate; biases do not decay
        weights = np.arange(params.size) < 15
        want = params * (1 - 0.1 * 0.01 * weights) - 0.1 * grads / (np.abs(grads) + 1e-8)
    np.testing.assert_allclose(layer.arena.params, want, rtol=1e-13, atol=1e-15)


def test_it_goes_with_copies_files_and_configurations(tmp_path, rng):
    net = model()
    lstmx.save(tmp_path / "net.safetensors", net)
    x = rng.standard_normal((4, 6, 3))
    y = net(x)[0]
    for other in (
        lstmx.load(tmp_path / "net.safetensors"),
        copy.deepcopy(net),
        pickle.loads(pickle.dumps(net)),
    ):
        assert other.dtype == np.float64
        np.testing.assert_array_equal(other(x)[0], y)
    built = from_config(net.config())
    built.load_state_dict(net.state_dict())
    np.testing.assert_array_equal(built(x)[0], y)
    assert repr(lstmx.Linear(3, 5, dtype="float64")) == "Linear(3, 5, dtype='float64')"


def test_a_stream_has_the_bits_of_the_sequence(rng):
    net = lstmx.Sequential(lstmx.LSTM(3, 5, dtype="float64"), lstmx.Linear(5, 2, dtype="float64"))
    x = rng.standard_normal((6, 4, 3))
    stream = net.stream(4)
    np.testing.assert_array_equal(np.stack([stream.step(step) for step in x]), net(x)[0])


def test_values_are_written_in_full():
    layer = lstmx.Linear(1, 1, dtype="float64")
    with layer.editing() as params:
        params["weight"] = [[0.1]]
    assert layer.params["weight"][0, 0] == 0.1
    layer.load_state_dict({"weight": [[0.2]], "bias": [0.3]})
    assert layer.params["weight"][0, 0] == 0.2


def test_dtypes_that_are_refused():
    with pytest.raises(ValueError, match="dtype: expected one of 'float32', 'float64', got 'float16'"):
        lstmx.LSTM(1, 1, dtype="float16")
    with pytest.raises(TypeError, match="dtype"):
        lstmx.Linear(1, 1, dtype=64)
    layers = lstmx.LSTM(1, 2, dtype="float64"), lstmx.Dropout(), lstmx.Linear(2, 1)
    with pytest.raises(
        ValueError, match=r"layers\[2\]: expected dtype float64 as the layers before, got float32"
    ):
        lstmx.Sequential(*layers)
