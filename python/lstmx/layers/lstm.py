"""LSTM: the layer, several deep and both ways if wanted, over the plans of the core.

All arithmetic of the recurrence is `_core.LstmPlan`'s, one call a layer and direction. Here are the
arguments, the parameters, their initial values, and the short way of a layer that is a single cell. The
order of the calls is in `stack.py`, the layout of states in `states.py`. Batch-first data is read and written
through strides, without a copy.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, overload

import numpy as np

from lstmx import _core
from lstmx._checks import FloatArray, check_bool, check_choice, check_float, check_int
from lstmx._inputs import Spans, check_checkpoint_steps
from lstmx.layers.arena import Arena, Parameter, Shape
from lstmx.layers.connection import Affine, Connection
from lstmx.layers.initial import fill_glorot, fill_uniform
from lstmx.layers.module import Backward, Module
from lstmx.layers.record import Record
from lstmx.layers.stack import Cell, CellsBackward, Layer, StackBackward, run
from lstmx.layers.states import DState, State, StateLayout, cells_of

_NONE = (None, None)

# Of a highway's gate at the start, so that it carries what goes in: Srivastava et al. 2015 take -1 to -3.
_GATE_BIAS = -2.0


class LSTM(Module):
    """Long short-term memory: one or several layers, one or both directions, PyTorch's names and equations.

    Per step, with gates in the order i, f, g, o and sigma the logistic function::

        i = sigma(W_ii x + b_ii + W_hi h + b_hi)        c' = f * c + i * g
        f = sigma(W_if x + b_if + W_hf h + b_hf)        h' = o * tanh(c')
        g =  tanh(W_ig x + b_ig + W_hg h + b_hg)
        o = sigma(W_io x + b_io + W_ho h + b_ho)

    Args:
        input_size: Width I of x.
        hidden_size: Width H of the hidden state; or several, H_k of each layer.
        num_layers: Layers L; each reads the output of the one before. With several widths it follows from
            them.
        bias: Whether there are biases, two a layer as in PyTorch.
        batch_first: Whether x and y are `[B, T, *]` instead of `[T, B, *]`. States are `[L*D, B, H]` in both
            cases.
        dropout: Probability of `Dropout` on the output of every layer but the last, in `forward` only.
        bidirectional: Whether each layer also runs backwards in time (D = 2).
        merge: What a layer makes of its two directions: "concat", both outputs side by side, or their "sum".
        connection: What connects every layer after the first with its input x (what it reads, after dropout):
            None; "residual", `y = lstm(x) + x` (Wu et al. 2016); or "highway", `y = t * lstm(x) + (1 - t) *
            x` with the gate `t = sigmoid(weight_gate x + bias_gate)`, whose bias starts at -2, so that it
            carries x at first (Srivastava et al. 2015). Where x and y differ in width, `weight_res x` stands
            for the x that goes past the layer. The first layer reads features, which are left alone: to
            connect it, too, see `Residual`.
        learn_initial_state: Whether h and c begin as parameters, from 0 at creation, where a call has no
            `state`: the same for every row. A state that is given takes their place, and `resets` still set
            h and c to zero. A stream begins and begins anew with them.
        weight_dropout: Probability of zeroing, in `forward` only, each element of the `weight_hh`, one mask a
            call for all steps and rows, the rest divided by 1 - p: DropConnect (Merity et al. 2018). Calls of
            the layer (inference) use the weights as they are.
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
        rng: Seed or generator of the initial values and of dropout: `np.random.default_rng(rng)`.

    Parameters of layer k: `weight_ih_lk [4H, in]` (in is I, or the width of y of the layer before),
    `weight_hh_lk [4H, H]`, `bias_ih_lk [4H]`, `bias_hh_lk [4H]`, and if learnt `h_0_lk [H]`, `c_0_lk [H]`;
    with the suffix `_reverse` those of the backward direction. Of connections `weight_res_lk [out, in]`,
    `weight_gate_lk [out, in]`, `bias_gate_lk [out]`; their weights start as `Linear`'s.

    Call: `y, (h_n, c_n) = lstm(x, state=None, *, lengths=None, resets=None)`, with x `[T, B, I]` (`[B, T, I]`
    if batch_first) or one unbatched sequence `[T, I]`; state a pair (h_0, c_0), each `[L*D, B, H]` (unbatched
    `[L*D, H]`), None for zeros; y `[T, B, D*H]` accordingly (`[T, B, H]` of a sum), and the final states in
    the shape of the initial ones. Where layers differ in width, H is the last layer's, and each of h_0, c_0,
    h_n, c_n is a tuple of one array `[D, B, H_k]` a layer.

    `y, (h_n, c_n), backward = lstm.forward(x, state, *, lengths=None, resets=None)` trains; its y is
    read-only because backward reads it again. (With `training=False`, nothing is dropped.) In `backward(dy,
    (dh_n, dc_n))`, each of the three may be None for zeros.

    c at every step: `return_cells=True` adds a last item to what a call or `forward` returns, `cells`, a list
    of one array a layer, `[T, B, D*H_k]` in the layout of y (the directions side by side also in a sum), 0
    beyond `lengths`. The backward of that `forward` takes gradients into them: `backward(dy, dstate,
    dcells)`, with `dcells` such a list; it and its items may be None for zeros.

    The gates at every step: `trace=True` adds a last item, too (after `cells`): a dict of "i", "f", "g" and
    "o", after their activations, each a list like `cells`. In `forward` the layer must keep all steps
    (`checkpoint_steps=None`). `lstmx.plotting.plot_gates` draws them.

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
    https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html; Srivastava et al. 2015, "Highway
    Networks"; Wu et al. 2016, "Google's Neural Machine Translation System"; Merity et al. 2018, "Regularizing
    and Optimizing LSTM Language Models".

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
        >>> y, state, backward, cells, trace = lstm.forward(x, return_cells=True, trace=True)
        >>> bool((cells[0][:, -1] == state[1][0]).all()), trace["f"][1].shape
        (True, (4, 20, 8))
        >>> dx, dstate = backward(None, None, [None, np.ones_like(cells[1])])
        >>> lstm = lstmx.LSTM(3, [8, 5], bidirectional=True, merge="sum", connection="highway", rng=0)
        >>> y, (h_n, c_n) = lstm(np.zeros((20, 4, 3), np.float32))
        >>> y.shape, [h.shape for h in h_n], lstm.params["weight_gate_l1"].shape
        ((20, 4, 5), [(2, 4, 8), (2, 4, 5)], (5, 8))
    """

    _TRANSIENT = Module._TRANSIENT | {"_layers", "_only_cell", "_only_called", "_only_trained"}

    input_size: int
    hidden_size: int | tuple[int, ...]
    output_size: int
    batch_first: bool

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        merge: str = "concat",
        connection: str | None = None,
        learn_initial_state: bool = False,
        weight_dropout: float = 0.0,
        forget_bias: float = 0.0,
        init: str = "pytorch",
        checkpoint_steps: int | None = None,
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
            merge=merge,
            connection=connection,
            learn_initial_state=learn_initial_state,
            weight_dropout=weight_dropout,
            forget_bias=forget_bias,
            init=init,
            checkpoint_steps=checkpoint_steps,
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
        merge: Any = "concat",
        connection: Any = None,
        learn_initial_state: Any = False,
        weight_dropout: Any = 0.0,
        forget_bias: Any = 0.0,
        init: Any = "pytorch",
        checkpoint_steps: Any = None,
    ) -> None:
        self.input_size = check_int("input_size", input_size, minimum=1)
        self.hidden_size, self.num_layers = _check_widths(hidden_size, num_layers)
        self.bias = check_bool("bias", bias)
        self.batch_first = check_bool("batch_first", batch_first)
        self.dropout = check_float("dropout", dropout, minimum=0.0, maximum=1.0)
        self.bidirectional = check_bool("bidirectional", bidirectional)
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
        self.forget_bias = check_float("forget_bias", forget_bias)
        if self.forget_bias and not self.bias:
            raise ValueError(f"forget_bias: expected 0 with bias=False, got {forget_bias!r}")
        self.init = check_choice("init", init, ("pytorch", "glorot"))
        self.checkpoint_steps = check_checkpoint_steps(checkpoint_steps)
        self._directions = 2 if self.bidirectional else 1
        self._states = StateLayout.of(self.hidden_size, self.num_layers, self._directions)
        self.output_size = self._sizes(self.num_layers - 1)[2]

    @property
    def _draws(self) -> bool:
        return (self.dropout > 0 and self.num_layers > 1) or self.weight_dropout > 0

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the class under "type"."""
        widths = self.hidden_size
        return {
            "type": "LSTM",
            "input_size": self.input_size,
            "hidden_size": list(widths) if isinstance(widths, tuple) else widths,  # as JSON has it
            "num_layers": self.num_layers,
            "bias": self.bias,
            "batch_first": self.batch_first,
            "dropout": self.dropout,
            "bidirectional": self.bidirectional,
            "merge": self.merge,
            "connection": self.connection,
            "learn_initial_state": self.learn_initial_state,
            "weight_dropout": self.weight_dropout,
            "forget_bias": self.forget_bias,
            "init": self.init,
            "checkpoint_steps": self.checkpoint_steps,
        }

    # --- parameters -----------------------------------------------------------------------------------------

    def _sizes(self, layer: int) -> tuple[int, int, int]:
        """The width of what a layer reads, of its hidden state, and of what comes out."""
        sizes = self.hidden_size
        before, hidden = (sizes, sizes) if isinstance(sizes, int) else (sizes[layer - 1], sizes[layer])
        outputs = 1 if self.merge == "sum" else self._directions
        return self.input_size if layer == 0 else outputs * before, hidden, outputs * hidden

    def _suffixes(self, layer: int) -> tuple[str, ...]:
        """What the names of parameters end in, one a direction."""
        return (f"l{layer}", f"l{layer}_reverse")[: self._directions]

    def _parameters(self) -> Iterator[Parameter]:
        for layer in range(self.num_layers):
            width, hidden, output = self._sizes(layer)
            for suffix in self._suffixes(layer):
                yield Parameter(f"weight_ih_{suffix}", (4 * hidden, width), False)
                yield Parameter(f"weight_hh_{suffix}", (4 * hidden, hidden), False)
                if self.bias:
                    yield Parameter(f"bias_ih_{suffix}", (4 * hidden,), True)
                    yield Parameter(f"bias_hh_{suffix}", (4 * hidden,), True)
                if self.learn_initial_state:
                    yield Parameter(f"h_0_{suffix}", (hidden,), True)
                    yield Parameter(f"c_0_{suffix}", (hidden,), True)
            if self.connection is not None and layer > 0:
                if width != output:
                    yield Parameter(f"weight_res_l{layer}", (output, width), False)
                if self.connection == "highway":
                    yield Parameter(f"weight_gate_l{layer}", (output, width), False)
                    yield Parameter(f"bias_gate_l{layer}", (output,), True)

    def _initialise(self, rng: np.random.Generator) -> None:
        with self.editing() as params:
            for name, view in params.items():
                kind = name.split("_l")[0]
                if kind in ("h_0", "c_0"):
                    continue  # they are 0
                if kind == "bias_gate":
                    view[...] = _GATE_BIAS
                elif self.init == "pytorch":
                    fan = view.shape[1] if kind in ("weight_res", "weight_gate") else len(view) // 4
                    fill_uniform(view, 1.0 / math.sqrt(fan), rng)
                elif view.ndim == 2:
                    fill_glorot(view, rng)
                if kind == "bias_ih":
                    view[len(view) // 4 : len(view) // 2] += np.float32(self.forget_bias)

    def _bind(self, arena: Arena) -> None:
        super()._bind(arena)
        self._layers = tuple([self._bind_layer(k) for k in range(self.num_layers)])
        # The cell that is the whole layer, where there is one, for what the core may do at once: inference
        # from a known state; a call, whose state may be learnt; a training call, with weights dropped.
        self._only_cell = self._layers[0].cells[0] if self.num_layers * self._directions == 1 else None
        self._only_called = None if self.learn_initial_state else self._only_cell
        self._only_trained = None if self.weight_dropout else self._only_called

    def _bind_layer(self, index: int) -> Layer:
        params, grads = self._params, self._grads
        width, hidden, output = self._sizes(index)

        def both(suffix: str, *kinds: str) -> Any:
            """The parameters of these kinds, None where there is none, and their gradients."""
            return [tuple([arrays.get(f"{kind}_{suffix}") for kind in kinds]) for arrays in (params, grads)]

        cells = []
        for suffix in self._suffixes(index):
            weights = both(suffix, "weight_ih", "weight_hh", "bias_ih", "bias_hh")
            initial = both(suffix, "h_0", "c_0") if self.learn_initial_state else _NONE
            cells.append(Cell(_core.LstmPlan(width, hidden), *weights, *initial))
        connection = None
        if self.connection is not None and index > 0:
            projection, gate = (
                Affine(_core.LinearPlan(width, output), *both(f"l{index}", f"weight_{kind}", f"bias_{kind}"))
                if f"weight_{kind}_l{index}" in params
                else None
                for kind in ("res", "gate")
            )
            connection = Connection(projection, gate)
        return Layer(tuple(cells), hidden, output, self.merge == "sum", connection)

    def _stream_obstacle(self) -> str | None:
        return f"{self!r}, which also reads the sequence from its end" if self.bidirectional else None

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

    @overload
    def __call__(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        return_cells: Literal[False] = False,
        trace: Literal[False] = False,
    ) -> tuple[FloatArray, Any]: ...
    @overload
    def __call__(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        return_cells: bool = False,
        trace: bool = False,
    ) -> tuple[Any, ...]: ...
    def __call__(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        return_cells: bool = False,
        trace: bool = False,
    ) -> tuple[Any, ...]:
        """Return `(y, (h_n, c_n))`, and `cells`, `trace` if asked for: inference, without dropout."""
        if return_cells or trace:
            return self._call_recorded(self._infer, x, state, lengths, resets, return_cells, trace)
        direct = (
            self._call_core(self._only_called, x, state, False)
            if lengths is None and resets is None
            else None
        )
        return super().__call__(x, state, lengths=lengths, resets=resets) if direct is None else direct[:2]

    @overload
    def forward(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        training: bool = True,
        return_cells: Literal[False] = False,
        trace: Literal[False] = False,
    ) -> tuple[FloatArray, Any, Backward]: ...
    @overload
    def forward(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        training: bool = True,
        return_cells: bool = False,
        trace: bool = False,
    ) -> tuple[Any, ...]: ...
    def forward(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        training: bool = True,
        return_cells: bool = False,
        trace: bool = False,
    ) -> tuple[Any, ...]:
        """Return `(y, (h_n, c_n), backward)`, and `cells`, `trace` if asked for: the training pass.

        With dropout, unless `training` is False; see `Module.forward`.
        """
        if return_cells or trace:
            if trace and self.checkpoint_steps is not None:
                steps = self.checkpoint_steps
                raise ValueError(f"trace: expected False with checkpoint_steps={steps}, got {trace!r}")
            hook = self._train if check_bool("training", training) else self._infer_taped
            return self._call_recorded(hook, x, state, lengths, resets, return_cells, trace)
        direct = (
            self._call_core(self._only_trained, x, state, True)
            if lengths is None and resets is None and training is True
            else None
        )
        if direct is None:
            return super().forward(x, state, lengths=lengths, resets=resets, training=training)
        return self._trained(x, state, *direct)

    def _call_core(self, cell: Cell | None, x: Any, state: Any, training: bool) -> Any:
        """Return `(y, (h_n, c_n), tape)` of a layer that is one cell, if the core can take x and state so.

        None stands for everything else, also given as the cell. The core checks what it takes, so that the
        usual call, which may last a microsecond, is not checked twice.
        """
        if cell is None:
            return None
        options = self.batch_first, training, self.checkpoint_steps or 0, _core.get_num_threads()
        return cell.plan.call(self._arena.version, *cell.weights, x, state, *options)

    def _call_recorded(
        self,
        hook: Callable[..., tuple[Any, ...]],
        x: Any,
        state: Any,
        lengths: Any,
        resets: Any,
        return_cells: bool,
        trace: bool,
    ) -> tuple[Any, ...]:
        """What a call returns that asks for cells or a trace."""
        x = self._check_x("x", x)
        state = self._check_state("state", state, x.shape)
        spans = self._check_spans(lengths, resets, x.shape)
        return_cells, trace = check_bool("return_cells", return_cells), check_bool("trace", trace)
        record = Record(self, x.shape, return_cells, trace)
        return (*hook(x, state, spans, record), *record.items())

    def _infer(
        self, x: FloatArray, state: State | None, spans: Spans | None, record: Record | None = None
    ) -> tuple[FloatArray, State]:
        if state is None and self.learn_initial_state:
            state = self._initial_state(x)
        plain = spans is None and record is None
        direct = self._call_core(self._only_cell, x, state, False) if plain else None
        if direct is None:
            direct = run(self, x, state, spans, False, record)
        return direct[0], direct[1]

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
        only = self._only_trained if training else self._only_called
        direct = self._call_core(only, x, state, True) if spans is None and record is None else None
        if direct is not None:
            return self._trained(x, state, *direct)
        learnt = state is None and self.learn_initial_state
        if learnt:
            state = self._initial_state(x)
        y, final, steps = run(self, x, state, spans, training, record, True)
        y.flags.writeable = False
        kind = StackBackward if record is None or record.cells is None else CellsBackward
        return y, final, kind(self, x.shape, state, spans, steps, learnt)

    def _trained(
        self, x: FloatArray, state: State | None, y: FloatArray, final: State, tape: _core.LstmTape
    ) -> tuple[FloatArray, State, Backward]:
        """What `_train` returns, for what the core made of a call at once."""
        y.flags.writeable = False
        return y, final, _CellBackward(self, x, y, state, tape)

    # --- initial states -------------------------------------------------------------------------------------

    def _initial_state(self, x: FloatArray) -> State:
        """The learnt state for each row of x."""
        made = self._states.empty(self._batch_of(x.shape))
        self._set_rows(made, ...)
        return made

    def _restart(self, state: State, rows: Any) -> None:
        if self.learn_initial_state:
            self._set_rows(state, rows)
        else:
            super()._restart(state, rows)

    def _set_rows(self, state: State, rows: Any) -> None:
        """Write the learnt initial state into some rows of `state`."""
        h, c = cells_of(state[0]), cells_of(state[1])
        for k, cell in enumerate([cell for layer in self._layers for cell in layer.cells]):
            assert cell.initial is not None
            h[k][rows], c[k][rows] = cell.initial

    def _add_to_initial(self, dh: Sequence[FloatArray], dc: Sequence[FloatArray]) -> None:
        """Add each cell's gradients [B,H] of h and c, over all rows, to those of the parameters."""
        for k, cell in enumerate([cell for layer in self._layers for cell in layer.cells]):
            assert cell.d_initial is not None
            for total, d_rows in zip(cell.d_initial, (dh[k], dc[k]), strict=True):
                total += d_rows.sum(axis=0, dtype=np.float64)


class _CellBackward(StackBackward):
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
        d_weights = layer._layers[0].cells[0].d_weights
        threads = _core.get_num_threads()
        dx, d_initial = tape.call(x, y, h_0, dy, *(dstate or _NONE), *options, *d_weights, threads)
        return dx, d_initial


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
