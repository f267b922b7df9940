"""Connections between the layers of an LSTM: residual and highway, forward and backward.

The products are `_core.LinearPlan`'s, the rest is NumPy, element by element. A step beyond a row's length
has x = y = 0 here and stays 0: there is no bias on the way past the layer. The layer `Residual`, around any
other, is another thing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lstmx import _core
from lstmx._checks import FloatArray


class Affine(NamedTuple):
    """A linear map inside a layer: its plan, its parameters (the bias may be None), their gradients."""

    plan: _core.LinearPlan
    weights: tuple[FloatArray, FloatArray | None]
    d_weights: tuple[FloatArray, FloatArray | None]

    def forward(self, version: int, x: FloatArray, training: bool) -> tuple[FloatArray, Any]:
        """Return the product and the tape (None where not training); x is dense."""
        made = self.plan.call(version, *self.weights, x, training, _core.get_num_threads())
        assert made is not None
        return made

    def backward(self, tape: Any, x: FloatArray, dy: FloatArray) -> FloatArray:
        """Add to the gradients of the parameters and return that of x."""
        dense = np.ascontiguousarray(dy)
        dx: FloatArray = tape.call(x, dense, True, *self.d_weights, _core.get_num_threads())
        return dx


class Connection(NamedTuple):
    """What makes a layer's output of its x and of what the layer made of it, y.

    Without a gate `y + skip`, otherwise `t * y + (1 - t) * skip`, t = sigmoid(gate(x)). skip is x, or its
    projection.
    """

    projection: Affine | None
    gate: Affine | None

    def forward(self, version: int, x: FloatArray, y: FloatArray, out: FloatArray, training: bool) -> Any:
        """Write the output to `out`; return what `backward` needs."""
        # 1. the way past the layer
        skip, projected = (
            (x, None) if self.projection is None else self.projection.forward(version, x, training)
        )
        if self.gate is None:
            np.add(y, skip, out=out)
            return projected, None
        # 2. the gate
        t, gated = self.gate.forward(version, x, training)
        _sigmoid(t)
        # 3. both ways together
        np.multiply(t, y, out=out)
        out += (1 - t) * skip
        return projected, (gated, t, y, skip)

    def backward(self, kept: Any, x: FloatArray, d_out: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Add to the gradients of the parameters; return that of y and the share of that of x."""
        projected, gate = kept
        dy, d_skip, dx = d_out, d_out, None
        if self.gate is not None:
            gated, t, y, skip = gate
            # 3. both ways together
            dy, d_skip = t * d_out, (1 - t) * d_out
            # 2. the gate
            dx = self.gate.backward(gated, x, d_skip * t * (y - skip))
        # 1. the way past the layer
        if self.projection is not None:
            d_skip = self.projection.backward(projected, x, d_skip)
        return dy, d_skip if dx is None else dx + d_skip


def _sigmoid(z: FloatArray) -> None:
    """1 / (1 + exp(-z)), in place."""
    np.negative(z, out=z)
    with np.errstate(over="ignore"):  # to infinity, of which the sigmoid is 0
        np.exp(z, out=z)
    z += 1
    np.reciprocal(z, out=z)
