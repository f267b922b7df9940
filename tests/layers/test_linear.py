"""Linear against the reference and PyTorch, over any leading axes; its initial values."""

from __future__ import annotations

import numpy as np
import pytest

import lstmx
from lstmx import reference
from tests.layers.agree import agree


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lead", [(), (1,), (7,), (4, 6), (2, 3, 4), (0,), (3, 0)])
def test_against_the_reference(rng, lead, bias):
    layer = lstmx.Linear(5, 3, bias, rng=rng)
    x, dy = normal(rng, *lead, 5), normal(rng, *lead, 3)
    rows, d_rows = x.reshape(-1, 5), dy.reshape(-1, 3)
    y, state, backward = layer.forward(x)
    dx, dstate = backward(dy)
    gradients = reference.linear_backward(rows, layer.params["weight"], d_rows)
    assert state is None
    assert dstate is None
    agree("y", y, reference.linear_forward(rows, **layer.params).reshape(*lead, 3))
    agree("dx", dx, gradients.dx.reshape(x.shape))
    agree("weight", layer.grads["weight"], gradients.d_weight)
    if bias:
        agree("bias", layer.grads["bias"], gradients.d_bias)
    np.testing.assert_array_equal(layer(x)[0], y)


def test_against_pytorch(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: NOT compared with it")
    other = torch.nn.Linear(5, 3)
    layer = lstmx.Linear(5, 3)
    layer.load_state_dict(other.state_dict())
    other.double()
    x, dy = normal(rng, 4, 6, 5), normal(rng, 4, 6, 3)
    x_t = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    y_t = other(x_t)
    y_t.backward(torch.tensor(dy).double())
    y, _, backward = layer.forward(x)
    agree("y", y, y_t.detach().numpy())
    agree("dx", backward(dy)[0], x_t.grad.numpy())
    agree("weight", layer.grads["weight"], other.weight.grad.numpy())
    agree("bias", layer.grads["bias"], other.bias.grad.numpy())


def test_strided_input_gives_the_same_bits(rng):
    layer = lstmx.Linear(5, 3, rng=rng)
    x = normal(rng, 4, 6, 5)
    y = layer(x)[0]
    wide = np.zeros((8, 6, 9), np.float32)
    wide[::2, :, 2:7] = x
    for variant in (
        wide[::2, :, 2:7],
        np.asfortranarray(x),
        x[::-1, ::-1].copy()[::-1, ::-1],
        x.astype(np.float64),
    ):
        np.testing.assert_array_equal(layer(variant)[0], y)
    np.testing.assert_array_equal(layer(wide[::2, 1, 2:7])[0], y[:, 1])


def test_gradients_accumulate_and_dx_can_be_left_out(rng):
    layer = lstmx.Linear(5, 3, rng=rng)
    x, dy = normal(rng, 4, 5), normal(rng, 4, 3)
    layer.forward(x)[2](dy)
    once = layer.arena.grads.copy()
    assert layer.forward(x)[2](dy, need_dx=False) == (None, None)
    np.testing.assert_allclose(layer.arena.grads, 2 * once, rtol=1e-6, atol=1e-6)


def test_backward_uses_the_weights_of_its_forward_and_runs_once(rng):
    layer = lstmx.Linear(5, 3, rng=rng)
    x, dy = normal(rng, 4, 5), normal(rng, 4, 3)
    expected = reference.linear_backward(x, layer.params["weight"], dy)
    backward = layer.forward(x)[2]
    with layer.editing() as params:
        params["weight"] *= 0
    layer(x)
    agree("dx", backward(dy)[0], expected.dx)
    grads = layer.arena.grads.copy()
    with pytest.raises(RuntimeError, match="already called"):
        backward(dy)
    np.testing.assert_array_equal(layer.arena.grads, grads)


def test_initial_values():
    bound = 1 / 8
    layer = lstmx.Linear(64, 50, rng=0)
    for view in layer.params.values():
        assert 0.9 * bound < np.abs(view).max() <= bound
    layer = lstmx.Linear(64, 50, init="glorot", rng=0)
    bound = np.sqrt(6 / 114)
    assert 0.99 * bound < np.abs(layer.params["weight"]).max() <= bound
    assert not layer.params["bias"].any()
    layer = lstmx.Linear(64, 50, init="normal", bias_init=0.1, rng=0)
    assert abs(layer.params["weight"].std() - 1) < 0.05
    assert set(layer.params["bias"].tolist()) == {float(np.float32(0.1))}
    assert not lstmx.Linear(64, 50, init="normal").params["bias"].any()
    assert not lstmx.Linear(64, 50, bias_init=0).params["bias"].any()
    assert list(lstmx.Linear(2, 3, bias=False).params) == ["weight"]
