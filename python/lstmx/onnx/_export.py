"""From a model to an ONNX file: standard operators only, the batch and the number of steps left open.

A layer becomes the few nodes that say the same; the file is checked by onnx before it is written, and written
in one step like the library's other files. Inference only: dropout leaves no trace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lstmx._checks import check_bool
from lstmx._version import __version__
from lstmx.files import PathLike, write_atomic
from lstmx.layers import GRU, LSTM, RNN, Activation, Dropout, LastStep, Linear, Module, Sequential, Softmax
from lstmx.layers.recurrent import Recurrent
from lstmx.onnx._activation import operator_of
from lstmx.onnx._recurrent import operator_arrays, operator_attributes

# Old enough for any run-time of the last years; all that is used here is in it.
_OPSET, _IR_VERSION = 17, 8

# What has a counterpart, and containers of it.
_ALIKE = (LSTM, GRU, RNN, Linear, Activation, Softmax, LastStep, Dropout)


def export(model: Module, path: PathLike, *, lengths: bool = False, state: bool = True) -> None:
    """Write `model` as an ONNX file of standard operators (opset 17), in one step.

    Inputs of the graph, with T and B left open: `x`, float32 `[T, B, I]` (`[B, T, I]` if batch-first,
    `[B, I]` of a model that reads no time); `lengths`, int32 `[B]`, if asked for; for each `LSTM`, `h_0` and
    `c_0`, `[L*D, B, H]`, and for each `GRU` or `RNN` `h_0`. Outputs: `y`, and for each `LSTM` `h_n` and
    `c_n`, for each `GRU` or `RNN` `h_n`. States of a layer inside a `Sequential` have its index in front, as
    its parameters do: `0.h_0`.

    Args:
        model: An `LSTM`, `GRU`, `RNN`, `Linear`, `Activation`, `Softmax`, `LastStep` or `Dropout`, or a
            `Sequential` of them.
        path: The file to write; its folder must exist.
        lengths: Whether the number of steps of each row is an input, as in the model's call. (ONNX calls it
            `sequence_lens`.)
        state: Whether the initial states are inputs; otherwise they are zero, as `state=None` in a call.

    Raises:
        TypeError: `model` is not a layer, or holds one that has no counterpart here.
        ValueError: A model of float64 (ONNX Runtime lacks LSTM, GRU and RNN in double); `lengths` of a model
            that reads no time; a layer that reads time after a `LastStep`; a recurrent layer with layers of
            different widths, connections, learnt initial states, a projection, clipped cells or zoneout; an
            `Activation` that is no operator, "affine" or "scaled_tanh".
        OSError: The file cannot be written; the file that was there is unharmed.

    Example:
        >>> import lstmx, lstmx.onnx, onnx, tempfile
        >>> model = lstmx.Sequential(lstmx.LSTM(3, 8, batch_first=True), lstmx.LastStep(), lstmx.Linear(8, 1))
        >>> folder = tempfile.TemporaryDirectory()
        >>> lstmx.onnx.export(model, f"{folder.name}/model.onnx")
        >>> graph = onnx.load(f"{folder.name}/model.onnx").graph
        >>> [value.name for value in graph.input], [value.name for value in graph.output]
        (['x', '0.h_0', '0.c_0'], ['y', '0.h_n', '0.c_n'])
        >>> folder.cleanup()
    """
    if not isinstance(model, Module):
        raise TypeError(f"model: expected an lstmx layer, got {type(model).__name__}")
    if model.dtype is not None and model.dtype != np.float32:
        raise ValueError(f"model: expected dtype float32, got {model.dtype}")
    lengths, state = check_bool("lengths", lengths), check_bool("state", state)
    if lengths and model.batch_first is None:
        raise ValueError("lengths: expected False (the model reads no time), got True")
    write_atomic(path, _Exporter(model, lengths, state).proto().SerializeToString())


class _Exporter:
    """The graph of one model, in the making."""

    def __init__(self, model: Module, lengths: bool, state: bool) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._state = state
        axes: list[str] = {None: ["B"], False: ["T", "B"], True: ["B", "T"]}[model.batch_first]
        y = self._input("x", TensorProto.FLOAT, _dims(axes, model.input_size))
        self._lengths = self._input("lengths", TensorProto.INT32, ["B"]) if lengths else ""
        for name, prefix, layer in _leaves("model", "", model):
            if layer.batch_first is not None and "T" not in axes:
                raise ValueError(f"{name}: expected no layer that reads time after LastStep, got {layer!r}")
            if isinstance(layer, Recurrent):
                _check_options(name, layer)
                y = self._recurrent(prefix, layer, y)
            elif isinstance(layer, Linear):
                y = self._linear(prefix, layer, y)
            elif isinstance(layer, Activation):
                operator, attributes = operator_of(name, layer)
                y = self._node(operator, [y], **attributes)
            elif isinstance(layer, Softmax):
                y = self._node("Softmax", [y], axis=-1)
            elif isinstance(layer, LastStep):
                y = self._last_step(prefix, layer, y)
                axes = ["B"]
        self._output("y", y, _dims(axes, model.output_size))
        self._outputs.insert(0, self._outputs.pop())  # y in front of the states

    def proto(self) -> onnx.ModelProto:
        graph = helper.make_graph(self._nodes, "lstmx", self._inputs, self._outputs, self._constants)
        proto = helper.make_model(
            graph,
            producer_name="lstmx",
            producer_version=__version__,
            ir_version=_IR_VERSION,
            opset_imports=[helper.make_opsetid("", _OPSET)],
        )
        onnx.checker.check_model(proto)
        return proto

    # --- layers ---------------------------------------------------------------------------------------------

    def _recurrent(self, prefix: str, layer: Recurrent, x: str) -> str:
        """Add a node of the cell a layer, time-major between them (run-times lack layout=1); return y."""
        count, directions = layer.num_layers, 2 if layer.bidirectional else 1
        assert isinstance(layer.hidden_size, int)
        state_dims: tuple[int | str, ...] = (count * directions, "B", layer.hidden_size)
        initial = []
        if self._state:
            initial = [
                self._input(f"{prefix}{name}_0", TensorProto.FLOAT, state_dims) for name in layer._STATES
            ]
        shares = [self._split(prefix, value, count, directions) for value in initial]
        if layer.batch_first:
            x = self._node("Transpose", [x], perm=[1, 0, 2])
        finals = []
        for k in range(count):
            reads = {0: x, 4: self._lengths, **dict(enumerate([share[k] for share in shares], 5))}
            for name, place, array in operator_arrays(layer, k):
                reads[place] = self._constant(prefix + name, array)
            inputs = [reads.get(place, "") for place in range(max(reads) + 1)]
            y, *final = self._nodes_of(
                type(layer).__name__, inputs, 1 + len(layer._STATES), **operator_attributes(layer)
            )
            finals.append(final)
            if layer.merge == "sum":  # [T, D, B, H] to [T, B, H]
                axes = self._ints(f"{prefix}y_l{k}.axes", [1])
                x = self._node("ReduceSum", [y, axes], keepdims=0)
            elif layer.bidirectional:  # [T, D, B, H] to [T, B, D*H]
                y = self._node("Transpose", [y], perm=[0, 2, 1, 3])
                x = self._node("Reshape", [y, self._ints(f"{prefix}y_l{k}.shape", [0, 0, layer.output_size])])
            else:
                x = self._node("Squeeze", [y, self._ints(f"{prefix}y_l{k}.axes", [1])])
        for index, name in enumerate([f"{state}_n" for state in layer._STATES]):
            parts = [final[index] for final in finals]
            value = parts[0] if count == 1 else self._node("Concat", parts, axis=0)
            if self._lengths and initial:  # a row without steps keeps its state; run-times give zeros
                value = self._node("Where", [self._empty_rows(prefix + name), initial[index], value])
            self._output(prefix + name, value, state_dims)
        return self._node("Transpose", [x], perm=[1, 0, 2]) if layer.batch_first else x

    def _split(self, prefix: str, state: str, count: int, directions: int) -> list[str]:
        """Return the part of `state [L*D, B, H]` that is each layer's."""
        if count == 1:
            return [state]
        return self._nodes_of("Split", [state, self._ints(f"{state}.split", [directions] * count)], count)

    def _empty_rows(self, name: str) -> str:
        """Return [B, 1], true for rows without steps."""
        empty = self._node("Equal", [self._lengths, self._int32(f"{name}.zero", 0)])
        return self._node("Unsqueeze", [empty, self._ints(f"{name}.axes", [1])])

    def _linear(self, prefix: str, layer: Linear, x: str) -> str:
        weight = self._constant(f"{prefix}weight", layer.params["weight"].T)
        y = self._node("MatMul", [x, weight])
        return (
            self._node("Add", [y, self._constant(f"{prefix}bias", layer.params["bias"])]) if layer.bias else y
        )

    def _last_step(self, prefix: str, layer: LastStep, x: str) -> str:
        """`x[:, -1]`, and `x[:, 0]` of the second half of the features for a LastStep of both directions.

        With lengths it is `x[b, lengths[b] - 1]`, read behind a step of zeros for rows without steps.
        """
        if self._lengths:
            x = self._node("Pad", [x, self._ints(f"{prefix}pads", [0, 1, 0, 0, 0, 0])])
        if not layer.bidirectional:
            return self._step(f"{prefix}step", x, last=True)
        halves = self._nodes_of("Split", [x], 2, axis=2)
        last, first = (
            self._step(f"{prefix}{name}", half, last=name == "last")
            for name, half in zip(("last", "first"), halves, strict=True)
        )
        return self._node("Concat", [last, first], axis=1)

    def _step(self, name: str, x: str, *, last: bool) -> str:
        """The last or first step of each row; with lengths there is a step of zeros in front of x."""
        if not self._lengths:
            return self._node("Gather", [x, self._constant(name, np.array(-1 if last else 0))], axis=1)
        steps = self._lengths if last else self._node("Min", [self._lengths, self._int32(f"{name}.one", 1)])
        index = self._node("Cast", [steps], to=TensorProto.INT64)
        index = self._node("Unsqueeze", [index, self._ints(f"{name}.axes", [1])])
        return self._node("GatherND", [x, index], batch_dims=1)

    # --- pieces of the graph --------------------------------------------------------------------------------

    def _input(self, name: str, element: int, dims: Sequence[int | str]) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, element, dims))
        return name

    def _output(self, name: str, value: str, dims: Sequence[int | str]) -> None:
        self._nodes.append(helper.make_node("Identity", [value], [name], name))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))

    def _constant(self, name: str, array: NDArray[Any]) -> str:
        self._constants.append(numpy_helper.from_array(array.copy("C"), name))
        return name

    def _ints(self, name: str, values: Sequence[int]) -> str:
        return self._constant(name, np.array(values, np.int64))

    def _int32(self, name: str, value: int) -> str:
        return self._constant(name, np.array(value, np.int32))  # as the lengths are

    def _node(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> str:
        return self._nodes_of(op_type, inputs, 1, **attributes)[0]

    def _nodes_of(self, op_type: str, inputs: Sequence[str], count: int, **attributes: Any) -> list[str]:
        """Add a node with `count` outputs and return their names."""
        name = f"{op_type}_{len(self._nodes)}"
        outputs = [f"{name}:{k}" for k in range(count)]
        self._nodes.append(helper.make_node(op_type, inputs, outputs, name, **attributes))
        return outputs


def _leaves(name: str, prefix: str, model: Module) -> Iterator[tuple[str, str, Module]]:
    """Yield the layers in order: what to call each in a message, what stands before its names, itself."""
    if isinstance(model, Sequential):
        for index, layer in enumerate(model):
            yield from _leaves(f"{name}[{index}]", f"{prefix}{index}.", layer)
    elif isinstance(model, _ALIKE):
        yield name, prefix, model
    else:
        names = ", ".join(kind.__name__ for kind in _ALIKE)
        raise TypeError(f"{name}: expected {names} or Sequential, got {type(model).__name__}")


def _check_options(name: str, layer: Recurrent) -> None:
    """Refuse what the operators have no counterpart of."""
    alone = {
        "connection": None,
        "learn_initial_state": False,
        "proj_size": 0,
        "cell_clip": None,
        "layer_norm": False,
        "batch_norm_steps": None,
        "zoneout": 0.0,
    }
    for option, wanted in alone.items():
        got = getattr(layer, option, wanted)
        if got != wanted:
            kind = "a GRU" if isinstance(layer, GRU) else f"an {type(layer).__name__}"
            raise ValueError(f"{name}: expected {kind} with {option}={wanted}, got {got!r}")
    if not isinstance(layer.hidden_size, int):
        raise ValueError(f"{name}: expected one hidden_size for all layers, got {list(layer.hidden_size)}")


def _dims(axes: Sequence[str], width: int | None) -> list[int | str]:
    return [*axes, "F" if width is None else width]
