"""The cells of the recurrent layers: the LSTM's options, GRU and RNN, in all that a layer does with a cell.

Against the reference and PyTorch with all gradients, masks included, which are drawn here as the layers draw
them; streams, copies of bits, what the masks are like; refusals.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest

import lstmx
from lstmx import reference
from lstmx.layers import from_config
from lstmx.reference.stack import last_steps, turned
from tests.layers.agree import agree
from tests.layers.test_lengths_and_resets import LENGTHS, RESETS, padding_of, spans_for
from tests.layers.test_lstm import normal
from tests.reference.test_stack_options import flat, unflat

MORE = {"num_layers": 2, "bidirectional": True}
MASKS = {"zoneout": (0.3, 0.2), "recurrent_dropout": 0.4}
ALL = {"proj_size": 2, "peephole": True, "coupled": True, "gate_clip": 0.9, "cell_clip": 0.6, **MASKS}
LEARNT = {"learn_initial_state": True}
CASES = [
    (lstmx.LSTM, {"proj_size": 2}),
    (lstmx.LSTM, {"proj_size": 2, **MORE, "batch_first": True, "bias": False}),
    (lstmx.LSTM, {"hidden_size": [5, 3], "proj_size": 2, **LEARNT, "connection": "residual"}),
    (lstmx.LSTM, {"peephole": True}),
    (lstmx.LSTM, {"peephole": True, **MORE, "merge": "sum"}),
    (lstmx.LSTM, {"coupled": True, "batch_first": True}),
    (lstmx.LSTM, {"gate_clip": 0.5}),
    (lstmx.LSTM, {"cell_clip": 0.4, "checkpoint_steps": 2}),
    (lstmx.LSTM, {"activations": ("hard_sigmoid", "relu", "softsign")}),
    (lstmx.LSTM, {"activations": [("hard_sigmoid", 1 / 6, 0.4), ["leaky_relu", 0.3], "tanh"], **MORE}),
    (lstmx.LSTM, {"zoneout": 0.3}),
    (lstmx.LSTM, {"zoneout": (0.0, 0.3), **MORE}),
    (lstmx.LSTM, {"recurrent_dropout": 0.4, "num_layers": 2}),
    (lstmx.LSTM, {"reverse": True}),
    (lstmx.LSTM, {"reverse": True, "hidden_size": [5, 3], "connection": "highway", "batch_first": True}),
    (lstmx.LSTM, {"reverse": True, **ALL, **LEARNT, "num_layers": 2}),
    (lstmx.LSTM, {**ALL, "checkpoint_steps": 2}),
    (lstmx.LSTM, {**ALL, **MORE, **LEARNT, "connection": "highway", "batch_first": True}),
    (lstmx.GRU, {}),
    (lstmx.GRU, {"batch_first": True, "bias": False, "checkpoint_steps": 2}),
    (lstmx.GRU, {**MORE, "num_layers": 3}),
    (lstmx.GRU, {"hidden_size": [5, 3], **LEARNT, "connection": "residual"}),
    (lstmx.GRU, {"zoneout": 0.3, "recurrent_dropout": 0.4, "checkpoint_steps": 2}),
    (lstmx.GRU, {"reverse": True, "zoneout": 0.3, **LEARNT}),
    (lstmx.GRU, {"hidden_size": [5, 3], "bidirectional": True, "merge": "sum", "connection": "highway",
                 "zoneout": 0.2, "recurrent_dropout": 0.3, **LEARNT, "batch_first": True}),
    (lstmx.RNN, {}),
    (lstmx.RNN, {"nonlinearity": "relu", "batch_first": True, "bias": False, "checkpoint_steps": 2}),
    (lstmx.RNN, {**MORE, "num_layers": 3, "nonlinearity": "relu"}),
    (lstmx.RNN, {"hidden_size": [5, 3], **LEARNT, "connection": "residual"}),
    (lstmx.RNN, {"zoneout": 0.3, "recurrent_dropout": 0.4, "checkpoint_steps": 2}),
    (lstmx.RNN, {"reverse": True, "zoneout": 0.3, **LEARNT}),
    (lstmx.RNN, {"hidden_size": [5, 3], "bidirectional": True, "merge": "sum", "connection": "highway",
                 "zoneout": 0.2, "recurrent_dropout": 0.3, **LEARNT, "batch_first": True}),
]  # fmt: skip
SPANS = [{}, {"lengths": LENGTHS}, {"resets": RESETS}, {"lengths": LENGTHS, "resets": RESETS}]
KINDS = [lstmx.LSTM, lstmx.GRU, lstmx.RNN]
STREAMS = [(kind, o) for kind, o in CASES if not o.get("bidirectional") and not o.get("reverse")]


def name_of(value):
    return value.__name__ if isinstance(value, type) else str(value)


def every(cases):
    return pytest.mark.parametrize(("kind", "options"), cases, ids=name_of)


def make(rng, kind, options, inputs=3):
    """A layer whose parameters are of the size that matters."""
    layer = kind(inputs, **({"hidden_size": 5} | options), rng=rng)
    with layer.editing() as params:
        for view in params.values():
            view[...] = rng.standard_normal(view.shape) * 0.7
    return layer


def parts_of(layer, state):
    """A state as the reference has it, a tuple of h and perhaps c."""
    return state if isinstance(layer, lstmx.LSTM) or state is None else (state,)


def state_of(layer, parts):
    return parts if isinstance(layer, lstmx.LSTM) else parts[0]


def inputs_for(rng, layer, steps=6, batch=4):
    """x, state, dy, dstate; the state's structure is what the layer returns."""
    shape = (batch, steps) if layer.batch_first else (steps, batch)
    x, dy = normal(rng, *shape, layer.input_size), normal(rng, *shape, layer.output_size)
    final = parts_of(layer, layer(x)[1])
    made = [unflat([normal(rng, *a.shape) for a in flat(final)], final) for _ in range(2)]
    state, dstate = (state_of(layer, parts) for parts in made)
    return x, state, dy, dstate


def by_name(layer, y, final, dx, d_initial, grads):
    got = {"y": y, "dx": dx}
    got |= {f"final {n}": a for n, a in enumerate(flat(parts_of(layer, final)))}
    got |= {f"d_initial {n}": a for n, a in enumerate(flat(parts_of(layer, d_initial)))}
    return got | {name: gradient.copy() for name, gradient in grads.items()}


def train(layer, x, state, dy, dstate, **spans):
    """Outputs and all gradients by name."""
    layer.zero_grad()
    y, final, backward = layer.forward(x, state, **spans)
    return by_name(layer, y, final, *backward(dy, dstate), layer.grads)


def cell_of(layer):
    if isinstance(layer, lstmx.GRU):
        return reference.GRU
    if isinstance(layer, lstmx.RNN):
        return reference.RnnCell(layer.nonlinearity)
    functions = tuple(a if isinstance(a, str) else reference.Activation(*a) for a in layer.activations)
    names = ("peephole", "coupled", "gate_clip", "cell_clip")
    options = {name: getattr(layer, name) for name in names}
    return reference.LstmCell(reference.CellOptions(**options, activations=functions))


def masks_of(layer, rng, steps, batch, lengths):
    """The masks by the reference's names, with the time of x: what `rng` draws, or None: of inference."""
    zoneout = np.broadcast_to(layer.zoneout, 2)
    if not isinstance(layer, lstmx.LSTM):
        zoneout = (layer.zoneout, 0)
    masks = {}
    for name, value in layer.params.items():
        if not name.startswith("weight_hh"):
            continue
        suffix = name.removeprefix("weight_hh")
        width, hidden = value.shape[1], len(value) // layer._GATES
        for part, p, units in zip("hc", zoneout, (width, hidden), strict=True):
            if p:
                shape = (steps, batch, units)
                mask = np.full(shape, p) if rng is None else rng.random(shape, np.float32) < np.float32(p)
                masks[f"zoneout_{part}{suffix}"] = turned(mask, lengths) if "reverse" in suffix else mask
        if layer.recurrent_dropout and rng is not None:
            p = layer.recurrent_dropout
            mask = np.where(rng.random((batch, width), np.float32) >= np.float32(p), 1 / (1 - p), 0)
            masks[f"recurrent_mask{suffix}"] = mask
    return masks


def expected(layer, x, state, dy, dstate, rng=None, lengths=None, resets=None):
    """The same by the reference. A single reverse direction is the forward one over what is turned."""
    x, dy = (np.asarray(a, np.float64).swapaxes(0, 1) if layer.batch_first else a for a in (x, dy))
    steps, batch = x.shape[:2]
    lengths = np.full(batch, steps) if lengths is None else lengths
    resets = np.zeros((steps, batch), bool) if resets is None else resets.T if layer.batch_first else resets
    masks = masks_of(layer, rng, steps, batch, lengths)
    turn = (lambda a: turned(a, lengths)) if layer.reverse else (lambda a: a)
    if layer.reverse:
        resets = turn(last_steps(resets, lengths))
    names = ("num_layers", "bidirectional", "merge", "connection")
    options = {name: getattr(layer, name) for name in names} | {"lengths": lengths, "resets": resets}
    y, final, backward = reference.recurrent(
        turn(x), layer.params, parts_of(layer, state), cell=cell_of(layer), masks=masks, **options
    )
    dx, d_initial, grads = backward(turn(dy), parts_of(layer, dstate))
    y, dx = (turn(a).swapaxes(0, 1) if layer.batch_first else turn(a) for a in (y, dx))
    return by_name(layer, y, state_of(layer, final), dx, state_of(layer, d_initial), grads)


def assert_same(got, want):
    assert got.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


def rng_of(layer):
    """A copy of what the layer draws from."""
    return copy.deepcopy(layer.rngs()[0]) if layer.rngs() else None


class TestAgainstTheReference:
    @pytest.mark.parametrize("spans", SPANS, ids="+".join)
    @every(CASES)
    def test_outputs_and_all_gradients(self, target, rng, kind, options, spans):
        layer = make(rng, kind, options)
        x, state, dy, dstate = inputs_for(rng, layer)
        spans = spans_for(layer, spans)
        for given in (state, None):
            drawn = rng_of(layer)
            got = train(layer, x, given, dy, dstate, **spans)
            want = expected(layer, x, given, dy, dstate, drawn, **spans)
            assert got.keys() == want.keys()
            for name, value in want.items():
                agree(name, got[name], value)
            y, final = layer(x, given, **spans)
            want = expected(layer, x, given, dy, dstate, **spans)
            agree("y", y, want["y"])
            for n, value in enumerate(flat(parts_of(layer, final))):
                agree(f"final {n}", value, want[f"final {n}"])

    @every(CASES)
    def test_each_output_gradient_may_be_none(self, rng, kind, options):
        layer = make(rng, kind, options)
        x, _, dy, dstate = inputs_for(rng, layer)
        nothing = [(None, dstate), (dy, None)]
        if kind is lstmx.LSTM:
            nothing += [(None, (dstate[0], None)), (None, (None, dstate[1]))]
        for dy, dstate in nothing:
            drawn = rng_of(layer)
            got = train(layer, x, None, dy, dstate)
            zero = np.zeros((*x.shape[:2], layer.output_size)) if dy is None else dy
            for name, value in expected(layer, x, None, zero, dstate, drawn).items():
                agree(name, got[name], value)

    @every(CASES)
    @pytest.mark.parametrize(("steps", "batch"), [(6, 0), (0, 4)])
    def test_nothing_to_do(self, rng, kind, options, steps, batch):
        layer = make(rng, kind, options)
        x, state, dy, dstate = inputs_for(rng, layer, steps, batch)
        for given in (state, None):
            drawn = rng_of(layer)
            got = train(layer, x, given, dy, dstate)
            for name, value in expected(layer, x, given, dy, dstate, drawn).items():
                agree(name, got[name], value)

    @every(CASES)
    def test_an_unbatched_sequence_is_a_batch_of_one(self, rng, kind, options):
        layer = make(rng, kind, options)
        batched = inputs_for(rng, layer, batch=1)
        axis = 0 if layer.batch_first else 1
        x, dy = (a.squeeze(axis) for a in (batched[0], batched[2]))
        parts = [parts_of(layer, s) for s in (batched[1], batched[3])]
        state, dstate = (state_of(layer, unflat([a.squeeze(1) for a in flat(p)], p)) for p in parts)
        for given in ((state, batched[1]), (None, None)):
            twin = copy.deepcopy(layer)
            want = train(layer, batched[0], given[1], *batched[2:])
            got = train(twin, x, given[0], dy, dstate)
            assert_same(got, {name: a.reshape(got[name].shape) for name, a in want.items()})


class TestMeaning:
    @every(CASES)
    def test_padding_is_never_read_and_is_zero(self, rng, kind, options):
        layer = make(rng, kind, options)
        x, _, dy, dstate = inputs_for(rng, layer)
        twin = copy.deepcopy(layer)
        clean = train(layer, x, None, dy, dstate, lengths=LENGTHS)
        for array in (x, dy):
            view, padded = padding_of(layer, array)
            view[padded] = np.nan
        got = train(twin, x, None, dy, dstate, lengths=LENGTHS)
        assert_same(got, clean)
        for name in ("y", "dx"):
            view, padded = padding_of(layer, got[name])
            assert not view[padded].any(), name

    @every(CASES)
    def test_inference_is_the_same_every_time_and_for_a_row_alone(self, rng, kind, options):
        layer = make(rng, kind, options)
        x, _, _, _ = inputs_for(rng, layer)
        y, _ = layer(x, lengths=LENGTHS)
        np.testing.assert_array_equal(layer(x, lengths=LENGTHS)[0], y)
        x, y = (a.swapaxes(0, 1) if layer.batch_first else a for a in (x, y))
        for b, n in enumerate(LENGTHS):
            np.testing.assert_array_equal(y[:n, b], layer(x[:n, b])[0])

    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            (lstmx.LSTM, {"hidden_size": [40, 30], **ALL, "bidirectional": True, "proj_size": 20}),
            (lstmx.GRU, {"hidden_size": [40, 30], "zoneout": 0.2, "reverse": True}),
            (lstmx.RNN, {"hidden_size": [40, 30], "zoneout": 0.2, "bidirectional": True}),
        ],
        ids=name_of,
    )
    def test_threads_change_nothing(self, rng, kind, options):
        layer = make(rng, kind, options)
        given = inputs_for(rng, layer, 20, 9)
        threads, twin = lstmx.get_num_threads(), copy.deepcopy(layer)
        lengths = [20, 3, 0, 20, 7, 1, 9, 20, 2]
        try:
            lstmx.set_num_threads(1)
            want = train(layer, *given, lengths=lengths)
            lstmx.set_num_threads(3)
            got = train(twin, *given, lengths=lengths)
        finally:
            lstmx.set_num_threads(threads)
        assert_same(got, want)

    @pytest.mark.parametrize("kind", KINDS)
    def test_reverse_is_the_second_direction(self, rng, kind):
        """Of a bidirectional layer, bit for bit, under the names of the first."""
        both, one = make(rng, kind, {"bidirectional": True}), make(rng, kind, {"reverse": True})
        one.load_state_dict({name: both.params[f"{name}_reverse"] for name in one.params})
        x = normal(rng, 6, 4, 3)
        for spans in SPANS:
            np.testing.assert_array_equal(one(x, **spans)[0], both(x, **spans)[0][:, :, 5:])

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_backward_belongs_to_the_masks_of_its_forward(self, rng, kind):
        layer = make(rng, kind, {"zoneout": 0.3, "recurrent_dropout": 0.4})
        x, state, dy, dstate = inputs_for(rng, layer)
        want = train(copy.deepcopy(layer), x, state, dy, dstate)
        y, final, backward = layer.forward(x, state)
        layer.forward(x, state)
        layer(x)
        assert_same(by_name(layer, y, final, *backward(dy, dstate), layer.grads), want)

    def test_options_that_do_nothing_leave_the_plain_cell(self):
        plain, named = lstmx.LSTM(3, 5), {"activations": ["sigmoid", ("tanh", None), "tanh"]}
        options = {"proj_size": 0, "gate_clip": None, "zoneout": (0, 0), "recurrent_dropout": 0, **named}
        layer = lstmx.LSTM(3, 5, **options)
        assert layer.config() == plain.config()
        assert layer._is_plain
        assert layer.rngs() == []
        assert layer._only_trained is not None  # the short way


class TestInitialValues:
    @pytest.mark.parametrize("kind", KINDS)
    def test_pytorch(self, kind):
        options = {"proj_size": 20, "peephole": True} if kind is lstmx.LSTM else {}
        layer = kind(30, 100, 2, **options, rng=0)
        for name, value in layer.params.items():
            assert 0.09 < np.abs(value).max() <= 0.1, name
            assert abs(value.mean()) < 0.02, name

    def test_glorot(self):
        layer = lstmx.LSTM(30, 100, proj_size=20, peephole=True, init="glorot", rng=0)
        for name, bound in {"weight_hr_l0": (6 / 120) ** 0.5, "weight_ch_l0": (6 / 200) ** 0.5}.items():
            assert 0.9 * bound < np.abs(layer.params[name]).max() <= bound, name
        gru = lstmx.GRU(30, 100, init="glorot", rng=0)
        bound = (6 / 330) ** 0.5
        assert 0.9 * bound < np.abs(gru.params["weight_ih_l0"]).max() <= bound
        assert not gru.params["bias_hh_l0"].any()

    def test_weight_decay_takes_projections_and_peepholes(self):
        layer = lstmx.LSTM(3, 5, proj_size=2, peephole=True)
        biases = {entry.name for entry in layer.arena.entries if entry.is_bias}
        assert biases == {"bias_ih_l0", "bias_hh_l0"}

    def test_forget_bias(self):
        with_it, without = (lstmx.LSTM(3, 5, peephole=True, forget_bias=b, rng=0) for b in (1.0, 0.0))
        difference = with_it.params["bias_ih_l0"] - without.params["bias_ih_l0"]
        np.testing.assert_allclose(difference, np.repeat([0, 1, 0, 0], 5), atol=1e-6)


class TestMasks:
    @pytest.mark.parametrize("kind", KINDS)
    def test_zoneout_keeps_as_often_as_it_says(self, rng, kind):
        layer = make(rng, kind, {"hidden_size": 40, "zoneout": 0.3})
        y = np.concatenate([np.zeros((1, 20, 40), np.float32), layer.forward(normal(rng, 50, 20, 3))[0]])
        kept = y[1:] == y[:-1]  # 40000 trials: the rate is off by 0.0023 at one sigma
        assert abs(kept.mean() - 0.3) < 0.012
        for axis in ((1, 2), (0, 2), (0, 1)):  # anew at every step, for every row and unit
            assert 0 < kept.mean(axis=axis).std() < 0.06

    def test_zoneout_of_c_alone(self, rng):
        layer = make(rng, lstmx.LSTM, {"hidden_size": 40, "zoneout": (0.0, 0.25)})
        state = (normal(rng, 1, 200, 40), normal(rng, 1, 200, 40))
        _, (h_n, c_n), _ = layer.forward(normal(rng, 1, 200, 3), state)
        assert abs((c_n == state[1]).mean() - 0.25) < 0.025
        assert not (h_n == state[0]).any()

    @pytest.mark.parametrize("kind", KINDS)
    def test_zoneout_of_everything_keeps_the_state(self, rng, kind):
        layer = make(rng, kind, {"zoneout": 1.0})
        x, state, dy, dstate = inputs_for(rng, layer)
        for call in (layer, layer.forward):
            for a, b in zip(
                flat(parts_of(layer, call(x, state)[1])), flat(parts_of(layer, state)), strict=True
            ):
                np.testing.assert_array_equal(a, b)
        train(layer, x, state, dy, dstate)
        assert not layer.arena.grads.any()

    @pytest.mark.parametrize("kind", KINDS)
    def test_recurrent_dropout_drops_as_often_as_it_says(self, rng, kind):
        """weight_hh is the identity in the candidate's rows: of a GRU r = 1, z = 0, so h' = tanh(h or 0)."""
        layer = kind(1, 50, recurrent_dropout=0.4, rng=0)
        with layer.editing() as params:
            for view in params.values():
                view[...] = 0
            params["weight_hh_l0"][: 50 if kind is lstmx.RNN else 150][-50:] = np.eye(50)
        h = np.ones((1, 400, 50), np.float32)
        state = state_of(layer, (h, 0 * h))
        y, _, _ = layer.forward(np.zeros((1, 400, 1), np.float32), state)
        off = 0.5 if kind is lstmx.GRU else 0.0
        assert abs((np.abs(y - off) < 1e-7).mean() - 0.4) < 0.02
        assert np.unique(y).size == 2

    def test_no_two_calls_layers_or_directions_share_masks(self, rng):
        drops = lstmx.LSTM(3, 5, **MORE, **MASKS, rng=0)._drops
        h, generator = np.zeros((4, 5), np.float32), np.random.default_rng(0)
        one, two = (drops.masks(6, h, h, generator) for _ in range(2))
        for name in ("keep_h", "keep_c", "h_mask"):
            assert np.any(one[name] != two[name]), name
        assert np.any(one["keep_h"] != one["keep_c"])
        assert set(drops.masks(6, h, h, None)) == {"keep_h", "keep_c"}

    def test_inference_takes_no_memory_for_them(self):
        drops = lstmx.LSTM(3, 5, zoneout=0.25)._drops
        h = np.zeros((4, 5), np.float32)
        for mask in drops.masks(10**6, h, h, None).values():
            assert mask.strides[:2] == (0, 0)
            assert (mask[0] == 0.25).all()

    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            (lstmx.LSTM, {**ALL, "weight_dropout": 0.2}),
            (lstmx.GRU, {"zoneout": 0.3, "recurrent_dropout": 0.4}),
            (lstmx.RNN, {"zoneout": 0.3, "weight_dropout": 0.2}),
        ],
        ids=name_of,
    )
    def test_a_resumed_training_is_the_one_that_was_not_interrupted(self, rng, tmp_path, kind, options):
        x, y = normal(rng, 64, 3), normal(rng, 64, 1)

        def trainer():
            layer = kind(3, 5, 2, **options, dropout=0.3, batch_first=True, **LEARNT, rng=0)
            model = lstmx.Sequential(layer, lstmx.Linear(layer.output_size, 1, rng=0))
            return lstmx.Trainer(model, loss=lstmx.losses.MSE(), optimizer=lstmx.optim.Adam(lr=0.01))

        def data():
            return lstmx.data.Stream(x, y, steps=4, batch_size=2)  # carries the states

        whole, first, second = trainer(), trainer(), trainer()
        whole.fit(data(), epochs=4)
        first.fit(data(), epochs=2)
        first.save_checkpoint(tmp_path / "state")
        second.load_checkpoint(tmp_path / "state").fit(data(), epochs=4)
        np.testing.assert_array_equal(second.model.arena.params, whole.model.arena.params)
        assert dict(second.history) == dict(whole.history)


class TestStreams:
    @every(STREAMS)
    def test_steps_and_chunks_are_the_whole_sequence(self, target, rng, kind, options):
        layer = make(rng, kind, options | {"batch_first": False})
        x = normal(rng, 7, 4, 3)
        y, final = layer(x)
        stream = layer.stream(4)
        got = [stream.step(x[0])[None], stream.run(x[1:4]), *(stream.step(x[t])[None] for t in (4, 5, 6))]
        np.testing.assert_array_equal(np.concatenate(got), y)
        for a, b in zip(*(flat(parts_of(layer, s)) for s in (stream.state, final)), strict=True):
            np.testing.assert_array_equal(a, b)

    @every(STREAMS)
    def test_rows_begin_anew_forks_and_saved_states(self, rng, kind, options):
        layer = make(rng, kind, options | {"batch_first": False})
        x, more = normal(rng, 5, 4, 3), normal(rng, 3, 4, 3)
        stream = layer.stream(4)
        stream.run(x)
        saved, fork = stream.state, stream.fork()
        stream.reset([1, 3])
        got, went_on, anew = stream.run(more), layer(more, layer(x)[1])[0], layer(more)[0]
        for b in range(4):
            np.testing.assert_array_equal(got[:, b], (anew if b in (1, 3) else went_on)[:, b])
        np.testing.assert_array_equal(fork.run(more), went_on)
        stream.state = saved
        np.testing.assert_array_equal(stream.run(more), went_on)

    @pytest.mark.parametrize("kind", KINDS)
    def test_not_from_the_end(self, kind):
        with pytest.raises(
            ValueError, match=r"\(3, 5, reverse=True\), which reads the sequence from its end"
        ):
            kind(3, 5, reverse=True).stream(1)


@every(CASES)
def test_a_model_file_holds_it_all(rng, tmp_path, kind, options):
    layer = make(rng, kind, options)
    lstmx.save(tmp_path / "model", layer)
    loaded = lstmx.load(tmp_path / "model")
    assert type(loaded) is kind
    assert repr(loaded) == repr(layer)
    x = normal(rng, 6, 4, 3)
    np.testing.assert_array_equal(loaded(x)[0], layer(x)[0])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (lstmx.LSTM, {"proj_size": 2}),
        (lstmx.LSTM, {"proj_size": 4, "num_layers": 2, "bidirectional": True, "batch_first": True}),
        (lstmx.LSTM, {"proj_size": 1, "bias": False}),
        (lstmx.GRU, {}),
        (lstmx.GRU, {"num_layers": 2, "bidirectional": True, "batch_first": True}),
        (lstmx.GRU, {"num_layers": 3, "bias": False}),
        (lstmx.RNN, {}),
        (lstmx.RNN, {"nonlinearity": "relu", "num_layers": 2, "bidirectional": True, "batch_first": True}),
        (lstmx.RNN, {"num_layers": 3, "bias": False}),
    ],
    ids=name_of,
)
class TestAgainstPyTorch:
    def test_outputs_and_all_gradients(self, rng, kind, options):
        torch = pytest.importorskip("torch", reason="PyTorch is not installed: NOT compared with it")
        layer = make(rng, kind, options)
        other = getattr(torch.nn, kind.__name__)(3, 5, dtype=torch.float64, **options)
        other.load_state_dict({n: torch.tensor(v.astype(np.float64)) for n, v in layer.params.items()})
        x, state, dy, dstate = inputs_for(rng, layer)

        def tensor(array):
            return torch.tensor(array, dtype=torch.float64, requires_grad=True)

        parts = [tensor(a) for a in parts_of(layer, state)]
        x_t = tensor(x)
        y_t, final_t = other(x_t, state_of(layer, tuple(parts)))
        outputs = [y_t, *parts_of(layer, final_t)]
        d_outputs = [torch.tensor(a).double() for a in (dy, *parts_of(layer, dstate))]
        torch.autograd.backward(outputs, d_outputs)
        got = train(layer, x, state, dy, dstate)
        grads = {name: p.grad.numpy() for name, p in other.named_parameters()}
        want = by_name(
            layer,
            y_t.detach().numpy(),
            state_of(layer, tuple(a.detach().numpy() for a in outputs[1:])),
            x_t.grad.numpy(),
            state_of(layer, tuple(a.grad.numpy() for a in parts)),
            grads,
        )
        assert list(grads) == list(layer.params)
        assert got.keys() == want.keys()
        for name, value in want.items():
            agree(name, got[name], value)

    def test_initial_values(self, rng, kind, options):
        """PyTorch's names, order and shapes."""
        torch = pytest.importorskip("torch", reason="PyTorch is not installed: NOT compared with it")
        other = getattr(torch.nn, kind.__name__)(3, 5, **options)
        shapes = {name: tuple(p.shape) for name, p in other.named_parameters()}
        layer = kind(3, 5, **options)
        assert {name: view.shape for name, view in layer.params.items()} == shapes


REFUSED = [
    (lstmx.LSTM, {"proj_size": 5}, ValueError, r"proj_size: expected less than hidden_size \(5\), got 5"),
    (lstmx.LSTM, {"hidden_size": [5, 3], "proj_size": 4}, ValueError, r"less than hidden_size \(3\), got 4"),
    (lstmx.LSTM, {"proj_size": -1}, ValueError, "proj_size: expected at least 0, got -1"),
    (lstmx.LSTM, {"proj_size": 1.0}, TypeError, "proj_size: expected an integer, got 1.0"),
    (lstmx.LSTM, {"peephole": 1}, TypeError, "peephole: expected True or False, got 1"),
    (lstmx.LSTM, {"coupled": None}, TypeError, "coupled: expected True or False, got None"),
    (
        lstmx.LSTM,
        {"coupled": True, "forget_bias": 1},
        ValueError,
        "forget_bias: expected 0 with coupled=True",
    ),
    (lstmx.LSTM, {"gate_clip": 0}, ValueError, "gate_clip: expected more than 0.0, got 0"),
    (lstmx.LSTM, {"cell_clip": float("nan")}, ValueError, "cell_clip: expected a finite number, got nan"),
    (lstmx.LSTM, {"activations": "tanh"}, TypeError, "activations: expected three, .*, got str"),
    (lstmx.LSTM, {"activations": ["tanh"]}, ValueError, "activations: expected three, .*, got 1 items"),
    (
        lstmx.LSTM,
        {"activations": ["sigmoid", "swish", "tanh"]},
        ValueError,
        r"activations\[1\]: activation: expected one of sigmoid, .*, got 'swish'",
    ),
    (
        lstmx.LSTM,
        {"activations": [("sigmoid", 1.0), "tanh", "tanh"]},
        ValueError,
        r"activations\[0\]: alpha: expected none for sigmoid, got 1.0",
    ),
    (
        lstmx.LSTM,
        {"activations": ["tanh", "tanh", ("elu", "1")]},
        TypeError,
        r"activations\[2\].alpha: expected a number, got '1'",
    ),
    (lstmx.LSTM, {"activations": ["tanh", 1, "tanh"]}, TypeError, r"activations\[1\]: expected a name or"),
    (lstmx.LSTM, {"zoneout": 1.5}, ValueError, "zoneout: expected at most 1.0, got 1.5"),
    (lstmx.LSTM, {"zoneout": [0.5]}, ValueError, "zoneout: expected a number or a pair .*, got 1 items"),
    (lstmx.LSTM, {"zoneout": [0.5, -1]}, ValueError, r"zoneout\[1\]: expected at least 0.0, got -1"),
    (lstmx.LSTM, {"recurrent_dropout": "1"}, TypeError, "recurrent_dropout: expected a number, got '1'"),
    (
        lstmx.LSTM,
        {"reverse": True, "bidirectional": True},
        ValueError,
        "reverse: expected False with bidirectional=True, got True",
    ),
    (lstmx.GRU, {"hidden_size": 0}, ValueError, "hidden_size: expected at least 1, got 0"),
    (lstmx.GRU, {"zoneout": -0.1}, ValueError, "zoneout: expected at least 0.0, got -0.1"),
    (lstmx.GRU, {"zoneout": [0.1, 0.1]}, TypeError, r"zoneout: expected a number, got \[0.1, 0.1\]"),
    (lstmx.GRU, {"reverse": 1}, TypeError, "reverse: expected True or False, got 1"),
    (
        lstmx.RNN,
        {"nonlinearity": "sigmoid"},
        ValueError,
        "nonlinearity: expected one of 'tanh', 'relu', got 'sigmoid'",
    ),
    (lstmx.RNN, {"zoneout": 2}, ValueError, "zoneout: expected at most 1.0, got 2"),
    (lstmx.RNN, {"hidden_size": [5, 0]}, ValueError, r"hidden_size\[1\]: expected at least 1, got 0"),
]


@pytest.mark.parametrize(("kind", "options", "error", "match"), REFUSED, ids=[r[3] for r in REFUSED])
def test_refused_arguments(kind, options, error, match):
    with pytest.raises(error, match=match):
        kind(3, **({"hidden_size": 5} | options))
    with pytest.raises(ValueError, match=match):
        from_config({"type": kind.__name__, "input_size": 3, "hidden_size": 5} | options)


@pytest.mark.parametrize("kind", [lstmx.GRU, lstmx.RNN])
@pytest.mark.parametrize("option", ["proj_size", "peephole", "activations", "forget_bias"])
def test_others_have_no_options_of_the_lstm(kind, option):
    with pytest.raises(TypeError, match=option):
        kind(3, 5, **{option: 1})
    with pytest.raises(ValueError, match=option):
        from_config({"type": kind.__name__, "input_size": 3, "hidden_size": 5, option: 1})


def test_dropout_of_a_single_layer_warns():
    with pytest.warns(UserWarning, match="dropout: 0.5 has no effect with num_layers=1") as caught:
        lstmx.GRU(3, 5, dropout=0.5)
    assert caught[0].filename == __file__


def zeros(*shape):
    return np.zeros(shape, np.float32)


REFUSED_STATES = [
    (lstmx.GRU, {}, (zeros(1, 4, 5), zeros(1, 4, 5)), ValueError, r"state: expected shape \(1, 4, 5\)"),
    (lstmx.RNN, {}, (zeros(1, 4, 5), zeros(1, 4, 5)), ValueError, r"state: expected shape \(1, 4, 5\)"),
    (lstmx.GRU, {}, zeros(1, 4, 3), ValueError, r"state: expected shape \(1, 4, 5\), got \(1, 4, 3\)"),
    (lstmx.GRU, {"hidden_size": [5, 3]}, zeros(2, 4, 5), TypeError, "state: expected 2 arrays, one a layer"),
    (
        lstmx.GRU,
        {"hidden_size": [5, 3]},
        (zeros(1, 4, 5), zeros(1, 4, 5)),
        ValueError,
        r"state\[1\]: expected shape \(1, 4, 3\), got \(1, 4, 5\)",
    ),
    (
        lstmx.LSTM,
        {"proj_size": 2},
        (zeros(1, 4, 5), zeros(1, 4, 5)),
        ValueError,
        r"state\[0\] \(h_0\): expected shape \(1, 4, 2\), got \(1, 4, 5\)",
    ),
    (
        lstmx.LSTM,
        {"proj_size": 2, "hidden_size": [5, 3]},
        (zeros(2, 4, 2), zeros(2, 4, 5)),
        TypeError,
        r"state\[1\] \(c_0\): expected 2 arrays, one a layer",
    ),
]


@pytest.mark.parametrize(
    ("kind", "options", "state", "error", "match"), REFUSED_STATES, ids=[r[4] for r in REFUSED_STATES]
)
def test_refused_states(kind, options, state, error, match):
    layer = kind(3, **({"hidden_size": 5} | options))
    x = zeros(6, 4, 3)
    for call in (layer, layer.forward):
        with pytest.raises(error, match=f"^{match}"):
            call(x, state)
    _, _, backward = layer.forward(x)
    with pytest.raises(error, match=r"^dstate"):
        backward(zeros(6, 4, layer.output_size), state)
    assert not layer.arena.grads.any()
