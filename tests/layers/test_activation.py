"""Activation and Softmax: against the reference, in models, with lengths, in training; refusals."""

from __future__ import annotations

import numpy as np
import pytest

import lstmx
from lstmx import reference
from tests.layers.agree import agree

LAYERS = {
    **{name: lambda name=name: lstmx.Activation(name) for name in reference.ACTIVATIONS},
    "hard_sigmoid of Keras": lambda: lstmx.Activation("hard_sigmoid", 1 / 6),
    "scaled_tanh with both": lambda: lstmx.Activation("scaled_tanh", 1.7, beta=0.6),
    "softmax": lambda: lstmx.Softmax(),
}
each_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def reference_of(layer):
    """The function, and what gives dx of y and dy."""
    if isinstance(layer, lstmx.Softmax):
        return reference.softmax, reference.softmax_backward
    function = reference.Activation(layer.function, layer.alpha, layer.beta)
    return function, lambda y, dy: function.slope(y) * dy


@each_layer
@pytest.mark.parametrize("shape", [(5,), (4, 6, 5), (3, 2, 40, 300), (0,), (3, 0), (2, 0, 5)])
def test_against_the_reference(rng, make, shape):
    layer = make()
    x, dy = 2 * normal(rng, *shape), normal(rng, *shape)
    function, undo = reference_of(layer)
    y, state, backward = layer.forward(x)
    assert not y.flags.writeable  # backward reads it
    dx, dstate = backward(dy)
    assert state is dstate is None
    agree("y", y, function(x.astype(np.float64)))
    agree("dx", dx, undo(y.astype(np.float64), dy.astype(np.float64)))
    np.testing.assert_array_equal(layer(x)[0], y)
    np.testing.assert_array_equal(layer.forward(x, training=False)[0], y)
    with pytest.raises(RuntimeError, match="already called"):
        backward(dy)
    assert layer.forward(x)[2](dy, need_dx=False) == (None, None)
    assert layer.num_parameters == 0


@each_layer
def test_the_bits_of_a_row_are_its_own(rng, make):
    layer = make()
    for width in (1, 7, 129):
        x = normal(rng, 3, 4, width)
        y, _, backward = layer.forward(x)
        dx, _ = backward(x)
        wide = np.zeros((4, 3, width + 2), np.float32)
        wide[..., 1:-1] = x.swapaxes(0, 1)
        np.testing.assert_array_equal(layer(wide[..., 1:-1].swapaxes(0, 1))[0], y)
        for i in range(3):
            for j in range(4):
                alone, _, backward = layer.forward(x[i, j])
                np.testing.assert_array_equal(alone, y[i, j])
                np.testing.assert_array_equal(backward(x[i, j])[0], dx[i, j])


def make_model(function, dtype, rng):
    return lstmx.Sequential(
        lstmx.Linear(3, 6, dtype=dtype, rng=rng),
        function,
        lstmx.LSTM(6, 5, batch_first=True, bidirectional=True, dtype=dtype, rng=rng),
        lstmx.Residual(lstmx.Sequential(lstmx.Activation("tanh"))),
        lstmx.LastStep(bidirectional=True),
        lstmx.Linear(10, 4, dtype=dtype, rng=rng),
        lstmx.Softmax(),
    )


@each_layer
def test_the_gradient_of_a_model_is_the_slope_of_its_loss(rng, make):
    """In float64, by finite differences, with rows of unequal length whose padding holds nonsense."""
    model = make_model(make(), "float64", rng)
    lengths = np.array([6, 0, 3, 1])
    x, weights = rng.standard_normal((4, 6, 3)), rng.standard_normal((4, 4))
    padded = np.arange(6) >= lengths[:, None]
    x[padded] = 1e3
    y, _, backward = model.forward(x, lengths=lengths)
    dx, _ = backward(weights)
    assert y.dtype == dx.dtype == np.float64
    assert not dx[padded].any()
    np.testing.assert_array_equal(y, model(np.where(padded[..., None], 7.0, x), lengths=lengths)[0])

    def slope(array, index, step=1e-6):
        """Of the loss by an element of x or of a parameter, which is writable."""
        losses, middle = [], array[index]
        for sign in (1, -1):
            array[index] = middle + sign * step
            model.arena.touch()
            losses.append(np.sum(model(x, lengths=lengths)[0] * weights))
        array[index] = middle
        return (losses[0] - losses[1]) / (2 * step)

    with model.editing() as params:
        arrays = [(x, dx), *((params[name], model.grads[name]) for name in ("0.weight", "5.bias"))]
        for array, gradient in arrays:
            for index in [(0,), (array.shape[0] - 1,)]:
                index += (0,) * (array.ndim - 1)
                np.testing.assert_allclose(gradient[index], slope(array, index), rtol=1e-6, atol=1e-8)


def test_padding_is_computed_as_by_any_layer_of_single_steps(rng):
    """As Linear does; a layer that reads time does not see it."""
    model = lstmx.Sequential(lstmx.LSTM(3, 5, batch_first=True, rng=rng), lstmx.Activation("sigmoid"))
    y, _ = model(normal(rng, 2, 4, 3), lengths=[4, 2])
    np.testing.assert_array_equal(y[1, 2:], 0.5)
    with pytest.raises(TypeError, match=r"lengths: expected None \(Activation reads no time\), got list"):
        model[1](y, lengths=[4, 2])


def test_a_stream_gives_the_bits_of_the_whole_sequence(rng):
    layers = (
        lstmx.Linear(3, 7, rng=rng),
        lstmx.Activation("softplus"),
        lstmx.LSTM(7, 5, batch_first=True, rng=rng),
        lstmx.Activation("sigmoid"),
        lstmx.Softmax(),
    )
    model = lstmx.Sequential(*layers)
    x = normal(rng, 4, 9, 3)
    y, _ = model(x)
    stream = model.stream(4)
    np.testing.assert_array_equal(stream.run(x[:, :4]), y[:, :4])
    for t in range(4, 9):
        np.testing.assert_array_equal(stream.step(x[:, t]), y[:, t])


def test_a_classifier_with_a_hidden_layer_trains(rng):
    """Whether two numbers have the same sign, which no line tells."""
    x = np.where(rng.random((256, 5, 2)) < 0.5, -1.0, 1.0).astype(np.float32)
    classes = (x[:, -1, 0] == x[:, -1, 1]).astype(np.int64)
    model = lstmx.Sequential(
        lstmx.LastStep(),
        lstmx.Linear(2, 16, rng=0),
        lstmx.Activation("relu"),
        lstmx.Linear(16, 2, rng=1),
    )
    data = lstmx.data.Arrays(x, classes, batch_size=32, rng=0)
    trainer = lstmx.Trainer(model, loss="cross_entropy", optimizer=lstmx.optim.Adam(lr=0.02))
    history = trainer.fit(data, epochs=15)
    assert history["loss"][0] > 0.3
    assert history["loss"][-1] < 0.02
    probabilities, _ = lstmx.Sequential(model, lstmx.Softmax())(x)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), classes)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)


NAMES = "'sigmoid', 'tanh', 'relu', .*'softplus'"
REFUSED = [
    (
        lambda: lstmx.Activation("softmax"),
        ValueError,
        f"function: expected one of {NAMES}, got 'softmax'",
    ),
    (lambda: lstmx.Activation(np.tanh), TypeError, f"function: expected one of {NAMES}, got <ufunc"),
    (lambda: lstmx.Activation("elu", -1), ValueError, "alpha: expected a number >= 0 for elu, got -1.0"),
    (
        lambda: lstmx.Activation("hard_sigmoid", 0),
        ValueError,
        "alpha: expected a number > 0 for hard_sigmoid, got 0.0",
    ),
    (lambda: lstmx.Activation("tanh", 1), ValueError, "alpha: expected none for tanh, got 1.0"),
    (lambda: lstmx.Activation("elu", beta=1), ValueError, "beta: expected none for elu, got 1.0"),
    (lambda: lstmx.Activation("affine", beta="1"), TypeError, "beta: expected a number, got '1'"),
    (lambda: lstmx.Activation("affine", np.inf), ValueError, "alpha: expected a finite number, got inf"),
    (lambda: lstmx.Softmax()(1.0), ValueError, r"x: expected shape \(\.\.\., F\), got \(\)"),
    (
        lambda: lstmx.Softmax().forward(np.zeros((2, 3)))[2](np.zeros(3)),
        ValueError,
        r"dy: expected shape \(2, 3\), got \(3,\)",
    ),
    (
        lambda: lstmx.Activation("relu")(np.zeros((2, 3)), np.zeros(3)),
        TypeError,
        r"state: expected None \(Activation keeps no state\), got ndarray",
    ),
]


@pytest.mark.parametrize(("call", "error", "match"), REFUSED, ids=[r[2] for r in REFUSED])
def test_refusals(call, error, match):
    with pytest.raises(error, match=match):
        call()
