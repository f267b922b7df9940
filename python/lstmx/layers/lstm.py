"""LSTM: the layer, several deep and both ways if wanted, over the plans of the core.

All arithmetic of the recurrence is `_core.LstmPlan`'s, one call a layer and direction. Here are the cell's
options, and the short way of a layer that is a single plain cell; what all cells have is in `recurrent.py`.
The plain cell is the core's fused one; any option that is used takes the cell "variant", which has them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeAlias, overload

import numpy as np

from lstmx import _core
from lstmx._checks import FloatArray, check_bool, check_float, check_int
from lstmx._inputs import Spans
from lstmx.layers import statistics
from lstmx.layers.arena import Arena, Shape
from lstmx.layers.module import Backward
from lstmx.layers.record import Record
from lstmx.layers.recurrent import Recurrent, check_zoneout
from lstmx.layers.stack import Cell, StackBackward
from lstmx.layers.states import State, check_items

_NONE = (None, None)

Activation: TypeAlias = str | tuple[str, float | None, float | None]

_ACTIVATIONS: tuple[Activation, Activation, Activation] = ("sigmoid", "tanh", "tanh")


class LSTM(Recurrent):
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
        proj_size: Width P of h, if it is not 0: `h' = W_hr (o * tanh(c'))` (Sak et al. 2014), P less than H.
            Then y is D*P wide, h `[L*D, B, P]`, and `weight_hh` reads P; c stays as it is.
        reverse: Whether the one direction that there is runs from each row's end to its start, as the second
            of a bidirectional layer does (ONNX's direction "reverse"). The parameters keep their names.
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
        peephole: Whether the gates see the cell state, through `weight_ch [3H]`, for i, f and o: `weight_ch_i
            * c` is added to what i's sigma takes, the same for f, and `weight_ch_o * c'` for o (Gers et al.
            2002).
        coupled: Whether the forget gate is `f = 1 - i` (Greff et al. 2017). The weights keep its rows, which
            are not read and have no gradient.
        layer_norm: Whether the products with x and with h are normalized before they are added, gate by gate
            over the H units of a row, and c' before the output reads it: to mean 0 and variance 1 (+ 1e-5),
            times the gains `gain_ih [4H]`, `gain_hh [4H]` and `gain_c [H]`, which start at 1, and plus
            `bias_c [H]`, which starts at 0 (Ba, Kiros and Hinton 2016, equations 20 to 22; the c that is
            carried is not normalized).
        batch_norm_steps: None, or the number of steps that have statistics of their own where the same three
            are normalized over the rows of the batch instead, step by step (Cooijmans et al. 2017): in
            `forward` with those of the batch's rows, in calls of the layer with running ones, which are
            `buffers` (`running_mean_ih_lk [steps, 4H]` and so on; momentum 0.1, unbiased variances). Beyond
            these steps the last one's serve. Steps are counted from the beginning of the call, so that such a
            layer has no `stream`. Gains start at 0.1.
        gate_clip: None, or what the sums in i, f, g and o are clipped to, [-gate_clip, gate_clip]. Beyond it
            passes no gradient.
        cell_clip: None, or what c' is clipped to, before the output reads it; likewise.
        activations: Those of the gates (instead of sigma), of g and of c' (instead of tanh). Each is a name,
            one of `lstmx.reference.ACTIVATIONS`, or (name, alpha, beta) where its parameters are not ONNX's
            usual ones, None being the usual one: ("hard_sigmoid", 1 / 6, None) is Keras 3's. A
            `lstmx.reference.Activation` will do, too.
        zoneout: Probability that a unit of h, and one of c, stays at a step what it was before; or a pair of
            probabilities, of h and of c. In `forward` drawn for each step, row and unit; calls of the layer
            use the expectation, `p * h + (1 - p) * h'` (Krueger et al. 2017).
        recurrent_dropout: Probability of zeroing, in `forward` only, each element of h where it enters
            `weight_hh`, the rest divided by 1 - p: one mask [B, H] a call, layer and direction for all steps
            (Gal and Ghahramani 2016).
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
            + H). `weight_hr` likewise, and `weight_ch` as three vectors of fan_in and fan_out H, as
            TensorFlow's.
        checkpoint_steps: None, or the number of steps between saved cell states in training: forward then
            keeps y and every that-many-th cell state instead of all gates (5H numbers a step and row), and
            backward computes the gates again, a stretch at a time, which takes about another forward pass.
            All results are the same bits but for gradients of parameters, which sum stretch by stretch. For
            long sequences; the square root of T is a good number.
        dtype: Of parameters, x, y and states: "float32" or "float64", which takes two to three times as long.
        precision: How exact products have to be: "highest", "high" or "medium"; None: as
            `lstmx.set_float32_precision` or a `lstmx.float32_precision` block says.
        engine: What makes products: "auto", the target's engine where it is faster, unless a
            `lstmx.float32_precision` block says something else; "fma", the multiply-add units; "tiles", the
            engine wherever there is one. float64 has none.
        rng: Seed or generator of the initial values and of dropout: `np.random.default_rng(rng)`.

    Parameters of layer k: `weight_ih_lk [4H, in]` (in is I, or the width of y of the layer before),
    `weight_hh_lk [4H, H]`, `bias_ih_lk [4H]`, `bias_hh_lk [4H]`, with a projection `weight_hr_lk [P, H]`,
    with peepholes `weight_ch_lk [3H]`, and if learnt `h_0_lk [H]`, `c_0_lk [H]`; with the
    suffix `_reverse` those of the backward direction. Of connections `weight_res_lk [out, in]`,
    `weight_gate_lk [out, in]`, `bias_gate_lk [out]`; their weights start as `Linear`'s.

    Call: `y, (h_n, c_n) = lstm(x, state=None, *, lengths=None, resets=None)`, with x `[T, B, I]` (`[B, T, I]`
    if batch_first) or one unbatched sequence `[T, I]`; state a pair (h_0, c_0), each `[L*D, B, H]` (unbatched
    `[L*D, H]`), None for zeros; y `[T, B, D*H]` accordingly (`[T, B, H]` of a sum), and the final states in
    the shape of the initial ones. With a projection, P stands for H in h and y. Where layers differ in width,
    H is the last layer's, and each of h_0, c_0, h_n, c_n is a tuple of one array `[D, B, H_k]` a layer.

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
    Networks"; Gers, Schraudolph and Schmidhuber 2002, "Learning Precise Timing with LSTM Recurrent Networks";
    Sak, Senior and Beaufays 2014, "Long Short-Term Memory Recurrent Neural Network Architectures for Large
    Scale Acoustic Modeling"; Greff et al. 2017, "LSTM: A Search Space Odyssey"; Krueger et al. 2017,
    "Zoneout"; Gal and Ghahramani 2016, "A Theoretically Grounded Application of Dropout in Recurrent Neural
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
        >>> lstm = lstmx.LSTM(3, 8, proj_size=2, peephole=True, zoneout=(0.1, 0.05), rng=0)
        >>> y, (h_n, c_n) = lstm(np.zeros((20, 4, 3), np.float32))
        >>> y.shape, h_n.shape, c_n.shape, lstm.params["weight_ch_l0"].shape
        ((20, 4, 2), (1, 4, 2), (1, 4, 8), (24,))
    """

    _TRANSIENT = Recurrent._TRANSIENT | {"_only_cell", "_only_called", "_only_trained"}

    _GATES = 4
    _STATES = ("h", "c")

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        reverse: bool = False,
        merge: str = "concat",
        connection: str | None = None,
        learn_initial_state: bool = False,
        peephole: bool = False,
        coupled: bool = False,
        layer_norm: bool = False,
        batch_norm_steps: int | None = None,
        gate_clip: float | None = None,
        cell_clip: float | None = None,
        activations: Sequence[Activation] = _ACTIVATIONS,
        zoneout: float | tuple[float, float] = 0.0,
        recurrent_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        forget_bias: float = 0.0,
        init: str = "pytorch",
        checkpoint_steps: int | None = None,
        dtype: str = "float32",
        precision: str | None = None,
        engine: str = "auto",
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
            proj_size,
            reverse=reverse,
            merge=merge,
            connection=connection,
            learn_initial_state=learn_initial_state,
            peephole=peephole,
            coupled=coupled,
            layer_norm=layer_norm,
            batch_norm_steps=batch_norm_steps,
            gate_clip=gate_clip,
            cell_clip=cell_clip,
            activations=activations,
            zoneout=zoneout,
            recurrent_dropout=recurrent_dropout,
            weight_dropout=weight_dropout,
            forget_bias=forget_bias,
            init=init,
            checkpoint_steps=checkpoint_steps,
            dtype=dtype,
            precision=precision,
            engine=engine,
        )
        self._warn_of_dropout()
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
        proj_size: Any = 0,
        *,
        peephole: Any = False,
        coupled: Any = False,
        layer_norm: Any = False,
        batch_norm_steps: Any = None,
        gate_clip: Any = None,
        cell_clip: Any = None,
        activations: Any = _ACTIVATIONS,
        zoneout: Any = 0.0,
        forget_bias: Any = 0.0,
        **common: Any,
    ) -> None:
        super()._configure(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, **common
        )
        self.proj_size = check_int("proj_size", proj_size, minimum=0)
        widths = self.hidden_size
        least = widths if isinstance(widths, int) else min(widths)
        if self.proj_size >= least:
            raise ValueError(f"proj_size: expected less than hidden_size ({least}), got {self.proj_size}")
        self.peephole = check_bool("peephole", peephole)
        self.coupled = check_bool("coupled", coupled)
        self.layer_norm = check_bool("layer_norm", layer_norm)
        self.batch_norm_steps: int | None = None
        if batch_norm_steps is not None:
            self.batch_norm_steps = check_int("batch_norm_steps", batch_norm_steps, minimum=1)
            if self.layer_norm:
                raise ValueError(
                    f"batch_norm_steps: expected None with layer_norm=True, got {batch_norm_steps}"
                )
        self.gate_clip = _check_clip("gate_clip", gate_clip)
        self.cell_clip = _check_clip("cell_clip", cell_clip)
        self.activations = _check_activations(activations)
        self.zoneout = _check_zoneouts(zoneout)
        self.forget_bias = check_float("forget_bias", forget_bias)
        if self.forget_bias and not self.bias:
            raise ValueError(f"forget_bias: expected 0 with bias=False, got {forget_bias!r}")
        if self.forget_bias and self.coupled:
            raise ValueError(f"forget_bias: expected 0 with coupled=True, got {forget_bias!r}")
        keep = self.zoneout if isinstance(self.zoneout, tuple) else (self.zoneout, self.zoneout)
        self._finish_configuration(*keep)

    # --- the cell -------------------------------------------------------------------------------------------

    @property
    def _is_plain(self) -> bool:
        """Whether the cell is PyTorch's, with nothing more."""
        options = self.proj_size, self.peephole, self.coupled, self.layer_norm, self.gate_clip, self.cell_clip
        return not any((*options, self.batch_norm_steps, self._drops)) and self.activations == _ACTIVATIONS

    def _plan(self, width: int, hidden: int) -> _core.LstmPlan:
        if self._is_plain:
            return self._new_plan(width, hidden)
        options: dict[str, Any] = {name: getattr(self, name) for name in ("gate_clip", "cell_clip")}
        options |= zip(("gate", "candidate", "output"), map(_function, self.activations), strict=True)
        return self._new_plan(
            width,
            hidden,
            cell="variant",
            output_size=self.proj_size or hidden,
            coupled=self.coupled,
            peepholes=self.peephole,
            layer_norm=self.layer_norm,
            batch_norm=self.batch_norm_steps is not None,
            **{name: option for name, option in options.items() if option is not None},
        )

    def _cell_parameters(self, hidden: int) -> Iterator[tuple[str, Shape]]:
        if self.proj_size:
            yield "weight_hr", (self.proj_size, hidden)
        if self.peephole:
            yield "weight_ch", (3 * hidden,)
        if self.layer_norm or self.batch_norm_steps is not None:
            yield from (("gain_ih", (4 * hidden,)), ("gain_hh", (4 * hidden,)))
            yield from (("gain_c", (hidden,)), ("bias_c", (hidden,)))

    def _buffer_shapes(self) -> Iterator[tuple[str, Shape]]:
        if self.batch_norm_steps is None:
            return
        for layer in range(self.num_layers):
            for suffix in self._suffixes(layer):
                for name, shape in statistics.shapes(self.batch_norm_steps, self._sizes(layer)[1]):
                    yield f"{name}_{suffix}", shape

    def _statistics(self, index: int, d: int) -> list[FloatArray] | None:
        if self.batch_norm_steps is None:
            return None
        return [self._buffers[f"{name}_{self._suffixes(index)[d]}"] for name in statistics.NAMES]

    def _stream_obstacle(self) -> str | None:
        if self.batch_norm_steps is not None:
            return f"{self!r}, whose statistics count the steps of a call"
        return super()._stream_obstacle()

    def _fill(self, kind: str, hidden: int, view: FloatArray, rng: np.random.Generator) -> None:
        if kind.startswith(("gain", "running_var")):
            view[...] = 0.1 if kind.startswith("gain") and self.batch_norm_steps is not None else 1
            return
        if kind == "bias_c" or kind.startswith("running_mean"):
            return  # they are 0
        super()._fill(kind, hidden, view, rng)
        if kind == "bias_ih":
            view[hidden : 2 * hidden] += self.forget_bias

    def _bind(self, arena: Arena) -> None:
        super()._bind(arena)
        # The cell that is the whole layer, where there is one, for what the core may do at once: inference
        # from a known state; a call, whose state may be learnt; a training call, with weights dropped.
        alone = self.num_layers * self._directions == 1 and not self.reverse and self._is_plain
        self._only_cell = self._layers[0].cells[0] if alone else None
        self._only_called = None if self.learn_initial_state else self._only_cell
        self._only_trained = None if self.weight_dropout else self._only_called

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
        if spans is None and record is None and self._only_cell is not None:
            if state is None and self.learn_initial_state:
                state = self._initial_state(x)
            direct = self._call_core(self._only_cell, x, state, False)
            if direct is not None:
                return direct[0], direct[1]
        return super()._infer(x, state, spans, record)

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
        return super()._train(x, state, spans, record, training)

    def _trained(
        self, x: FloatArray, state: State | None, y: FloatArray, final: State, tape: _core.LstmTape
    ) -> tuple[FloatArray, State, Backward]:
        """What `_train` returns, for what the core made of a call at once."""
        y.flags.writeable = False
        return y, final, _CellBackward(self, x, y, state, tape)


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
        dstate: State | None,
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


def _check_clip(name: str, value: Any) -> float | None:
    return None if value is None else check_float(name, value, minimum=0.0, exclusive=True)


def _check_zoneouts(value: Any) -> float | tuple[float, float]:
    """Return zoneout, as one number where h and c have the same."""
    if not isinstance(value, (tuple, list)):
        return check_zoneout("zoneout", value)
    check_items("zoneout", value, 2, "a number or a pair (of h, of c)")
    of_h, of_c = (check_zoneout(f"zoneout[{n}]", p) for n, p in enumerate(value))
    return of_h if of_h == of_c else (of_h, of_c)


def _check_activations(value: Any) -> tuple[Activation, ...]:
    """Return three activations, each a name, or name, alpha and beta where these are not the usual ones."""
    items = check_items("activations", value, 3, "three, of the gates, the candidate and c")
    if tuple(items) == _ACTIVATIONS:
        return _ACTIVATIONS
    return tuple([_check_activation(f"activations[{n}]", item) for n, item in enumerate(items)])


def _check_activation(name: str, value: Any) -> Activation:
    from lstmx import reference  # which the plain cell does without

    if isinstance(value, str):
        value = (value,)
    if isinstance(value, reference.Activation):
        value = (value.name, value.alpha, value.beta)
    if not isinstance(value, (tuple, list)) or not 1 <= len(value) <= 3 or not isinstance(value[0], str):
        raise TypeError(f"{name}: expected a name or (name, alpha, beta), got {value!r}")
    numbers = [
        None if number is None else check_float(f"{name}.{part}", number)
        for part, number in zip(("alpha", "beta"), value[1:], strict=False)
    ]
    try:
        made, usual = reference.Activation(value[0], *numbers), reference.Activation(value[0])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return made.name if made == usual else (made.name, made.alpha, made.beta)


def _function(activation: Activation) -> tuple[str, float, float]:
    """An activation as the core takes it."""
    from lstmx import reference

    made = reference.Activation(*((activation,) if isinstance(activation, str) else activation))
    return made.name, made.alpha or 0.0, made.beta or 0.0
