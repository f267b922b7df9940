"""The operators that are an `Activation`, and Softmax, out and in.

They are called like the functions inside ONNX's recurrent operators, in words written together, and have
their formulas and, but for two functions that are no operators, their defaults.
Source: https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from typing import Any

from lstmx.layers import Activation
from lstmx.onnx._node import Node, decimal
from lstmx.reference import ACTIVATIONS


def onnx_name(function: str) -> str:
    return "".join(word.capitalize() for word in function.split("_"))


FUNCTIONS = {onnx_name(name): name for name in ACTIVATIONS if name not in ("affine", "scaled_tanh")}
"""The names here by the operators'."""


def operator_of(name: str, layer: Activation) -> tuple[str, dict[str, Any]]:
    """Return the operator and its attributes; `name` is what to call the layer in a message."""
    operator = onnx_name(layer.function)
    if operator not in FUNCTIONS:
        raise ValueError(f"{name}: expected one of {', '.join(FUNCTIONS.values())}, got {layer!r}")
    parameters = {"alpha": layer.alpha, "beta": layer.beta}
    return operator, {part: value for part, value in parameters.items() if value is not None}


def read_activation(node: Node) -> dict[str, Any]:
    """Return the configuration of the layer that a node is."""
    parameters = {
        part: decimal(value) for part, value in node.attributes.items() if part in ("alpha", "beta")
    }
    return Activation(FUNCTIONS[node.op_type], **parameters).config()
