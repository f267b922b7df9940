"""From an ONNX file to a model: the graph is followed, node by node, and must come out as layers in a row.

Nothing of a graph is run. Each value in it is known by what it stands for: a constant, sizes of axes, an
input of the graph, zeros, or the data on its way through the layers, with the meaning of each of its axes.
Operators that only rearrange change that meaning, LSTM and MatMul add a layer, all else is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Never, TypeAlias

import google.protobuf.message
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lstmx.files import PathLike
from lstmx.layers import Module, from_config
from lstmx.onnx._axes import Axis, Data, axis_size, join_directions, regroup

_TO_IFGO = [0, 2, 3, 1]  # from ONNX's order of the gates: i, o, f, c

_ACTIVATIONS = ["sigmoid", "tanh", "tanh"]


@dataclass(frozen=True)
class _Stack:
    """Final states of several layers, one after the other along `axis`."""

    parts: tuple[Data, ...]
    axis: int


@dataclass(frozen=True)
class _Given:
    """An input of the graph other than x, or a part of it: initial states (floats) or lengths (integers)."""

    name: str
    is_float: bool


class _Zeros:
    """Zeros of some shape: initial states that are none."""


_Array: TypeAlias = NDArray[Any]  # of objects (int or Axis) where it holds sizes
_Value: TypeAlias = Data | _Stack | _Given | _Zeros | _Array | None


def import_model(path: PathLike) -> Module:
    """Read an ONNX graph of LSTM and linear layers, as PyTorch, Keras and `export` write them.

    The graph's first input is x, `[T, B, I]` or `[B, T, I]`: the nodes that read it tell which, and the model
    is batch-first accordingly. Each LSTM node becomes an `LSTM` of one layer; MatMul and Add, or Gemm, a
    `Linear`; the last step of a batch-first graph, or the final h where it is computed with, a `LastStep`.
    Dropout, which does nothing in inference, is left out. Further inputs of the graph are the `state` and the
    `lengths` of the model's call.

    The model computes the numbers of the graph, arranged as everywhere in this library: `y` in the order of
    x's axes, both directions side by side, and `(h_n, c_n)` for each `LSTM`. With lengths, a row without
    steps keeps its initial state (the ONNX standard does not say; ONNX Runtime gives zeros).

    Args:
        path: The file; weights kept in a file beside it are read, too.

    Returns:
        A `Sequential`.

    Raises:
        FileNotFoundError: There is no file at `path`.
        ValueError: Not a valid ONNX file, or a graph that the layers here cannot compute: another operator,
            direction="reverse", peepholes, clip, input_forget, other activations, initial states other than
            inputs and zeros, anything but layers in a row. The message names the node and what it has.

    Example:
        >>> import lstmx, lstmx.onnx, tempfile
        >>> model = lstmx.Sequential(lstmx.LSTM(3, 8, batch_first=True), lstmx.LastStep(), lstmx.Linear(8, 1))
        >>> folder = tempfile.TemporaryDirectory()
        >>> lstmx.onnx.export(model, f"{folder.name}/model.onnx")
        >>> lstmx.onnx.import_model(f"{folder.name}/model.onnx")
        Sequential(LSTM(3, 8, batch_first=True), LastStep(), Linear(8, 1))
        >>> folder.cleanup()
    """
    name = os.fspath(path)
    try:
        proto = onnx.load(name)
        onnx.checker.check_model(proto)
    except (google.protobuf.message.DecodeError, onnx.checker.ValidationError, ValueError) as error:
        raise ValueError(f"{name}: not a valid ONNX file ({error})") from None
    try:
        return _Importer(proto.graph, 4 * proto.ByteSize() + (1 << 20)).model()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


class _Node:
    """A node with its attributes and the values that it reads."""

    def __init__(self, proto: onnx.NodeProto, values: dict[str, _Value]) -> None:
        self.op_type = proto.op_type
        self.outputs = list(proto.output)
        self.attributes = {item.name: _attribute(item) for item in proto.attribute}
        unknown = [name for name in proto.input if name and name not in values]
        if unknown:
            raise ValueError(f"reads {unknown[0]!r}, which nothing here computes")
        self._inputs = [values[name] if name else None for name in proto.input]

    def __getitem__(self, index: int) -> _Value:
        return self._inputs[index] if index < len(self._inputs) else None

    def __iter__(self) -> Iterator[_Value]:
        return iter(self._inputs)

    def array(self, name: str, index: int) -> _Array:
        value = self[index]
        if not isinstance(value, np.ndarray):
            raise ValueError(f"{name}: expected a constant, got {_describe(value)}")
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


class _Importer:
    """The layers that a graph has come out as so far, and what each of its values stands for."""

    def __init__(self, graph: onnx.GraphProto, budget: int) -> None:
        self._graph = graph
        self._budget = budget  # bytes that constants made from constants may take
        self._layers: list[dict[str, Any]] = []
        self._params: dict[str, NDArray[np.float32]] = {}
        self._position = 0
        self._order: tuple[Axis, Axis] | None = None  # time and batch, once an LSTM has told
        self._has_lengths: bool | None = None
        self._values: dict[str, _Value] = {}
        self._read_inputs()

    def model(self) -> Module:
        for proto in self._graph.node:
            label = f"{proto.op_type} {proto.name or proto.output[0]!r}"
            operator = self._OPERATORS.get(proto.op_type) if proto.domain in ("", "ai.onnx") else None
            if operator is None:
                domain = f"{proto.domain}." if proto.domain else ""
                raise ValueError(
                    f"node {label}: expected one of {', '.join(self._OPERATORS)}, got {domain}{proto.op_type}"
                )
            try:
                results = operator(self, _Node(proto, self._values))
            except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                raise ValueError(f"node {label}: {error}") from None
            self._values |= zip(proto.output, results, strict=False)
        self._read_outputs()
        model = from_config({"type": "Sequential", "layers": self._layers}, initial_values=False)
        model.load_state_dict(self._params)
        return model

    # --- the border of the graph ----------------------------------------------------------------------------

    def _read_inputs(self) -> None:
        graph = self._graph
        for tensor in graph.initializer:
            self._values[tensor.name] = _to_array(tensor)
        inputs = [value for value in graph.input if value.name not in self._values]
        if not inputs:
            raise ValueError("inputs: expected at least one, got none")
        for value in inputs:
            kind = value.type.tensor_type.elem_type
            self._values[value.name] = _Given(value.name, kind == onnx.TensorProto.FLOAT)
        x = inputs[0].type.tensor_type
        if x.elem_type != onnx.TensorProto.FLOAT or not 2 <= len(x.shape.dim) <= 3:
            raise ValueError(
                f"input {inputs[0].name!r}: expected float32 of 2 or 3 axes, got "
                f"{onnx.TensorProto.DataType.Name(x.elem_type).lower()} of {len(x.shape.dim)}"
            )
        sizes = [dim.dim_value or None for dim in x.shape.dim]
        leading = [Axis(f"axis {index}", size) for index, size in enumerate(sizes[:-1])]
        self._x = tuple((axis,) for axis in (*leading, Axis("features", sizes[-1])))
        self._values[inputs[0].name] = Data(self._x, 0)

    def _read_outputs(self) -> None:
        results = []
        for output in self._graph.output:
            value = self._values.get(output.name)
            for part in value.parts if isinstance(value, _Stack) else (value,):
                if not isinstance(part, Data) or part.kind == "padded":
                    raise ValueError(
                        f"output {output.name!r}: expected data of a layer, got {_describe(part)}"
                    )
                if part.kind == "y" and part.position != self._position:
                    raise ValueError(
                        f"output {output.name!r}: expected the last layer's output, got an earlier one's"
                    )
                results.append(part)
        if not self._layers:
            raise ValueError("graph: expected at least one LSTM or linear layer, got none")
        first = results[0]
        batch = self._order[1] if self._order else None
        is_latest_h = first.kind == "h" and first.position == self._position
        only_states = all(part.kind != "y" for part in results)
        if only_states and is_latest_h and first.axes[:-1] == ((batch,),) == self._x[:1]:
            self._last_step(first)  # h without its axis of directions is an answer, not a state

    # --- layers ---------------------------------------------------------------------------------------------

    def _current(self, value: _Value) -> Data:
        """Return `value` as what the next layer reads: all of the data so far, features last."""
        if not isinstance(value, Data):
            raise ValueError(f"expected the data of one layer, got {_describe(value)}")
        if value.position != self._position:
            raise ValueError("expected layers in a row, got an input that an earlier node has read")
        if value.kind == "h":
            return self._last_step(value)
        if value.kind != "y":
            raise ValueError(f"expected the output of a layer, got {_describe(value)}")
        return value

    def _input_width(self, data: Data, width: int) -> None:
        leading, last = data.axes[:-1], data.axes[-1]
        plain = len(last) == 1 and last[0].name == "features"
        if not plain or any(axis.name in ("direction", "features") for group in leading for axis in group):
            raise ValueError(f"expected features on the last axis, got {_describe(data)}")
        if last[0].size not in (None, width):
            raise ValueError(f"expected {width} features, got {last[0].size}")

    def _add(self, config: dict[str, Any], params: dict[str, NDArray[np.float32]]) -> None:
        self._params |= {f"{len(self._layers)}.{name}": array for name, array in params.items()}
        self._layers.append(config)
        self._position += 1

    def _lstm(self, node: _Node) -> list[_Value]:
        direction = self._check_lstm(node)
        directions = 2 if direction == "bidirectional" else 1
        recurrent = node.weight("R", 2, (directions, None, None))
        hidden = recurrent.shape[2]
        recurrent = node.weight("R", 2, (directions, 4 * hidden, hidden))
        weight = node.weight("W", 1, (directions, 4 * hidden, None))
        width = weight.shape[2]
        if node.attributes.get("hidden_size", hidden) != hidden:
            raise ValueError(f"hidden_size: expected {hidden} as in R, got {node.attributes['hidden_size']}")
        bias = None if node[3] is None else node.weight("B", 3, (directions, 8 * hidden))
        time, batch, batch_major = self._read_order(node, width)
        self._check_lengths(node[4])
        for name, value in (("initial_h", node[5]), ("initial_c", node[6])):
            given = isinstance(value, _Given) and value.is_float
            zeros = isinstance(value, _Zeros) or (isinstance(value, np.ndarray) and not value.any())
            if value is not None and not given and not zeros:
                raise ValueError(f"{name}: expected an input of the graph or zeros, got {_describe(value)}")
        h_0, c_0 = node[5], node[6]
        if isinstance(h_0, _Given) and isinstance(c_0, _Given) and h_0 == c_0:
            raise ValueError(f"initial_c: expected another input than initial_h, got {c_0.name!r} for both")
        params = {}
        for d, suffix in enumerate(("l0", "l0_reverse")[:directions]):
            params[f"weight_ih_{suffix}"] = _reorder(weight[d])
            params[f"weight_hh_{suffix}"] = _reorder(recurrent[d])
            if bias is not None:
                params[f"bias_ih_{suffix}"] = _reorder(bias[d, : 4 * hidden])
                params[f"bias_hh_{suffix}"] = _reorder(bias[d, 4 * hidden :])
        config = {
            "type": "LSTM",
            "input_size": width,
            "hidden_size": hidden,
            "bias": bias is not None,
            "batch_first": batch == self._x[0][0],
            "bidirectional": directions == 2,
        }
        self._add(config, params)
        way = () if directions == 1 else (Axis("direction", 2),)
        rows, features = (batch,), (Axis("features", hidden),)
        axes = (rows, (time,), way, features) if batch_major else ((time,), way, rows, features)
        state_axes = (rows, way, features) if batch_major else (way, rows, features)
        y = Data(axes, self._position)
        return [y, replace(y, axes=state_axes, kind="h"), replace(y, axes=state_axes, kind="c")]

    def _check_lstm(self, node: _Node) -> str:
        """Refuse what the layer here does not compute; return the direction."""
        if node[7] is not None:
            raise ValueError("P: expected no peepholes, got weights for them")
        attributes = node.attributes
        direction: str = attributes.get("direction", "forward")
        if direction not in ("forward", "bidirectional"):
            raise ValueError(f"direction: expected 'forward' or 'bidirectional', got {direction!r}")
        expected = _ACTIVATIONS * (2 if direction == "bidirectional" else 1)
        activations = attributes.get("activations", expected)
        if [name.lower() for name in activations] != expected:
            raise ValueError(f"activations: expected Sigmoid, Tanh, Tanh, got {', '.join(activations)}")
        if attributes.get("layout", 0) not in (0, 1):
            raise ValueError(f"layout: expected 0 or 1, got {attributes['layout']}")
        if "clip" in attributes:
            raise ValueError(f"clip: expected none, got {attributes['clip']:g}")
        if attributes.get("input_forget", 0):
            raise ValueError(f"input_forget: expected 0, got {attributes['input_forget']}")
        return direction

    def _read_order(self, node: _Node, width: int) -> tuple[Axis, Axis, bool]:
        """Return the axes of time and of the batch, and whether the node wants the batch in front."""
        data = self._current(node[0])
        self._input_width(data, width)
        if len(data.axes) != 3 or any(len(group) != 1 for group in data.axes) or len(self._x) != 3:
            raise ValueError(f"X: expected [time, batch, features], got {_describe(data)}")
        layout = node.attributes.get("layout", 0)
        time, batch = data.axes[layout][0], data.axes[1 - layout][0]
        if self._order not in (None, (time, batch)):
            raise ValueError(
                f"X: expected time on {self._order[0].name} of x as the LSTM before, got it on {time.name}"
            )
        self._order = (time, batch)
        return time, batch, layout == 1

    def _check_lengths(self, value: _Value) -> None:
        given = isinstance(value, _Given) and not value.is_float
        if value is not None and not given:
            raise ValueError(f"sequence_lens: expected an input of the graph, got {_describe(value)}")
        if self._has_lengths not in (None, given):
            raise ValueError("sequence_lens: expected for all LSTM nodes or for none, got some")
        self._has_lengths = given

    def _linear(self, weight: NDArray[np.float32], data: Data) -> Data:
        """Add a layer with `weight [out, in]`, without bias."""
        out_features, in_features = weight.shape
        self._input_width(data, in_features)
        config = {"type": "Linear", "in_features": in_features, "out_features": out_features, "bias": False}
        self._add(config, {"weight": weight})
        return Data((*data.axes[:-1], (Axis("features", out_features),)), self._position)

    def _bias(self, bias: NDArray[np.float32], data: Data) -> Data:
        layer = self._layers[-1] if self._layers else {}
        if layer.get("type") != "Linear" or layer["bias"] or data.axes[-1][0].name != "features":
            raise ValueError("expected the bias of a MatMul or Gemm, got a sum with something else")
        if bias.dtype != np.float32 or bias.shape[-1:] != (bias.size,) or bias.size != layer["out_features"]:
            raise ValueError(
                f"bias: expected float32 [{layer['out_features']}], got {bias.dtype} {list(bias.shape)}"
            )
        layer["bias"] = True
        self._params[f"{len(self._layers) - 1}.bias"] = bias.ravel()
        self._position += 1
        return replace(data, position=self._position)

    def _last_step(self, data: Data, *, keep: int | None = None) -> Data:
        """Add a LastStep to what a layer made; `keep` is an axis that stays, with size 1."""
        time, batch = self._order or (None, None)
        if batch != self._x[0][0]:
            raise ValueError("expected a batch-first x where only the last step is used, got time first")
        groups = {axis.name for group in data.axes for axis in group}
        if data.kind == "h" and "direction" in groups:
            raise ValueError("expected the final h of one direction, got both; their last steps differ")
        self._add({"type": "LastStep"}, {})
        axes = [group for group in data.axes if group not in ((), (time,))]
        if keep is not None:
            axes.insert(keep, ())
        return Data(tuple(axes), self._position)

    def _matmul(self, node: _Node) -> list[_Value]:
        data = self._current(node[0])
        return [self._linear(node.weight("B", 1, (None, None)).T, data)]

    def _gemm(self, node: _Node) -> list[_Value]:
        for name, expected in (("alpha", 1.0), ("beta", 1.0), ("transA", 0)):
            if node.attributes.get(name, expected) != expected:
                raise ValueError(f"{name}: expected {expected}, got {node.attributes[name]}")
        data = self._current(node[0])
        weight = node.weight("B", 1, (None, None))
        y = self._linear(weight if node.attributes.get("transB", 0) else weight.T, data)
        return [y if node[2] is None else self._bias(node.array("C", 2), y)]

    def _sum(self, node: _Node) -> list[_Value]:
        a, b = node[0], node[1]
        data, bias = (b, a) if isinstance(a, np.ndarray) else (a, b)
        if not isinstance(bias, np.ndarray):
            raise ValueError(f"expected a constant bias, got {_describe(bias)}")
        return [self._bias(bias, self._current(data))]

    # --- operators that rearrange ---------------------------------------------------------------------------

    def _same(self, node: _Node) -> list[_Value]:
        return [node[0]]

    def _cast(self, node: _Node) -> list[_Value]:
        """Of sizes and lengths, which are integers before and after."""
        value = node[0]
        if isinstance(value, _Given) and value.is_float:
            _refuse(value)
        if isinstance(value, np.ndarray) and value.dtype.kind not in "iuO":
            _refuse(value)
        return [value if isinstance(value, (_Given, np.ndarray)) else _refuse(value)]

    def _transpose(self, node: _Node) -> list[_Value]:
        value, order = node[0], node.attributes.get("perm")
        if isinstance(value, np.ndarray):
            return [value.transpose(order)]
        if not isinstance(value, Data):
            return [_passed(value)]
        order = range(len(value.axes))[::-1] if order is None else order
        if sorted(order) != list(range(len(value.axes))):
            raise ValueError(f"perm: expected an order of {len(value.axes)} axes, got {order}")
        return [replace(value, axes=tuple(value.axes[index] for index in order))]

    def _squeeze(self, node: _Node) -> list[_Value]:
        value, dropped = node[0], node.ints("axes", 1)
        if isinstance(value, np.ndarray):
            return [value.squeeze(None if dropped is None else tuple(dropped))]
        if not isinstance(value, Data):
            return [_passed(value)]
        count = len(value.axes)
        if dropped is None:
            raise ValueError("axes: expected which axes to drop, got none")
        indices = {index % count for index in dropped if -count <= index < count}
        if len(indices) != len(dropped) or any(value.axes[index] for index in indices):
            raise ValueError(f"axes: expected axes of size 1, got {dropped} of {_describe(value)}")
        axes = tuple(group for index, group in enumerate(value.axes) if index not in indices)
        return [replace(value, axes=axes)]

    def _unsqueeze(self, node: _Node) -> list[_Value]:
        value, added = node[0], node.ints("axes", 1) or []
        if isinstance(value, np.ndarray):
            return [np.expand_dims(value, tuple(added))]
        if not isinstance(value, Data):
            return [_passed(value)]
        count = len(value.axes) + len(added)
        axes = list(value.axes)
        for index in sorted(index % count for index in added):
            axes.insert(index, ())
        return [replace(value, axes=tuple(axes))]

    def _reshape(self, node: _Node) -> list[_Value]:
        value, shape = node[0], node.array("shape", 1).ravel().tolist()
        if isinstance(value, np.ndarray):
            self._charge(value.nbytes)
            shape = [value.shape[index] if size == 0 else size for index, size in enumerate(shape)]
            return [value.reshape(shape)]
        if not isinstance(value, Data):
            return [_passed(value)]
        copied: list[Any] = [value.axes[index] if size == 0 else size for index, size in enumerate(shape)]
        axes = regroup(value.axes, copied)
        if axes is None:
            raise ValueError(
                f"shape: expected one that merges or splits axes, got {shape} of {_describe(value)}"
            )
        return [replace(value, axes=axes)]

    def _slice(self, node: _Node) -> list[_Value]:
        value = node[0]
        starts, ends = node.ints("starts", 1), node.ints("ends", 2)
        if starts is None or ends is None:
            raise ValueError("starts, ends: expected constants, got none")
        axes = node.ints("axes", 3) or list(range(len(starts)))
        steps = node.ints("steps", 4) or [1] * len(starts)
        if isinstance(value, np.ndarray):
            index = [slice(None)] * value.ndim
            for axis, start, stop, step in zip(axes, starts, ends, steps, strict=True):
                # The largest negative number stands for the very front when going backwards.
                index[axis] = slice(start, None if step < 0 and stop < -value.shape[axis] else stop, step)
            return [value[tuple(index)]]
        if not isinstance(value, Data):
            return [_passed(value)]
        if len(starts) != 1 or steps != [1] or len(axes) != 1:
            raise ValueError(f"expected one step of one axis, got {starts} to {ends} of axes {axes}")
        (start, stop, axis), size = (starts[0], ends[0], axes[0] % len(value.axes)), 0
        if isinstance(known := axis_size(value.axes[axis]), int):
            size = known
            start, stop = (bound + size if bound < 0 else bound for bound in (start, stop))
        if min(stop, size or stop) != start + 1 and not (start == -1 and stop >= 1 << 30):
            raise ValueError(f"expected one step of one axis, got {starts} to {ends} of {_describe(value)}")
        return [self._pick(value, axis, start, keep=True)]

    def _gather(self, node: _Node) -> list[_Value]:
        value, axis = node[0], node.attributes.get("axis", 0)
        indices = node.array("indices", 1)
        if isinstance(value, np.ndarray):
            self._charge(indices.size * (value.nbytes // max(1, value.shape[axis])))
            return [np.asarray(value.take(indices.astype(np.int64), axis), value.dtype)]
        if isinstance(value, (_Given, _Zeros)):
            return [value]
        if indices.size != 1 or indices.ndim > 1:
            raise ValueError(f"indices: expected one, got {indices.tolist()}")
        if isinstance(value, _Stack):
            return [self._pick_part(value, axis, int(indices.item()), keep=indices.ndim == 1)]
        if not isinstance(value, Data):
            _refuse(value)
        return [self._pick(value, axis % len(value.axes), int(indices.item()), keep=indices.ndim == 1)]

    def _pick(self, data: Data, axis: int, index: int, *, keep: bool) -> Data:
        """Element `index` of one axis: the last step, one direction, or the only element."""
        group = data.axes[axis]
        left = ((),) if keep else ()
        axes = (*data.axes[:axis], *left, *data.axes[axis + 1 :])
        if group == () and index in (0, -1):
            return replace(data, axes=axes)
        if len(group) == 1 and group[0].name == "direction" and index in (0, 1, -1):
            name = "forward" if index == 0 else "backward"
            sided = [tuple(replace(a, name=name) if a.name == "features" else a for a in g) for g in axes]
            return replace(data, axes=tuple(sided))
        if self._order is None or group != (self._order[0],) or index not in (-1, (group[0].size or 0) - 1):
            raise ValueError(
                f"expected the last step of time, got index {index} of axis {axis} of {_describe(data)}"
            )
        if self._has_lengths:
            raise ValueError(
                "expected each row's own last step, got that of the longest (with sequence_lens)"
            )
        return self._last_step(self._current(data), keep=axis if keep else None)

    def _pick_part(self, stack: _Stack, axis: int, index: int, *, keep: bool) -> Data:
        """The final state of one layer of several."""
        if axis != stack.axis or any(part.axes[axis] for part in stack.parts):
            raise ValueError(f"expected one layer's state of one direction, got {_describe(stack)}")
        part = stack.parts[index]
        return part if keep else replace(part, axes=(*part.axes[:axis], *part.axes[axis + 1 :]))

    def _split(self, node: _Node) -> list[_Value]:
        value, axis = node[0], node.attributes.get("axis", 0)
        count = len(node.outputs)
        if isinstance(value, np.ndarray):
            sizes = node.ints("split", 1)
            return list(np.split(value, count if sizes is None else np.cumsum(sizes)[:-1], axis))
        if isinstance(value, Data) and count == 2:
            return [self._pick(value, axis % len(value.axes), index, keep=True) for index in (0, 1)]
        return [_passed(value)] * count

    def _concat(self, node: _Node) -> list[_Value]:
        values, axis = list(node), node.attributes["axis"]
        arrays = [value for value in values if isinstance(value, np.ndarray)]
        if len(arrays) == len(values):
            self._charge(sum(array.nbytes for array in arrays))
            return [np.concatenate(arrays, axis)]
        if all(isinstance(value, (_Given, _Zeros)) for value in values):
            return [values[0]]
        parts = tuple(value for value in values if isinstance(value, Data))
        if len(parts) < len(values) or len({len(part.axes) for part in parts}) > 1:
            raise ValueError(f"expected data of layers, got {', '.join(map(_describe, values))}")
        axis %= len(parts[0].axes)
        joined = join_directions(parts, axis)
        if joined is not None:
            return [joined]
        if any(part.kind == "y" for part in parts):
            raise ValueError("expected final states or the two directions of one layer, got other data")
        return [_Stack(parts, axis)]

    # --- sizes ----------------------------------------------------------------------------------------------

    def _constant(self, node: _Node) -> list[_Value]:
        ((name, value),) = node.attributes.items()
        if name == "value":
            return [_to_array(value)]
        if name not in ("value_int", "value_ints", "value_float", "value_floats"):
            raise ValueError(f"expected numbers, got {name}")
        return [np.array(value, np.int64 if name.startswith("value_int") else np.float32)]

    def _shape(self, node: _Node) -> list[_Value]:
        value = node[0]
        if isinstance(value, np.ndarray):
            sizes: list[Any] = list(value.shape)
        elif isinstance(value, Data):
            sizes = [axis_size(group) for group in value.axes]
        else:
            _refuse(value)
        return [np.array(sizes[node.attributes.get("start", 0) : node.attributes.get("end")], object)]

    def _product(self, node: _Node) -> list[_Value]:
        a, b = node.array("A", 0), node.array("B", 1)
        values = [*a.ravel().tolist(), *b.ravel().tolist()]
        if not all(isinstance(value, int) and abs(value) < 1 << 31 for value in values):
            raise ValueError("expected a product of known sizes, got something else")
        self._charge(8 * a.size * b.size)
        return [np.asarray(a * b, object)]

    def _zeros(self, node: _Node) -> list[_Value]:
        value = node.attributes.get("value")
        if value is not None and _to_array(value).any():
            raise ValueError("value: expected 0, got something else")
        return [_Zeros()]

    def _expand(self, node: _Node) -> list[_Value]:
        value = node[0]
        if isinstance(value, _Zeros) or (isinstance(value, np.ndarray) and not value.any()):
            return [_Zeros()]
        return _refuse(value)

    def _charge(self, size: int) -> None:
        self._budget -= size
        if self._budget < 0:
            raise ValueError("expected constants no larger than the file makes them, got more")

    # --- lengths, as `export` writes them -------------------------------------------------------------------

    def _pad(self, node: _Node) -> list[_Value]:
        """A step of zeros in front, for `_gather_last` to read where a row has no steps."""
        data, pads = self._current(node[0]), node.ints("pads", 1)
        zeros = node.attributes.get("mode", "constant") == "constant" and node[2] is None
        if pads != [0, 1, 0, 0, 0, 0] or not zeros:
            raise ValueError(f"pads: expected a step of zeros before the first, got {pads}")
        return [replace(data, kind="padded")]

    def _gather_last(self, node: _Node) -> list[_Value]:
        data, lengths = node[0], node[1]
        by_length = isinstance(lengths, _Given) and not lengths.is_float and self._has_lengths
        padded = isinstance(data, Data) and data.kind == "padded" and data.axes[:2] == self._x[:2]
        if (
            not isinstance(data, Data)
            or not padded
            or not by_length
            or node.attributes.get("batch_dims") != 1
        ):
            raise ValueError(f"expected each row's last step by its length, got {_describe(data)}")
        return [self._last_step(self._current(replace(data, kind="y")))]

    def _equal(self, node: _Node) -> list[_Value]:
        lengths, zero = node[0], node[1]
        if (
            isinstance(lengths, _Given)
            and not lengths.is_float
            and isinstance(zero, np.ndarray)
            and not zero.any()
        ):
            return [lengths]
        return _refuse(lengths)

    def _where(self, node: _Node) -> list[_Value]:
        """The initial state for a row without steps, the final one for others: what the layer does itself."""
        rows, initial, final = node[0], node[1], node[2]
        state = isinstance(final, _Stack) or (isinstance(final, Data) and final.kind != "y")
        if isinstance(rows, _Given) and not rows.is_float and isinstance(initial, _Given) and state:
            return [final]
        return _refuse(final)

    _OPERATORS: ClassVar[dict[str, Callable[[_Importer, _Node], list[_Value]]]] = {
        "LSTM": _lstm,
        "MatMul": _matmul,
        "Gemm": _gemm,
        "Add": _sum,
        "Identity": _same,
        "Dropout": _same,
        "Cast": _cast,
        "Transpose": _transpose,
        "Squeeze": _squeeze,
        "Unsqueeze": _unsqueeze,
        "Reshape": _reshape,
        "Slice": _slice,
        "Gather": _gather,
        "Split": _split,
        "Concat": _concat,
        "Constant": _constant,
        "Shape": _shape,
        "Mul": _product,
        "ConstantOfShape": _zeros,
        "Expand": _expand,
        "Pad": _pad,
        "GatherND": _gather_last,
        "Equal": _equal,
        "Where": _where,
    }


def _attribute(proto: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(proto)
    if isinstance(value, bytes):
        return value.decode()
    if proto.type == onnx.AttributeProto.STRINGS:
        return [text.decode() for text in value]
    return value


def _to_array(tensor: onnx.TensorProto) -> _Array:
    try:
        return numpy_helper.to_array(tensor)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"constant {tensor.name!r}: expected a tensor of numbers, got {error}") from None


def _reorder(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """`array [4H, ...]` with its gates in the order i, f, g, o."""
    return array.reshape(4, -1, *array.shape[1:])[_TO_IFGO].reshape(array.shape)


def _passed(value: _Value) -> _Value:
    """An initial state, lengths or zeros, which no rearrangement changes."""
    return value if isinstance(value, (_Given, _Zeros)) else _refuse(value)


def _refuse(value: _Value) -> Never:
    raise ValueError(f"expected something that this operator is understood for, got {_describe(value)}")


def _describe(value: _Value) -> str:
    if isinstance(value, Data):
        groups = ("*".join(axis.name for axis in group) or "1" for group in value.axes)
        return f"{value.kind} [{', '.join(groups)}]"
    if isinstance(value, _Given):
        return f"the input {value.name!r}"
    if isinstance(value, np.ndarray):
        return f"a constant {list(value.shape)}"
    return {_Stack: "states of several layers", _Zeros: "zeros"}.get(type(value), "nothing")
