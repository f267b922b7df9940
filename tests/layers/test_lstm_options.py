"""What the LSTM layer offers beyond PyTorch's: widths by layer, sums of directions, connections, initial
states learnt, weights dropped. Against the reference with all gradients; streams, checkpoints; refusals.
"""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest

import lstmx
from lstmx import reference
from lstmx.layers import from_config
from tests.layers.agree import agree
from tests.layers.test_lengths_and_resets import LENGTHS, RESETS, padding_of, spans_for
from tests.layers.test_lstm import normal
from tests.reference.test_stack_options import flat, unflat

LEARNT = {"learn_initial_state": True}
SUM = {"bidirectional": True, "merge": "sum"}
OPTIONS = [
    {"hidden_size": [5, 3, 4]},
    {"hidden_size": [5, 3], "bidirectional": True, "batch_first": True, "bias": False},
    {"hidden_size": 5, **SUM},
    {"hidden_size": [5, 3], **SUM, "batch_first": True},
    {"hidden_size": 5, "num_layers": 3, "connection": "residual"},
    {"hidden_size": [5, 3, 3], "connection": "residual", "batch_first": True},
    {"hidden_size": 5, "num_layers": 2, **SUM, "connection": "residual"},
    {"hidden_size": 5, "num_layers": 3, "connection": "highway", "batch_first": True},
    {"hidden_size": [5, 3], "bidirectional": True, "connection": "highway"},
    {"hidden_size": [4, 3, 3], **SUM, "connection": "highway", **LEARNT, "batch_first": True},
    {"hidden_size": 5, **LEARNT},
    {"hidden_size": 5, **LEARNT, "batch_first": True, "checkpoint_steps": 2},
    {"hidden_size": [5, 3], **LEARNT, "bidirectional": True},
]
SPANS = [{}, {"lengths": LENGTHS}, {"resets": RESETS}, {"lengths": LENGTHS, "resets": RESETS}]
FORWARD_ONLY = [options for options in OPTIONS if not options.get("bidirectional")]


def make(rng, options, inputs=3):
    """A layer whose parameters, gates and initial states included, are of the size that matters."""
    lstm = lstmx.LSTM(inputs, **options, rng=rng)
    with lstm.editing() as params:
        for view in params.values():
            view[...] = rng.standard_normal(view.shape) * 0.7
    return lstm


def inputs_for(rng, lstm, steps=6, batch=4):
    """x, state, dy, dstate; the state's structure is what the layer returns."""
    shape = (batch, steps) if lstm.batch_first else (steps, batch)
    x, dy = normal(rng, *shape, lstm.input_size), normal(rng, *shape, lstm.output_size)
    final = lstm(x)[1]
    state, dstate = (unflat([normal(rng, *a.shape) for a in flat(final)], final) for _ in range(2))
    return x, state, dy, dstate


def by_name(y, final, dx, d_initial, grads):
    got = {"y": y, "dx": dx}
    got |= {f"final {n}": a for n, a in enumerate(flat(final))}
    got |= {f"d_initial {n}": a for n, a in enumerate(flat(d_initial))}
    return got | {name: gradient.copy() for name, gradient in grads.items()}


def train(lstm, x, state, dy, dstate, **spans):
    """Outputs and all gradients by name."""
    lstm.zero_grad()
    y, final, backward = lstm.forward(x, state, **spans)
    return by_name(y, final, *backward(dy, dstate), lstm.grads)


def expected(lstm, x, state, dy, dstate, params=None, **spans):
    names = ("num_layers", "batch_first", "bidirectional", "merge", "connection")
    options = {name: getattr(lstm, name) for name in names}
    y, final, backward = reference.lstm(x, params or lstm.params, state, **options, **spans)
    return by_name(y, final, *backward(dy, dstate))


def assert_same(got, want):
    assert got.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


class TestAgainstTheReference:
    @pytest.mark.parametrize("spans", SPANS, ids="+".join)
    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    @pytest.mark.parametrize("with_states", [False, True])
    def test_outputs_and_all_gradients(self, rng, options, spans, with_states):
        lstm = make(rng, options)
        x, state, dy, dstate = inputs_for(rng, lstm)
        state = state if with_states else None
        spans = spans_for(lstm, spans)
        got, want = (f(lstm, x, state, dy, dstate, **spans) for f in (train, expected))
        assert got.keys() == want.keys()
        for name, value in want.items():
            agree(name, got[name], value)
        y, final = lstm(x, state, **spans)
        np.testing.assert_array_equal(y, got["y"])
        for n, value in enumerate(flat(final)):
            np.testing.assert_array_equal(value, got[f"final {n}"])

    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    @pytest.mark.parametrize("given", [(True, False, False), (False, True, False), (False, False, True)])
    def test_each_output_gradient_may_be_none(self, rng, options, given):
        lstm = make(rng, options)
        x, _, dy, (dh, dc) = inputs_for(rng, lstm)
        dy, dh, dc = (a if wanted else None for a, wanted in zip((dy, dh, dc), given, strict=True))
        got, want = (f(lstm, x, None, dy, (dh, dc)) for f in (train, expected))
        for name, value in want.items():
            agree(name, got[name], value)

    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    def test_what_is_not_needed_changes_no_gradient_of_parameters(self, rng, options):
        lstm = make(rng, options)
        x, _, dy, dstate = inputs_for(rng, lstm)
        want = train(lstm, x, None, dy, dstate)
        lstm.zero_grad()
        got = lstm.forward(x)[2](dy, dstate, need_dx=False, need_dstate=False)
        assert got == (None, None)
        for name, gradient in lstm.grads.items():
            np.testing.assert_array_equal(gradient, want[name], err_msg=name)


class TestShapes:
    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    @pytest.mark.parametrize(("steps", "batch"), [(6, 0), (0, 4)])
    def test_nothing_to_do(self, rng, options, steps, batch):
        lstm = make(rng, options)
        x, state, dy, dstate = inputs_for(rng, lstm, steps, batch)
        for given in (state, None):
            got, want = (f(lstm, x, given, dy, dstate) for f in (train, expected))
            for name, value in want.items():
                agree(name, got[name], value)

    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    def test_an_unbatched_sequence_is_a_batch_of_one(self, rng, options):
        lstm = make(rng, options)
        batched = inputs_for(rng, lstm, batch=1)
        axis = 0 if lstm.batch_first else 1
        x, dy = (a.squeeze(axis) for a in (batched[0], batched[2]))
        state, dstate = (unflat([a.squeeze(1) for a in flat(s)], s) for s in (batched[1], batched[3]))
        for given in ((state, batched[1]), (None, None)):
            want = train(lstm, batched[0], given[1], *batched[2:])
            got = train(lstm, x, given[0], dy, dstate)
            assert_same(got, {name: a.reshape(got[name].shape) for name, a in want.items()})

    def test_equal_widths_are_one_width(self):
        lstm = lstmx.LSTM(3, (5, 5), rng=0)
        assert repr(lstm) == "LSTM(3, 5, num_layers=2)"
        assert lstm.config() == lstmx.LSTM(3, 5, 2).config()
        np.testing.assert_array_equal(lstm.arena.params, lstmx.LSTM(3, 5, 2, rng=0).arena.params)
        assert lstmx.LSTM(3, np.array([4, 5])).config() == lstmx.LSTM(3, [4, 5], 2).config()

    def test_states_where_widths_differ(self):
        lstm = lstmx.LSTM(3, [5, 4], bidirectional=True)
        y, (h_n, c_n) = lstm(np.zeros((6, 2, 3), np.float32))
        assert y.shape == (6, 2, 8)
        assert [a.shape for a in (*h_n, *c_n)] == [(2, 2, 5), (2, 2, 4)] * 2
        assert all(type(half) is tuple for half in (h_n, c_n))
        lists = [list(map(np.ndarray.tolist, half)) for half in (h_n, c_n)]
        y_lists, _ = lstm(np.zeros((6, 2, 3)), lists)
        np.testing.assert_array_equal(y_lists, lstm(np.zeros((6, 2, 3)), (h_n, c_n))[0])


class TestMeaning:
    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    def test_padding_is_never_read_and_is_zero(self, rng, options):
        lstm = make(rng, options)
        x, _, dy, dstate = inputs_for(rng, lstm)
        clean = train(lstm, x, None, dy, dstate, lengths=LENGTHS)
        for array in (x, dy):
            view, padded = padding_of(lstm, array)
            view[padded] = np.nan
        before = dy.copy()
        got = train(lstm, x, None, dy, dstate, lengths=LENGTHS)
        assert_same(got, clean)
        np.testing.assert_array_equal(dy, before)
        for name in ("y", "dx"):
            view, padded = padding_of(lstm, got[name])
            assert not view[padded].any(), name

    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    def test_a_row_is_the_row_alone(self, rng, options):
        lstm = make(rng, options)
        x, _, _, _ = inputs_for(rng, lstm)
        y, _ = lstm(x, lengths=LENGTHS)
        x, y = (a.swapaxes(0, 1) if lstm.batch_first else a for a in (x, y))
        for b, n in enumerate(LENGTHS):
            np.testing.assert_array_equal(y[:n, b], lstm(x[:n, b])[0])

    def test_threads_change_nothing(self, rng):
        lstm = make(rng, {"hidden_size": [40, 30], **SUM, "connection": "highway", **LEARNT})
        given = inputs_for(rng, lstm, 20, 9)
        threads = lstmx.get_num_threads()
        try:
            lstmx.set_num_threads(1)
            want = train(lstm, given[0], None, *given[2:], lengths=[20, 3, 0, 20, 7, 1, 9, 20, 2])
            lstmx.set_num_threads(3)
            got = train(lstm, given[0], None, *given[2:], lengths=[20, 3, 0, 20, 7, 1, 9, 20, 2])
        finally:
            lstmx.set_num_threads(threads)
        assert_same(got, want)

    def test_dropout_is_on_what_the_next_layer_reads(self, rng):
        """Its connection included: layers apart, with the same masks, give the same."""
        lstm = make(rng, {"hidden_size": 5, "num_layers": 2, "connection": "residual", "dropout": 0.5})
        x = normal(rng, 6, 4, 3)
        drops = copy.deepcopy(lstm.rngs()[0])
        y, _, backward = lstm.forward(x)
        dx, _ = backward(np.ones_like(y))
        apart = [lstmx.LSTM(width, 5) for width in (3, 5)]
        for k, layer in enumerate(apart):
            layer.load_state_dict({n: lstm.params[n.replace("_l0", f"_l{k}")] for n in layer.params})
        between, _, first = apart[0].forward(x)
        dropped, _, mask = lstmx.Dropout(0.5, rng=drops).forward(between)
        above, _, second = apart[1].forward(dropped)
        np.testing.assert_array_equal(y, above + dropped)
        d_dropped = second(np.ones_like(y))[0] + 1
        np.testing.assert_array_equal(dx, first(mask(d_dropped)[0])[0])

    def test_highways_carry_at_first(self):
        lstm = lstmx.LSTM(3, 5, 2, connection="highway", rng=0)
        assert (lstm.params["bias_gate_l1"] == -2).all()
        assert lstm.params["weight_gate_l1"].any()
        assert abs(lstm.params["weight_gate_l1"]).max() <= 5**-0.5
        with warnings.catch_warnings():  # a gate that is wholly shut: no overflow is reported
            warnings.simplefilter("error")
            with lstm.editing() as params:
                params["bias_gate_l1"][...] = -1e4
            x = np.random.default_rng(0).standard_normal((4, 2, 3)).astype(np.float32)
            first = from_config(lstmx.LSTM(3, 5).config())
            first.load_state_dict({name: lstm.params[name] for name in first.params})
            np.testing.assert_array_equal(lstm(x)[0], first(x)[0])


class TestLearntStates:
    def test_start_at_zero(self, rng):
        lstm, plain = lstmx.LSTM(3, 5, **LEARNT, rng=0), lstmx.LSTM(3, 5, rng=0)
        x = normal(rng, 6, 4, 3)
        np.testing.assert_array_equal(lstm(x)[0], plain(x)[0])
        entries = {entry.name: entry.is_bias for entry in lstm.arena.entries}
        assert entries["h_0_l0"]  # weight decay leaves them alone
        assert entries["c_0_l0"]

    @pytest.mark.parametrize("options", [o for o in OPTIONS if o.get("learn_initial_state")], ids=str)
    def test_begin_every_row_that_has_no_state(self, rng, options):
        lstm = make(rng, options)
        x, state, dy, dstate = inputs_for(rng, lstm)
        begun = unflat([a.copy() for a in flat(state)], state)
        lstm._set_rows(begun, ...)
        got, want = train(lstm, x, None, dy, dstate), train(lstm, x, begun, dy, dstate)
        initial = [name for name in lstm.params if name.startswith(("h_0", "c_0"))]
        for name in initial:
            assert not want.pop(name).any()  # a state that is given is nobody's parameter
            assert got.pop(name).any()
        assert_same(got, want)

    def test_a_reset_discards_them_and_rows_without_steps_hand_them_through(self, rng):
        lstm = make(rng, {"hidden_size": 5, **LEARNT})
        x, _, dy, (dh, dc) = inputs_for(rng, lstm)
        resets = np.zeros((6, 4), bool)
        resets[0] = True
        got = train(lstm, x, None, dy, (dh, dc), resets=resets)
        assert not got["h_0_l0"].any()
        np.testing.assert_array_equal(got["y"], lstm(x, (0 * dh, 0 * dc))[0])
        _, (h_n, _), backward = lstm.forward(x, lengths=[0, 0, 0, 0])
        lstm.zero_grad()
        backward(None, (dh, dc))
        np.testing.assert_array_equal(h_n[0], np.tile(lstm.params["h_0_l0"], (4, 1)))
        np.testing.assert_allclose(lstm.grads["c_0_l0"], dc[0].sum(axis=0), rtol=1e-5)

    def test_a_backward_belongs_to_the_state_of_its_forward(self, rng):
        lstm = make(rng, {"hidden_size": 5, **LEARNT})
        x, _, dy, dstate = inputs_for(rng, lstm)
        want = train(lstm, x, None, dy, dstate)
        lstm.zero_grad()
        _, _, backward = lstm.forward(x)
        with lstm.editing() as params:
            params["h_0_l0"] = np.zeros(5)
        backward(dy, dstate)
        for name, gradient in lstm.grads.items():
            np.testing.assert_array_equal(gradient, want[name], err_msg=name)


class TestStreams:
    @pytest.mark.parametrize("options", FORWARD_ONLY, ids=str)
    def test_steps_and_chunks_are_the_whole_sequence(self, rng, options, target):
        lstm = make(rng, options | {"batch_first": False})
        x = normal(rng, 7, 4, 3)
        y, final = lstm(x)
        stream = lstm.stream(4)
        got = [stream.step(x[0])[None], stream.run(x[1:4]), *(stream.step(x[t])[None] for t in (4, 5, 6))]
        np.testing.assert_array_equal(np.concatenate(got), y)
        for a, b in zip(flat(stream.state), flat(final), strict=True):
            np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize(
        "wrap", [lambda m: m, lstmx.Sequential, lstmx.Residual], ids=["alone", "in", "res"]
    )
    @pytest.mark.parametrize("options", [{"hidden_size": 3}, {"hidden_size": [5, 3]}], ids=str)
    def test_rows_begin_anew_where_sequences_begin(self, rng, wrap, options):
        model = wrap(make(rng, options | LEARNT))
        x, more = normal(rng, 5, 4, 3), normal(rng, 3, 4, 3)
        for rows in ([1, 3], np.array([False, True, False, True])):
            stream = model.stream(4)
            stream.run(x)
            stream.reset(rows)
            got, went_on, anew = stream.run(more), model(more, model(x)[1])[0], model(more)[0]
            for b in range(4):
                np.testing.assert_array_equal(got[:, b], (anew if b in (1, 3) else went_on)[:, b])
        stream.reset()
        np.testing.assert_array_equal(stream.run(x), model(x)[0])

    def test_states_of_layers_are_saved_and_restored(self, rng):
        lstm = make(rng, {"hidden_size": [5, 3]})
        x = normal(rng, 7, 4, 3)
        stream = lstm.stream(4)
        stream.run(x[:3])
        saved, fork = stream.state, stream.fork()
        stream.run(x)
        stream.state = saved
        np.testing.assert_array_equal(stream.run(x[3:]), lstm(x)[0][3:])
        np.testing.assert_array_equal(fork.run(x[3:]), lstm(x)[0][3:])


def dropped_params(lstm, rng, p):
    """The parameters with masks drawn as the layer draws them, and the masks."""
    masks = {}
    for name, value in lstm.params.items():
        if name.startswith("weight_hh"):
            masks[name] = np.where(rng.random(value.shape, np.float32) >= np.float32(p), 1 / (1 - p), 0)
    return {n: v * masks.get(n, 1) for n, v in lstm.params.items()}, masks


class TestWeightDropout:
    @pytest.mark.parametrize(
        "options",
        [
            {"hidden_size": 5},
            {"hidden_size": 5, "checkpoint_steps": 2},
            {"hidden_size": [5, 3], **SUM, "connection": "highway", **LEARNT},
        ],
        ids=str,
    )
    def test_one_mask_a_call_and_its_gradient(self, rng, options):
        lstm = make(rng, options | {"weight_dropout": 0.4})
        x, _, dy, dstate = inputs_for(rng, lstm)
        for _ in range(2):
            params, masks = dropped_params(lstm, copy.deepcopy(lstm.rngs()[0]), 0.4)
            want = expected(lstm, x, None, dy, dstate, params, lengths=LENGTHS)
            got = train(lstm, x, None, dy, dstate, lengths=LENGTHS)
            for name, value in want.items():
                agree(name, got[name], value * masks.get(name, 1))
                if name in masks:
                    assert not got[name][masks[name] == 0].any()

    def test_inference_has_the_weights_as_they_are(self, rng):
        """Between training calls, too: what is packed for one is not taken for the other."""
        lstm = make(rng, {"hidden_size": 5, "weight_dropout": 0.5})
        plain = lstmx.LSTM(3, 5)
        plain.load_state_dict(lstm.state_dict())
        x = normal(rng, 6, 4, 3)
        want, seen = plain(x)[0], []
        for _ in range(3):
            np.testing.assert_array_equal(lstm(x)[0], want)
            np.testing.assert_array_equal(lstm(x, lengths=[6, 5, 6, 6])[0][:, 0], want[:, 0])
            seen.append(lstm.forward(x)[0])
        assert all(np.any(a != b) for a, b in ((seen[0], seen[1]), (seen[1], seen[2]), (seen[0], want)))

    def test_a_backward_belongs_to_the_mask_of_its_forward(self, rng):
        lstm = make(rng, {"hidden_size": 5, "weight_dropout": 0.5})
        x, state, dy, dstate = inputs_for(rng, lstm)
        want = train(copy.deepcopy(lstm), x, state, dy, dstate)
        y, final, backward = lstm.forward(x, state)
        lstm.forward(x, state)
        lstm(x)
        assert_same(by_name(y, final, *backward(dy, dstate), lstm.grads), want)

    def test_all_or_nothing(self, rng):
        lstm = make(rng, {"hidden_size": 5, "weight_dropout": 1.0})
        x, _, dy, dstate = inputs_for(rng, lstm)
        zeros = dict(lstm.params) | {"weight_hh_l0": np.zeros((20, 5))}
        got, want = train(lstm, x, None, dy, dstate), expected(lstm, x, None, dy, dstate, zeros)
        agree("y", got["y"], want["y"])
        assert not got["weight_hh_l0"].any()
        assert lstmx.LSTM(3, 5, weight_dropout=0.0).rngs() == []

    def test_a_resumed_training_is_the_one_that_was_not_interrupted(self, rng, tmp_path):
        x, y = normal(rng, 64, 3), normal(rng, 64, 1)
        options = {"connection": "highway", "dropout": 0.3, "weight_dropout": 0.3, "batch_first": True}

        def trainer():
            lstm = lstmx.LSTM(3, [5, 4], **options, **LEARNT, rng=0)
            model = lstmx.Sequential(lstm, lstmx.Linear(4, 1, rng=0))
            return lstmx.Trainer(model, loss=lstmx.losses.MSE(), optimizer=lstmx.optim.Adam(lr=0.01))

        def data():
            return lstmx.data.Stream(x, y, steps=4, batch_size=2)  # carries the states of both layers

        whole, first, second = trainer(), trainer(), trainer()
        whole.fit(data(), epochs=4)
        first.fit(data(), epochs=2)
        first.save_checkpoint(tmp_path / "state")
        second.load_checkpoint(tmp_path / "state").fit(data(), epochs=4)
        np.testing.assert_array_equal(second.model.arena.params, whole.model.arena.params)
        assert second.model.params["0.h_0_l1"].any()
        assert dict(second.history) == dict(whole.history)


@pytest.mark.parametrize("options", [*OPTIONS, {"hidden_size": 5, "weight_dropout": 0.5}], ids=str)
def test_a_model_file_holds_it_all(rng, tmp_path, options):
    lstm = make(rng, options)
    lstmx.save(tmp_path / "model", lstm)
    loaded = lstmx.load(tmp_path / "model")
    assert repr(loaded) == repr(lstm)
    x = normal(rng, 6, 4, 3)
    np.testing.assert_array_equal(loaded(x)[0], lstm(x)[0])


REFUSED = [
    ({"hidden_size": []}, ValueError, "hidden_size: expected at least one width, got none"),
    ({"hidden_size": [4, 0]}, ValueError, r"hidden_size\[1\]: expected at least 1, got 0"),
    ({"hidden_size": [4, 2.0]}, TypeError, r"hidden_size\[1\]: expected an integer, got 2.0"),
    ({"hidden_size": "45"}, TypeError, "hidden_size: expected an integer, got '45'"),
    (
        {"hidden_size": [4, 5], "num_layers": 3},
        ValueError,
        "num_layers: expected 2, one for each hidden_size, got 3",
    ),
    ({"merge": "mean"}, ValueError, "merge: expected one of 'concat', 'sum', got 'mean'"),
    ({"merge": "sum"}, ValueError, "merge: expected 'concat' with bidirectional=False, got 'sum'"),
    ({"connection": "dense"}, ValueError, "connection: expected one of 'residual', 'highway', got 'dense'"),
    ({"connection": True}, TypeError, "connection: expected one of"),
    ({"connection": "residual"}, ValueError, "connection: expected None with num_layers=1, got 'residual'"),
    ({"learn_initial_state": 1}, TypeError, "learn_initial_state: expected True or False, got 1"),
    ({"weight_dropout": 1.5}, ValueError, "weight_dropout: expected at most 1.0, got 1.5"),
]


@pytest.mark.parametrize(("options", "error", "match"), REFUSED, ids=[r[2] for r in REFUSED])
def test_refused_arguments(options, error, match):
    with pytest.raises(error, match=match):
        lstmx.LSTM(3, **({"hidden_size": 5} | options))
    with pytest.raises(ValueError, match=match):
        from_config({"type": "LSTM", "input_size": 3, "hidden_size": 5} | options)


def zeros(*shape):
    return np.zeros(shape, np.float32)


REFUSED_STATES = [
    (
        (zeros(2, 4, 5), zeros(2, 4, 5)),
        TypeError,
        r"state\[0\] \(h_0\): expected 2 arrays, one a layer, got nda",
    ),
    (((zeros(1, 4, 5),), ()), ValueError, r"state\[0\] \(h_0\): expected 2 arrays, one a layer, got 1 items"),
    (
        ((zeros(1, 4, 5), zeros(1, 4, 3)), (zeros(1, 4, 5), zeros(1, 4, 5))),
        ValueError,
        r"state\[1\]\[1\] \(c_0\): expected shape \(1, 4, 3\), got \(1, 4, 5\)",
    ),
    (((zeros(1, 4, 5), None), None), TypeError, r"state\[0\]\[1\] \(h_0\): expected"),
]


@pytest.mark.parametrize(("state", "error", "match"), REFUSED_STATES, ids=[r[2] for r in REFUSED_STATES])
def test_refused_states_of_layers(state, error, match):
    lstm = lstmx.LSTM(3, [5, 3])
    x = zeros(6, 4, 3)
    for call in (lstm, lstm.forward):
        with pytest.raises(error, match=match):
            call(x, state)
    _, _, backward = lstm.forward(x)
    with pytest.raises(error, match=r"^dstate\["):
        backward(zeros(6, 4, 3), state)
    assert not lstm.arena.grads.any()
