"""The reference losses against finite differences and PyTorch in float64; weights, masks, divisors."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from lstmx import reference
from tests.reference.finite_differences import assert_gradient

REGRESSION = {
    "mse": reference.mse,
    "mae": reference.mae,
    "huber": partial(reference.huber, delta=0.7),
}
LOSSES = REGRESSION | {"cross_entropy": reference.cross_entropy}
DIVISORS = ("elements", "batch", "none")
PREDICTION = (4, 3, 5)


def problem(rng, name):
    """A prediction and a target; the elements are [4,3,5], for classes [4,3]."""
    pred = rng.standard_normal(PREDICTION) * 2
    target = rng.integers(0, 5, (4, 3)) if name == "cross_entropy" else rng.standard_normal(PREDICTION)
    return pred, target


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("divisor", DIVISORS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_finite_differences(rng, name, divisor, weighted, masked):
    pred, target = problem(rng, name)
    options = {
        "weights": rng.random(target.shape) + 0.5 if weighted else None,
        "mask": rng.random(target.shape) < 0.6 if masked else None,
        "divisor": divisor,
    }
    loss = LOSSES[name]
    _, gradient = loss(pred, target, **options)
    assert_gradient(lambda p: loss(p, target, **options)[0], pred, gradient, name)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("divisor", "reduction"), [("elements", "mean"), ("none", "sum"), ("batch", "sum")])
def test_against_pytorch(rng, name, divisor, reduction):
    torch = pytest.importorskip(
        "torch", reason="PyTorch is not installed: the comparison with it did not run"
    )
    functional = torch.nn.functional
    judges = {
        "mse": functional.mse_loss,
        "mae": functional.l1_loss,
        "huber": partial(functional.huber_loss, delta=0.7),
        # PyTorch has the classes on the second axis
        "cross_entropy": lambda p, t, reduction: functional.cross_entropy(
            p.movedim(-1, 1), t, reduction=reduction
        ),
    }
    pred, target = problem(rng, name)
    leaf = torch.from_numpy(pred).requires_grad_()
    theirs = judges[name](leaf, torch.from_numpy(target), reduction=reduction)
    if divisor == "batch":
        theirs = theirs / len(pred)
    theirs.backward()
    value, gradient = LOSSES[name](pred, target, divisor=divisor)
    np.testing.assert_allclose(value, theirs.item(), rtol=1e-13)
    np.testing.assert_allclose(gradient, leaf.grad.numpy(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("divisor", DIVISORS)
def test_masked_elements_are_never_read(rng, name, divisor):
    pred, target = problem(rng, name)
    mask = rng.random(target.shape) < 0.5
    clean = LOSSES[name](pred, target, mask=mask, divisor=divisor)
    pred[~mask] = np.nan
    target[~mask] = -(10**9) if name == "cross_entropy" else np.nan
    value, gradient = LOSSES[name](pred, target, mask=mask, divisor=divisor)
    assert value == clean[0]
    np.testing.assert_array_equal(gradient, clean[1])
    assert not gradient[~mask].any()


@pytest.mark.parametrize("name", LOSSES)
def test_weights_of_two_are_the_element_twice(rng, name):
    pred, target = problem(rng, name)
    weights = np.ones(target.shape)
    weights[1] = 2.0
    weighted, _ = LOSSES[name](pred, target, weights=weights)
    twice, _ = LOSSES[name](np.concatenate([pred, pred[1:2]]), np.concatenate([target, target[1:2]]))
    np.testing.assert_allclose(weighted, twice, rtol=1e-13)


@pytest.mark.parametrize("name", LOSSES)
def test_divisors(rng, name):
    pred, target = problem(rng, name)
    weights = rng.random(target.shape) + 0.5
    total, gradient = LOSSES[name](pred, target, weights=weights, divisor="none")
    for divisor, number in (("elements", weights.sum()), ("batch", len(pred))):
        value, scaled = LOSSES[name](pred, target, weights=weights, divisor=divisor)
        np.testing.assert_allclose(value, total / number, rtol=1e-13)
        np.testing.assert_allclose(scaled, gradient / number, rtol=1e-13)


@pytest.mark.parametrize("name", LOSSES)
def test_everything_masked_costs_nothing(rng, name):
    pred, target = problem(rng, name)
    value, gradient = LOSSES[name](pred, target, mask=False)
    assert value == 0.0
    assert not gradient.any()


def test_cross_entropy_of_huge_logits_stays_finite():
    value, gradient = reference.cross_entropy([[1e4, -1e4]], [1])
    assert value == 2e4
    np.testing.assert_array_equal(gradient, [[1.0, -1.0]])


def test_refusals():
    with pytest.raises(ValueError, match=r"target: expected shape \(2,\), got \(1,\)"):
        reference.mse([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="divisor: expected one of 'elements', 'batch', 'none', got 'mean'"):
        reference.mse([1.0], [1.0], divisor="mean")
