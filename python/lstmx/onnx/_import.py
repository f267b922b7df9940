"""From an ONNX file to a model: the graph is followed, node by node, and must come out as layers in a row.

Nothing of a graph is run. Each value in it is known by what it stands for: a constant, sizes of axes, an
input of the graph, zeros, or the data on its way through the layers, with the meaning of each of its axes.
Operators that only rearrange change that meaning, LSTM, GRU, RNN, MatMul and activations add a layer; all
else is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import google.protobuf.message
import numpy as np
import onnx
from numpy.typing import NDArray

from lstmx.files import PathLike
from lstmx.layers import Module, from_config
from lstmx.onnx._activation import FUNCTIONS, read_activation
from lstmx.onnx._axes import Axes, Axis, Data, axis_size, has_axis, join_directions, reshape
from lstmx.onnx._node import (
    FirstStep,
    Given,
    Node,
    Stack,
    Value,
    Zeros,
    describe,
    is_lengths,
    refuse,
    to_array,
)
from lstmx.onnx._recurrent import LAYERS, read_layer

_LONGEST = "expected each row's own last step, got that of the longest (with sequence_lens)"


def import_model(path: PathLike) -> Module:
    """Read an ONNX graph of LSTM, GRU, RNN, linear layers and activations, as of PyTorch, Keras and `export`.

    The graph's first input is x, `[T, B, I]` or `[B, T, I]`: the nodes that read it tell which, and the model
    is batch-first accordingly. Each LSTM node becomes an `LSTM` of one layer, with all that the operator has:
    direction, peepholes (P), clip (`gate_clip`), input_forget (`coupled`), activations, layout,
    sequence_lens, initial states. A GRU with linear_before_reset=1 becomes a `GRU`, an RNN an `RNN`; the sum
    of the two directions of y `merge="sum"`; MatMul and Add, or Gemm, a `Linear`; Relu, Sigmoid, Tanh,
    HardSigmoid, LeakyRelu, ThresholdedRelu, Elu, Softsign and Softplus an `Activation`; Softmax over the
    features a `Softmax`; the last step of a batch-first graph, or the final h where it is computed with (of
    both directions side by side), a `LastStep`. Dropout, which does nothing in inference, is left out.
    Further inputs of the graph are the `state` and the `lengths` of the model's call.

    The model computes the numbers of the graph, arranged as everywhere in this library: `y` in the order of
    x's axes, both directions side by side, and `(h_n, c_n)` for each `LSTM`, h_n for each `GRU` and `RNN`.
    With lengths, the final state of a row without steps is its initial state, as everywhere here (the ONNX
    standard does not say; ONNX Runtime gives zeros).

    Args:
        path: The file; weights kept in a file beside it are read, too.

    Returns:
        A `Sequential`.

    Raises:
        FileNotFoundError: There is no file at `path`.
        ValueError: Not a valid ONNX file, or a graph that the layers here cannot compute: another
            operator; float64; activations that differ between the directions, or without the alpha or beta of
            which the standard and run-times name no common default; a GRU with linear_before_reset=0; clip or
            other activations of a GRU (of an RNN: than Tanh and Relu); the final h of direction="reverse"
            computed with; initial states other than inputs and zeros; anything but layers in a row. The
            message names the node and what it has.

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
        return _Importer(proto, 4 * proto.ByteSize() + (1 << 20)).model()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


class _Importer:
    """The layers that a graph has come out as so far, and what each of its values stands for."""

    def __init__(self, proto: onnx.ModelProto, budget: int) -> None:
        self._graph = proto.graph
        versions = (item.version for item in proto.opset_import if item.domain in ("", "ai.onnx"))
        self._opset = max(versions, default=0)
        self._budget = budget  # bytes that constants made from constants may take
        self._layers: list[dict[str, Any]] = []
        self._params: dict[str, NDArray[np.float32]] = {}
        self._position = 0
        self._order: tuple[Axis, Axis] | None = None  # time and batch, once an LSTM has told
        self._has_lengths: bool | None = None
        self._values: dict[str, Value] = {}
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
                results = operator(self, Node(proto, self._values))
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
            self._values[tensor.name] = to_array(tensor)
        inputs = [value for value in graph.input if value.name not in self._values]
        if not inputs:
            raise ValueError("inputs: expected at least one, got none")
        for value in inputs:
            kind = value.type.tensor_type.elem_type
            self._values[value.name] = Given(value.name, kind == onnx.TensorProto.FLOAT)
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
            for part in value.parts if isinstance(value, Stack) else (value,):
                if not isinstance(part, Data) or part.kind in ("end", "padded"):
                    raise ValueError(
                        f"output {output.name!r}: expected data of a layer, got {describe(part)}"
                    )
                if part.kind == "y" and part.position != self._position:
                    raise ValueError(
                        f"output {output.name!r}: expected the last layer's output, got an earlier one's"
                    )
                if part.kind == "y" and has_axis(part.axes, "forward", "backward"):
                    raise ValueError(f"output {output.name!r}: expected both directions of y, got one")
                results.append(part)
        if not self._layers:
            raise ValueError("graph: expected at least one layer, got none")
        first = results[0]
        batch = self._order[1] if self._order else None
        is_latest_h = first.kind in ("h", "both h") and first.position == self._position
        only_states = all(part.kind != "y" for part in results)
        whole = len(first.axes) == 2 and has_axis(first.axes[1:], "features")
        if only_states and is_latest_h and whole and first.axes[:1] == ((batch,),) == self._x[:1]:
            try:
                self._last_step(first)  # h without its axis of directions is an answer, not a state
            except ValueError as error:
                raise ValueError(f"output {self._graph.output[0].name!r}: {error}") from None

    # --- layers ---------------------------------------------------------------------------------------------

    def _current(self, value: Value) -> Data:
        """Return `value` as what the next layer reads: all of the data so far, features last."""
        if not isinstance(value, Data):
            raise ValueError(f"expected the data of one layer, got {describe(value)}")
        if value.position != self._position:
            raise ValueError("expected layers in a row, got an input that an earlier node has read")
        if value.kind in ("h", "both h"):
            return self._last_step(value)
        if value.kind != "y":
            raise ValueError(f"expected the output of a layer, got {describe(value)}")
        return value

    def _input_width(self, data: Data, width: int) -> None:
        leading, last = data.axes[:-1], data.axes[-1]
        plain = len(last) == 1 and last[0].name == "features"
        if not plain or has_axis(leading, "direction", "features"):
            raise ValueError(f"expected features on the last axis, got {describe(data)}")
        if last[0].size not in (None, width):
            raise ValueError(f"expected {width} features, got {last[0].size}")

    def _add(self, config: dict[str, Any], params: dict[str, NDArray[np.float32]]) -> None:
        self._params |= {f"{len(self._layers)}.{name}": array for name, array in params.items()}
        self._layers.append(config)
        self._position += 1

    def _recurrent(self, node: Node) -> list[Value]:
        config, params = read_layer(node)
        hidden = config["hidden_size"]
        time, batch, batch_major = self._read_order(node, config["input_size"])
        self._check_lengths(node[4], time)
        self._check_initial(node)
        self._add(config | {"batch_first": batch == self._x[0][0]}, params)
        way = (Axis("direction", 2),) if config["bidirectional"] else ()
        rows, features = (batch,), (Axis("features", hidden),)
        axes = (rows, (time,), way, features) if batch_major else ((time,), way, rows, features)
        state_axes = (rows, way, features) if batch_major else (way, rows, features)
        y = Data(axes, self._position)
        return [y, *(replace(y, axes=state_axes, kind=state) for state in LAYERS[node.op_type]._STATES)]

    def _read_order(self, node: Node, width: int) -> tuple[Axis, Axis, bool]:
        """Return the axes of time and of the batch, and whether the node wants the batch in front."""
        data = self._current(node[0])
        self._input_width(data, width)
        if len(data.axes) != 3 or any(len(group) != 1 for group in data.axes) or len(self._x) != 3:
            raise ValueError(f"X: expected [time, batch, features], got {describe(data)}")
        layout = node.attributes.get("layout", 0)
        time, batch = data.axes[layout][0], data.axes[1 - layout][0]
        if self._order not in (None, (time, batch)):
            raise ValueError(
                f"X: expected time on {self._order[0].name} of x as before, got it on {time.name}"
            )
        self._order = (time, batch)
        return time, batch, layout == 1

    def _check_lengths(self, value: Value, time: Axis) -> None:
        if isinstance(value, np.ndarray) and time.size is not None and (value == time.size).all():
            value = None  # all rows have all steps
        given = is_lengths(value)
        if value is not None and not given:
            raise ValueError(f"sequence_lens: expected an input of the graph, got {describe(value)}")
        if self._has_lengths not in (None, given):
            raise ValueError("sequence_lens: expected for all recurrent nodes or for none, got some")
        self._has_lengths = given

    def _check_initial(self, node: Node) -> None:
        """Initial states are the caller's, each an input of its own, or none."""
        states = [node[5 + index] for index in range(len(LAYERS[node.op_type]._STATES))]
        for state, value in zip(LAYERS[node.op_type]._STATES, states, strict=True):
            given = isinstance(value, Given) and value.is_float
            zeros = isinstance(value, Zeros) or (isinstance(value, np.ndarray) and not value.any())
            if value is not None and not given and not zeros:
                raise ValueError(
                    f"initial_{state}: expected an input of the graph or zeros, got {describe(value)}"
                )
        if isinstance(states[0], Given) and states[0] in states[1:]:
            raise ValueError(
                f"initial_c: expected another input than initial_h, got {states[0].name!r} for both"
            )

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
        if data.kind == "h" and not has_axis(data.axes, "features"):
            raise ValueError("expected the final h of both directions, got that of one")
        if data.kind == "h" and has_axis(data.axes, "direction"):
            raise ValueError("expected the final h of both directions side by side, got one after the other")
        if data.kind == "h" and self._layers[-1].get("reverse"):
            raise ValueError("expected the final h of direction 'forward', got that of 'reverse'")
        self._add({"type": "LastStep", "bidirectional": data.kind == "both h"}, {})
        axes = [group for group in data.axes if group != (time,)]
        if keep is not None:
            axes.insert(keep, ())
        return Data(tuple(axes), self._position)

    def _sum_directions(self, y: Data) -> Data:
        """Have the last layer add its directions; `y` is what it returns then."""
        layer = self._layers[-1] if self._layers else {}
        if not layer.get("bidirectional") or "merge" in layer:
            raise ValueError("expected the directions that a layer has just returned, got other data")
        layer["merge"] = "sum"
        self._position += 1
        return replace(y, position=self._position)

    def _matmul(self, node: Node) -> list[Value]:
        data = self._current(node[0])
        return [self._linear(node.weight("B", 1, (None, None)).T, data)]

    def _gemm(self, node: Node) -> list[Value]:
        for name, expected in (("alpha", 1.0), ("beta", 1.0), ("transA", 0)):
            if node.attributes.get(name, expected) != expected:
                raise ValueError(f"{name}: expected {expected}, got {node.attributes[name]}")
        data = self._current(node[0])
        weight = node.weight("B", 1, (None, None))
        y = self._linear(weight if node.attributes.get("transB", 0) else weight.T, data)
        return [y if node[2] is None else self._bias(node.array("C", 2), y)]

    def _sum(self, node: Node) -> list[Value]:
        a, b = node[0], node[1]
        if isinstance(a, Data) and isinstance(b, Data):
            return [self._add_directions(a, b)]
        data, bias = (b, a) if isinstance(a, np.ndarray) else (a, b)
        if not isinstance(bias, np.ndarray):
            raise ValueError(f"expected a constant bias, got {describe(bias)}")
        return [self._bias(bias, self._current(data))]

    def _add_directions(self, a: Data, b: Data) -> Data:
        last = len(a.axes) - 1
        joined = join_directions((a, b), last) or join_directions((b, a), last)
        if joined is None or joined.kind != "y":
            raise ValueError(f"expected a constant bias or the directions of y, got {describe(b)}")
        ((features,),) = a.axes[last:]
        axes = (*a.axes[:last], (replace(features, name="features"),))
        return self._sum_directions(replace(self._current(joined), axes=axes))

    def _reduce_sum(self, node: Node) -> list[Value]:
        y, summed = node[0], node.ints("axes", 1)
        if not isinstance(y, Data) or y.kind != "y" or summed is None or len(summed) != 1:
            raise ValueError(f"expected y summed over its directions, got {describe(y)} over axes {summed}")
        axis = summed[0] % len(y.axes)
        if not has_axis(y.axes[axis : axis + 1], "direction"):
            raise ValueError(f"expected y summed over its directions, got {describe(y)} over axis {axis}")
        left = ((),) if node.attributes.get("keepdims", 1) else ()
        axes = (*y.axes[:axis], *left, *y.axes[axis + 1 :])
        return [self._sum_directions(replace(self._current(y), axes=axes))]

    def _activation(self, node: Node) -> list[Value]:
        data = self._current(node[0])
        if has_axis(data.axes, "forward", "backward"):
            raise ValueError(f"expected all features, got {describe(data)}")
        self._add(read_activation(node), {})
        return [Data(data.axes, self._position)]

    def _softmax(self, node: Node) -> list[Value]:
        """Over one axis; before version 13 of the standard over all from that one on."""
        data = self._current(node[0])
        first = node.attributes.get("axis", -1 if self._opset >= 13 else 1)
        axes = data.axes[first:][: 1 if self._opset >= 13 else None]
        names = [axis.name for group in axes for axis in group]
        if len(axes) != 1 or names != ["features"] or has_axis(data.axes, "direction"):
            raise ValueError(f"expected a sum over all features, got axis {first} of {describe(data)}")
        self._add({"type": "Softmax"}, {})
        return [Data(data.axes, self._position)]

    # --- operators that rearrange ---------------------------------------------------------------------------

    def _same(self, node: Node) -> list[Value]:
        return [node[0]]

    def _cast(self, node: Node) -> list[Value]:
        """Of sizes and lengths, which are integers before and after."""
        value = node[0]
        if isinstance(value, Given) and value.is_float:
            refuse(value)
        if isinstance(value, np.ndarray) and value.dtype.kind not in "iuO":
            refuse(value)
        return [value if isinstance(value, (Given, np.ndarray)) else refuse(value)]

    def _transpose(self, node: Node) -> list[Value]:
        value, order = node[0], node.attributes.get("perm")
        if isinstance(value, np.ndarray):
            return [value.transpose(order)]
        if not isinstance(value, Data):
            return [_passed(value)]
        order = range(len(value.axes))[::-1] if order is None else order
        if sorted(order) != list(range(len(value.axes))):
            raise ValueError(f"perm: expected an order of {len(value.axes)} axes, got {order}")
        return [replace(value, axes=tuple(value.axes[index] for index in order))]

    def _squeeze(self, node: Node) -> list[Value]:
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
            raise ValueError(f"axes: expected axes of size 1, got {dropped} of {describe(value)}")
        axes = tuple(group for index, group in enumerate(value.axes) if index not in indices)
        return [replace(value, axes=axes)]

    def _unsqueeze(self, node: Node) -> list[Value]:
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

    def _reshape(self, node: Node) -> list[Value]:
        value, shape = node[0], node.array("shape", 1).ravel().tolist()
        if isinstance(value, np.ndarray):
            self._charge(value.nbytes)
            shape = [value.shape[index] if size == 0 else size for index, size in enumerate(shape)]
            return [value.reshape(shape)]
        if not isinstance(value, Data):
            return [_passed(value)]
        copied: list[Any] = [value.axes[index] if size == 0 else size for index, size in enumerate(shape)]
        reshaped = reshape(value, copied)
        if reshaped is None:
            raise ValueError(
                f"shape: expected one that merges or splits axes, got {shape} of {describe(value)}"
            )
        return [reshaped]

    def _slice(self, node: Node) -> list[Value]:
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
            raise ValueError(f"expected one step of one axis, got {starts} to {ends} of {describe(value)}")
        return [self._pick(value, axis, start, keep=True)]

    def _gather(self, node: Node) -> list[Value]:
        value, axis = node[0], node.attributes.get("axis", 0)
        indices = node.array("indices", 1)
        if isinstance(value, np.ndarray):
            self._charge(indices.size * (value.nbytes // max(1, value.shape[axis])))
            return [np.asarray(value.take(indices.astype(np.int64), axis), value.dtype)]
        if isinstance(value, (Given, Zeros)):
            return [value]
        if indices.size != 1 or indices.ndim > 1:
            raise ValueError(f"indices: expected one, got {indices.tolist()}")
        if isinstance(value, Stack):
            return [self._pick_part(value, axis, int(indices.item()), keep=indices.ndim == 1)]
        if not isinstance(value, Data):
            refuse(value)
        return [self._pick(value, axis % len(value.axes), int(indices.item()), keep=indices.ndim == 1)]

    def _pick(self, data: Data, axis: int, index: int, *, keep: bool) -> Data:
        """Element `index` of one axis: the last step, one direction, or the only element."""
        group = data.axes[axis]
        left = ((),) if keep else ()
        axes = (*data.axes[:axis], *left, *data.axes[axis + 1 :])
        if group == () and index in (0, -1):
            return replace(data, axes=axes)
        if len(group) == 1 and group[0].name == "direction" and -2 <= index < 2:
            name = "forward" if index % 2 == 0 else "backward"
            sided = [tuple(replace(a, name=name) if a.name == "features" else a for a in g) for g in axes]
            return replace(data, axes=tuple(sided))
        on_time = self._order is not None and group == (self._order[0],)
        at_last = on_time and index in (-1, (group[0].size or 0) - 1)
        if (at_last and has_axis(axes, "forward")) or (on_time and index == 0 and has_axis(axes, "backward")):
            return self._end(data, axes)
        if not at_last:
            raise ValueError(
                f"expected the last step of time, got index {index} of axis {axis} of {describe(data)}"
            )
        if self._has_lengths:
            raise ValueError(_LONGEST)
        return self._last_step(self._current(data), keep=axis if keep else None)

    def _end(self, y: Data, axes: Axes) -> Data:
        """The end of y where one direction has its final h."""
        if y.kind != "y":
            raise ValueError(f"expected an end of y, got {describe(y)}")
        if self._has_lengths:
            raise ValueError(_LONGEST)
        return replace(y, axes=axes, kind="end")

    def _pick_part(self, stack: Stack, axis: int, index: int, *, keep: bool) -> Data:
        """The final state of one layer and direction of several."""
        places = [
            (part, k)
            for part in stack.parts
            for k in range(2 if has_axis(part.axes[stack.axis : stack.axis + 1], "direction") else 1)
        ]
        if axis != stack.axis or any(len(part.axes[axis]) > 1 for part in stack.parts):
            raise ValueError(f"expected one layer's state of one direction, got {describe(stack)}")
        part, direction = places[index]
        return self._pick(part, axis, direction, keep=keep)

    def _split(self, node: Node) -> list[Value]:
        value, axis = node[0], node.attributes.get("axis", 0)
        count = len(node.outputs)
        if isinstance(value, np.ndarray):
            sizes = node.ints("split", 1)
            return list(np.split(value, count if sizes is None else np.cumsum(sizes)[:-1], axis))
        if isinstance(value, Data) and count == 2:
            if len(set(node.ints("split", 1) or [1])) != 1:
                raise ValueError(f"split: expected two halves, got {node.ints('split', 1)}")
            axis %= len(value.axes)
            return [self._half(value, axis, index) for index in (0, 1)]
        return [_passed(value)] * count

    def _half(self, data: Data, axis: int, index: int) -> Data:
        """One direction, or half of the features."""
        group = data.axes[axis]
        size = group[0].size if len(group) == 1 and group[0].name == "features" else None
        if data.kind not in ("y", "padded") or size is None or size % 2:
            return self._pick(data, axis, index, keep=True)
        half = Axis(("forward", "backward")[index], size // 2)
        return replace(data, axes=(*data.axes[:axis], (half,), *data.axes[axis + 1 :]))

    def _concat(self, node: Node) -> list[Value]:
        values, axis = list(node), node.attributes["axis"]
        arrays = [value for value in values if isinstance(value, np.ndarray)]
        if len(arrays) == len(values):
            self._charge(sum(array.nbytes for array in arrays))
            return [np.concatenate(arrays, axis)]
        if all(isinstance(value, (Given, Zeros)) for value in values):
            return [values[0]]
        parts = tuple(value for value in values if isinstance(value, Data))
        if len(parts) < len(values) or len({len(part.axes) for part in parts}) > 1:
            raise ValueError(f"expected data of layers, got {', '.join(map(describe, values))}")
        axis %= len(parts[0].axes)
        joined = join_directions(parts, axis)
        if joined is not None:
            return [joined]
        if any(part.kind == "y" for part in parts):
            raise ValueError("expected final states or the two directions of one layer, got other data")
        return [Stack(parts, axis)]

    # --- sizes ----------------------------------------------------------------------------------------------

    def _constant(self, node: Node) -> list[Value]:
        ((name, value),) = node.attributes.items()
        if name == "value":
            return [to_array(value)]
        if name not in ("value_int", "value_ints", "value_float", "value_floats"):
            raise ValueError(f"expected numbers, got {name}")
        return [np.array(value, np.int64 if name.startswith("value_int") else np.float32)]

    def _shape(self, node: Node) -> list[Value]:
        value = node[0]
        if isinstance(value, np.ndarray):
            sizes: list[Any] = list(value.shape)
        elif isinstance(value, Data):
            sizes = [axis_size(group) for group in value.axes]
        else:
            refuse(value)
        return [np.array(sizes[node.attributes.get("start", 0) : node.attributes.get("end")], object)]

    def _product(self, node: Node) -> list[Value]:
        a, b = node.array("A", 0), node.array("B", 1)
        values = [*a.ravel().tolist(), *b.ravel().tolist()]
        if not all(isinstance(value, int) and abs(value) < 1 << 31 for value in values):
            raise ValueError("expected a product of known sizes, got something else")
        self._charge(8 * a.size * b.size)
        return [np.asarray(a * b, object)]

    def _zeros(self, node: Node) -> list[Value]:
        value = node.attributes.get("value")
        if value is not None and to_array(value).any():
            raise ValueError("value: expected 0, got something else")
        return [Zeros()]

    def _expand(self, node: Node) -> list[Value]:
        value = node[0]
        if isinstance(value, Zeros) or (isinstance(value, np.ndarray) and not value.any()):
            return [Zeros()]
        return refuse(value)

    def _charge(self, size: int) -> None:
        self._budget -= size
        if self._budget < 0:
            raise ValueError("expected constants no larger than the file makes them, got more")

    # --- lengths, as `export` writes them -------------------------------------------------------------------

    def _pad(self, node: Node) -> list[Value]:
        """A step of zeros in front, for `_gather_last` to read where a row has no steps."""
        data, pads = self._current(node[0]), node.ints("pads", 1)
        zeros = node.attributes.get("mode", "constant") == "constant" and node[2] is None
        if pads != [0, 1, 0, 0, 0, 0] or not zeros:
            raise ValueError(f"pads: expected a step of zeros before the first, got {pads}")
        return [replace(data, kind="padded")]

    def _gather_last(self, node: Node) -> list[Value]:
        data, lengths = node[0], node[1]
        at_first = isinstance(lengths, FirstStep)
        by_length = (at_first or is_lengths(lengths)) and self._has_lengths
        padded = isinstance(data, Data) and data.kind == "padded" and data.axes[:2] == self._x[:2]
        if (
            not isinstance(data, Data)
            or not padded
            or not by_length
            or node.attributes.get("batch_dims") != 1
        ):
            raise ValueError(f"expected each row's last step by its length, got {describe(data)}")
        if has_axis(data.axes, "backward" if at_first else "forward"):
            return [replace(data, axes=(data.axes[0], data.axes[2]), kind="end")]
        if at_first:
            raise ValueError("expected the first step of one direction, got that of all features")
        return [self._last_step(self._current(replace(data, kind="y")))]

    def _first_step(self, node: Node) -> list[Value]:
        lengths, one = node[0], node[1]
        is_one = isinstance(one, np.ndarray) and one.size == 1 and one.item() == 1
        if isinstance(lengths, Given) and is_lengths(lengths) and is_one:
            return [FirstStep(lengths.name, is_float=False)]
        return refuse(lengths)

    def _equal(self, node: Node) -> list[Value]:
        lengths, zero = node[0], node[1]
        if is_lengths(lengths) and isinstance(zero, np.ndarray) and not zero.any():
            return [lengths]
        return refuse(lengths)

    def _where(self, node: Node) -> list[Value]:
        """The initial state for a row without steps, the final one for others: what the layer does itself."""
        rows, initial, final = node[0], node[1], node[2]
        state = isinstance(final, Stack) or (isinstance(final, Data) and final.kind != "y")
        if is_lengths(rows) and isinstance(initial, Given) and state:
            return [final]
        return refuse(final)

    _OPERATORS: ClassVar[dict[str, Callable[[_Importer, Node], list[Value]]]] = {
        **dict.fromkeys(LAYERS, _recurrent),
        "MatMul": _matmul,
        "Gemm": _gemm,
        "Add": _sum,
        "ReduceSum": _reduce_sum,
        **dict.fromkeys(FUNCTIONS, _activation),
        "Softmax": _softmax,
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
        "Min": _first_step,
        "Equal": _equal,
        "Where": _where,
    }


def _passed(value: Value) -> Value:
    """An initial state, lengths or zeros, which no rearrangement changes."""
    return value if isinstance(value, (Given, Zeros)) else refuse(value)
