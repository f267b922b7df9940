"""LSTM: the layer, several deep and both ways if wanted, over the plans of the core.

All arithmetic of the recurrence is `_core.LstmPlan`'s, one call a layer and direction. Here are the
arguments, the initial values, the arrays for the results, and the order of the calls. Batch-first data is
read and written through strides, without a copy. How directions run is in `direction.py`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from lstmx import _core
from lstmx._checks import FloatArray, check_bool, check_choice, check_float, check_int
from lstmx._inputs import FLOAT32, Spans, as_dense, as_floats, check_checkpoint_steps, check_dtype
from lstmx.layers.arena import Arena, Parameter, Shape
from lstmx.layers.direction import Direction, directions
from lstmx.layers.dropout import draw_mask
from lstmx.layers.initial import fill_glorot, fill_uniform
from lstmx.layers.module import Backward, Module

State: TypeAlias = tuple[FloatArray, FloatArray]
DState: TypeAlias = tuple[FloatArray | None, FloatArray | None]

_NONE = (None, None)


class _Cell(NamedTuple):
    """One layer in one direction: its plan, its parameters (biases may be None), their gradients."""

    plan: _core.LstmPlan
    weights: tuple[FloatArray, FloatArray, FloatArray | None, FloatArray | None]
    d_weights: tuple[FloatArray, FloatArray, FloatArray | None, FloatArray | None]


class _Step(NamedTuple):
    """What backward needs of one layer's forward: all arrays `[T, B, *]`."""

    x: FloatArray
    y: FloatArray
    tapes: list[_core.LstmTape]
    mask: FloatArray | None  # dropout's, on what the next layer read


class LSTM(Module):
    """Long short-term memory: one or several layers, one or both directions, PyTorch's names and equations.

    Per step, with gates in the order i, f, g, o and sigma the logistic function::

        i = sigma(W_ii x + b_ii + W_hi h + b_hi)        c' = f * c + i * g
        f = sigma(W_if x + b_if + W_hf h + b_hf)        h' = o * tanh(c')
        g =  tanh(W_ig x + b_ig + W_hg h + b_hg)
        o = sigma(W_io x + b_io + W_ho h + b_ho)

    Args:
        input_size: Width I of x.
        hidden_size: Width H of the hidden state.
        num_layers: Layers L; each reads the output of the one before.
        bias: Whether there are biases, two a layer as in PyTorch.
        batch_first: Whether x and y are `[B, T, *]` instead of `[T, B, *]`. States are `[L*D, B, H]` in both
            cases.
        dropout: Probability of `Dropout` on the output of every layer but the last, in `forward` only.
        bidirectional: Whether each layer also runs backwards in time (D = 2); y then holds both outputs side
            by side.
        forget_bias: Added to the forget gate's slice of `bias_ih` at creation; 0 as in PyTorch. TensorFlow's
            `BasicLSTMCell(forget_bias=1)` keeps biases that start at 0 and adds 1 to the forget gate's sum at
            every step, so that a cell remembers before it has learnt anything (Jozefowicz et al. 2015). A
            constant beside a trainable bias is the same function, with the same gradients, as a bias that
            starts at that constant: `LSTM(..., init="glorot", forget_bias=1)` is that cell, but for PyTorch's
            second bias. (With init="pytorch", the 1 comes on top of two uniform draws.) To take over
            TensorFlow's trained biases, add its forget_bias to their forget slice. Keras's
            `unit_forget_bias=True` already stores a bias that starts at 1: add nothing there.
        init: How weights start. "pytorch": all parameters U(-1/sqrt(H), 1/sqrt(H)). "glorot": biases 0 and
            each whole matrix `weight_ih [4H, fan_in]`, `weight_hh [4H, H]` from U(-b, b), b = sqrt(6 /
            (fan_in + 4H)): the four gates count as one matrix of fan_out 4H, as in Keras's `kernel` (fan_in
            I) and `torch.nn.init.xavier_uniform_`. TensorFlow's `BasicLSTMCell` joins both matrices (fan_in I
            + H).
        checkpoint_steps: None, or the number of steps between saved cell states in training: forward then
            keeps y and every that-many-th cell state instead of all gates (5H numbers a step and row), and
            backward computes the gates again, a stretch at a time, which takes about another forward pass.
            All results are the same bits but for gradients of parameters, which sum stretch by stretch. For
            long sequences; the square root of T is a good number.
        dtype: Of parameters, x, y and states: "float32" or "float64", at about half the speed.
        rng: Seed or generator of the initial values and of dropout: `np.random.default_rng(rng)`.

    Parameters of layer k: `weight_ih_lk [4H, I or D*H]`, `weight_hh_lk [4H, H]`, `bias_ih_lk [4H]`,
    `bias_hh_lk [4H]`; with the suffix `_reverse` those of the backward direction.

    Call: `y, (h_n, c_n) = lstm(x, state=None, *, lengths=None, resets=None)`, with x `[T, B, I]` (`[B, T, I]`
    if batch_first) or one unbatched sequence `[T, I]`; state a pair (h_0, c_0), each `[L*D, B, H]` (unbatched
    `[L*D, H]`), None for zeros; y `[T, B, D*H]` accordingly, and the final states in the shape of the initial
    ones. `y, (h_n, c_n), backward = lstm.forward(x, state, *, lengths=None, resets=None)` trains; its y is
    read-only because backward reads it again. In `backward(dy, (dh_n, dc_n))`, each of the three may be None
    for zeros.

    Rows of different lengths: `lengths`, integers `[B]` in any order, from 0 to T. Row b has the steps
    t < lengths[b]. Beyond them x and dy are never read (NaN there changes nothing), and y and dx are 0; the
    row's final state is the one after its last step, its initial state where it has none. The reverse
    direction starts at each row's own last step, as over PyTorch's packed sequences. Of an unbatched x,
    lengths is a single integer.

    Pieces within a row (episodes, packed samples): `resets`, bool of the shape of x without its last axis,
    True where a new piece begins: h and c are set to zero before that step, in every layer, as if the pieces
    were sequences of their own, and no gradient passes between them. At the first step it discards the
    initial state. The reverse direction runs over each piece from its end: its state is zero before the last
    step of every piece but the row's last one, which begins with the initial state.

    Source: Hochreiter and Schmidhuber 1997, "Long Short-Term Memory"; Gers et al. 2000 (forget gate);
    https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html.

    Raises:
        TypeError, ValueError: An argument is of the wrong kind or out of range.

    Example:
        >>> import lstmx, numpy as np
        >>> lstm = lstmx.LSTM(3, 8, num_layers=2, batch_first=True, rng=0)
        >>> x = np.zeros((4, 20, 3), np.float32)
        >>> y, (h_n, c_n) = lstm(x)
        >>> y.shape, h_n.shape, c_n.shape
        ((4, 20, 8), (2, 4, 8), (2, 4, 8))
        >>> y, state, backward = lstm.forward(x, (h_n, c_n))
        >>> dx, (dh_0, dc_0) = backward(np.ones_like(y))
        >>> dx.shape, dh_0.shape, lstm.grads["weight_hh_l1"].shape
        ((4, 20, 3), (2, 4, 8), (32, 8))
        >>> y, _ = lstm(x, lengths=[20, 3, 0, 7])
        >>> bool(y[1, 2].any()), bool(y[1, 3:].any())
        (True, False)
    """

    _TRANSIENT = Module._TRANSIENT | {"_layers", "_only_cell"}

    input_size: int
    output_size: int
    batch_first: bool
    dtype: np.dtype[Any]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        forget_bias: float = 0.0,
        init: str = "pytorch",
        checkpoint_steps: int | None = None,
        dtype: str = "float32",
        rng: Any = None,
    ) -> None:
        self._configure(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            forget_bias=forget_bias,
            init=init,
            checkpoint_steps=checkpoint_steps,
            dtype=dtype,
        )
        if self.dropout and self.num_layers == 1:
            warnings.warn(
                f"dropout: {self.dropout} has no effect with num_layers=1, as it acts between layers",
                stacklevel=2,
            )
        self._create(rng)

    def _configure(
        self,
        input_size: Any,
        hidden_size: Any,
        num_layers: Any = 1,
        bias: Any = True,
        batch_first: Any = False,
        dropout: Any = 0.0,
        bidirectional: Any = False,
        *,
        forget_bias: Any = 0.0,
        init: Any = "pytorch",
        checkpoint_steps: Any = None,
        dtype: Any = "float32",
    ) -> None:
        self.input_size = check_int("input_size", input_size, minimum=1)
        self.hidden_size = check_int("hidden_size", hidden_size, minimum=1)
        self.num_layers = check_int("num_layers", num_layers, minimum=1)
        self.bias = check_bool("bias", bias)
        self.batch_first = check_bool("batch_first", batch_first)
        self.dropout = check_float("dropout", dropout, minimum=0.0, maximum=1.0)
        self.bidirectional = check_bool("bidirectional", bidirectional)
        self.forget_bias = check_float("forget_bias", forget_bias)
        if self.forget_bias and not self.bias:
            raise ValueError(f"forget_bias: expected 0 with bias=False, got {forget_bias!r}")
        self.init = check_choice("init", init, ("pytorch", "glorot"))
        self.checkpoint_steps = check_checkpoint_steps(checkpoint_steps)
        self.dtype = check_dtype("dtype", dtype)
        self._directions = 2 if self.bidirectional else 1
        self._num_cells = self.num_layers * self._directions
        self.output_size = self._directions * self.hidden_size

    @property
    def _draws(self) -> bool:
        return self.dropout > 0 and self.num_layers > 1

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the class under "type"."""
        return {
            "type": "LSTM",
            "input_size": self.input_size,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "bias": self.bias,
            "batch_first": self.batch_first,
            "dropout": self.dropout,
            "bidirectional": self.bidirectional,
            "forget_bias": self.forget_bias,
            "init": self.init,
            "checkpoint_steps": self.checkpoint_steps,
            "dtype": self.dtype.name,
        }

    # --- parameters -----------------------------------------------------------------------------------------

    def _cell_names(self) -> Iterator[tuple[int, tuple[str, str, str, str]]]:
        """Yield, for each layer and direction, its width of input and its four names."""
        for layer in range(self.num_layers):
            width = self.input_size if layer == 0 else self.output_size
            for suffix in (f"l{layer}", f"l{layer}_reverse")[: self._directions]:
                yield (
                    width,
                    (f"weight_ih_{suffix}", f"weight_hh_{suffix}", f"bias_ih_{suffix}", f"bias_hh_{suffix}"),
                )

    def _parameters(self) -> Iterator[Parameter]:
        gates = 4 * self.hidden_size
        for width, (weight_ih, weight_hh, bias_ih, bias_hh) in self._cell_names():
            yield Parameter(weight_ih, (gates, width), False)
            yield Parameter(weight_hh, (gates, self.hidden_size), False)
            if self.bias:
                yield Parameter(bias_ih, (gates,), True)
                yield Parameter(bias_hh, (gates,), True)

    def _initialise(self, rng: np.random.Generator) -> None:
        hidden = self.hidden_size
        with self.editing() as params:
            for name, view in params.items():
                if self.init == "pytorch":
                    fill_uniform(view, 1.0 / math.sqrt(hidden), rng)
                elif view.ndim == 2:
                    fill_glorot(view, rng)
                if name.startswith("bias_ih"):
                    view[hidden : 2 * hidden] += self.forget_bias

    def _bind(self, arena: Arena) -> None:
        super()._bind(arena)
        params, grads = self._params, self._grads
        plan = _core.LstmPlan if self.dtype == FLOAT32 else _core.LstmPlan64
        cells = []
        for width, (weight_ih, weight_hh, bias_ih, bias_hh) in self._cell_names():
            weights = (params[weight_ih], params[weight_hh], params.get(bias_ih), params.get(bias_hh))
            d_weights = (grads[weight_ih], grads[weight_hh], grads.get(bias_ih), grads.get(bias_hh))
            cells.append(_Cell(plan(width, self.hidden_size), weights, d_weights))
        self._only_cell = cells[0] if len(cells) == 1 else None
        self._layers = tuple(
            tuple(cells[k : k + self._directions]) for k in range(0, len(cells), self._directions)
        )

    def _stream_obstacle(self) -> str | None:
        return f"{self!r}, which also reads the sequence from its end" if self.bidirectional else None

    # --- shapes ---------------------------------------------------------------------------------------------

    def _output_shape(self, name: str, shape: Shape) -> Shape:
        if len(shape) not in (2, 3) or shape[-1] != self.input_size:
            batched = "(B, T, {})" if self.batch_first else "(T, B, {})"
            expected = f"{batched.format(self.input_size)} or (T, {self.input_size})"
            raise ValueError(f"{name}: expected shape {expected}, got {shape}")
        return (*shape[:-1], self.output_size)

    def _state_shape(self, shape: Shape) -> Shape:
        """The shape of h and c for an x (or a y) of `shape`."""
        layers = self._num_cells
        if len(shape) == 2:
            return (layers, self.hidden_size)
        return (layers, shape[0 if self.batch_first else 1], self.hidden_size)

    def _check_state(self, name: str, state: Any, shape: Shape) -> State | None:
        if state is None:
            return None
        want = self._state_shape(shape)
        h_0, c_0 = _pair(name, state, "(h_0, c_0)")
        return _as_state(name, 0, "h_0", h_0, want, self.dtype), _as_state(
            name, 1, "c_0", c_0, want, self.dtype
        )

    def _time_major(self, array: FloatArray) -> FloatArray:
        """`array` (x, y or a gradient of them, as the caller sees it) as `[T, B, *]`."""
        if array.ndim == 3:
            return array.transpose(1, 0, 2) if self.batch_first else array
        return array[:, np.newaxis]

    # --- the two passes -------------------------------------------------------------------------------------

    def __call__(
        self, x: Any, state: Any = None, *, lengths: Any = None, resets: Any = None
    ) -> tuple[FloatArray, Any]:
        """Return `(y, (h_n, c_n))`: inference, without dropout."""
        direct = self._call_core(x, state, False) if lengths is None and resets is None else None
        return super().__call__(x, state, lengths=lengths, resets=resets) if direct is None else direct[:2]

    def forward(
        self, x: Any, state: Any = None, *, lengths: Any = None, resets: Any = None
    ) -> tuple[FloatArray, Any, Backward]:
        """Return `(y, (h_n, c_n), backward)`: the training pass, with dropout; see `Module.forward`."""
        direct = self._call_core(x, state, True) if lengths is None and resets is None else None
        if direct is None:
            return super().forward(x, state, lengths=lengths, resets=resets)
        return self._trained(x, state, *direct)

    def _call_core(self, x: Any, state: Any, training: bool) -> Any:
        """Return `(y, (h_n, c_n), tape)` of a layer of one cell, if the core can take x and state so.

        None stands for everything else. The core checks what it takes, so that the usual call, which may last
        a microsecond, is not checked twice.
        """
        cell = self._only_cell
        if cell is None:
            return None
        options = self.batch_first, training, self.checkpoint_steps or 0, _core.get_num_threads()
        return cell.plan.call(self._arena.version, *cell.weights, x, state, *options)

    def _infer(self, x: FloatArray, state: State | None, spans: Spans | None) -> tuple[FloatArray, State]:
        direct = self._call_core(x, state, False) if spans is None else None
        y, final, _ = direct or self._compute(x, state, spans, False)
        return y, final

    def _train(
        self, x: FloatArray, state: State | None, spans: Spans | None
    ) -> tuple[FloatArray, State, Backward]:
        direct = self._call_core(x, state, True) if spans is None else None
        if direct is not None:
            return self._trained(x, state, *direct)
        y, final, steps = self._compute(x, state, spans, True)
        y.flags.writeable = False
        return y, final, _LSTMBackward(self, x.shape, state, spans, steps)

    def _trained(
        self, x: FloatArray, state: State | None, y: FloatArray, final: State, tape: _core.LstmTape
    ) -> tuple[FloatArray, State, Backward]:
        """What `_train` returns, for what the core made of a call at once."""
        y.flags.writeable = False
        return y, final, _CellBackward(self, x, y, state, tape)

    def _compute(
        self, x: FloatArray, state: State | None, spans: Spans | None, training: bool
    ) -> tuple[FloatArray, State, list[_Step]]:
        """Run all layers; the steps are empty where not training."""
        y = np.empty((*x.shape[:-1], self.output_size), self.dtype)
        final_shape = self._state_shape(x.shape)
        final = np.empty(final_shape, self.dtype), np.empty(final_shape, self.dtype)
        h_0, c_0, h_n, c_n = self._batched(x.shape, *(state or _NONE), *final)
        version, threads, saved = self._arena.version, _core.get_num_threads(), self.checkpoint_steps or 0
        steps: list[_Step] = []
        inputs, y_last = self._time_major(x), self._time_major(y)
        ways = directions(self._directions, inputs.shape[0], spans)
        last, k, h, c, mask = self.num_layers - 1, 0, None, None, None
        for index, cells in enumerate(self._layers):
            outputs = y_last if index == last else np.empty(y_last.shape, self.dtype)
            tapes: list[Any] = []
            for (plan, weights, _), way, part in zip(cells, ways, self._parts(outputs), strict=True):
                if h_0 is not None:
                    h, c = h_0[k], c_0[k]
                source, room = (inputs, part) if way.order is None else (way.read(inputs), way.room(part))
                lengths, resets, _ = way
                tapes.append(
                    plan.forward(
                        *(version, *weights, source, h, c, lengths, resets),
                        *(room, h_n[k], c_n[k], training, saved, threads),
                    )
                )
                if room is not part:
                    way.deliver(room, part)
                k += 1
            if training:
                rng = self._rng if index < last else None
                mask = None if rng is None else draw_mask(outputs.shape, self.dropout, rng, self.dtype)
                steps.append(_Step(inputs, outputs, tapes, mask))
            inputs = outputs if mask is None else outputs * mask
        return y, final, steps

    def _batched(self, shape: Shape, *states: FloatArray | None) -> Any:
        """Return `states` with an axis of rows, also those of an unbatched x, whose `shape` has none."""
        if len(shape) == 3:
            return states
        rows = (self._num_cells, 1, self.hidden_size)
        return [None if a is None else a.reshape(rows) for a in states]

    def _parts(self, outputs: FloatArray | None) -> tuple[Any, ...]:
        """The part of a layer's outputs [T,B,D*H] that is each direction's."""
        if not self.bidirectional:
            return (outputs,)
        hidden = self.hidden_size
        return (None, None) if outputs is None else (outputs[:, :, :hidden], outputs[:, :, hidden:])


class _LSTMBackward(Backward):
    __slots__ = ("_layer", "_shape")

    def __init__(
        self, layer: LSTM, shape: Shape, state: State | None, spans: Spans | None, steps: list[_Step]
    ) -> None:
        super().__init__(state, spans, steps)
        self._layer = layer
        self._shape = shape

    def _check_dy(self, name: str, dy: Any) -> FloatArray | None:
        shape = (*self._shape[:-1], self._layer.output_size)
        return None if dy is None else as_floats(name, dy, shape, self._layer.dtype)

    def _check_dstate(self, name: str, dstate: Any) -> DState | None:
        if dstate is None:
            return None
        want, dtype = self._layer._state_shape(self._shape), self._layer.dtype
        dh, dc = _pair(name, dstate, "(dh_n, dc_n)")
        return (
            None if dh is None else _as_state(name, 0, "dh_n", dh, want, dtype),
            None if dc is None else _as_state(name, 1, "dc_n", dc, want, dtype),
        )

    def _run(
        self,
        dy: FloatArray | None,
        dstate: DState | None,
        need_dx: bool,
        need_dstate: bool,
    ) -> tuple[FloatArray | None, State | None]:
        state, spans, steps = self._take()
        layer = self._layer
        state_shape, dtype = layer._state_shape(self._shape), layer.dtype
        dx = np.empty(self._shape, dtype) if need_dx else None
        d_initial = (np.empty(state_shape, dtype), np.empty(state_shape, dtype)) if need_dstate else None
        states = layer._batched(self._shape, *(state or _NONE), *(dstate or _NONE), *(d_initial or _NONE))
        d_outputs = None if dy is None else layer._time_major(dy)
        dx_first = None if dx is None else layer._time_major(dx)
        ways = directions(layer._directions, steps[0].x.shape[0], spans)
        for index in reversed(range(layer.num_layers)):
            step = steps.pop()
            d_inputs = np.empty(step.x.shape, dtype) if index else dx_first
            self._run_layer(index, step, ways, states, d_outputs, d_inputs)
            if index and steps[-1].mask is not None:
                d_inputs *= steps[-1].mask
            d_outputs = d_inputs
        return dx, d_initial

    def _run_layer(
        self,
        index: int,
        step: _Step,
        ways: tuple[Direction, ...],
        states: Any,
        d_outputs: FloatArray | None,
        d_inputs: FloatArray | None,
    ) -> None:
        """Differentiate one layer, both directions; d_inputs, if wanted, becomes the sum of their shares."""
        layer, threads = self._layer, _core.get_num_threads()
        ys, d_ys = layer._parts(step.y), layer._parts(d_outputs)
        for d, (cell, tape, way) in enumerate(zip(layer._layers[index], step.tapes, ways, strict=True)):
            k = index * len(ways) + d
            h_0, _, dh_n, dc_n, dh_0, dc_0 = (None if a is None else a[k] for a in states)
            x, y, dy = way.read(step.x), way.read(ys[d]), way.read(d_ys[d])
            dx = d_inputs if d == 0 or d_inputs is None else np.empty(d_inputs.shape, d_inputs.dtype)
            tape.backward(x, y, h_0, dy, dh_n, dc_n, dx, dh_0, dc_0, *cell.d_weights, threads)
            if d > 0 and d_inputs is not None:
                d_inputs += way.read(dx)


class _CellBackward(_LSTMBackward):
    """Of a call that the core made at once: one crossing of the border back, too."""

    __slots__ = ()

    def __init__(
        self, layer: LSTM, x: FloatArray, y: FloatArray, state: State | None, tape: _core.LstmTape
    ) -> None:
        Backward.__init__(self, x, y, state, tape)
        self._layer = layer
        self._shape = x.shape

    def _run(
        self,
        dy: FloatArray | None,
        dstate: DState | None,
        need_dx: bool,
        need_dstate: bool,
    ) -> tuple[FloatArray | None, State | None]:
        x, y, state, tape = self._take()
        layer = self._layer
        options = layer.batch_first, need_dx, need_dstate
        h_0 = None if state is None else state[0]
        d_weights = layer._layers[0][0].d_weights
        threads = _core.get_num_threads()
        dx, d_initial = tape.call(x, y, h_0, dy, *(dstate or _NONE), *options, *d_weights, threads)
        return dx, d_initial


def _pair(name: str, value: Any, what: str) -> tuple[Any, Any]:
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name}: expected a pair {what}, got {type(value).__name__}")
    if len(value) != 2:
        raise ValueError(f"{name}: expected a pair {what}, got {len(value)} items")
    return value[0], value[1]


def _as_state(
    name: str, index: int, label: str, value: Any, shape: Shape, dtype: np.dtype[Any]
) -> FloatArray:
    """Return one half of a state, or of its gradient, C-contiguous; the name is made only for a message."""
    plain = type(value) is np.ndarray and value.dtype == dtype and value.shape == shape
    if plain and value.flags.carray:
        return value  # type: ignore[no-any-return]
    return as_dense(f"{name}[{index}] ({label})", value, shape, dtype)
