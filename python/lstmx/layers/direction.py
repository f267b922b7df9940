"""How each direction of a recurrent layer runs over sequences [T,B,*]: forward, or every row back from its
own end.

The kernels go forward in time through strides. Backwards over rows that have all steps is a negative stride;
over rows of their own lengths it takes a copy in which each row is turned within its length.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lstmx._checks import FloatArray
from lstmx._inputs import Lengths, Resets, Spans


class Direction(NamedTuple):
    """One direction over the rows of one call.

    Attributes:
        lengths: The steps of each row, [B]; None: all of them.
        resets: Where the state is zero before a step, [T,B], in this direction's order; None: nowhere.
        order: The index that puts a sequence into this direction's order, and back; None: it is so already.
    """

    lengths: Lengths | None
    resets: Resets | None
    order: Any = None

    def read(self, array: Any) -> Any:
        """Return `array` in this direction's order, or one in that order as it was: a view if possible."""
        return array if self.order is None or array is None else array[self.order]

    def room(self, array: FloatArray) -> Any:
        """Return what to write in this direction's order instead of `array`: a view of it or new memory."""
        return np.empty(array.shape, array.dtype) if type(self.order) is tuple else self.read(array)

    def deliver(self, room: FloatArray, array: FloatArray) -> None:
        """Bring what was written into `room` to its place in `array`."""
        if type(self.order) is tuple:
            array[self.order] = room


BACKWARDS = slice(None, None, -1)


FORWARD, REVERSE, BOTH = "forward", "reverse", "bidirectional"  # as ONNX has them


def directions(kind: str, steps: int, spans: Spans | None) -> tuple[Direction, ...]:
    """Return the directions that a layer of this kind has, in the order of its cells."""
    if spans is None:
        return _PLAIN[kind]
    forward = () if kind == REVERSE else (Direction(*spans),)
    return forward if kind == FORWARD else (*forward, _reverse(steps, spans))


_AHEAD, _BACK = Direction(None, None), Direction(None, None, BACKWARDS)
_PLAIN = {FORWARD: (_AHEAD,), REVERSE: (_BACK,), BOTH: (_AHEAD, _BACK)}


def _reverse(steps: int, spans: Spans) -> Direction:
    lengths, resets = spans
    order: Any = BACKWARDS
    if lengths is not None:
        t = np.arange(steps)[:, np.newaxis]
        order = np.where(t < lengths, lengths - 1 - t, t), np.arange(lengths.size)
    if resets is not None:
        # A piece begins with its last step here: the one before a reset, if the row goes on to the reset.
        ends = np.zeros(resets.shape, np.bool_)
        ends[:-1] = resets[1:]
        if lengths is not None:
            ends &= t < lengths - 1
        resets = ends[order]
    return Direction(lengths, resets, order)
