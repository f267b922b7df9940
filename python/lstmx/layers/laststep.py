"""LastStep: from a batch of sequences to their last time step, for models that answer once a sequence.

Batch-first only, as trainers and data sets are; it copies nothing forward.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lstmx._checks import FloatArray
from lstmx.layers.arena import Shape
from lstmx.layers.module import Backward, Module, as_float32


class LastStep(Module):
    """`y = x[:, -1]`: `[B, T, F]` to `[B, F]`.

    Call: `y, None = layer(x)`; y is a view of x.

    Raises:
        ValueError: x has no axis of time or no time step.

    Example:
        >>> import lstmx, numpy as np
        >>> lstmx.LastStep()(np.arange(12).reshape(2, 3, 2))[0].tolist()
        [[4.0, 5.0], [10.0, 11.0]]
    """

    batch_first = True

    def __init__(self) -> None:
        self._configure()
        self._allocate()

    def _configure(self) -> None:
        """There is nothing to configure; `from_config` calls it with the constructor's arguments."""

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments (none), with the class under "type"."""
        return {"type": "LastStep"}

    def _output_shape(self, name: str, shape: Shape) -> Shape:
        if len(shape) != 3 or shape[1] == 0:
            raise ValueError(f"{name}: expected shape (B, T, F) with T at least 1, got {shape}")
        return (shape[0], shape[2])

    def _infer(self, x: FloatArray, state: None) -> tuple[FloatArray, None]:
        return x[:, -1], None

    def _train(self, x: FloatArray, state: None) -> tuple[FloatArray, None, Backward]:
        return x[:, -1], None, _LastStepBackward(x.shape)


class _LastStepBackward(Backward):
    __slots__ = ("_shape",)

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self._shape = shape

    def _check_dy(self, name: str, dy: Any) -> FloatArray:
        return as_float32(name, dy, (self._shape[0], self._shape[2]))

    def _run(
        self, dy: FloatArray | None, dstate: None, need_dx: bool, need_dstate: bool
    ) -> tuple[FloatArray | None, None]:
        self._take()
        if not need_dx:
            return None, None
        dx = np.zeros(self._shape, np.float32)
        dx[:, -1] = dy
        return dx, None
