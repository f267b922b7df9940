"""The reference's activations and softmax: slopes by finite differences, values against PyTorch, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from lstmx import reference
from tests.reference.finite_differences import assert_gradient

# Away from the corners, which have no slope: at 0, 1 (thresholded_relu) and +-2.5 (hard_sigmoid).
X = np.array([-7.3, -2.4, -1.1, -0.3, 0.2, 0.7, 1.3, 2.4, 6.9])

OF_TORCH = {
    "sigmoid": lambda torch: torch.nn.Sigmoid(),
    "tanh": lambda torch: torch.nn.Tanh(),
    "relu": lambda torch: torch.nn.ReLU(),
    "softsign": lambda torch: torch.nn.Softsign(),
    "softplus": lambda torch: torch.nn.Softplus(threshold=1000),
    "elu": lambda torch: torch.nn.ELU(),
    "leaky_relu": lambda torch: torch.nn.LeakyReLU(),
    "thresholded_relu": lambda torch: torch.nn.Threshold(1.0, 0.0),
}


@pytest.mark.parametrize("parameters", [(), (0.4, 0.7)], ids=["usual", "own"])
@pytest.mark.parametrize("name", reference.ACTIVATIONS)
def test_slopes_by_finite_differences(rng, name, parameters):
    usual = reference.Activation(name)
    named = zip(("alpha", "beta"), parameters, strict=False)
    function = reference.Activation(name, **{k: v for k, v in named if getattr(usual, k) is not None})
    dy = rng.standard_normal(X.shape)
    gradient = dy * function.slope(function(X))
    assert_gradient(lambda x: float(np.sum(function(x) * dy)), X, gradient, name)


@pytest.mark.parametrize("name", OF_TORCH)
def test_values_and_slopes_of_pytorch(name):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: NOT compared with it")
    x = torch.tensor(X, requires_grad=True)
    y = OF_TORCH[name](torch)(x)
    y.sum().backward()
    function = reference.Activation(name)
    np.testing.assert_allclose(function(X), y.detach().numpy(), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(function.slope(function(X)), x.grad.numpy(), rtol=1e-11, atol=1e-15)


def test_softmax_by_finite_differences(rng):
    x, dy = rng.standard_normal((2, 3, 5))
    gradient = reference.softmax_backward(reference.softmax(x), dy)
    assert_gradient(lambda x: float(np.sum(reference.softmax(x) * dy)), x, gradient, "dx")


def test_softmax_is_that_of_pytorch_and_sums_to_1(rng):
    x, dy = 30 * rng.standard_normal((2, 4, 3, 5))
    x[0, 0] += 1e6
    y = reference.softmax(x)
    np.testing.assert_allclose(y.sum(axis=-1), 1, rtol=1e-15)
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: NOT compared with it")
    x_t = torch.tensor(x, requires_grad=True)
    y_t = torch.softmax(x_t, -1)
    y_t.backward(torch.tensor(dy))
    np.testing.assert_allclose(y, y_t.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(reference.softmax_backward(y, dy), x_t.grad.numpy(), rtol=1e-10, atol=1e-12)


def test_softmax_refuses_other_shapes_and_kinds():
    with pytest.raises(ValueError, match=r"dy: expected shape \(2, 3\), got \(3,\)"):
        reference.softmax_backward(np.zeros((2, 3)), np.zeros(3))
    with pytest.raises(TypeError, match="x: expected real numbers, got dtype"):
        reference.softmax(["a"])
