"""The door from Keras: `from_keras` makes a model of lstmx from a Keras model, or from its weights alone.

Keras itself is never imported: of a model, class names, `get_config()` and `get_weights()` are read, which
Keras 3 (on any backend) and tf.keras 2 have in common. What is converted at this border is the arrangement of
the arrays; the gates are in the same order. What no layer here computes is refused by the Keras layer's name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lstmx import layers
from lstmx._checks import FloatArray, check_array
from lstmx._inputs import FLOAT32

__all__ = ["from_keras"]


def from_keras(model_or_weights: Any) -> layers.Module:
    """Return the lstmx model that computes in inference what a Keras model, or one with these weights, does.

    Of a Keras model:

    - `Sequential` and functional models of layers in a row, models among them: `lstmx.Sequential`;
    - `LSTM`, `Bidirectional(LSTM)` with merge_mode="concat": `lstmx.LSTM`, with a `lstmx.LastStep` behind it
      where return_sequences=False;
    - `Dense`, also in `TimeDistributed`: `lstmx.Linear`, with a layer of its activation behind it;
    - `Activation` ("relu", "leaky_relu", "elu", "sigmoid", "hard_sigmoid", "tanh", "softsign", "softplus"),
      `ReLU`, `LeakyReLU`, `ELU`: `lstmx.Activation`; "softmax" and `Softmax` over the last axis:
      `lstmx.Softmax`; "linear": nothing;
    - `Embedding`, `Dropout`, `LayerNormalization`, `BatchNormalization`: their namesakes. Without center or
      scale, the bias is 0 or the weight 1.

    Everything is batch-first, as in Keras. Keras's one bias of an LSTM becomes `bias_ih`; `bias_hh` is 0.

    A model of lstmx never keeps a state itself. That of a stateful Keras LSTM is carried by the caller: `y,
    state = model(x, state)` from batch to batch, with None for Keras's `reset_states()`, or, where all steps
    are returned, `stream = model.stream(batch_size)` and `y = stream.run(x)`. It starts at zeros.

    In training, some things differ: the two biases of an LSTM both learn, the running variance of
    `BatchNorm` divides by n - 1, nothing is frozen. An LSTM with dropout inside, which acts in training only,
    can be taken over for inference by its `get_weights()`; a model with mask_zero by its twin without, with
    `lengths` in the call.

    Args:
        model_or_weights: A Keras model or layer that is built, or a list of arrays as `get_weights()` gives
            it, of `LSTM`, `Bidirectional(LSTM)` and `Dense` layers in a row. What they are is read off the
            shapes: kernel `[I, 4H]`, recurrent kernel `[H, 4H]` and, where there is one, bias `[4H]` are an
            LSTM, the same three again its backward direction; kernel `[I, O]` and bias `[O]` a Dense.
            Weights do not tell activations, which are taken to be the default ones of the LSTM and none of
            the Dense, nor return_sequences: every step is returned, the last being `y[:, -1]`.

    Returns:
        An `lstmx.Sequential`, or, of a single layer and its weights, the layer, with a copy of the weights
        as float32.

    Raises:
        TypeError: Neither a Keras model, a layer of the kinds above, nor a list of arrays of real numbers.
        ValueError: A layer has an option that nothing here computes (an activation that is not above,
            another one of an LSTM, go_backwards, dropout or recurrent_dropout inside it, mask_zero, ...), is
            not built or not in a row with the others; arrays are not of the shapes above, or of two layers as
            well as of one with two directions. The message names the layer or the array.

    Source: https://keras.io/api/layers/recurrent_layers/lstm/.

    Example:
        >>> import lstmx.keras, numpy as np
        >>> kernel, recurrent, bias = np.zeros((3, 32)), np.zeros((8, 32)), np.zeros(32)
        >>> lstmx.keras.from_keras([kernel, recurrent, bias])
        LSTM(3, 8, batch_first=True)
        >>> model = lstmx.keras.from_keras([kernel, recurrent, bias, np.ones((8, 1)), np.ones(1)])
        >>> model
        Sequential(LSTM(3, 8, batch_first=True), Linear(8, 1))
        >>> y, state = model(np.zeros((4, 20, 3)))
        >>> y, state = model(np.zeros((4, 20, 3)), state)  # as stateful=True does
        >>> y.shape
        (4, 20, 1)
    """
    if isinstance(model_or_weights, (list, tuple)):
        made = list(_from_weights(model_or_weights))
        is_model = len(made) != 1
    elif all(hasattr(model_or_weights, name) for name in ("name", "get_config", "get_weights")):
        made = list(_from_layer(model_or_weights))
        is_model = type(model_or_weights).__name__ in _MODELS or len(made) != 1
    else:
        raise TypeError(
            "model_or_weights: expected a Keras model or layer or a list of its weights, "
            f"got {type(model_or_weights).__name__}"
        )
    return layers.Sequential(*made) if is_model else made[0]


# --- layers of Keras ----------------------------------------------------------------------------------------


_MODELS = ("Sequential", "Functional")


def _from_layer(layer: Any) -> Iterator[layers.Module]:
    kind = type(layer).__name__
    if kind in _MODELS:
        if kind == "Functional":
            _check_row(layer)
        for inner in layer.layers:
            yield from _from_layer(inner)
    elif kind in _LAYERS:
        yield from _LAYERS[kind](layer, layer.get_config())
    elif kind != "InputLayer":
        raise TypeError(f"{_label(layer)}: expected one of {', '.join((*_MODELS, *_LAYERS))}, got {kind}")


def _lstm(layer: Any, config: Mapping[str, Any]) -> Iterator[layers.Module]:
    _expect(layer, config, go_backwards=False)
    yield _make_lstm(_cell(layer, config))
    if not config["return_sequences"]:
        yield layers.LastStep()


def _bidirectional(layer: Any, config: Mapping[str, Any]) -> Iterator[layers.Module]:
    _expect(layer, config, merge_mode="concat")
    ways = layer.forward_layer, layer.backward_layer
    for way in ways:
        if type(way).__name__ != "LSTM":
            raise TypeError(f"{_label(layer)}: expected an LSTM inside, got {type(way).__name__}")
    forward, backward = (way.get_config() for way in ways)
    _expect(ways[0], forward, go_backwards=False)  # then Keras has seen to it that the other goes backwards
    _expect(ways[1], backward, units=forward["units"], use_bias=forward["use_bias"])
    yield _make_lstm(_cell(ways[0], forward), _cell(ways[1], backward))
    if not forward["return_sequences"]:
        yield layers.LastStep(bidirectional=True)


def _cell(layer: Any, config: Mapping[str, Any]) -> list[FloatArray]:
    """The weights of one direction, if it is the plain cell."""
    _expect(
        layer,
        config,
        activation="tanh",
        recurrent_activation="sigmoid",
        dropout=0,
        recurrent_dropout=0,
        time_major=False,
    )
    return _weights(layer, "kernel", "recurrent_kernel", *["bias"] * config["use_bias"])


def _dense(layer: Any, config: Mapping[str, Any]) -> Iterator[layers.Module]:
    behind = list(_activation(layer, config))
    yield _make_linear(*_weights(layer, "kernel", *["bias"] * config["use_bias"]))
    yield from behind


# The usual alpha of Keras's functions, None where there is none or it is that of lstmx.
_ALPHAS = {
    "relu": None,
    "leaky_relu": 0.2,
    "elu": None,
    "sigmoid": None,
    "hard_sigmoid": 1 / 6,
    "tanh": None,
    "softsign": None,
    "softplus": None,
}


def _activation(layer: Any, config: Mapping[str, Any]) -> Iterator[layers.Module]:
    name, known = config["activation"], ("linear", "softmax", *_ALPHAS)
    if name not in known:
        raise ValueError(f"{_label(layer)}: activation: expected one of {', '.join(known)}, got {name!r}")
    if name == "softmax":
        yield layers.Softmax()
    elif name != "linear":
        is_older = name == "hard_sigmoid" and not _is_keras_3(layer)  # 0.2, as in ONNX
        yield _function(layer, name, None if is_older else _ALPHAS[name])


def _is_keras_3(layer: Any) -> bool:
    name = type(layer).__module__.partition(".")[0]  # of tf.keras 2 "keras", too, or another
    return name == "keras" and not sys.modules[name].__version__.startswith("2.")


def _softmax(layer: Any, config: Mapping[str, Any]) -> Iterator[layers.Module]:
    _check_axis(layer, config["axis"])
    yield layers.Softmax()


def _relu(layer: Any, config: Mapping[str, Any]) -> Iterator[layers.Module]:
    _expect(layer, config, max_value=None)
    slope, threshold = config["negative_slope"], config["threshold"]
    if threshold:
        _expect(layer, config, negative_slope=0.0)
        yield _function(layer, "thresholded_relu", threshold)
    else:
        yield _function(layer, "leaky_relu", slope) if slope else _function(layer, "relu")


def _leaky_relu(layer: Any, config: Mapping[str, Any]) -> Iterator[layers.Module]:
    yield _function(layer, "leaky_relu", config.get("negative_slope", config.get("alpha")))  # tf.keras 2


def _elu(layer: Any, config: Mapping[str, Any]) -> Iterator[layers.Module]:
    yield _function(layer, "elu", config["alpha"])


def _function(layer: Any, name: str, alpha: float | None = None) -> layers.Module:
    try:
        return layers.Activation(name, alpha)
    except ValueError as error:
        raise ValueError(f"{_label(layer)}: {error}") from None


def _time_distributed(layer: Any, config: Mapping[str, Any]) -> Iterator[layers.Module]:
    if type(layer.layer).__name__ != "Dense":
        raise TypeError(f"{_label(layer)}: expected a Dense inside, got {type(layer.layer).__name__}")
    yield from _dense(layer.layer, layer.layer.get_config())


def _embedding(layer: Any, config: Mapping[str, Any]) -> Iterator[layers.Module]:
    # Keras hands the mask on from layer to layer; here, lengths are an argument of the model's call.
    _expect(layer, config, mask_zero=False)
    (table,) = _weights(layer, "embeddings")
    rows, width = table.shape
    yield _make("Embedding", {"num_embeddings": rows, "embedding_dim": width}, {"weight": table})


def _dropout(layer: Any, config: Mapping[str, Any]) -> Iterator[layers.Module]:
    _expect(layer, config, noise_shape=None)
    yield layers.Dropout(config["rate"])


def _layer_norm(layer: Any, config: Mapping[str, Any]) -> Iterator[layers.Module]:
    _expect(layer, config, rms_scaling=False)
    if not config["center"]:
        _expect(layer, config, scale=True)  # without weights, nothing tells the width
    yield _make_norm(layer, config, "LayerNorm", "normalized_shape", ("gamma", "beta"))


def _batch_norm(layer: Any, config: Mapping[str, Any]) -> Iterator[layers.Module]:
    _expect(layer, config, renorm=False)
    arguments = {"momentum": round(1 - config["momentum"], 12), "batch_first": True}  # 0.01, not 0.010...09
    yield _make_norm(layer, config, "BatchNorm", "num_features", tuple(_NORM_NAMES), **arguments)


_NORM_NAMES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def _make_norm(
    layer: Any, config: Mapping[str, Any], kind: str, size: str, names: tuple[str, ...], **arguments: Any
) -> layers.Module:
    _check_axis(layer, config["axis"])
    absent = {name for name, option in (("gamma", "scale"), ("beta", "center")) if not config[option]}
    given = [name for name in names if name not in absent]
    arrays = dict(zip(given, _weights(layer, *given), strict=True))
    width = len(arrays[given[0]])
    params = {"weight": np.ones(width, FLOAT32), "bias": np.zeros(width, FLOAT32)}
    params |= {_NORM_NAMES[name]: array for name, array in arrays.items()}
    return _make(kind, {size: width, "eps": config["epsilon"], **arguments}, params)


def _check_axis(layer: Any, axis: Any) -> None:
    """Refuse all axes but the last, which tf.keras 2 counts from the front once the layer is built."""
    items = list(axis) if isinstance(axis, Iterable) else [axis]
    if items == [-1] or (hasattr(layer, "input") and items == [len(layer.input.shape) - 1]):
        return
    raise ValueError(f"{_label(layer)}: axis: expected the last one, got {axis}")


_LAYERS = {
    "LSTM": _lstm,
    "Bidirectional": _bidirectional,
    "Dense": _dense,
    "Activation": _activation,
    "Softmax": _softmax,
    "ReLU": _relu,
    "LeakyReLU": _leaky_relu,
    "ELU": _elu,
    "TimeDistributed": _time_distributed,
    "Embedding": _embedding,
    "Dropout": _dropout,
    "LayerNormalization": _layer_norm,
    "BatchNormalization": _batch_norm,
}


def _label(layer: Any) -> str:
    return f"{type(layer).__name__} {layer.name!r}"


def _expect(layer: Any, config: Mapping[str, Any], **options: Any) -> None:
    """Refuse other values of options than these; one that this version of Keras lacks is as expected."""
    for name, expected in options.items():
        got = config.get(name, expected)
        if got != expected:
            raise ValueError(f"{_label(layer)}: {name}: expected {expected!r}, got {got!r}")


def _weights(layer: Any, *names: str) -> list[FloatArray]:
    arrays = layer.get_weights()
    if len(arrays) != len(names):
        raise ValueError(
            f"{_label(layer)}: expected a built layer with the weights {', '.join(names)}, "
            f"got {len(arrays)} arrays"
        )
    return [np.asarray(array, FLOAT32) for array in arrays]


def _check_row(model: Any) -> None:
    """Refuse a functional model unless each of its layers reads the one before, and that alone."""
    config = model.get_config()
    wanted: list[tuple[str, int]] = []
    for item in (*config["layers"], {"name": "output", "inbound_nodes": config["output_layers"]}):
        reads = list(_reads(item["inbound_nodes"]))
        if reads != wanted:
            expected, got = (
                ", ".join(f"{name}[{index}]" if index else name for name, index in row) or "nothing"
                for row in (wanted, reads)
            )
            raise ValueError(
                f"{_label(model)}: expected layers in a row, {item['name']} to read {expected}, got {got}"
            )
        wanted = [(item["name"], 0)]


def _reads(nodes: Any) -> Iterator[tuple[str, int]]:
    """Yield the layer and the number of its output for each tensor that a configuration refers to.

    Keras 3 writes a dict with "keras_history", tf.keras 2 a list; both lists are [layer, node, output, ...].
    """
    if isinstance(nodes, Mapping):
        yield from _reads(nodes["keras_history"] if "keras_history" in nodes else list(nodes.values()))
    elif isinstance(nodes, (list, tuple)):
        if len(nodes) >= 3 and isinstance(nodes[0], str) and isinstance(nodes[2], int):
            yield nodes[0], nodes[2]
            nodes = nodes[3:]
        for node in nodes:
            yield from _reads(node)


# --- arrays alone -------------------------------------------------------------------------------------------


def _from_weights(weights: Sequence[Any]) -> Iterator[layers.Module]:
    arrays = [check_array(f"weights[{index}]", array) for index, array in enumerate(weights)]
    start = 0
    while start < len(arrays):
        size = _cell_size(arrays[start:])
        if size:
            directions = 2 if _has_reverse(arrays, start, size) else 1
            yield _make_lstm(*(arrays[start + k * size :][:size] for k in range(directions)))
            start += directions * size
        else:
            shapes = [array.shape for array in arrays[start : start + 2]]
            if len(shapes) < 2 or len(shapes[0]) != 2 or shapes[1] != shapes[0][1:]:
                raise ValueError(
                    f"weights[{start}]: expected kernel [I, 4H] and recurrent kernel [H, 4H] of an LSTM, or "
                    f"kernel [I, O] and bias [O] of a Dense, got shapes {', '.join(map(str, shapes))}"
                )
            yield _make_linear(*arrays[start : start + 2])
            start += 2


def _cell_size(arrays: Sequence[FloatArray]) -> int:
    """How many arrays in front are those of an LSTM in one direction: 3, 2 without bias, or 0."""
    shapes = [array.shape for array in arrays[:3]]
    if len(shapes) < 2 or len(shapes[0]) != 2 or len(shapes[1]) != 2:
        return 0
    hidden, gates = shapes[1]
    if gates != 4 * hidden or shapes[0][1] != gates:
        return 0
    return 3 if shapes[2:] == [(gates,)] else 2


def _has_reverse(arrays: Sequence[FloatArray], start: int, size: int) -> bool:
    """Whether the cell at `start` is followed by its backward direction, and not by another layer."""
    shapes = [array.shape for array in arrays]
    middle, stop = start + size, start + 2 * size
    if _cell_size(arrays[middle:]) != size or shapes[start:middle] != shapes[middle:stop]:
        return False
    width, hidden = shapes[start][0], shapes[start + 1][0]
    if width != hidden:
        return True  # another layer's kernel would have H rows
    if stop == len(arrays):
        raise ValueError(
            f"weights[{middle}]: expected shapes that tell two layers from one with two directions, got "
            f"{size} arrays as before, for {width} features and as many units; give the Keras model instead"
        )
    return shapes[stop][:1] == (2 * hidden,)


# --- layers of lstmx ----------------------------------------------------------------------------------------


def _make_lstm(*directions: Sequence[FloatArray]) -> layers.Module:
    """An LSTM of cells (kernel [I,4H], recurrent kernel [H,4H] and perhaps bias [4H]), the second reverse."""
    params: dict[str, FloatArray] = {}
    for suffix, (kernel, recurrent, *biases) in zip(("l0", "l0_reverse"), directions, strict=False):
        params |= {f"weight_ih_{suffix}": kernel.T, f"weight_hh_{suffix}": recurrent.T}
        for bias in biases:
            params |= {f"bias_ih_{suffix}": bias, f"bias_hh_{suffix}": np.zeros_like(bias)}
    kernel, recurrent, *biases = directions[0]
    arguments = {
        "input_size": kernel.shape[0],
        "hidden_size": recurrent.shape[0],
        "bias": bool(biases),
        "batch_first": True,
        "bidirectional": len(directions) == 2,
    }
    return _make("LSTM", arguments, params)


def _make_linear(kernel: FloatArray, *biases: FloatArray) -> layers.Module:
    """A Linear of kernel [I,O] and perhaps bias [O]."""
    in_features, out_features = kernel.shape
    arguments = {"in_features": in_features, "out_features": out_features, "bias": bool(biases)}
    return _make("Linear", arguments, dict(zip(("weight", "bias"), (kernel.T, *biases), strict=False)))


def _make(kind: str, arguments: Mapping[str, Any], params: Mapping[str, Any]) -> layers.Module:
    layer = layers.from_config({"type": kind, **arguments}, initial_values=False)
    layer.load_state_dict(params)
    return layer
