"""The LSTM of one layer and direction for PyTorch: `recur`, and the operator `torch.ops.lstmx.lstm`.

Compilers, exporters, modes and tensors of other classes take the operator, for which shapes without values
and the gradient are registered here. A plain call goes past PyTorch's dispatcher, which would cost as much as
the kernels of a small layer: the same arithmetic as a function of autograd. The core reads tensors where they
are, checks shapes and makes the results. What persists between calls are packed weights, as long as the
weights live, and tapes, as long as autograd keeps them. float32 and float64; there is no second derivative.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, is_autocast_enabled, nn
from torch._C import (
    _are_functorch_transforms_active,
    _get_tracing_state,
    _len_torch_dispatch_stack,
    _len_torch_function_stack,
)
from torch._C._autograd import _top_saved_tensors_default_hooks

from lstmx import _core

_DTYPES = frozenset({torch.float32, torch.float64})
NOT_PACKED = None, None, None


# --- what persists between calls ----------------------------------------------------------------------------

# The core reads and makes tensors itself, by the table that PyTorch exports since 2.10.
_exchange = _core.dlpack_exchange(Tensor)
_cells: dict[int, tuple[weakref.ref[Tensor], Any]] = {}  # by the id of weight_ih, while it lives


def _cell_of(weight_ih: Tensor) -> Any:
    """What computes with these weights: `_core.TensorLstm`, or without that table `_OnArrays`."""
    known = _cells.get(id(weight_ih))
    if known is not None and known[0]() is weight_ih:
        return known[1]
    cell: Any = _core.TensorLstm(_exchange or _core.numpy_exchange())
    if _exchange is None:
        cell = _OnArrays(cell)
    key = id(weight_ih)
    _cells[key] = weakref.ref(weight_ih, lambda ref: _forget(key, ref)), cell
    return cell


def _forget(key: int, ref: weakref.ref[Tensor]) -> None:
    if key in _cells and _cells[key][0] is ref:  # not another tensor's with the same id
        del _cells[key]


class _OnArrays:
    """The core's object, given the tensors as arrays."""

    def __init__(self, core: Any) -> None:
        self.core = core

    def forward(self, tensors: Sequence[Tensor | None], *options: Any) -> Any:
        options = tuple(o.numpy() if isinstance(o, Tensor) else o for o in options)
        result = self.core.forward(self._arrays(tensors), *options)
        if type(result) is int:
            return result
        *made, tape = result
        return *map(torch.from_numpy, made), None if tape is None else _OnArrays(tape)

    def backward(self, tensors: Sequence[Tensor | None], *options: Any) -> Any:
        result = self.core.backward(self._arrays(tensors), *options)
        if type(result) is int:
            return result
        return tuple(None if d is None else torch.from_numpy(d) for d in result)

    def _arrays(self, tensors: Sequence[Tensor | None]) -> tuple[Any, ...]:
        for t in tensors:
            if t is not None and not (t.is_cpu and t.layout is torch.strided and t.dtype in _DTYPES):
                raise ValueError(f"expected dense floats on the CPU, got {t.layout} {t.dtype} on {t.device}")
        return tuple(None if t is None else t.detach().numpy() for t in tensors)


class _TapeMemory(np.ndarray[Any, Any]):
    """The memory of the operator's output `tape`, one byte: who keeps that tensor, keeps the tape.

    Operators pass nothing but tensors, so backward finds the tape by the tensor's address. It is in `_tapes`
    while that memory lives; for a copy of the tensor there is nothing, and backward runs forward once more.
    """

    kept: Any


_tapes: weakref.WeakValueDictionary[int, _TapeMemory] = weakref.WeakValueDictionary()


def _keep(kept: Any) -> Tensor:
    memory = np.zeros(1, np.uint8).view(_TapeMemory)
    memory.kept = kept
    tape = torch.from_numpy(memory)
    _tapes[tape.data_ptr()] = memory
    return tape


def _find(tape: Tensor) -> Any:
    memory = _tapes.get(tape.data_ptr()) if tape.numel() else None
    return None if memory is None else memory.kept


def _run(call: Any, tensors: tuple[Tensor | None, ...], *options: Any) -> Any:
    """Return what the core makes of tensors; what it cannot read where it is, it names, to be copied."""
    while type(result := call(tensors, *options)) is int:
        given: Any = tensors[result]
        copied = given.resolve_neg().clone(memory_format=torch.contiguous_format)
        tensors = *tensors[:result], copied, *tensors[result + 1 :]
    return result


# --- the operator -------------------------------------------------------------------------------------------


class _Inputs(NamedTuple):
    """The tensors that `lstm` computes from.

    Attributes:
        x: Input, [T, B, I] or packed data [N, I]; any strides.
        h_0: Hidden state before the first step (the last one, if reverse), [1, B, P]; None is zero. P is H
            without a projection.
        c_0: Cell state, likewise, [1, B, H].
        weight_ih: [4H, I].
        weight_hh: [4H, P].
        bias_ih: [4H]; None is zero.
        bias_hh: [4H]; None is zero.
        weight_hr: The projection, [P, H]; None: there is none.
        batch_sizes: Of packed data, the rows at each step, int64 [T], as in `PackedSequence`; None: x is not
            packed.
    """

    x: Tensor
    h_0: Tensor | None
    c_0: Tensor | None
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    weight_hr: Tensor | None
    batch_sizes: Tensor | None

    @property
    def state_shapes(self) -> tuple[int, int]:
        """P and H."""
        return self.weight_hh.shape[1], self.weight_ih.shape[0] // 4


_SCHEMA = (
    "Tensor x, Tensor? h_0, Tensor? c_0, Tensor weight_ih, Tensor weight_hh, "
    "Tensor? bias_ih, Tensor? bias_hh, Tensor? weight_hr, Tensor? batch_sizes"
)
# registrations last as long as this object
_library: Any = torch.library.Library("lstmx", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define(
    f"lstm({_SCHEMA}, SymInt batch, bool reverse, bool record) "
    "-> (Tensor y, Tensor h_n, Tensor c_n, Tensor tape)"
)
_library.define(
    f"lstm_backward(Tensor? dy, Tensor? dh_n, Tensor? dc_n, {_SCHEMA}, Tensor y, Tensor tape, "
    "SymInt batch, bool reverse, bool need_dx, bool need_dstate) -> Tensor[]"
)
lstm = torch.ops.lstmx.lstm.default
lstm_backward = torch.ops.lstmx.lstm_backward.default


def _check(x: Tensor, *others: Tensor | None) -> None:
    """Refuse what is not float32 or float64, the same everywhere, on the CPU; in the order of `_Inputs`."""
    dtype = x.dtype if x.dtype in _DTYPES else torch.float32
    for name, tensor in zip(_Inputs._fields, (x, *others), strict=False):
        if tensor is not None and (tensor.dtype != dtype or tensor.device.type != "cpu"):
            name = "input" if name == "x" else name
            raise RuntimeError(f"{name}: expected {dtype} on cpu, got {tensor.dtype} on {tensor.device}")


def _lstm_cpu(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run one layer in one direction.

    Args:
        *arguments: `_Inputs`, then batch: of packed data, B, else not read; reverse: whether to run back in
            time, each row from its own end; record: whether backward will follow.

    Returns:
        `(y, h_n, c_n, tape)`: y [T, B, P] or [N, P] as x is; the final states [1, B, P] and [1, B, H]; and
        what backward uses once, uint8 [1], [0] if not `record`.

    Raises:
        RuntimeError: A tensor is not on the CPU, or not float32 or float64 as all others are.
        ValueError: A shape does not fit the others.
    """
    *tensors, batch_sizes, _, reverse, record = arguments
    _check(*tensors)
    call = _cell_of(tensors[3]).forward
    y, h_n, c_n, kept = _run(call, tuple(tensors), batch_sizes, None, reverse, record)
    return y, h_n, c_n, torch.empty(0, dtype=torch.uint8) if kept is None else _keep(kept)


def _lstm_shapes(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *tensors, batch, _, record = arguments
    given = _Inputs(*tensors)
    _check(*given[:-1])
    x, (width, size) = given.x, given.state_shapes
    rows = x.shape[1] if given.batch_sizes is None else batch
    tape = x.new_empty((int(record),), dtype=torch.uint8)
    return x.new_empty((*x.shape[:-1], width)), x.new_empty(1, rows, width), x.new_empty(1, rows, size), tape


def _lstm_backward_cpu(
    dy: Tensor | None, dh_n: Tensor | None, dc_n: Tensor | None, *rest: Any
) -> list[Tensor]:
    """Return the gradients by x, both states and the weights, given those by y and the final states.

    `rest` are the inputs, the output y and the tape of `lstm`, its batch and reverse, and whether the
    gradients by x and by the states are needed. What is not needed, or does not exist, is an empty tensor.
    None among dy, dh_n, dc_n is zero.
    """
    *tensors, batch_sizes, y, tape, _, reverse, need_dx, need_dstate = rest
    kept = _find(tape)
    if kept is None:
        kept = _run(_cell_of(tensors[3]).forward, tuple(tensors), batch_sizes, None, reverse, True)[3]
    d = _run(kept.backward, (*tensors, y, dy, dh_n, dc_n), need_dx, need_dstate)
    return [tensors[0].new_empty(0) if gradient is None else gradient for gradient in d]


def _lstm_backward_shapes(*arguments: Any) -> list[Tensor]:
    *tensors, y, _, batch, _, need_dx, need_dstate = arguments[3:]
    given = _Inputs(*tensors)
    x, rows = given.x, y.shape[1] if given.batch_sizes is None else batch
    states = [(1, rows, n) if need_dstate else (0,) for n in given.state_shapes]
    weights = [(0,) if w is None else tuple(w.shape) for w in given[3:8]]
    return [x.new_empty(shape) for shape in (x.shape if need_dx else (0,), *states, *weights)]


class _Recorded(torch.autograd.Function):
    """The operator with its gradient: `torch.library.register_autograd` without its 50 us a call."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        output = _below_autograd(*inputs)
        *tensors, ctx.batch, ctx.reverse, _ = inputs
        y, _, _, tape = output
        ctx.save_for_backward(*tensors, y, tape)
        ctx.set_materialize_grads(False)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _once(_recorded_gradients, ctx, *gradients)


def _recorded_gradients(ctx: Any, *gradients: Any) -> Any:
    dy, dh_n, dc_n, _ = gradients
    need = ctx.needs_input_grad
    options = ctx.batch, ctx.reverse, need[0], need[1] or need[2]
    d = lstm_backward(dy, dh_n, dc_n, *ctx.saved_tensors, *options)
    wanted = (gradient if needed else None for gradient, needed in zip(d, need, strict=False))
    return *wanted, None, None, None, None  # no gradients by batch_sizes and what follows


def _once(gradients: Callable[..., Any], ctx: Any, *given: Any) -> Any:
    """Gradients that, made with `create_graph=True`, refuse their own derivatives.

    `once_differentiable` does so only where what comes from above needs gradients; a penalty on the gradient
    of a sum of outputs would go without its part of them.
    """
    if not torch.is_grad_enabled():
        return gradients(ctx, *given)
    with torch.no_grad():
        made = gradients(ctx, *given)
    tensors = [None if d is None else d.detach().requires_grad_() for d in made]
    message = b"lstmx.torch: trying to differentiate twice an LSTM, which has no second derivatives"
    return torch._C._functions.DelayedError(message, len(tensors))(*tensors)  # type: ignore[arg-type]


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


# --- past the dispatcher ------------------------------------------------------------------------------------


class _Direct(torch.autograd.Function):
    """What `_Recorded` does, without operators; the tape is the context's."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        tensors, record = inputs[:8], True in ctx.needs_input_grad
        y, h_n, c_n, tape = _run(_cell_of(inputs[3]).forward, tensors, *inputs[8], record)
        if record:
            ctx.tape = tape
            ctx.save_for_backward(*tensors, y)  # y, too: autograd must notice if it was changed
            ctx.set_materialize_grads(False)
        return y, h_n, c_n

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _once(_gradients, ctx, *gradients)


def _gradients(ctx: Any, *gradients: Tensor | None) -> Any:
    given = [None if d is None else d.resolve_neg() for d in gradients]
    need = ctx.needs_input_grad
    d = _run(ctx.tape.backward, (*ctx.saved_tensors, *given), need[0], need[1] or need[2])
    return *d, None  # autograd drops the gradients of weights that need none


_apply_directly = super(torch.autograd.Function, _Direct).apply  # `apply` without its part for transforms


_KINDS = frozenset({Tensor, nn.Parameter, type(None)})  # others may have a __torch_function__


def _nothing_intervenes() -> bool:
    """Whether a call of an operator would be nothing but a call: no mode, transform or hook is to see it."""
    return not (
        _len_torch_dispatch_stack()
        or _len_torch_function_stack()
        or _are_functorch_transforms_active()
        or _get_tracing_state()
        or is_autocast_enabled("cpu")
        or _top_saved_tensors_default_hooks(True)  # they may want to keep no tape
    )


def recur_directly(
    x: Tensor,
    states: Sequence[Tensor | None],
    weights: Sequence[Tensor | None],
    packing: Sequence[Tensor | None],
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return what `recur` does; None where that has to take the operator, or to refuse."""
    h_0, c_0 = states
    tensors: Any = x, h_0, c_0, *weights
    if (
        torch.compiler.is_compiling()
        or not _KINDS.issuperset(map(type, tensors))
        or x.is_neg()  # which the core does not see
        or (h_0 is not None and h_0.is_neg())
        or (c_0 is not None and c_0.is_neg())
        or not _nothing_intervenes()
    ):
        return None
    options = *packing[:2], reverse
    try:
        if torch.is_grad_enabled():
            return _apply_directly(*tensors, options)  # type: ignore[no-any-return, no-untyped-call]
        return _run(_cell_of(tensors[3]).forward, tensors, *options, False)[:3]  # type: ignore[no-any-return]
    except ValueError:  # the core refuses an argument: the caller's checks say which, as PyTorch's would
        return None


def recur(
    x: Tensor,
    states: Sequence[Tensor | None],
    weights: Sequence[Tensor | None],
    packing: Sequence[Tensor | None] = NOT_PACKED,
    reverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return `(y, h_n, c_n)` of one layer in one direction.

    `packing` are the other parts of a `PackedSequence` whose data x is; states have their rows in the order
    before sorting. The other arguments are those of `_Inputs`.
    """
    done = recur_directly(x, states, weights, packing, reverse)
    if done is not None:
        return done
    batch_sizes, order, back = packing
    if order is not None:
        states = [None if state is None else state.index_select(1, order) for state in states]
    batch = 0 if batch_sizes is None else int(batch_sizes[0])
    options = batch_sizes, batch, reverse, torch.is_grad_enabled()
    y, h_n, c_n, _ = lstm(x, *states, *weights, *options)
    if back is not None:
        h_n, c_n = h_n.index_select(1, back), c_n.index_select(1, back)
    return y, h_n, c_n
