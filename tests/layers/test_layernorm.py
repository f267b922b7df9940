"""LayerNorm against the reference and PyTorch, over any leading axes; a row's bits; refusals."""

from __future__ import annotations

import numpy as np
import pytest

import lstmx
from lstmx import reference
from tests.layers.agree import agree


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def make(rng, width=5, eps=1e-5):
    layer = lstmx.LayerNorm(width, eps)
    with layer.editing() as params:
        for view in params.values():
            view[...] = normal(rng, width)
    return layer


@pytest.mark.parametrize("width", [1, 5, 300])
@pytest.mark.parametrize("lead", [(), (1,), (7,), (4, 6), (20, 30), (0,), (3, 0)])
def test_against_the_reference(rng, lead, width):
    layer = make(rng, width, 1e-3)
    x, dy = 3 + 2 * normal(rng, *lead, width), normal(rng, *lead, width)
    rows, d_rows = x.reshape(-1, width), dy.reshape(-1, width)
    layer.arena.grads[...] = 1
    y, state, backward = layer.forward(x)
    with layer.editing() as params:
        weight = params["weight"].copy()
        params["weight"] *= 0  # backward is that of its own forward
    dx, dstate = backward(dy)
    gradients = reference.layer_norm_backward(rows, weight, d_rows, 1e-3)
    assert state is dstate is None
    want = reference.layer_norm_forward(rows, weight, layer.params["bias"], 1e-3)
    agree("y", y, want.reshape(x.shape))
    agree("dx", dx, gradients.dx.reshape(x.shape))
    agree("weight", layer.grads["weight"], 1 + gradients.d_weight)
    agree("bias", layer.grads["bias"], 1 + gradients.d_bias)
    with layer.editing() as params:
        params["weight"] = weight
    np.testing.assert_array_equal(layer(x)[0], y)
    assert layer.forward(x)[2](dy, need_dx=False) == (None, None)


def test_against_pytorch(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: NOT compared with it")
    other = torch.nn.LayerNorm(5)
    layer = lstmx.LayerNorm(5)
    assert layer.eps == other.eps
    for name, value in other.state_dict().items():
        np.testing.assert_array_equal(layer.params[name], value.numpy())
    other.double()
    x, dy = normal(rng, 4, 6, 5), normal(rng, 4, 6, 5)
    x_t = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    y_t = other(x_t)
    y_t.backward(torch.tensor(dy).double())
    y, _, backward = layer.forward(x)
    agree("y", y, y_t.detach().numpy())
    agree("dx", backward(dy)[0], x_t.grad.numpy())
    agree("weight", layer.grads["weight"], other.weight.grad.numpy())
    agree("bias", layer.grads["bias"], other.bias.grad.numpy())


@pytest.mark.parametrize("width", [1, 2, 7, 8, 129, 9000])
def test_the_bits_of_a_row_are_its_own(rng, width):
    layer = make(rng, width)
    x = normal(rng, 3, 5, width)
    y, _, backward = layer.forward(x)
    dx, _ = backward(x)
    x_bad = x.copy()
    x_bad[0] = np.nan
    np.testing.assert_array_equal(layer(x_bad)[0][1:], y[1:])
    wide = np.zeros((5, 3, width + 2), np.float32)
    wide[..., 1:-1] = x.swapaxes(0, 1)
    strided = wide[..., 1:-1].swapaxes(0, 1)
    np.testing.assert_array_equal(layer(strided)[0], y)
    for i in range(3):
        for j in range(5):
            alone, _, backward = layer.forward(x[i, j])
            np.testing.assert_array_equal(alone, y[i, j])
            np.testing.assert_array_equal(backward(x[i, j])[0], dx[i, j])


def test_large_offsets_and_constant_rows(rng):
    layer = lstmx.LayerNorm(64)
    x = 1000 + normal(rng, 3, 64)
    x[1] = 7
    y = layer(x)[0]
    agree("y", y, reference.layer_norm_forward(x, np.ones(64), np.zeros(64)))
    assert not y[1].any()


def test_in_a_model(rng):
    model = lstmx.Sequential(
        lstmx.LSTM(3, 5, batch_first=True, rng=rng), lstmx.LayerNorm(5), lstmx.Linear(5, 1, rng=rng)
    )
    x = normal(rng, 4, 6, 3)
    y, _ = model(x)
    stream = model.stream(4)
    for t in range(6):
        np.testing.assert_array_equal(stream.step(x[:, t]), y[:, t])
    with pytest.raises(ValueError, match=r"layers\[1\]: expected input size 5"):
        lstmx.Sequential(lstmx.LSTM(3, 5), lstmx.LayerNorm(4))


REFUSED = [
    (lambda: lstmx.LayerNorm(0), ValueError, "normalized_shape: expected at least 1, got 0"),
    (lambda: lstmx.LayerNorm((3,)), TypeError, r"normalized_shape: expected an integer, got \(3,\)"),
    (lambda: lstmx.LayerNorm(3, 0), ValueError, "eps: expected more than 0.0, got 0.0"),
    (
        lambda: lstmx.LayerNorm(3)(np.zeros((2, 4))),
        ValueError,
        r"x: expected shape \(\.\.\., 3\), got \(2, 4\)",
    ),
    (
        lambda: lstmx.LayerNorm(3).forward(np.zeros((2, 3)))[2](np.zeros(3)),
        ValueError,
        r"dy: expected shape \(2, 3\), got \(3,\)",
    ),
]


@pytest.mark.parametrize(("call", "error", "match"), REFUSED, ids=[r[2] for r in REFUSED])
def test_refusals(call, error, match):
    with pytest.raises(error, match=match):
        call()
