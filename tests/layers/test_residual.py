"""Residual: x plus what the layer makes of it, forward and backward, with everything that a layer takes."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import lstmx


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


LENGTHS = [6, 0, 2, 5]

LAYERS = {
    "linear": lambda rng: lstmx.Linear(4, 4, rng=rng),
    "norm": lambda _: lstmx.LayerNorm(4),
    "dropout": lambda _: lstmx.Dropout(0.5, rng=1),
    "lstm": lambda rng: lstmx.LSTM(4, 4, batch_first=True, rng=rng),
    "two ways": lambda _: lstmx.LSTM(4, 2, 2, batch_first=True, dropout=0.5, bidirectional=True, rng=1),
    "sequential": lambda rng: lstmx.Sequential(
        lstmx.LSTM(4, 3, batch_first=True, rng=rng), lstmx.Dropout(0.5, rng=1), lstmx.Linear(3, 4, rng=rng)
    ),
    "residual": lambda rng: lstmx.Residual(lstmx.LSTM(4, 4, batch_first=True, rng=rng)),
}


def assert_same(got, expected):
    if isinstance(expected, tuple):
        for a, b in zip(got, expected, strict=True):
            assert_same(a, b)
    else:
        np.testing.assert_array_equal(got, expected)


@pytest.fixture(params=LAYERS)
def pair(request, rng):
    """A residual and a copy of its layer."""
    layer = LAYERS[request.param](rng)
    twin = copy.deepcopy(layer)
    return lstmx.Residual(layer), twin


def test_is_the_layer_plus_x(rng, pair):
    residual, layer = pair
    x, dy = normal(rng, 4, 6, 4), normal(rng, 4, 6, 4)
    state = layer(normal(rng, 4, 2, 4))[1]
    y, final = residual(x, state)
    y_layer, final_layer = layer(x, state)
    np.testing.assert_array_equal(y, x + y_layer)
    assert_same(final, final_layer)
    y, final, backward = residual.forward(x, state)
    y_layer, final_layer, backward_layer = layer.forward(x, state)
    np.testing.assert_array_equal(y, x + y_layer)
    dx, dstate = backward(dy, final)
    dx_layer, dstate_layer = backward_layer(dy, final_layer)
    np.testing.assert_array_equal(dx, dy + dx_layer)
    assert_same(dstate, dstate_layer)
    np.testing.assert_array_equal(residual.arena.grads, layer.arena.grads)
    with pytest.raises(RuntimeError, match="already called"):
        backward(dy)
    assert residual.forward(x)[2](dy, need_dx=False, need_dstate=False) == (None, None)


@pytest.mark.parametrize("which", ["lstm", "two ways", "sequential", "residual"])
def test_lengths_and_resets(rng, which):
    layer = LAYERS[which](rng)
    residual = lstmx.Residual(copy.deepcopy(layer))
    x, dy = normal(rng, 4, 6, 4), normal(rng, 4, 6, 4)
    padded = np.arange(6) >= np.array(LENGTHS)[:, None]
    spans = {"lengths": LENGTHS, "resets": rng.random((4, 6)) < 0.3}
    dirty, dirty_dy = x.copy(), dy.copy()
    dirty[padded] = np.nan
    dirty_dy[padded] = np.nan
    dy[padded] = 0
    y, _, backward = layer.forward(x, **spans)
    got, _, got_backward = residual.forward(dirty, **spans)
    np.testing.assert_array_equal(got, np.where(padded[..., None], 0, x + y))
    dx, _ = backward(dy)
    np.testing.assert_array_equal(got_backward(dirty_dy)[0], dx + dy)
    np.testing.assert_array_equal(residual.arena.grads, layer.arena.grads)
    np.testing.assert_array_equal(
        residual(dirty, **spans)[0], np.where(padded[..., None], 0, x + layer(x, **spans)[0])
    )


def test_time_first_and_unbatched(rng):
    layer = lstmx.LSTM(4, 4, rng=0)
    residual = lstmx.Residual(copy.deepcopy(layer))
    x = normal(rng, 6, 4, 4)
    padded = np.arange(6)[:, None] >= np.array(LENGTHS)
    want = np.where(padded[..., None], 0, x + layer(x, lengths=LENGTHS)[0])
    np.testing.assert_array_equal(residual(x, lengths=LENGTHS)[0], want)
    np.testing.assert_array_equal(residual(x[:, 3], lengths=5)[0], want[:, 3])


def test_no_gradient_from_y(rng):
    residual = lstmx.Residual(lstmx.LSTM(4, 4, rng=0))
    x, dh = normal(rng, 6, 2, 4), normal(rng, 1, 2, 4)
    dx, _ = residual.forward(x)[2](None, (dh, None))
    want, _ = copy.deepcopy(residual.layer).forward(x)[2](None, (dh, None))
    np.testing.assert_array_equal(dx, want)


def test_in_a_model(rng, tmp_path):
    model = lstmx.Sequential(
        lstmx.Linear(3, 4, rng=rng),
        *(lstmx.Residual(lstmx.LSTM(4, 4, batch_first=True, rng=rng)) for _ in range(2)),
        lstmx.Linear(4, 1, rng=rng),
    )
    assert list(model.params)[2] == "1.layer.weight_ih_l0"
    assert (model.input_size, model.output_size, model.batch_first) == (3, 1, True)
    assert model.arena.version == model[1].layer.arena.version
    x = normal(rng, 4, 6, 3)
    y, _ = model(x)
    stream = model.stream(4)
    for t in range(6):
        np.testing.assert_array_equal(stream.step(x[:, t]), y[:, t])
    before = model.arena.params.copy()
    trainer = lstmx.Trainer(model)
    trainer.fit((x, np.zeros((4, 6, 1))), epochs=1)
    assert np.any(model[1].layer.params["weight_hh_l0"] != before[16 + 64 : 16 + 128].reshape(16, 4))
    lstmx.save(tmp_path / "model", model)
    np.testing.assert_array_equal(lstmx.load(tmp_path / "model")(x)[0], model(x)[0])


def test_generators():
    layer = lstmx.Dropout(0.5, rng=0)
    assert lstmx.Residual(layer).rngs() == layer.rngs()


def test_a_layer_belongs_to_one_model():
    layer = lstmx.Linear(4, 4)
    residual = lstmx.Residual(layer)
    with pytest.raises(ValueError, match="layer: expected a layer of its own, got one of another model"):
        lstmx.Residual(layer)
    with pytest.raises(ValueError, match=r"layers\[0\]: .* another model"):
        lstmx.Sequential(layer)
    assert residual.layer is layer


def zeros(*shape):
    return np.zeros(shape, np.float32)


REFUSED = [
    (lambda: lstmx.Residual(1), TypeError, "layer: expected a layer, got int"),
    (
        lambda: lstmx.Residual(lstmx.LSTM(4, 3)),
        ValueError,
        "layer: expected as many features .*, got 3 for 4",
    ),
    (
        lambda: lstmx.Residual(lstmx.Embedding(4, 4)),
        ValueError,
        r"layer: expected one that reads real numbers, got Embedding\(4, 4\)",
    ),
    (
        lambda: lstmx.Residual(lstmx.LastStep())(zeros(2, 3, 4)),
        ValueError,
        r"x: expected a shape that LastStep\(\) keeps, got \(2, 3, 4\) \(to \(2, 4\)\)",
    ),
    (lambda: lstmx.Residual(lstmx.Linear(4, 4))(zeros(2, 3)), ValueError, r"x: expected shape \(\.\.\., 4\)"),
    (lambda: lstmx.Residual(lstmx.LSTM(4, 4))(zeros(2, 3, 4), 1), TypeError, "state: expected a pair"),
    (
        lambda: lstmx.Residual(lstmx.Linear(4, 4))(zeros(2, 3, 4), lengths=[1, 1]),
        TypeError,
        r"lengths: expected None \(Linear reads no time\)",
    ),
    (
        lambda: lstmx.Residual(lstmx.LSTM(4, 2, bidirectional=True)).stream(1),
        ValueError,
        r"stream: expected layers that need no later step, got LSTM\(4, 2, bidirectional=True\)",
    ),
    (
        lambda: lstmx.Residual(lstmx.Linear(4, 4)).forward(zeros(2, 4))[2](zeros(2, 3)),
        ValueError,
        r"dy: expected shape \(2, 4\), got \(2, 3\)",
    ),
]


@pytest.mark.parametrize(("call", "error", "match"), REFUSED, ids=[r[2] for r in REFUSED])
def test_refusals(call, error, match):
    with pytest.raises(error, match=match):
        call()
