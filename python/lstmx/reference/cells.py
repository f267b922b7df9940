"""The cells: what happens between the two matrix products of a recurrent step, forward and backward.

A cell sees the pre-activations of one step, already summed over input, hidden state and biases, and the cell
state before it; it knows nothing of time, weights or layers. The forward steps are numbered from 2 (step 1 is
the matrix product in the time loop) and the backward function undoes them under the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from lstmx.reference._arrays import Array

Saved: TypeAlias = tuple[Array, ...]


@dataclass(frozen=True)
class CellSpec:
    """A recurrent cell.

    Attributes:
        name: The cell's name in the library.
        gates: The number of gates: pre-activations are [B, gates * H], the weights have gates * H rows.
        forward: `(a, c_prev) -> (h, c, saved)`: one step; `saved` is what `backward` needs.
        backward: `(saved, dh, dc) -> (da, dc_prev)`: the same step undone, `dh` and `dc` being the whole
            gradients that reach h and c from the output and from the step after.
    """

    name: str
    gates: int
    forward: Callable[[Array, Array], tuple[Array, Array, Saved]]
    backward: Callable[[Saved, Array, Array], tuple[Array, Array]]


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), accurate in both tails and free of overflow.

    >>> [float(s) for s in sigmoid(np.array([-1000.0, 0.0, 1000.0]))]
    [0.0, 0.5, 1.0]
    """
    return np.exp(-np.logaddexp(0.0, -x))


def _lstm_forward(a: Array, c_prev: Array) -> tuple[Array, Array, Saved]:
    size = c_prev.shape[1]
    # 2. gates
    i = sigmoid(a[:, 0 * size : 1 * size])
    f = sigmoid(a[:, 1 * size : 2 * size])
    g = np.tanh(a[:, 2 * size : 3 * size])
    o = sigmoid(a[:, 3 * size : 4 * size])
    # 3. cell state
    c = f * c_prev + i * g
    # 4. hidden state
    tanh_c = np.tanh(c)
    h = o * tanh_c
    return h, c, (i, f, g, o, c_prev, tanh_c)


def _lstm_backward(saved: Saved, dh: Array, dc: Array) -> tuple[Array, Array]:
    i, f, g, o, c_prev, tanh_c = saved
    # 4. h = o * tanh(c)
    do = dh * tanh_c
    dc = dc + dh * o * (1.0 - tanh_c * tanh_c)
    # 3. c = f * c_prev + i * g
    di = dc * g
    df = dc * c_prev
    dg = dc * i
    dc_prev = dc * f
    # 2. sigmoid' = s (1 - s), tanh' = 1 - t t
    da_i = di * i * (1.0 - i)
    da_f = df * f * (1.0 - f)
    da_g = dg * (1.0 - g * g)
    da_o = do * o * (1.0 - o)
    return np.concatenate([da_i, da_f, da_g, da_o], axis=1), dc_prev


LSTM = CellSpec("lstm", 4, _lstm_forward, _lstm_backward)
"""The LSTM with forget gate, gates in the order i f g o: Hochreiter and Schmidhuber (1997), Gers, Schmidhuber
and Cummins (2000). Its equations: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html."""
