"""Lengths, resets and checkpoint_steps of the layers: against the reference, PyTorch's packed sequences, and
rows and pieces run alone; through Sequential and LastStep; refusals.
"""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest

import lstmx
from lstmx import reference
from lstmx.layers import from_config
from tests.layers.agree import agree
from tests.layers.test_lstm import VARIANTS, inputs_for, make, normal

LENGTHS = np.array([6, 0, 2, 5])
RESETS = np.array(  # [T,B], a few beyond the lengths
    [[0, 1, 0, 1], [0, 0, 1, 1], [1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1], [1, 1, 0, 1]], bool
)
SPANS = [{"lengths": LENGTHS}, {"resets": RESETS}, {"lengths": LENGTHS, "resets": RESETS}]
BOTH_WAYS = {"num_layers": 2, "bidirectional": True}


def spans_for(lstm, spans):
    """As the layer takes them: resets batch-first where x is."""
    return {n: a.T if n == "resets" and lstm.batch_first else a for n, a in spans.items()}


def train(lstm, x, state, dy, dstate, **spans):
    """Outputs and all gradients by name."""
    lstm.zero_grad()
    y, final, backward = lstm.forward(x, state, **spans)
    dx, d_initial = backward(dy, dstate)
    names = ("y", "h_n", "c_n", "dx", "dh_0", "dc_0")
    return dict(zip(names, (y, *final, dx, *d_initial), strict=True)) | {
        name: gradient.copy() for name, gradient in lstm.grads.items()
    }


def padding_of(lstm, array, lengths=LENGTHS):
    """A view of `array`, x or y, with time first, and where it is padding [T,B]."""
    array = array.swapaxes(0, 1) if lstm.batch_first else array
    return array, np.arange(len(array))[:, None] >= lengths


class TestAgainstTheReference:
    @pytest.mark.parametrize("spans", SPANS, ids="+".join)
    @pytest.mark.parametrize("options", VARIANTS, ids=str)
    @pytest.mark.parametrize("with_states", [False, True])
    def test_outputs_and_all_gradients(self, rng, options, spans, with_states):
        lstm = make(rng, **options)
        x, state, dy, dstate = inputs_for(rng, lstm)
        if not with_states:
            state = dstate = None
        spans = spans_for(lstm, spans)
        layout = {n: getattr(lstm, n) for n in ("num_layers", "batch_first", "bidirectional")}
        y, final, backward = reference.lstm(x, lstm.params, state, **layout, **spans)
        dx, d_initial, grads = backward(dy, dstate)
        names = ("y", "h_n", "c_n", "dx", "dh_0", "dc_0")
        want = dict(zip(names, (y, *final, dx, *d_initial), strict=True)) | grads
        got = train(lstm, x, state, dy, dstate, **spans)
        assert got.keys() == want.keys()
        for name, value in want.items():
            agree(name, got[name], value)
        y_inferred, final_inferred = lstm(x, state, **spans)
        np.testing.assert_array_equal(y_inferred, got["y"])
        for name, value in zip(("h_n", "c_n"), final_inferred, strict=True):
            np.testing.assert_array_equal(value, got[name])


class TestAgainstPyTorch:
    @pytest.mark.parametrize("options", [o for o in VARIANTS if o.get("bias", True)], ids=str)
    def test_packed_sequences(self, rng, options):
        torch = pytest.importorskip("torch", reason="PyTorch is not installed: NOT compared with it")
        lengths = np.array([6, 1, 2, 5])  # PyTorch refuses 0
        lstm = make(rng, **options)
        other = torch.nn.LSTM(3, 5, dtype=torch.float64, **options)
        other.load_state_dict({n: torch.tensor(v.astype(np.float64)) for n, v in lstm.params.items()})
        x, state, dy, dstate = inputs_for(rng, lstm)

        x_t, h_t, c_t = (torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (x, *state))
        rnn, layout = torch.nn.utils.rnn, {"batch_first": lstm.batch_first}
        packed = rnn.pack_padded_sequence(x_t, torch.tensor(lengths), enforce_sorted=False, **layout)
        y_t, (hn_t, cn_t) = other(packed, (h_t, c_t))
        y_t = rnn.pad_packed_sequence(y_t, total_length=6, **layout)[0]
        torch.autograd.backward([y_t, hn_t, cn_t], [torch.tensor(a).double() for a in (dy, *dstate)])
        want = {"y": y_t, "h_n": hn_t, "c_n": cn_t, "dx": x_t.grad, "dh_0": h_t.grad, "dc_0": c_t.grad}
        want |= {n: p.grad for n, p in other.named_parameters()}

        got = train(lstm, x, state, dy, dstate, lengths=lengths)
        assert got.keys() == want.keys()
        for name, value in want.items():
            agree(name, got[name], value.detach().numpy())


class TestMeaning:
    @pytest.mark.parametrize("options", VARIANTS, ids=str)
    def test_padding_is_never_read_and_is_zero(self, rng, options):
        lstm = make(rng, **options)
        x, state, dy, dstate = inputs_for(rng, lstm)
        clean = train(lstm, x, state, dy, dstate, lengths=LENGTHS)
        for array in (x, dy):
            view, padded = padding_of(lstm, array)
            view[padded] = np.nan
        got = train(lstm, x, state, dy, dstate, lengths=LENGTHS)
        for name, value in clean.items():
            np.testing.assert_array_equal(got[name], value, err_msg=name)
        for name in ("y", "dx"):
            view, padded = padding_of(lstm, got[name])
            assert not view[padded].any(), name

    @pytest.mark.parametrize("options", VARIANTS, ids=str)
    def test_a_row_is_the_row_alone(self, rng, options):
        lstm = make(rng, **options)
        x, state, _, _ = inputs_for(rng, lstm)
        y, final = lstm(x, state, lengths=LENGTHS)
        time_axis, row_axis = (1, 0) if lstm.batch_first else (0, 1)
        for b, n in enumerate(LENGTHS):
            index = [slice(None)] * 3
            index[row_axis], index[time_axis] = slice(b, b + 1), slice(0, n)
            row, row_state = x[tuple(index)], tuple(s[:, b : b + 1] for s in state)
            y_alone, final_alone = lstm(row, row_state)
            np.testing.assert_array_equal(y[tuple(index)], y_alone)
            for k in range(2):
                np.testing.assert_array_equal(final[k][:, b : b + 1], final_alone[k])

    @pytest.mark.parametrize("options", [{}, {"bidirectional": True}], ids=str)
    @pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
    def test_pieces_are_sequences_of_their_own(self, rng, options, lengths):
        """Bit for bit; the initial state enters the first piece forward, in reverse the row's last."""
        lstm = make(rng, **options)
        x, (h_0, c_0), _, _ = inputs_for(rng, lstm)
        y, _ = lstm(x, (h_0, c_0), lengths=lengths, resets=RESETS)
        for b in range(4):
            n = 6 if lengths is None else lengths[b]
            cuts = [t for t in range(1, n) if RESETS[t, b]]
            for start, stop in itertools.pairwise([0, *cuts, n]):
                begins = np.array([start == 0 and not RESETS[0, b], stop == n])[: len(h_0), None, None]
                state = tuple(np.where(begins, s[:, b : b + 1], 0) for s in (h_0, c_0))
                alone, _ = lstm(x[start:stop, b : b + 1], state)
                np.testing.assert_array_equal(y[start:stop, b : b + 1], alone)

    @pytest.mark.parametrize("options", [{}, BOTH_WAYS], ids=str)
    def test_what_says_nothing_changes_nothing(self, rng, options):
        lstm = make(rng, **options)
        given = inputs_for(rng, lstm)
        want = train(lstm, *given)
        for spans in (
            {"lengths": [6, 6, 6, 6]},
            {"resets": np.zeros((6, 4), bool)},
            {"lengths": (6,) * 4, "resets": [[False] * 4] * 6},
            {"lengths": np.full(4, 6, np.uint8)},
        ):
            for name, value in train(lstm, *given, **spans).items():
                np.testing.assert_array_equal(value, want[name], err_msg=name)

    @pytest.mark.parametrize("options", VARIANTS, ids=str)
    def test_an_unbatched_sequence_takes_one_length_and_resets_by_time(self, rng, options):
        lstm = make(rng, **options)
        x, resets = normal(rng, 6, 3), RESETS[:, 3]
        batched, axis = (x[None], 0) if lstm.batch_first else (x[:, None], 1)
        want, (h_n, _) = lstm(batched, lengths=[4], resets=np.expand_dims(resets, axis))
        for length in (4, np.int64(4), np.array(4)):
            y, final = lstm(x, lengths=length, resets=resets)
            np.testing.assert_array_equal(y, want.squeeze(axis))
            np.testing.assert_array_equal(final[0], h_n[:, 0])
        y, _, backward = lstm.forward(x, lengths=4, resets=resets)
        assert backward(np.ones_like(y))[0].shape == x.shape

    def test_the_callers_arrays_are_free_after_forward(self, rng):
        lstm = make(rng, **BOTH_WAYS)
        x, state, dy, dstate = inputs_for(rng, lstm)
        want = train(lstm, x, state, dy, dstate, lengths=LENGTHS, resets=RESETS)
        lengths, resets = LENGTHS.copy(), RESETS.copy()
        lstm.zero_grad()
        _, _, backward = lstm.forward(x, state, lengths=lengths, resets=resets)
        lengths[...], resets[...] = 0, True
        np.testing.assert_array_equal(backward(dy, dstate)[0], want["dx"])
        np.testing.assert_array_equal(lstm.grads["weight_hh_l0"], want["weight_hh_l0"])

    def test_with_dropout_between_layers(self, rng):
        lstm = make(rng, num_layers=2, dropout=0.5)
        x, state, dy, dstate = inputs_for(rng, lstm)
        twin = copy.deepcopy(lstm)
        want = train(twin, x, state, dy, dstate, lengths=LENGTHS)
        x[padding_of(lstm, x)[1]] = np.nan
        got = train(lstm, x, state, dy, dstate, lengths=LENGTHS)
        for name, value in want.items():
            np.testing.assert_array_equal(got[name], value, err_msg=name)


class TestCheckpointSteps:
    @pytest.mark.parametrize("options", VARIANTS, ids=str)
    @pytest.mark.parametrize("spans", [{}, SPANS[2]], ids="+".join)
    def test_changes_no_result(self, rng, options, spans):
        lstm = make(rng, **options)
        given = inputs_for(rng, lstm)
        spans = spans_for(lstm, spans)
        want = train(lstm, *given, **spans)
        for steps in (1, 4, 6, 100):
            other = from_config(lstm.config() | {"checkpoint_steps": steps})
            other.load_state_dict(lstm.state_dict())
            got = train(other, *given, **spans)
            for name, value in want.items():
                if name in lstm.params and steps < 6:
                    agree(name, got[name], value)
                else:
                    np.testing.assert_array_equal(got[name], value, err_msg=f"{steps}: {name}")

    def test_is_part_of_the_description(self):
        lstm = lstmx.LSTM(3, 5, checkpoint_steps=7)
        assert repr(lstm) == "LSTM(3, 5, checkpoint_steps=7)"
        assert from_config(lstm.config()).checkpoint_steps == 7
        assert copy.deepcopy(lstm).checkpoint_steps == 7

    def test_a_description_without_it_still_serves(self):
        config = lstmx.LSTM(3, 5).config()
        del config["checkpoint_steps"]
        assert from_config(config).checkpoint_steps is None

    def test_lives_in_the_model_file(self, tmp_path):
        lstmx.save(tmp_path / "model", lstmx.LSTM(3, 5, checkpoint_steps=7))
        assert lstmx.load(tmp_path / "model").checkpoint_steps == 7

    @pytest.mark.parametrize(
        ("value", "error", "match"),
        [
            (0, ValueError, "checkpoint_steps: expected at least 1, got 0"),
            (2.0, TypeError, "checkpoint_steps: expected an integer, got 2.0"),
            (True, TypeError, "checkpoint_steps: expected an integer, got True"),
        ],
    )
    def test_refusals(self, value, error, match):
        with pytest.raises(error, match=match):
            lstmx.LSTM(3, 5, checkpoint_steps=value)


class TestLastStep:
    def test_takes_each_rows_own_last_step(self, rng):
        x, dy = normal(rng, 4, 6, 3), normal(rng, 4, 3)
        want = np.stack([x[0, 5], np.zeros(3), x[2, 1], x[3, 4]])
        x[1] = np.nan  # the row without steps
        layer = lstmx.LastStep()
        y, state, backward = layer.forward(x, lengths=LENGTHS, resets=RESETS.T)
        np.testing.assert_array_equal(y, want)
        np.testing.assert_array_equal(layer(x, lengths=LENGTHS)[0], want)
        dx, _ = backward(dy)
        assert state is None
        for b, n in enumerate(LENGTHS):
            if n:
                np.testing.assert_array_equal(dx[b, n - 1], dy[b])
                dx[b, n - 1] = 0
        assert not dx.any()


class TestSequential:
    def model(self, rng):
        return lstmx.Sequential(
            lstmx.Linear(2, 3, rng=rng),
            lstmx.LSTM(3, 5, bidirectional=True, batch_first=True, rng=rng),
            lstmx.Sequential(lstmx.LSTM(10, 4, batch_first=True, rng=rng), lstmx.LastStep()),
            lstmx.Linear(4, 1, rng=rng),
        )

    def test_hands_them_to_the_layers_that_read_time(self, rng):
        model = self.model(rng)
        x, dy = normal(rng, 4, 6, 2), normal(rng, 4, 1)
        spans = {"lengths": LENGTHS, "resets": RESETS.T}
        y, state, backward = model.forward(x, **spans)
        dx, _ = backward(dy)
        grads = model.arena.grads.copy()
        model.zero_grad()

        step_x, steps, layers = x, [], (model[0], model[1], model[2][0], model[2][1], model[3])
        for layer, given in zip(layers, ({}, spans, spans, spans, {}), strict=True):
            step_x, item, step = layer.forward(step_x, **given)
            steps.append(step)
            if layer is model[1]:
                np.testing.assert_array_equal(state[1], item)
        np.testing.assert_array_equal(y, step_x)
        np.testing.assert_array_equal(model(x, **spans)[0], y)
        d = dy
        for step in reversed(steps):
            d, _ = step(d)
        np.testing.assert_array_equal(dx, d)
        np.testing.assert_array_equal(model.arena.grads, grads)

    def test_padding_changes_nothing(self, rng):
        model = self.model(rng)
        x = normal(rng, 4, 6, 2)
        y, _, backward = model.forward(x, lengths=LENGTHS)
        dx, _ = backward(np.ones_like(y))
        other = x.copy()
        other[np.arange(6) >= LENGTHS[:, None]] = 100.0
        np.testing.assert_array_equal(model(other, lengths=LENGTHS)[0], y)
        assert not dx[np.arange(6) >= LENGTHS[:, None]].any()

    def test_time_first(self, rng):
        model = lstmx.Sequential(lstmx.LSTM(2, 3, rng=rng), lstmx.Linear(3, 1, rng=rng))
        x = normal(rng, 6, 4, 2)
        y, _ = model(x, lengths=LENGTHS, resets=RESETS)
        np.testing.assert_array_equal(y, model[1](model[0](x, lengths=LENGTHS, resets=RESETS)[0])[0])


def zeros(*shape):
    return np.zeros(shape, np.float32)


def lstm():
    return lstmx.LSTM(2, 3)


def batch_first():
    return lstmx.Sequential(lstmx.LSTM(2, 3, batch_first=True), lstmx.LastStep())


REFUSALS = [
    (lstm, zeros(6, 4, 2), {"lengths": [6, 6]}, ValueError, r"lengths: expected shape \(4,\), got \(2,\)"),
    (lstm, zeros(6, 4, 2), {"lengths": 6}, ValueError, r"lengths: expected shape \(4,\), got \(\)"),
    (lstm, zeros(6, 2), {"lengths": [6]}, ValueError, r"lengths: expected shape \(\), got \(1,\)"),
    (
        lstm,
        zeros(6, 4, 2),
        {"lengths": [1.0] * 4},
        TypeError,
        "lengths: expected integers, got dtype float64",
    ),
    (lstm, zeros(6, 4, 2), {"lengths": "text"}, TypeError, "lengths: expected integers, got dtype <U4"),
    (lstm, zeros(6, 4, 2), {"lengths": [7, 1, 1, 1]}, ValueError, "lengths: expected 0 to 6, .* got 7"),
    (lstm, zeros(6, 4, 2), {"lengths": [1, 1, -2, 1]}, ValueError, "lengths: expected 0 to 6, .* got -2"),
    (
        lstm,
        zeros(6, 4, 2),
        {"resets": zeros(6, 4)},
        TypeError,
        "resets: expected True and False, got dtype float32",
    ),
    (
        lstm,
        zeros(6, 4, 2),
        {"resets": np.zeros((4, 6), bool)},
        ValueError,
        r"resets: expected shape \(6, 4\), got \(4, 6\)",
    ),
    (lstm, zeros(6, 2), {"resets": np.zeros((6, 1), bool)}, ValueError, r"resets: expected shape \(6,\)"),
    (
        batch_first,
        zeros(6, 4, 2),
        {"lengths": [1] * 4},
        ValueError,
        r"lengths: expected shape \(6,\), got \(4,\)",
    ),
    (
        batch_first,
        zeros(6, 4, 2),
        {"resets": np.zeros((4, 6), bool)},
        ValueError,
        r"resets: expected shape \(6, 4\), got \(4, 6\)",
    ),
    (
        lambda: lstmx.Linear(2, 3),
        zeros(6, 4, 2),
        {"lengths": [1]},
        TypeError,
        r"lengths: expected None \(Linear reads no time\), got list",
    ),
    (
        lambda: lstmx.Sequential(lstmx.Linear(2, 3), lstmx.Dropout(0.5)),
        zeros(6, 4, 2),
        {"resets": zeros(6, 4)},
        TypeError,
        r"resets: expected None \(Sequential reads no time\), got ndarray",
    ),
]


@pytest.mark.parametrize(("make", "x", "spans", "error", "match"), REFUSALS, ids=[r[4] for r in REFUSALS])
def test_refusals(make, x, spans, error, match):
    layer = make()
    for call in (layer, layer.forward):
        with pytest.raises(error, match=match):
            call(x, **spans)


def test_the_state_is_checked_first():
    with pytest.raises(TypeError, match="state: expected a pair"):
        lstm()(zeros(6, 4, 2), zeros(1, 4, 3), lengths="text")
