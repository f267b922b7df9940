"""The reference linear layer against finite differences and PyTorch in float64."""

from __future__ import annotations

import numpy as np
import pytest

from lstmx import reference
from tests.reference.finite_differences import assert_gradient


def test_finite_differences(rng):
    inputs = {
        "x": rng.standard_normal((3, 4)),
        "weight": rng.standard_normal((5, 4)),
        "bias": rng.standard_normal(5),
    }
    dy = rng.standard_normal((3, 5))
    gradients = reference.linear_backward(inputs["x"], inputs["weight"], dy)
    for (name, value), gradient in zip(inputs.items(), gradients, strict=True):

        def scalar(changed, name=name):
            return float(np.sum(reference.linear_forward(**(inputs | {name: changed})) * dy))

        assert_gradient(scalar, value, gradient, name)


@pytest.mark.parametrize("bias", [False, True])
def test_against_pytorch(rng, bias):
    torch = pytest.importorskip(
        "torch", reason="PyTorch is not installed: the comparison with it did not run"
    )
    x, weight, dy = rng.standard_normal((3, 4)), rng.standard_normal((5, 4)), rng.standard_normal((3, 5))
    b = rng.standard_normal(5) if bias else None
    ins = [torch.from_numpy(a).requires_grad_() for a in (x, weight, *([b] if bias else []))]
    y = torch.nn.functional.linear(*ins)
    y.backward(torch.from_numpy(dy))
    np.testing.assert_allclose(reference.linear_forward(x, weight, b), y.detach().numpy(), rtol=1e-13)
    gradients = reference.linear_backward(x, weight, dy)
    for name, ours, theirs in zip(gradients._fields, gradients, ins, strict=False):
        np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=1e-12, atol=1e-14, err_msg=name)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"weight: expected shape \(\*, 4\), got \(5, 3\)"):
        reference.linear_forward(np.zeros((3, 4)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"bias: expected shape \(5,\), got \(1,\)"):
        reference.linear_forward(np.zeros((3, 4)), np.zeros((5, 4)), np.zeros(1))
    with pytest.raises(ValueError, match=r"dy: expected shape \(3, 5\), got \(3, 4\)"):
        reference.linear_backward(np.zeros((3, 4)), np.zeros((5, 4)), np.zeros((3, 4)))
