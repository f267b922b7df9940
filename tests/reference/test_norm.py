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
