"""One recurrent layer in one direction, with any cell: the time loop, forward and backward.

T time steps, B rows, I inputs, H hidden units, G = cell.gates * H; P units of h, which are H unless there is
a projection (`weight_hr`). What a cell does between the products is in `cells`, `norm_cells` and `gru`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lstmx._checks import describe_shape
from lstmx.reference._arrays import Array, Flags, float64, float64_or_zeros, read_lengths, read_resets, stack
from lstmx.reference.cells import CellSpec, Saved, State, Step

WEIGHTS = ("weight_ih", "weight_hh", "weight_hr")
BIASES = ("bias_ih", "bias_hh")


class Tape(NamedTuple):
    """What `recurrent_backward` needs of the forward pass."""

    cell: CellSpec
    x: Array  # [T,B,I]
    params: dict[str, Array]  # the weights and the cell's parameters, absent biases being zero
    steps: list[Step]
    saved: list[Saved]
    h_read: Array  # [T,B,P]: what weight_hh multiplied
    h_cell: Array  # [T,B,H]: h before the projection
    zoneout_h: Array | None  # [T,B,P]
    alive: Flags  # [T,B]: whether the row has this step
    starts: Flags  # [T,B]: whether the state was reset before it


class Run(NamedTuple):
    """What `recurrent_forward` returns."""

    y: Array  # [T,B,P]: h at every step, 0 beyond the lengths
    state: State  # after the last step, each [B, ...]
    cells: Array | None  # [T,B,H]: c at every step, 0 beyond the lengths; None: the cell has none
    tape: Tape


class Gradients(NamedTuple):
    """The gradients of one layer, each of the shape of what it belongs to."""

    dx: Array
    d_state: State
    d_params: dict[str, Array]  # absent biases included


def recurrent_forward(
    x: ArrayLike,
    params: Mapping[str, ArrayLike | None],
    state: tuple[ArrayLike | None, ...] | None = None,
    *,
    cell: CellSpec,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    zoneout_h: ArrayLike | None = None,
    zoneout_c: ArrayLike | None = None,
    recurrent_mask: ArrayLike | None = None,
    statistics: Mapping[str, ArrayLike] | None = None,
) -> Run:
    """Run one layer over a sequence.

    Row b has the steps t < lengths[b]. Beyond them its y is 0 and its x is never read (NaN there changes
    nothing); its final state is the one after its last step, or its initial state where it has no step.
    Where resets[t, b], the state is set to zero before step t, whatever it was: the row is computed as if the
    pieces between resets were sequences of their own, and no gradient passes from one to the other.

    Args:
        x: Input, [T, B, I].
        params: `weight_ih` [G, I], `weight_hh` [G, P] and what `cell.parameters` lists; the biases may be
            absent or None, which is zero. With a cell state also `weight_hr` [P, H], the projection of h
            (PyTorch's proj_size; Sak, Senior and Beaufays 2014).
        state: Before the first step: h [B, P] and, if the cell has it, c [B, H]; None is zero.
        cell: The cell.
        lengths: Integers from 0 to T, [B]; None is T everywhere.
        resets: bool, [T, B]; None is False everywhere.
        zoneout_h: How much of h stays what it was before the step, [T, B, P]: 0 or 1 in training, the
            probability at evaluation (Krueger et al. 2017). It acts after the projection. None is 0.
        zoneout_c: The same of c, [T, B, H].
        recurrent_mask: What h is multiplied by where it enters weight_hh, at every step the same, [B, P] (Gal
            and Ghahramani 2016). None is 1.
        statistics: Of a cell with batch normalization, what `cell.statistics` lists, each [steps, ...]: the
            running statistics to use. None takes the batch's.

    Raises:
        KeyError: A parameter or a statistic is missing.
        TypeError: An argument does not hold real numbers, lengths not integers or resets not bool.
        ValueError: A shape does not fit the others, or the cell has no such parameter or statistic.

    Example:
        >>> from lstmx.reference import LSTM
        >>> weights = {"weight_ih": np.zeros((8, 3)), "weight_hh": np.zeros((8, 2))}
        >>> recurrent_forward(np.ones((2, 1, 3)), weights, (None, np.ones((1, 2))), cell=LSTM).cells.tolist()
        [[[0.5, 0.5]], [[0.25, 0.25]]]
    """
    x = float64("x", x, (None, None, None))
    steps, batch, _ = x.shape
    weights = _read_params(cell, params, x.shape[2])
    size, width = weights["weight_ih"].shape[0] // cell.gates, weights["weight_hh"].shape[1]
    now = _read_state("_0", state, cell, batch, width, size)
    alive = np.arange(steps)[:, None] < read_lengths(lengths, steps, batch)
    starts = read_resets(resets, steps, batch)
    keep_h = _read_timed("zoneout_h", zoneout_h, alive, width)
    keep_c = _read_timed("zoneout_c", zoneout_c, alive, size)
    mask = None if recurrent_mask is None else float64("recurrent_mask", recurrent_mask, (batch, width))
    if keep_c is not None and "c" not in cell.states:
        raise ValueError(f"zoneout_c: expected None, for the cell {cell.name} has no c")
    kept = None if statistics is None else read_statistics(cell, statistics, size)
    x = np.where(alive[:, :, None], x, 0.0)

    all_steps, all_saved, h_read, h_cell, y = [], [], [], [], []
    cells: list[Array] = []
    for t in range(steps):
        here, carried = alive[t][:, None], (alive[t] & ~starts[t])[:, None]
        # 0. resets; rows that have ended compute on zeros, and what they compute is not kept
        before = tuple(np.where(carried, part, 0.0) for part in now)
        # 1. products
        read = before[0] if mask is None else mask * before[0]
        from_x, from_h = x[t] @ weights["weight_ih"].T, read @ weights["weight_hh"].T
        # 2. to 6. the cell
        step = Step(weights, t, alive[t], None if keep_c is None else keep_c[t], mask, kept)
        (h, *rest), saved = cell.forward(step, from_x, from_h, before)
        h_cell.append(h)
        # 7. projection
        if "weight_hr" in weights:
            h = h @ weights["weight_hr"].T
        # 8. zoneout
        if keep_h is not None:
            h = keep_h[t] * before[0] + (1.0 - keep_h[t]) * h
        # 9. lengths
        now = tuple(np.where(here, new, old) for new, old in zip((h, *rest), now, strict=True))
        y.append(np.where(here, h, 0.0))
        cells.extend(np.where(here, c, 0.0) for c in rest)
        all_steps.append(step)
        all_saved.append(saved)
        h_read.append(read)
    tape = Tape(
        cell,
        x,
        weights,
        all_steps,
        all_saved,
        stack(h_read, (batch, width)),
        stack(h_cell, (batch, size)),
        keep_h,
        alive,
        starts,
    )
    return Run(
        stack(y, (batch, width)), now, stack(cells, (batch, size)) if "c" in cell.states else None, tape
    )


def recurrent_backward(
    tape: Tape,
    dy: ArrayLike | None = None,
    d_state: tuple[ArrayLike | None, ...] | None = None,
    dcells: ArrayLike | None = None,
) -> Gradients:
    """Undo `recurrent_forward`: the gradients of a scalar given its gradients by the outputs.

    Args:
        tape: The last item that `recurrent_forward` returned.
        dy: Gradient by y, [T, B, P]; None is zero.
        d_state: Gradients by the final state, each [B, ...]; None is zero. That by h adds to the last step's
            dy, for h_n is the last y.
        dcells: Gradient by the cells, [T, B, H]; None is zero.

    Returns:
        All gradients.

    Raises:
        TypeError: An argument does not hold real numbers.
        ValueError: A shape does not fit the forward pass.

    Example:
        >>> from lstmx.reference import LSTM
        >>> weights = {"weight_ih": np.zeros((8, 3)), "weight_hh": np.zeros((8, 2))}
        >>> tape = recurrent_forward(np.ones((1, 1, 3)), weights, (None, np.ones((1, 2))), cell=LSTM).tape
        >>> recurrent_backward(tape, dcells=np.ones((1, 1, 2))).d_state[1].tolist()  # the forget gate
        [[0.5, 0.5]]
    """
    cell, weights, alive = tape.cell, tape.params, tape.alive
    steps, batch, width = tape.h_read.shape
    size = tape.h_cell.shape[2]
    d_y = float64_or_zeros("dy", dy, (steps, batch, width))
    d_now = _read_state("_n", d_state, cell, batch, width, size, "d")
    outside: list[Array] = [d_y]
    if "c" in cell.states:
        outside += [] if dcells is None else [float64("dcells", dcells, (steps, batch, size))]
    elif dcells is not None:
        raise ValueError(f"dcells: expected None, for the cell {cell.name} has no c")

    d_input: list[Array] = [np.zeros(0)] * steps
    d_hidden, d_projected = list(d_input), list(d_input)
    rows: dict[str, list[Array]] = {}
    for t in reversed(range(steps)):
        here, carried = alive[t][:, None], (alive[t] & ~tape.starts[t])[:, None]
        # 9. lengths: what belongs to a later end waits; a row that has ended takes nothing from y
        d_after = [np.where(here, part, 0.0) for part in d_now]
        for n, part in enumerate(outside):
            d_after[n] = d_after[n] + np.where(here, part[t], 0.0)
        dh, *d_rest = d_after
        # 8. zoneout
        dh_kept = None
        if tape.zoneout_h is not None:
            dh, dh_kept = (1.0 - tape.zoneout_h[t]) * dh, tape.zoneout_h[t] * dh
        # 7. projection
        d_projected[t] = dh
        if "weight_hr" in weights:
            dh = dh @ weights["weight_hr"]
        # 6. to 2. the cell
        step = cell.backward(tape.steps[t], tape.saved[t], (dh, *d_rest))
        d_input[t], d_hidden[t] = step.d_input, step.d_hidden
        for name, share in step.d_params.items():
            rows.setdefault(name, []).append(share)
        # 1. products: the part that the step before waits for
        dh_before = step.d_hidden @ weights["weight_hh"]
        mask = tape.steps[t].recurrent_mask
        if mask is not None:
            dh_before = mask * dh_before
        for direct in (step.dh, dh_kept):
            dh_before = dh_before if direct is None else dh_before + direct
        # 0. resets
        d_before = (dh_before, *step.dc)
        d_now = tuple(
            np.where(carried, new, np.where(here, 0.0, old)) for new, old in zip(d_before, d_now, strict=True)
        )

    # the rest, merged over time and over the rows that had the step
    by_input = stack(d_input, (batch, cell.gates * size))
    by_hidden = stack(d_hidden, (batch, cell.gates * size))
    dx = np.where(alive[:, :, None], by_input @ weights["weight_ih"], 0.0)
    d_params = {
        "weight_ih": by_input[alive].T @ tape.x[alive],
        "weight_hh": by_hidden[alive].T @ tape.h_read[alive],
    }
    if "weight_hr" in weights:
        d_params["weight_hr"] = stack(d_projected, (batch, width))[alive].T @ tape.h_cell[alive]
    for name in cell.parameters:
        shares = rows.get(name, [])
        d_params[name] = stack(shares[::-1], (batch, *weights[name].shape))[alive].sum(axis=0)
    if "weight_hh" in rows:
        d_params["weight_hh"] = d_params["weight_hh"] + np.stack(rows["weight_hh"][::-1])[alive].sum(axis=0)
    return Gradients(dx, d_now, d_params)


def trace(tape: Tape) -> dict[str, Array]:
    """The activated gates at every step by name, each [T, B, H], 0 beyond the lengths.

    >>> from lstmx.reference import LSTM
    >>> weights = {"weight_ih": np.zeros((4, 3)), "weight_hh": np.zeros((4, 1))}
    >>> gates = trace(recurrent_forward(np.ones((1, 1, 3)), weights, cell=LSTM).tape)
    >>> {name: float(gate[0, 0, 0]) for name, gate in gates.items()}
    {'i': 0.5, 'f': 0.5, 'g': 0.0, 'o': 0.5}
    """
    here = tape.alive[:, :, None]
    return {
        name: np.where(here, stack([saved[name] for saved in tape.saved], tape.h_cell.shape[1:]), 0.0)
        for name in tape.cell.traced
    }


def read_statistics(cell: CellSpec, statistics: Mapping[str, ArrayLike], size: int) -> dict[str, Array]:
    """The running statistics of a cell as float64, all of one number of steps, which is no less than 1."""
    _refuse_unknown("statistics", statistics, cell.statistics)
    read, steps = {}, None
    for name, units in cell.statistics.items():
        read[name] = float64(name, statistics[name], (steps, units * size))
        steps = len(read[name])
        if steps == 0:
            raise ValueError(f"{name}: expected one step or more, got 0")
    return read


def _refuse_unknown(name: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
    unknown = given.keys() - set(known)
    if unknown:
        known = ", ".join(known) or "none"
        raise ValueError(f"{name}: expected some of {known}, got {', '.join(sorted(unknown))}")


def _read_params(cell: CellSpec, params: Mapping[str, ArrayLike | None], inputs: int) -> dict[str, Array]:
    """The weights and the parameters of the cell as float64; the sizes follow from the weights."""
    known = (*WEIGHTS[: 2 + ("c" in cell.states)], *cell.parameters)
    _refuse_unknown("params", params, known)
    weight_ih = float64("weight_ih", params["weight_ih"], (None, inputs))  # type: ignore[arg-type]
    size = weight_ih.shape[0] // cell.gates
    rows = cell.gates * size
    if weight_ih.shape[0] != rows:
        expected = describe_shape((rows, inputs))
        raise ValueError(f"weight_ih: expected shape {expected}, got {weight_ih.shape}")
    weights, width = {"weight_ih": weight_ih}, size
    if params.get("weight_hr") is not None:
        weights["weight_hr"] = float64("weight_hr", params["weight_hr"], (None, size))  # type: ignore[arg-type]
        width = weights["weight_hr"].shape[0]
    weights["weight_hh"] = float64("weight_hh", params["weight_hh"], (rows, width))  # type: ignore[arg-type]
    for name, units in cell.parameters.items():
        value = params.get(name) if name in BIASES else params[name]
        weights[name] = float64_or_zeros(name, value, (units * size,))
    return weights


def _read_timed(name: str, value: ArrayLike | None, alive: Flags, units: int) -> Array | None:
    """A mask [T, B, units], zero where the row has no such step."""
    if value is None:
        return None
    return np.where(alive[:, :, None], float64(name, value, (*alive.shape, units)), 0.0)


def _read_state(
    suffix: str,
    state: tuple[ArrayLike | None, ...] | None,
    cell: CellSpec,
    batch: int,
    width: int,
    size: int,
    prefix: str = "",
) -> State:
    """A state of the cell, or the gradients by one, as float64; what is None is zero."""
    parts = (None,) * len(cell.states) if state is None else state
    if len(parts) != len(cell.states):
        raise ValueError(f"state: expected {len(cell.states)} arrays, got {len(parts)}")
    return tuple(
        float64_or_zeros(f"{prefix}{name}{suffix}", part, (batch, width if name == "h" else size))
        for name, part in zip(cell.states, parts, strict=True)
    )
