"""Parameters: read-only views, editing, versions, loading; the next call computes with what was written."""

from __future__ import annotations

import numpy as np
import pytest

import lstmx

X = np.ones((3, 2, 4), np.float32)


def models():
    return [
        lstmx.Linear(4, 3, rng=0),
        lstmx.LSTM(4, 3, num_layers=2, bidirectional=True, rng=0),
        lstmx.Sequential(lstmx.LSTM(4, 3, rng=0), lstmx.Sequential(lstmx.Linear(3, 2, rng=0))),
    ]


def innermost(model):
    return innermost(model[-1]) if isinstance(model, lstmx.Sequential) else model


@pytest.fixture(params=range(3), ids=["Linear", "LSTM", "Sequential"])
def model(request):
    return models()[request.param]


class TestViews:
    def test_params_are_read_only(self, model):
        for view in model.params.values():
            with pytest.raises(ValueError, match="read-only"):
                view[...] = 0
        name = next(iter(model.params))
        with pytest.raises(TypeError):
            model.params[name] = np.zeros(3)

    def test_grads_are_writable_and_live(self, model):
        for name, view in model.grads.items():
            view[...] = 2
            model.grads[name] *= 3
        assert (model.arena.grads == 6).all()
        for name, view in model.grads.items():
            model.grads[name] = np.ones(view.shape)
        assert (model.arena.grads == 1).all()
        name = next(iter(model.grads))
        with pytest.raises(ValueError, match=f"{name}: expected shape"):
            model.grads[name] = np.ones((1, 1))
        with pytest.raises(KeyError):
            model.grads["nobody"] = np.ones(1)

    def test_state_dict_is_a_copy(self, model):
        before = model.arena.params.copy()
        for array in model.state_dict().values():
            array[...] = 0
        np.testing.assert_array_equal(model.arena.params, before)


class TestWhatIsWrittenCounts:
    """No call may use packed weights of before: each way of writing changes the next output."""

    def changes(self, model, write):
        y = model(X)[0]
        y_forward = model.forward(X)[0]
        version = model.arena.version
        write(model)
        assert model.arena.version > version
        assert np.any(model(X)[0] != y)
        assert np.any(model.forward(X)[0] != y_forward)
        fresh = lstmx.layers.from_config(model.config())
        fresh.load_state_dict(model.state_dict())
        np.testing.assert_array_equal(model(X)[0], fresh(X)[0])

    def test_editing(self, model):
        def write(model):
            with model.editing() as params:
                for view in params.values():
                    view *= 0.5

        self.changes(model, write)

    def test_editing_an_inner_layer(self, model):
        def write(model):
            with innermost(model).editing() as params:
                for name in params:
                    params[name] *= 0.5

        self.changes(model, write)

    def test_load_state_dict(self, model):
        self.changes(model, lambda m: m.load_state_dict({n: v * 0.5 for n, v in m.params.items()}))

    def test_the_flat_arena_and_touch(self, model):
        def write(model):
            model.arena.params *= 0.5
            model.arena.touch()

        self.changes(model, write)

    def test_an_optimiser(self, model):
        def write(model):
            model.arena.grads[...] = 1
            lstmx.optim.SGD(lr=0.1).step(model)

        self.changes(model, write)

    def test_moving_into_a_model_whose_parameters_change(self):
        layer = lstmx.Linear(4, 3, rng=0)
        for _ in range(3):
            layer(X)
            model = lstmx.Sequential(layer, lstmx.Linear(3, 2, rng=0))
            with model.editing() as params:
                params["0.weight"][...] += 1
            expected = X @ layer.params["weight"].T + layer.params["bias"]
            np.testing.assert_allclose(layer(X)[0], expected, rtol=1e-6)
            del model


class TestEditing:
    def test_views_close_with_the_block(self, model):
        with model.editing() as params:
            views = dict(params)
        for view in views.values():
            with pytest.raises(ValueError, match="read-only"):
                view[...] = 0

    def test_the_version_rises_even_when_the_block_fails(self, model):
        version = model.arena.version
        with pytest.raises(KeyError), model.editing() as params:
            params["nobody"][...] = 0
        assert model.arena.version > version

    def test_a_value_of_another_shape_is_refused(self, model):
        name = next(iter(model.params))
        before = model.arena.params.copy()
        with model.editing() as params, pytest.raises(ValueError, match=f"{name}: expected shape"):
            params[name] = np.zeros((1, 1))
        np.testing.assert_array_equal(model.arena.params, before)


class TestLoading:
    def test_round_trip(self, model):
        other = lstmx.layers.from_config(model.config())
        assert np.any(other.arena.params != model.arena.params)
        result = other.load_state_dict(model.state_dict())
        assert result == ([], [])
        np.testing.assert_array_equal(other.arena.params, model.arena.params)

    def refused(self, model, state_dict, error, match, **options):
        before, version = model.arena.params.copy(), model.arena.version
        with pytest.raises(error, match=match):
            model.load_state_dict(state_dict, **options)
        np.testing.assert_array_equal(model.arena.params, before)
        assert model.arena.version == version

    def test_wrong_names_are_all_listed(self):
        layer = lstmx.LSTM(4, 3)
        state_dict = {n: v + 1 for n, v in layer.state_dict().items()}
        state_dict["nobody"] = state_dict.pop("bias_hh_l0")
        del state_dict["weight_ih_l0"]
        match = "missing 'weight_ih_l0', 'bias_hh_l0'; unexpected 'nobody'"
        self.refused(layer, state_dict, ValueError, match)

    def test_a_wrong_shape_is_refused_before_anything_is_written(self):
        layer = lstmx.LSTM(4, 3)
        state_dict = {n: v + 1 for n, v in layer.state_dict().items()}
        state_dict["bias_hh_l0"] = np.zeros(5)
        match = r"state_dict\['bias_hh_l0'\]: expected shape \(12,\), got \(5,\)"
        self.refused(layer, state_dict, ValueError, match)
        self.refused(layer, state_dict, ValueError, match, strict=False)

    def test_wrong_kinds(self):
        layer = lstmx.Linear(4, 3)
        self.refused(layer, [1, 2], TypeError, "state_dict: expected a mapping")
        state_dict = layer.state_dict() | {"bias": np.array(["a", "b", "c"])}
        self.refused(layer, state_dict, TypeError, "bias.*expected real numbers")
        state_dict = layer.state_dict() | {"bias": np.ones(3, complex)}
        self.refused(layer, state_dict, TypeError, "bias.*expected real numbers")

    def test_not_strict_loads_what_is_there(self):
        layer = lstmx.Linear(4, 3)
        weight = layer.params["weight"].copy()
        result = layer.load_state_dict({"bias": [1, 2, 3], "nobody": 1}, strict=False)
        assert result.missing_keys == ["weight"]
        assert result.unexpected_keys == ["nobody"]
        assert layer.params["bias"].tolist() == [1, 2, 3]
        np.testing.assert_array_equal(layer.params["weight"], weight)
