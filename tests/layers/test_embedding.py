"""Embedding against the reference and PyTorch; first in a model, with lengths, streams and training."""

from __future__ import annotations

import numpy as np
import pytest

import lstmx
from lstmx import reference
from tests.layers.agree import agree


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def model(rng, padding_idx=None):
    return lstmx.Sequential(
        lstmx.Embedding(9, 3, padding_idx, rng=rng),
        lstmx.LSTM(3, 5, batch_first=True, rng=rng),
        lstmx.Linear(5, 2, rng=rng),
    )


@pytest.mark.parametrize("padding_idx", [None, 2])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (40, 6), (2, 3, 4), (0,), (3, 0)])
def test_against_the_reference(rng, shape, padding_idx):
    layer = lstmx.Embedding(9, 3, padding_idx, rng=rng)
    x, dy = rng.integers(0, 9, shape), normal(rng, *shape, 3)
    layer.grads["weight"][...] = 1
    y, state, backward = layer.forward(x)
    assert backward(dy) == (None, None)
    assert state is None
    np.testing.assert_array_equal(y, reference.embedding_forward(x, layer.params["weight"]))
    want = reference.embedding_backward(x, layer.params["weight"], dy, padding_idx)
    agree("weight", layer.grads["weight"], 1 + want)
    np.testing.assert_array_equal(layer(x)[0], y)
    np.testing.assert_array_equal(layer(x.astype(np.uint8))[0], y)
    with pytest.raises(RuntimeError, match="already called"):
        backward(dy)


@pytest.mark.parametrize("padding_idx", [None, 2, -1])
def test_against_pytorch(rng, padding_idx):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: NOT compared with it")
    other = torch.nn.Embedding(9, 3, padding_idx)
    layer = lstmx.Embedding(9, 3, padding_idx)
    assert layer.padding_idx == other.padding_idx
    layer.load_state_dict(other.state_dict())
    x, dy = rng.integers(0, 9, (4, 6)), normal(rng, 4, 6, 3)
    y_t = other(torch.tensor(x))
    y_t.backward(torch.tensor(dy))
    y, _, backward = layer.forward(x)
    backward(dy)
    np.testing.assert_array_equal(y, y_t.detach().numpy())
    agree("weight", layer.grads["weight"], other.weight.grad.numpy())


def test_initial_values():
    layer = lstmx.Embedding(1000, 50, padding_idx=-1, rng=0)
    weight = layer.params["weight"]
    assert not weight[999].any()
    assert abs(weight[:999].mean()) < 0.02
    assert abs(weight[:999].std() - 1) < 0.02
    assert layer.padding_idx == 999


class TestInAModel:
    def test_sizes_and_passes(self, rng):
        net = model(rng)
        assert (net.input_size, net.output_size, net.batch_first) == (None, 2, True)
        x, dy = rng.integers(0, 9, (4, 6)), normal(rng, 4, 6, 2)
        y, _, backward = net.forward(x)
        assert backward(dy)[0] is None
        embedded = net[0](x)[0]
        np.testing.assert_array_equal(y, net[2](net[1](embedded)[0])[0])
        rest = lstmx.Sequential(*(lstmx.layers.from_config(layer.config()) for layer in net.layers[1:]))
        rest.load_state_dict({f"{int(n[0]) - 1}{n[1:]}": v for n, v in net.params.items() if n[0] != "0"})
        dx, _ = rest.forward(embedded)[2](dy)
        agree("weight", net.grads["0.weight"], reference.embedding_backward(x, net.params["0.weight"], dx))

    def test_lengths_and_resets_have_the_shape_of_x(self, rng):
        net = model(rng)
        x = rng.integers(0, 9, (4, 6))
        spans = {"lengths": [6, 0, 2, 5], "resets": rng.random((4, 6)) < 0.3}
        y, _, backward = net.forward(x, **spans)
        embedded = net[0](x)[0]
        np.testing.assert_array_equal(y, net[2](net[1](embedded, **spans)[0])[0])
        with pytest.raises(ValueError, match=r"lengths: expected shape \(4,\), got \(6,\)"):
            net(x, lengths=[1] * 6)
        backward(np.ones_like(y))
        before = net.grads["0.weight"].copy()
        net.zero_grad()
        other = np.where(np.arange(6) < np.array(spans["lengths"])[:, None], x, 8)
        net.forward(other, **spans)[2](np.ones_like(y))
        np.testing.assert_array_equal(net.grads["0.weight"], before)  # padding has no gradient

    def test_one_unbatched_sequence(self, rng):
        net = model(rng)
        x = rng.integers(0, 9, 6)
        np.testing.assert_array_equal(net(x, lengths=4)[0], net(x[None], lengths=[4])[0][0])

    @pytest.mark.parametrize("batch_first", [True, False])
    def test_streams(self, rng, batch_first):
        net = lstmx.Sequential(
            lstmx.Sequential(lstmx.Embedding(9, 3, rng=rng)), lstmx.LSTM(3, 5, batch_first=batch_first)
        )
        x = rng.integers(0, 9, (4, 6) if batch_first else (6, 4))
        y, _ = net(x)
        steps, outputs = (x.T, y.swapaxes(0, 1)) if batch_first else (x, y)
        stream = net.stream(4)
        np.testing.assert_array_equal(stream.step(steps[0]), outputs[0])
        saved = stream.state
        rest = x[:, 1:] if batch_first else x[1:]
        for _ in range(2):
            got = stream.run(rest)
            np.testing.assert_array_equal(got.swapaxes(0, 1) if batch_first else got, outputs[1:])
            stream.state = saved
        with pytest.raises(ValueError, match=r"x_t: expected shape \(4,\), got \(4, 1\)"):
            stream.step(steps[0][:, None])
        with pytest.raises(TypeError, match="x_t: expected integers, got dtype float32"):
            stream.step(steps[0].astype(np.float32))

    def test_the_trainer_takes_integers(self, rng):
        x = rng.integers(0, 9, (64, 5))
        net = lstmx.Sequential(
            lstmx.Embedding(9, 8, rng=0),
            lstmx.LSTM(8, 16, batch_first=True, rng=0),
            lstmx.LastStep(),
            lstmx.Linear(16, 9, rng=0),
        )
        trainer = lstmx.Trainer(net, "cross_entropy", lstmx.optim.Adam(lr=0.02))
        history = trainer.fit((x, x[:, -1]), epochs=40)
        assert history["loss"][-1] < 0.1
        assert (trainer.predict(x).argmax(1) == x[:, -1]).mean() > 0.95

    def test_a_model_file(self, rng, tmp_path):
        net = model(rng, padding_idx=2)
        lstmx.save(tmp_path / "model", net)
        twin = lstmx.load(tmp_path / "model")
        assert repr(twin) == repr(net)
        x = rng.integers(0, 9, (4, 6))
        np.testing.assert_array_equal(twin(x)[0], net(x)[0])

    def test_comes_first(self):
        embedding = lstmx.Embedding(9, 3)
        with pytest.raises(
            ValueError, match=r"layers\[1\]: .* real numbers after the first, got Embedding\(9, 3\)"
        ):
            lstmx.Sequential(lstmx.Dropout(), embedding)
        with pytest.raises(ValueError, match=r"layers\[1\]: expected input size 3"):
            lstmx.Sequential(embedding, lstmx.Linear(4, 1))


REFUSED = [
    (lambda: lstmx.Embedding(0, 3), ValueError, "num_embeddings: expected at least 1, got 0"),
    (lambda: lstmx.Embedding(9, 3.0), TypeError, "embedding_dim: expected an integer, got 3.0"),
    (lambda: lstmx.Embedding(9, 3, 9), ValueError, "padding_idx: expected -9 to 8, got 9"),
    (lambda: lstmx.Embedding(9, 3, True), TypeError, "padding_idx: expected an integer, got True"),
    (lambda: lstmx.Embedding(9, 3)([0, 9]), ValueError, "x: expected 0 to 8, got 9"),
    (lambda: lstmx.Embedding(9, 3)([-1]), ValueError, "x: expected 0 to 8, got -1"),
    (lambda: lstmx.Embedding(9, 3)([1.0]), TypeError, "x: expected integers, got dtype float64"),
    (lambda: lstmx.Embedding(9, 3)([True]), TypeError, "x: expected integers, got dtype bool"),
    (lambda: lstmx.Embedding(9, 3)([[1], [1, 2]]), TypeError, r"x: expected integers, got list \("),
    (lambda: lstmx.Embedding(9, 3)("a"), TypeError, "x: expected integers, got dtype <U1"),
    (lambda: lstmx.Embedding(9, 3)([1], 1), TypeError, r"state: expected None \(Embedding keeps no state\)"),
    (
        lambda: lstmx.Embedding(9, 3)([1], lengths=1),
        TypeError,
        r"lengths: expected None \(Embedding reads no time\)",
    ),
    (
        lambda: lstmx.Embedding(9, 3).forward([1])[2](np.zeros((2, 3))),
        ValueError,
        r"dy: expected shape \(1, 3\), got \(2, 3\)",
    ),
]


@pytest.mark.parametrize(("call", "error", "match"), REFUSED, ids=[r[2] for r in REFUSED])
def test_refusals(call, error, match):
    with pytest.raises(error, match=match):
        call()
