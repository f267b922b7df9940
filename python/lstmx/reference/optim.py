"""The updates of the optimisers, as functions from old values to new ones.

The formulas are PyTorch's: https://docs.pytorch.org/docs/stable/optim.html (SGD with dampening 0). Which
parameters share a weight decay, and where their state is kept, is the business of `lstmx.optim`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from lstmx.reference._arrays import Array, as_float64


def sgd_step(
    params: ArrayLike,
    grads: ArrayLike,
    velocity: ArrayLike | None = None,
    *,
    lr: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> tuple[Array, Array]:
    """One step of stochastic gradient descent, with momentum as in Sutskever et al. (2013).

    Returns:
        `(params, velocity)` after the step. A velocity of None stands for zeros, that before the first step.

    Example:
        >>> sgd_step([1.0], [2.0], lr=0.1)[0].tolist()
        [0.8]
    """
    params, grads = as_float64("params", params), as_float64("grads", grads)
    before = np.zeros(params.shape) if velocity is None else as_float64("velocity", velocity)
    grads = grads + weight_decay * params
    after = momentum * before + grads
    return params - lr * (grads + momentum * after if nesterov else after), after


def adam_step(
    params: ArrayLike,
    grads: ArrayLike,
    m: ArrayLike,
    v: ArrayLike,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    step: int,
    weight_decay: float = 0.0,
    decoupled: bool = False,
) -> tuple[Array, Array, Array]:
    """One step of Adam (Kingma and Ba 2015) or, `decoupled`, of AdamW (Loshchilov and Hutter 2019).

    Args:
        params: Parameters before the step.
        grads: Gradients.
        m: Running mean of the gradients; zeros before the first step.
        v: Running mean of their squares; zeros before the first step.
        lr: Learning rate.
        betas: Decay of m and of v.
        eps: Added to the root of v.
        step: The number of this step, counted from 1.
        weight_decay: Decay of the parameters.
        decoupled: Whether the decay acts on the parameters (AdamW) or through the gradients (L2).

    Returns:
        `(params, m, v)` after the step.

    Example:
        >>> params, m, v = adam_step([1.0], [2.0], [0.0], [0.0], lr=0.1, eps=0.0, step=1)
        >>> params.tolist()  # the first step has length lr
        [0.9]
    """
    params, grads = as_float64("params", params), as_float64("grads", grads)
    if decoupled:
        params = params - lr * weight_decay * params
    else:
        grads = grads + weight_decay * params
    m = betas[0] * as_float64("m", m) + (1.0 - betas[0]) * grads
    v = betas[1] * as_float64("v", v) + (1.0 - betas[1]) * grads * grads
    mean = m / (1.0 - betas[0] ** step)
    square = v / (1.0 - betas[1] ** step)
    return params - lr * mean / (np.sqrt(square) + eps), m, v


def global_norm(grads: Iterable[ArrayLike]) -> float:
    """The Euclidean norm of all gradients taken as one vector.

    >>> global_norm([[3.0], [[4.0]]])
    5.0
    """
    return float(np.sqrt(sum(float(np.sum(np.asarray(g, np.float64) ** 2)) for g in grads)))


def clip_scale(norm: float, max_norm: float) -> float:
    """The factor that brings gradients of this norm down to `max_norm`, at most 1 (Pascanu et al. 2013).

    The 1e-6 is that of PyTorch's `clip_grad_norm_`.

    >>> clip_scale(0.5, max_norm=1.0)
    1.0
    """
    return min(1.0, max_norm / (norm + 1e-6))
