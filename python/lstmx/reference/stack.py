"""Several layers and both directions, in terms of `recurrent_forward` and `recurrent_backward`.

Parameter names, the layout of the states and the order of the directions are PyTorch's. Dropout between
layers is not here: it is an operation of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lstmx.reference._arrays import Array, Flags, float64, float64_or_zeros, read_lengths, read_resets
from lstmx.reference.cells import LSTM, CellSpec, State
from lstmx.reference.loop import Run, Tape, recurrent_backward, recurrent_forward

Lengths: TypeAlias = NDArray[np.int64]
OptionalState: TypeAlias = tuple[ArrayLike | None, ...] | None
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
) -> tuple[Array, State, Backward]:
    """Run a stack of layers; the maths of https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html.

    Args:
        x: Input, [T, B, I] or, with `batch_first`, [B, T, I].
        params: Arrays under PyTorch's names: `weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`, `bias_hh_l0`,
            `..._l1`, `..._l0_reverse`, and those of the cell (`weight_ch_l0`); the biases may be absent. With
            `weight_hr_l0` h has P units instead of H.
        state: `(h_0, c_0)`, or `(h_0,)` of a cell without c: [layers * directions, B, P] and [..., H] (layer
            0 forward, layer 0 reverse, layer 1 ...); None is zero.
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

    Returns:
        `(y, state, backward)`: y is [T, B, directions * P] or batch first; see `Backward`.

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
    sizes = {"h": np.shape(params["weight_hh_l0"])[-1], "c": len(params["weight_ih_l0"]) // cell.gates}  # type: ignore[arg-type]
    shapes = {name: (num_layers * len(ways), batch, sizes[name]) for name in cell.states}
    given = _split(params, names), _split(masks, names), _split(statistics, names)
    states = _states("_0", state, shapes)

    y, layers, final = x, [], []
    for k in range(num_layers):
        initial = [tuple(part[k * len(ways) + d] for part in states) for d in range(len(ways))]
        layer = _Layer(names[k], cell, spans, *given)
        y, runs = layer.forward(y, initial)
        layers.append((layer, runs))
        final += [run.state for run in runs]
    last = tuple(np.stack([state[n] for state in final]) for n in range(len(shapes)))
    outputs = (y.shape[1], y.shape[0], y.shape[2]) if batch_first else y.shape
    backward = Backward(params, layers, shapes, outputs, batch_first)
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
    _layers: Sequence[tuple[_Layer, list[Run]]]
    _shapes: Mapping[str, tuple[int, ...]]
    _outputs: tuple[int, ...]
    _batch_first: bool

    def __call__(
        self,
        dy: ArrayLike | None,
        d_state: OptionalState = None,
        dcells: Sequence[ArrayLike | None] | None = None,
    ) -> tuple[Array, State, dict[str, Array]]:
        """`(dx, d_state, grads)`, as said above."""
        dx = float64_or_zeros("dy", dy, self._outputs)
        dx = dx.swapaxes(0, 1) if self._batch_first else dx
        states = _states("_n", d_state, self._shapes, "d")
        grads: dict[str, Array] = {}
        initial: list[State] = []
        for k, (layer, runs) in reversed(list(enumerate(self._layers))):
            ways = len(runs)
            final = [tuple(part[k * ways + d] for part in states) for d in range(ways)]
            dx, d_initial, grads_k = layer.backward(runs, dx, final, None if dcells is None else dcells[k])
            initial = d_initial + initial
            grads |= grads_k
        dx = dx.swapaxes(0, 1) if self._batch_first else dx
        d_first = tuple(np.stack([state[n] for state in initial]) for n in range(len(states)))
        return dx, d_first, {name: grad for name, grad in grads.items() if name in self._params}

    @property
    def cells(self) -> list[Array]:
        """C at every step of each layer, [T, B, directions * H] with the time first, 0 beyond the lengths.

        Raises:
            ValueError: The cell has no c.
        """
        if "c" not in self._shapes:
            raise ValueError(f"cells: expected a cell with a c, got one with {', '.join(self._shapes)} alone")
        return [layer.joined([run.cells for run in runs]) for layer, runs in self._layers]

    @property
    def tapes(self) -> dict[str, Tape]:
        """The tape of each layer and direction by suffix ("_l0"), a reverse one in its own time."""
        return {
            suffix: run.tape
            for layer, runs in self._layers
            for suffix, run in zip(layer.suffixes, runs, strict=True)
        }


class _Layer:
    """One layer in all its directions."""

    def __init__(
        self,
        suffixes: list[str],
        cell: CellSpec,
        spans: tuple[Lengths, Flags],
        params: Mapping[str, dict[str, ArrayLike]],
        masks: Mapping[str, dict[str, ArrayLike]],
        statistics: Mapping[str, dict[str, ArrayLike]],
    ) -> None:
        lengths, resets = spans
        self.suffixes, self.cell, self.lengths = suffixes, cell, lengths
        both: list[Turn] = [lambda a: a, lambda a: turned(a, lengths)]
        self.turns = both[: len(suffixes)]
        self.starts = [resets, turned(last_steps(resets, lengths), lengths)]
        self.given = [(params[suffix], masks[suffix], statistics[suffix]) for suffix in suffixes]

    def forward(self, x: Array, initial: list[State]) -> tuple[Array, list[Run]]:
        """Y [T, B, D * P], and the runs of the directions."""
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
        return self.joined([run.y for run in runs]), runs

    def backward(
        self, runs: list[Run], dy: Array, d_final: list[State], dcells: ArrayLike | None
    ) -> tuple[Array, list[State], dict[str, Array]]:
        ways = len(runs)
        d_cells = [None] * ways if dcells is None else np.split(np.asarray(dcells), ways, axis=2)
        each = [
            recurrent_backward(run.tape, turn(d_y), d_state, None if dc is None else turn(dc))
            for run, turn, d_y, d_state, dc in zip(
                runs, self.turns, np.split(dy, ways, axis=2), d_final, d_cells, strict=True
            )
        ]
        dx = np.sum([turn(gradients.dx) for turn, gradients in zip(self.turns, each, strict=True)], axis=0)
        grads = {
            f"{name}{suffix}": gradient
            for suffix, gradients in zip(self.suffixes, each, strict=True)
            for name, gradient in gradients.d_params.items()
        }
        return dx, [gradients.d_state for gradients in each], grads

    def joined(self, sequences: Sequence[Array | None]) -> Array:
        """The sequences of the directions side by side, at the time of x."""
        parts = [turn(part) for turn, part in zip(self.turns, sequences, strict=True) if part is not None]
        return np.concatenate(parts, axis=2)


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


def _states(
    suffix: str, state: OptionalState, shapes: Mapping[str, tuple[int, ...]], prefix: str = ""
) -> State:
    """The parts of a state, each [L * D, B, ...]; what is None is zero."""
    parts = (None,) * len(shapes) if state is None else state
    if len(parts) != len(shapes):
        raise ValueError(f"state: expected {len(shapes)} arrays, got {len(parts)}")
    return tuple(
        float64_or_zeros(f"{prefix}{name}{suffix}", part, shape)
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    )


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
