"""The operators LSTM, GRU and RNN beside the layers of that name, out and in: attributes, gates and arrays.

ONNX has the gates in another order and all arrays of a kind stacked by direction. Its activations take their
parameters in turn from two lists, each only if it has such a parameter; so does ONNX Runtime. What the layers
cannot compute is refused here: for each attribute, with what was expected of it.
Source: https://onnx.ai/onnx/operators/onnx__LSTM.html, onnx__GRU.html, onnx__RNN.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lstmx.layers import GRU, LSTM, RNN
from lstmx.layers.direction import BOTH, FORWARD, REVERSE
from lstmx.layers.recurrent import Recurrent
from lstmx.onnx._activation import onnx_name
from lstmx.onnx._node import Node, decimal
from lstmx.reference import ACTIVATIONS, Activation

LAYERS: dict[str, type[Recurrent]] = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}  # by their operators

# ONNX's order of the gates: i, o, f, c of our i, f, g, o, with peepholes for i, o, f; z, r, h of our r, z, n.
_GATES = {"LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2], "RNN": [0]}
_PEEPHOLES = [0, 2, 1]

_FUNCTIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_BY_ONNX_NAME = {name.replace("_", ""): name for name in ACTIVATIONS}  # which are compared without case

# The standard gives them no parameters of their own, or ONNX Runtime takes 0 for the one that it gives.
_WITHOUT_DEFAULTS = ("affine", "scaled_tanh", "thresholded_relu")


# ------------------------------------------------------------------------------------------------------- out


def operator_attributes(layer: Recurrent) -> dict[str, Any]:
    """What the operator is told of the layer, apart from what is usual."""
    attributes: dict[str, Any] = {"hidden_size": layer.hidden_size, "direction": layer._direction}
    if isinstance(layer, GRU):
        return attributes | {"linear_before_reset": 1}
    if isinstance(layer, RNN):
        return attributes | {"activations": [layer.nonlinearity.capitalize()] * layer._directions}
    assert isinstance(layer, LSTM)
    if layer.gate_clip is not None:
        attributes["clip"] = layer.gate_clip
    if layer.coupled:
        attributes["input_forget"] = 1
    functions = [Activation(*((a,) if isinstance(a, str) else a)) for a in layer.activations]
    functions *= layer._directions
    names = [onnx_name(function.name) for function in functions]
    if names[:3] != _FUNCTIONS["LSTM"]:
        attributes["activations"] = names
        for part in ("alpha", "beta"):
            values = [getattr(function, part) for function in functions]
            if any(value is not None for value in values):
                attributes[f"activation_{part}"] = [value for value in values if value is not None]
    return attributes


def operator_arrays(layer: Recurrent, k: int) -> Iterator[tuple[str, int, NDArray[np.float32]]]:
    """Yield the constant inputs of layer k: a name, the place among the inputs, the array.

    W [D,G*H,I], R [D,G*H,H], B [D,2*G*H] with G gates, and of peepholes P [D,3H].
    """
    gates = _GATES[type(layer).__name__]

    def stacked(kind: str, order: list[int]) -> NDArray[np.float32]:
        arrays = [layer.params[f"{kind}_{suffix}"] for suffix in layer._suffixes(k)]
        return np.stack([_by_gate(array, order) for array in arrays])

    yield f"weight_ih_l{k}", 1, stacked("weight_ih", gates)
    yield f"weight_hh_l{k}", 2, stacked("weight_hh", gates)
    if layer.bias:
        biases = [stacked(kind, gates) for kind in ("bias_ih", "bias_hh")]
        yield f"bias_l{k}", 3, np.concatenate(biases, axis=1)
    if isinstance(layer, LSTM) and layer.peephole:
        yield f"weight_ch_l{k}", 7, stacked("weight_ch", _PEEPHOLES)


# -------------------------------------------------------------------------------------------------------- in


def read_layer(node: Node) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    """Return the configuration of the layer that a node is, but for batch_first, and its parameters."""
    kind, attributes = node.op_type, node.attributes
    direction = attributes.get("direction", FORWARD)
    if direction not in (FORWARD, REVERSE, BOTH):
        raise ValueError(f"direction: expected '{FORWARD}', '{REVERSE}' or '{BOTH}', got {direction!r}")
    if attributes.get("layout", 0) not in (0, 1):
        raise ValueError(f"layout: expected 0 or 1, got {attributes['layout']}")
    directions = 2 if direction == BOTH else 1
    hidden = node.weight("R", 2, (directions, None, None)).shape[2]
    rows = len(_GATES[kind]) * hidden
    if attributes.get("hidden_size", hidden) != hidden:
        raise ValueError(f"hidden_size: expected {hidden} as in R, got {attributes['hidden_size']}")
    stacked = {
        "weight_ih": node.weight("W", 1, (directions, rows, None)),
        "weight_hh": node.weight("R", 2, (directions, rows, hidden)),
    }
    if node[3] is not None:
        bias = node.weight("B", 3, (directions, 2 * rows))
        stacked |= {"bias_ih": bias[:, :rows], "bias_hh": bias[:, rows:]}
    config = {
        "type": kind,
        "input_size": stacked["weight_ih"].shape[2],
        "hidden_size": hidden,
        "bias": "bias_ih" in stacked,
        "bidirectional": direction == BOTH,
        "reverse": direction == REVERSE,
    }
    orders = dict.fromkeys(stacked, np.argsort(_GATES[kind]).tolist())
    config |= {"LSTM": _read_lstm, "GRU": _read_gru, "RNN": _read_rnn}[kind](attributes, directions)
    if kind == "LSTM" and node[7] is not None:
        config["peephole"] = True
        stacked["weight_ch"] = node.weight("P", 7, (directions, 3 * hidden))
        orders["weight_ch"] = np.argsort(_PEEPHOLES).tolist()
    params = {
        f"{name}_{suffix}": _by_gate(array[d], orders[name])
        for name, array in stacked.items()
        for d, suffix in enumerate(("l0", "l0_reverse")[:directions])
    }
    return config, params


def _read_lstm(attributes: dict[str, Any], directions: int) -> dict[str, Any]:
    if attributes.get("input_forget", 0) not in (0, 1):
        raise ValueError(f"input_forget: expected 0 or 1, got {attributes['input_forget']}")
    functions = _read_functions("LSTM", attributes, directions)
    options: dict[str, Any] = {
        "coupled": attributes.get("input_forget", 0) == 1,
        "activations": [(function.name, function.alpha, function.beta) for function in functions],
    }
    if "clip" in attributes:
        clip = decimal(attributes["clip"])
        if not 0.0 < clip < np.inf:
            raise ValueError(f"clip: expected a number > 0, got {clip:g}")
        options["gate_clip"] = clip
    return options


def _read_gru(attributes: dict[str, Any], directions: int) -> dict[str, Any]:
    if attributes.get("linear_before_reset", 0) != 1:
        raise ValueError(
            f"linear_before_reset: expected 1, got {attributes.get('linear_before_reset', '0 by default')}"
        )
    _refuse_clip(attributes)
    functions = _read_functions("GRU", attributes, directions)
    if functions != [Activation("sigmoid"), Activation("tanh")]:
        raise ValueError(f"activations: expected Sigmoid, Tanh, got {', '.join(attributes['activations'])}")
    return {}


def _read_rnn(attributes: dict[str, Any], directions: int) -> dict[str, Any]:
    _refuse_clip(attributes)
    (function,) = _read_functions("RNN", attributes, directions)
    if function.name not in ("tanh", "relu"):
        raise ValueError(f"activations: expected Tanh or Relu, got {', '.join(attributes['activations'])}")
    return {"nonlinearity": function.name}


def _refuse_clip(attributes: dict[str, Any]) -> None:
    if "clip" in attributes:
        raise ValueError(f"clip: expected none, got {attributes['clip']:g}")


def _read_functions(kind: str, attributes: dict[str, Any], directions: int) -> list[Activation]:
    """Return the activations, the same of both directions."""
    usual = _FUNCTIONS[kind]
    names = attributes.get("activations", usual * directions)
    if len(names) != directions * len(usual):
        raise ValueError(f"activations: expected {directions * len(usual)}, got {', '.join(names)}")
    left = {part: list(attributes.get(f"activation_{part}", ())) for part in ("alpha", "beta")}
    functions = [_read_function(name, left) for name in names]
    for part, values in left.items():
        if values:
            given = attributes[f"activation_{part}"]
            raise ValueError(
                f"activation_{part}: expected {len(given) - len(values)}, one of each function with "
                f"{part}, got {len(given)}"
            )
    one, other = functions[: len(usual)], functions[-len(usual) :]
    if one != other:
        raise ValueError(f"activations: expected the same of both directions, got {', '.join(names)}")
    return one


def _read_function(name: str, left: dict[str, list[float]]) -> Activation:
    """Return the activation, with what it takes from the front of the lists of parameters."""
    known = _BY_ONNX_NAME.get(name.lower())
    if known is None:
        raise ValueError(f"activations: expected some of {', '.join(_BY_ONNX_NAME)}, got {name}")
    usual, own = Activation(known), {}
    for part, values in left.items():
        if getattr(usual, part) is None:
            continue
        if values:
            own[part] = decimal(values.pop(0))
        elif known in _WITHOUT_DEFAULTS:
            raise ValueError(f"activation_{part}: expected a number for {name}, got none")
    return Activation(known, **own)


def _by_gate(array: NDArray[np.float32], order: list[int]) -> NDArray[np.float32]:
    """`array [G*H, ...]` with its G gates in this order."""
    return array.reshape(len(order), -1, *array.shape[1:])[order].reshape(array.shape)
