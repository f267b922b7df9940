"""What layers made of layers share: one arena for all parameters, names with a prefix, ownership.

A container moves its layers' parameters into its own memory. What it computes with them is its own business:
`Sequential`, `Residual`.
"""

from __future__ import annotations

import weakref
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np

from lstmx._checks import FloatArray
from lstmx.layers.arena import Arena, Parameter
from lstmx.layers.module import Module


class Container(Module):
    """Base of the layers that own others."""

    @abstractmethod
    def _children(self) -> Iterator[tuple[str, Module]]:
        """Yield the layers in order, each with what stands in front of its parameters' names."""

    def rngs(self) -> list[np.random.Generator]:
        """Return the generators that training draws from, in the order of the layers, each once."""
        distinct = {id(rng): rng for _, layer in self._children() for rng in layer.rngs()}
        return list(distinct.values())

    def _adopt(self) -> None:
        """Take the layers over."""
        self.dtype = next((layer.dtype for _, layer in self._children() if layer.dtype is not None), None)
        self._allocate()
        for _, layer in self._children():
            layer._owner = weakref.ref(self)

    def _parameters(self) -> Iterator[Parameter]:
        for prefix, layer in self._children():
            for name, shape, is_bias in layer._parameters():
                yield Parameter(prefix + name, shape, is_bias)

    def _named_buffers(self) -> dict[str, FloatArray]:
        return {
            prefix + name: array
            for prefix, layer in self._children()
            for name, array in layer._named_buffers().items()
        }

    def _bind(self, arena: Arena) -> None:
        """Take `arena` over, with what the layers hold now in it."""
        super()._bind(arena)
        first = 0
        for prefix, layer in self._children():
            old = layer.arena
            last = first + len(old.entries)
            window = arena.window(first, last, prefix)
            window.params[...] = old.params
            if old.grads.any():  # otherwise leave the new memory untouched
                window.grads[...] = old.grads
            layer._bind(window)
            first = last

    def _stream_obstacle(self) -> str | None:
        obstacles = (layer._stream_obstacle() for _, layer in self._children())
        return next((obstacle for obstacle in obstacles if obstacle is not None), None)


def check_free(name: str, layer: Any) -> None:
    """Refuse what is no layer, or one that another container owns."""
    if not isinstance(layer, Module):
        raise TypeError(f"{name}: expected a layer, got {type(layer).__name__}")
    if layer._owner is not None and layer._owner() is not None:
        raise ValueError(f"{name}: expected a layer of its own, got one of another model; copy.deepcopy it")
