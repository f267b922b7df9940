"""The cells without a cell state: the gated recurrent unit and the plain recurrent network of Elman."""

from __future__ import annotations

import numpy as np

from lstmx.reference._arrays import Array
from lstmx.reference.activations import Activation, sigmoid
from lstmx.reference.cells import CellGradients, CellSpec, Saved, State, Step, blocks


class GruCell(CellSpec):
    """The gated recurrent unit, gates in the order r z n (Cho et al. 2014).

    Args:
        linear_before_reset: Whether r multiplies h R' + bias, which is PyTorch's and cuDNN's unit
            (https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html), or h itself, which is the
            paper's and ONNX's default (https://onnx.ai/onnx/operators/onnx__GRU.html).
    """

    name = "gru"
    gates = 3
    states = ("h",)
    traced = ("r", "z", "n")

    def __init__(self, linear_before_reset: bool = True) -> None:
        self.linear_before_reset = linear_before_reset

    def forward(self, step: Step, from_x: Array, from_h: Array, state: State) -> tuple[State, Saved]:
        """One step."""
        (h_prev,) = state
        x_r, x_z, x_n = blocks(from_x + step.params["bias_ih"], 3)
        h_r, h_z, h_n = blocks(from_h + step.params["bias_hh"], 3)
        # 2. gates
        r = sigmoid(x_r + h_r)
        z = sigmoid(x_z + h_z)
        # 3. candidate
        read = r * _masked(step, h_prev)
        if self.linear_before_reset:
            n = np.tanh(x_n + r * h_n)
        else:
            n = np.tanh(x_n + read @ _weight_hn(step).T + blocks(step.params["bias_hh"], 3)[2])
        # 4. hidden state
        h = (1.0 - z) * n + z * h_prev
        return (h,), {"r": r, "z": z, "n": n, "h_n": h_n, "h_prev": h_prev, "read": read}

    def backward(self, step: Step, saved: Saved, d_state: State) -> CellGradients:
        """The step undone."""
        r, z, n, h_n, h_prev = (saved[name] for name in ("r", "z", "n", "h_n", "h_prev"))
        (dh,) = d_state
        # 4. h = (1 - z) * n + z * h_prev
        dz = dh * (h_prev - n)
        da_n = dh * (1.0 - z) * (1.0 - n * n)
        dh_prev = dh * z
        # 3. candidate
        d_params: dict[str, Array] = {}
        if self.linear_before_reset:
            dr = da_n * h_n
            dh_n = d_bias_n = da_n * r
        else:
            d_read = da_n @ _weight_hn(step)
            dr = d_read * _masked(step, h_prev)
            dh_prev = dh_prev + _masked(step, d_read * r)
            dh_n, d_bias_n = da_n * 0.0, da_n
            outer = da_n[:, :, np.newaxis] * saved["read"][:, np.newaxis, :]
            d_params["weight_hh"] = np.concatenate([outer * 0.0, outer * 0.0, outer], axis=1)
        # 2. gates
        da_r = dr * r * (1.0 - r)
        da_z = dz * z * (1.0 - z)
        d_input = np.concatenate([da_r, da_z, da_n], axis=1)
        d_hidden = np.concatenate([da_r, da_z, dh_n], axis=1)
        d_params |= {"bias_ih": d_input, "bias_hh": np.concatenate([da_r, da_z, d_bias_n], axis=1)}
        return CellGradients(d_input, d_hidden, dh_prev, (), d_params)


class RnnCell(CellSpec):
    """The plain recurrent network h = activation(x W' + h R' + biases) (Elman 1990).

    Args:
        activation: PyTorch has "tanh" and "relu":
            https://docs.pytorch.org/docs/stable/generated/torch.nn.RNN.html.
    """

    name = "rnn"
    gates = 1
    states = ("h",)
    traced = ()

    def __init__(self, activation: str | Activation = "tanh") -> None:
        self.activation = Activation.of(activation)

    def forward(self, step: Step, from_x: Array, from_h: Array, state: State) -> tuple[State, Saved]:
        """One step."""
        # 2. hidden state
        h = self.activation(from_x + from_h + (step.params["bias_ih"] + step.params["bias_hh"]))
        return (h,), {"h": h}

    def backward(self, step: Step, saved: Saved, d_state: State) -> CellGradients:
        """The step undone."""
        # 2. hidden state
        da = d_state[0] * self.activation.slope(saved["h"])
        return CellGradients(da, da, None, (), {"bias_ih": da, "bias_hh": da})


GRU = GruCell()
"""PyTorch's GRU."""

RNN = RnnCell()
"""PyTorch's RNN with tanh."""


def _masked(step: Step, h: Array) -> Array:
    """H as weight_hh reads it."""
    return h if step.recurrent_mask is None else step.recurrent_mask * h


def _weight_hn(step: Step) -> Array:
    """The rows of weight_hh that belong to the candidate, [H, H]."""
    weight = step.params["weight_hh"]
    return weight[2 * weight.shape[1] :]
