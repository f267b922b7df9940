"""Initial values of parameters: each function fills one view in place, from a given generator.

Sources: PyTorch's `nn.LSTM` and `nn.Linear` (uniform in one over the root of a size), Glorot and Bengio 2010,
"Understanding the difficulty of training deep feedforward neural networks" (variance by fan-in and fan-out).
No layer is known here and no global random state is used.
"""

from __future__ import annotations

import math

import numpy as np

from lstmx._checks import FloatArray


def fill_uniform(view: FloatArray, bound: float, rng: np.random.Generator) -> None:
    """Fill with U(-bound, bound)."""
    rng.random(dtype=view.dtype, out=view)
    view -= 0.5
    view *= 2 * bound


def fill_glorot(view: FloatArray, rng: np.random.Generator) -> None:
    """Fill a matrix `[fan_out, fan_in]` with U(-b, b), b = sqrt(6 / (fan_in + fan_out))."""
    fan_out, fan_in = view.shape
    fill_uniform(view, math.sqrt(6.0 / (fan_in + fan_out)), rng)


def fill_normal(view: FloatArray, rng: np.random.Generator) -> None:
    """Fill with N(0, 1)."""
    rng.standard_normal(dtype=view.dtype, out=view)
