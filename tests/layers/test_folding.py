"""fold_batch_norm: the same y and states as before, padding included; what it takes and what it leaves."""

from __future__ import annotations

import numpy as np
import pytest

import lstmx
from tests.layers.agree import agree

LENGTHS = [5, 0, 2, 6]
EVERYTHING = {"proj_size": 2, "peephole": True, "coupled": True, "gate_clip": 0.9, "zoneout": 0.2}
EVERYTHING |= {"merge": "sum", "connection": "highway", "learn_initial_state": True}


def randomised(rng, model):
    """The model with statistics, scales and shifts that matter."""
    with model.editing() as views:
        for name, view in views.items():
            view[...] = 0.6 * rng.standard_normal(view.shape)
            if name.endswith("running_var"):
                view[...] = rng.uniform(0.5, 2, view.shape)
    return model


def norm(width=3, **options):
    return lstmx.BatchNorm(width, **options)


def linear(inputs=3, outputs=3, **options):
    return lstmx.Linear(inputs, outputs, **options)


# The layers; the types of what is left of them, with lengths=True and with lengths=False.
CASES = {
    "lstm": (lambda: [norm(), lstmx.LSTM(3, 4)], "LSTM", "LSTM"),
    "lstm_without_bias": (lambda: [norm(), lstmx.LSTM(3, 4, bias=False)], "LSTM", "LSTM"),
    "lstm_of_everything": (
        lambda: [
            norm(batch_first=True),
            lstmx.LSTM(
                *(3, [5, 4], 2, True, True, 0.0, True),
                **EVERYTHING,
            ),
        ],
        "LSTM",
        "LSTM",
    ),
    "gru_without_bias": (lambda: [norm(), lstmx.GRU(3, 4, 2, False, bidirectional=True)], "GRU", "GRU"),
    "rnn": (lambda: [norm(), lstmx.RNN(3, 4, reverse=True)], "RNN", "RNN"),
    "several": (lambda: [norm(), norm(), lstmx.Dropout(), lstmx.RNN(3, 4)], "Dropout RNN", "Dropout RNN"),
    "between": (
        lambda: [lstmx.GRU(3, 4), norm(4), lstmx.LSTM(4, 2), norm(2)],
        "GRU LSTM BatchNorm",
        "GRU LSTM BatchNorm",
    ),
    "linear_before": (lambda: [linear(bias=False), norm(), lstmx.RNN(3, 4)], "Linear RNN", "Linear RNN"),
    "linear_before_what_stays": (
        lambda: [linear(), norm(), lstmx.Dropout(), lstmx.LayerNorm(3), lstmx.RNN(3, 4)],
        "Linear Dropout LayerNorm RNN",
        "Linear Dropout LayerNorm RNN",
    ),
    "linear_after": (lambda: [norm(), linear(), lstmx.RNN(3, 4)], "Linear RNN", "Linear RNN"),
    "head": (lambda: [lstmx.RNN(3, 4), norm(4), linear(4)], "RNN BatchNorm Linear", "RNN Linear"),
    "head_and_norm": (
        lambda: [lstmx.RNN(3, 4), linear(4), norm()],
        "RNN Linear BatchNorm",
        "RNN Linear",
    ),
    "norms_around_a_linear": (
        lambda: [norm(), linear(), norm()],  # what the second sets to 0 shows what the first does not
        "Linear BatchNorm",
        "Linear",
    ),
    "after_the_last_step": (
        lambda: [
            *(lstmx.RNN(3, 4, batch_first=True), norm(4, batch_first=True), lstmx.LastStep()),
            *(norm(4, batch_first=True), linear(4, bias=False), norm(batch_first=True)),
        ],
        "RNN BatchNorm LastStep Linear",
        "RNN BatchNorm LastStep Linear",
    ),
    "nested": (
        lambda: [lstmx.Sequential(linear(), lstmx.Sequential(norm())), lstmx.RNN(3, 4)],
        "Linear RNN",
        "Linear RNN",
    ),
    "residual": (
        lambda: [lstmx.Residual(lstmx.Sequential(norm(), lstmx.RNN(3, 3))), norm()],
        "Residual BatchNorm",
        "Residual BatchNorm",
    ),
    "nothing_beside": (
        lambda: [norm(), lstmx.LayerNorm(3), lstmx.RNN(3, 4), norm(4)],
        "BatchNorm LayerNorm RNN BatchNorm",
        "BatchNorm LayerNorm RNN BatchNorm",
    ),
}


def arrays_of(state):
    """The arrays of a state in order."""
    if isinstance(state, tuple):
        return [array for item in state for array in arrays_of(item)]
    return [] if state is None else [state]


@pytest.mark.parametrize("lengths", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_outputs_and_states_are_the_same(rng, case, lengths):
    make, *left = CASES[case]
    model = randomised(rng, lstmx.Sequential(*make()))
    before = model.state_dict()
    folded = lstmx.fold_batch_norm(model, lengths=lengths)
    assert " ".join(type(layer).__name__ for layer in folded) == left[not lengths]
    x = rng.standard_normal((4, 6, 3) if model.batch_first else (6, 4, 3)).astype(np.float32)
    for spans in ({}, {"lengths": LENGTHS}) if lengths else ({},):
        y, state = folded(x, **spans)
        want_y, want_state = model(x, **spans)
        agree("y", y, want_y)
        for got, want in zip(arrays_of(state), arrays_of(want_state), strict=True):
            agree("state", got, want)
    for name, value in before.items():
        np.testing.assert_array_equal(model.state_dict()[name], value)
    assert not np.shares_memory(folded.arena.params, model.arena.params)


def test_inside_a_residual(rng):
    model = randomised(rng, lstmx.Residual(lstmx.Sequential(norm(), lstmx.LSTM(3, 3))))
    folded = lstmx.fold_batch_norm(model)
    assert repr(folded) == "Residual(Sequential(LSTM(3, 3)))"
    x = rng.standard_normal((6, 4, 3)).astype(np.float32)
    agree("y", folded(x, lengths=LENGTHS)[0], model(x, lengths=LENGTHS)[0])


def test_float64(rng):
    layers = lstmx.Linear(3, 3, False, dtype="float64"), norm(dtype="float64"), norm(dtype="float64")
    model = randomised(rng, lstmx.Sequential(*layers, lstmx.GRU(3, 4, bias=False, dtype="float64")))
    folded = lstmx.fold_batch_norm(model)
    assert repr(folded) == "Sequential(Linear(3, 3, bias=False, dtype='float64'), GRU(3, 4, dtype='float64'))"
    x = rng.standard_normal((6, 4, 3))
    np.testing.assert_allclose(folded(x)[0], model(x)[0], rtol=1e-12, atol=1e-14)


def test_a_folded_model_goes_into_a_file(rng, tmp_path):
    layers = norm(), lstmx.LSTM(3, 4, bias=False)
    folded = lstmx.fold_batch_norm(randomised(rng, lstmx.Sequential(*layers)))
    lstmx.save(tmp_path / "model", folded)
    x = rng.standard_normal((6, 4, 3)).astype(np.float32)
    np.testing.assert_array_equal(lstmx.load(tmp_path / "model")(x)[0], folded(x)[0])


@pytest.mark.parametrize("layer", [lstmx.LSTM(3, 4), lstmx.BatchNorm(3)])
def test_a_layer_alone_is_copied(layer):
    folded = lstmx.fold_batch_norm(layer)
    assert folded is not layer
    assert repr(folded) == repr(layer)
    np.testing.assert_array_equal(folded.arena.params, layer.arena.params)


def test_refuses():
    with pytest.raises(TypeError, match="model: expected an lstmx layer, got str"):
        lstmx.fold_batch_norm("model")
    with pytest.raises(TypeError, match="lengths: expected True or False, got None"):
        lstmx.fold_batch_norm(lstmx.BatchNorm(3), lengths=None)
