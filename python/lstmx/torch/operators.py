"""The LSTM of one layer and direction for PyTorch: `recur`, and the operator `torch.ops.lstmx.lstm`.

Compilers, exporters, modes and tensors of other classes take the operator, for which shapes without values
and the gradient are registered here. A plain call goes past PyTorch's dispatcher, which would cost as much as
the kernels of a small layer: the same arithmetic as a function of autograd. What persists between calls are
packed weights, as long as the weights live, and tapes, as long as autograd keeps them. Kinds are checked
here, shapes in the modules and the core. float32 and float64; there is no second derivative.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lstmx import _core
from lstmx._checks import FloatArray
from lstmx._inputs import as_dense, as_floats

# both matrices, both biases, the projection
_Weights: TypeAlias = tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]
_Arrays: TypeAlias = tuple[FloatArray, FloatArray, FloatArray | None, FloatArray | None, FloatArray | None]

_PLANS = {torch.float32: _core.LstmPlan, torch.float64: _core.LstmPlan64}
_NONE = None, None
_BITS = {torch.float32: torch.int32, torch.float64: torch.int64}


# --- what persists between calls ----------------------------------------------------------------------------


class _Cell:
    """The plan for one set of weights, and the version under which the plan holds them packed.

    A tensor's address and `_version` say that it has changed, but not that it has not: writing through
    `.data` or a NumPy view raises no version, nor do PyTorch's fused optimizers. So where both are as before,
    the values decide, compared with a copy, which is made when address and version come a second time.
    """

    def __init__(self, kind: Any) -> None:
        self.kind = (rows, inputs), dtype, projection = kind
        self.size = rows // 4
        self.width = self.size if projection is None else projection[0]
        options = {} if projection is None else {"cell": "variant", "output_size": self.width}
        self.plan = _PLANS[dtype](inputs, self.size, **options)
        self.dtype = np.dtype(str(dtype).removeprefix("torch."))
        self._lock = threading.Lock()
        self._version = 0
        self._places: list[Any] = []
        self._arrays: Any = ()
        self._stamp: list[int] = []
        self._bits: list[Tensor] = []
        self._copies: list[Tensor] = []

    def read(self, weights: _Weights) -> tuple[int, _Arrays]:
        """Return `weights` as the core takes them: a number never returned for other values, and arrays."""
        present = [w for w in weights if w is not None]
        places = [(w.data_ptr(), w.shape, w.is_contiguous()) for w in present]
        try:
            stamp = [w._version for w in present]
        except RuntimeError:  # inference tensors have none
            stamp = []
        with self._lock:
            moved = places != self._places
            if moved:
                self._arrays = self._view(weights)
                self._places = places if all(w.is_contiguous() for w in present) else []  # else it is a copy
            if moved or stamp != self._stamp:
                self._stamp, self._bits, self._copies = stamp, [], []
                self._version += 1
            elif not self._bits or not all(map(torch.equal, self._bits, self._copies)):
                self._bits = [w.detach().view(_BITS[w.dtype]) for w in present]
                self._copies = [bits.clone() for bits in self._bits]
                self._version += 1
            return self._version, self._arrays

    def _view(self, weights: _Weights) -> _Arrays:
        (rows, inputs), size, width = self.kind[0], self.size, self.width
        shapes = (rows, inputs), (rows, width), (rows,), (rows,), (width, size)
        return tuple(map(_dense, _WEIGHTS, weights, shapes))  # type: ignore[return-value]


_WEIGHTS = "weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"
_cells: dict[int, tuple[weakref.ref[Tensor], _Cell]] = {}  # by the id of weight_ih, while it lives


def _cell_of(weights: _Weights) -> _Cell:
    weight_ih, _, _, _, weight_hr = weights
    kind = weight_ih.shape, weight_ih.dtype, None if weight_hr is None else weight_hr.shape
    known = _cells.get(id(weight_ih))
    if known is not None and known[0]() is weight_ih and known[1].kind == kind:
        return known[1]
    key, cell = id(weight_ih), _Cell(kind)
    _cells[key] = weakref.ref(weight_ih, lambda ref: _forget(key, ref)), cell
    return cell


def _forget(key: int, ref: weakref.ref[Tensor]) -> None:
    if key in _cells and _cells[key][0] is ref:  # not another tensor's with the same id
        del _cells[key]


class _Tape(NamedTuple):
    """What backward uses once: the core's tape, and x and y [T,B,*] as the core has read and written them."""

    core: _core.LstmTape
    x: FloatArray
    y: FloatArray


class _TapeMemory(np.ndarray[Any, Any]):
    """The memory of the operator's output `tape`, one byte: who keeps that tensor, keeps the tape.

    Operators pass nothing but tensors, so backward finds the tape by the tensor's address. It is in `_tapes`
    while that memory lives; for a copy of the tensor there is nothing, and backward runs forward once more.
    """

    kept: _Tape | None


_tapes: weakref.WeakValueDictionary[int, _TapeMemory] = weakref.WeakValueDictionary()


def _keep(kept: _Tape) -> Tensor:
    memory = np.zeros(1, np.uint8).view(_TapeMemory)
    memory.kept = kept
    tape = torch.from_numpy(memory)
    _tapes[tape.data_ptr()] = memory
    return tape


def _take(tape: Tensor) -> _Tape | None:
    memory = _tapes.get(tape.data_ptr()) if tape.numel() else None
    if memory is None:
        return None
    kept, memory.kept = memory.kept, None  # it works once
    return kept


# --- the arithmetic -----------------------------------------------------------------------------------------


class _Packing(NamedTuple):
    """How a direction's sequence [T,B,*] and a `PackedSequence`'s data [N,*] lie in each other.

    Attributes:
        lengths: The steps of each row, [B], longest first.
        padded: The index into the data of each step and row, [T,B]; anything beyond a row's length.
        packed: The index into [T*B] of each of the data, [N].
    """

    lengths: NDArray[np.int64]
    padded: NDArray[np.int64]
    packed: NDArray[np.int64]


@functools.lru_cache(maxsize=8)  # layers, and backward, read the same
def _packing(batch_sizes: bytes, reverse: bool) -> _Packing:
    sizes = np.frombuffer(batch_sizes, np.int64)
    batch = int(sizes[0])
    b = np.arange(batch)
    there = b < sizes[:, np.newaxis]
    lengths = np.add.reduce(there, 0, np.int64)
    first = np.add.accumulate(sizes) - sizes  # where the data of each step begin
    if not reverse:
        return _Packing(lengths, first[:, np.newaxis] + b, there.ravel().nonzero()[0])
    turned = lengths - 1 - np.arange(sizes.size)[:, np.newaxis]  # each row from its own end
    return _Packing(lengths, first[turned] + b, (turned * batch + b)[there])


class _Layout(NamedTuple):
    """How a caller's sequences become those of the kernels: [T,B,*], forward in time.

    Attributes:
        reverse: Whether time runs back.
        packing: None, or for packed data [N,*] where they go, in the direction of `reverse`.
    """

    reverse: bool
    packing: _Packing | None

    def read(self, name: str, tensor: Tensor) -> FloatArray:
        """Return the caller's `tensor` in the kernels' order: its own memory, unless packed."""
        array = _array(tensor)
        array = as_floats(name, array, None, array.dtype)
        if self.packing is None:
            return array[::-1] if self.reverse else array
        return array.take(self.packing.padded, 0, mode="clip")

    def room(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> FloatArray:
        """Return new memory for the kernels to write [T,B,*] to."""
        array = np.empty(shape, dtype)
        return array[::-1] if self.reverse and self.packing is None else array

    def deliver(self, room: FloatArray) -> FloatArray:
        """Return what was written into `room` in the caller's order: the same memory, unless packed."""
        if self.packing is not None:
            return room.reshape(-1, room.shape[2]).take(self.packing.packed, 0)
        return room[::-1] if self.reverse else room


_FORWARD, _REVERSE = _Layout(False, None), _Layout(True, None)


def _layout(batch_sizes: Tensor | None, reverse: bool) -> _Layout:
    if batch_sizes is None:
        return _REVERSE if reverse else _FORWARD
    return _Layout(reverse, _packing(batch_sizes.numpy().tobytes(), reverse))


def _array(tensor: Tensor) -> FloatArray:
    return (tensor.detach() if tensor.requires_grad else tensor).numpy()


def _dense(name: str, tensor: Tensor | None, shape: tuple[int, ...]) -> FloatArray | None:
    if tensor is None:
        return None
    array = _array(tensor)
    return as_dense(name, array, shape, array.dtype)


def _row(array: FloatArray | None) -> FloatArray | None:
    """A state [1,B,*] as [B,*]."""
    return None if array is None else array[0]


def _check(x: Tensor, *others: Tensor | None) -> None:
    """Refuse what is not float32 or float64, the same everywhere, on the CPU; in the order of `_Inputs`."""
    dtype = x.dtype if x.dtype in _PLANS else torch.float32
    for name, tensor in zip(("input", "h_0", "c_0", *_WEIGHTS), (x, *others), strict=True):
        if tensor is not None and (tensor.dtype != dtype or tensor.device.type != "cpu"):
            raise RuntimeError(f"{name}: expected {dtype} on cpu, got {tensor.dtype} on {tensor.device}")


def _forward(
    x: Tensor, h_0: Tensor | None, c_0: Tensor | None, weights: _Weights, layout: _Layout, record: bool
) -> tuple[Tensor, Tensor, Tensor, _Tape | None]:
    """Return y, h_n and c_n, and the tape if `record`; shapes are those of the operator."""
    cell = _cell_of(weights)
    version, (weight_ih, weight_hh, bias_ih, bias_hh, weight_hr) = cell.read(weights)
    inputs, threads = layout.read("input", x), _core.get_num_threads()
    steps, batch, _ = inputs.shape
    h_shape, c_shape = (1, batch, cell.width), (1, batch, cell.size)
    h, c = _dense("h_0", h_0, h_shape), _dense("c_0", c_0, c_shape)
    done = None
    if layout is _FORWARD and weight_hr is None:  # nothing but arrays as they are: the core's short way
        state = None if h is None and c is None else (h, c)
        arrays = weight_ih, weight_hh, bias_ih, bias_hh, inputs, state
        done = cell.plan.call(version, *arrays, False, record, 0, threads)
    if done is not None:
        y, (h_n, c_n), tape = done
        room = y
    else:
        room = layout.room((steps, batch, cell.width), cell.dtype)
        h_n, c_n = np.empty(h_shape, cell.dtype), np.empty(c_shape, cell.dtype)
        tape = cell.plan.forward(
            version,
            weight_ih,
            weight_hh,
            bias_ih,
            bias_hh,
            inputs,
            _row(h),
            _row(c),
            None if layout.packing is None else layout.packing.lengths,
            None,
            room,
            h_n[0],
            c_n[0],
            record,
            0,
            threads,
            weight_hr=weight_hr,
        )
        y = layout.deliver(room)
    kept = None if tape is None else _Tape(tape, inputs, room)
    return torch.from_numpy(y), torch.from_numpy(h_n), torch.from_numpy(c_n), kept


def _backward(
    gradients: Sequence[Tensor | None],
    x: Tensor,
    h_0: Tensor | None,
    c_0: Tensor | None,
    weights: _Weights,
    layout: _Layout,
    tape: _Tape | None,
    need_dx: bool,
    need_dstate: bool,
) -> list[Tensor | None]:
    """Return the gradients by x, both states and the weights, given those by y, h_n and c_n.

    None among the given ones is zero; a returned one is not needed or does not exist.
    """
    if tape is None:  # it works once
        tape = _forward(x, h_0, c_0, weights, layout, True)[3]
        assert tape is not None
    dy, dh_n, dc_n = gradients
    core, inputs, outputs = tape
    dtype, threads = outputs.dtype, _core.get_num_threads()
    _, batch, width = outputs.shape
    h_shape, c_shape = (1, batch, width), (1, batch, weights[0].shape[0] // 4)
    h, dh, dc = _dense("h_0", h_0, h_shape), _dense("dh_n", dh_n, h_shape), _dense("dc_n", dc_n, c_shape)
    d_outputs = None if dy is None else layout.read("dy", dy)
    d_weights: list[Any] = [None if w is None else np.zeros(w.shape, dtype) for w in weights]
    d_weight_ih, d_weight_hh, d_bias_ih, d_bias_hh, d_weight_hr = d_weights
    if layout is _FORWARD and d_weight_hr is None:
        dx, dstate = core.call(
            inputs,
            outputs,
            h,
            d_outputs,
            dh,
            dc,
            False,
            need_dx,
            need_dstate,
            d_weight_ih,
            d_weight_hh,
            d_bias_ih,
            d_bias_hh,
            threads,
        )
        dh_0, dc_0 = dstate or _NONE
    else:
        room = layout.room(inputs.shape, dtype) if need_dx else None
        dh_0, dc_0 = (np.empty(h_shape, dtype), np.empty(c_shape, dtype)) if need_dstate else _NONE
        core.backward(
            inputs,
            outputs,
            _row(h),
            d_outputs,
            _row(dh),
            _row(dc),
            room,
            _row(dh_0),
            _row(dc_0),
            d_weight_ih,
            d_weight_hh,
            d_bias_ih,
            d_bias_hh,
            threads,
            d_weight_hr=d_weight_hr,
        )
        dx = None if room is None else layout.deliver(room)
    return [None if d is None else torch.from_numpy(d) for d in (dx, dh_0, dc_0, *d_weights)]


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
    def weights(self) -> _Weights:
        return self[3:8]

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
    *tensors, _, reverse, record = arguments
    given = _Inputs(*tensors)
    _check(*given[:-1])
    layout = _layout(given.batch_sizes, reverse)
    y, h_n, c_n, kept = _forward(*given[:3], given.weights, layout, record)
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
    *tensors, _, tape, _, reverse, need_dx, need_dstate = rest
    given = _Inputs(*tensors)
    layout = _layout(given.batch_sizes, reverse)
    needs = need_dx, need_dstate
    d = _backward((dy, dh_n, dc_n), *given[:3], given.weights, layout, _take(tape), *needs)
    return [given.x.new_empty(0) if gradient is None else gradient for gradient in d]


def _lstm_backward_shapes(*arguments: Any) -> list[Tensor]:
    *tensors, y, _, batch, _, need_dx, need_dstate = arguments[3:]
    given = _Inputs(*tensors)
    x, rows = given.x, y.shape[1] if given.batch_sizes is None else batch
    states = [(1, rows, n) if need_dstate else (0,) for n in given.state_shapes]
    weights = [(0,) if w is None else tuple(w.shape) for w in given.weights]
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
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        dy, dh_n, dc_n, _ = gradients
        need = ctx.needs_input_grad
        options = ctx.batch, ctx.reverse, need[0], need[1] or need[2]
        d = lstm_backward(dy, dh_n, dc_n, *ctx.saved_tensors, *options)
        wanted = (gradient if needed else None for gradient, needed in zip(d, need, strict=False))
        return *wanted, None, None, None, None  # no gradients by batch_sizes and what follows


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
        (x, h_0, c_0), weights, layout = inputs[:3], inputs[3:8], inputs[8]
        record = any(ctx.needs_input_grad)
        y, h_n, c_n, tape = _forward(x, h_0, c_0, weights, layout, record)
        if record:
            ctx.layout, ctx.tape = layout, tape
            ctx.save_for_backward(x, h_0, c_0, *weights, y)
            ctx.set_materialize_grads(False)
        return y, h_n, c_n

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        # with create_graph=True the result must refuse its own derivative; the usual call need not pay for it
        return (_refuse_twice if torch.is_grad_enabled() else _gradients)(ctx, *gradients)


def _gradients(ctx: Any, *gradients: Tensor | None) -> Any:
    x, h_0, c_0, *weights, _ = ctx.saved_tensors  # y, too: autograd must notice if it was changed
    tape = ctx.__dict__.pop("tape", None)  # at once: of two threads only one gets it
    need = ctx.needs_input_grad
    needs = need[0], need[1] or need[2]
    # autograd drops the gradients of weights that need none
    return *_backward(gradients, x, h_0, c_0, weights, ctx.layout, tape, *needs), None


_refuse_twice = once_differentiable(_gradients)
_apply_directly = super(torch.autograd.Function, _Direct).apply  # `apply` without its part for transforms


def _key_set(*names: str) -> int:
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
    for name in names:
        keys = keys.add(getattr(torch._C.DispatchKey, name))
    return keys.raw_repr()


# those of a tensor that needs nothing but autograd and the CPU; the second are inference mode's
_CPU_KEYS = frozenset({_key_set("ADInplaceOrView", "AutogradCPU", "AutocastCPU"), _key_set("AutocastCPU")})


def _is_plain(tensor: Tensor, dtype: torch.dtype) -> bool:
    keys = torch._C._dispatch_keys(tensor).raw_repr()
    return type(tensor) in _KINDS and tensor.dtype is dtype and keys in _CPU_KEYS


_KINDS = frozenset({Tensor, nn.Parameter})  # others may have a __torch_function__


def _are_plain(weights: Sequence[Tensor | None], dtype: torch.dtype) -> bool:
    """The same of weights, but for oddities that only views have: they are asked at every call."""
    for w in weights:
        if w is not None and not (type(w) in _KINDS and w.is_cpu and w.dtype is dtype):
            return False
    return True


def _nothing_intervenes() -> bool:
    """Whether a call of an operator would be nothing but a call: no mode, transform or hook is to see it."""
    return not (
        torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state()
        or torch.is_autocast_enabled("cpu")
        or torch._C._autograd._top_saved_tensors_default_hooks(True)  # they may want to keep no tape
    )


def recur(
    x: Tensor,
    states: tuple[Tensor | None, Tensor | None],
    weights: Sequence[Tensor | None],
    batch_sizes: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return `(y, h_n, c_n)` of one layer in one direction; arguments are those of `_Inputs`."""
    inputs, dtype = (x, *states, *weights), x.dtype
    if (
        not torch.compiler.is_compiling()
        and _nothing_intervenes()
        and dtype in _PLANS
        and _is_plain(x, dtype)
        and all(state is None or _is_plain(state, dtype) for state in states)
        and _are_plain(weights, dtype)
    ):
        layout = _layout(batch_sizes, reverse)
        if torch.is_grad_enabled():
            return _apply_directly(*inputs, layout)  # type: ignore[no-any-return, no-untyped-call]
        return _forward(x, *states, weights, layout, False)[:3]  # type: ignore[arg-type]
    batch = 0 if batch_sizes is None else int(batch_sizes[0])
    options = batch, reverse, torch.is_grad_enabled()
    return lstm(*inputs, batch_sizes, *options)[:3]  # type: ignore[no-any-return]
