"""What connects a layer of a stack with its input: residual and highway connections, forward and backward.

Parameters of layer k: `weight_res_lk [out, in]`, the projection of x, where widths differ; of highways also
`weight_gate_lk [out, in]` and `bias_gate_lk [out]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from lstmx.reference._arrays import Array, float64
from lstmx.reference.activations import sigmoid
from lstmx.reference.linear import linear_backward, linear_forward

ConnectBackward: TypeAlias = Callable[[Array], tuple[Array, Array, dict[str, Array]]]


def connect(
    kind: str, x: ArrayLike, y: ArrayLike, params: Mapping[str, ArrayLike], k: int
) -> tuple[Array, ConnectBackward]:
    """Return the output of layer k, and its backward function, given the layer's x and what it made of it.

    "residual" (He et al. 2016; between LSTM layers Wu et al. 2016)::

        out = y + skip                      skip = x, or weight_res x where the parameter is there

    "highway" (Srivastava et al. 2015)::

        out = t * y + (1 - t) * skip        t = sigmoid(weight_gate x + bias_gate)

    Args:
        kind: "residual" or "highway".
        x: What the layer read, [T, B, in].
        y: What it made of it, [T, B, out].
        params: The stack's parameters.
        k: The number of the layer.

    Returns:
        `(out, backward)`: `backward(d_out)` returns `(dx, dy, grads)`, dx being the connection's share alone.

    Raises:
        KeyError: A weight of the gate is missing.
        TypeError: An argument does not hold real numbers.
        ValueError: A shape does not fit the others.

    Example:
        >>> out, backward = connect("residual", np.ones((1, 1, 2)), np.full((1, 1, 2), 0.5), {}, 1)
        >>> out.tolist()
        [[[1.5, 1.5]]]
    """
    x, y = float64("x", x, (None, None, None)), float64("y", y, (None, None, None))
    rows = x.reshape(x.shape[0] * x.shape[1], x.shape[2])
    res, gate, bias = f"weight_res_l{k}", f"weight_gate_l{k}", f"bias_gate_l{k}"
    # 1. the way past the layer
    skip = linear_forward(rows, params[res]).reshape(y.shape) if res in params else x
    if skip.shape != y.shape:
        raise ValueError(f"{res}: expected a projection to {y.shape[2]} features, got none for {x.shape[2]}")
    # 2. the weights of both ways
    transform, carry = np.ones(()), np.ones(())
    if kind == "highway":
        transform = sigmoid(linear_forward(rows, params[gate], params[bias]).reshape(y.shape))
        carry = 1.0 - transform
    # 3. both ways together
    out = transform * y + carry * skip

    def backward(d_out: Array) -> tuple[Array, Array, dict[str, Array]]:
        grads: dict[str, Array] = {}
        dx = np.zeros(x.shape)
        # 3. both ways together
        dy, d_skip = transform * d_out, carry * d_out
        # 2. the weights of both ways
        if kind == "highway":
            dz = d_out * (y - skip) * transform * carry
            gradients = linear_backward(rows, params[gate], dz.reshape(len(rows), y.shape[2]))
            dx = gradients.dx.reshape(x.shape)
            grads |= {gate: gradients.d_weight, bias: gradients.d_bias}
        # 1. the way past the layer
        if res in params:
            gradients = linear_backward(rows, params[res], d_skip.reshape(len(rows), y.shape[2]))
            grads[res] = gradients.d_weight
            d_skip = gradients.dx.reshape(x.shape)
        return dx + d_skip, dy, grads

    return out, backward
