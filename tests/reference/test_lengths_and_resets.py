"""Lengths and resets of the reference: finite differences, PyTorch packed sequences, rows, pieces alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lstmx import reference
from tests.reference.finite_differences import assert_gradient
from tests.reference.test_lstm import (
    GRADIENTS,
    NAMES,
    assert_stack_gradients,
    layer_inputs,
    stack_params,
)

LENGTHS = np.array([4, 0, 2])
RESETS = np.array([[0, 1, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0]], bool).T  # [T,B], some beyond the lengths


def run(inputs, dy, dh_n, dc_n, **spans):
    """Outputs and all gradients of one layer by name."""
    y, h_n, c_n, tape = reference.lstm_forward(**inputs, **spans)
    return {"y": y, "h_n": h_n, "c_n": c_n} | reference.lstm_backward(tape, dy, dh_n, dc_n)._asdict()


def output_gradients(rng, steps=4, batch=3, hidden=5):
    return rng.standard_normal((steps, batch, hidden)), *rng.standard_normal((2, batch, hidden))


class TestFiniteDifferences:
    @pytest.mark.parametrize(
        "spans",
        [{"lengths": LENGTHS}, {"resets": RESETS}, {"lengths": LENGTHS, "resets": RESETS}],
        ids=lambda spans: "+".join(spans),
    )
    def test_every_gradient_of_one_layer(self, rng, spans):
        inputs = layer_inputs(rng)
        dy, dh_n, dc_n = output_gradients(rng)
        results = run(inputs, dy, dh_n, dc_n, **spans)
        for name, gradient in zip(NAMES, GRADIENTS, strict=True):

            def scalar(value, name=name):
                y, h_n, c_n, _ = reference.lstm_forward(**(inputs | {name: value}), **spans)
                return float(np.sum(y * dy) + np.sum(h_n * dh_n) + np.sum(c_n * dc_n))

            assert_gradient(scalar, inputs[name], results[gradient], gradient)

    def test_every_gradient_of_a_stack_of_both_directions(self, rng):
        params = stack_params(rng, 2, 2, 2, bidirectional=True)
        x, state = rng.standard_normal((4, 3, 2)), rng.standard_normal((2, 4, 3, 2))
        options = {"num_layers": 2, "bidirectional": True, "lengths": LENGTHS, "resets": RESETS}
        assert_stack_gradients(rng, x, params, state, **options)


class TestAgainstPyTorch:
    """Packed sequences, unsorted: outputs, states and all gradients, within float64 rounding."""

    @pytest.mark.parametrize("num_layers", [1, 3])
    @pytest.mark.parametrize("bidirectional", [False, True])
    @pytest.mark.parametrize("batch_first", [False, True])
    def test_stack(self, rng, num_layers, bidirectional, batch_first):
        torch = pytest.importorskip(
            "torch", reason="PyTorch is not installed: the comparison with it did not run"
        )
        lengths = np.array([3, 7, 1, 7, 4])
        cells = num_layers * (2 if bidirectional else 1)
        params = stack_params(rng, 3, 4, num_layers, bidirectional)
        x = rng.standard_normal((5, 7, 3) if batch_first else (7, 5, 3))
        h_0, c_0 = rng.standard_normal((2, cells, 5, 4))
        options = {"num_layers": num_layers, "bidirectional": bidirectional, "batch_first": batch_first}
        y, (h_n, c_n), backward = reference.lstm(x, params, (h_0, c_0), lengths=lengths, **options)
        dy, dh_n, dc_n = (rng.standard_normal(a.shape) for a in (y, h_n, c_n))
        dx, (dh_0, dc_0), grads = backward(dy, (dh_n, dc_n))

        judge = torch.nn.LSTM(3, 4, dtype=torch.float64, **options)
        judge.load_state_dict({name: torch.from_numpy(value) for name, value in params.items()})
        ins = [torch.from_numpy(a).requires_grad_() for a in (x, h_0, c_0)]
        rnn = torch.nn.utils.rnn
        layout = {"batch_first": batch_first}
        packed = rnn.pack_padded_sequence(ins[0], torch.from_numpy(lengths), enforce_sorted=False, **layout)
        their_y, (their_h_n, their_c_n) = judge(packed, (ins[1], ins[2]))
        their_y = rnn.pad_packed_sequence(their_y, total_length=7, **layout)[0]
        outputs = (their_y, their_h_n, their_c_n)
        torch.autograd.backward(outputs, [torch.from_numpy(a) for a in (dy, dh_n, dc_n)])

        ours = {"y": y, "h_n": h_n, "c_n": c_n, "dx": dx, "dh_0": dh_0, "dc_0": dc_0} | grads
        theirs = dict(zip(("y", "h_n", "c_n"), (o.detach() for o in outputs), strict=True))
        theirs |= dict(zip(("dx", "dh_0", "dc_0"), (i.grad for i in ins), strict=True))
        theirs |= {name: parameter.grad for name, parameter in judge.named_parameters()}
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            np.testing.assert_allclose(value, theirs[name].numpy(), rtol=1e-11, atol=1e-12, err_msg=name)


class TestMeaning:
    def test_a_row_is_the_row_alone_cut_to_its_length(self, rng):
        inputs = layer_inputs(rng)
        dy, dh_n, dc_n = output_gradients(rng)
        whole = run(inputs, dy, dh_n, dc_n, lengths=LENGTHS)
        sums = dict.fromkeys(("d_weight_ih", "d_weight_hh", "d_bias_ih", "d_bias_hh"), 0.0)
        for b, n in enumerate(LENGTHS):
            row = inputs | {"x": inputs["x"][:n, b : b + 1]}
            row |= {name: inputs[name][b : b + 1] for name in ("h_0", "c_0")}
            alone = run(row, dy[:n, b : b + 1], dh_n[b : b + 1], dc_n[b : b + 1])
            for name in ("y", "dx"):
                np.testing.assert_allclose(whole[name][:n, b], alone[name][:, 0], rtol=1e-12, err_msg=name)
                assert not whole[name][n:, b].any(), name
            for name in ("h_n", "c_n", "dh_0", "dc_0"):
                np.testing.assert_allclose(whole[name][b], alone[name][0], rtol=1e-12, err_msg=name)
            sums = {name: value + alone[name] for name, value in sums.items()}
        for name, value in sums.items():
            np.testing.assert_allclose(whole[name], value, rtol=1e-10, atol=1e-13, err_msg=name)

    def test_padding_is_never_read(self, rng):
        inputs = layer_inputs(rng)
        dy, dh_n, dc_n = output_gradients(rng)
        clean = run(inputs, dy, dh_n, dc_n, lengths=LENGTHS)
        padding = np.arange(4)[:, None] >= LENGTHS
        x, dy = inputs["x"].copy(), dy.copy()
        x[padding], dy[padding] = np.nan, np.nan
        poisoned = run(inputs | {"x": x}, dy, dh_n, dc_n, lengths=LENGTHS)
        for name, value in clean.items():
            np.testing.assert_array_equal(poisoned[name], value, err_msg=name)

    def test_a_row_without_steps_hands_its_state_through(self, rng):
        inputs = layer_inputs(rng)
        dy, dh_n, dc_n = output_gradients(rng)
        inputs["h_0"][1] = np.nan  # nor does it disturb the gradients of the weights
        got = run(inputs, dy, dh_n, dc_n, lengths=LENGTHS, resets=np.ones((4, 3), bool))
        assert np.isnan(got["h_n"][1]).all()
        np.testing.assert_array_equal(got["c_n"][1], inputs["c_0"][1])
        np.testing.assert_array_equal(got["dh_0"][1], dh_n[1])
        np.testing.assert_array_equal(got["dc_0"][1], dc_n[1])
        assert np.isfinite(got["d_weight_hh"]).all()

    def test_a_reset_makes_zero_of_anything(self, rng):
        inputs = layer_inputs(rng)
        dy, dh_n, dc_n = output_gradients(rng)
        resets = np.zeros((4, 3), bool)
        resets[0] = True
        zero = inputs | {"h_0": None, "c_0": None}
        bad = inputs | {"h_0": np.full((3, 5), np.nan), "c_0": np.full((3, 5), np.inf)}
        got, want = run(bad, dy, dh_n, dc_n, resets=resets), run(zero, dy, dh_n, dc_n)
        for name in ("dh_0", "dc_0"):
            assert not got.pop(name).any()
        for name, value in got.items():
            np.testing.assert_array_equal(value, want[name], err_msg=name)

    @pytest.mark.parametrize("bidirectional", [False, True])
    @pytest.mark.parametrize("lengths", [[7, 7], [6, 3], [7, 0]], ids=str)
    def test_resets_are_pieces_on_their_own(self, rng, bidirectional, lengths):
        """In both directions; the initial state enters the first piece forward, the last piece in reverse."""
        directions = 2 if bidirectional else 1
        params = stack_params(rng, 3, 4, 1, bidirectional)
        x = rng.standard_normal((7, 2, 3))
        h_0, c_0, dh_n, dc_n = rng.standard_normal((4, directions, 2, 4))
        resets = np.zeros((7, 2), bool)
        resets[[2, 3, 6], 0] = True
        resets[[0, 1], 1] = True
        options = {"bidirectional": bidirectional}
        y, final, backward = reference.lstm(x, params, (h_0, c_0), lengths=lengths, resets=resets, **options)
        dy = rng.standard_normal(y.shape)
        dx, d_initial, grads = backward(dy, (dh_n, dc_n))

        sums = dict.fromkeys(grads, 0.0)
        for b, n in enumerate(lengths):
            cuts = [t for t in range(1, n) if resets[t, b]]
            pieces = list(itertools.pairwise([0, *cuts, n]))
            for start, stop in pieces:
                # which directions begin this piece with the initial state, and end the row with it
                first = start == 0 and not (n and resets[0, b])
                begins = np.array([first, stop == n])[:directions, None, None]
                ends = np.array([stop == n, start == 0])[:directions, None, None]
                row = slice(b, b + 1)
                state = (np.where(begins, h_0[:, row], 0), np.where(begins, c_0[:, row], 0))
                dstate = (np.where(ends, dh_n[:, row], 0), np.where(ends, dc_n[:, row], 0))
                y_k, final_k, backward_k = reference.lstm(x[start:stop, row], params, state, **options)
                dx_k, d_initial_k, grads_k = backward_k(dy[start:stop, row], dstate)
                np.testing.assert_allclose(y[start:stop, row], y_k, rtol=1e-12)
                np.testing.assert_allclose(dx[start:stop, row], dx_k, rtol=1e-10)
                for k in range(2):
                    got, want = final[k][:, row], final_k[k]
                    np.testing.assert_allclose(np.where(ends, got, 0), np.where(ends, want, 0), rtol=1e-12)
                    got, want = d_initial[k][:, row], d_initial_k[k]
                    np.testing.assert_allclose(
                        np.where(begins, got, 0), np.where(begins, want, 0), rtol=1e-10
                    )
                sums = {name: value + grads_k[name] for name, value in sums.items()}
            if n and resets[0, b]:
                assert not d_initial[0][0, b].any()
        for name, value in sums.items():
            np.testing.assert_allclose(grads[name], value, rtol=1e-10, atol=1e-13, err_msg=name)

    def test_batch_first_resets_have_the_batch_first(self, rng):
        params = stack_params(rng, 2, 3, 1, bidirectional=True)
        x = rng.standard_normal((4, 3, 2))
        options = {"bidirectional": True, "lengths": LENGTHS}
        y, final, _ = reference.lstm(x, params, resets=RESETS, **options)
        other, other_final, _ = reference.lstm(
            x.swapaxes(0, 1), params, resets=RESETS.T, batch_first=True, **options
        )
        np.testing.assert_array_equal(other.swapaxes(0, 1), y)
        np.testing.assert_array_equal(other_final, final)


@pytest.mark.parametrize(
    ("spans", "error", "message"),
    [
        ({"lengths": [4, 4]}, ValueError, r"lengths: expected shape \(3,\), got \(2,\)"),
        ({"lengths": [4.0, 4.0, 4.0]}, TypeError, "lengths: expected integers, got dtype float64"),
        ({"lengths": [4, 5, 4]}, ValueError, "lengths: expected 0 to 4, the steps of x, got"),
        ({"lengths": [4, -1, 4]}, ValueError, "lengths: expected 0 to 4, the steps of x, got"),
        ({"resets": np.zeros((3, 4), bool)}, ValueError, r"resets: expected shape \(4, 3\), got \(3, 4\)"),
        ({"resets": np.zeros((4, 3))}, TypeError, "resets: expected True and False, got dtype float64"),
    ],
)
def test_refusals(rng, spans, error, message):
    with pytest.raises(error, match=message):
        reference.lstm_forward(**layer_inputs(rng), **spans)
