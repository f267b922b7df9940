"""The LSTM layer against the reference and PyTorch: outputs, states and all gradients, in all its shapes."""

from __future__ import annotations

import numpy as np
import pytest

import lstmx
from lstmx import reference
from tests.layers.agree import agree

VARIANTS = [
    {},
    {"bias": False},
    {"batch_first": True},
    {"num_layers": 3},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
    {"num_layers": 2, "bidirectional": True, "bias": False},
]


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def make(rng, inputs=3, hidden=5, **options):
    """A layer with larger weights than it starts with, so that every gate matters."""
    lstm = lstmx.LSTM(inputs, hidden, rng=rng, **options)
    with lstm.editing() as params:
        for view in params.values():
            view[...] = rng.standard_normal(view.shape) * 0.7
    return lstm


def inputs_for(rng, lstm, steps=6, batch=4):
    cells = lstm.num_layers * (2 if lstm.bidirectional else 1)
    shape = (batch, steps) if lstm.batch_first else (steps, batch)
    x, dy = normal(rng, *shape, lstm.input_size), normal(rng, *shape, lstm.output_size)
    states = [normal(rng, cells, batch, lstm.hidden_size) for _ in range(4)]
    return x, tuple(states[:2]), dy, tuple(states[2:])


def expected_of(lstm, x, state, dy, dstate):
    y, final, backward = reference.lstm(
        x,
        lstm.params,
        state,
        num_layers=lstm.num_layers,
        batch_first=lstm.batch_first,
        bidirectional=lstm.bidirectional,
    )
    return y, final, *backward(dy, dstate)


def check_all(lstm, x, state, dy, dstate):
    """Inference, training and every gradient against the reference."""
    y_ref, final_ref, dx_ref, d_initial_ref, grads_ref = expected_of(lstm, x, state, dy, dstate)
    y_inferred, final_inferred = lstm(x, state)
    lstm.zero_grad()
    y, final, backward = lstm.forward(x, state)
    dx, d_initial = backward(dy, dstate)
    agree("y", y, y_ref)
    agree("dx", dx, dx_ref)
    np.testing.assert_array_equal(y, y_inferred)
    for k, name in enumerate("hc"):
        agree(f"{name}_n", final[k], final_ref[k])
        agree(f"d{name}_0", d_initial[k], d_initial_ref[k])
        np.testing.assert_array_equal(final[k], final_inferred[k])
    assert list(lstm.grads) == list(lstm.params)
    assert set(grads_ref) == set(lstm.params)
    for name, gradient in grads_ref.items():
        agree(name, lstm.grads[name], gradient)


class TestAgainstTheReference:
    @pytest.mark.parametrize("options", VARIANTS, ids=str)
    @pytest.mark.parametrize("with_states", [False, True])
    def test_outputs_and_all_gradients(self, rng, options, with_states):
        lstm = make(rng, **options)
        x, state, dy, dstate = inputs_for(rng, lstm)
        if with_states:
            check_all(lstm, x, state, dy, dstate)
        else:
            check_all(lstm, x, None, dy, None)

    @pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
    @pytest.mark.parametrize("given", [(True, False, False), (False, True, False), (False, False, True)])
    def test_each_output_gradient_may_be_none(self, rng, options, given):
        lstm = make(rng, **options)
        x, state, dy, (dh, dc) = inputs_for(rng, lstm)
        dy, dh, dc = (a if wanted else None for a, wanted in zip((dy, dh, dc), given, strict=True))
        check_all(lstm, x, state, dy, (dh, dc))

    def test_one_step_and_one_unit(self, rng):
        lstm = make(rng, 1, 1)
        check_all(lstm, *inputs_for(rng, lstm, steps=1, batch=1))

    @pytest.mark.parametrize("options", VARIANTS, ids=str)
    def test_an_empty_batch(self, rng, options):
        lstm = make(rng, **options)
        x, state, dy, dstate = inputs_for(rng, lstm, batch=0)
        y, (h_n, c_n), backward = lstm.forward(x, state)
        dx, (dh_0, dc_0) = backward(dy, dstate)
        assert y.shape == dy.shape
        assert dx.shape == x.shape
        assert h_n.shape == c_n.shape == dh_0.shape == dc_0.shape == state[0].shape
        assert not lstm.arena.grads.any()
        assert lstm(x, state)[0].shape == dy.shape

    def test_an_empty_sequence_hands_the_state_through(self, rng):
        for options in VARIANTS:
            lstm = make(rng, **options)
            x, state, dy, dstate = inputs_for(rng, lstm, steps=0)
            y, final, backward = lstm.forward(x, state)
            dx, d_initial = backward(dy, dstate)
            assert (y.shape, dx.shape) == (dy.shape, x.shape)
            np.testing.assert_array_equal(final, state)
            np.testing.assert_array_equal(d_initial, dstate)
            assert not lstm.arena.grads.any()

    @pytest.mark.parametrize("options", VARIANTS, ids=str)
    def test_an_unbatched_sequence_is_a_batch_of_one(self, rng, options):
        lstm = make(rng, **options)
        batched = inputs_for(rng, lstm, batch=1)
        axis = 0 if lstm.batch_first else 1
        x, dy = (a.squeeze(axis) for a in (batched[0], batched[2]))
        state, dstate = (tuple(s.squeeze(1) for s in pair) for pair in (batched[1], batched[3]))
        y, final, backward = lstm.forward(x, state)
        dx, d_initial = backward(dy, dstate)
        grads = lstm.arena.grads.copy()
        lstm.zero_grad()
        y_ref, final_ref, backward = lstm.forward(*batched[:2])
        dx_ref, d_initial_ref = backward(*batched[2:])
        np.testing.assert_array_equal(y, y_ref.squeeze(axis))
        np.testing.assert_array_equal(dx, dx_ref.squeeze(axis))
        np.testing.assert_array_equal(final, np.squeeze(final_ref, 2))
        np.testing.assert_array_equal(d_initial, np.squeeze(d_initial_ref, 2))
        np.testing.assert_array_equal(grads, lstm.arena.grads)
        np.testing.assert_array_equal(lstm(x, state)[0], y)
        np.testing.assert_array_equal(lstm(x)[0], lstm(batched[0])[0].squeeze(axis))

    def test_batch_first_is_the_transposed_call(self, rng):
        lstm = make(rng, num_layers=2)
        twin = lstmx.LSTM(3, 5, num_layers=2, batch_first=True)
        twin.load_state_dict(lstm.state_dict())
        x, state, _, _ = inputs_for(rng, lstm)
        y, final = lstm(x, state)
        y_twin, final_twin = twin(x.transpose(1, 0, 2), state)
        np.testing.assert_array_equal(y_twin.transpose(1, 0, 2), y)
        np.testing.assert_array_equal(final_twin, final)

    def test_chunks_with_carried_state_are_the_whole(self, rng):
        lstm = make(rng, num_layers=2)
        x, state, _, _ = inputs_for(rng, lstm, steps=9)
        whole, final = lstm(x, state)
        parts = []
        for chunk in np.split(x, [2, 3]):
            y, state = lstm(chunk, state)
            parts.append(y)
        np.testing.assert_array_equal(np.concatenate(parts), whole)
        np.testing.assert_array_equal(state, final)


class TestWhatIsNotNeeded:
    @pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
    def test_is_left_out_and_changes_nothing_else(self, rng, options):
        lstm = make(rng, **options)
        x, state, dy, dstate = inputs_for(rng, lstm)
        dx, d_initial = lstm.forward(x, state)[2](dy, dstate)
        grads = lstm.arena.grads.copy()
        for need_dx, need_dstate in [(False, True), (True, False), (False, False)]:
            lstm.zero_grad()
            got_dx, got_dstate = lstm.forward(x, state)[2](
                dy, dstate, need_dx=need_dx, need_dstate=need_dstate
            )
            np.testing.assert_array_equal(lstm.arena.grads, grads)
            if need_dx:
                np.testing.assert_array_equal(got_dx, dx)
            else:
                assert got_dx is None
            if need_dstate:
                np.testing.assert_array_equal(got_dstate, d_initial)
            else:
                assert got_dstate is None


class TestBackward:
    def test_gradients_accumulate_until_zeroed(self, rng):
        lstm = make(rng)
        x, state, dy, dstate = inputs_for(rng, lstm)
        lstm.forward(x, state)[2](dy, dstate)
        once = lstm.arena.grads.copy()
        lstm.forward(x, state)[2](dy, dstate)
        np.testing.assert_allclose(lstm.arena.grads, 2 * once, rtol=1e-6, atol=1e-6)
        lstm.zero_grad()
        assert not lstm.arena.grads.any()

    def test_belongs_to_its_own_forward_in_any_order(self, rng):
        lstm = make(rng, num_layers=2, bidirectional=True)
        runs = [inputs_for(rng, lstm, steps=steps, batch=batch) for steps, batch in [(6, 4), (3, 2), (6, 4)]]
        expected = [expected_of(lstm, *run) for run in runs]
        backwards = [lstm.forward(x, state)[2] for x, state, _, _ in runs]
        for k in (1, 2, 0):
            lstm.zero_grad()
            dx, _ = backwards[k](*runs[k][2:])
            agree("dx", dx, expected[k][2])
            for name, gradient in expected[k][4].items():
                agree(name, lstm.grads[name], gradient)

    def test_uses_the_weights_of_its_forward(self, rng):
        lstm = make(rng)
        x, state, dy, dstate = inputs_for(rng, lstm)
        expected = expected_of(lstm, x, state, dy, dstate)
        backward = lstm.forward(x, state)[2]
        with lstm.editing() as params:
            for view in params.values():
                view[...] = 0
        lstm(x)
        agree("dx", backward(dy, dstate)[0], expected[2])
        for name, gradient in expected[4].items():
            agree(name, lstm.grads[name], gradient)

    def test_a_second_call_is_refused_and_changes_nothing(self, rng):
        lstm = make(rng, num_layers=2)
        x, state, dy, dstate = inputs_for(rng, lstm)
        backward = lstm.forward(x, state)[2]
        backward(dy, dstate)
        grads = lstm.arena.grads.copy()
        with pytest.raises(RuntimeError, match="already called"):
            backward(dy, dstate)
        np.testing.assert_array_equal(lstm.arena.grads, grads)

    def test_y_is_read_only_after_forward_and_writable_after_inference(self, rng):
        for options in VARIANTS:
            lstm = make(rng, **options)
            x, _, _, _ = inputs_for(rng, lstm)
            with pytest.raises(ValueError, match="read-only"):
                lstm.forward(x)[0][...] = 0
            lstm(x)[0][...] = 0


class TestInputs:
    def test_strided_input_gives_the_same_bits(self, rng):
        lstm = make(rng)
        x = normal(rng, 6, 4, 3)
        y = lstm(x)[0]
        wide = np.zeros((12, 9, 7), np.float32)
        wide[::2, 1::2, 2:5] = x
        apart = normal(rng, 6, 4, 6)
        apart[..., ::2] = x
        buffer = np.empty(x.nbytes + 1, np.uint8)
        misaligned = np.frombuffer(buffer.data, np.float32, x.size, 1).reshape(x.shape)
        misaligned[...] = x
        variants = {
            "strided": wide[::2, 1::2, 2:5],
            "features apart": apart[..., ::2],
            "Fortran order": np.asfortranarray(x),
            "backwards": x[::-1].copy()[::-1],
            "misaligned": misaligned,
            "float64": x.astype(np.float64),
            "big-endian": x.astype(">f4"),
            "list": x.tolist(),
        }
        for name, variant in variants.items():
            np.testing.assert_array_equal(lstm(variant)[0], y, err_msg=name)

    def test_one_feature_with_any_stride(self, rng):
        lstm = make(rng, inputs=1)
        series = normal(rng, 30)
        expected = lstm(series.reshape(30, 1, 1).copy())[0]
        np.testing.assert_array_equal(lstm(series[:, np.newaxis, np.newaxis])[0], expected)
        matrix = np.asfortranarray(normal(rng, 30, 4))
        expected = lstm(np.ascontiguousarray(matrix[:, :1])[:, np.newaxis])[0]
        np.testing.assert_array_equal(lstm(matrix[:, :1][:, np.newaxis])[0], expected)

    def test_overlapping_windows_need_no_copy(self, rng):
        lstm = make(rng, batch_first=True)
        windows = np.lib.stride_tricks.sliding_window_view(normal(rng, 20, 3), 6, axis=0).transpose(0, 2, 1)
        assert np.shares_memory(windows[0], windows[1])
        x = windows.copy()
        dy = normal(rng, *x.shape[:2], 5)
        dx = lstm.forward(x)[2](dy)[0]
        grads = lstm.arena.grads.copy()
        lstm.zero_grad()
        np.testing.assert_array_equal(lstm(windows)[0], lstm(x)[0])
        np.testing.assert_array_equal(lstm.forward(windows)[2](dy)[0], dx)
        np.testing.assert_array_equal(lstm.arena.grads, grads)

    def test_strided_gradients_and_states(self, rng):
        lstm = make(rng)
        x, state, dy, dstate = inputs_for(rng, lstm)
        expected = lstm.forward(x, state)[2](dy, dstate)
        y, final = lstm(x, state)
        spread = [np.stack([a, a], 2)[:, :, 0] for a in (*state, *dstate)]
        got_y, got_final, backward = lstm.forward(x, spread[:2])
        dx, d_initial = backward(np.stack([dy, dy], -1)[..., 0], spread[2:])
        np.testing.assert_array_equal(got_y, y)
        np.testing.assert_array_equal(got_final, final)
        np.testing.assert_array_equal(dx, expected[0])
        np.testing.assert_array_equal(d_initial, expected[1])

    def test_nothing_given_is_written(self, rng):
        lstm = make(rng, num_layers=2, bidirectional=True)
        given = inputs_for(rng, lstm)
        x, state, dy, dstate = given
        arrays = [x, *state, dy, *dstate]
        before = [a.copy() for a in arrays]
        for a in arrays:
            a.flags.writeable = False
        lstm(x, state)
        lstm.forward(x, state)[2](dy, dstate)
        for a, b in zip(arrays, before, strict=True):
            np.testing.assert_array_equal(a, b)


class TestDropoutBetweenLayers:
    def test_acts_in_training_only_and_repeats_with_the_generator(self, rng):
        options = {"num_layers": 3, "dropout": 0.5}
        a, b = (lstmx.LSTM(3, 5, rng=7, **options) for _ in range(2))
        x = normal(rng, 6, 4, 3)
        first, second = a.forward(x)[0], a.forward(x)[0]
        assert np.any(first != second)
        np.testing.assert_array_equal(b.forward(x)[0], first)
        np.testing.assert_array_equal(b.forward(x)[0], second)
        np.testing.assert_array_equal(a(x)[0], a(x)[0])
        plain = lstmx.LSTM(3, 5, num_layers=3)
        plain.load_state_dict(a.state_dict())
        np.testing.assert_array_equal(a(x)[0], plain(x)[0])

    def test_p_one_cuts_the_layers_apart(self, rng):
        lstm = make(rng, num_layers=2, dropout=1.0)
        x = normal(rng, 6, 4, 3)
        y, _, backward = lstm.forward(x)
        np.testing.assert_array_equal(y, lstm.forward(2 * x)[0])
        dx, _ = backward(np.ones_like(y))
        assert not dx.any()
        assert not lstm.grads["weight_ih_l0"].any()
        assert lstm.grads["weight_hh_l1"].any()

    def test_gradients_are_those_of_the_same_masks(self, rng):
        # Two single layers with the mask between them, drawn from a generator in the same state.
        lstm = make(rng, num_layers=2, dropout=0.4)
        x, state, dy, dstate = inputs_for(rng, lstm)
        layers = [lstmx.LSTM(3, 5), lstmx.LSTM(5, 5)]
        for k, layer in enumerate(layers):
            names = {n: n.replace("_l0", f"_l{k}") for n in layer.params}
            layer.load_state_dict({n: lstm.params[m] for n, m in names.items()})
        dropout = lstmx.Dropout(0.4)
        (generator,) = lstm.rngs()
        dropout.rngs()[0].bit_generator.state = generator.bit_generator.state
        stack = lstmx.Sequential(layers[0], dropout, layers[1])
        pairs = [[(h[k : k + 1], c[k : k + 1]) for k in range(2)] for h, c in (state, dstate)]

        y, _, backward = lstm.forward(x, state)
        dx, d_initial = backward(dy, dstate)
        y_stack, _, backward = stack.forward(x, (pairs[0][0], None, pairs[0][1]))
        dx_stack, d_stack = backward(dy, (pairs[1][0], None, pairs[1][1]))
        np.testing.assert_array_equal(y, y_stack)
        np.testing.assert_array_equal(dx, dx_stack)
        np.testing.assert_array_equal(d_initial[0], np.concatenate([d_stack[0][0], d_stack[2][0]]))
        np.testing.assert_array_equal(lstm.arena.grads, stack.arena.grads)

    def test_without_a_second_layer_warns(self):
        with pytest.warns(UserWarning, match="dropout: 0.5 has no effect with num_layers=1"):
            lstm = lstmx.LSTM(2, 3, dropout=0.5)
        assert lstm.rngs() == []


class TestInitialValues:
    def test_pytorch(self):
        lstm = lstmx.LSTM(50, 64, num_layers=2, rng=0)
        bound = 1 / 8
        for name, view in lstm.params.items():
            assert np.abs(view).max() <= bound, name
            assert np.abs(view).max() > 0.95 * bound, name
        weights = lstm.params["weight_hh_l0"]
        assert abs(weights.mean()) < 0.01 * bound * 3
        assert np.isclose(weights.std(), bound / np.sqrt(3), rtol=0.02)

    def test_glorot(self):
        lstm = lstmx.LSTM(50, 64, init="glorot", rng=0)
        for name, fan_in in [("weight_ih_l0", 50), ("weight_hh_l0", 64)]:
            bound = np.sqrt(6 / (fan_in + 256))
            assert 0.99 * bound < np.abs(lstm.params[name]).max() <= bound
        assert not lstm.params["bias_ih_l0"].any()
        assert not lstm.params["bias_hh_l0"].any()

    @pytest.mark.parametrize("init", ["pytorch", "glorot"])
    def test_forget_bias_adds_to_the_forget_slice_of_bias_ih(self, init):
        plain, lstm = (
            lstmx.LSTM(2, 3, 2, init=init, forget_bias=b, bidirectional=True, rng=0) for b in (0, 1)
        )
        for name in lstm.params:
            expected = plain.params[name].copy()
            if name.startswith("bias_ih"):
                expected[3:6] += 1
            np.testing.assert_array_equal(lstm.params[name], expected, err_msg=name)

    def test_same_seed_same_values(self):
        a, b, c = (lstmx.LSTM(2, 3, rng=seed).arena.params for seed in (1, 1, 2))
        np.testing.assert_array_equal(a, b)
        assert np.any(a != c)


class TestAgainstPyTorch:
    @pytest.mark.parametrize("options", VARIANTS, ids=str)
    @pytest.mark.parametrize("unbatched", [False, True])
    def test_outputs_and_all_gradients(self, rng, options, unbatched):
        torch = pytest.importorskip("torch", reason="PyTorch is not installed: NOT compared with it")
        lstm = make(rng, **options)
        other = torch.nn.LSTM(3, 5, dtype=torch.float64, **options)
        other.load_state_dict({n: torch.tensor(v.astype(np.float64)) for n, v in lstm.params.items()})
        assert [n for n, _ in other.named_parameters()] == list(lstm.params)
        x, state, dy, dstate = inputs_for(rng, lstm, batch=1 if unbatched else 4)
        if unbatched:
            axis = 0 if lstm.batch_first else 1
            x, dy = x.squeeze(axis), dy.squeeze(axis)
            state, dstate = (tuple(s.squeeze(1) for s in pair) for pair in (state, dstate))

        def leaf(array):
            return torch.tensor(array, dtype=torch.float64, requires_grad=True)

        x_t, h_t, c_t = leaf(x), leaf(state[0]), leaf(state[1])
        y_t, (hn_t, cn_t) = other(x_t, (h_t, c_t))
        torch.autograd.backward([y_t, hn_t, cn_t], [torch.tensor(a).double() for a in (dy, *dstate)])

        y, (h_n, c_n), backward = lstm.forward(x, state)
        dx, (dh_0, dc_0) = backward(dy, dstate)
        results = {"y": (y, y_t), "h_n": (h_n, hn_t), "c_n": (c_n, cn_t)}
        results |= {"dx": (dx, x_t.grad), "dh_0": (dh_0, h_t.grad), "dc_0": (dc_0, c_t.grad)}
        results |= {n: (lstm.grads[n], p.grad) for n, p in other.named_parameters()}
        for name, (got, expected) in results.items():
            agree(name, got, expected.detach().numpy())

    def test_loads_a_state_dict_of_tensors(self, rng):
        torch = pytest.importorskip("torch", reason="PyTorch is not installed: NOT compared with it")
        other = torch.nn.LSTM(3, 5, 2, bidirectional=True)
        lstm = lstmx.LSTM(3, 5, 2, bidirectional=True)
        lstm.load_state_dict(other.state_dict())
        x = normal(rng, 6, 4, 3)
        agree("y", lstm(x)[0], other(torch.tensor(x))[0].detach().numpy())
