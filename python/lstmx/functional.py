"""The kernels as functions of arrays, under the names and with the arguments of `lstmx.reference`.

For people who keep parameters and states in arrays of their own: one LSTM layer in one direction, and the
affine map, forward and backward, in float32 (products as exact as `lstmx.set_float32_precision` says) or
float64. Nothing is cached: every call packs its weights anew. Models are better served by `lstmx.layers`,
which pack once a change, stack layers and keep gradients in one place.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lstmx import _core
from lstmx._checks import FloatArray, check_array, check_int
from lstmx._inputs import FLOAT32, as_dense, as_floats, check_checkpoint_steps, check_dtype, check_spans

__all__ = [
    "LinearGradients",
    "LstmGradients",
    "LstmTape",
    "linear_backward",
    "linear_forward",
    "lstm_backward",
    "lstm_forward",
]

_VERSION = 1  # a plan lives for one call here and sees one set of weights


class LstmTape(NamedTuple):
    """What `lstm_backward` needs of the forward pass, once; its arrays must not be changed before."""

    core: _core.LstmTape
    x: FloatArray  # [T,B,I]
    y: FloatArray  # [T,B,H]
    h_0: FloatArray | None  # [B,H]


class LstmGradients(NamedTuple):
    """The gradients of one layer, each of the shape of what it belongs to."""

    dx: FloatArray
    dh_0: FloatArray
    dc_0: FloatArray
    d_weight_ih: FloatArray
    d_weight_hh: FloatArray
    d_bias_ih: FloatArray
    d_bias_hh: FloatArray


class LinearGradients(NamedTuple):
    """The gradients of a linear layer, each of the shape of what it belongs to."""

    dx: FloatArray
    d_weight: FloatArray
    d_bias: FloatArray


def lstm_forward(
    x: Any,
    weight_ih: Any,
    weight_hh: Any,
    bias_ih: Any = None,
    bias_hh: Any = None,
    h_0: Any = None,
    c_0: Any = None,
    *,
    lengths: Any = None,
    resets: Any = None,
    checkpoint_steps: int | None = None,
    threads: int | None = None,
    dtype: str = "float32",
) -> tuple[FloatArray, FloatArray, FloatArray, LstmTape]:
    """Run one LSTM layer over a sequence; the equations are in `lstmx.LSTM`, gates in the order i, f, g, o.

    Args:
        x: Input, [T, B, I]; any strides, so that `x.swapaxes(0, 1)` of a batch-first array costs no copy.
        weight_ih: Weights of the input, [4H, I].
        weight_hh: Weights of the hidden state, [4H, H].
        bias_ih: First bias, [4H]; None is zero.
        bias_hh: Second bias, [4H]; None is zero.
        h_0: Hidden state before the first step, [B, H]; None is zero.
        c_0: Cell state before the first step, [B, H]; None is zero.
        lengths: The steps of each row, integers from 0 to T, [B]; None is T everywhere. Beyond them x is not
            read and y is 0; the final state is the one after the row's last step.
        resets: Where h and c are set to zero before a step, bool, [T, B]; None is nowhere.
        checkpoint_steps: Steps between saved cell states, for backward in less memory: see `lstmx.LSTM`.
        threads: The number of threads; None is `lstmx.get_num_threads()`.
        dtype: "float32" or "float64": what arrays are converted to and computed in, backward too.

    Returns:
        `(y, h_n, c_n, tape)`: the hidden states [T, B, H], read-only as backward reads them again; the states
        after the last step [B, H]; and what `lstm_backward` needs.

    Raises:
        TypeError: An argument is not of its kind.
        ValueError: A shape does not fit the others, or a value is out of range.

    Example:
        >>> import lstmx.functional as F
        >>> weights = np.zeros((8, 3)), np.zeros((8, 2))  # the gates are sigmoid(0), the candidate tanh(0)
        >>> y, h_n, c_n, tape = F.lstm_forward(np.ones((1, 1, 3)), *weights, c_0=np.ones((1, 2)))
        >>> c_n.tolist()
        [[0.5, 0.5]]
        >>> F.lstm_backward(tape, dc_n=np.ones((1, 2))).dc_0.tolist()  # the forget gate
        [[0.5, 0.5]]
    """
    real = check_dtype("dtype", dtype)
    x = as_floats("x", check_array("x", x, shape=(None, None, None), dtype=real), dtype=real)
    steps, batch, inputs = x.shape
    weight_ih = check_array("weight_ih", weight_ih, shape=(None, inputs), dtype=real)
    size = weight_ih.shape[0] // 4
    weight_ih = as_dense("weight_ih", weight_ih, (4 * size, inputs), real)
    weight_hh = as_dense("weight_hh", weight_hh, (4 * size, size), real)
    bias_ih = None if bias_ih is None else as_dense("bias_ih", bias_ih, (4 * size,), real)
    bias_hh = None if bias_hh is None else as_dense("bias_hh", bias_hh, (4 * size,), real)
    h_0 = None if h_0 is None else as_dense("h_0", h_0, (batch, size), real)
    c_0 = None if c_0 is None else as_dense("c_0", c_0, (batch, size), real)
    lengths, resets = check_spans(lengths, resets, x.shape) or (None, None)
    saved = check_checkpoint_steps(checkpoint_steps) or 0
    threads = _threads(threads)

    y = np.empty((steps, batch, size), real)
    h_n, c_n = np.empty((batch, size), real), np.empty((batch, size), real)
    weights = weight_ih, weight_hh, bias_ih, bias_hh
    plan = (_core.LstmPlan if real == FLOAT32 else _core.LstmPlan64)(inputs, size)
    tape = plan.forward(_VERSION, *weights, x, h_0, c_0, lengths, resets, y, h_n, c_n, True, saved, threads)
    assert tape is not None
    y.flags.writeable = False
    return y, h_n, c_n, LstmTape(tape, x, y, h_0)


def lstm_backward(
    tape: LstmTape, dy: Any = None, dh_n: Any = None, dc_n: Any = None, *, threads: int | None = None
) -> LstmGradients:
    """Return the gradients of a scalar by everything that `lstm_forward` took, given those by its results.

    Args:
        tape: The last item that `lstm_forward` returned.
        dy: Gradient by y, [T, B, H]; None is zero. It is not read beyond a row's length.
        dh_n: Gradient by h_n, [B, H]; None is zero. It adds to the last step's dy, for h_n is the last y.
        dc_n: Gradient by c_n, [B, H]; None is zero.
        threads: The number of threads; None is `lstmx.get_num_threads()`.

    Returns:
        All gradients. The two biases enter only as a sum, so that their gradients are equal.

    Raises:
        RuntimeError: The tape was used before.
        TypeError: An argument does not hold real numbers.
        ValueError: A shape does not fit the forward pass. The tape can still be used.
    """
    if not isinstance(tape, LstmTape):
        raise TypeError(f"tape: expected what lstm_forward returned, got {type(tape).__name__}")
    core, x, y, h_0 = tape
    batch, size = y.shape[1:]
    dy = None if dy is None else as_floats("dy", dy, y.shape, y.dtype)
    dh_n = None if dh_n is None else as_dense("dh_n", dh_n, (batch, size), y.dtype)
    dc_n = None if dc_n is None else as_dense("dc_n", dc_n, (batch, size), y.dtype)
    threads = _threads(threads)

    set_by_kernel = (np.empty(shape, y.dtype) for shape in (x.shape, (batch, size), (batch, size)))
    added_to = ((4 * size, x.shape[2]), (4 * size, size), (4 * size,), (4 * size,))
    gradients = LstmGradients(*set_by_kernel, *(np.zeros(shape, y.dtype) for shape in added_to))
    core.backward(x, y, h_0, dy, dh_n, dc_n, *gradients, threads)
    return gradients


def linear_forward(
    x: Any, weight: Any, bias: Any = None, *, threads: int | None = None, dtype: str = "float32"
) -> FloatArray:
    """Return x weight' + bias: https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear.html.

    Args:
        x: Input, [N, in].
        weight: [out, in].
        bias: [out]; None is zero.
        threads: The number of threads; None is `lstmx.get_num_threads()`.
        dtype: "float32" or "float64".

    Returns:
        [N, out].

    Raises:
        TypeError: An argument does not hold real numbers.
        ValueError: A shape does not fit the others.

    Example:
        >>> linear_forward([[1.0, 2.0]], [[3.0, 4.0]], [0.5]).tolist()
        [[11.5]]
    """
    x, weight = _linear_inputs(x, weight, check_dtype("dtype", dtype))
    bias = None if bias is None else as_dense("bias", bias, weight.shape[:1], x.dtype)
    return _linear(x, weight, bias, _threads(threads))[0]


def linear_backward(
    x: Any, weight: Any, dy: Any, *, threads: int | None = None, dtype: str = "float32"
) -> LinearGradients:
    """Return the gradients of a scalar by x, weight and bias, given its gradient by y.

    Args:
        x: The input of the forward pass, [N, in].
        weight: The weights of the forward pass, [out, in].
        dy: [N, out].
        threads: The number of threads; None is `lstmx.get_num_threads()`.
        dtype: "float32" or "float64".

    Raises:
        TypeError: An argument does not hold real numbers.
        ValueError: A shape does not fit the others.

    Example:
        >>> linear_backward([[1.0, 2.0]], [[3.0, 4.0]], [[1.0]]).dx.tolist()
        [[3.0, 4.0]]
    """
    x, weight = _linear_inputs(x, weight, check_dtype("dtype", dtype))
    dy = as_floats("dy", dy, (x.shape[0], weight.shape[0]), x.dtype)
    threads = _threads(threads)
    tape = _linear(x, weight, None, threads)[1]
    gradients = LinearGradients(
        np.empty(x.shape, x.dtype), np.zeros(weight.shape, x.dtype), np.zeros(weight.shape[0], x.dtype)
    )
    tape.backward(x, dy, *gradients, threads)
    return gradients


def _linear_inputs(x: Any, weight: Any, dtype: np.dtype[Any]) -> tuple[FloatArray, FloatArray]:
    x = as_floats("x", check_array("x", x, shape=(None, None), dtype=dtype), dtype=dtype)
    weight = check_array("weight", weight, shape=(None, x.shape[1]), dtype=dtype)
    return x, as_dense("weight", weight, weight.shape, dtype)


def _linear(
    x: FloatArray, weight: FloatArray, bias: FloatArray | None, threads: int
) -> tuple[FloatArray, _core.LinearTape]:
    """Return y and the tape of a checked x."""
    outputs, inputs = weight.shape
    y = np.empty((x.shape[0], outputs), x.dtype)
    plan = (_core.LinearPlan if x.dtype == FLOAT32 else _core.LinearPlan64)(inputs, outputs)
    tape = plan.forward(_VERSION, weight, bias, x, y, True, threads)
    assert tape is not None
    return y, tape


def _threads(threads: int | None) -> int:
    return _core.get_num_threads() if threads is None else check_int("threads", threads, minimum=1)
