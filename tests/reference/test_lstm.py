"""The reference LSTM against finite differences, against PyTorch in float64, and cut into chunks."""

from __future__ import annotations

import numpy as np
import pytest

from lstmx import reference
from tests.reference.finite_differences import assert_gradient

NAMES = ("x", "weight_ih", "weight_hh", "bias_ih", "bias_hh", "h_0", "c_0")
GRADIENTS = ("dx", "d_weight_ih", "d_weight_hh", "d_bias_ih", "d_bias_hh", "dh_0", "dc_0")


def layer_inputs(rng, steps=4, batch=3, inputs=2, hidden=5):
    shapes = {
        "x": (steps, batch, inputs),
        "weight_ih": (4 * hidden, inputs),
        "weight_hh": (4 * hidden, hidden),
        "bias_ih": (4 * hidden,),
        "bias_hh": (4 * hidden,),
        "h_0": (batch, hidden),
        "c_0": (batch, hidden),
    }
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def stack_params(rng, inputs, hidden, num_layers, bidirectional, bias=True):
    params = {}
    for k in range(num_layers):
        for way in ("", "_reverse") if bidirectional else ("",):
            size = inputs if k == 0 else hidden * (2 if bidirectional else 1)
            params[f"weight_ih_l{k}{way}"] = rng.standard_normal((4 * hidden, size)) * 0.5
            params[f"weight_hh_l{k}{way}"] = rng.standard_normal((4 * hidden, hidden)) * 0.5
            if bias:
                params[f"bias_ih_l{k}{way}"] = rng.standard_normal(4 * hidden)
                params[f"bias_hh_l{k}{way}"] = rng.standard_normal(4 * hidden)
    return params


def assert_stack_gradients(rng, x, params, state, **options):
    """Every gradient of `reference.lstm` with these options, by finite differences."""
    y, (h_n, c_n), backward = reference.lstm(x, params, (state[0], state[1]), **options)
    dy, dh_n, dc_n = (rng.standard_normal(a.shape) for a in (y, h_n, c_n))
    dx, (dh_0, dc_0), grads = backward(dy, (dh_n, dc_n))
    assert grads.keys() == params.keys()

    def scalar(x=x, h_0=state[0], c_0=state[1], **changed):
        y, (h_n, c_n), _ = reference.lstm(x, params | changed, (h_0, c_0), **options)
        return float(np.sum(y * dy) + np.sum(h_n * dh_n) + np.sum(c_n * dc_n))

    assert_gradient(lambda v: scalar(x=v), x, dx, "dx")
    assert_gradient(lambda v: scalar(h_0=v), state[0], dh_0, "dh_0")
    assert_gradient(lambda v: scalar(c_0=v), state[1], dc_0, "dc_0")
    for name, value in params.items():
        assert_gradient(lambda v, name=name: scalar(**{name: v}), value, grads[name], name)


class TestFiniteDifferences:
    @pytest.mark.parametrize("steps", [1, 4])
    def test_every_gradient_of_one_layer(self, rng, steps):
        inputs = layer_inputs(rng, steps)
        dy = rng.standard_normal((steps, 3, 5))
        dh_n, dc_n = rng.standard_normal((2, 3, 5))
        tape = reference.lstm_forward(**inputs)[3]
        gradients = reference.lstm_backward(tape, dy, dh_n, dc_n)

        for name, gradient in zip(NAMES, GRADIENTS, strict=True):

            def scalar(value, name=name):
                y, h_n, c_n, _ = reference.lstm_forward(**(inputs | {name: value}))
                return float(np.sum(y * dy) + np.sum(h_n * dh_n) + np.sum(c_n * dc_n))

            assert_gradient(scalar, inputs[name], getattr(gradients, gradient), gradient)

    @pytest.mark.parametrize("given", ["dy", "dh_n", "dc_n"])
    def test_each_output_gradient_alone(self, rng, given):
        inputs = layer_inputs(rng)
        y, h_n, c_n, tape = reference.lstm_forward(**inputs)
        outputs = {"dy": y, "dh_n": h_n, "dc_n": c_n}
        gradient = rng.standard_normal(outputs[given].shape)
        zeros = {name: np.zeros_like(output) for name, output in outputs.items()}
        alone = reference.lstm_backward(tape, **{given: gradient})
        whole = reference.lstm_backward(tape, **(zeros | {given: gradient}))
        assert any(np.any(g != 0) for g in alone)
        for name, a, b in zip(alone._fields, alone, whole, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)

    @pytest.mark.parametrize("bidirectional", [False, True])
    @pytest.mark.parametrize("batch_first", [False, True])
    def test_every_gradient_of_a_stack(self, rng, bidirectional, batch_first):
        options = {"num_layers": 2, "bidirectional": bidirectional, "batch_first": batch_first}
        directions = 2 if bidirectional else 1
        params = stack_params(rng, 2, 3, 2, bidirectional)
        x = rng.standard_normal((2, 3, 2))
        state = rng.standard_normal((2, 2 * directions, 2 if batch_first else 3, 3))
        assert_stack_gradients(rng, x, params, state, **options)


class TestAgainstPyTorch:
    """Outputs and all gradients, within float64 rounding."""

    @pytest.mark.parametrize("num_layers", [1, 3])
    @pytest.mark.parametrize("bidirectional", [False, True])
    @pytest.mark.parametrize("bias", [False, True])
    @pytest.mark.parametrize("batch_first", [False, True])
    def test_stack(self, rng, num_layers, bidirectional, bias, batch_first):
        torch = pytest.importorskip(
            "torch", reason="PyTorch is not installed: the comparison with it did not run"
        )
        directions = 2 if bidirectional else 1
        params = stack_params(rng, 7, 6, num_layers, bidirectional, bias)
        x = rng.standard_normal((4, 5, 7))
        batch = 4 if batch_first else 5
        h_0, c_0 = rng.standard_normal((2, num_layers * directions, batch, 6))
        options = {"num_layers": num_layers, "bidirectional": bidirectional, "batch_first": batch_first}
        y, (h_n, c_n), backward = reference.lstm(x, params, (h_0, c_0), **options)
        dy, dh_n, dc_n = (rng.standard_normal(a.shape) for a in (y, h_n, c_n))
        dx, (dh_0, dc_0), grads = backward(dy, (dh_n, dc_n))

        judge = torch.nn.LSTM(7, 6, bias=bias, dtype=torch.float64, **options)
        judge.load_state_dict({name: torch.from_numpy(value) for name, value in params.items()})
        ins = [torch.from_numpy(a).requires_grad_() for a in (x, h_0, c_0)]
        their_y, (their_h_n, their_c_n) = judge(ins[0], (ins[1], ins[2]))
        outputs = (their_y, their_h_n, their_c_n)
        torch.autograd.backward(outputs, [torch.from_numpy(a) for a in (dy, dh_n, dc_n)])

        ours = {"y": y, "h_n": h_n, "c_n": c_n, "dx": dx, "dh_0": dh_0, "dc_0": dc_0} | grads
        theirs = dict(zip(("y", "h_n", "c_n"), (o.detach() for o in outputs), strict=True))
        theirs |= dict(zip(("dx", "dh_0", "dc_0"), (i.grad for i in ins), strict=True))
        theirs |= {name: parameter.grad for name, parameter in judge.named_parameters()}
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            np.testing.assert_allclose(value, theirs[name].numpy(), rtol=1e-11, atol=1e-12, err_msg=name)


class TestBehaviour:
    def test_gates_are_in_the_order_i_f_g_o(self):
        """Each gate opened by its bias alone; a wrong order moves one of these numbers."""
        hidden = 1
        bias = np.array([0.1, 0.2, 0.3, 0.4])
        zero = np.zeros((4, hidden))
        y, _, c_n, _ = reference.lstm_forward(np.zeros((1, 1, 1)), zero, zero, bias, c_0=np.full((1, 1), 2.0))
        i, f, o = (1 / (1 + np.exp(-bias[n])) for n in (0, 1, 3))
        c = f * 2.0 + i * np.tanh(0.3)
        np.testing.assert_allclose(c_n, c, rtol=1e-15)
        np.testing.assert_allclose(y[0], o * np.tanh(c), rtol=1e-15)

    def test_chunks_with_carried_state_are_the_whole(self, rng):
        inputs = layer_inputs(rng, steps=6)
        y, h_n, c_n, _ = reference.lstm_forward(**inputs)
        head, h, c, _ = reference.lstm_forward(**(inputs | {"x": inputs["x"][:2]}))
        tail, h, c, _ = reference.lstm_forward(**(inputs | {"x": inputs["x"][2:], "h_0": h, "c_0": c}))
        np.testing.assert_array_equal(np.concatenate([head, tail]), y)
        np.testing.assert_array_equal(h, h_n)
        np.testing.assert_array_equal(c, c_n)

    @pytest.mark.parametrize(("steps", "batch"), [(0, 3), (4, 0)])
    def test_nothing_to_do(self, rng, steps, batch):
        inputs = layer_inputs(rng, steps, batch)
        y, h_n, c_n, tape = reference.lstm_forward(**inputs)
        assert y.shape == (steps, batch, 5)
        if steps == 0:
            np.testing.assert_array_equal(h_n, inputs["h_0"])
            np.testing.assert_array_equal(c_n, inputs["c_0"])
        gradients = reference.lstm_backward(tape, dh_n=np.ones((batch, 5)))
        assert gradients.dx.shape == (steps, batch, 2)
        assert not gradients.d_weight_ih.any()
        np.testing.assert_array_equal(gradients.dh_0, np.ones((batch, 5)))

    def test_inputs_are_not_written(self, rng):
        params = stack_params(rng, 2, 3, 2, True)
        for value in params.values():
            value.setflags(write=False)
        x = rng.standard_normal((4, 3, 2))
        dstate = np.ones((2, 4, 3, 3))
        before = dstate.copy()
        y, _, backward = reference.lstm(x, params, num_layers=2, bidirectional=True)
        first = backward(np.ones_like(y), (dstate[0], dstate[1]))
        second = backward(np.ones_like(y), (dstate[0], dstate[1]))
        np.testing.assert_array_equal(dstate, before)
        np.testing.assert_array_equal(first[0], second[0])

    @pytest.mark.parametrize(
        ("name", "shape", "message"),
        [
            ("x", (4, 3), r"x: expected shape \(\*, \*, \*\), got \(4, 3\)"),
            ("weight_ih", (20, 3), r"weight_ih: expected shape \(\*, 2\), got \(20, 3\)"),
            ("weight_ih", (19, 2), r"weight_ih: expected shape \(16, 2\), got \(19, 2\)"),
            ("weight_hh", (20, 4), r"weight_hh: expected shape \(20, 5\), got \(20, 4\)"),
            ("bias_ih", (5,), r"bias_ih: expected shape \(20,\), got \(5,\)"),
            ("bias_hh", (5,), r"bias_hh: expected shape \(20,\), got \(5,\)"),
            ("h_0", (1, 5), r"h_0: expected shape \(3, 5\), got \(1, 5\)"),
            ("c_0", (3, 1), r"c_0: expected shape \(3, 5\), got \(3, 1\)"),
        ],
    )
    def test_wrong_shapes_are_refused(self, rng, name, shape, message):
        with pytest.raises(ValueError, match=message):
            reference.lstm_forward(**(layer_inputs(rng) | {name: np.zeros(shape)}))

    def test_complex_numbers_are_refused(self, rng):
        with pytest.raises(TypeError, match="x: expected real numbers, got dtype complex128"):
            reference.lstm_forward(**(layer_inputs(rng) | {"x": np.zeros((4, 3, 2), complex)}))


@pytest.mark.parametrize("x", [-1e4, -745.0, -100.0, -20.0, -1.0, 0.0, 1.0, 40.0, 1e4])
def test_sigmoid_is_accurate_in_both_tails(x):
    from decimal import Decimal, getcontext

    getcontext().prec = 50
    expected = float(1 / (1 + (-Decimal(x)).exp()))
    np.testing.assert_allclose(reference.sigmoid(np.array(x)), expected, rtol=2e-13, atol=5e-324)
