"""What the recurrent layers, `LSTM`, `GRU` and `RNN`, have in common: all but the cell.

Arguments, parameters and their initial values, the shapes of x, y and states, learnt initial states. A
subclass says what its cell is: the gates, the plan of the core that computes them, parameters of its own. The
order of the calls is in `stack.py`, the layout of states in `states.py`, what the recurrence drops in
`masks.py`. Batch-first data is read and written through strides, without a copy.
"""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from lstmx import _core
from lstmx._checks import FloatArray, check_bool, check_choice, check_float, check_int
from lstmx._inputs import FLOAT32, Spans, check_checkpoint_steps, check_dtype
from lstmx.layers.arena import Arena, Parameter, Shape
from lstmx.layers.connection import Affine, Connection
from lstmx.layers.direction import BOTH, FORWARD, REVERSE
from lstmx.layers.initial import fill_glorot, fill_uniform
from lstmx.layers.masks import Drops
from lstmx.layers.module import Backward, Module
from lstmx.layers.products import HasSettings, Products, Settings, new_linear_plan, products_of
from lstmx.layers.record import Record
from lstmx.layers.stack import Cell, CellsBackward, Layer, StackBackward, run
from lstmx.layers.states import HalfLayout, State, StateLayout, cells_of

# Of a highway's gate at the start, so that it carries what goes in: Srivastava et al. 2015 take -1 to -3.
_GATE_BIAS = -2.0


class Recurrent(HasSettings, Module):
    """Base of the recurrent layers; see `LSTM` for what its arguments mean."""

    _TRANSIENT = Module._TRANSIENT | {"_layers"}

    _GATES: ClassVar[int]  # the weights have this times H rows
    _STATES: ClassVar[tuple[str, ...]]  # the names of the arrays of the caller's state, the output first
    _C_IS_H: ClassVar[bool] = False  # to the core

    input_size: int
    hidden_size: int | tuple[int, ...]
    output_size: int
    batch_first: bool
    dtype: np.dtype[Any]
    proj_size: int = 0

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
        reverse: Any = False,
        merge: Any = "concat",
        connection: Any = None,
        learn_initial_state: Any = False,
        weight_dropout: Any = 0.0,
        recurrent_dropout: Any = 0.0,
        init: Any = "pytorch",
        checkpoint_steps: Any = None,
        dtype: Any = "float32",
        precision: Any = None,
        engine: Any = "auto",
    ) -> None:
        self.input_size = check_int("input_size", input_size, minimum=1)
        self.hidden_size, self.num_layers = _check_widths(hidden_size, num_layers)
        self.bias = check_bool("bias", bias)
        self.batch_first = check_bool("batch_first", batch_first)
        self.dropout = check_float("dropout", dropout, minimum=0.0, maximum=1.0)
        self.bidirectional = check_bool("bidirectional", bidirectional)
        self.reverse = check_bool("reverse", reverse)
        if self.reverse and self.bidirectional:
            raise ValueError("reverse: expected False with bidirectional=True, got True")
        self.merge = check_choice("merge", merge, ("concat", "sum"))
        if self.merge == "sum" and not self.bidirectional:
            raise ValueError("merge: expected 'concat' with bidirectional=False, got 'sum'")
        if connection is not None:
            check_choice("connection", connection, ("residual", "highway"))
            if self.num_layers == 1:
                raise ValueError(f"connection: expected None with num_layers=1, got {connection!r}")
        self.connection: str | None = connection
        self.learn_initial_state = check_bool("learn_initial_state", learn_initial_state)
        self.weight_dropout = check_float("weight_dropout", weight_dropout, minimum=0.0, maximum=1.0)
        self.recurrent_dropout = check_float("recurrent_dropout", recurrent_dropout, minimum=0.0, maximum=1.0)
        self.init = check_choice("init", init, ("pytorch", "glorot"))
        self.checkpoint_steps = check_checkpoint_steps(checkpoint_steps)
        self.dtype = check_dtype("dtype", dtype)
        self._settings = Settings.check(precision, engine, self.dtype)

    def _finish_configuration(self, keep_h: float, keep_c: float) -> None:
        """Derive what follows from the arguments, with the probabilities of zoneout."""
        self._direction = BOTH if self.bidirectional else REVERSE if self.reverse else FORWARD
        self._directions = 2 if self.bidirectional else 1
        drops = Drops(keep_h, keep_c, self.recurrent_dropout)
        self._drops = drops if any(drops) else None
        c = HalfLayout.of(self.hidden_size, self.num_layers, self._directions, self.dtype)
        h = c
        if self.proj_size:
            h = HalfLayout.of(self.proj_size, self.num_layers, self._directions, self.dtype)
        self._states = StateLayout(h, c, "c" in self._STATES, self._C_IS_H)
        self.output_size = self._sizes(self.num_layers - 1)[2]

    def _warn_of_dropout(self) -> None:
        if self.dropout and self.num_layers == 1:
            warnings.warn(
                f"dropout: {self.dropout} has no effect with num_layers=1, as it acts between layers",
                stacklevel=3,
            )

    @property
    def _draws(self) -> bool:
        return (
            (self.dropout > 0 and self.num_layers > 1) or self.weight_dropout > 0 or self._drops is not None
        )

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the class under "type"."""
        import inspect

        others = {"rng", *Settings._fields}
        names = [name for name in inspect.signature(type(self)).parameters if name not in others]
        arguments = {name: _as_json(getattr(self, name)) for name in names}
        return {"type": type(self).__name__} | arguments | self._settings.config()

    def products(self, batch_size: int) -> list[Products]:
        """Return what makes each layer's products on the active target in a call with so many rows.

        Those of `connection` are not among them. A call whose numbers are out of an engine's range, as Inf
        and NaN are, leaves them to multiply-add units nevertheless.

        Raises:
            TypeError, ValueError: `batch_size` is not an integer, or below 1.

        Example:
            >>> import lstmx
            >>> lstmx.LSTM(64, 512, 2, engine="fma").products(64)[1]
            Products(engine='fma', precision='highest')
        """
        rows = check_int("batch_size", batch_size, minimum=1)
        return [products_of(layer.cells[0].plan, rows) for layer in self._layers]

    # --- the cell -------------------------------------------------------------------------------------------

    @abstractmethod
    def _plan(self, width: int, hidden: int) -> _core.LstmPlan:
        """Return the plan of one layer in one direction: `_new_plan` with the cell's options."""

    def _new_plan(self, width: int, hidden: int, **options: Any) -> _core.LstmPlan:
        kind = _core.LstmPlan if self.dtype == FLOAT32 else _core.LstmPlan64
        return kind(width, hidden, **options, **self._settings._asdict())

    def _cell_parameters(self, hidden: int) -> Iterator[tuple[str, Shape]]:
        """Yield what a cell has besides weights and biases: `weight_hr` or `weight_ch`."""
        yield from ()

    def _statistics(self, index: int, d: int) -> list[FloatArray] | None:
        """Return the running statistics of direction d of a layer that normalizes over the batch."""
        return None

    # --- parameters -----------------------------------------------------------------------------------------

    def _sizes(self, layer: int) -> tuple[int, int, int]:
        """The width of what a layer reads, the number of its units, and the width of what comes out."""
        sizes = self.hidden_size
        before, hidden = (sizes, sizes) if isinstance(sizes, int) else (sizes[layer - 1], sizes[layer])
        outputs = 1 if self.merge == "sum" else self._directions
        read = self.input_size if layer == 0 else outputs * (self.proj_size or before)
        return read, hidden, outputs * (self.proj_size or hidden)

    def _suffixes(self, layer: int) -> tuple[str, ...]:
        """What the names of parameters end in, one a direction."""
        return (f"l{layer}", f"l{layer}_reverse")[: self._directions]

    def _parameters(self) -> Iterator[Parameter]:
        for layer in range(self.num_layers):
            width, hidden, output = self._sizes(layer)
            rows, out = self._GATES * hidden, self.proj_size or hidden
            for suffix in self._suffixes(layer):
                yield Parameter(f"weight_ih_{suffix}", (rows, width), False)
                yield Parameter(f"weight_hh_{suffix}", (rows, out), False)
                if self.bias:
                    yield Parameter(f"bias_ih_{suffix}", (rows,), True)
                    yield Parameter(f"bias_hh_{suffix}", (rows,), True)
                for kind, shape in self._cell_parameters(hidden):
                    yield Parameter(f"{kind}_{suffix}", shape, kind.startswith(("gain", "bias")))
                if self.learn_initial_state:
                    for state, units in zip(self._STATES, (out, hidden), strict=False):
                        yield Parameter(f"{state}_0_{suffix}", (units,), True)
            if self.connection is not None and layer > 0:
                if width != output:
                    yield Parameter(f"weight_res_l{layer}", (output, width), False)
                if self.connection == "highway":
                    yield Parameter(f"weight_gate_l{layer}", (output, width), False)
                    yield Parameter(f"bias_gate_l{layer}", (output,), True)

    def _initialise(self, rng: np.random.Generator) -> None:
        with self.editing() as params:
            for name, view in params.items():
                self._fill(name.split("_l")[0], self._units_of(name), view, rng)

    def _units_of(self, name: str) -> int:
        """The number of units of the layer that a parameter belongs to."""
        widths = self.hidden_size
        return widths if isinstance(widths, int) else widths[int(name.split("_l")[1].split("_")[0])]

    def _fill(self, kind: str, hidden: int, view: FloatArray, rng: np.random.Generator) -> None:
        """Draw the initial values of one parameter."""
        if kind in ("h_0", "c_0"):
            return  # they are 0
        if kind == "bias_gate":
            view[...] = _GATE_BIAS
        elif self.init == "pytorch":
            fan = view.shape[1] if kind in ("weight_res", "weight_gate") else hidden
            fill_uniform(view, 1.0 / math.sqrt(fan), rng)
        elif view.ndim == 2:
            fill_glorot(view, rng)
        elif kind == "weight_ch":
            fill_uniform(view, math.sqrt(3.0 / hidden), rng)

    def _bind(self, arena: Arena) -> None:
        super()._bind(arena)
        self._layers = tuple([self._bind_layer(k) for k in range(self.num_layers)])

    def _bind_layer(self, index: int) -> Layer:
        params, grads = self._params, self._grads
        width, hidden, output = self._sizes(index)

        def both(suffix: str, *kinds: str) -> Any:
            """The parameters of these kinds, None where there is none, and their gradients."""
            return [tuple([arrays.get(f"{kind}_{suffix}") for kind in kinds]) for arrays in (params, grads)]

        cells = []
        for suffix in self._suffixes(index):
            weights, d_weights = both(suffix, "weight_ih", "weight_hh", "bias_ih", "bias_hh")
            kinds = [kind for kind, _ in self._cell_parameters(hidden)]
            others = {kind: params[f"{kind}_{suffix}"] for kind in kinds}
            d_others = {f"d_{kind}": grads[f"{kind}_{suffix}"] for kind in kinds}
            learnt = [f"{state}_0" for state in self._STATES]
            initial, d_initial = both(suffix, *learnt) if self.learn_initial_state else (None, None)
            plan = self._plan(width, hidden)
            cells.append(Cell(plan, weights, d_weights, others, d_others, initial, d_initial))
        connection = None
        if self.connection is not None and index > 0:
            projection, gate = (
                Affine(
                    new_linear_plan(width, output, self.dtype, self._settings),
                    *both(f"l{index}", f"weight_{kind}", f"bias_{kind}"),
                )
                if f"weight_{kind}_l{index}" in params
                else None
                for kind in ("res", "gate")
            )
            connection = Connection(projection, gate)
        return Layer(tuple(cells), self.proj_size or hidden, output, self.merge == "sum", connection)

    def _stream_obstacle(self) -> str | None:
        if self.bidirectional:
            return f"{self!r}, which also reads the sequence from its end"
        return f"{self!r}, which reads the sequence from its end" if self.reverse else None

    # --- shapes ---------------------------------------------------------------------------------------------

    def _output_shape(self, name: str, shape: Shape) -> Shape:
        if len(shape) not in (2, 3) or shape[-1] != self.input_size:
            batched = "(B, T, {})" if self.batch_first else "(T, B, {})"
            expected = f"{batched.format(self.input_size)} or (T, {self.input_size})"
            raise ValueError(f"{name}: expected shape {expected}, got {shape}")
        return (*shape[:-1], self.output_size)

    def _batch_of(self, shape: Shape) -> int | None:
        """The number of rows in an x (or a y) of `shape`; None of an unbatched one."""
        return None if len(shape) == 2 else shape[0 if self.batch_first else 1]

    def _check_state(self, name: str, state: Any, shape: Shape) -> State | None:
        if state is None:
            return None
        return self._states.check(name, state, ("h_0", "c_0"), self._batch_of(shape))

    def _time_major(self, array: FloatArray) -> FloatArray:
        """`array` (x, y or a gradient of them, as the caller sees it) as `[T, B, *]`."""
        if array.ndim == 3:
            return array.transpose(1, 0, 2) if self.batch_first else array
        return array[:, np.newaxis]

    # --- the two passes -------------------------------------------------------------------------------------

    def _infer(
        self, x: FloatArray, state: State | None, spans: Spans | None, record: Record | None = None
    ) -> tuple[FloatArray, State]:
        if state is None and self.learn_initial_state:
            state = self._initial_state(x)
        y, final, _ = run(self, x, state, spans, False, record)
        return y, final

    def _infer_taped(
        self, x: FloatArray, state: State | None, spans: Spans | None, record: Record | None = None
    ) -> tuple[FloatArray, State, Backward]:
        return self._train(x, state, spans, record, False)

    def _train(
        self,
        x: FloatArray,
        state: State | None,
        spans: Spans | None,
        record: Record | None = None,
        training: bool = True,
    ) -> tuple[FloatArray, State, Backward]:
        learnt = state is None and self.learn_initial_state
        if learnt:
            state = self._initial_state(x)
        y, final, steps = run(self, x, state, spans, training, record, True)
        y.flags.writeable = False
        kind = StackBackward if record is None or record.cells is None else CellsBackward
        return y, final, kind(self, x.shape, state, spans, steps, learnt)

    # --- initial states -------------------------------------------------------------------------------------

    def _initial_state(self, x: FloatArray) -> State:
        """The learnt state for each row of x."""
        made = self._states.state(self._states.empty(self._batch_of(x.shape)))
        self._set_rows(made, ...)
        return made

    def _restart(self, state: State, rows: Any) -> None:
        if self.learn_initial_state:
            self._set_rows(state, rows)
        else:
            super()._restart(state, rows)

    def _set_rows(self, state: State, rows: Any) -> None:
        """Write the learnt initial state into some rows of `state`."""
        for values, parts in self._by_cell(state, "initial"):
            for value, part in zip(values, parts, strict=True):
                part[rows] = value

    def _add_to_initial(self, d_state: State) -> None:
        """Add the gradients by a state, over all rows, to those of the parameters."""
        for totals, d_parts in self._by_cell(d_state, "d_initial"):
            for total, d_rows in zip(totals, d_parts, strict=True):
                total += d_rows.sum(axis=0, dtype=np.float64)

    def _by_cell(self, state: State, field: str) -> Iterator[tuple[Any, tuple[FloatArray, ...]]]:
        """Yield, of each cell, a field and its part [B,H] of each half of a state."""
        halves = [cells_of(half) for half in self._states.pair(state) if half is not None]
        for k, cell in enumerate([cell for layer in self._layers for cell in layer.cells]):
            yield getattr(cell, field), tuple([half[k] for half in halves])


def _check_widths(hidden_size: Any, num_layers: Any) -> tuple[int | tuple[int, ...], int]:
    """Return hidden_size, as one number where all layers have one width, and the number of layers."""
    if not isinstance(hidden_size, (list, tuple, np.ndarray)):
        width = check_int("hidden_size", hidden_size, minimum=1)
        return width, check_int("num_layers", num_layers, minimum=1)
    if len(hidden_size) == 0:
        raise ValueError("hidden_size: expected at least one width, got none")
    widths = tuple([check_int(f"hidden_size[{k}]", n, minimum=1) for k, n in enumerate(hidden_size)])
    layers = check_int("num_layers", num_layers, minimum=1)
    if layers not in (1, len(widths)):
        raise ValueError(f"num_layers: expected {len(widths)}, one for each hidden_size, got {layers}")
    return (widths if len(set(widths)) > 1 else widths[0]), len(widths)


def _as_json(value: Any) -> Any:
    """An argument as JSON has it: lists for tuples, the name of a dtype."""
    if isinstance(value, np.dtype):
        return value.name
    return [_as_json(item) for item in value] if isinstance(value, tuple) else value


def check_zoneout(name: str, value: Any) -> float:
    """Return a probability of zoneout."""
    return check_float(name, value, minimum=0.0, maximum=1.0)
