"""lstmx.keras: models beside Keras's own predictions, arrays alone beside the reference, refusals by name.

The comparison needs Keras 3 with a backend (PyTorch unless KERAS_BACKEND says otherwise); the rest does not.
How tf.keras 2 writes its configurations is imitated by small objects.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import lstmx
import lstmx.keras
from lstmx import reference

# Keras's own, where it makes NumPy arrays of PyTorch's parameters.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TOLERANCE = 1e-5

STEPS, BATCH, INPUTS, HIDDEN = 7, 4, 3, 5


@pytest.fixture(scope="module")
def keras(tmp_path_factory):
    os.environ.setdefault("KERAS_BACKEND", "torch")
    os.environ.setdefault("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))  # the import writes there
    if os.environ["KERAS_BACKEND"] == "torch":
        pytest.importorskip("torch", reason="PyTorch, Keras's backend here, is not installed")
    return pytest.importorskip("keras", reason="Keras is not installed: NOT compared with it")


def draw(rng, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


def assert_equal(got: Any, expected: Any) -> None:
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)


def randomize(model, rng) -> None:
    """Give every weight random values, biases and running statistics included."""
    values = [(weight.name, draw(rng, *weight.shape)) for weight in model.weights]
    model.set_weights([0.1 + abs(value) if name == "moving_variance" else value for name, value in values])


def predict(keras, model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


# ---------------------------------------------------------------- models


def sequential(*layers, shape=(None, INPUTS), **options):
    def build(keras):
        made = [layer(keras.layers) for layer in layers]
        return keras.Sequential([keras.Input(shape, **options), *made])

    return build


def lstm(units=HIDDEN, **options):
    return lambda layers: layers.LSTM(units, **options)


def both(units=HIDDEN, merge_mode="concat", **options):
    return lambda layers: layers.Bidirectional(layers.LSTM(units, **options), merge_mode=merge_mode)


def dense(units=2, **options):
    return lambda layers: layers.Dense(units, **options)


def layer(kind, *args, **options):
    return lambda layers: getattr(layers, kind)(*args, **options)


def functional(keras):
    x = keras.Input((None, INPUTS))
    inner = keras.Sequential([keras.Input((None, INPUTS)), keras.layers.Dense(4), keras.layers.Dropout(0.5)])
    y, _, _ = keras.layers.LSTM(HIDDEN, return_state=True)(inner(x))
    return keras.Model(x, keras.layers.Dense(2)(y))


MODELS = {
    "LSTM(3, 5), LastStep()": sequential(lstm()),
    "LSTM(3, 5), Linear(5, 2)": sequential(lstm(return_sequences=True), dense()),
    "LSTM(3, 5, bias=False), LSTM(5, 4), LastStep(), Dropout(p=0.3), Linear(4, 2, bias=False)": sequential(
        lstm(return_sequences=True, use_bias=False, unroll=False),
        lstm(4, unit_forget_bias=False),
        layer("Dropout", 0.3),
        dense(use_bias=False),
    ),
    "LSTM(3, 5, bidirectional=True), Linear(10, 2)": sequential(
        both(return_sequences=True), lambda layers: layers.TimeDistributed(layers.Dense(2))
    ),
    "LSTM(3, 5, bidirectional=True), LSTM(10, 4, bidirectional=True), LastStep(bidirectional=True), "
    "Linear(8, 2)": sequential(both(return_sequences=True), both(4), dense()),
    "LSTM(3, 5, bias=False, bidirectional=True), LastStep(bidirectional=True)": sequential(
        both(use_bias=False)
    ),
    "Embedding(10, 4), LSTM(4, 5), LastStep()": sequential(
        layer("Embedding", 10, 4), lstm(), shape=(None,), dtype="int32"
    ),
    "LayerNorm(3, eps=0.001), LSTM(3, 5), BatchNorm(5, eps=0.001, momentum=0.01, batch_first=True), "
    "LayerNorm(5, eps=0.1)": sequential(
        layer("LayerNormalization"),
        lstm(return_sequences=True),
        layer("BatchNormalization"),
        layer("LayerNormalization", epsilon=0.1, axis=2),
    ),
    "BatchNorm(3, eps=0.001, momentum=0.2, batch_first=True), LSTM(3, 5), LastStep(), "
    "BatchNorm(5, eps=0.001, momentum=0.01, batch_first=True), LayerNorm(5, eps=0.001)": sequential(
        layer("BatchNormalization", momentum=0.8, scale=False),
        lstm(),
        layer("BatchNormalization", center=False, scale=False),
        layer("LayerNormalization", center=False),
    ),
    "Linear(3, 4), Dropout(), LSTM(4, 5), LastStep(), Linear(5, 2)": functional,
    "Linear(3, 4), Activation('relu'), LSTM(4, 5), LastStep(), Linear(5, 6), Activation('tanh'), "
    "Linear(6, 2), Softmax()": sequential(
        lambda layers: layers.TimeDistributed(layers.Dense(4, activation="relu")),
        lstm(),
        dense(6, activation="tanh", use_bias=True),
        layer("Activation", "linear"),
        dense(activation="softmax"),
    ),
    "LSTM(3, 5), Activation('relu'), Activation('leaky_relu', alpha=0.25), "
    "Activation('thresholded_relu', alpha=0.1), Activation('leaky_relu', alpha=0.3), "
    "Activation('elu', alpha=0.5), Softmax()": sequential(
        lstm(return_sequences=True),
        layer("ReLU"),
        layer("ReLU", negative_slope=0.25),
        layer("ReLU", threshold=0.1),
        layer("LeakyReLU"),
        layer("ELU", 0.5),
        layer("Softmax"),
    ),
}


@pytest.mark.parametrize(("listed", "build"), MODELS.items(), ids=range(len(MODELS)))
def test_models_predict_the_same(keras, rng, listed, build):
    theirs = build(keras)
    randomize(theirs, rng)
    ours = lstmx.keras.from_keras(theirs)
    assert re.sub(r"(LSTM\([^)]*), batch_first=True", r"\1", repr(ours)) == f"Sequential({listed})"
    reads_integers = isinstance(ours[0], lstmx.Embedding)
    x = rng.integers(0, 10, (BATCH, STEPS)) if reads_integers else draw(rng, BATCH, STEPS, INPUTS)
    assert_equal(ours(x)[0], predict(keras, theirs, x))


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lstm(return_sequences=True), lstmx.LSTM),
        (lstm(), lstmx.Sequential),
        (both(return_sequences=True), lstmx.LSTM),
        (dense(), lstmx.Linear),
        (dense(activation="relu"), lstmx.Sequential),
        (layer("Activation", "tanh"), lstmx.Activation),
        (layer("Softmax"), lstmx.Softmax),
        (layer("Dropout", 0.5), lstmx.Dropout),
    ],
)
def test_a_layer_alone(keras, rng, make, kind):
    theirs = make(keras.layers)
    x = draw(rng, BATCH, STEPS, INPUTS)
    predict(keras, theirs, x)
    randomize(theirs, rng)
    ours = lstmx.keras.from_keras(theirs)
    assert type(ours) is kind
    assert_equal(ours(x)[0], predict(keras, theirs, x))


FUNCTIONS = [
    *["linear", "relu", "leaky_relu", "elu", "sigmoid", "hard_sigmoid", "tanh", "softsign", "softplus"],
    "softmax",
]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_by_name(keras, rng, name):
    theirs = sequential(dense(6, activation=name), layer("Activation", name))(keras)
    randomize(theirs, rng)
    x = 3 * draw(rng, BATCH, STEPS, INPUTS)
    ours = lstmx.keras.from_keras(theirs)
    assert_equal(ours(x)[0], predict(keras, theirs, x))
    assert len(ours) == (1 if name == "linear" else 3)


@pytest.mark.parametrize("make", [lstm, both], ids=["LSTM", "Bidirectional"])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_the_state_of_a_stateful_model_is_the_callers(keras, rng, make, return_sequences):
    theirs = keras.Sequential(
        [
            keras.Input(batch_shape=(BATCH, STEPS, INPUTS)),
            make(stateful=True, return_sequences=return_sequences)(keras.layers),
            keras.layers.Dense(2),
        ]
    )
    randomize(theirs, rng)
    ours = lstmx.keras.from_keras(theirs)
    stream = ours.stream(BATCH) if make is lstm and return_sequences else None
    state = None
    for reset in (False, False, True):
        if reset:
            theirs.layers[0].reset_states() if make is both else theirs.layers[0].reset_state()
            state = None
        x = draw(rng, BATCH, STEPS, INPUTS)
        y, state = ours(x, state)
        expected = predict(keras, theirs, x)
        assert_equal(y, expected)
        if stream is not None:
            if reset:
                stream.reset()
            assert_equal(stream.run(x), expected)


def test_weights_are_a_copy(keras, rng):
    theirs = sequential(lstm(), dense())(keras)
    ours = lstmx.keras.from_keras(theirs)
    before = {name: array.copy() for name, array in ours.params.items()}
    randomize(theirs, rng)
    for name, array in ours.params.items():
        np.testing.assert_array_equal(array, before[name])
    assert not before["0.bias_hh_l0"].any()
    np.testing.assert_array_equal(before["0.bias_ih_l0"][HIDDEN : 2 * HIDDEN], 1)  # unit_forget_bias


def test_weights_of_a_model_without_the_model(keras, rng):
    theirs = sequential(lstm(4, return_sequences=True), both(4, return_sequences=True), dense())(keras)
    randomize(theirs, rng)
    ours = lstmx.keras.from_keras(theirs.get_weights())
    x = draw(rng, BATCH, STEPS, INPUTS)
    assert_equal(ours(x)[0], predict(keras, theirs, x))


# ---------------------------------------------------------------- models that are refused


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lstm(name="a", go_backwards=True), ValueError, "LSTM 'a': go_backwards: expected False, got True"),
        (lstm(name="a", recurrent_dropout=0.5), ValueError, "'a': recurrent_dropout: expected 0, got 0.5"),
        (lstm(name="a", dropout=0.5), ValueError, "'a': dropout: expected 0, got 0.5"),
        (lstm(name="a", activation="relu"), ValueError, "'a': activation: expected 'tanh', got 'relu'"),
        (
            lstm(name="a", recurrent_activation="hard_sigmoid"),
            ValueError,
            "'a': recurrent_activation: expected 'sigmoid', got 'hard_sigmoid'",
        ),
        (both(name="a", merge_mode="sum"), ValueError, "merge_mode: expected 'concat', got 'sum'"),
        (both(recurrent_dropout=0.5), ValueError, "LSTM 'forward_lstm.*': recurrent_dropout: expected 0"),
        (
            lambda layers: layers.Bidirectional(
                layers.LSTM(2), backward_layer=layers.LSTM(2, go_backwards=True, activation="relu")
            ),
            ValueError,
            "LSTM 'lstm.*': activation: expected 'tanh', got 'relu'",
        ),
        (
            lambda layers: layers.Bidirectional(
                layers.LSTM(2), backward_layer=layers.LSTM(3, go_backwards=True, name="b")
            ),
            ValueError,
            "LSTM 'b': units: expected 2, got 3",
        ),
        (
            lambda layers: layers.Bidirectional(
                layers.LSTM(2, go_backwards=True), backward_layer=layers.LSTM(2)
            ),
            ValueError,
            "LSTM 'forward_lstm.*': go_backwards: expected False, got True",
        ),
        (
            lambda layers: layers.Bidirectional(layers.GRU(2), name="a"),
            TypeError,
            "Bidirectional 'a': expected an LSTM inside, got GRU",
        ),
        (
            dense(name="a", activation="gelu"),
            ValueError,
            "Dense 'a': activation: expected one of linear, softmax, relu, .*softplus, got 'gelu'",
        ),
        (
            lambda layers: layers.TimeDistributed(layers.Dense(2, activation="log_softmax", name="a")),
            ValueError,
            "Dense 'a': activation: expected one of .* got 'log_softmax'",
        ),
        (
            lambda layers: layers.Dense(2, activation=layers.LeakyReLU(), name="a"),
            ValueError,
            "Dense 'a': activation: expected one of .* got {.*LeakyReLU",
        ),
        (
            layer("Activation", "selu", name="a"),
            ValueError,
            "Activation 'a': activation: expected one of .* got 'selu'",
        ),
        (layer("Softmax", 1, name="a"), ValueError, "Softmax 'a': axis: expected the last one, got 1"),
        (layer("ReLU", 6.0, name="a"), ValueError, "ReLU 'a': max_value: expected None, got 6.0"),
        (
            layer("ReLU", negative_slope=0.5, threshold=1.0, name="a"),
            ValueError,
            "ReLU 'a': negative_slope: expected 0.0, got 0.5",
        ),
        (
            layer("ELU", -0.5, name="a"),
            ValueError,
            "ELU 'a': alpha: expected a number >= 0 for elu, got -0.5",
        ),
        (layer("PReLU", name="a"), TypeError, "PReLU 'a': expected one of Sequential, .*, got PReLU"),
        (
            lambda layers: layers.TimeDistributed(layers.LayerNormalization(), name="a"),
            TypeError,
            "TimeDistributed 'a': expected a Dense inside, got LayerNormalization",
        ),
        (layer("Masking", name="a"), TypeError, "Masking 'a': expected one of Sequential, .*, got Masking"),
        (layer("GRU", 2, name="a"), TypeError, "GRU 'a': expected one of .*LSTM, Bidirectional, .*, got GRU"),
        (layer("Dropout", 0.5, noise_shape=(None, 1, 3)), ValueError, "noise_shape: expected None, got"),
        (
            layer("BatchNormalization", axis=1, name="a"),
            ValueError,
            "BatchNormalization 'a': axis: expected the last one, got 1",
        ),
        (layer("LayerNormalization", axis=[1, 2]), ValueError, r"axis: expected the last one, got \[1, 2\]"),
        (
            layer("LayerNormalization", center=False, scale=False),
            ValueError,
            "scale: expected True, got False",
        ),
    ],
)
def test_refuses_by_name_what_no_layer_computes(keras, make, error, match):
    model = sequential(make, shape=(STEPS, INPUTS))(keras)
    with pytest.raises(error, match=match):
        lstmx.keras.from_keras(model)


def test_refuses_masks_of_an_embedding(keras):
    model = sequential(layer("Embedding", 9, 2, mask_zero=True, name="a"), lstm(), shape=(None,))(keras)
    with pytest.raises(ValueError, match="Embedding 'a': mask_zero: expected False, got True"):
        lstmx.keras.from_keras(model)


def test_refuses_a_layer_that_is_not_built(keras):
    with pytest.raises(
        ValueError, match=r"'a': expected a built layer with the weights kernel, rec.* got 0 ar"
    ):
        lstmx.keras.from_keras(keras.layers.LSTM(2, name="a"))


def _branches(keras, x):
    y = keras.layers.Dense(3, name="y")(x)
    return keras.layers.Dense(2, name="z")(x), y


def _earlier_output(keras, x):
    y = keras.layers.Dense(3, name="y")(x)
    return keras.layers.Dense(3, name="z")(y), y


def _sum(keras, x):
    y = keras.layers.Dense(INPUTS, name="y")(x)
    return keras.layers.Add(name="add")([x, y])


def _shared(keras, x):
    shared = keras.layers.Dense(INPUTS, name="y")
    return shared(shared(x))


def _final_state(keras, x):
    _, h, _ = keras.layers.LSTM(2, return_state=True, name="y")(x)
    return keras.layers.Dense(1, name="z")(h)


def _initial_state(keras, x):
    h = keras.Input((2,), name="h")
    return [x, h], keras.layers.LSTM(2, name="y")(x, initial_state=[h, h])


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (_branches, "[yz] to read [yz], got x"),
        (_earlier_output, "output to read z, got z, y"),
        (_sum, "add to read y, got x, y"),
        (_shared, "y to read x, got x, y"),
        (_final_state, r"z to read y, got y\[1\]"),
        (_initial_state, "(h to read x, got nothing|y to read h, got x, h, h)"),
    ],
)
def test_refuses_functional_models_that_are_no_row(keras, build, match):
    x = keras.Input((None, INPUTS), name="x")
    made = build(keras, x)
    inputs, outputs = made if build is _initial_state else (x, made)
    model = keras.Model(inputs, outputs, name="m")
    with pytest.raises(ValueError, match=f"Functional 'm': expected layers in a row, {match}"):
        lstmx.keras.from_keras(model)


def test_refuses_models_of_a_class_of_their_own(keras):
    class Own(keras.Model):
        pass

    with pytest.raises(TypeError, match=r"Own 'own': expected one of Sequential, Functional, .*, got Own"):
        lstmx.keras.from_keras(Own(name="own"))


# ---------------------------------------------------------------- arrays alone, without Keras


def cell(rng, width, hidden, bias=True) -> list[np.ndarray]:
    shapes = [(width, 4 * hidden), (hidden, 4 * hidden), (4 * hidden,)]
    return [draw(rng, *shape) for shape in shapes[: 3 if bias else 2]]


def params(kernel, recurrent, bias=None, suffix="l0") -> dict[str, np.ndarray]:
    zeros = np.zeros(kernel.shape[1])
    return {
        f"weight_ih_{suffix}": kernel.T,
        f"weight_hh_{suffix}": recurrent.T,
        f"bias_ih_{suffix}": zeros if bias is None else bias,
        f"bias_hh_{suffix}": zeros,
    }


def test_the_cell_is_the_one_that_keras_documents(rng):
    """The equations of keras.layers.LSTM, with its arrays as they are and its order of the gates: i f c o."""
    kernel, recurrent, bias = cell(rng, INPUTS, HIDDEN)
    x = draw(rng, BATCH, STEPS, INPUTS)
    h = c = np.zeros((BATCH, HIDDEN))
    for t in range(STEPS):
        z_i, z_f, z_c, z_o = np.split(x[:, t] @ kernel + h @ recurrent + bias, 4, axis=1)
        c = reference.sigmoid(z_f) * c + reference.sigmoid(z_i) * np.tanh(z_c)
        h = reference.sigmoid(z_o) * np.tanh(c)
    y, (h_n, c_n) = lstmx.keras.from_keras([kernel, recurrent, bias])(x)
    for mine, true in ((y[:, -1], h), (h_n[0], h), (c_n[0], c)):
        assert_equal(mine, true)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("hidden", [1, 4, HIDDEN])
def test_arrays_of_an_lstm(rng, hidden, bias):
    arrays = cell(rng, INPUTS, hidden, bias)
    layer = lstmx.keras.from_keras([array.astype(np.float64) for array in arrays])
    assert repr(layer) == f"LSTM(3, {hidden}{'' if bias else ', bias=False'}, batch_first=True)"
    x = draw(rng, BATCH, STEPS, INPUTS)
    y, state, _ = reference.lstm(x, params(*arrays), batch_first=True)
    for mine, true in zip((layer(x)[0], *layer(x)[1]), (y, *state), strict=True):
        assert_equal(mine, true)


@pytest.mark.parametrize("bias", [True, False])
def test_arrays_of_a_bidirectional(rng, bias):
    forward, backward = cell(rng, INPUTS, HIDDEN, bias), cell(rng, INPUTS, HIDDEN, bias)
    layer = lstmx.keras.from_keras((*forward, *backward))
    x = draw(rng, BATCH, STEPS, INPUTS)
    both = params(*forward) | params(*backward, suffix="l0_reverse")
    y, state, _ = reference.lstm(x, both, batch_first=True, bidirectional=True)
    for mine, true in zip((layer(x)[0], *layer(x)[1]), (y, *state), strict=True):
        assert_equal(mine, true)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([(3, 5)], "LSTM(3, 5)"),
        ([(3, 5), (5, 5)], "LSTM(3, 5), LSTM(5, 5)"),
        ([(3, 5), (3, 5)], "LSTM(3, 5, bidirectional=True)"),
        (
            [(3, 5), (3, 5), (10, 4), (10, 4)],
            "LSTM(3, 5, bidirectional=True), LSTM(10, 4, bidirectional=True)",
        ),
        ([(4, 4), (4, 4)], "LSTM(4, 4), LSTM(4, 4)"),
        ([(4, 4), (4, 4), (4, 4), (4, 6)], "LSTM(4, 4), LSTM(4, 4), LSTM(4, 4), LSTM(4, 6)"),
        ([(4, 4), (4, 4), (8, 4)], "LSTM(4, 4, bidirectional=True), LSTM(8, 4)"),
        ([(3, 5), (5, 4), (4, 4)], "LSTM(3, 5), LSTM(5, 4), LSTM(4, 4)"),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_shapes_tell_layers_from_directions(rng, cells, expected, bias):
    arrays = [array for sizes in cells for array in cell(rng, *sizes, bias)]
    width = 2 * cells[-1][1] if expected.endswith("bidirectional=True)") else cells[-1][1]
    arrays += [draw(rng, width, 2), draw(rng, 2)]
    model = lstmx.keras.from_keras(arrays)
    text = repr(model).replace(", batch_first=True", "").replace(", bias=False", "")
    assert text == f"Sequential({expected}, Linear({width}, 2))"
    assert len(model.params) == len(arrays) + (sum(len(a.shape) == 1 for a in arrays) - 1)
    np.testing.assert_array_equal(model.params[f"{len(model) - 1}.weight"], arrays[-2].T)


def test_arrays_of_a_dense(rng):
    kernel, bias, x = draw(rng, 3, 8), draw(rng, 8), draw(rng, 4, 3)
    assert_equal(lstmx.keras.from_keras([kernel, bias])(x)[0], reference.linear_forward(x, kernel.T, bias))


def zeros(*shapes):
    return [np.zeros(shape) for shape in shapes]


@pytest.mark.parametrize(
    ("weights", "error", "match"),
    [
        (None, TypeError, "model_or_weights: expected a Keras model or layer or a list .* got NoneType"),
        (np.zeros((3, 8)), TypeError, "model_or_weights: expected .* got ndarray"),
        ({}, TypeError, "model_or_weights: expected .* got dict"),
        ([], ValueError, "layers: expected at least one layer, got none"),
        (["kernel"], TypeError, r"weights\[0\]: expected real numbers, got dtype <U6"),
        ([*zeros((3, 8), 8), object()], TypeError, r"weights\[2\]: expected real numbers, got dtype object"),
        (zeros((3, 8)), ValueError, r"weights\[0\]: expected kernel .*, got shapes \(3, 8\)$"),
        (zeros((3, 8), (3, 8), 8), ValueError, r"weights\[0\]: .* got shapes \(3, 8\), \(3, 8\)$"),
        (zeros((3, 8), 7), ValueError, r"weights\[0\]: expected .* got shapes \(3, 8\), \(7,\)"),
        (zeros((3, 8), (2, 8), 8, (2, 8)), ValueError, r"weights\[3\]: expected .* got shapes \(2, 8\)"),
        (zeros((3, 8), (2, 8), 7), ValueError, r"weights\[2\]: expected .* got shapes \(7,\)"),
        (zeros(3, 3, 3, 3), ValueError, r"weights\[0\]: expected .* got shapes \(3,\), \(3,\)"),
        (zeros((3, 8), (2, 8), 8, (3, 1), 1), ValueError, r"layers\[1\]: expected input size 2, .* got 3"),
        (
            zeros((2, 8), (2, 8), 8) * 2,
            ValueError,
            r"weights\[3\]: expected shapes that tell two layers from one with two directions, got 3 arrays",
        ),
        (zeros((0, 8), (2, 8), 8), ValueError, "input_size: expected at least 1, got 0"),
        (zeros((3, 0), (0, 0), 0), ValueError, "hidden_size: expected at least 1, got 0"),
    ],
)
def test_refuses_other_arrays(weights, error, match):
    with pytest.raises(error, match=match):
        lstmx.keras.from_keras(weights)


def test_loads_no_framework():
    code = (
        "import sys, lstmx; assert 'keras' in dir(lstmx); assert 'lstmx.keras' not in sys.modules; "
        "lstmx.keras.from_keras; print({'keras', 'tensorflow', 'torch', 'jax'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ---------------------------------------------------------------- tf.keras 2, imitated


def imitation(kind: str, config: dict[str, Any], weights=(), **attributes: Any) -> Any:
    methods = {"get_config": lambda self: config, "get_weights": lambda self: list(weights)}
    made = type(kind, (SimpleNamespace,), methods)
    return made(name=config.get("name", kind.lower()), **attributes)


def keras_2_lstm(arrays, **options):
    config = {
        "name": "a",
        "return_sequences": True,
        "return_state": False,
        "go_backwards": False,
        "stateful": False,
        "unroll": False,
        "time_major": False,
        "units": arrays[1].shape[0],
        "activation": "tanh",
        "recurrent_activation": "sigmoid",
        "use_bias": len(arrays) == 3,
        "dropout": 0.0,
        "recurrent_dropout": 0.0,
        "implementation": 2,
    }
    return imitation("LSTM", config | options, arrays)


def keras_2_model(reads):
    """As tf.keras 2 writes it, a model of "x", the LSTM "a" and a normalization "n", which has `reads`."""
    rng = np.random.default_rng(0)
    norm = {"name": "n", "axis": [2], "momentum": 0.99, "epsilon": 1e-3, "center": True, "scale": True}
    layers = [
        imitation("InputLayer", {"name": "x"}),
        keras_2_lstm(cell(rng, INPUTS, HIDDEN)),
        imitation("BatchNormalization", norm, zeros(*[5] * 4), input=np.zeros((1, 1, HIDDEN))),
    ]
    items = [
        {"class_name": "InputLayer", "name": "x", "inbound_nodes": []},
        {"class_name": "LSTM", "name": "a", "inbound_nodes": [[["x", 0, 0, {}]]]},
        {"class_name": "BatchNormalization", "name": "n", "inbound_nodes": reads},
    ]
    config = {"name": "m", "layers": items, "input_layers": [["x", 0, 0]], "output_layers": [["n", 0, 0]]}
    return imitation("Functional", config, layers=layers)


def test_configurations_of_keras_2():
    model = lstmx.keras.from_keras(keras_2_model([[["a", 0, 0, {}]]]))
    assert [type(layer) for layer in model] == [lstmx.LSTM, lstmx.BatchNorm]


@pytest.mark.parametrize(
    ("reads", "got"),
    [
        ([[["x", 0, 0, {}]]], "x"),
        ([[["a", 0, 2, {}]]], r"a\[2\]"),
        ([[["a", 0, 0, {}], ["x", 0, 0, {}]]], "a, x"),
        ([[["a", 0, 0, {"initial_state": [["x", 0, 0], ["x", 0, 0]]}]]], "a, x, x"),
        ([[["a", 0, 0, {}]], [["a", 0, 0, {}]]], "a, a"),
    ],
)
def test_refuses_configurations_of_keras_2_that_are_no_row(reads, got):
    with pytest.raises(ValueError, match=f"'m': expected layers in a row, n to read a, got {got}$"):
        lstmx.keras.from_keras(keras_2_model(reads))


def test_activations_of_keras_2():
    """hard_sigmoid is another one there, and LeakyReLU has alpha."""
    kernel = np.eye(2)
    for layer in (
        imitation("Dense", {"activation": "hard_sigmoid", "use_bias": False}, [kernel]),
        imitation("Activation", {"activation": "hard_sigmoid"}),
    ):
        x = np.array([[-3.0, 1.0]])
        np.testing.assert_allclose(lstmx.keras.from_keras(layer)(x)[0], [[0.0, 0.7]], rtol=1e-6)
    slope = imitation("LeakyReLU", {"alpha": np.array(0.5, np.float32)})
    assert repr(lstmx.keras.from_keras(slope)) == "Activation('leaky_relu', alpha=0.5)"
    zero = np.array(0, np.float32)
    relu = {"max_value": None, "negative_slope": zero, "threshold": zero}
    assert repr(lstmx.keras.from_keras(imitation("ReLU", relu))) == "Activation('relu')"


def test_refuses_time_major_of_keras_2(rng):
    with pytest.raises(ValueError, match="LSTM 'a': time_major: expected False, got True"):
        lstmx.keras.from_keras(keras_2_lstm(cell(rng, 2, 3), time_major=True))
