"""Several layers and both directions, in terms of `recurrent_forward` and `recurrent_backward`.

Parameter names, the layout of the states and the order of the directions are PyTorch's, as far as PyTorch
has them. What connects a layer with its input is in `connection.py`. Dropout, between layers or on weights,
is not here: it is an operation of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lstmx.reference._arrays import Array, Flags, float64, float64_or_zeros, read_lengths, read_resets
from lstmx.reference.cells import LSTM, CellSpec
from lstmx.reference.connection import ConnectBackward, connect
from lstmx.reference.loop import Run, Tape, recurrent_backward, recurrent_forward

Lengths: TypeAlias = NDArray[np.int64]
Part: TypeAlias = Array | tuple[Array, ...]  # of a state: of all layers, or one a layer where widths differ
State: TypeAlias = tuple[Part, ...]
OptionalState: TypeAlias = tuple[Any, ...] | None
Shapes: TypeAlias = dict[str, list[tuple[int, int, int]]]  # of each state, one a layer: [D, B, units]
Turn: TypeAlias = Callable[[NDArray[Any]], NDArray[Any]]


def recurrent(
    x: ArrayLike,
    params: Mapping[str, ArrayLike],
    state: OptionalState = None,
    *,
    cell: CellSpec,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    masks: Mapping[str, ArrayLike] | None = None,
    statistics: Mapping[str, ArrayLike] | None = None,
    num_layers: int = 1,
    batch_first: bool = False,
    bidirectional: bool = False,
    merge: str = "concat",
    connection: str | None = None,
) -> tuple[Array, State, Backward]:
    """Run a stack of layers; the maths of https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html.

    Args:
        x: Input, [T, B, I] or, with `batch_first`, [B, T, I].
        params: Arrays under PyTorch's names: `weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`, `bias_hh_l0`,
            `..._l1`, `..._l0_reverse`, and those of the cell (`weight_ch_l0`); the biases may be absent. With
            `weight_hr_l0` h has P units instead of H. The width of each layer is that of its `weight_hh`.
            Initial states that are learnt are `h_0_l0 [P]`, `c_0_l0 [H]` and so on; for those of connections
            see `connect`.
        state: `(h_0, c_0)`, or `(h_0,)` of a cell without c: [layers * directions, B, P] and [..., H] (layer
            0 forward, layer 0 reverse, layer 1 ...), or, where layers differ in width, a tuple of one
            [directions, B, ...] a layer. None is the initial state among the parameters for every row, or
            zero.
        cell: The cell.
        lengths: The steps that each row has, integers from 0 to T, [B]; see `recurrent_forward`. The reverse
            direction starts at each row's own last step. None is T everywhere.
        resets: bool, [T, B] or, with `batch_first`, [B, T]: True where a new piece of a row begins. The
            reverse direction runs over each piece from its end, so its state is zero before the last step of
            every piece but the row's last, which begins with the initial state. None is False everywhere.
        masks: `zoneout_h_l0` [T, B, P], `zoneout_c_l0` [T, B, H] and `recurrent_mask_l0` [B, P], of any layer
            and direction; see `recurrent_forward`. Those with time have that of x, in both directions, and
            the time first always.
        statistics: Running statistics (`running_mean_ih_l0` ...); see `BatchNormLstmCell`. None: the
            batch's.
        num_layers: The number of layers.
        batch_first: Whether x, y and their gradients have the batch as the first axis. States never do.
        bidirectional: Whether each layer also runs over the reversed sequence.
        merge: What a layer makes of two directions: "concat", [.., 2P], or their "sum", [.., P].
        connection: What connects every layer after the first with its input: None, "residual", "highway".

    Returns:
        `(y, state, backward)`: y is [T, B, directions * P], of sums [T, B, P], or batch first; see
        `Backward`.

    Raises:
        KeyError: A parameter is missing.
        TypeError: An argument does not hold real numbers, lengths not integers or resets not bool.
        ValueError: A shape does not fit the others, a length is out of range, or the cell has no such
            parameter.

    Example:
        >>> params = {"weight_ih_l0": np.ones((4, 1)), "weight_hh_l0": np.ones((4, 1))}
        >>> y, (h_n, c_n), backward = recurrent(np.ones((5, 2, 1)), params, cell=LSTM)
        >>> y.shape, h_n.shape
        ((5, 2, 1), (1, 2, 1))
        >>> dx, (dh_0, dc_0), grads = backward(np.ones_like(y))
        >>> sorted(grads)
        ['weight_hh_l0', 'weight_ih_l0']
    """
    x = float64("x", x, (None, None, None))
    x = x.swapaxes(0, 1) if batch_first else x
    steps, batch, _ = x.shape
    if batch_first and resets is not None:
        resets = np.asarray(resets).swapaxes(0, -1)
    spans = read_lengths(lengths, steps, batch), read_resets(resets, steps, batch)
    ways = ("", "_reverse") if bidirectional else ("",)
    names = [[f"_l{k}{way}" for way in ways] for k in range(num_layers)]
    shapes: Shapes = {
        name: [(len(ways), batch, _units(params, name, k, cell)) for k in range(num_layers)]
        for name in cell.states
    }
    learnt = state is None and "h_0_l0" in params
    states = _learnt(params, names, shapes) if learnt else _per_layer("_0", state, shapes)
    given = _split(_of_cells(params), names), _split(masks, names), _split(statistics, names)
    alive = (np.arange(steps)[:, None] < spans[0])[:, :, None]

    y, layers, final = x, [], []
    for k in range(num_layers):
        inputs, connect_k = y, None
        layer = _Layer(names[k], cell, spans, merge, *given)
        y, runs = layer.forward(inputs, [tuple(part[k][d] for part in states) for d in range(len(ways))])
        if connection is not None and k > 0:
            y, connect_k = connect(connection, inputs, y, params, k)
        layers.append((layer, runs, connect_k))
        final.append([np.stack(each) for each in zip(*(run.state for run in runs), strict=True)])
    outputs = (y.shape[1], y.shape[0], y.shape[2]) if batch_first else y.shape
    backward = Backward(params, layers, shapes, outputs, batch_first, alive, names, learnt)
    last = _together([list(each) for each in zip(*final, strict=True)])
    return y.swapaxes(0, 1) if batch_first else y, last, backward


def lstm(
    x: ArrayLike,
    params: Mapping[str, ArrayLike],
    state: OptionalState = None,
    *,
    cell: CellSpec = LSTM,
    **options: Any,
) -> tuple[Array, State, Backward]:
    """`recurrent` with the plain LSTM unless `cell` says otherwise."""
    return recurrent(x, params, state, cell=cell, **options)


@dataclass(frozen=True)
class Backward:
    """What `recurrent` returns third: called, it undoes the pass; besides, it has what else came of it.

    Called with dy, the gradients by the final state (as `state` of the forward pass) and those by the cells
    (one for each layer, as `cells`), any of which may be None, it returns `(dx, d_state, grads)`, `grads`
    having the names of `params`.
    """

    _params: Mapping[str, ArrayLike]
    _layers: Sequence[tuple[_Layer, list[Run], ConnectBackward | None]]
    _shapes: Shapes
    _outputs: tuple[int, ...]
    _batch_first: bool
    _alive: Flags
    _names: list[list[str]]
    _learnt: bool

    def __call__(
        self,
        dy: ArrayLike | None,
        d_state: OptionalState = None,
        dcells: Sequence[ArrayLike | None] | None = None,
    ) -> tuple[Array, State, dict[str, Array]]:
        """`(dx, d_state, grads)`, as said above."""
        dx = float64_or_zeros("dy", dy, self._outputs)
        dx = dx.swapaxes(0, 1) if self._batch_first else dx
        states = _per_layer("_n", d_state, self._shapes, "d")
        grads: dict[str, Array] = {}
        for k, (layer, runs, connect_k) in reversed(list(enumerate(self._layers))):
            d_past: Array | float = 0.0
            if connect_k is not None:
                d_past, dx, grads_k = connect_k(np.where(self._alive, dx, 0.0))
                grads |= grads_k
            d_final = [tuple(part[k][d] for part in states) for d in range(len(runs))]
            dx, d_initial, grads_k = layer.backward(runs, dx, d_final, None if dcells is None else dcells[k])
            dx = dx + d_past
            grads |= grads_k
            for part, d_each in zip(states, zip(*d_initial, strict=True), strict=True):
                part[k] = np.stack(d_each)
        for name, part in zip(self._shapes, states, strict=True):
            for suffixes, d_layer in zip(self._names, part, strict=True):
                # of a state that was given, no gradient reaches the parameters
                sums = d_layer.sum(axis=1) * self._learnt
                grads |= {f"{name}_0{suffix}": d for suffix, d in zip(suffixes, sums, strict=True)}
        dx = dx.swapaxes(0, 1) if self._batch_first else dx
        return dx, _together(states), {name: grad for name, grad in grads.items() if name in self._params}

    @property
    def cells(self) -> list[Array]:
        """C at every step of each layer, [T, B, directions * H] with the time first, 0 beyond the lengths.

        Raises:
            ValueError: The cell has no c.
        """
        if "c" not in self._shapes:
            raise ValueError(f"cells: expected a cell with a c, got one with {', '.join(self._shapes)} alone")
        return [layer.beside([run.cells for run in runs]) for layer, runs, _ in self._layers]

    @property
    def tapes(self) -> dict[str, Tape]:
        """The tape of each layer and direction by suffix ("_l0"), a reverse one in its own time."""
        return {
            suffix: run.tape
            for layer, runs, _ in self._layers
            for suffix, run in zip(layer.suffixes, runs, strict=True)
        }


class _Layer:
    """One layer in all its directions."""

    def __init__(
        self,
        suffixes: list[str],
        cell: CellSpec,
        spans: tuple[Lengths, Flags],
        merge: str,
        params: Mapping[str, dict[str, ArrayLike]],
        masks: Mapping[str, dict[str, ArrayLike]],
        statistics: Mapping[str, dict[str, ArrayLike]],
    ) -> None:
        lengths, resets = spans
        self.suffixes, self.cell, self.lengths, self.merge = suffixes, cell, lengths, merge
        both: list[Turn] = [lambda a: a, lambda a: turned(a, lengths)]
        self.turns = both[: len(suffixes)]
        self.starts = [resets, turned(last_steps(resets, lengths), lengths)]
        self.given = [(params[suffix], masks[suffix], statistics[suffix]) for suffix in suffixes]

    def forward(self, x: Array, initial: list[tuple[Array, ...]]) -> tuple[Array, list[Run]]:
        """Y [T, B, D * P], of a sum [T, B, P], and the runs of the directions."""
        runs = []
        for turn, starts, state, given in zip(self.turns, self.starts, initial, self.given, strict=False):
            params, masks, statistics = given
            timed = {
                name: np.asarray(mask) if name == "recurrent_mask" else turn(np.asarray(mask))
                for name, mask in masks.items()
            }
            runs.append(
                recurrent_forward(
                    turn(x),
                    params,
                    state,
                    cell=self.cell,
                    lengths=self.lengths,
                    resets=starts,
                    statistics=statistics or None,
                    **timed,
                )
            )
        outputs = [run.y for run in runs]
        if self.merge == "concat":
            return self.beside(outputs), runs
        return np.sum([turn(y) for turn, y in zip(self.turns, outputs, strict=True)], axis=0), runs

    def backward(
        self, runs: list[Run], dy: Array, d_final: list[tuple[Array, ...]], dcells: ArrayLike | None
    ) -> tuple[Array, list[tuple[Array, ...]], dict[str, Array]]:
        ways = len(runs)
        d_outputs = [dy] * ways if self.merge == "sum" else np.split(dy, ways, axis=2)
        d_cells = [None] * ways if dcells is None else np.split(np.asarray(dcells), ways, axis=2)
        each = [
            recurrent_backward(run.tape, turn(d_y), d_state, None if dc is None else turn(dc))
            for run, turn, d_y, d_state, dc in zip(runs, self.turns, d_outputs, d_final, d_cells, strict=True)
        ]
        dx = np.sum([turn(gradients.dx) for turn, gradients in zip(self.turns, each, strict=True)], axis=0)
        grads = {
            f"{name}{suffix}": gradient
            for suffix, gradients in zip(self.suffixes, each, strict=True)
            for name, gradient in gradients.d_params.items()
        }
        return dx, [gradients.d_state for gradients in each], grads

    def beside(self, sequences: Sequence[Array | None]) -> Array:
        """The sequences of the directions side by side, at the time of x."""
        parts = [turn(part) for turn, part in zip(self.turns, sequences, strict=True) if part is not None]
        return np.concatenate(parts, axis=2)


def _of_cells(params: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
    """The parameters without those that cells know nothing of: of connections, and learnt initial states."""
    others = ("weight_res_", "weight_gate_", "bias_gate_", "h_0_", "c_0_")
    return {name: array for name, array in params.items() if not name.startswith(others)}


def _split(
    arrays: Mapping[str, ArrayLike] | None, suffixes: list[list[str]]
) -> dict[str, dict[str, ArrayLike]]:
    """The arrays by suffix, and then by the name before it."""
    arrays = {} if arrays is None else arrays
    return {
        suffix: {name.removesuffix(suffix): array for name, array in arrays.items() if name.endswith(suffix)}
        for layer in suffixes
        for suffix in layer
    }


def _units(params: Mapping[str, ArrayLike], name: str, k: int, cell: CellSpec) -> int:
    """The units of a state of layer k: of h those that weight_hh reads, of c those that have gates."""
    rows, width = np.shape(params[f"weight_hh_l{k}"])
    return int(width if name == "h" else rows // cell.gates)


def _per_layer(suffix: str, state: OptionalState, shapes: Shapes, prefix: str = "") -> list[list[Array]]:
    """Each part of a state as one array [D, B, units] a layer; what is None is zero."""
    parts = (None,) * len(shapes) if state is None else state
    if len(parts) != len(shapes):
        raise ValueError(f"state: expected {len(shapes)} arrays, got {len(parts)}")
    split = []
    for (name, each), part in zip(shapes.items(), parts, strict=True):
        full = f"{prefix}{name}{suffix}"
        if part is None:
            split.append([np.zeros(shape) for shape in each])
        elif len(set(each)) > 1:
            split.append(
                [
                    float64(f"{full}[{k}]", a, shape)
                    for k, (a, shape) in enumerate(zip(part, each, strict=True))
                ]
            )
        else:
            ways, batch, size = each[0]
            whole = float64(full, part, (len(each) * ways, batch, size))
            split.append(list(whole.reshape(len(each), *each[0])))
    return split


def _together(parts: list[list[Array]]) -> State:
    """Undo `_per_layer`."""
    return tuple(
        tuple(layers) if len({layer.shape for layer in layers}) > 1 else np.concatenate(layers)
        for layers in parts
    )


def _learnt(params: Mapping[str, ArrayLike], names: list[list[str]], shapes: Shapes) -> list[list[Array]]:
    """The initial states among the parameters, the same for every row, as `_per_layer` has them."""
    return [
        [
            np.broadcast_to(
                np.stack([float64(f"{name}_0{s}", params[f"{name}_0{s}"], shape[2:]) for s in suffixes])[
                    :, None
                ],
                shape,
            )
            for suffixes, shape in zip(names, each, strict=True)
        ]
        for name, each in shapes.items()
    ]


def turned(sequence: NDArray[Any], lengths: Lengths) -> NDArray[Any]:
    """A [T, B, ...] whose rows run backwards from their own last steps; padding stays. Its own inverse.

    >>> turned(np.array([[1, 5], [2, 6], [3, 7]]), np.array([3, 2])).tolist()
    [[3, 6], [2, 5], [1, 7]]
    """
    result = sequence.copy()
    for b, length in enumerate(lengths):
        result[:length, b] = sequence[:length, b][::-1]
    return result


def last_steps(resets: Flags, lengths: Lengths) -> Flags:
    """Where a piece ends and the row goes on: before that step, the state of the reverse direction is zero.

    >>> last_steps(np.array([[True], [False], [True], [False]]), np.array([4])).T.tolist()
    [[False, True, False, False]]
    """
    ends = np.zeros_like(resets)
    for b, length in enumerate(lengths):
        ends[: max(length - 1, 0), b] = resets[1:length, b]
    return ends
