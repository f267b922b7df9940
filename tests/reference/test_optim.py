"""The reference optimisers against torch.optim, several steps in float64, and clipping by the global norm."""

from __future__ import annotations

import numpy as np
import pytest

from lstmx import reference

STEPS = 5
MISSING = "PyTorch is not installed: the comparison with it did not run"


def torch_run(torch, make, start, gradients):
    """Parameters after each step of a PyTorch optimiser that is given these gradients."""
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = make([parameter])
    run = []
    for gradient in gradients:
        parameter.grad = torch.from_numpy(gradient)
        optimizer.step()
        run.append(parameter.detach().numpy().copy())
    return run


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd(rng, momentum, nesterov, weight_decay):
    torch = pytest.importorskip("torch", reason=MISSING)
    options = {"lr": 0.1, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    params, gradients = rng.standard_normal(7), rng.standard_normal((STEPS, 7))
    expected = torch_run(torch, lambda p: torch.optim.SGD(p, **options), params, gradients)
    velocity = None
    for gradient, theirs in zip(gradients, expected, strict=True):
        params, velocity = reference.sgd_step(params, gradient, velocity, **options)
        np.testing.assert_allclose(params, theirs, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("decoupled", [False, True])
def test_adam(rng, decoupled, weight_decay):
    torch = pytest.importorskip("torch", reason=MISSING)
    options = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": weight_decay}
    make = torch.optim.AdamW if decoupled else torch.optim.Adam
    params, gradients = rng.standard_normal(7), rng.standard_normal((STEPS, 7))
    expected = torch_run(torch, lambda p: make(p, **options), params, gradients)
    m, v = np.zeros((2, 7))
    for step, (gradient, theirs) in enumerate(zip(gradients, expected, strict=True), start=1):
        params, m, v = reference.adam_step(params, gradient, m, v, step=step, decoupled=decoupled, **options)
        np.testing.assert_allclose(params, theirs, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clipping(rng, max_norm):
    torch = pytest.importorskip("torch", reason=MISSING)
    gradients = [rng.standard_normal((3, 4)), rng.standard_normal(5)]
    leaves = [torch.nn.Parameter(torch.zeros(g.shape, dtype=torch.float64)) for g in gradients]
    for leaf, gradient in zip(leaves, gradients, strict=True):
        leaf.grad = torch.from_numpy(gradient.copy())
    their_norm = torch.nn.utils.clip_grad_norm_(leaves, max_norm)
    norm = reference.global_norm(gradients)
    np.testing.assert_allclose(norm, their_norm.item(), rtol=1e-13)
    scale = reference.clip_scale(norm, max_norm)
    for leaf, gradient in zip(leaves, gradients, strict=True):
        np.testing.assert_allclose(scale * gradient, leaf.grad.numpy(), rtol=1e-13)
