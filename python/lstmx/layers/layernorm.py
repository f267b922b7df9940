"""LayerNorm: each step's features brought to mean 0 and variance 1, then scaled and shifted by parameters.

Every step stands alone, in training and inference alike: no statistics of a batch, which `BatchNorm` takes,
and no axis of time. The arithmetic is `normalize`'s, in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lstmx._checks import FloatArray, check_float, check_int
from lstmx._inputs import FLOAT32, Spans, as_float32
from lstmx.layers.arena import Parameter, Shape
from lstmx.layers.module import Backward, Module
from lstmx.layers.normalize import Normalized, normalize, normalize_backward


class LayerNorm(Module):
    """`y = (x - mean) / sqrt(var + eps) * weight + bias`, with mean and variance of x's last axis.

    Args:
        normalized_shape: Width F of x, an integer. (PyTorch's name; several axes are not supported.)
        eps: What is added to the variance.

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

    def __init__(self, normalized_shape: int, eps: float = 1e-5) -> None:
        self._configure(normalized_shape, eps)
        self._create(None)

    def _configure(self, normalized_shape: Any, eps: Any = 1e-5) -> None:
        self.input_size = self.output_size = check_int("normalized_shape", normalized_shape, minimum=1)
        self.eps = check_float("eps", eps, minimum=0.0, exclusive=True)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the class under "type"."""
        return {"type": "LayerNorm", "normalized_shape": self.input_size, "eps": self.eps}

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
        y, normalized = self._compute(x)
        return y, None, _LayerNormBackward(self, x.shape, normalized)

    def _compute(self, x: FloatArray) -> tuple[FloatArray, Normalized]:
        # A copy in C order: the sum over a row has then one order, whatever rows lie beside it.
        rows = x.astype(np.float64, order="C").reshape(-1, self.input_size)
        normalized = normalize(rows, 1, self.eps)
        y = normalized.values * self._params["weight"]
        y += self._params["bias"]
        return y.astype(FLOAT32).reshape(x.shape), normalized


class _LayerNormBackward(Backward):
    __slots__ = ("_layer", "_shape")

    def __init__(self, layer: LayerNorm, shape: Shape, normalized: Normalized) -> None:
        super().__init__(normalized, layer.params["weight"].copy())
        self._layer = layer
        self._shape = shape

    def _check_dy(self, name: str, dy: Any) -> FloatArray:
        return as_float32(name, dy, self._shape)

    def _run(
        self, dy: FloatArray | None, dstate: None, need_dx: bool, need_dstate: bool
    ) -> tuple[FloatArray | None, None]:
        assert dy is not None
        normalized, weight = self._take()
        rows = dy.astype(np.float64, order="C").reshape(normalized.values.shape)
        grads = self._layer.grads
        grads["weight"] += (rows * normalized.values).sum(axis=0).astype(FLOAT32)
        grads["bias"] += rows.sum(axis=0).astype(FLOAT32)
        if not need_dx:
            return None, None
        rows *= weight
        return normalize_backward(rows, normalized, 1).astype(FLOAT32).reshape(self._shape), None
