"""The passes through the layers of an LSTM, a GRU or an RNN, forward and back: one call of the core a layer
and direction.

A layer runs its directions (`direction.py`), merges what they give, connects it with what went in
(`connection.py`) and, while training, drops elements for the next. Arguments are checked before:
`recurrent.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from lstmx import _core
from lstmx._checks import FloatArray
from lstmx._inputs import Spans, as_floats
from lstmx.layers import statistics
from lstmx.layers.arena import Arena, Shape
from lstmx.layers.connection import Connection
from lstmx.layers.direction import Direction, directions
from lstmx.layers.dropout import draw_mask
from lstmx.layers.masks import Masks
from lstmx.layers.module import Backward
from lstmx.layers.record import Record, cell_shapes, part_of
from lstmx.layers.states import State, cells_of, check_items

if TYPE_CHECKING:
    from lstmx.layers.recurrent import Recurrent

DCells: TypeAlias = list[FloatArray | None] | None
Weights: TypeAlias = tuple[FloatArray, FloatArray, FloatArray | None, FloatArray | None]
Others: TypeAlias = dict[str, Any]  # by the kernels' names; those that there are


class Cell(NamedTuple):
    """One layer in one direction: its plan, its parameters (biases may be None), their gradients.

    `others` and `d_others` are of peepholes and a projection: weight_ch, weight_hr. `initial` and `d_initial`
    are of h_0 [P] and, if the state has it, c_0 [H]; None where they are not learnt.
    """

    plan: _core.LstmPlan
    weights: Weights
    d_weights: Weights
    others: Others
    d_others: Others
    initial: tuple[FloatArray, ...] | None
    d_initial: tuple[FloatArray, ...] | None


class Layer(NamedTuple):
    """One layer: its directions, the width of h of each, the width of y, and how one is made of the other.

    `sums`: whether the directions' outputs are added up, rather than side by side.
    """

    cells: tuple[Cell, ...]
    hidden_size: int
    output_size: int
    sums: bool
    connection: Connection | None

    def parts(self, hidden: FloatArray) -> tuple[FloatArray, ...]:
        """The part of `hidden [T,B,D*H]` that is each direction's."""
        if len(self.cells) == 1:
            return (hidden,)
        return hidden[:, :, : self.hidden_size], hidden[:, :, self.hidden_size :]

    def d_parts(self, d_merged: FloatArray | None) -> tuple[FloatArray | None, ...]:
        """The gradient of each direction's output, given that of what they were merged to."""
        if d_merged is None or self.sums:
            return (d_merged,) * len(self.cells)
        return self.parts(d_merged)


class Step(NamedTuple):
    """What backward needs of one layer's forward: all arrays `[T, B, *]`."""

    x: FloatArray
    hidden: FloatArray  # the directions' outputs side by side
    tapes: list[_core.LstmTape]
    weight_masks: list[FloatArray]  # of weight dropout, one a direction, if any
    masks: list[Masks]  # of the recurrence, one a direction
    connected: Any  # what the connection keeps
    mask: FloatArray | None  # dropout's, on what the next layer read


def run(
    lstm: Recurrent,
    x: FloatArray,
    state: State | None,
    spans: Spans | None,
    training: bool,
    record: Record | None = None,
    keeps: bool | None = None,
) -> tuple[FloatArray, State, list[Step]]:
    """Return `(y, final state, steps)`.

    `training`: whether anything is dropped. `keeps`: whether backward can follow, as in training unless said;
    otherwise the steps are empty. What else is wanted is written into `record`.
    """
    keeps = training if keeps is None else keeps
    y = np.empty((*x.shape[:-1], lstm.output_size), lstm.dtype)
    final = lstm._states.empty(lstm._batch_of(x.shape))
    h_n, c_n = cells_of(final[0]), cells_of(final[1])
    h_0, c_0 = map(cells_of, lstm._states.initial(state))
    version, threads, saved = lstm._arena.version, _core.get_num_threads(), lstm.checkpoint_steps or 0
    drops = training and lstm.weight_dropout > 0
    taped = keeps
    if record is not None and record.trace is not None:
        taped, saved = True, 0  # gates come with a tape of all steps, which may be dropped at once
    # Weights that live for one call have a version of their own: no plan can take them for the layer's.
    cell_version = Arena.new_version() if drops else version
    rng = lstm._rng if training else None
    steps: list[Step] = []
    inputs, y_last = lstm._time_major(x), lstm._time_major(y)
    shape = inputs.shape[:2]
    ways = directions(lstm._direction, shape[0], spans)
    last, k, h, c = lstm.num_layers - 1, 0, None, None
    for index, layer in enumerate(lstm._layers):
        cells, hidden_size, output_size, sums, connection = layer
        outputs = y_last if index == last else np.empty((*shape, output_size), lstm.dtype)
        hidden = outputs
        if sums or connection is not None:
            hidden = np.empty((*shape, hidden_size * len(ways)), lstm.dtype)
        tapes: list[Any] = []
        weight_masks: list[FloatArray] = []
        masks: list[Masks] = []
        for cell, way, part in zip(cells, ways, layer.parts(hidden), strict=True):
            if h_0 is not None:
                h, c = h_0[k], None if c_0 is None else c_0[k]
            weights = cell.weights
            if drops:
                weights, weight_mask = _dropped(lstm, weights)
                weight_masks.append(weight_mask)
            masks.append({} if lstm._drops is None else lstm._drops.masks(shape[0], h_n[k], c_n[k], rng))
            running = lstm._statistics(index, k % len(ways))
            if running is not None and not training:
                masks[-1] = masks[-1] | {"running": running}
            source, room = (inputs, part) if way.order is None else (way.read(inputs), way.room(part))
            lengths, resets, _ = way
            recorded = {} if record is None else record.rooms(index, k % len(ways), way)
            if running is not None and training:
                recorded = recorded | {"made": statistics.room_for(running, shape[0])}
            tapes.append(
                cell.plan.forward(
                    *(cell_version, *weights, source, h, c, lengths, resets),
                    *(room, h_n[k], c_n[k], taped, saved, threads),
                    **(cell.others | masks[-1] | recorded),
                )
            )
            if room is not part:
                way.deliver(room, part)
            if running is not None and training:
                statistics.update(running, recorded["made"], lengths, shape[1])
            if record is not None:
                record.deliver(index, k % len(ways), way, recorded)
            k += 1
        merged, connected = hidden, None
        if sums:
            one, other = layer.parts(hidden)
            merged = np.add(one, other, out=outputs if connection is None else None)
        if connection is not None:
            connected = connection.forward(version, inputs, merged, outputs, keeps)
        mask = None
        if training and lstm.dropout and index < last:
            assert lstm._rng is not None
            mask = draw_mask(outputs.shape, lstm.dropout, lstm._rng, lstm.dtype)
        if keeps:
            steps.append(Step(inputs, hidden, tapes, weight_masks, masks, connected, mask))
        inputs = outputs if mask is None else outputs * mask
    return y, lstm._states.state(final), steps


def _dropped(lstm: Recurrent, weights: Weights) -> tuple[Weights, FloatArray]:
    """A cell's weights with a new mask on those of the hidden state, and the mask."""
    assert lstm._rng is not None
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    mask = draw_mask(weight_hh.shape, lstm.weight_dropout, lstm._rng, lstm.dtype)
    return (weight_ih, weight_hh * mask, bias_ih, bias_hh), mask


class StackBackward(Backward):
    """Backward of `run`; `learnt` says whether the state is that of the parameters."""

    __slots__ = ("_layer", "_learnt", "_shape")

    def __init__(
        self,
        layer: Recurrent,
        shape: Shape,
        state: State | None,
        spans: Spans | None,
        steps: list[Step],
        learnt: bool = False,
    ) -> None:
        super().__init__(state, spans, steps)
        self._layer = layer
        self._shape = shape
        self._learnt = learnt

    def _check_dy(self, name: str, dy: Any) -> FloatArray | None:
        return (
            None
            if dy is None
            else as_floats(name, dy, (*self._shape[:-1], self._layer.output_size), self._layer.dtype)
        )

    def _check_dstate(self, name: str, dstate: Any) -> State | None:
        if dstate is None:
            return None
        layer = self._layer
        return layer._states.check(name, dstate, ("dh_n", "dc_n"), layer._batch_of(self._shape), none=True)

    def _run(
        self,
        dy: FloatArray | None,
        dstate: State | None,
        need_dx: bool,
        need_dstate: bool,
    ) -> tuple[FloatArray | None, State | None]:
        return self._differentiate(dy, dstate, None, need_dx, need_dstate)

    def _differentiate(
        self,
        dy: FloatArray | None,
        dstate: State | None,
        dcells: DCells,
        need_dx: bool,
        need_dstate: bool,
    ) -> tuple[FloatArray | None, State | None]:
        state, spans, steps = self._take()
        lstm = self._layer
        dx = np.empty(self._shape, lstm.dtype) if need_dx else None
        wanted = need_dstate or self._learnt
        d_initial = lstm._states.empty(lstm._batch_of(self._shape)) if wanted else None
        halves = *lstm._states.pair(state), *lstm._states.pair(dstate), *(d_initial or (None, None))
        states = [cells_of(half) for half in halves]
        d_outputs = None if dy is None else lstm._time_major(dy)
        dx_first = None if dx is None else lstm._time_major(dx)
        ways = directions(lstm._direction, steps[0].x.shape[0], spans)
        if lstm.connection is not None:
            d_outputs = _without_padding(d_outputs, spans)
        for index in reversed(range(lstm.num_layers)):
            step = steps.pop()
            layer, d_past = lstm._layers[index], None
            if layer.connection is not None and d_outputs is not None:
                d_outputs, d_past = layer.connection.backward(step.connected, step.x, d_outputs)
            d_inputs = np.empty(step.x.shape, lstm.dtype) if index else dx_first
            first = index * len(ways)
            for d, way in enumerate(ways):
                its_states = [None if a is None else a[first + d] for a in states]
                d_cells = None if dcells is None else dcells[index]
                d_cells = None if d_cells is None else way.read(part_of(lstm, d_cells, index, d))
                _run_cell(layer, d, step, way, its_states, d_outputs, d_cells, d_inputs)
            if d_past is not None:
                assert d_inputs is not None
                d_inputs += d_past
            if index and steps[-1].mask is not None:
                d_inputs *= steps[-1].mask
            d_outputs = d_inputs
        if d_initial is None:
            return dx, None
        d_state = lstm._states.d_state(d_initial)
        if self._learnt:
            lstm._add_to_initial(d_state)
        return dx, d_state if need_dstate else None


class CellsBackward(StackBackward):
    """Backward of a call with `return_cells=True`: `backward(dy, dstate, dcells)`.

    `dcells`: one gradient a layer of the cells that the call returned, each of their shape or None for zeros;
    None stands for no gradient at all.
    """

    __slots__ = ()

    def __call__(
        self,
        dy: Any,
        dstate: Any = None,
        dcells: Any = None,
        *,
        need_dx: bool = True,
        need_dstate: bool = True,
    ) -> tuple[FloatArray | None, Any]:
        """Return `(dx, dstate)`, as `Backward` says, and add to the layer's gradients."""
        return super().__call__(dy, (dstate, dcells), need_dx=need_dx, need_dstate=need_dstate)

    # `Backward` hands on what it takes for dstate, from the check to the run: here a pair of both.

    def _check_dstate(self, name: str, dstate: Any) -> Any:
        dstate, dcells = dstate
        return super()._check_dstate(name, dstate), self._check_dcells("dcells", dcells)

    def _run(
        self, dy: FloatArray | None, dstate: Any, need_dx: bool, need_dstate: bool
    ) -> tuple[FloatArray | None, State | None]:
        dstate, dcells = dstate
        return self._differentiate(dy, dstate, dcells, need_dx, need_dstate)

    def _check_dcells(self, name: str, dcells: Any) -> DCells:
        if dcells is None:
            return None
        shapes = cell_shapes(self._layer, self._shape)
        items = check_items(name, dcells, len(shapes), f"a list of {len(shapes)}, one a layer")
        return [
            None if item is None else as_floats(f"{name}[{k}]", item, shape, self._layer.dtype)
            for k, (item, shape) in enumerate(zip(items, shapes, strict=True))
        ]


def _without_padding(d_outputs: FloatArray | None, spans: Spans | None) -> FloatArray | None:
    """A gradient [T,B,*] with 0 where rows have no step: a connection reads all of it."""
    if d_outputs is None or spans is None or spans.lengths is None:
        return d_outputs
    d_outputs = d_outputs.copy()
    d_outputs[np.arange(len(d_outputs))[:, np.newaxis] >= spans.lengths] = 0
    return d_outputs


def _run_cell(
    layer: Layer,
    d: int,
    step: Step,
    way: Direction,
    states: list[Any],
    d_merged: FloatArray | None,
    dcells: FloatArray | None,
    d_inputs: FloatArray | None,
) -> None:
    """Differentiate one direction; d_inputs, if wanted, becomes (of the first) or takes in its share."""
    cell, weight_mask = layer.cells[d], step.weight_masks[d] if step.weight_masks else None
    h_0, _, dh_n, dc_n, dh_0, dc_0 = states
    x, y, dy = way.read(step.x), way.read(layer.parts(step.hidden)[d]), way.read(layer.d_parts(d_merged)[d])
    dx: Any = None
    if d_inputs is not None:
        dx = way.room(d_inputs) if d == 0 else np.empty(d_inputs.shape, d_inputs.dtype)
    d_weight_ih, d_weight_hh, d_bias_ih, d_bias_hh = cell.d_weights
    d_dropped = d_weight_hh if weight_mask is None else np.zeros(weight_mask.shape, weight_mask.dtype)
    gradients = d_weight_ih, d_dropped, d_bias_ih, d_bias_hh
    threads = _core.get_num_threads()
    step.tapes[d].backward(
        *(x, y, h_0, dy, dh_n, dc_n, dx, dh_0, dc_0, *gradients, threads),
        **(cell.d_others | step.masks[d] | {"dcells": dcells}),
    )
    if weight_mask is not None:
        d_weight_hh += d_dropped * weight_mask
    if d_inputs is not None and dx is not d_inputs:
        if d == 0:
            way.deliver(dx, d_inputs)
        else:
            d_inputs += way.read(dx)
