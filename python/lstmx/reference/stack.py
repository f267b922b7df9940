"""Several layers and both directions, in terms of `lstm_forward` and `lstm_backward`.

Parameter names, the layout of the states and the order of the directions are PyTorch's, as far as PyTorch
has them. What connects a layer with its input is in `connection.py`. Dropout, between layers or on weights,
is not here: it is an operation of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lstmx.reference._arrays import Array, Flags, float64, float64_or_zeros, read_lengths, read_resets
from lstmx.reference.cells import LSTM, CellSpec
from lstmx.reference.connection import ConnectBackward, connect
from lstmx.reference.lstm import lstm_backward, lstm_forward

Lengths: TypeAlias = NDArray[np.int64]
Half: TypeAlias = Array | tuple[Array, ...]  # h or c: of all layers, or one a layer where widths differ
State: TypeAlias = tuple[Half, Half]
OptionalState: TypeAlias = tuple[Any, Any] | None
Backward: TypeAlias = Callable[..., tuple[Array, State, dict[str, Array]]]
LayerBackward: TypeAlias = Callable[[Array, Array, Array], tuple[Array, Array, Array, dict[str, Array]]]


def lstm(
    x: ArrayLike,
    params: Mapping[str, ArrayLike],
    state: OptionalState = None,
    *,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    num_layers: int = 1,
    batch_first: bool = False,
    bidirectional: bool = False,
    merge: str = "concat",
    connection: str | None = None,
    cell: CellSpec = LSTM,
) -> tuple[Array, State, Backward]:
    """Run a stack of layers; the maths of https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html.

    Args:
        x: Input, [T, B, I] or, with `batch_first`, [B, T, I].
        params: Arrays under PyTorch's names: `weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`, `bias_hh_l0`,
            `..._l1`, `..._l0_reverse`; the biases may be absent. The width H_k of layer k is that of its
            `weight_hh`. Initial states that are learnt are `h_0_l0 [H]`, `c_0_l0 [H]` and so on; for those of
            connections see `connect`.
        state: `(h_0, c_0)`, each [layers * directions, B, H] (layer 0 forward, layer 0 reverse, layer 1 ...),
            or, where layers differ in width, a tuple of one [directions, B, H_k] a layer. None is the
            initial state among the parameters for every row, or zero.
        lengths: The steps that each row has, integers from 0 to T, [B]; see `lstm_forward`. The reverse
            direction starts at each row's own last step. None is T everywhere.
        resets: bool, [T, B] or, with `batch_first`, [B, T]: True where a new piece of a row begins. The
            reverse direction runs over each piece from its end, so its state is zero before the last step of
            every piece but the row's last, which begins with the initial state. None is False everywhere.
        num_layers: The number of layers.
        batch_first: Whether x, y and their gradients have the batch as the first axis. States never do.
        bidirectional: Whether each layer also runs over the reversed sequence.
        merge: What a layer makes of two directions: "concat", [.., 2H], or their "sum", [.., H].
        connection: What connects every layer after the first with its input: None, "residual", "highway".
        cell: The cell.

    Returns:
        `(y, (h_n, c_n), backward)`: y is [T, B, directions * H], of sums [T, B, H], or batch first.
        `backward(dy, dstate=None)` returns `(dx, (dh_0, dc_0), grads)`, `grads` having the names of `params`;
        dy or dstate may be None.

    Raises:
        KeyError: A weight is missing.
        TypeError: An argument does not hold real numbers, lengths not integers or resets not bool.
        ValueError: A shape does not fit the others, or a length is out of range.

    Example:
        >>> params = {"weight_ih_l0": np.ones((4, 1)), "weight_hh_l0": np.ones((4, 1))}
        >>> y, (h_n, c_n), backward = lstm(np.ones((5, 2, 1)), params)
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
    sizes = [np.shape(params[f"weight_hh_l{k}"])[-1] for k in range(num_layers)]
    states = [(len(ways), batch, size) for size in sizes]
    learnt = state is None and "h_0_l0" in params
    h_0 = _learnt("h_0", params, names, states) if learnt else _per_layer("h_0", state, 0, states)
    c_0 = _learnt("c_0", params, names, states) if learnt else _per_layer("c_0", state, 1, states)
    alive = (np.arange(steps)[:, None] < spans[0])[:, :, None]

    y, layers, finals = x, [], []
    for k in range(num_layers):
        inputs = y
        y, h_k, c_k, backward_k = _layer(inputs, params, names[k], h_0[k], c_0[k], spans, merge, cell)
        connect_k: ConnectBackward | None = None
        if connection is not None and k > 0:
            y, connect_k = connect(connection, inputs, y, params, k)
        layers.append((backward_k, connect_k))
        finals.append((h_k, c_k))
    h_n, c_n = (_together([final[n] for final in finals], sizes) for n in (0, 1))
    outputs = (y.shape[1], y.shape[0], y.shape[2]) if batch_first else y.shape

    def backward(dy: ArrayLike | None, dstate: OptionalState = None) -> tuple[Array, State, dict[str, Array]]:
        dx = float64_or_zeros("dy", dy, outputs)
        dx = dx.swapaxes(0, 1) if batch_first else dx
        dh, dc = _per_layer("dh_n", dstate, 0, states), _per_layer("dc_n", dstate, 1, states)
        grads: dict[str, Array] = {}
        for k in reversed(range(num_layers)):
            backward_k, connect_k = layers[k]
            d_past: Array | float = 0.0
            if connect_k is not None:
                d_past, dx, grads_k = connect_k(np.where(alive, dx, 0.0))
                grads.update(grads_k)
            dx, dh[k], dc[k], grads_k = backward_k(dx, dh[k], dc[k])
            dx = dx + d_past
            grads.update(grads_k)
        for name, initial in (("h_0", dh), ("c_0", dc)):
            if f"{name}_l0" in params:  # of a state that was given, no gradient reaches the parameters
                for suffixes, d_layer in zip(names, initial, strict=True):
                    sums = d_layer.sum(axis=1) * learnt
                    grads.update({f"{name}{suffix}": d for suffix, d in zip(suffixes, sums, strict=True)})
        dx = dx.swapaxes(0, 1) if batch_first else dx
        return dx, (_together(dh, sizes), _together(dc, sizes)), grads

    return y.swapaxes(0, 1) if batch_first else y, (h_n, c_n), backward


def _per_layer(name: str, state: OptionalState, half: int, shapes: list[tuple[int, int, int]]) -> list[Array]:
    """One half of a state as one array [D, B, H_k] a layer; what is None is zero."""
    value = None if state is None else state[half]
    if value is None:
        return [np.zeros(shape) for shape in shapes]
    if len({shape[2] for shape in shapes}) > 1:
        return [
            float64(f"{name}[{k}]", a, shape) for k, (a, shape) in enumerate(zip(value, shapes, strict=True))
        ]
    ways, batch, size = shapes[0]
    return list(float64(name, value, (len(shapes) * ways, batch, size)).reshape(len(shapes), *shapes[0]))


def _together(layers: list[Array], sizes: list[int]) -> Half:
    """Undo `_per_layer`."""
    return tuple(layers) if len(set(sizes)) > 1 else np.concatenate(layers)


def _learnt(
    name: str, params: Mapping[str, ArrayLike], names: list[list[str]], shapes: list[tuple[int, int, int]]
) -> list[Array]:
    """The initial states among the parameters, the same for every row, as one array [D, B, H_k] a layer."""
    layers = []
    for suffixes, shape in zip(names, shapes, strict=True):
        each = [float64(name + suffix, params[name + suffix], shape[2:]) for suffix in suffixes]
        layers.append(np.broadcast_to(np.stack(each)[:, np.newaxis], shape))
    return layers


def _layer(
    x: Array,
    params: Mapping[str, ArrayLike],
    suffixes: list[str],
    h_0: Array,
    c_0: Array,
    spans: tuple[Lengths, Flags],
    merge: str,
    cell: CellSpec,
) -> tuple[Array, Array, Array, LayerBackward]:
    """One layer in all its directions: y [T, B, D * H], of a sum [T, B, H], h_n and c_n [D, B, H], and its
    backward function.
    """
    lengths, resets = spans
    ways: list[Callable[[Array], Array]] = [lambda a: a, lambda a: turned(a, lengths)]
    turns = ways[: len(suffixes)]
    starts = [resets, turned(last_steps(resets, lengths), lengths)][: len(suffixes)]
    runs = [
        lstm_forward(
            turns[d](x),
            params[f"weight_ih{suffix}"],
            params[f"weight_hh{suffix}"],
            params.get(f"bias_ih{suffix}"),
            params.get(f"bias_hh{suffix}"),
            h_0[d],
            c_0[d],
            lengths=lengths,
            resets=starts[d],
            cell=cell,
        )
        for d, suffix in enumerate(suffixes)
    ]

    def backward(dy: Array, dh_n: Array, dc_n: Array) -> tuple[Array, Array, Array, dict[str, Array]]:
        halves = [dy] * len(suffixes) if merge == "sum" else np.split(dy, len(suffixes), axis=2)
        each = [
            lstm_backward(run[3], turn(half), dh_n[d], dc_n[d])
            for d, (run, turn, half) in enumerate(zip(runs, turns, halves, strict=True))
        ]
        dx = np.sum([turn(gradients.dx) for turn, gradients in zip(turns, each, strict=True)], axis=0)
        grads = {
            f"{name}{suffix}": getattr(gradients, f"d_{name}")
            for suffix, gradients in zip(suffixes, each, strict=True)
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            if f"{name}{suffix}" in params
        }
        return dx, np.stack([g.dh_0 for g in each]), np.stack([g.dc_0 for g in each]), grads

    outputs = [turn(run[0]) for turn, run in zip(turns, runs, strict=True)]
    y = np.sum(outputs, axis=0) if merge == "sum" else np.concatenate(outputs, axis=2)
    return y, np.stack([run[1] for run in runs]), np.stack([run[2] for run in runs]), backward


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
