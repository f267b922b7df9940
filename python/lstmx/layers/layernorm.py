"""LayerNorm: each step's features brought to mean 0 and variance 1, then scaled and shifted by parameters.

Every step stands alone, in training and inference alike: no statistics of a batch, which `BatchNorm` takes,
and no axis of time. Between x and y numbers are float64, in blocks of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lstmx._checks import FloatArray, check_float, check_int
from lstmx._inputs import Spans, check_dtype
from lstmx.layers.arena import Parameter, Shape
from lstmx.layers.blocks import DoubleArray, column_sums, row_blocks, row_sums
from lstmx.layers.module import Backward, Module, SameShapeBackward


class LayerNorm(Module):
    """`y = (x - mean) / sqrt(var + eps) * weight + bias`, with mean and variance of x's last axis.

    Args:
        normalized_shape: Width F of x, an integer. (PyTorch's name; several axes are not supported.)
        eps: What is added to the variance.
        dtype: Of parameters, x and y: "float32" or "float64".

    Parameters: `weight [F]`, at first 1, `bias [F]`, at first 0.

    Call: `y, None = layer(x)`, x and y of shape `[..., F]`.

    Source: Ba et al. 2016, "Layer Normalization";
    https://docs.pytorch.org/docs/stable/generated/torch.nn.LayerNorm.html.

    Raises:
        TypeError, ValueError: An argument is of the wrong kind or out of range.

    Example:
        >>> import lstmx
        >>> lstmx.LayerNorm(2)([[1.0, 5.0]])[0].round(4).tolist()
        [[-1.0, 1.0]]
    """

    input_size: int
    output_size: int
    dtype: np.dtype[Any]

    def __init__(self, normalized_shape: int, eps: float = 1e-5, *, dtype: str = "float32") -> None:
        self._configure(normalized_shape, eps, dtype=dtype)
        self._create(None)

    def _configure(self, normalized_shape: Any, eps: Any = 1e-5, *, dtype: Any = "float32") -> None:
        self.input_size = self.output_size = check_int("normalized_shape", normalized_shape, minimum=1)
        self.eps = check_float("eps", eps, minimum=0.0, exclusive=True)
        self.dtype = check_dtype("dtype", dtype)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the class under "type"."""
        return {
            "type": "LayerNorm",
            "normalized_shape": self.input_size,
            "eps": self.eps,
            "dtype": self.dtype.name,
        }

    def _parameters(self) -> Iterator[Parameter]:
        yield Parameter("weight", (self.input_size,), True)  # decay towards 0 makes no sense of a scale
        yield Parameter("bias", (self.input_size,), True)

    def _initialise(self, rng: np.random.Generator) -> None:
        with self.editing() as params:
            params["weight"][...] = 1

    def _output_shape(self, name: str, shape: Shape) -> Shape:
        if not shape or shape[-1] != self.input_size:
            raise ValueError(f"{name}: expected shape (..., {self.input_size}), got {shape}")
        return shape

    def _infer(self, x: FloatArray, state: None, spans: Spans | None) -> tuple[FloatArray, None]:
        return self._compute(x)[0], None

    def _train(self, x: FloatArray, state: None, spans: Spans | None) -> tuple[FloatArray, None, Backward]:
        y, statistics = self._compute(x)
        return y, None, _LayerNormBackward(self, x, *statistics)

    def _compute(self, x: FloatArray) -> tuple[FloatArray, tuple[DoubleArray, DoubleArray]]:
        """Return y, and the mean of each row [N,1] with the factor that made its variance 1 [N,1]."""
        width = self.input_size
        rows = np.ascontiguousarray(x).reshape(-1, width)
        y = np.empty(rows.shape, rows.dtype)
        mean, scale = np.empty((2, len(rows), 1))
        for part in row_blocks(rows):
            values = rows[part].astype(np.float64)
            # 1. mean 0
            mean[part] = row_sums(values) / width
            values -= mean[part]
            # 2. variance 1
            var = row_sums(values, values) / width
            scale[part] = 1.0 / np.sqrt(var + self.eps)
            values *= scale[part]
            # 3. scaled and shifted
            values *= self._params["weight"]
            values += self._params["bias"]
            y[part] = values
        return y.reshape(x.shape), (mean, scale)


class _LayerNormBackward(SameShapeBackward):
    __slots__ = ("_layer",)

    def __init__(self, layer: LayerNorm, x: FloatArray, mean: DoubleArray, scale: DoubleArray) -> None:
        super().__init__(x.shape, layer.dtype, x, mean, scale, layer.params["weight"].copy())
        self._layer = layer

    def _run(
        self, dy: FloatArray | None, dstate: None, need_dx: bool, need_dstate: bool
    ) -> tuple[FloatArray | None, None]:
        assert dy is not None
        x, mean, scale, weight = self._take()
        width = self._layer.input_size
        rows, d_rows = (np.ascontiguousarray(array).reshape(-1, width) for array in (x, dy))
        dx = np.empty(rows.shape, rows.dtype) if need_dx else None
        d_weight, d_bias = np.zeros((2, width))
        for part in row_blocks(rows):
            values, d_values = (array[part].astype(np.float64) for array in (rows, d_rows))
            # 3. scaled and shifted; the scale of the values is taken once, into their gradient
            d_bias += column_sums(d_values)
            values -= mean[part]
            d_values *= scale[part]
            d_weight += column_sums(d_values, values)
            if dx is None:
                continue
            d_values *= weight
            # 2. variance 1, 1. mean 0: what each element moves through its row's statistics
            values *= row_sums(d_values, values) * np.square(scale[part]) / width
            values += row_sums(d_values) / width
            d_values -= values
            dx[part] = d_values
        grads = self._layer.grads
        grads["weight"] += d_weight.astype(rows.dtype)
        grads["bias"] += d_bias.astype(rows.dtype)
        return (None if dx is None else dx.reshape(self._shape)), None
