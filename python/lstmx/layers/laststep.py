"""LastStep: from a batch of sequences to their last time step, for models that answer once a sequence.

Batch-first only, as trainers and data sets are; one direction without lengths is read without a copy.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lstmx._checks import FloatArray, check_bool
from lstmx._inputs import Lengths, Spans, as_floats
from lstmx.layers.arena import Shape
from lstmx.layers.module import Backward, Module


class LastStep(Module):
    """`y = x[:, -1]`: `[B, T, F]` to `[B, F]`.

    Args:
        bidirectional: Whether x is that of a bidirectional `LSTM`, whose reverse direction takes its last
            step at the first time step: the second half of the features is then `x[:, 0]`'s. y holds both
            directions' final h side by side, as Keras's `Bidirectional` has it with return_sequences=False.

    Call: `y, None = layer(x, *, lengths=None)`; y may be a view of x. With `lengths`, integers `[B]` from 0
    to T as `LSTM` takes them, y holds each row's own last step, `x[b, lengths[b] - 1]`, or 0 for a row
    without steps. `resets` are taken, too, and change nothing here.

    Raises:
        TypeError: `bidirectional` or `resets` are not bool or `lengths` not integers.
        ValueError: x has no axis of time, no time step or, with bidirectional=True, an odd number of
            features; `lengths` or `resets` do not fit it.

    Example:
        >>> import lstmx, numpy as np
        >>> lstmx.LastStep()(np.arange(12).reshape(2, 3, 2))[0].tolist()
        [[4.0, 5.0], [10.0, 11.0]]
        >>> lstmx.LastStep(bidirectional=True)(np.arange(12).reshape(2, 3, 2))[0].tolist()
        [[4.0, 1.0], [10.0, 7.0]]
    """

    batch_first = True
    dtype = None

    def __init__(self, bidirectional: bool = False) -> None:
        self._configure(bidirectional)
        self._create(None)

    def _configure(self, bidirectional: Any = False) -> None:
        self.bidirectional = check_bool("bidirectional", bidirectional)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the class under "type"."""
        return {"type": "LastStep", "bidirectional": self.bidirectional}

    def _stream_obstacle(self) -> str:
        return f"{self!r}, which waits for the last step"

    def _output_shape(self, name: str, shape: Shape) -> Shape:
        if len(shape) != 3 or shape[1] == 0:
            raise ValueError(f"{name}: expected shape (B, T, F) with T at least 1, got {shape}")
        if self.bidirectional and shape[2] % 2:
            raise ValueError(f"{name}: expected shape (B, T, F) with F even, got {shape}")
        return (shape[0], shape[2])

    def _halves(self, width: int) -> tuple[slice, slice]:
        """Which features are read at the last step, and which at the first."""
        forward = width // 2 if self.bidirectional else width
        return slice(forward), slice(forward, None)

    def _infer(self, x: FloatArray, state: None, spans: Spans | None) -> tuple[FloatArray, None]:
        lengths = None if spans is None else spans.lengths
        if lengths is None and not self.bidirectional:
            return x[:, -1], None
        rows, last = _last_steps(lengths)
        at_last, at_first = self._halves(x.shape[2])
        y = np.zeros((x.shape[0], x.shape[2]), x.dtype)
        y[rows, at_last] = x[rows, last, at_last]
        y[rows, at_first] = x[rows, 0, at_first]
        return y, None

    def _train(self, x: FloatArray, state: None, spans: Spans | None) -> tuple[FloatArray, None, Backward]:
        y, _ = self._infer(x, state, spans)
        return y, None, _LastStepBackward(self, x, None if spans is None else spans.lengths)


def _last_steps(lengths: Lengths | None) -> tuple[Any, Any]:
    """The rows that have steps, and the last step of each."""
    if lengths is None:
        return slice(None), -1
    (rows,) = np.nonzero(lengths)
    return rows, lengths[rows] - 1


class _LastStepBackward(Backward):
    __slots__ = ("_dtype", "_layer", "_lengths", "_shape")

    def __init__(self, layer: LastStep, x: FloatArray, lengths: Lengths | None) -> None:
        super().__init__()
        self._layer = layer
        self._dtype = x.dtype
        self._shape = x.shape
        self._lengths = lengths

    def _check_dy(self, name: str, dy: Any) -> FloatArray:
        return as_floats(name, dy, (self._shape[0], self._shape[2]), self._dtype)

    def _run(
        self, dy: FloatArray | None, dstate: None, need_dx: bool, need_dstate: bool
    ) -> tuple[FloatArray | None, None]:
        self._take()
        if not need_dx:
            return None, None
        assert dy is not None
        dx = np.zeros(self._shape, self._dtype)
        rows, last = _last_steps(self._lengths)
        at_last, at_first = self._layer._halves(self._shape[2])
        dx[rows, last, at_last] = dy[rows, at_last]
        dx[rows, 0, at_first] = dy[rows, at_first]
        return dx, None
