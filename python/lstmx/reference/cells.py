"""The cells: what happens between the matrix products of a recurrent step, forward and backward.

A cell sees the products of one step, x W' and h R', and the state before it; it knows nothing of time,
weights or layers. The forward steps are numbered from 2 (step 1 is the products in the time loop) and the
backward function undoes them under the same numbers. Gradients of a cell's own parameters are returned row by
row: the loop sums them over the rows and steps that count.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np

from lstmx.reference._arrays import Array, Flags
from lstmx.reference.activations import Activation

State: TypeAlias = tuple[Array, ...]
Saved: TypeAlias = dict[str, Any]


class Step(NamedTuple):
    """What a cell may know of one step besides products and state."""

    params: Mapping[str, Array]  # the cell's own parameters, and the weights
    t: int  # the number of the step
    alive: Flags  # [B]: the rows that have this step; the others compute on zeros and are dropped
    zoneout_c: Array | None  # [B,H]
    recurrent_mask: Array | None  # [B,H]
    statistics: Mapping[str, Array] | None  # running statistics, each [steps, ...]; None is training


class CellGradients(NamedTuple):
    """What a cell's `backward` returns."""

    d_input: Array  # [B,G]: by x W'
    d_hidden: Array  # [B,G]: by h R'
    dh: Array | None  # by the h before, the product aside; None is zero
    dc: State  # by the c before; empty: the cell has none
    d_params: dict[str, Array]  # by the cell's parameters, each [B, ...]: the share of every row


class CellSpec(ABC):
    """A recurrent cell; subclasses say what it computes.

    Attributes:
        name: The cell's name in the library.
        gates: The number of gates: the weights have G = gates * H rows.
        states: The names of its states, the first of which is the output h; a cell state c has H units.
        traced: What `saved` holds of the gates, in the order of their rows in the weights.
        statistics: The size of each running statistic, in units of H.
    """

    name: ClassVar[str]
    gates: ClassVar[int]
    states: ClassVar[tuple[str, ...]]
    traced: ClassVar[tuple[str, ...]]
    statistics: ClassVar[Mapping[str, int]] = {}

    @property
    def parameters(self) -> dict[str, int]:
        """The size of each parameter besides the weights, in units of H."""
        return {"bias_ih": self.gates, "bias_hh": self.gates}

    @abstractmethod
    def forward(self, step: Step, from_x: Array, from_h: Array, state: State) -> tuple[State, Saved]:
        """One step: the new state from x W' and h R', both [B, G], and the state before."""

    @abstractmethod
    def backward(self, step: Step, saved: Saved, d_state: State) -> CellGradients:
        """The same step undone, `d_state` being the whole gradient that reaches the new state."""


@dataclass(frozen=True)
class CellOptions:
    """What an LSTM cell may have beyond the plain one; everything combines with everything.

    Attributes:
        peephole: The gates see the cell state through the parameter `weight_ch` [3H], for i, f and o: i and f
            the one before, o the new one (Gers, Schraudolph and Schmidhuber 2002).
        coupled: The forget gate is 1 - i (Greff et al. 2017; ONNX's input_forget). The weights keep its
            block, which is not read.
        gate_clip: The inputs of the gates and of the candidate are clipped to [-gate_clip, gate_clip] (ONNX's
            clip as ONNX Runtime has it: c and the input of its activation are not). None: not clipped.
        cell_clip: c is clipped to [-cell_clip, cell_clip] after its update, before zoneout (TensorFlow's
            cell_clip). None: not clipped.
        activations: Of the gates, of the candidate and of c: an `Activation` each, or its name.

    Raises:
        ValueError: A clip is not positive, or the activations are not three known ones.
    """

    peephole: bool = False
    coupled: bool = False
    gate_clip: float | None = None
    cell_clip: float | None = None
    activations: tuple[str | Activation, str | Activation, str | Activation] = ("sigmoid", "tanh", "tanh")

    def __post_init__(self) -> None:
        for name in ("gate_clip", "cell_clip"):
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                raise ValueError(f"{name}: expected None or a number > 0, got {limit}")
        if len(self.activations) != 3:
            raise ValueError(f"activations: expected 3, of gates, candidate and c, got {self.activations}")
        for activation in self.activations:
            Activation.of(activation)


class LstmCell(CellSpec):
    """The LSTM with forget gate, gates in the order i f g o, and its options.

    Hochreiter and Schmidhuber (1997), Gers, Schmidhuber and Cummins (2000). The plain equations:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html; with zoneout, Krueger et al. (2017).
    """

    name = "lstm"
    gates = 4
    states = ("h", "c")
    traced = ("i", "f", "g", "o")

    def __init__(self, options: CellOptions | None = None) -> None:
        self.options = CellOptions() if options is None else options
        self._activations = [Activation.of(a) for a in self.options.activations]

    @property
    def parameters(self) -> dict[str, int]:
        """Besides the biases, what the options need."""
        return super().parameters | ({"weight_ch": 3} if self.options.peephole else {})

    def normalize(self, step: Step, name: str, v: Array) -> tuple[Array, Any]:
        """What stands between x W' ("ih"), h R' ("hh") or c ("c") and what reads it: here nothing."""
        return v, None

    def normalize_backward(
        self, step: Step, name: str, saved: Any, dv: Array
    ) -> tuple[Array, dict[str, Array]]:
        """The same undone: the gradients by v, and by the parameters row by row."""
        return dv, {}

    def forward(self, step: Step, from_x: Array, from_h: Array, state: State) -> tuple[State, Saved]:
        """One step."""
        peephole, coupled, gate_clip, cell_clip = self._options
        gate, candidate, output = self._activations
        c_prev = state[1]
        # 2. pre-activations
        from_x, saved_x = self.normalize(step, "ih", from_x)
        from_h, saved_h = self.normalize(step, "hh", from_h)
        a_i, a_f, a_g, a_o = blocks(from_x + from_h + (step.params["bias_ih"] + step.params["bias_hh"]), 4)
        if peephole:
            p_i, p_f, p_o = blocks(step.params["weight_ch"], 3)
            a_i, a_f = a_i + p_i * c_prev, a_f + p_f * c_prev
        # 3. gates
        i = gate(clipped(a_i, gate_clip))
        f = 1.0 - i if coupled else gate(clipped(a_f, gate_clip))
        g = candidate(clipped(a_g, gate_clip))
        # 4. cell state
        updated = f * c_prev + i * g
        c = clipped(updated, cell_clip)
        # 5. output gate
        if peephole:
            a_o = a_o + p_o * c
        o = gate(clipped(a_o, gate_clip))
        # 6. hidden state
        seen, saved_c = self.normalize(step, "c", c)
        s = output(seen)
        saved: Saved = {"i": i, "f": f, "g": g, "o": o, "c_prev": c_prev, "c": c, "s": s, "updated": updated}
        saved |= {"a": (a_i, a_f, a_g, a_o), "ih": saved_x, "hh": saved_h, "c_norm": saved_c}
        # 7. zoneout, of what is carried on
        if step.zoneout_c is not None:
            c = step.zoneout_c * c_prev + (1.0 - step.zoneout_c) * c
        return (o * s, c), saved

    def backward(self, step: Step, saved: Saved, d_state: State) -> CellGradients:
        """The step undone."""
        peephole, coupled, gate_clip, cell_clip = self._options
        gate, candidate, output = self._activations
        i, f, g, o, c_prev, c, s = (saved[name] for name in ("i", "f", "g", "o", "c_prev", "c", "s"))
        a_i, a_f, a_g, a_o = saved["a"]
        dh, dc_after = d_state
        # 7. c = zoneout_c * c_prev + (1 - zoneout_c) * c
        dc = dc_after if step.zoneout_c is None else (1.0 - step.zoneout_c) * dc_after
        # 6. h = o * output(c)
        do = dh * s
        dc_seen, d_params = self.normalize_backward(step, "c", saved["c_norm"], dh * o * output.slope(s))
        dc = dc + dc_seen
        # 5. o = gate(a_o + p_o * c)
        da_o = unclipped(a_o, gate_clip, do * gate.slope(o))
        if peephole:
            p_i, p_f, p_o = blocks(step.params["weight_ch"], 3)
            dc = dc + p_o * da_o
        # 4. c = f * c_prev + i * g
        dc_updated = unclipped(saved["updated"], cell_clip, dc)
        di = dc_updated * g
        df = dc_updated * c_prev
        dg = dc_updated * i
        dc_prev = dc_updated * f
        if step.zoneout_c is not None:
            dc_prev = dc_prev + step.zoneout_c * dc_after
        # 3. i, f, g = activations
        if coupled:
            di, df = di - df, df * 0.0
        da_i = unclipped(a_i, gate_clip, di * gate.slope(i))
        da_f = unclipped(a_f, gate_clip, df * gate.slope(f))
        da_g = unclipped(a_g, gate_clip, dg * candidate.slope(g))
        # 2. a = x W' + h R' + biases, and peepholes
        if peephole:
            dc_prev = dc_prev + p_i * da_i + p_f * da_f
            d_params["weight_ch"] = np.concatenate([da_i * c_prev, da_f * c_prev, da_o * c], axis=1)
        da = np.concatenate([da_i, da_f, da_g, da_o], axis=1)
        d_params |= {"bias_ih": da, "bias_hh": da}
        d_hidden, d_params_h = self.normalize_backward(step, "hh", saved["hh"], da)
        d_input, d_params_x = self.normalize_backward(step, "ih", saved["ih"], da)
        return CellGradients(d_input, d_hidden, None, (dc_prev,), d_params | d_params_h | d_params_x)

    @property
    def _options(self) -> tuple[bool, bool, float | None, float | None]:
        options = self.options
        return options.peephole, options.coupled, options.gate_clip, options.cell_clip


LSTM = LstmCell()
"""The plain LSTM, PyTorch's."""


def blocks(a: Array, count: int) -> list[Array]:
    """The `count` equal parts of the last axis."""
    size = a.shape[-1] // count
    return [a[..., n * size : (n + 1) * size] for n in range(count)]


def clipped(x: Array, limit: float | None) -> Array:
    """X within [-limit, limit]; None is no limit."""
    return x if limit is None else np.minimum(np.maximum(x, -limit), limit)


def unclipped(x: Array, limit: float | None, dy: Array) -> Array:
    """The gradient by x of y = clipped(x, limit): none passes where x is beyond the limit."""
    return dy if limit is None else np.where(np.absolute(x) <= limit, dy, 0.0)
