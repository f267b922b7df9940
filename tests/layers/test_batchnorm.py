"""BatchNorm against the reference and PyTorch, with lengths; its buffers in everything that keeps a model."""

from __future__ import annotations

import numpy as np
import pytest

import lstmx
from lstmx import reference
from tests.layers.agree import agree


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def make(rng, width=3, **options):
    """A layer with parameters and running statistics of its own."""
    layer = lstmx.BatchNorm(width, **options)
    with layer.editing() as views:
        for view in views.values():
            view[...] = normal(rng, width)
        views["running_var"] **= 2
    return layer


LENGTHS = [5, 0, 2, 6]


class TestAgainstTheReference:
    @pytest.mark.parametrize("batch_first", [False, True])
    @pytest.mark.parametrize("lengths", [None, LENGTHS, [0, 1, 0, 0], [0, 0, 0, 0]])
    def test_training_and_inference(self, rng, lengths, batch_first):
        layer = make(rng, batch_first=batch_first, eps=1e-3, momentum=0.3)
        before = layer.state_dict()
        x, dy = 2 + 3 * normal(rng, 6, 4, 3), normal(rng, 6, 4, 3)
        options = {"lengths": lengths, "eps": 1e-3}
        want, *running = reference.batch_norm_forward(x, **before, momentum=0.3, **options)
        gradients = reference.batch_norm_backward(x, before["weight"], dy, **options)
        padded = np.arange(6)[:, None] >= (lengths or [6] * 4)
        for array in (x, dy):
            array[padded] = np.nan  # never read

        def swap(array):
            return array.swapaxes(0, 1) if batch_first else array

        layer.arena.grads[...] = 1
        y, state, backward = layer.forward(swap(x), lengths=lengths)
        inferred, _ = layer(swap(x), lengths=lengths)
        after = layer.state_dict()
        with layer.editing() as views:
            for view in views.values():
                view[...] = 7  # backward is that of its own forward
        dx, dstate = backward(swap(dy))
        assert state is dstate is None
        agree("y", swap(y), want)
        agree("running_mean", after["running_mean"], running[0])
        agree("running_var", after["running_var"], running[1])
        agree("inference", swap(inferred), reference.batch_norm_inference(x, **after, **options))
        agree("dx", swap(dx), gradients.dx)
        agree("weight", layer.grads["weight"], 1 + gradients.d_weight)
        agree("bias", layer.grads["bias"], 1 + gradients.d_bias)
        with pytest.raises(RuntimeError, match="already called"):
            backward(np.zeros_like(y))

    def test_without_time(self, rng):
        layer, other = make(rng), make(rng)
        other.load_state_dict(layer.state_dict())
        x, dy = normal(rng, 7, 3), normal(rng, 7, 3)
        y, _, backward = layer.forward(x)
        y_3, _, backward_3 = other.forward(x[None])
        np.testing.assert_array_equal(y, y_3[0])
        np.testing.assert_array_equal(backward(dy)[0], backward_3(dy[None])[0][0])
        np.testing.assert_array_equal(layer(x)[0], other(x[None])[0][0])
        np.testing.assert_array_equal(layer(x, lengths=4)[0][:4], layer(x[:4])[0])  # one unbatched sequence
        assert not layer(x, lengths=4)[0][4:].any()
        assert layer.forward(x)[2](dy, need_dx=False) == (None, None)

    def test_an_empty_batch(self):
        layer = lstmx.BatchNorm(3)
        y, _, backward = layer.forward(np.empty((6, 0, 3), np.float32))
        assert y.shape == backward(y)[0].shape == (6, 0, 3)
        assert layer.buffers["running_var"].tolist() == [1, 1, 1]

    def test_many_steps_with_large_offsets(self, rng):
        layer = lstmx.BatchNorm(3)
        x, dy = 10_000 + normal(rng, 200, 40, 3), normal(rng, 200, 40, 3)
        want = reference.batch_norm_forward(x, [1] * 3, [0] * 3, [0] * 3, [1] * 3)
        gradients = reference.batch_norm_backward(x, [1] * 3, dy)
        y, _, backward = layer.forward(x)
        agree("y", y, want.y)
        agree("dx", backward(dy)[0], gradients.dx)
        agree("weight", layer.grads["weight"], gradients.d_weight)
        agree("bias", layer.grads["bias"], gradients.d_bias)
        agree("running_var", layer.buffers["running_var"], want.running_var)


def test_against_pytorch(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: NOT compared with it")
    other, layer = torch.nn.BatchNorm1d(3), lstmx.BatchNorm(3)
    assert (layer.eps, layer.momentum) == (other.eps, other.momentum)
    unexpected = ["num_batches_tracked"]
    assert layer.load_state_dict(other.state_dict(), strict=False) == ([], unexpected)
    fresh = lstmx.BatchNorm(3).state_dict()
    assert list(fresh) == [name for name in other.state_dict() if name not in unexpected]
    for name, value in fresh.items():
        np.testing.assert_array_equal(layer.state_dict()[name], value)
    other.double()
    for _ in range(3):
        x, dy = 1 + 2 * normal(rng, 6, 4, 3), normal(rng, 6, 4, 3)
        x_t = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        y_t = other(x_t.reshape(24, 3)).reshape(6, 4, 3)
        other.zero_grad()
        y_t.backward(torch.tensor(dy).double())
        layer.zero_grad()
        y, _, backward = layer.forward(x)
        agree("y", y, y_t.detach().numpy())
        agree("dx", backward(dy)[0], x_t.grad.numpy())
        agree("weight", layer.grads["weight"], other.weight.grad.numpy())
        agree("bias", layer.grads["bias"], other.bias.grad.numpy())
        for name, value in layer.buffers.items():
            agree(name, value, other.state_dict()[name].numpy())
    other.eval()
    agree("inference", layer(x)[0], other(x_t.reshape(24, 3)).detach().numpy().reshape(6, 4, 3))


def model(rng):
    return lstmx.Sequential(
        lstmx.BatchNorm(2, batch_first=True),
        lstmx.LSTM(2, 3, batch_first=True, rng=rng),
        lstmx.Sequential(lstmx.Residual(lstmx.BatchNorm(3, momentum=0.5, batch_first=True))),
        lstmx.Linear(3, 1, rng=rng),
    )


BUFFERS = [f"{prefix}running_{name}" for prefix in ("0.", "2.0.layer.") for name in ("mean", "var")]


class TestBuffers:
    def test_names_and_views(self, rng):
        net = model(rng)
        assert list(net.buffers) == BUFFERS
        assert not set(BUFFERS) & set(net.params)
        assert set(net.state_dict()) == set(net.params) | set(BUFFERS)
        assert net.num_parameters == sum(view.size for view in net.params.values())
        buffers = net.buffers
        with pytest.raises(ValueError, match="read-only"):
            buffers["0.running_var"][...] = 0
        with pytest.raises(TypeError):
            buffers["0.running_var"] = 0
        net.forward(normal(rng, 4, 6, 2))
        assert buffers["0.running_mean"].any()  # live
        assert lstmx.Linear(2, 3).buffers == {}

    def test_inference_and_optimisers_leave_them(self, rng):
        net = model(rng)
        x = normal(rng, 4, 6, 2)
        y, _, backward = net.forward(x)
        backward(y)
        before = {name: view.copy() for name, view in net.buffers.items()}
        net(x)
        lstmx.optim.Adam(weight_decay=0.1, decay_biases=True).step(net)
        for name, value in before.items():
            np.testing.assert_array_equal(net.buffers[name], value)

    def test_editing_and_loading(self, rng):
        net, other = model(rng), model(rng)
        net.forward(normal(rng, 4, 6, 2))
        x = normal(rng, 4, 6, 2)
        with net.editing() as views:
            views["2.0.layer.running_var"] = [1, 2, 3]
        with pytest.raises(ValueError, match="read-only"):
            views["2.0.layer.running_var"][...] = 0
        other.load_state_dict(net.state_dict())
        np.testing.assert_array_equal(other(x)[0], net(x)[0])
        for name in BUFFERS:
            np.testing.assert_array_equal(other.buffers[name], net.buffers[name])
            state = net.state_dict()
            del state[name]
            with pytest.raises(ValueError, match=f"missing '{name}'"):
                other.load_state_dict(state)

    def test_a_model_file(self, rng, tmp_path):
        net = model(rng)
        net.forward(normal(rng, 4, 6, 2))
        lstmx.save(tmp_path / "model", net)
        twin = lstmx.load(tmp_path / "model")
        x = normal(rng, 4, 6, 2)
        np.testing.assert_array_equal(twin(x)[0], net(x)[0])
        for name in BUFFERS:
            np.testing.assert_array_equal(twin.buffers[name], net.buffers[name])

    def test_a_resumed_training_is_the_one_not_interrupted(self, rng, tmp_path):
        data = lstmx.data.Arrays(
            normal(rng, 20, 6, 2), normal(rng, 20, 6, 1), batch_size=8, shuffle=True, rng=0
        )
        whole = lstmx.Trainer(model(np.random.default_rng(1)))
        whole.fit(data, epochs=2)
        whole.save_checkpoint(tmp_path / "checkpoint")
        whole.fit(data, epochs=4)
        resumed = lstmx.Trainer(model(np.random.default_rng(2)))
        resumed.load_checkpoint(tmp_path / "checkpoint").fit(data, epochs=4)
        for name, value in whole.model.state_dict().items():
            np.testing.assert_array_equal(resumed.model.state_dict()[name], value)
        assert resumed.history == whole.history

    def test_a_checkpoint_without_them_is_refused(self, rng, tmp_path):
        lstmx.Trainer(lstmx.Sequential(lstmx.LayerNorm(3))).save_checkpoint(tmp_path / "checkpoint")
        trainer = lstmx.Trainer(lstmx.Sequential(lstmx.BatchNorm(3, batch_first=True)))
        with pytest.raises(ValueError, match=r"model: expected parameters .*running_mean"):
            trainer.load_checkpoint(tmp_path / "checkpoint")


class TestInAModel:
    def test_streams(self, rng):
        net = model(rng)
        net.forward(normal(rng, 4, 6, 2))
        x = normal(rng, 4, 6, 2)
        y, _ = net(x)
        stream = net.stream(4)
        for t in range(3):
            np.testing.assert_array_equal(stream.step(x[:, t]), y[:, t])
        np.testing.assert_array_equal(stream.run(x[:, 3:]), y[:, 3:])

    def test_padding_is_never_read(self, rng):
        net = lstmx.Sequential(*model(rng).layers[:3])
        twin = lstmx.layers.from_config(net.config())
        twin.load_state_dict(net.state_dict())
        x = normal(rng, 4, 6, 2)
        y, _, backward = net.forward(x, lengths=LENGTHS)
        dx, _ = backward(np.ones_like(y))
        x[np.arange(6) >= np.array(LENGTHS)[:, None]] = np.nan
        y_twin, _, backward = twin.forward(x, lengths=LENGTHS)
        np.testing.assert_array_equal(y_twin, y)
        np.testing.assert_array_equal(backward(np.ones_like(y))[0], dx)
        np.testing.assert_array_equal(twin.arena.grads, net.arena.grads)
        np.testing.assert_array_equal(twin(x, lengths=LENGTHS)[0], net(np.nan_to_num(x), lengths=LENGTHS)[0])

    def test_resets_change_nothing(self, rng):
        layer = make(rng)
        x = normal(rng, 6, 4, 3)
        np.testing.assert_array_equal(layer(x, resets=np.ones((6, 4), bool))[0], layer(x)[0])

    def test_layouts_must_agree(self):
        with pytest.raises(ValueError, match=r"layers\[1\]: expected batch_first=True as the layers before"):
            lstmx.Sequential(lstmx.LSTM(2, 3, batch_first=True), lstmx.BatchNorm(3))


def zeros(*shape):
    return np.zeros(shape, np.float32)


REFUSED = [
    (lambda: lstmx.BatchNorm(0), ValueError, "num_features: expected at least 1, got 0"),
    (lambda: lstmx.BatchNorm(3, 0), ValueError, "eps: expected more than 0.0, got 0.0"),
    (lambda: lstmx.BatchNorm(3, momentum=1.5), ValueError, "momentum: expected at most 1.0, got 1.5"),
    (lambda: lstmx.BatchNorm(3, momentum=None), TypeError, "momentum: expected a number, got None"),
    (lambda: lstmx.BatchNorm(3, batch_first=1), TypeError, "batch_first: expected True or False, got 1"),
    (
        lambda: lstmx.BatchNorm(3).forward(zeros(6, 4, 2)),
        ValueError,
        r"x: expected shape \(T, B, 3\) or \(B, 3\), got \(6, 4, 2\)",
    ),
    (
        lambda: lstmx.BatchNorm(3, batch_first=True)(zeros(3)),
        ValueError,
        r"x: expected shape \(B, T, 3\) or \(B, 3\), got \(3,\)",
    ),
    (
        lambda: lstmx.BatchNorm(3).forward(zeros(6, 4, 3), lengths=[7, 1, 1, 1]),
        ValueError,
        "lengths: expected 0 to 6",
    ),
    (
        lambda: lstmx.BatchNorm(3).forward(zeros(2, 3))[2](zeros(3)),
        ValueError,
        r"dy: expected shape \(2, 3\), got \(3,\)",
    ),
]


@pytest.mark.parametrize(("call", "error", "match"), REFUSED, ids=[r[2] for r in REFUSED])
def test_refusals(call, error, match):
    with pytest.raises(error, match=match):
        call()
