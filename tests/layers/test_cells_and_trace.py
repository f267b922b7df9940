"""c and the gates of every step, on request: against the reference with the gradients into c, in all layouts;
inference and training; what is not asked for is not made; refusals.
"""

from __future__ import annotations

import numpy as np
import pytest

import lstmx
from lstmx import reference
from tests.layers.agree import agree
from tests.layers.test_lengths_and_resets import LENGTHS, RESETS, padding_of, spans_for
from tests.layers.test_lstm import normal
from tests.layers.test_lstm_options import LEARNT, OPTIONS, SPANS, SUM, by_name, inputs_for, make

LAYERS = [{"hidden_size": 5}, {"hidden_size": 5, "batch_first": True, "bias": False}, *OPTIONS]
BOTH = {"return_cells": True, "trace": True}
GATES = ("i", "f", "g", "o")


def gradients_for(rng, lstm, x):
    return [normal(rng, *c.shape) for c in lstm(x, return_cells=True)[2]]


def listed(cells, trace=None):
    """The arrays of both by name."""
    got = {f"cells {k}": array for k, array in enumerate(cells)}
    for name, arrays in (trace or {}).items():
        got |= {f"{name} {k}": array for k, array in enumerate(arrays)}
    return got


def train(lstm, x, state, dy, dstate, dcells, **spans):
    """Outputs, cells and all gradients by name."""
    lstm.zero_grad()
    y, final, backward, cells = lstm.forward(x, state, return_cells=True, **spans)
    return by_name(y, final, *backward(dy, dstate, dcells), lstm.grads) | listed(cells)


def expected(lstm, x, state, dy, dstate, dcells, **spans):
    """The same by the reference, and the gates."""
    names = ("num_layers", "batch_first", "bidirectional", "merge", "connection")
    options = {name: getattr(lstm, name) for name in names}
    y, final, backward = reference.lstm(x, lstm.params, state, **options, **spans)

    def turned(array):
        return None if array is None else array.swapaxes(0, 1) if lstm.batch_first else array

    want = listed([turned(c) for c in backward.cells])
    for name, arrays in gates_of(backward, spans.get("lengths"), lstm).items():
        want |= {f"{name} {k}": turned(array) for k, array in enumerate(arrays)}
    dcells = None if dcells is None else [turned(d) for d in dcells]
    return want | by_name(y, final, *backward(dy, dstate, dcells))


def gates_of(backward, lengths, lstm):
    """The gates of the reference's tapes as cells are, time first: a reverse tape is in its own time."""
    suffixes = ("", "_reverse") if lstm.bidirectional else ("",)
    gates = {name: [] for name in GATES}
    for k in range(lstm.num_layers):
        traces = [reference.trace(backward.tapes[f"_l{k}{suffix}"]) for suffix in suffixes]
        for name in GATES:
            parts = [t[name] for t in traces]
            steps, batch = parts[0].shape[:2]
            ends = np.full(batch, steps) if lengths is None else lengths
            parts[1:] = [reference.stack.turned(part, ends) for part in parts[1:]]
            gates[name].append(np.concatenate(parts, axis=2))
    return gates


def assert_agree(got, want):
    for name, value in got.items():
        agree(name, value, want[name])


class TestAgainstTheReference:
    @pytest.mark.parametrize("spans", SPANS, ids="+".join)
    @pytest.mark.parametrize("options", LAYERS, ids=str)
    def test_cells_and_all_gradients(self, rng, options, spans):
        lstm = make(rng, options)
        x, state, dy, dstate = inputs_for(rng, lstm)
        dcells = gradients_for(rng, lstm, x)
        spans = spans_for(lstm, spans)
        for given in ((state, dy, dstate), (None, dy, dstate), (None, None, None)):
            got, want = (f(lstm, x, *given, dcells, **spans) for f in (train, expected))
            assert_agree(got, want)
            inferred = lstm(x, given[0], return_cells=True, **spans)
            np.testing.assert_array_equal(inferred[0], got["y"])
            for name, value in listed(inferred[2]).items():
                np.testing.assert_array_equal(value, got[name])

    @pytest.mark.parametrize("spans", SPANS, ids="+".join)
    @pytest.mark.parametrize("options", LAYERS, ids=str)
    def test_the_trace(self, rng, options, spans):
        lstm = make(rng, options)
        x, state, *_ = inputs_for(rng, lstm)
        spans = spans_for(lstm, spans)
        want = expected(lstm, x, state, None, None, None, **spans)
        y, _, cells, trace = lstm(x, state, **BOTH, **spans)
        assert tuple(trace) == GATES
        got = listed(cells, trace)
        assert len(got) == 5 * lstm.num_layers
        assert_agree(got, want)
        np.testing.assert_array_equal(y, lstm(x, state, **spans)[0])
        alone = lstm(x, state, trace=True, **spans)
        assert len(alone) == 3
        for name, value in listed([], alone[2]).items():
            np.testing.assert_array_equal(value, got[name])
        if lstm.checkpoint_steps is None:
            *_, backward, cells, trace = lstm.forward(x, state, **BOTH, **spans)
            for name, value in listed(cells, trace).items():
                np.testing.assert_array_equal(value, got[name])
            backward(None, None, cells)  # not disturbed by the trace's arrays: they are the caller's

    @pytest.mark.parametrize("options", LAYERS, ids=str)
    def test_gradients_may_be_none(self, rng, options):
        lstm = make(rng, options)
        x, state, dy, dstate = inputs_for(rng, lstm)
        dcells = gradients_for(rng, lstm, x)
        for kept in range(lstm.num_layers):
            some = [d if k == kept else None for k, d in enumerate(dcells)]
            zeros = [d if k == kept else 0 * d for k, d in enumerate(dcells)]
            got = train(lstm, x, state, dy, dstate, some)
            assert_agree(got, expected(lstm, x, state, dy, dstate, zeros))
        none = train(lstm, x, state, dy, dstate, None)
        lstm.zero_grad()
        y, final, backward = lstm.forward(x, state)
        for name, value in by_name(y, final, *backward(dy, dstate), lstm.grads).items():
            np.testing.assert_array_equal(none[name], value, err_msg=name)

    def test_on_every_target(self, rng, target):
        lstm = make(rng, {"hidden_size": [19, 7], "bidirectional": True})
        x, state, dy, dstate = inputs_for(rng, lstm)
        dcells = gradients_for(rng, lstm, x)
        want = expected(lstm, x, state, dy, dstate, dcells, lengths=LENGTHS)
        assert_agree(train(lstm, x, state, dy, dstate, dcells, lengths=LENGTHS), want)
        assert_agree(listed(*lstm(x, state, lengths=LENGTHS, **BOTH)[2:]), want)


class TestShapes:
    @pytest.mark.parametrize("options", LAYERS, ids=str)
    def test_an_unbatched_sequence_is_a_batch_of_one(self, rng, options):
        lstm = make(rng, options)
        x = inputs_for(rng, lstm, batch=1)[0]
        dcells = gradients_for(rng, lstm, x)
        axis = 0 if lstm.batch_first else 1
        got = train(lstm, x.squeeze(axis), None, None, None, [d.squeeze(axis) for d in dcells])
        for name, value in train(lstm, x, None, None, None, dcells).items():
            np.testing.assert_array_equal(got[name], value.reshape(got[name].shape), err_msg=name)
        *_, cells, trace = lstm(x.squeeze(axis), **BOTH)
        for name, value in listed(*lstm(x, **BOTH)[2:]).items():
            np.testing.assert_array_equal(listed(cells, trace)[name], value.squeeze(axis))

    @pytest.mark.parametrize(("steps", "batch"), [(6, 0), (0, 4)])
    def test_nothing_to_do(self, rng, steps, batch):
        lstm = make(rng, {"hidden_size": [5, 3], **SUM})
        x = normal(rng, steps, batch, 3)
        y, _, backward, cells, trace = lstm.forward(x, **BOTH)
        assert [c.shape for c in (*cells, *trace["o"])] == [(steps, batch, 10), (steps, batch, 6)] * 2
        assert backward(y, None, cells)[0].shape == x.shape


class TestMeaning:
    @pytest.mark.parametrize("options", LAYERS, ids=str)
    def test_padding_is_zero_and_is_never_read(self, rng, options):
        lstm = make(rng, options)
        x, state, dy, dstate = inputs_for(rng, lstm)
        dcells = gradients_for(rng, lstm, x)
        clean = train(lstm, x, state, dy, dstate, dcells, lengths=LENGTHS)
        for array in (x, dy, *dcells):
            view, padded = padding_of(lstm, array)
            view[padded] = np.nan
        got = train(lstm, x, state, dy, dstate, dcells, lengths=LENGTHS)
        for name, value in clean.items():
            np.testing.assert_array_equal(got[name], value, err_msg=name)
        for name, array in listed(*lstm(x, state, lengths=LENGTHS, **BOTH)[2:]).items():
            view, padded = padding_of(lstm, array)
            assert not view[padded].any(), name
            assert view[~padded].all(), name

    def test_the_last_cell_is_the_final_state(self, rng):
        lstm = make(rng, {"hidden_size": 5, "num_layers": 2})
        x = normal(rng, 6, 4, 3)
        _, (_, c_n), cells = lstm(x, return_cells=True)
        np.testing.assert_array_equal([c[-1] for c in cells], c_n)

    def test_y_is_of_the_gates_and_the_cells(self, rng):
        lstm = make(rng, {"hidden_size": 5})
        y, _, cells, trace = lstm(normal(rng, 6, 4, 3), **BOTH)
        np.testing.assert_allclose(trace["o"][0] * np.tanh(cells[0]), y, rtol=1e-5)
        before = np.concatenate([np.zeros((1, 4, 5)), cells[0][:-1]])
        c = trace["f"][0] * before + trace["i"][0] * trace["g"][0]
        np.testing.assert_allclose(c, cells[0], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("drop", [{"dropout": 0.5}, {"weight_dropout": 0.5}, LEARNT], ids=str)
    def test_inference_drops_nothing_and_draws_nothing(self, rng, drop):
        options = {"hidden_size": 5, "num_layers": 2}
        lstm, plain = make(rng, options | drop), lstmx.LSTM(3, 5, 2)
        plain.load_state_dict(lstm.params, strict=False)
        x, state, *_ = inputs_for(rng, plain)
        before = [g.bit_generator.state for g in lstm.rngs()]
        got, want = (listed(*m(x, state, **BOTH)[2:]) for m in (lstm, plain))
        for name, value in want.items():
            np.testing.assert_array_equal(got[name], value)
        assert [g.bit_generator.state for g in lstm.rngs()] == before

    @pytest.mark.parametrize("drop", [{"dropout": 0.5}, {"weight_dropout": 0.5}], ids=str)
    def test_training_is_traced_with_what_it_drops(self, rng, drop):
        lstm = make(rng, {"hidden_size": 5, "num_layers": 2, **drop})
        y, _, _, cells, trace = lstm.forward(normal(rng, 6, 4, 3), **BOTH)
        np.testing.assert_allclose(trace["o"][1] * np.tanh(cells[1]), y, rtol=1e-5)
        assert np.abs(y - lstm(normal(rng, 6, 4, 3))[0]).max() > 0.01

    def test_arrays_are_the_callers(self, rng):
        lstm = make(rng, {"hidden_size": 5})
        x, state, dy, dstate = inputs_for(rng, lstm)
        dcells = gradients_for(rng, lstm, x)
        want = train(lstm, x, state, dy, dstate, dcells)
        lstm.zero_grad()
        _, _, backward, cells, trace = lstm.forward(x, state, **BOTH)
        for array in (cells[0], *(trace[name][0] for name in GATES)):
            array.fill(np.nan)
        np.testing.assert_array_equal(backward(dy, dstate, dcells)[0], want["dx"])

    @pytest.mark.parametrize("steps", [1, 4])
    def test_checkpoints_change_no_cell(self, rng, steps):
        lstm, saving = (make(np.random.default_rng(3), {"hidden_size": 5, "checkpoint_steps": n})
                        for n in (None, steps))  # fmt: skip
        given = inputs_for(rng, lstm)
        dcells = gradients_for(rng, lstm, given[0])
        got, want = (train(m, *given, dcells, resets=RESETS) for m in (saving, lstm))
        for name, value in want.items():
            agree(name, got[name], value)
        np.testing.assert_array_equal(got["cells 0"], want["cells 0"])


class TestCost:
    def test_the_plain_call_makes_neither(self, rng, monkeypatch):
        """A call that asks for nothing is one crossing of the border, as if there were nothing to ask for."""
        lstm, deep = make(rng, {"hidden_size": 5}), make(rng, {"hidden_size": [5, 3]})

        def refuse(*args):
            raise AssertionError("a record was made")

        monkeypatch.setattr("lstmx.layers.lstm.Record", refuse)
        x = normal(rng, 6, 4, 3)
        for model in (lstm, deep):
            assert len(model(x)) == 2
            assert len(model(x, return_cells=False, trace=False)) == 2
            assert len(model.forward(x)) == 3
        with pytest.raises(AssertionError, match="a record was made"):
            lstm(x, return_cells=True)
        monkeypatch.setattr(lstmx.LSTM, "_infer", refuse)
        monkeypatch.setattr(lstmx.LSTM, "_train", refuse)
        lstm(x)
        lstm.forward(x)[2](x[:, :, :1].repeat(5, axis=2))

    def test_cells_alone_need_no_trace(self, rng):
        assert len(make(rng, {"hidden_size": 5})(normal(rng, 6, 4, 3), return_cells=True)) == 3


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"return_cells": "yes"}, TypeError, "return_cells: expected True or False, got 'yes'"),
        ({"trace": 1}, TypeError, "trace: expected True or False, got 1"),
    ],
)
def test_what_is_no_bool_is_refused(arguments, error, match):
    lstm = lstmx.LSTM(3, 5)
    for call in (lstm, lstm.forward):
        with pytest.raises(error, match=match):
            call(np.zeros((6, 4, 3), np.float32), **arguments)


def test_a_trace_of_a_training_pass_with_checkpoints_is_refused():
    lstm = lstmx.LSTM(3, 5, checkpoint_steps=2)
    x = np.zeros((6, 4, 3), np.float32)
    match = "trace: expected False with checkpoint_steps=2, got True"
    with pytest.raises(ValueError, match=match):
        lstm.forward(x, trace=True)
    assert lstm(x, trace=True)[2]["i"][0].shape == (6, 4, 5)


GOOD = np.zeros((6, 4, 5), np.float32)


@pytest.mark.parametrize(
    ("dcells", "error", "match"),
    [
        (GOOD, TypeError, "dcells: expected a list of 2, one a layer, got ndarray"),
        ([GOOD], ValueError, "dcells: expected a list of 2, one a layer, got 1 items"),
        ([GOOD, GOOD[:5]], ValueError, r"dcells\[1\]: expected shape \(6, 4, 5\), got \(5, 4, 5\)"),
        (["a", None], TypeError, r"dcells\[0\]: expected real numbers"),
    ],
)
def test_gradients_that_do_not_fit_are_refused_before_anything_is_written(dcells, error, match):
    lstm = lstmx.LSTM(3, 5, 2, rng=0)
    y, _, backward, cells = lstm.forward(np.ones((6, 4, 3), np.float32), return_cells=True)
    with pytest.raises(error, match=match):
        backward(y, None, dcells)
    assert not lstm.arena.grads.any()
    backward(y, None, cells)
    assert lstm.arena.grads.any()
    with pytest.raises(RuntimeError, match="already called"):
        backward(y, None, cells)


def test_cells_that_were_not_returned_have_no_gradients():
    _, _, backward = lstmx.LSTM(3, 5).forward(np.zeros((6, 4, 3), np.float32))
    with pytest.raises(TypeError, match="dcells"):
        backward(GOOD, None, dcells=[GOOD])
