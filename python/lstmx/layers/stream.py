"""Stream: a model's inference step by step, or chunk by chunk, with the state carried in between.

A stream computes nothing itself: it holds the state and calls its model, so that its outputs are those of one
call over the whole sequence, bit for bit. A data set of long series is `lstmx.data.Stream`, another thing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lstmx._checks import FloatArray, check_int, check_shape

if TYPE_CHECKING:
    from lstmx.layers.module import Module


class Stream:
    """What `model.stream(batch_size)` returns: B sequences that advance together, from where sequences start.

    Args:
        model: The model. It is used, not copied: parameters that change later count from the next step on.
        batch_size: The number of sequences, B.

    Outputs are bit for bit those of one call of the model over the whole sequence, however it is cut into
    steps and chunks. A stream belongs to one thread at a time; many streams of one model may run at once.

    Raises:
        TypeError: `batch_size` is not an integer.
        ValueError: It is below 1, or a layer's output depends on later steps: a bidirectional LSTM, LastStep.

    Example:
        >>> import lstmx, numpy as np
        >>> model = lstmx.Sequential(lstmx.LSTM(3, 8, rng=0), lstmx.Linear(8, 2, rng=1))
        >>> x = np.random.default_rng(2).standard_normal((6, 4, 3), np.float32)
        >>> stream = model.stream(4)
        >>> first, rest = stream.step(x[0]), stream.run(x[1:])
        >>> bool((np.concatenate([first[None], rest]) == model(x)[0]).all())
        True
        >>> stream.reset([1])  # row 1 begins anew
        >>> stream.step(x[0]).shape
        (4, 2)
        >>> model.stream(4)
        Sequential(LSTM(3, 8), Linear(8, 2)).stream(4)
    """

    def __init__(self, model: Module, batch_size: int) -> None:
        self.batch_size = check_int("batch_size", batch_size, minimum=1)
        obstacle = model._stream_obstacle()
        if obstacle is not None:
            raise ValueError(f"stream: expected layers that need no later step, got {obstacle}")
        self._model = model
        width = () if model._reads_integers else (model.input_size,)
        # The shape of a step; equal to none where any width will do.
        self._shape: tuple[int | None, ...] = (self.batch_size, *width)
        if model.batch_first:
            self._chunk_shape: tuple[int | None, ...] = (self.batch_size, None, *width)
            self._as_chunk: Any = (slice(None), None)
            self._as_step: Any = (slice(None), 0)
        else:
            self._chunk_shape = (None, self.batch_size, *width)
            self._as_chunk, self._as_step = None, 0
        self._state: Any = None

    def step(self, x_t: Any) -> FloatArray:
        """Advance by one step.

        Args:
            x_t: Input of the step, [B, F]; of a model that begins with an `Embedding`, integers [B].

        Returns:
            Output of the step, [B, out].

        Raises:
            TypeError: `x_t` does not hold real numbers, or integers.
            ValueError: Its shape differs. The stream has not moved.
        """
        model = self._model
        x = model._as_x("x_t", x_t)
        if x.shape != self._shape:
            check_shape("x_t", x.shape, self._shape)
        y, self._state = model._infer(x[self._as_chunk], self._state, None)
        return y[self._as_step]  # type: ignore[no-any-return]

    def run(self, x_chunk: Any) -> FloatArray:
        """Advance by any number of steps.

        Args:
            x_chunk: Input in the model's own layout: [B, T, F] if it is batch-first, otherwise (also where
                no layer reads time) [T, B, F]; of integers without the axis F.

        Returns:
            Output in the same layout.

        Raises:
            TypeError: `x_chunk` does not hold real numbers, or integers.
            ValueError: Its shape differs. The stream has not moved.
        """
        x = self._model._as_x("x_chunk", x_chunk)
        check_shape("x_chunk", x.shape, self._chunk_shape)
        y, self._state = self._model._infer(x, self._state, None)
        return y

    def reset(self, rows: Any = None) -> None:
        """Set the state back to that of a start (zeros, if it is not learnt), of all rows or of those given.

        Args:
            rows: An integer from 0 to B - 1, several of them, or a mask, bool [B]. None: all rows.

        Raises:
            TypeError: `rows` are neither integers nor a mask.
            ValueError: A row is out of range or the mask not of B items. Nothing was reset.
        """
        if rows is None:
            self._state = None
            return
        index = _check_rows(rows, self.batch_size)
        if (
            self._state is not None
        ):  # whose arrays are the stream's own: models return their final states anew
            self._model._restart(self._state, index)

    def fork(self) -> Stream:
        """Return another stream of the same model, which goes on from the same state by itself."""
        twin = Stream(self._model, self.batch_size)
        twin._state = self.state
        return twin

    @property
    def state(self) -> Any:
        """A copy of the state, as the model returns it; None, the start of a sequence, before the first step.

        Setting it (also to None) restores a state that was saved; the stream keeps a copy.

        Raises:
            TypeError, ValueError: When set: not a state of this model for B rows. The stream is unchanged.
        """
        return _map_state(np.copy, self._state)

    @state.setter
    def state(self, value: Any) -> None:
        model = self._model
        if value is not None:
            shape = tuple([1 if extent is None else extent for extent in self._chunk_shape])
            value = model._check_state("state", value, shape)
        self._state = _map_state(np.copy, value)

    def __repr__(self) -> str:
        return f"{self._model!r}.stream({self.batch_size})"


def _map_state(function: Callable[[FloatArray], FloatArray], state: Any) -> Any:
    """Return a state with `function` applied to every array of it."""
    if state is None:
        return None
    if isinstance(state, tuple):
        return tuple([_map_state(function, item) for item in state])
    return function(state)


def _check_rows(rows: Any, batch_size: int) -> NDArray[Any]:
    try:
        index = np.asarray(rows)
    except ValueError as error:
        raise TypeError(f"rows: expected integers or a mask, got {type(rows).__name__} ({error})") from None
    if index.dtype == np.bool_:
        if index.shape != (batch_size,):
            raise ValueError(f"rows: expected a mask of shape ({batch_size},), got {index.shape}")
        return index
    if index.size == 0:
        return index.astype(np.intp)
    if index.dtype.kind not in "iu":
        raise TypeError(f"rows: expected integers or a mask, got dtype {index.dtype}")
    wrong = (index < 0) | (index >= batch_size)
    if wrong.any():
        raise ValueError(f"rows: expected 0 to {batch_size - 1}, got {index[wrong][0]}")
    return index
