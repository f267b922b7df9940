"""Copies and descriptions: pickle, deepcopy, copy, repr and from_config give the same layer anew."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest

import lstmx
from lstmx.layers import from_config, parameter_shapes
from tests.layers.test_sequential import assert_one_arena

X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 2, 4)
INTEGERS = np.arange(6).reshape(3, 2)

MAKERS = {
    "LSTM(4, 3)": lambda: lstmx.LSTM(4, 3, rng=0),
    "LSTM(4, 3, num_layers=2, bias=False, batch_first=True, dropout=0.5, bidirectional=True)": lambda: (
        lstmx.LSTM(4, 3, 2, False, True, 0.5, True, rng=0)
    ),
    "LSTM(4, 3, forget_bias=1.0, init='glorot')": lambda: lstmx.LSTM(
        4, 3, forget_bias=1, init="glorot", rng=0
    ),
    "LSTM(4, [3, 5], num_layers=2, bidirectional=True, merge='sum', connection='highway', "
    "learn_initial_state=True, weight_dropout=0.5)": lambda: lstmx.LSTM(
        4,
        (3, 5),
        bidirectional=True,
        merge="sum",
        connection="highway",
        learn_initial_state=True,
        weight_dropout=0.5,
        rng=0,
    ),
    "LSTM(4, 3, proj_size=2, reverse=True, peephole=True, gate_clip=0.5, "
    "activations=['sigmoid', ['leaky_relu', 0.1, None], 'tanh'], zoneout=[0.2, 0.1], "
    "recurrent_dropout=0.5)": lambda: lstmx.LSTM(
        4,
        3,
        proj_size=2,
        reverse=True,
        peephole=True,
        gate_clip=0.5,
        activations=["sigmoid", ("leaky_relu", 0.1), "tanh"],
        zoneout=(0.2, 0.1),
        recurrent_dropout=0.5,
        rng=0,
    ),
    "LSTM(4, 3, coupled=True, cell_clip=0.5, zoneout=0.25)": lambda: lstmx.LSTM(
        4, 3, coupled=True, cell_clip=0.5, zoneout=(0.25, 0.25), rng=0
    ),
    "GRU(4, [3, 5], num_layers=2, bidirectional=True, zoneout=0.25)": lambda: lstmx.GRU(
        4, [3, 5], bidirectional=True, zoneout=0.25, rng=0
    ),
    "RNN(4, [3, 5], num_layers=2, nonlinearity='relu', zoneout=0.25)": lambda: lstmx.RNN(
        4, [3, 5], 2, "relu", zoneout=0.25, rng=0
    ),
    "Sequential(GRU(4, 3), Linear(3, 2))": lambda: lstmx.Sequential(
        lstmx.GRU(4, 3, rng=0), lstmx.Linear(3, 2, rng=0)
    ),
    "LSTM(4, 3, learn_initial_state=True)": lambda: lstmx.LSTM(4, 3, learn_initial_state=True, rng=0),
    "Residual(LSTM(4, [3, 4], num_layers=2, connection='residual'))": lambda: lstmx.Residual(
        lstmx.LSTM(4, [3, 4], connection="residual", rng=0)
    ),
    "LSTM(4, [3, 5], num_layers=2, connection='residual', precision='high', engine='tiles')": lambda: (
        lstmx.LSTM(4, [3, 5], connection="residual", precision="high", engine="tiles", rng=0)
    ),
    "GRU(4, 3, precision='medium')": lambda: lstmx.GRU(4, 3, precision="medium", rng=0),
    "RNN(4, 3, engine='fma')": lambda: lstmx.RNN(4, 3, engine="fma", rng=0),
    "Linear(4, 3, precision='medium', engine='tiles')": lambda: lstmx.Linear(
        4, 3, precision="medium", engine="tiles", rng=0
    ),
    "Linear(4, 3)": lambda: lstmx.Linear(4, 3, rng=0),
    "Linear(4, 3, bias=False, init='glorot')": lambda: lstmx.Linear(4, 3, False, init="glorot", rng=0),
    "Linear(4, 3, init='normal', bias_init=0.1)": lambda: lstmx.Linear(
        4, 3, init="normal", bias_init=0.1, rng=0
    ),
    "Activation('relu')": lambda: lstmx.Activation("relu"),
    "Activation('scaled_tanh', alpha=1.5, beta=0.5)": lambda: lstmx.Activation("scaled_tanh", 1.5, 0.5),
    "Softmax()": lambda: lstmx.Softmax(),
    "Sequential(Linear(4, 3), Activation('elu', alpha=0.5), Softmax())": lambda: lstmx.Sequential(
        lstmx.Linear(4, 3, rng=0), lstmx.Activation("elu", 0.5), lstmx.Softmax()
    ),
    "Embedding(6, 3)": lambda: lstmx.Embedding(6, 3, rng=0),
    "Embedding(6, 3, padding_idx=2)": lambda: lstmx.Embedding(6, 3, 2, rng=0),
    "Sequential(Embedding(6, 3), LSTM(3, 4))": lambda: lstmx.Sequential(
        lstmx.Embedding(6, 3, rng=0), lstmx.LSTM(3, 4, rng=0)
    ),
    "LayerNorm(4)": lambda: lstmx.LayerNorm(4),
    "Sequential(BatchNorm(4, dtype='float64'), LayerNorm(4, dtype='float64'))": lambda: lstmx.Sequential(
        lstmx.BatchNorm(4, dtype="float64"), lstmx.LayerNorm(4, dtype="float64")
    ),
    "Embedding(6, 3, dtype='float64')": lambda: lstmx.Embedding(6, 3, dtype="float64", rng=0),
    "LayerNorm(4, eps=0.001)": lambda: lstmx.LayerNorm(4, 1e-3),
    "Residual(Sequential(LSTM(4, 3), Dropout(p=0.25), Linear(3, 4)))": lambda: lstmx.Residual(
        lstmx.Sequential(lstmx.LSTM(4, 3, rng=0), lstmx.Dropout(0.25, rng=0), lstmx.Linear(3, 4, rng=0))
    ),
    "BatchNorm(4)": lambda: lstmx.BatchNorm(4),
    "Sequential(BatchNorm(4, eps=0.001, momentum=0.5), Residual(BatchNorm(4)))": lambda: lstmx.Sequential(
        lstmx.BatchNorm(4, 1e-3, 0.5), lstmx.Residual(lstmx.BatchNorm(4))
    ),
    "Dropout(p=0.25)": lambda: lstmx.Dropout(0.25, rng=0),
    "Dropout()": lambda: lstmx.Dropout(rng=0),
    "LastStep()": lambda: lstmx.LastStep(),
    "LastStep(bidirectional=True)": lambda: lstmx.LastStep(bidirectional=True),
    "Sequential(LSTM(4, 3), Dropout(p=0.25), Sequential(Linear(3, 2)))": lambda: lstmx.Sequential(
        lstmx.LSTM(4, 3, rng=0), lstmx.Dropout(0.25, rng=0), lstmx.Sequential(lstmx.Linear(3, 2, rng=0))
    ),
}
COPIES = {
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


def input_of(layer):
    return INTEGERS if repr(layer).startswith(("Embedding", "Sequential(Embedding")) else X


@pytest.fixture(params=MAKERS, ids=str)
def described(request):
    return request.param, MAKERS[request.param]()


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_the_same_layer_with_memory_of_its_own(described, how):
    _, layer = described
    x = input_of(layer)
    layer.arena.grads[...] = 5
    twin = COPIES[how](layer)
    assert type(twin) is type(layer)
    assert twin.config() == layer.config()
    np.testing.assert_array_equal(twin.arena.params, layer.arena.params)
    np.testing.assert_array_equal(twin.arena.grads, layer.arena.grads)
    layer.forward(x)  # moves generators and buffers
    twin = COPIES[how](layer)
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(twin.state_dict()[name], value)
    for _ in range(2):  # the generators are in the same state, too
        y, _, backward = layer.forward(x)
        y_twin, _, backward_twin = twin.forward(x)
        np.testing.assert_array_equal(y_twin, y)
        np.testing.assert_array_equal(backward_twin(np.ones_like(y))[0], backward(np.ones_like(y))[0])
    np.testing.assert_array_equal(twin.arena.grads, layer.arena.grads)
    y = layer(x)[0].copy()
    if twin.num_parameters:
        with twin.editing() as params:
            for view in params.values():
                view[...] = 0
        twin.zero_grad()
        assert layer.arena.params.any()
        assert layer.arena.grads.any()
    np.testing.assert_array_equal(layer(x)[0], y)


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_a_model_has_one_arena(how):
    model = MAKERS["Sequential(LSTM(4, 3), Dropout(p=0.25), Sequential(Linear(3, 2)))"]()
    twin = COPIES[how](model)
    assert_one_arena(twin)
    assert_one_arena(model)
    assert not np.shares_memory(twin.arena.params, model.arena.params)
    with pytest.raises(ValueError, match="another model"):
        lstmx.Sequential(twin[0])


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_a_layer_inside_a_model_stands_alone(how):
    model = lstmx.Sequential(lstmx.LSTM(4, 3), lstmx.Linear(3, 2))
    twin = COPIES[how](model[1])
    assert twin.arena.params.size == twin.num_parameters == 8
    np.testing.assert_array_equal(twin.params["weight"], model.params["1.weight"])
    lstmx.Sequential(twin)
    assert_one_arena(model)


def test_a_model_and_its_layer_copied_together_stay_together():
    model = lstmx.Sequential(lstmx.LSTM(4, 3), lstmx.Linear(3, 2))
    for twins in (copy.deepcopy((model[1], model)), pickle.loads(pickle.dumps((model[1], model)))):
        assert twins[1][1] is twins[0]
        assert_one_arena(twins[1])


def test_repr_is_the_call(described):
    text, layer = described
    assert repr(layer) == text
    names = {name: getattr(lstmx, name) for name in lstmx.__all__}
    assert eval(text, names).config() == layer.config()


def test_from_config_after_json(described):
    _, layer = described
    config = json.loads(json.dumps(layer.config()))
    assert config == layer.config()
    twin = from_config(config, rng=1)
    twin.load_state_dict(layer.state_dict())
    assert twin.config() == layer.config()
    assert repr(twin) == repr(layer)
    x = input_of(layer)
    np.testing.assert_array_equal(twin(x)[0], layer(x)[0])
    expected = {name: view.shape for name, view in layer.state_dict().items()}
    assert dict(parameter_shapes(config)) == expected


def test_from_config_with_a_seed_repeats():
    config = MAKERS["Sequential(LSTM(4, 3), Dropout(p=0.25), Sequential(Linear(3, 2)))"]().config()
    a, b, c = (from_config(config, rng=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.arena.params, b.arena.params)
    np.testing.assert_array_equal(a.forward(X)[0], b.forward(X)[0])
    assert np.any(a.arena.params != c.arena.params)


LINEAR = {"type": "Linear", "in_features": 2, "out_features": 3}
DEEP: dict = LINEAR
for _ in range(10_000):
    DEEP = {"type": "Sequential", "layers": [DEEP]}

BAD = {
    "no mapping": (["Linear"], "config: expected a mapping, got list"),
    "unknown type": (LINEAR | {"type": "Conv"}, "config: expected 'type' one of LSTM, .*, got 'Conv'"),
    "no type": ({"in_features": 2}, "expected 'type' one of .*, got None"),
    "a type that is no text": (LINEAR | {"type": ["Linear"]}, "expected 'type' one of"),
    "missing argument": ({"type": "Linear", "in_features": 2}, "config: .*out_features"),
    "unknown argument": (LINEAR | {"cell": "lstm"}, "config: .*cell"),
    "a generator": (LINEAR | {"rng": 0}, "config: .*rng"),
    "wrong value": (LINEAR | {"in_features": 0}, "in_features: expected at least 1, got 0"),
    "wrong kind": (LINEAR | {"in_features": "2"}, "config: in_features: expected an integer, got '2'"),
    "layers no list": ({"type": "Sequential", "layers": LINEAR}, "expected a list under 'layers'"),
    "no layers": ({"type": "Sequential"}, "expected a list under 'layers'"),
    "no layer": ({"type": "Residual"}, "config: expected 'layer' and nothing else"),
    "a bad inner layer": ({"type": "Residual", "layer": 1}, r"config\['layer'\]: expected a mapping"),
    "a bad layer": (
        {"type": "Sequential", "layers": [LINEAR, 1]},
        r"config\['layers'\]\[1\]: expected a mapping",
    ),
    "too deep": (DEEP, "config: nested too deeply"),
}


@pytest.mark.parametrize("which", BAD)
def test_a_bad_config_is_a_value_error(which):
    config, match = BAD[which]
    with pytest.raises(ValueError, match=match):
        from_config(config)
    with pytest.raises(ValueError, match=match):
        list(parameter_shapes(config))


def test_layers_of_a_config_that_do_not_fit():
    with pytest.raises(ValueError, match=r"layers\[1\]: expected input size 3"):
        from_config({"type": "Sequential", "layers": [LINEAR, LINEAR]})


def test_shapes_of_a_huge_model_cost_nothing():
    config = {"type": "LSTM", "input_size": 10**9, "hidden_size": 10**9, "num_layers": 10**9}
    assert next(parameter_shapes(config)) == ("weight_ih_l0", (4 * 10**9, 10**9))
