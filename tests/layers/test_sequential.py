"""Sequential: one arena for all, the chain rule, states as a tuple, ownership."""

from __future__ import annotations

import copy
import gc

import numpy as np
import pytest

import lstmx
from lstmx import reference
from tests.layers.agree import agree


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def sine_model(rng=0):
    rng = np.random.default_rng(rng)
    return lstmx.Sequential(
        lstmx.Linear(1, 10, rng=rng), lstmx.LSTM(10, 10, rng=rng), lstmx.Linear(10, 2, rng=rng)
    )


def assert_one_arena(model):
    """Every view of every layer lies in the model's arena, at the entry of its name."""
    arena = model.arena
    assert sum(e.stop - e.start for e in arena.entries) == arena.params.size == model.num_parameters
    assert [e.start for e in arena.entries] == [0, *[e.stop for e in arena.entries]][:-1]
    assert [e.name for e in arena.entries] == list(model.params) == list(model.grads)
    for entry in arena.entries:
        owner, path = model, entry.name
        while isinstance(owner, lstmx.Sequential):
            index, path = path.split(".", 1)
            owner = owner[int(index)]
        for flat, views, own in [
            (arena.params, model.params, owner.params),
            (arena.grads, model.grads, owner.grads),
        ]:
            expected = flat[entry.start : entry.stop].reshape(entry.shape)
            for view in (views[entry.name], own[path]):
                assert view.shape == entry.shape
                assert view.ctypes.data == expected.ctypes.data


class TestOneArena:
    def test_names_shapes_and_memory(self):
        model = sine_model()
        assert_one_arena(model)
        assert list(model.params) == [
            "0.weight",
            "0.bias",
            "1.weight_ih_l0",
            "1.weight_hh_l0",
            "1.bias_ih_l0",
            "1.bias_hh_l0",
            "2.weight",
            "2.bias",
        ]
        assert [e.is_bias for e in model.arena.entries] == [
            False,
            True,
            False,
            False,
            True,
            True,
            False,
            True,
        ]

    def test_nested(self, rng):
        inner = lstmx.Sequential(lstmx.LSTM(4, 3, rng=rng), lstmx.Dropout(0.5), lstmx.Linear(3, 2, rng=rng))
        first = lstmx.Linear(1, 4, rng=rng)
        values = {f"1.{n}": v.copy() for n, v in inner.params.items()}
        inner.grads["2.bias"][...] = 7
        model = lstmx.Sequential(first, inner)
        assert_one_arena(model)
        assert_one_arena(inner)
        for name, value in values.items():
            np.testing.assert_array_equal(model.params[name], value)
        assert model.grads["1.2.bias"].tolist() == [7, 7]
        assert model.arena.version == inner.arena.version == inner[0].arena.version
        before = model.arena.version
        inner[0].arena.touch()
        assert model.arena.version > before
        inner.zero_grad()
        assert not model.arena.grads.any()

    def test_backward_of_an_earlier_forward_writes_to_the_new_arena(self, rng):
        layer = lstmx.Linear(3, 2, rng=rng)
        backward = layer.forward(normal(rng, 5, 3))[2]
        model = lstmx.Sequential(layer)
        backward(np.ones((5, 2), np.float32))
        assert model.grads["0.bias"].tolist() == [5, 5]

    def test_without_parameters(self):
        model = lstmx.Sequential(lstmx.Dropout(0.5), lstmx.LastStep())
        assert model.num_parameters == 0
        assert dict(model.params) == {}
        model.zero_grad()
        assert model(np.ones((2, 3, 4)))[0].shape == (2, 4)


class TestPasses:
    def test_chain_rule(self, rng):
        model = sine_model()
        x, dy = normal(rng, 6, 4, 1), normal(rng, 6, 4, 2)
        h_0, c_0, dh_n, dc_n = (normal(rng, 1, 4, 10) for _ in range(4))
        y, state, backward = model.forward(x, (None, (h_0, c_0), None))
        dx, dstate = backward(dy, (None, (dh_n, dc_n), None))

        p = model.params
        rows = x.reshape(-1, 1)
        a = reference.linear_forward(rows, p["0.weight"], p["0.bias"])
        lstm_params = {n: p[f"1.{n}"] for n in model[1].params}
        b, final, lstm_backward = reference.lstm(a.reshape(6, 4, 10), lstm_params, (h_0, c_0))
        last = reference.linear_backward(b.reshape(-1, 10), p["2.weight"], dy.reshape(-1, 2))
        da, d_initial, d_lstm = lstm_backward(last.dx.reshape(6, 4, 10), (dh_n, dc_n))
        first = reference.linear_backward(rows, p["0.weight"], da.reshape(-1, 10))

        agree(
            "y", y, reference.linear_forward(b.reshape(-1, 10), p["2.weight"], p["2.bias"]).reshape(6, 4, 2)
        )
        agree("dx", dx, first.dx.reshape(x.shape))
        assert state[0] is state[2] is dstate[0] is dstate[2] is None
        for k in range(2):
            agree("state", state[1][k], final[k])
            agree("dstate", dstate[1][k], d_initial[k])
        expected = {"0.weight": first.d_weight, "0.bias": first.d_bias}
        expected |= {f"1.{n}": g for n, g in d_lstm.items()}
        expected |= {"2.weight": last.d_weight, "2.bias": last.d_bias}
        for name, gradient in expected.items():
            agree(name, model.grads[name], gradient)

    def test_inference_is_forward_without_dropout(self, rng):
        model = sine_model()
        x = normal(rng, 6, 4, 1)
        y, state = model(x)
        y_again, state_again = model(x, state)
        assert np.any(y_again != y)
        y_forward, state_forward, _ = model.forward(x, state)
        np.testing.assert_array_equal(y_forward, y_again)
        np.testing.assert_array_equal(state_forward[1], state_again[1])

    def test_need_dx_and_need_dstate(self, rng):
        model = sine_model()
        x, dy = normal(rng, 6, 4, 1), normal(rng, 6, 4, 2)
        model.forward(x)[2](dy)
        grads = model.arena.grads.copy()
        model.zero_grad()
        assert model.forward(x)[2](dy, need_dx=False, need_dstate=False) == (None, None)
        np.testing.assert_array_equal(model.arena.grads, grads)

    def test_a_second_backward_is_refused(self, rng):
        model = sine_model()
        x, dy = normal(rng, 6, 4, 1), normal(rng, 6, 4, 2)
        backward = model.forward(x)[2]
        backward(dy)
        grads = model.arena.grads.copy()
        with pytest.raises(RuntimeError, match="already called"):
            backward(dy)
        np.testing.assert_array_equal(model.arena.grads, grads)

    def test_many_to_one(self, rng):
        model = lstmx.Sequential(lstmx.LSTM(3, 5, batch_first=True), lstmx.LastStep(), lstmx.Linear(5, 1))
        x = normal(rng, 4, 6, 3)
        y, state, backward = model.forward(x)
        np.testing.assert_array_equal(y, model[2](state[0][0][0])[0])
        dx, _ = backward(np.ones_like(y))
        assert dx.shape == x.shape
        assert dx.any()

    def test_state_of_a_nested_model(self, rng):
        inner = lstmx.Sequential(lstmx.LSTM(3, 5), lstmx.Linear(5, 3))
        model = lstmx.Sequential(inner, lstmx.LSTM(3, 2))
        x = normal(rng, 6, 4, 3)
        whole, final = model(np.concatenate([x, x]))
        y, state = model(x)
        y_next, state = model(x, state)
        np.testing.assert_array_equal(np.concatenate([y, y_next]), whole)
        np.testing.assert_array_equal(state[0][0], final[0][0])
        y_next, _, backward = model.forward(x, ((None, None), None))
        np.testing.assert_array_equal(y_next, y)
        assert backward(np.ones_like(y))[1][0][1] is None

    def test_an_empty_batch(self):
        model = sine_model()
        y, state, backward = model.forward(np.empty((6, 0, 1), np.float32))
        assert y.shape == (6, 0, 2)
        assert backward(y)[0].shape == (6, 0, 1)
        assert state[1][0].shape == (1, 0, 10)


class TestOwnership:
    def test_the_same_layer_twice_is_refused(self):
        layer = lstmx.Linear(3, 3)
        with pytest.raises(ValueError, match=r"layers\[2\]: expected a layer of its own.*layers\[0\]"):
            lstmx.Sequential(layer, lstmx.Dropout(), layer)

    def test_a_layer_of_another_model_is_refused(self):
        layer = lstmx.Linear(3, 3)
        model = lstmx.Sequential(layer)
        with pytest.raises(ValueError, match=r"layers\[1\]: expected a layer of its own.*another model"):
            lstmx.Sequential(lstmx.Linear(1, 3), layer)
        with pytest.raises(ValueError, match="another model"):
            lstmx.Sequential(model, layer)
        assert_one_arena(model)
        lstmx.Sequential(copy.deepcopy(layer))

    def test_a_layer_whose_model_is_gone_is_free(self):
        layer = lstmx.Linear(3, 3)
        value = layer.params["weight"].copy()
        model = lstmx.Sequential(lstmx.Linear(3, 3), layer)
        del model
        gc.collect()
        model = lstmx.Sequential(layer)
        assert_one_arena(model)
        np.testing.assert_array_equal(model.params["0.weight"], value)

    def test_neighbours_that_do_not_fit(self):
        with pytest.raises(ValueError, match=r"layers\[2\]: expected input size 10.*got 11"):
            lstmx.Sequential(lstmx.Linear(1, 10), lstmx.Dropout(), lstmx.LSTM(11, 4))
        with pytest.raises(ValueError, match=r"layers\[1\]: expected batch_first=False.*got True"):
            lstmx.Sequential(lstmx.LSTM(1, 10), lstmx.LastStep())

    def test_what_is_no_layer(self):
        with pytest.raises(ValueError, match="at least one layer"):
            lstmx.Sequential()
        with pytest.raises(TypeError, match=r"layers\[0\]: expected a layer, got list"):
            lstmx.Sequential([lstmx.Linear(1, 1)])

    def test_container(self):
        model = sine_model()
        assert len(model) == 3
        assert list(model) == [model[0], model[1], model[2]] == list(model.layers)
        assert model[-1] is model[2]
        with pytest.raises(IndexError):
            model[3]
        with pytest.raises(TypeError, match="index: expected an integer"):
            model[0:2]
        assert (model.input_size, model.output_size, model.batch_first) == (1, 2, False)
        assert lstmx.Sequential(lstmx.Dropout(), lstmx.Linear(2, 3), lstmx.Dropout()).input_size == 2
        assert lstmx.Sequential(lstmx.Dropout()).batch_first is None
