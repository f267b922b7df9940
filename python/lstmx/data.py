"""Data sets: series cut into batches for training, without copying them.

- `Stream`: one long series read in parallel rows, each batch continuing the one before (truncated BPTT).
- `Windows`: the windows of a series, each with what follows it (forecasting).
- `Arrays`: examples that lie in arrays already.

A data set is an iterable of `Batch`, one pass an epoch, with `len()`, a flag `stateful` (the state of a batch
is that of the batch before) and `rngs()`, the generators whose state a checkpoint keeps. All is batch-first:
`[B, T, features]`. Batches are read-only views of the series wherever their rows lie in regular steps; a
shuffled batch is a copy of that batch. Not here: reading files, scaling, splitting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import ArrayLike, NDArray

from lstmx._checks import FloatArray, check_array, check_bool, check_int

Array: TypeAlias = NDArray[Any]
RngLike: TypeAlias = (
    int | Sequence[int] | np.random.Generator | np.random.BitGenerator | np.random.SeedSequence | None
)


class Batch(NamedTuple):
    """What one training step reads.

    Attributes:
        x: `[B, ...]`, the model's input: float32, or integers, as for an `Embedding`.
        y: `[B, ...]`, the loss's target: float32, or integers where they are classes. None for prediction
            only.
        weights: Weights of the target's elements, for the loss; None means 1.
        mask: Which of the target's elements count, for the loss; None means all.
    """

    x: Array
    y: Array | None = None
    weights: FloatArray | None = None
    mask: NDArray[np.bool_] | None = None


class Dataset(Protocol):
    """What `lstmx.Trainer` needs of a data set.

    One that shuffles may also have a method `in_order()`: an iterator over the same batches unshuffled, for
    evaluation and prediction.
    """

    @property
    def stateful(self) -> bool:
        """Whether row i of a batch continues row i of the batch before, so that the state is carried over."""
        ...

    def __len__(self) -> int:
        """The number of batches in a pass."""
        ...

    def __iter__(self) -> Iterator[Batch]:
        """One pass over the data."""
        ...

    def rngs(self) -> list[np.random.Generator]:
        """The generators that a pass draws from; a checkpoint keeps their state."""
        ...


class Stream:
    """A long series read in parallel rows, for truncated backpropagation through time.

    Row r of batch n holds the steps `r * row_offset + n * steps` onwards, so that row i of a batch continues
    row i of the batch before: the trainer carries the state from batch to batch (without gradient) and resets
    it at the start of an epoch. By default the series is cut into `batch_size` equal parts, one a row; up to
    `batch_size - 1` steps at its end that fill no row are left out. Where the steps of a row are no multiple
    of `steps`, the last batch is shorter in time.

    Args:
        x: Inputs over time, `[N, features]`, or `[N]` for one feature.
        y: Targets over time, `[N, ...]`; `[N]` numbers give `[B, T, 1]`, `[N]` integers classes `[B, T]`.
        steps: T, the steps of a batch, through which gradients flow.
        batch_size: B, the number of rows.
        row_offset: How many steps after row r the row r + 1 starts; rows may overlap. Default: `N //
            batch_size`.
        weights: `[N, ...]` weights of the targets, for the loss.
        mask: `[N, ...]` booleans: which targets count.

    Raises:
        TypeError: x or y does not hold real numbers, or a size is no integer.
        ValueError: Lengths differ, a size is below 1, or the series is too short for one batch.

    The batches are views: they show what is later written into `x` and `y`. (An input of another type than
    float32 is converted, once.)

    Example:
        >>> t = np.arange(12, dtype=np.float32)
        >>> stream = Stream(t, t + 0.5, steps=3, batch_size=2)
        >>> [batch.x[:, :, 0].tolist() for batch in stream]
        [[[0.0, 1.0, 2.0], [6.0, 7.0, 8.0]], [[3.0, 4.0, 5.0], [9.0, 10.0, 11.0]]]
    """

    stateful = True

    def __init__(
        self,
        x: ArrayLike,
        y: ArrayLike,
        steps: int,
        batch_size: int,
        *,
        row_offset: int | None = None,
        weights: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> None:
        series = _series("x", x)
        count = len(series)
        target = _target("y", y, count)
        self.steps = check_int("steps", steps, minimum=1)
        self.batch_size = check_int("batch_size", batch_size, minimum=1)
        if row_offset is None:
            self.row_offset = count // self.batch_size
            row_length = self.row_offset
        else:
            self.row_offset = check_int("row_offset", row_offset, minimum=1)
            row_length = count - (self.batch_size - 1) * self.row_offset
        if row_length < 1:
            raise ValueError(
                f"x: expected at least {self.batch_size} rows of 1 step, got {count} steps for batch_size="
                f"{self.batch_size}, row_offset={self.row_offset}"
            )
        self._row_length = row_length
        self._fields = Batch(series, target, _weights(weights, count), _mask(mask, count))

    def __len__(self) -> int:
        return -(-self._row_length // self.steps)

    def __iter__(self) -> Iterator[Batch]:
        rows = _each(self._rows, self._fields)
        for start in range(0, self._row_length, self.steps):
            stop = start + self.steps  # beyond the end, a slice is shorter
            yield _take(rows, (slice(None), slice(start, stop)))

    def rngs(self) -> list[np.random.Generator]:
        """None: a stream is read in order."""
        return []

    def _rows(self, series: Array) -> Array:
        """The whole rows, [B, row length, ...], as a view."""
        return as_strided(
            series,
            shape=(self.batch_size, self._row_length, *series.shape[1:]),
            strides=(self.row_offset * series.strides[0], *series.strides),
            writeable=False,
        )

    def __repr__(self) -> str:
        return (
            f"Stream({_brief(self._fields.x)}, {_brief(self._fields.y)}, steps={self.steps}, "
            f"batch_size={self.batch_size}, row_offset={self.row_offset})"
        )


class _Examples:
    """What `Arrays` and `Windows` share: examples along the first axis, in order or shuffled, in batches.

    The last batch is kept where it is smaller.
    """

    stateful = False

    def __init__(self, fields: Batch, batch_size: int, shuffle: bool, rng: RngLike) -> None:
        self.batch_size = check_int("batch_size", batch_size, minimum=1)
        self.shuffle = check_bool("shuffle", shuffle)
        self._rng = np.random.default_rng(rng)
        self._fields = _each(_read_only, fields)

    @property
    def num_examples(self) -> int:
        """The number of examples, of which `batch_size` make a batch."""
        return len(self._fields.x)

    def __len__(self) -> int:
        return -(-self.num_examples // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return self._shuffled(self._rng.permutation(self.num_examples)) if self.shuffle else self.in_order()

    def in_order(self) -> Iterator[Batch]:
        """The same batches unshuffled; the generator is not drawn from."""
        for start in range(0, self.num_examples, self.batch_size):
            yield _take(self._fields, slice(start, start + self.batch_size))

    def _shuffled(self, order: NDArray[np.intp]) -> Iterator[Batch]:
        for start in range(0, len(order), self.batch_size):
            yield _take(self._fields, order[start : start + self.batch_size])

    def rngs(self) -> list[np.random.Generator]:
        """The generator of the shuffle, where there is one."""
        return [self._rng] if self.shuffle else []


class Arrays(_Examples):
    """Examples that lie in arrays along their first axis.

    Args:
        x: Inputs `[N, ...]`, such as `[N, T, features]`, or integers `[N, T]`, such as words.
        y: Targets `[N, ...]`, numbers or integer classes; None for prediction only.
        batch_size: Examples in a batch; the last batch may be smaller.
        shuffle: Whether each pass has an order of its own.
        rng: A seed or generator for the shuffle (`np.random.default_rng(rng)`).
        weights: `[N, ...]` weights of the targets, for the loss.
        mask: `[N, ...]` booleans: which targets count.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: Lengths differ or a size is below 1.

    Example:
        >>> data = Arrays(np.zeros((10, 5, 3)), np.zeros((10, 1)), batch_size=4)
        >>> [batch.x.shape for batch in data]
        [(4, 5, 3), (4, 5, 3), (2, 5, 3)]
    """

    def __init__(
        self,
        x: ArrayLike,
        y: ArrayLike | None = None,
        batch_size: int = 32,
        shuffle: bool = False,
        rng: RngLike = None,
        *,
        weights: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> None:
        inputs = _numbers_or_integers("x", x)
        if inputs.ndim == 0:
            raise ValueError("x: expected at least 1 dimension, got shape ()")
        count = len(inputs)
        target = None if y is None else _check_length("y", _numbers_or_integers("y", y), count)
        fields = Batch(inputs, target, _weights(weights, count), _mask(mask, count))
        super().__init__(fields, batch_size, shuffle, rng)

    def __repr__(self) -> str:
        return (
            f"Arrays({_brief(self._fields.x)}, {_brief(self._fields.y)}, batch_size={self.batch_size}, "
            f"shuffle={self.shuffle})"
        )


class Windows(_Examples):
    """All windows of a series, each with the values that follow it: x `[B, window, F]`, y `[B, horizon, K]`.

    Window i covers the steps `i * stride` to `i * stride + window - 1`; its target the `horizon` steps after
    that. Steps at the end that fill no whole window and horizon are left out.

    Args:
        series: Values over time, `[N, F]`, or `[N]` for one feature.
        window: The steps that the model sees.
        horizon: The steps that it is to tell.
        stride: Steps from one window to the next.
        batch_size: Windows in a batch; the last batch may be smaller.
        shuffle: Whether each pass has an order of its own.
        rng: A seed or generator for the shuffle (`np.random.default_rng(rng)`).
        targets: The features to be told, a column number or several; all of them by default.

    Raises:
        TypeError: `series` does not hold real numbers, or a size is no integer.
        ValueError: A size is below 1, the series is shorter than one window and horizon, or a target column
            does not exist.

    The batches are views: they show what is later written into `series`. (A series of another type than
    float32 is converted, once; a choice of columns is copied, once.) A shuffled batch is a copy of that
    batch.

    Example:
        >>> data = Windows(np.arange(10.0), window=4, horizon=2, batch_size=3)
        >>> x, y, *_ = next(iter(data))
        >>> x[:, :, 0].tolist()
        [[0.0, 1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 4.0, 5.0]]
        >>> y[:, :, 0].tolist()
        [[4.0, 5.0], [5.0, 6.0], [6.0, 7.0]]
    """

    def __init__(
        self,
        series: ArrayLike,
        window: int,
        horizon: int,
        stride: int = 1,
        batch_size: int = 32,
        shuffle: bool = False,
        rng: RngLike = None,
        targets: int | Sequence[int] | None = None,
    ) -> None:
        values = _series("series", series)
        self.window = check_int("window", window, minimum=1)
        self.horizon = check_int("horizon", horizon, minimum=1)
        self.stride = check_int("stride", stride, minimum=1)
        span = self.window + self.horizon
        if len(values) < span:
            raise ValueError(f"series: expected at least window + horizon = {span} steps, got {len(values)}")
        self.targets = None if targets is None else _columns(targets, values.shape[1])
        self._series = values
        super().__init__(self._cut(), batch_size, shuffle, rng)

    def _cut(self) -> Batch:
        values = self._series
        told = values if self.targets is None else _last_axis_contiguous(values[:, list(self.targets)])
        count = (len(values) - self.window - self.horizon) // self.stride + 1
        x = _windows(values, count, self.stride, self.window)
        return Batch(x, _windows(told[self.window :], count, self.stride, self.horizon))

    def __getstate__(self) -> dict[str, Any]:
        # The windows overlap: copied one by one they would take `window` times the memory of the series.
        return {key: value for key, value in self.__dict__.items() if key != "_fields"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._fields = self._cut()

    def __repr__(self) -> str:
        return (
            f"Windows({_brief(self._series)}, window={self.window}, horizon={self.horizon}, "
            f"stride={self.stride}, batch_size={self.batch_size}, shuffle={self.shuffle}, "
            f"targets={self.targets})"
        )


def check_rows_continue(dataset: Dataset, *, clock: int | None = None) -> None:
    """Check that row i of every batch continues row i of the batch before, in the inputs and in the targets.

    A state carried from batch to batch means something only then. For views of one series, as `Stream` gives
    them, the check looks at where the rows lie in memory: a row must start where the one before ended.
    Batches that are copies do not show where they came from; give the data set a feature that counts time,
    and its number as `clock`.

    Args:
        dataset: A data set with inputs `[B, T, features]`; one pass is read.
        clock: The feature of x that counts the steps in equal increments. Only it is looked at.

    Raises:
        ValueError: A row does not continue, with its number and the batch's; or batches differ in size; or
            they are copies and no `clock` is given.

    Example:
        >>> t = np.arange(12, dtype=np.float32)
        >>> check_rows_continue(Stream(t, t, steps=3, batch_size=2))
        >>> check_rows_continue(Arrays(t.reshape(4, 3, 1), batch_size=2))
        Traceback (most recent call last):
            ...
        ValueError: batch 1: row 0 of x does not continue row 0 of batch 0
    """
    before: Batch | None = None
    increment = 0.0
    for number, batch in enumerate(dataset):
        after = Batch(*batch)
        if after.x.ndim != 3:
            raise ValueError(f"batch {number}: expected x of shape (*, *, *), got {after.x.shape}")
        if before is not None:
            if len(after.x) != len(before.x):
                raise ValueError(
                    f"batch {number}: expected {len(before.x)} rows as before, got {len(after.x)}"
                )
            if clock is not None:
                _compare_clocks(number, before.x[:, :, clock], after.x[:, :, clock], increment)
            else:
                _compare_places(number, "x", before.x, after.x)
                if before.y is not None and after.y is not None and after.y.ndim >= 2:
                    _compare_places(number, "y", before.y, after.y)
        elif clock is not None:
            increment = _increment(after.x[:, :, check_int("clock", clock)])
        before = after


def _increment(times: FloatArray) -> float:
    """The time from one step to the next, seen in the first batch [B, T]."""
    if times.shape[1] < 2 or len(times) == 0:
        raise ValueError(f"clock: expected batches of at least 2 steps, got shape {times.shape}")
    increment = float(times[0, 1]) - float(times[0, 0])
    if increment == 0.0:
        raise ValueError("clock: expected a feature that counts the steps, got one that stands still")
    return increment


def _compare_clocks(number: int, before: FloatArray, after: FloatArray, increment: float) -> None:
    """Check that the times [B, T] of two batches, one after the other, go up in equal increments."""
    times = np.concatenate([before, after], axis=1).astype(np.float64)
    # A clock that runs in float32 fractions is uneven by its rounding.
    tolerance = 1e-3 * abs(increment) + 2 * np.finfo(np.float32).eps * np.abs(times).max(initial=0.0)
    uneven = ~(np.abs(np.diff(times, axis=1) - increment) <= tolerance).all(axis=1)
    for row in np.flatnonzero(uneven):
        last, first = times[row, before.shape[1] - 1 : before.shape[1] + 1]
        raise ValueError(
            f"batch {number}: row {row} does not continue row {row} of batch {number - 1}: "
            f"the clock goes from {last} to {first}, expected increments of {increment}"
        )


def _compare_places(number: int, name: str, before: Array, after: Array) -> None:
    if before.strides[1:] != after.strides[1:] or _owner(before) is not _owner(after):
        raise ValueError(
            f"batch {number}: {name} is no view of the series of batch {number - 1}, so that memory does "
            f"not tell whether rows continue; give clock=, the number of a feature that counts time"
        )
    for row in range(len(before)):
        expected = _address(before[row]) + before.shape[1] * before.strides[1]
        if _address(after[row]) != expected:
            raise ValueError(
                f"batch {number}: row {row} of {name} does not continue row {row} of batch {number - 1}"
            )


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def _owner(array: Any) -> Any:
    while getattr(array, "base", None) is not None:
        array = array.base
    return array


def _series(name: str, value: ArrayLike) -> FloatArray:
    """`[N, F]` float32 with a contiguous last axis, from `[N, F]` or `[N]`."""
    array = check_array(name, value)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise ValueError(f"{name}: expected shape (N, features) or (N,), got {array.shape}")
    return _last_axis_contiguous(array)


def _target(name: str, value: ArrayLike, count: int) -> Array:
    array = _check_length(name, _numbers_or_integers(name, value), count)
    if array.ndim == 1 and array.dtype == np.float32:
        array = array[:, None]
    return _last_axis_contiguous(array)


def _numbers_or_integers(name: str, value: ArrayLike) -> Array:
    """Integers as they are, other real numbers as float32."""
    array = np.asarray(value)
    return array if array.dtype.kind in "iu" else check_array(name, value)


def _check_length(name: str, array: Array, count: int) -> Array:
    if array.ndim == 0 or len(array) != count:
        raise ValueError(f"{name}: expected length {count} as x, got shape {array.shape}")
    return array


def _weights(value: ArrayLike | None, count: int) -> FloatArray | None:
    return None if value is None else _check_length("weights", check_array("weights", value), count)


def _mask(value: ArrayLike | None, count: int) -> NDArray[np.bool_] | None:
    if value is None:
        return None
    array = np.asarray(value)
    if array.dtype != np.bool_:
        raise TypeError(f"mask: expected booleans, got dtype {array.dtype}")
    return _check_length("mask", array, count)


def _last_axis_contiguous(array: Array) -> Array:
    """What the kernels read without a copy: the elements of a time step side by side."""
    if array.strides[-1] == array.itemsize:
        return array
    if array.shape[-1] == 1 and array.ndim > 1:  # NumPy lets the stride of such an axis be anything
        strides = (*array.strides[:-1], array.itemsize)
        return as_strided(array, array.shape, strides, writeable=False)
    return np.ascontiguousarray(array)


def _windows(series: FloatArray, count: int, stride: int, length: int) -> FloatArray:
    return as_strided(
        series,
        shape=(count, length, series.shape[1]),
        strides=(stride * series.strides[0], *series.strides),
        writeable=False,
    )


def _columns(targets: int | Sequence[int], features: int) -> tuple[int, ...]:
    chosen = [targets] if np.ndim(targets) == 0 else list(targets)  # type: ignore[arg-type]
    if not chosen:
        raise ValueError("targets: expected at least one column, got none")
    columns = tuple(check_int("targets", column) for column in chosen)
    for column in columns:
        if not -features <= column < features:
            raise ValueError(f"targets: expected columns in 0 .. {features - 1}, got {column}")
    return tuple(column % features for column in columns)


def _each(function: Callable[[Array], Array], fields: Batch) -> Batch:
    """What `function` makes of those fields that are there."""
    x, y, weights, mask = fields
    return Batch(
        function(x),
        None if y is None else function(y),
        None if weights is None else function(weights),
        None if mask is None else function(mask),
    )


def _take(fields: Batch, index: Any) -> Batch:
    """Those fields that are there, indexed."""
    x, y, weights, mask = fields
    return Batch(
        x[index],
        None if y is None else y[index],
        None if weights is None else weights[index],
        None if mask is None else mask[index],
    )


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


def _brief(array: Array | None) -> str:
    return "None" if array is None else f"<{array.dtype} {array.shape}>"
