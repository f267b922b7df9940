"""From a layer's configuration, a plain dict as JSON gives it, back to the layer.

A configuration may come from a file that nobody vouches for: it is checked in full, everything wrong with it
is a ValueError, and the shapes it implies can be had before any memory is taken for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lstmx.layers.activation import Activation, Softmax
from lstmx.layers.arena import Shape
from lstmx.layers.batchnorm import BatchNorm
from lstmx.layers.dropout import Dropout
from lstmx.layers.embedding import Embedding
from lstmx.layers.gru import GRU
from lstmx.layers.laststep import LastStep
from lstmx.layers.layernorm import LayerNorm
from lstmx.layers.linear import Linear
from lstmx.layers.lstm import LSTM
from lstmx.layers.module import Module
from lstmx.layers.residual import Residual
from lstmx.layers.rnn import RNN
from lstmx.layers.sequential import Sequential

_LEAVES: dict[str, Any] = {
    layer.__name__: layer
    for layer in (
        LSTM,
        GRU,
        RNN,
        Linear,
        Activation,
        Softmax,
        Embedding,
        LayerNorm,
        BatchNorm,
        Dropout,
        LastStep,
    )
}
_CONTAINERS: dict[str, Any] = {layer.__name__: layer for layer in (Sequential, Residual)}


def from_config(config: Mapping[str, Any], *, rng: Any = None, initial_values: bool = True) -> Module:
    """Build the layer that `config()` described.

    Args:
        config: A mapping as `Module.config` returns it, also after a trip through JSON.
        rng: Seed or generator of the initial values and of dropout: `np.random.default_rng(rng)`.
        initial_values: Whether parameters are drawn as by the constructor. Otherwise they are zeros that cost
            no memory before something else is written.

    Raises:
        ValueError: An unknown type, an unknown or missing argument, or one that the layer refuses.

    Example:
        >>> import lstmx
        >>> from lstmx.layers import from_config
        >>> model = lstmx.Sequential(lstmx.LSTM(2, 3), lstmx.Linear(3, 1))
        >>> twin = from_config(model.config())
        >>> twin.load_state_dict(model.state_dict())
        IncompatibleKeys(missing_keys=[], unexpected_keys=[])
        >>> twin
        Sequential(LSTM(2, 3), Linear(3, 1))
    """
    generator = np.random.default_rng(rng)
    try:
        return _build(config, "config", generator, initial_values)
    except RecursionError:
        raise ValueError("config: nested too deeply") from None


def parameter_shapes(config: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
    """Yield the name and the shape of every parameter and buffer of the layer that `config` describes.

    None of them is made. They are those of its `state_dict`.

    Raises:
        ValueError: As `from_config`, while iterating, where a single layer's arguments are wrong.

    Example:
        >>> from lstmx.layers import parameter_shapes
        >>> config = {"type": "Linear", "in_features": 10**9, "out_features": 10**9}
        >>> dict(parameter_shapes(config))
        {'weight': (1000000000, 1000000000), 'bias': (1000000000,)}
    """
    try:
        yield from _shapes(config, "config", "")
    except RecursionError:
        raise ValueError("config: nested too deeply") from None


def _build(config: Any, name: str, rng: np.random.Generator, initial_values: bool) -> Module:
    layer_type, arguments = _parse(config, name)
    try:
        if layer_type in _CONTAINERS.values():
            inner = [
                _build(item, where, rng, initial_values) for item, where, _ in _children(arguments, name)
            ]
            container: Module = layer_type(*inner)
            return container
        leaf = layer_type.__new__(layer_type)
        leaf._configure(**arguments)
        leaf._create(rng, initial_values=initial_values)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from None
    layer: Module = leaf
    return layer


def _shapes(config: Any, name: str, prefix: str) -> Iterator[tuple[str, Shape]]:
    layer_type, arguments = _parse(config, name)
    if layer_type in _CONTAINERS.values():
        for item, where, inner_prefix in _children(arguments, name):
            yield from _shapes(item, where, prefix + inner_prefix)
        return
    layer = layer_type.__new__(layer_type)
    try:
        layer._configure(**arguments)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from None
    for parameter in layer._parameters():
        yield prefix + parameter.name, parameter.shape
    for buffer, shape in layer._buffer_shapes():
        yield prefix + buffer, shape


def _children(arguments: Mapping[str, Any], name: str) -> Iterator[tuple[Any, str, str]]:
    """Yield, of a container, each layer's configuration, its name in messages and its parameters' prefix."""
    if "layer" in arguments:
        yield arguments["layer"], f"{name}['layer']", "layer."
        return
    for index, item in enumerate(arguments["layers"]):
        yield item, f"{name}['layers'][{index}]", f"{index}."


def _parse(config: Any, name: str) -> tuple[Any, dict[str, Any]]:
    """Return the class and the constructor's arguments."""
    if not isinstance(config, Mapping):
        raise ValueError(f"{name}: expected a mapping, got {type(config).__name__}")
    arguments = dict(config)
    kind = arguments.pop("type", None)
    if kind == "Sequential":
        if set(arguments) != {"layers"} or not isinstance(arguments["layers"], list):
            raise ValueError(
                f"{name}: expected a list under 'layers' and nothing else, got {sorted(arguments)}"
            )
        return Sequential, arguments
    if kind == "Residual":
        if set(arguments) != {"layer"}:
            raise ValueError(f"{name}: expected 'layer' and nothing else, got {sorted(arguments)}")
        return Residual, arguments
    if not isinstance(kind, str) or kind not in _LEAVES:
        raise ValueError(
            f"{name}: expected 'type' one of {', '.join([*_LEAVES, *_CONTAINERS])}, got {kind!r}"
        )
    return _LEAVES[kind], arguments
