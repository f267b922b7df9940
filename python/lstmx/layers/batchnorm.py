"""BatchNorm: each feature brought to mean 0 and variance 1 over the batch, then scaled and shifted.

Training takes the statistics of its own batch and keeps running ones, as buffers, for inference. The
statistics of each step alone are `LayerNorm`'s. Between x and y numbers are float64, in blocks of rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lstmx._checks import FloatArray, check_bool, check_float, check_int
from lstmx._inputs import Spans, check_dtype, padded_steps
from lstmx.layers.arena import Parameter, Shape
from lstmx.layers.blocks import DoubleArray, column_sums, row_blocks, sum_rows
from lstmx.layers.module import Backward, Module, SameShapeBackward


class BatchNorm(Module):
    """`y = (x - mean) / sqrt(var + eps) * weight + bias`, with mean and variance of each feature of x.

    In `forward`, mean and variance are those of the batch: over its rows and, where there is time, its steps.
    They also move the running ones, `running += momentum * (batch - running)` (with the variance divided by n
    - 1 instead of n). Calling the layer (inference) uses the running ones, so that each step stands alone.

    Args:
        num_features: Width F of x.
        eps: What is added to the variance.
        momentum: The share of the latest batch in the running statistics, from 0 to 1.
        batch_first: Whether sequences are `[B, T, F]` instead of `[T, B, F]`, which `lengths` must know.
        dtype: Of parameters, statistics, x and y: "float32" or "float64".

    Parameters: `weight [F]`, at first 1, `bias [F]`, at first 0. Buffers: `running_mean [F]`, at first 0,
    `running_var [F]`, at first 1. (PyTorch's `num_batches_tracked` serves its momentum=None only: load its
    `state_dict` with strict=False.)

    Call: `y, None = layer(x, *, lengths=None)`, x and y of shape `[B, F]`, `[T, B, F]` or `[B, T, F]`. With
    `lengths`, integers `[B]` from 0 to T as `LSTM` takes them, steps beyond them do not count: x and dy are
    not read there, y and dx are 0. `resets` are taken, too, and change nothing here. A batch of a single step
    has no variance: y is the bias, and the running statistics stay.

    Source: Ioffe and Szegedy 2015, "Batch Normalization";
    https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm1d.html.

    Raises:
        TypeError, ValueError: An argument is of the wrong kind or out of range.

    Example:
        >>> import lstmx
        >>> layer = lstmx.BatchNorm(1, momentum=0.5)
        >>> y, _, backward = layer.forward([[1.0], [5.0]])
        >>> y.round(4).tolist(), layer.buffers["running_mean"].tolist()
        ([[-1.0], [1.0]], [1.5])
    """

    input_size: int
    output_size: int
    batch_first: bool
    dtype: np.dtype[Any]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        batch_first: bool = False,
        *,
        dtype: str = "float32",
    ) -> None:
        self._configure(num_features, eps, momentum, batch_first, dtype=dtype)
        self._create(None)

    def _configure(
        self,
        num_features: Any,
        eps: Any = 1e-5,
        momentum: Any = 0.1,
        batch_first: Any = False,
        *,
        dtype: Any = "float32",
    ) -> None:
        self.input_size = self.output_size = check_int("num_features", num_features, minimum=1)
        self.eps = check_float("eps", eps, minimum=0.0, exclusive=True)
        self.momentum = check_float("momentum", momentum, minimum=0.0, maximum=1.0)
        self.batch_first = check_bool("batch_first", batch_first)
        self.dtype = check_dtype("dtype", dtype)

    @property
    def num_features(self) -> int:
        """Width of x and y."""
        return self.input_size

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the class under "type"."""
        return {
            "type": "BatchNorm",
            "num_features": self.input_size,
            "eps": self.eps,
            "momentum": self.momentum,
            "batch_first": self.batch_first,
            "dtype": self.dtype.name,
        }

    def _parameters(self) -> Iterator[Parameter]:
        yield Parameter("weight", (self.input_size,), True)  # decay towards 0 makes no sense of a scale
        yield Parameter("bias", (self.input_size,), True)

    def _buffer_shapes(self) -> Iterator[tuple[str, Shape]]:
        yield "running_mean", (self.input_size,)
        yield "running_var", (self.input_size,)

    def _initialise(self, rng: np.random.Generator) -> None:
        with self.editing() as views:
            views["weight"][...] = 1
            views["running_var"][...] = 1

    def _output_shape(self, name: str, shape: Shape) -> Shape:
        if len(shape) not in (2, 3) or shape[-1] != self.input_size:
            width = self.input_size
            batched = f"(B, T, {width})" if self.batch_first else f"(T, B, {width})"
            raise ValueError(f"{name}: expected shape {batched} or (B, {width}), got {shape}")
        return shape

    # --- the two passes -------------------------------------------------------------------------------------

    def _infer(self, x: FloatArray, state: None, spans: Spans | None) -> tuple[FloatArray, None]:
        padded = padded_steps(spans, x.shape, self.batch_first)
        return _spread(self._apply(_counted(x, padded), *self._running()), padded, x.shape), None

    def _infer_taped(
        self, x: FloatArray, state: None, spans: Spans | None
    ) -> tuple[FloatArray, None, Backward]:
        padded = padded_steps(spans, x.shape, self.batch_first)
        rows, (mean, scale) = _counted(x, padded), self._running()
        y = _spread(self._apply(rows, mean, scale), padded, x.shape)
        return y, None, _BatchNormBackward(self, x.shape, True, rows, padded, mean, scale)

    def _train(self, x: FloatArray, state: None, spans: Spans | None) -> tuple[FloatArray, None, Backward]:
        padded = padded_steps(spans, x.shape, self.batch_first)
        rows = _counted(x, padded)
        count = len(rows)
        mean = sum_rows(column_sums, rows) / max(count, 1)
        var = sum_rows(lambda x: _products(x, x, mean), rows) / max(count, 1)
        scale = 1.0 / np.sqrt(var + self.eps)
        if count > 1:
            self._move("running_mean", mean)
            self._move("running_var", var * (count / (count - 1)))
        y = _spread(self._apply(rows, mean, scale), padded, x.shape)
        return y, None, _BatchNormBackward(self, x.shape, False, rows, padded, mean, scale)

    def _running(self) -> tuple[DoubleArray, DoubleArray]:
        """The running mean and one over the running deviation."""
        mean, var = (self._buffers[name].astype(np.float64) for name in ("running_mean", "running_var"))
        return mean, 1.0 / np.sqrt(var + self.eps)

    def _apply(self, rows: FloatArray, mean: DoubleArray, scale: DoubleArray) -> FloatArray:
        """Return y [N,F] for the statistics given."""
        y = np.empty(rows.shape, rows.dtype)
        factor = scale * self._params["weight"]
        bias = self._params["bias"] - mean * factor
        for part in row_blocks(rows):
            values = rows[part].astype(np.float64)
            values *= factor
            values += bias
            y[part] = values
        return y

    def _move(self, name: str, latest: DoubleArray) -> None:
        running = self._buffers[name]
        running[...] = running + self.momentum * (latest - running)


def _products(x: DoubleArray, other: DoubleArray, mean: DoubleArray) -> DoubleArray:
    """Return the sums over rows of x - mean, written over x, times `other`, which may be x."""
    x -= mean
    return column_sums(x, other)


def _counted(array: FloatArray, padded: NDArray[np.bool_] | None) -> FloatArray:
    """Return the steps of `array` that are no padding, [N,F]."""
    steps = np.ascontiguousarray(array) if padded is None else array[~padded]
    return steps.reshape(-1, array.shape[-1])


def _spread(rows: FloatArray, padded: NDArray[np.bool_] | None, shape: Shape) -> FloatArray:
    """Undo `_counted`: 0 where there is padding."""
    if padded is None:
        return rows.reshape(shape)
    array = np.zeros(shape, rows.dtype)
    array[~padded] = rows
    return array


class _BatchNormBackward(SameShapeBackward):
    """`fixed`: whether the statistics are constants, rather than those of x itself."""

    __slots__ = ("_fixed", "_layer")

    def __init__(self, layer: BatchNorm, shape: Shape, fixed: bool, *kept: Any) -> None:
        super().__init__(shape, layer.dtype, *kept, layer.params["weight"].copy())
        self._layer = layer
        self._fixed = fixed

    def _run(
        self, dy: FloatArray | None, dstate: None, need_dx: bool, need_dstate: bool
    ) -> tuple[FloatArray | None, None]:
        assert dy is not None
        rows, padded, mean, scale, weight = self._take()
        d_rows = _counted(dy, padded)
        d_weight = sum_rows(lambda x, dy: _products(x, dy, mean), rows, d_rows) * scale
        d_bias = sum_rows(column_sums, d_rows)
        grads = self._layer.grads
        grads["weight"] += d_weight.astype(rows.dtype)
        grads["bias"] += d_bias.astype(rows.dtype)
        if not need_dx:
            return None, None
        # What each element moves through the statistics of its feature, before the common factor.
        count = math.inf if self._fixed else max(len(rows), 1)
        through_mean, through_var = d_bias / count, scale * d_weight / count
        factor = scale * weight
        through_mean = (through_mean - mean * through_var) * factor
        through_var *= factor
        dx = np.empty(rows.shape, rows.dtype)
        for part in row_blocks(rows):
            values, d_values = (array[part].astype(np.float64) for array in (rows, d_rows))
            d_values *= factor
            values *= through_var
            values += through_mean
            d_values -= values
            dx[part] = d_values
        return _spread(dx, padded, self._shape), None
