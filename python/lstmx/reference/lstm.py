"""The plain LSTM layer in one direction, under the arguments of the kernels.

The arguments are those of `LstmPlan.forward` and `LstmTape.backward`; outputs are returned. The equations and
the loop are in `cells` and `loop`. T time steps, B rows, I inputs, H hidden units.
"""

from __future__ import annotations

from typing import NamedTuple

from numpy.typing import ArrayLike

from lstmx.reference._arrays import Array
from lstmx.reference.cells import LSTM
from lstmx.reference.loop import Tape, recurrent_backward, recurrent_forward

_PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


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
) -> tuple[Array, Array, Array, Tape]:
    """Run one layer over a sequence: `recurrent_forward` with the plain cell.

    Args:
        x: Input, [T, B, I].
        weight_ih: Weights of the input, [4H, I].
        weight_hh: Weights of the hidden state, [4H, H].
        bias_ih: First bias, [4H]; None is zero.
        bias_hh: Second bias, [4H]; None is zero.
        h_0: Hidden state before the first step, [B, H]; None is zero.
        c_0: Cell state before the first step, [B, H]; None is zero.
        lengths: Integers from 0 to T, [B]; None is T everywhere.
        resets: bool, [T, B]; None is False everywhere.

    Returns:
        `(y, h_n, c_n, tape)`: the hidden states [T, B, H], the states after the last step [B, H] (with T = 0
        those before the first), and what `lstm_backward` needs.

    Raises:
        TypeError: An argument does not hold real numbers, lengths not integers or resets not bool.
        ValueError: A shape does not fit the others.

    Example:
        >>> import numpy as np
        >>> weights = np.zeros((8, 3)), np.zeros((8, 2))  # the gates are sigmoid(0), the candidate tanh(0)
        >>> y, h_n, c_n, tape = lstm_forward(np.ones((1, 1, 3)), *weights, c_0=np.ones((1, 2)))
        >>> c_n.tolist()
        [[0.5, 0.5]]
    """
    params = {"weight_ih": weight_ih, "weight_hh": weight_hh, "bias_ih": bias_ih, "bias_hh": bias_hh}
    run = recurrent_forward(x, params, (h_0, c_0), cell=LSTM, lengths=lengths, resets=resets)
    return run.y, *run.state, run.tape  # type: ignore[return-value]


def lstm_backward(
    tape: Tape,
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
        >>> import numpy as np
        >>> weights = np.zeros((8, 3)), np.zeros((8, 2))
        >>> _, _, _, tape = lstm_forward(np.ones((1, 1, 3)), *weights, c_0=np.ones((1, 2)))
        >>> lstm_backward(tape, dc_n=np.ones((1, 2))).dc_0.tolist()  # the forget gate
        [[0.5, 0.5]]
    """
    dx, (dh_0, dc_0), d_params = recurrent_backward(tape, dy, (dh_n, dc_n))
    return LstmGradients(dx, dh_0, dc_0, *(d_params[name] for name in _PARAMETERS))
