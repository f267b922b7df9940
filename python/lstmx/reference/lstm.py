"""One recurrent layer in one direction: the time loop around a cell, forward and backward.

The arguments are those of the kernels (`LstmPlan.forward`, `LstmTape.backward`); outputs are returned.
T time steps, B rows, I inputs, H hidden units; G = cell.gates * H (4H for the LSTM).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lstmx.reference._arrays import Array, Flags, float64, float64_or_zeros, read_lengths, read_resets, stack
from lstmx.reference.cells import LSTM, CellSpec, Saved


class LstmTape(NamedTuple):
    """What `lstm_backward` needs of the forward pass."""

    cell: CellSpec
    x: Array  # [T,B,I]
    h_prev: Array  # [T,B,H]: the hidden state that each step read
    weight_ih: Array  # [G,I]
    weight_hh: Array  # [G,H]
    saved: list[Saved]  # one a step
    alive: Flags  # [T,B]: whether the row has this step
    starts: Flags  # [T,B]: whether the state was reset before it


class LstmGradients(NamedTuple):
    """The gradients of one layer, each of the shape of what it belongs to."""

    dx: Array
    dh_0: Array
    dc_0: Array
    d_weight_ih: Array
    d_weight_hh: Array
    d_bias_ih: Array
    d_bias_hh: Array


def lstm_forward(
    x: ArrayLike,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: ArrayLike | None = None,
    bias_hh: ArrayLike | None = None,
    h_0: ArrayLike | None = None,
    c_0: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    cell: CellSpec = LSTM,
) -> tuple[Array, Array, Array, LstmTape]:
    """Run one layer over a sequence.

    Row b has the steps t < lengths[b]. Beyond them its y is 0 and its x is never read (NaN there changes
    nothing); its final state is the one after its last step, or its initial state where it has no step.
    Where resets[t, b], h and c are set to zero before step t, whatever they were: the row is computed as if
    the pieces between resets were sequences of their own, and no gradient passes from one to the other.

    Args:
        x: Input, [T, B, I].
        weight_ih: Weights of the input, [G, I].
        weight_hh: Weights of the hidden state, [G, H].
        bias_ih: First bias, [G]; None is zero.
        bias_hh: Second bias, [G]; None is zero.
        h_0: Hidden state before the first step, [B, H]; None is zero.
        c_0: Cell state before the first step, [B, H]; None is zero.
        lengths: Integers from 0 to T, [B]; None is T everywhere.
        resets: bool, [T, B]; None is False everywhere.
        cell: The cell.

    Returns:
        `(y, h_n, c_n, tape)`: the hidden states [T, B, H], the states after the last step [B, H] (with T = 0
        those before the first), and what `lstm_backward` needs.

    Raises:
        TypeError: An argument does not hold real numbers, lengths not integers or resets not bool.
        ValueError: A shape does not fit the others.

    Example:
        >>> weights = np.zeros((8, 3)), np.zeros((8, 2))  # the gates are sigmoid(0), the candidate tanh(0)
        >>> y, h_n, c_n, tape = lstm_forward(np.ones((1, 1, 3)), *weights, c_0=np.ones((1, 2)))
        >>> c_n.tolist()
        [[0.5, 0.5]]
    """
    x = float64("x", x, (None, None, None))
    steps, batch, _ = x.shape
    weight_ih = float64("weight_ih", weight_ih, (None, x.shape[2]))
    size = weight_ih.shape[0] // cell.gates
    weight_ih = float64("weight_ih", weight_ih, (cell.gates * size, x.shape[2]))
    weight_hh = float64("weight_hh", weight_hh, (cell.gates * size, size))
    bias = float64_or_zeros("bias_ih", bias_ih, (cell.gates * size,))
    bias = bias + float64_or_zeros("bias_hh", bias_hh, (cell.gates * size,))
    h = float64_or_zeros("h_0", h_0, (batch, size))
    c = float64_or_zeros("c_0", c_0, (batch, size))

    alive = np.arange(steps)[:, None] < read_lengths(lengths, steps, batch)
    starts = read_resets(resets, steps, batch)
    x = np.where(alive[:, :, None], x, 0.0)

    before, after, saved = [], [], []
    for t in range(steps):
        here, carried = alive[t][:, None], (alive[t] & ~starts[t])[:, None]
        # 0. resets; rows that have ended compute on zeros, and what they compute is not kept
        h_in, c_in = np.where(carried, h, 0.0), np.where(carried, c, 0.0)
        # 1. pre-activations
        a = x[t] @ weight_ih.T + h_in @ weight_hh.T + bias
        # 2. to 4. the cell
        h_out, c_out, step = cell.forward(a, c_in)
        # 5. lengths
        h, c = np.where(here, h_out, h), np.where(here, c_out, c)
        before.append(h_in)
        after.append(np.where(here, h_out, 0.0))
        saved.append(step)
    tape = LstmTape(cell, x, stack(before, (batch, size)), weight_ih, weight_hh, saved, alive, starts)
    return stack(after, (batch, size)), h, c, tape


def lstm_backward(
    tape: LstmTape,
    dy: ArrayLike | None = None,
    dh_n: ArrayLike | None = None,
    dc_n: ArrayLike | None = None,
) -> LstmGradients:
    """Undo `lstm_forward`: the gradients of a scalar given its gradients by the outputs.

    Args:
        tape: The last item that `lstm_forward` returned.
        dy: Gradient by y, [T, B, H]; None is zero.
        dh_n: Gradient by h_n, [B, H]; None is zero. It adds to the last step's dy, for h_n is the last y.
        dc_n: Gradient by c_n, [B, H]; None is zero.

    Returns:
        All gradients. The two biases enter only as a sum, so that their gradients are equal.

    Raises:
        TypeError: An argument does not hold real numbers.
        ValueError: A shape does not fit the forward pass.

    Example:
        >>> weights = np.zeros((8, 3)), np.zeros((8, 2))
        >>> _, _, _, tape = lstm_forward(np.ones((1, 1, 3)), *weights, c_0=np.ones((1, 2)))
        >>> lstm_backward(tape, dc_n=np.ones((1, 2))).dc_0.tolist()  # the forget gate
        [[0.5, 0.5]]
    """
    cell, x, h_prev, weight_ih, weight_hh, saved, alive, starts = tape
    steps, batch, size = h_prev.shape
    dy = float64_or_zeros("dy", dy, (steps, batch, size))
    dh = float64_or_zeros("dh_n", dh_n, (batch, size))
    dc = float64_or_zeros("dc_n", dc_n, (batch, size))

    da: list[Array] = [np.zeros(0)] * steps
    for t in reversed(range(steps)):
        here, carried = alive[t][:, None], (alive[t] & ~starts[t])[:, None]
        # 5. lengths: what belongs to a later end waits; a row that has ended takes nothing from y
        dh_out = np.where(here, dh + np.where(here, dy[t], 0.0), 0.0)
        dc_out = np.where(here, dc, 0.0)
        # 4. to 2. the cell
        da[t], dc_in = cell.backward(saved[t], dh_out, dc_out)
        # 1. a = x weight_ih' + h weight_hh' + bias: the part that the step before waits for
        dh_in = da[t] @ weight_hh
        # 0. resets
        dh = np.where(carried, dh_in, np.where(here, 0.0, dh))
        dc = np.where(carried, dc_in, np.where(here, 0.0, dc))

    # 1. the rest, merged over time and over the rows that had the step
    merged = stack(da, (batch, cell.gates * size))
    dx = np.where(alive[:, :, None], merged @ weight_ih, 0.0)
    flat = merged[alive]
    d_weight_ih = flat.T @ x[alive]
    d_weight_hh = flat.T @ h_prev[alive]
    d_bias = flat.sum(axis=0)
    return LstmGradients(dx, dh, dc, d_weight_ih, d_weight_hh, d_bias, d_bias)
