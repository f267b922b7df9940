"""The reference embedding against finite differences and PyTorch in float64."""

from __future__ import annotations

import numpy as np
import pytest

from lstmx import reference
from tests.reference.finite_differences import assert_gradient

X = np.array([[3, 0, 1], [3, 3, 4]])


def test_finite_differences(rng):
    weight, dy = rng.standard_normal((6, 2)), rng.standard_normal((2, 3, 2))

    def scalar(changed):
        return float(np.sum(reference.embedding_forward(X, changed) * dy))

    assert_gradient(scalar, weight, reference.embedding_backward(X, weight, dy), "weight")


@pytest.mark.parametrize("padding_idx", [None, 3])
def test_against_pytorch(rng, padding_idx):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: NOT compared with it")
    weight, dy = rng.standard_normal((6, 2)), rng.standard_normal((2, 3, 2))
    weight_t = torch.from_numpy(weight).requires_grad_()
    y = torch.nn.functional.embedding(torch.from_numpy(X), weight_t, padding_idx)
    y.backward(torch.from_numpy(dy))
    np.testing.assert_array_equal(reference.embedding_forward(X, weight), y.detach().numpy())
    d_weight = reference.embedding_backward(X, weight, dy, padding_idx)
    np.testing.assert_allclose(d_weight, weight_t.grad.numpy(), rtol=1e-14)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="x: expected 0 to 2, the rows of weight, got"):
        reference.embedding_forward([0, 3], np.zeros((3, 2)))
    with pytest.raises(TypeError, match="x: expected integers, got dtype float64"):
        reference.embedding_forward([0.0], np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"dy: expected shape \(1, 2\), got \(2, 2\)"):
        reference.embedding_backward([0], np.zeros((3, 2)), np.zeros((2, 2)))
