"""The values of a graph, each known by what it stands for, and a node with the values that it reads.

Nothing here knows what an operator means; that is in `_import.py` and `_recurrent.py`. Messages say what was
expected and what a value is instead; the node's name is put in front of them by whoever asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Never, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lstmx.onnx._axes import Data


@dataclass(frozen=True)
class Stack:
    """Final states of several layers, one after the other along `axis`."""

    parts: tuple[Data, ...]
    axis: int


@dataclass(frozen=True)
class Given:
    """An input of the graph other than x, or a part of it: initial states (floats) or lengths (integers)."""

    name: str
    is_float: bool


class FirstStep(Given):
    """Lengths of at most 1: which is the first step, counted from 1, 0 for a row without steps."""


class Zeros:
    """Zeros of some shape: initial states that are none."""


Array: TypeAlias = NDArray[Any]  # of objects (int or Axis) where it holds sizes
Value: TypeAlias = Data | Stack | Given | Zeros | Array | None


def is_lengths(value: Value) -> bool:
    return type(value) is Given and not value.is_float


class Node:
    """A node with its attributes and the values that it reads."""

    def __init__(self, proto: onnx.NodeProto, values: dict[str, Value]) -> None:
        self.op_type = proto.op_type
        self.outputs = list(proto.output)
        self.attributes = {item.name: _attribute(item) for item in proto.attribute}
        unknown = [name for name in proto.input if name and name not in values]
        if unknown:
            raise ValueError(f"reads {unknown[0]!r}, which nothing here computes")
        self._inputs = [values[name] if name else None for name in proto.input]

    def __getitem__(self, index: int) -> Value:
        return self._inputs[index] if index < len(self._inputs) else None

    def __iter__(self) -> Iterator[Value]:
        return iter(self._inputs)

    def array(self, name: str, index: int) -> Array:
        value = self[index]
        if not isinstance(value, np.ndarray):
            raise ValueError(f"{name}: expected a constant, got {describe(value)}")
        return value

    def weight(self, name: str, index: int, shape: tuple[int | None, ...]) -> NDArray[np.float32]:
        """A constant of float32; None in `shape` stands for any size."""
        array = self.array(name, index)
        fits = len(shape) == array.ndim and all(
            want in (None, got) for want, got in zip(shape, array.shape, strict=True)
        )
        if array.dtype != np.float32 or not fits or 0 in array.shape:
            wanted = ", ".join("*" if size is None else str(size) for size in shape)
            raise ValueError(f"{name}: expected float32 [{wanted}], got {array.dtype} {list(array.shape)}")
        return array

    def ints(self, name: str, index: int) -> list[int] | None:
        """Integers that are an attribute or, in later versions of the standard, an input; None if neither."""
        if name in self.attributes:
            return list(self.attributes[name])
        if self[index] is None:
            return None
        values = self.array(name, index).ravel().tolist()
        if not all(isinstance(value, int) for value in values):
            raise ValueError(f"{name}: expected constant integers, got {values}")
        return values


def _attribute(proto: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(proto)
    if isinstance(value, bytes):
        return value.decode()
    if proto.type == onnx.AttributeProto.STRINGS:
        return [text.decode() for text in value]
    return value


def decimal(value: float) -> float:
    """The shortest decimal that is this float32, as somebody may have written it."""
    return float(str(np.float32(value)))


def to_array(tensor: onnx.TensorProto) -> Array:
    try:
        return numpy_helper.to_array(tensor)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"constant {tensor.name!r}: expected a tensor of numbers, got {error}") from None


def refuse(value: Value) -> Never:
    raise ValueError(f"expected something that this operator is understood for, got {describe(value)}")


def describe(value: Value) -> str:
    if isinstance(value, Data):
        groups = ("*".join(axis.name for axis in group) or "1" for group in value.axes)
        return f"{value.kind} [{', '.join(groups)}]"
    if isinstance(value, Given):
        return f"the input {value.name!r}"
    if isinstance(value, np.ndarray):
        return f"a constant {list(value.shape)}"
    return {Stack: "states of several layers", Zeros: "zeros"}.get(type(value), "nothing")
