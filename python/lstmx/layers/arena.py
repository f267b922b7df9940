"""The memory of a model: all parameters in one flat array, all gradients in another, and their version.

An optimiser works on the flat arrays in one call; layers work on named views into them. The version tells
a layer's plan whether the weights it packed are still current: whoever writes parameters calls `touch()`
afterwards. This file knows nothing of layers and does no arithmetic.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from lstmx._checks import FLOAT32, FloatArray, check_array

Shape: TypeAlias = tuple[int, ...]

# One counter for the process: a layer that moves from one arena to another can then never meet, under the
# version it packed, other weights than those.
_versions = itertools.count(1)


class Parameter(NamedTuple):
    """What a layer asks of an arena: a name, a shape, and whether weight decay should treat it as a bias."""

    name: str
    shape: Shape
    is_bias: bool


class Entry(NamedTuple):
    """Where a parameter lies: `arena.params[start:stop].reshape(shape)`."""

    name: str
    start: int
    stop: int
    shape: Shape
    is_bias: bool


class Arena:
    """The flat parameters and gradients of a model or of one layer in it.

    Attributes:
        params: float32 or float64 `[n]`, C-contiguous. Call `touch()` after writing to it.
        grads: `[n]` of the same dtype, C-contiguous, in the same order.
        entries: One `Entry` a parameter, in order, without gaps: offsets count from the start of this arena.

    The arena of a layer inside a `Sequential` is a window on the model's: the same memory, the same version.

    Example:
        >>> import lstmx
        >>> arena = lstmx.Linear(2, 3).arena
        >>> arena.params.shape, arena.grads.shape
        ((9,), (9,))
        >>> [(e.name, e.start, e.stop, e.shape, e.is_bias) for e in arena.entries]
        [('weight', 0, 6, (3, 2), False), ('bias', 6, 9, (3,), True)]
    """

    __slots__ = ("_clock", "entries", "grads", "params")

    def __init__(
        self,
        params: FloatArray,
        grads: FloatArray,
        entries: tuple[Entry, ...],
        clock: list[int] | None = None,
    ) -> None:
        self.params = params
        self.grads = grads
        self.entries = entries
        self._clock = [next(_versions)] if clock is None else clock

    @classmethod
    def create(cls, parameters: Iterable[Parameter], dtype: np.dtype[Any] = FLOAT32) -> Arena:
        """Return a new arena of zeros for `parameters`."""
        entries = []
        start = 0
        for name, shape, is_bias in parameters:
            stop = start + math.prod(shape)
            entries.append(Entry(name, start, stop, shape, is_bias))
            start = stop
        # Zeros come from the system untouched: gradients of a model that is never trained cost no memory.
        return cls(np.zeros(start, dtype), np.zeros(start, dtype), tuple(entries))

    @property
    def version(self) -> int:
        """A number that grows whenever parameters were written; no two arenas of a process share one."""
        return self._clock[0]

    def touch(self) -> None:
        """Raise the version: parameters were written, so packed copies of them are out of date."""
        self._clock[0] = self.new_version()

    @staticmethod
    def new_version() -> int:
        """Return a version that no arena has had, for weights that live for one call."""
        return next(_versions)

    def window(self, first: int, last: int, prefix: str) -> Arena:
        """Return the part that holds `entries[first:last]`, their names without `prefix`."""
        chosen = self.entries[first:last]
        start, stop = (chosen[0].start, chosen[-1].stop) if chosen else (0, 0)
        entries = tuple(
            Entry(e.name.removeprefix(prefix), e.start - start, e.stop - start, e.shape, e.is_bias)
            for e in chosen
        )
        return Arena(self.params[start:stop], self.grads[start:stop], entries, self._clock)

    def param_views(self, *, writable: bool) -> dict[str, FloatArray]:
        """Return one view a parameter by name."""
        return self._views(self.params, writable)

    def grad_views(self) -> dict[str, FloatArray]:
        """Return one writable view a gradient by name."""
        return self._views(self.grads, True)

    def _views(self, flat: FloatArray, writable: bool) -> dict[str, FloatArray]:
        views = {}
        for name, start, stop, shape, _ in self.entries:
            view = flat[start:stop].reshape(shape)
            view.flags.writeable = writable
            views[name] = view
        return views


class ArrayViews(Mapping[str, FloatArray]):
    """Writable views by name; `views[name] = array` copies into the view, so `views[name] *= 2` works."""

    __slots__ = ("_views",)

    def __init__(self, views: dict[str, FloatArray]) -> None:
        self._views = views

    def __getitem__(self, name: str) -> FloatArray:
        return self._views[name]

    def __setitem__(self, name: str, value: Any) -> None:
        view = self._views[name]
        if value is not view:
            view[...] = check_array(name, value, shape=view.shape, dtype=view.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def __repr__(self) -> str:
        return repr(self._views)
