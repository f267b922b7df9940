"""The reference normalizations against finite differences and PyTorch in float64."""

from __future__ import annotations

import numpy as np
import pytest

from lstmx import reference
from tests.reference.finite_differences import assert_gradient


class TestLayerNorm:
    def test_finite_differences(self, rng):
        inputs = {
            "x": rng.standard_normal((3, 6)),
            "weight": rng.standard_normal(6),
            "bias": rng.standard_normal(6),
        }
        dy = rng.standard_normal((3, 6))
        gradients = reference.layer_norm_backward(inputs["x"], inputs["weight"], dy, eps=0.1)
        for (name, value), gradient in zip(inputs.items(), gradients, strict=True):

            def scalar(changed, name=name):
                return float(np.sum(reference.layer_norm_forward(**(inputs | {name: changed}), eps=0.1) * dy))

            assert_gradient(scalar, value, gradient, name)

    def test_against_pytorch(self, rng):
        torch = pytest.importorskip("torch", reason="PyTorch is not installed: NOT compared with it")
        x, dy = rng.standard_normal((2, 3, 6))
        weight, bias = rng.standard_normal((2, 6))
        ins = [torch.from_numpy(a).requires_grad_() for a in (x, weight, bias)]
        y = torch.nn.functional.layer_norm(ins[0], (6,), *ins[1:])
        y.backward(torch.from_numpy(dy))
        got = reference.layer_norm_forward(x, weight, bias)
        np.testing.assert_allclose(got, y.detach().numpy(), rtol=1e-12, atol=1e-13)
        gradients = reference.layer_norm_backward(x, weight, dy)
        for name, ours, theirs in zip(gradients._fields, gradients, ins, strict=True):
            np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=1e-11, atol=1e-13, err_msg=name)

    def test_wrong_shapes_are_refused(self):
        with pytest.raises(ValueError, match=r"weight: expected shape \(4,\), got \(3,\)"):
            reference.layer_norm_forward(np.zeros((2, 4)), np.zeros(3), np.zeros(4))
        with pytest.raises(ValueError, match=r"dy: expected shape \(2, 4\), got \(2, 3\)"):
            reference.layer_norm_backward(np.zeros((2, 4)), np.zeros(4), np.zeros((2, 3)))


LENGTHS = [4, 0, 2]


class TestBatchNorm:
    def inputs(self, rng):
        x, weight, bias = rng.standard_normal((4, 3, 2)), rng.standard_normal(2), rng.standard_normal(2)
        return {"x": x, "weight": weight, "bias": bias}

    @pytest.mark.parametrize("lengths", [None, LENGTHS])
    def test_finite_differences(self, rng, lengths):
        inputs, dy = self.inputs(rng), rng.standard_normal((4, 3, 2))
        options = {"lengths": lengths, "eps": 0.1}
        gradients = reference.batch_norm_backward(inputs["x"], inputs["weight"], dy, **options)
        for (name, value), gradient in zip(inputs.items(), gradients, strict=True):

            def scalar(changed, name=name):
                running = {"running_mean": np.zeros(2), "running_var": np.ones(2)}
                y = reference.batch_norm_forward(**(inputs | {name: changed}), **running, **options).y
                return float(np.sum(y * dy))

            assert_gradient(scalar, value, gradient, name)

    @pytest.mark.parametrize("lengths", [None, LENGTHS])
    def test_against_pytorch(self, rng, lengths):
        torch = pytest.importorskip("torch", reason="PyTorch is not installed: NOT compared with it")
        inputs, dy = self.inputs(rng), rng.standard_normal((4, 3, 2))
        counted = np.arange(4)[:, None] < (lengths or [4, 4, 4])
        ins = [torch.from_numpy(a).requires_grad_() for a in inputs.values()]
        mean, var = rng.standard_normal(2), rng.random(2)
        running = torch.from_numpy(mean.copy()), torch.from_numpy(var.copy())
        batch_norm = torch.nn.functional.batch_norm
        y = batch_norm(ins[0][torch.from_numpy(counted)], *running, *ins[1:], training=True, momentum=0.3)
        y.backward(torch.from_numpy(dy[counted]))
        dirty = inputs["x"].copy(), dy.copy()
        for array in dirty:
            array[~counted] = np.nan
        got = reference.batch_norm_forward(
            dirty[0], inputs["weight"], inputs["bias"], mean, var, lengths=lengths, momentum=0.3
        )
        assert not got.y[~counted].any()
        np.testing.assert_allclose(got.y[counted], y.detach().numpy(), rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(got.running_mean, running[0].numpy(), rtol=1e-13)
        np.testing.assert_allclose(got.running_var, running[1].numpy(), rtol=1e-13)
        gradients = reference.batch_norm_backward(dirty[0], inputs["weight"], dirty[1], lengths=lengths)
        for name, ours, theirs in zip(gradients._fields, gradients, ins, strict=True):
            np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=1e-11, atol=1e-13, err_msg=name)
        y = batch_norm(ins[0][torch.from_numpy(counted)], *running, *ins[1:])
        inferred = reference.batch_norm_inference(
            dirty[0], inputs["weight"], inputs["bias"], *got[1:], lengths=lengths
        )
        assert not inferred[~counted].any()
        np.testing.assert_allclose(inferred[counted], y.detach().numpy(), rtol=1e-12, atol=1e-13)

    @pytest.mark.parametrize("lengths", [[0, 0, 0], [0, 1, 0]])
    def test_too_few_steps_for_statistics(self, rng, lengths):
        inputs = self.inputs(rng)
        y, mean, var = reference.batch_norm_forward(
            **inputs, running_mean=[1, 2], running_var=[3, 4], lengths=lengths
        )
        assert (mean.tolist(), var.tolist()) == ([1, 2], [3, 4])
        np.testing.assert_array_equal(y[0, 1], inputs["bias"] * lengths[1])
        dx, d_weight, _ = reference.batch_norm_backward(
            inputs["x"], inputs["weight"], np.ones((4, 3, 2)), lengths=lengths
        )
        assert not dx.any()
        assert not d_weight.any()

    def test_wrong_shapes_are_refused(self):
        one = np.ones(2)
        with pytest.raises(ValueError, match=r"running_var: expected shape \(2,\), got \(3,\)"):
            reference.batch_norm_forward(np.zeros((4, 3, 2)), one, one, one, np.ones(3))
        with pytest.raises(ValueError, match=r"x: expected shape \(\*, \*, \*\), got \(4, 2\)"):
            reference.batch_norm_inference(np.zeros((4, 2)), one, one, one, one)
        with pytest.raises(ValueError, match=r"lengths: expected shape \(3,\), got \(1,\)"):
            reference.batch_norm_backward(np.zeros((4, 3, 2)), one, np.zeros((4, 3, 2)), lengths=[1])
