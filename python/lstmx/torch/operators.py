"""The LSTM of one layer and direction as an operator of PyTorch, `torch.ops.lstmx.lstm`.

Here are the operator and its gradient, what they tell a compiler (shapes without values), and what persists
between calls: packed weights, as long as the weights live, and tapes, as long as autograd keeps them. Kinds
are checked here, shapes in the modules and the core. There is no second derivative.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakTensorKeyDictionary

from lstmx import _core
from lstmx._checks import FloatArray
from lstmx._inputs import FLOAT32, Spans, as_dense, as_floats
from lstmx.layers.direction import Direction, directions

_Weights: TypeAlias = tuple[Tensor, Tensor, Tensor | None, Tensor | None]  # both matrices, both biases


# --- what persists between calls ----------------------------------------------------------------------------


class _Cell:
    """The plan for one set of weights, and the version under which the plan holds them packed.

    A tensor's address and `_version` say that it has changed, but not that it has not: writing through
    `.data` or a NumPy view raises no version, nor do PyTorch's fused optimizers. So where both are as before,
    the values decide, compared with a copy, which is made when address and version come a second time.
    """

    def __init__(self, weight_ih: Tensor) -> None:
        self.shape = weight_ih.shape
        self.plan = _core.LstmPlan(self.shape[1], self.shape[0] // 4)
        self._lock = threading.Lock()
        self._version = 0
        self._stamp: list[tuple[int, int]] = []
        self._copies: list[Tensor] = []

    def version(self, weights: _Weights) -> int:
        """Return a number that was never returned for other values of `weights`."""
        present = [w for w in weights if w is not None]
        stamp = [(w.data_ptr(), 0 if w.is_inference() else w._version) for w in present]
        with self._lock:
            if stamp != self._stamp:
                self._stamp, self._copies = stamp, []
                self._version += 1
            elif not self._copies or not all(map(_same_bits, present, self._copies)):
                self._copies = [w.detach().clone() for w in present]
                self._version += 1
            return self._version


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.detach().view(torch.int32), b.view(torch.int32))


_cells: Any = WeakTensorKeyDictionary()  # from weight_ih to its _Cell, while the tensor lives


def _cell_of(weight_ih: Tensor) -> _Cell:
    cell: _Cell | None = _cells.get(weight_ih)
    if cell is None or cell.shape != weight_ih.shape:
        cell = _cells[weight_ih] = _Cell(weight_ih)
    return cell


class _TapeMemory(np.ndarray[Any, Any]):
    """The memory of the operator's output `tape`, one byte: who keeps that tensor, keeps the core's tape.

    Operators pass nothing but tensors, so backward finds the tape by the tensor's address. It is in `_tapes`
    while that memory lives; for a copy of the tensor there is nothing, and backward runs forward once more.
    """

    core: _core.LstmTape | None


_tapes: weakref.WeakValueDictionary[int, _TapeMemory] = weakref.WeakValueDictionary()


def _keep(core: _core.LstmTape) -> Tensor:
    memory = np.zeros(1, np.uint8).view(_TapeMemory)
    memory.core = core
    tape = torch.from_numpy(memory)
    _tapes[tape.data_ptr()] = memory
    return tape


def _take(tape: Tensor) -> _core.LstmTape | None:
    memory = _tapes.get(tape.data_ptr()) if tape.numel() else None
    if memory is None:
        return None
    core, memory.core = memory.core, None  # it works once
    return core


# --- the arithmetic -----------------------------------------------------------------------------------------


def _sequence(name: str, tensor: Tensor) -> FloatArray:
    """`tensor` as kernels read a sequence: its own memory, wherever its last axis is contiguous."""
    return as_floats(name, tensor.detach().numpy())


def _dense(name: str, tensor: Tensor, *shape: int) -> FloatArray:
    return as_dense(name, tensor.detach().numpy(), shape)


def _optional(name: str, tensor: Tensor | None, *shape: int) -> FloatArray | None:
    return None if tensor is None else _dense(name, tensor, *shape)


def _direction(steps: int, lengths: Tensor | None, reverse: bool) -> Direction:
    spans = None if lengths is None else Spans(lengths.numpy(), None)
    return directions(1 + reverse, steps, spans)[reverse]


def _check(*tensors: Tensor | None) -> None:
    """Refuse what is not float32 on the CPU; `tensors` are the first ones of `lstm`, in its order."""
    names = ("input", "h_0", "c_0", "weight_ih", "weight_hh", "bias_ih", "bias_hh")
    for name, tensor in zip(names, tensors, strict=True):
        if tensor is not None and (tensor.dtype != torch.float32 or tensor.device.type != "cpu"):
            raise RuntimeError(
                f"{name}: expected torch.float32 on cpu, got {tensor.dtype} on {tensor.device}"
            )


def _forward(
    x: FloatArray, h_0: Tensor | None, c_0: Tensor | None, weights: _Weights, way: Direction, record: bool
) -> tuple[FloatArray, FloatArray, FloatArray, _core.LstmTape | None]:
    """Return y [T,B,H], h_n and c_n [B,H], and the tape if `record`, for x [T,B,I] and states [B,H]."""
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    (steps, batch, inputs), gates = x.shape, weight_ih.shape[0]
    size = gates // 4
    y = np.empty((steps, batch, size), FLOAT32)
    h_n, c_n = np.empty((batch, size), FLOAT32), np.empty((batch, size), FLOAT32)
    room = way.room(y)
    cell = _cell_of(weight_ih)
    tape = cell.plan.forward(
        cell.version(weights),
        _dense("weight_ih", weight_ih, gates, inputs),
        _dense("weight_hh", weight_hh, gates, size),
        _optional("bias_ih", bias_ih, gates),
        _optional("bias_hh", bias_hh, gates),
        way.read(x),
        _optional("h_0", h_0, batch, size),
        _optional("c_0", c_0, batch, size),
        way.lengths,
        way.resets,
        room,
        h_n,
        c_n,
        record,
        0,
        _core.get_num_threads(),
    )
    way.deliver(room, y)
    return y, h_n, c_n, tape


# --- the operator -------------------------------------------------------------------------------------------


_INPUTS = (
    "Tensor x, Tensor? h_0, Tensor? c_0, "
    "Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, Tensor? bias_hh, Tensor? lengths"
)
# registrations last as long as this object
_library: Any = torch.library.Library("lstmx", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define(
    f"lstm({_INPUTS}, bool reverse, bool record) -> (Tensor y, Tensor h_n, Tensor c_n, Tensor tape)"
)
_library.define(
    f"lstm_backward(Tensor? dy, Tensor? dh_n, Tensor? dc_n, {_INPUTS}, Tensor y, Tensor tape, "
    "bool reverse, bool need_dx, bool need_dstate) -> Tensor[]"
)
lstm = torch.ops.lstmx.lstm.default
lstm_backward = torch.ops.lstmx.lstm_backward.default


def _lstm_cpu(
    x: Tensor,
    h_0: Tensor | None,
    c_0: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    lengths: Tensor | None,
    reverse: bool,
    record: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run one layer in one direction.

    Args:
        x: Input, [T, B, I], any strides.
        h_0: Hidden state before the first step (the last one, if reverse), [B, H]; None is zero.
        c_0: Cell state, likewise.
        weight_ih: [4H, I].
        weight_hh: [4H, H].
        bias_ih: [4H]; None is zero.
        bias_hh: [4H]; None is zero.
        lengths: The steps of each row, int64 [B]; None is T everywhere.
        reverse: Whether to run back in time, each row from its own end.
        record: Whether backward will follow.

    Returns:
        `(y, h_n, c_n, tape)`: y [T, B, H], 0 beyond a row's length; the final states [B, H]; and what
        backward uses once, uint8 [1], [0] if not `record`.

    Raises:
        RuntimeError: A tensor is not float32 on the CPU.
        ValueError: A shape does not fit the others.
    """
    weights = weight_ih, weight_hh, bias_ih, bias_hh
    _check(x, h_0, c_0, *weights)
    way = _direction(x.shape[0], lengths, reverse)
    y, h_n, c_n, core = _forward(_sequence("input", x), h_0, c_0, weights, way, record)
    tape = torch.empty(0, dtype=torch.uint8) if core is None else _keep(core)
    return torch.from_numpy(y), torch.from_numpy(h_n), torch.from_numpy(c_n), tape


def _lstm_shapes(
    x: Tensor,
    h_0: Tensor | None,
    c_0: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    lengths: Tensor | None,
    reverse: bool,
    record: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _check(x, h_0, c_0, weight_ih, weight_hh, bias_ih, bias_hh)
    state = x.shape[1], weight_hh.shape[1]
    tape = x.new_empty((int(record),), dtype=torch.uint8)
    return x.new_empty((x.shape[0], *state)), x.new_empty(state), x.new_empty(state), tape


def _lstm_backward_cpu(
    dy: Tensor | None,
    dh_n: Tensor | None,
    dc_n: Tensor | None,
    x: Tensor,
    h_0: Tensor | None,
    c_0: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    lengths: Tensor | None,
    y: Tensor,
    tape: Tensor,
    reverse: bool,
    need_dx: bool,
    need_dstate: bool,
) -> list[Tensor]:
    """Return the gradients by x, both states and the four weights, given those by y and the final states.

    What is not needed, or does not exist, is an empty tensor. None among dy, dh_n, dc_n is zero.
    """
    steps, batch, size = y.shape
    weights = weight_ih, weight_hh, bias_ih, bias_hh
    way = _direction(steps, lengths, reverse)
    inputs = _sequence("input", x)
    core = _take(tape) or _forward(inputs, h_0, c_0, weights, way, True)[3]
    assert core is not None
    dx = np.empty(x.shape if need_dx else (0,), FLOAT32)
    dh_0, dc_0 = (np.empty((batch, size) if need_dstate else (0,), FLOAT32) for _ in range(2))
    d_weights = [np.zeros((0,) if w is None else tuple(w.shape), FLOAT32) for w in weights]
    d_weight_ih, d_weight_hh, d_bias_ih, d_bias_hh = d_weights
    room = way.room(dx) if need_dx else None
    core.backward(
        way.read(inputs),
        way.read(_sequence("y", y)),
        _optional("h_0", h_0, batch, size),
        None if dy is None else way.read(_sequence("dy", dy)),
        _optional("dh_n", dh_n, batch, size),
        _optional("dc_n", dc_n, batch, size),
        room,
        dh_0 if need_dstate else None,
        dc_0 if need_dstate else None,
        d_weight_ih,
        d_weight_hh,
        None if bias_ih is None else d_bias_ih,
        None if bias_hh is None else d_bias_hh,
        _core.get_num_threads(),
    )
    if room is not None:
        way.deliver(room, dx)
    return [torch.from_numpy(d) for d in (dx, dh_0, dc_0, *d_weights)]


def _lstm_backward_shapes(
    dy: Tensor | None,
    dh_n: Tensor | None,
    dc_n: Tensor | None,
    x: Tensor,
    h_0: Tensor | None,
    c_0: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    lengths: Tensor | None,
    y: Tensor,
    tape: Tensor,
    reverse: bool,
    need_dx: bool,
    need_dstate: bool,
) -> list[Tensor]:
    state = tuple(y.shape[1:]) if need_dstate else (0,)
    weights = [(0,) if w is None else tuple(w.shape) for w in (weight_ih, weight_hh, bias_ih, bias_hh)]
    return [x.new_empty(shape) for shape in (x.shape if need_dx else (0,), state, state, *weights)]


class _Recorded(torch.autograd.Function):
    """The operator with its gradient: `torch.library.register_autograd` without its 50 us a call."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        output = _below_autograd(*inputs)
        *tensors, ctx.reverse, _ = inputs
        y, _, _, tape = output
        ctx.save_for_backward(*tensors, y, tape)
        ctx.set_materialize_grads(False)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        dy, dh_n, dc_n, _ = gradients
        need = ctx.needs_input_grad
        d = lstm_backward(dy, dh_n, dc_n, *ctx.saved_tensors, ctx.reverse, need[0], need[1] or need[2])
        wanted = (gradient if needed else None for gradient, needed in zip(d, need, strict=False))
        return *wanted, None, None, None  # no gradients by lengths, reverse and record


def _below_autograd(*inputs: Any) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return lstm(*inputs)


def _lstm_autograd(*inputs: Any) -> Any:
    if torch.is_grad_enabled():
        return _Recorded.apply(*inputs)  # type: ignore[no-untyped-call]
    return _below_autograd(*inputs)


_library.impl("lstm", _lstm_cpu, "CPU")
_library.impl("lstm", _lstm_autograd, "Autograd")
_library.impl("lstm_backward", _lstm_backward_cpu, "CPU")
torch.library.register_fake("lstmx::lstm", _lstm_shapes, lib=_library)
torch.library.register_fake("lstmx::lstm_backward", _lstm_backward_shapes, lib=_library)
torch.library.register_autocast("lstmx::lstm", "cpu", torch.float32, lib=_library)
