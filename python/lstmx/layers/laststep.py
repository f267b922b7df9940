"""LastStep: from a batch of sequences to their last time step, for models that answer once a sequence.

Batch-first only, as trainers and data sets are; it copies nothing forward.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lstmx._checks import FloatArray
from lstmx._inputs import Lengths, Spans, as_floats
from lstmx.layers.arena import Shape
from lstmx.layers.module import Backward, Module


class LastStep(Module):
    """`y = x[:, -1]`: `[B, T, F]` to `[B, F]`.

    Call: `y, None = layer(x, *, lengths=None)`; y is a view of x. With `lengths`, integers `[B]` from 0 to T
    as `LSTM` takes them, y holds each row's own last step, `x[b, lengths[b] - 1]`, or 0 for a row without
    steps. `resets` are taken, too, and change nothing here.

    Raises:
        TypeError: `lengths` are not integers or `resets` not bool.
        ValueError: x has no axis of time or no time step, or `lengths` or `resets` do not fit it.

    Example:
        >>> import lstmx, numpy as np
        >>> lstmx.LastStep()(np.arange(12).reshape(2, 3, 2))[0].tolist()
        [[4.0, 5.0], [10.0, 11.0]]
    """

    batch_first = True
    dtype = None

    def __init__(self) -> None:
        self._configure()
        self._create(None)

    def _configure(self) -> None:
        """There is nothing to configure; `from_config` calls it with the constructor's arguments."""

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments (none), with the class under "type"."""
        return {"type": "LastStep"}

    def _stream_obstacle(self) -> str:
        return "LastStep(), which waits for the last step"

    def _output_shape(self, name: str, shape: Shape) -> Shape:
        if len(shape) != 3 or shape[1] == 0:
            raise ValueError(f"{name}: expected shape (B, T, F) with T at least 1, got {shape}")
        return (shape[0], shape[2])

    def _infer(self, x: FloatArray, state: None, spans: Spans | None) -> tuple[FloatArray, None]:
        if spans is None or spans.lengths is None:
            return x[:, -1], None
        rows, last = _last_steps(spans.lengths)
        y = np.zeros((x.shape[0], x.shape[2]), x.dtype)
        y[rows] = x[rows, last]
        return y, None

    def _train(self, x: FloatArray, state: None, spans: Spans | None) -> tuple[FloatArray, None, Backward]:
        y, _ = self._infer(x, state, spans)
        return y, None, _LastStepBackward(x, None if spans is None else spans.lengths)


def _last_steps(lengths: Lengths) -> tuple[NDArray[np.intp], Lengths]:
    """The rows that have steps, and the last step of each."""
    (rows,) = np.nonzero(lengths)
    return rows, lengths[rows] - 1


class _LastStepBackward(Backward):
    __slots__ = ("_dtype", "_lengths", "_shape")

    def __init__(self, x: FloatArray, lengths: Lengths | None) -> None:
        super().__init__()
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
        if self._lengths is None:
            dx[:, -1] = dy
        else:
            rows, last = _last_steps(self._lengths)
            dx[rows, last] = dy[rows]
        return dx, None
