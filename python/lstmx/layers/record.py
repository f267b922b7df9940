"""What an LSTM's call gives on request besides y and the state: c and the activated gates of every step.

A `Record` is the memory for them: one array a layer, `[T, B, D*H]` in the layout of y, the directions side by
side and each at the times of x. `stack.py` has the core write into it; without one, the core writes neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lstmx._checks import FloatArray
from lstmx.layers.arena import Shape
from lstmx.layers.direction import Direction

if TYPE_CHECKING:
    from lstmx.layers.recurrent import Recurrent

GATES = ("i", "f", "g", "o")


class Record:
    """The memory for one call.

    Attributes:
        cells: c, one array a layer; None where it is not wanted.
        trace: The gates by name, each like `cells`; None where they are not wanted.
    """

    def __init__(self, lstm: Recurrent, shape: Shape, return_cells: bool, trace: bool) -> None:
        self._lstm = lstm
        shapes = cell_shapes(lstm, shape)
        self.cells = _arrays(shapes, lstm.dtype) if return_cells else None
        self.trace = {name: _arrays(shapes, lstm.dtype) for name in GATES} if trace else None

    def rooms(self, index: int, d: int, way: Direction) -> dict[str, Any]:
        """Return what the core is to write of direction d of a layer, by the names of its arguments."""
        rooms: dict[str, Any] = {}
        if self.cells is not None:
            rooms["cells"] = way.room(part_of(self._lstm, self.cells[index], index, d))
        if self.trace is not None:
            steps, batch, hidden = part_of(self._lstm, self.trace["i"][index], index, d).shape
            rooms["gates"] = np.empty((steps, batch, len(GATES) * hidden), self._lstm.dtype)
        return rooms

    def deliver(self, index: int, d: int, way: Direction, rooms: dict[str, Any]) -> None:
        """Bring what the core wrote to its place."""
        if self.cells is not None:
            way.deliver(rooms["cells"], part_of(self._lstm, self.cells[index], index, d))
        if self.trace is not None:
            blocks = np.split(way.read(rooms["gates"]), len(GATES), axis=2)
            for arrays, block in zip(self.trace.values(), blocks, strict=True):
                part_of(self._lstm, arrays[index], index, d)[...] = block

    def items(self) -> tuple[object, ...]:
        """What a call returns of it, at the end."""
        return tuple([item for item in (self.cells, self.trace) if item is not None])


def cell_shapes(lstm: Recurrent, shape: Shape) -> list[Shape]:
    """The shape of each layer's c at every step, for an x of `shape`."""
    return [(*shape[:-1], lstm._directions * lstm._sizes(k)[1]) for k in range(lstm.num_layers)]


def part_of(lstm: Recurrent, array: FloatArray, index: int, d: int) -> FloatArray:
    """A view [T,B,H] of the part of a layer's array (c, a gate, a gradient of them) that is direction d's."""
    hidden = lstm._sizes(index)[1]
    return lstm._time_major(array)[:, :, d * hidden : (d + 1) * hidden]


def _arrays(shapes: list[Shape], dtype: np.dtype[Any]) -> list[FloatArray]:
    return [np.empty(shape, dtype) for shape in shapes]
