"""Activation and Softmax: what stands between linear layers and behind them, functions without parameters.

The formulas are those of `lstmx.reference`, computed in float64 in blocks of rows. Every step stands alone,
in training and inference alike, and backward needs y only. The activations inside the cells are the kernels'.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from lstmx._checks import FloatArray, check_choice, check_float
from lstmx._inputs import Spans
from lstmx.layers.arena import Shape
from lstmx.layers.blocks import DoubleArray, map_rows
from lstmx.layers.module import Backward, Module, SameShapeBackward


class _Function(Module):
    """Base of both."""

    dtype = None

    @abstractmethod
    def _value(self, x: DoubleArray) -> DoubleArray:
        """Return y for rows x, `[n, F]` each."""

    @abstractmethod
    def _gradient(self, y: DoubleArray, dy: DoubleArray) -> DoubleArray:
        """Return dx for rows y and dy, `[n, F]` each."""

    def _output_shape(self, name: str, shape: Shape) -> Shape:
        if not shape:
            raise ValueError(f"{name}: expected shape (..., F), got ()")
        return shape

    def _infer(self, x: FloatArray, state: None, spans: Spans | None) -> tuple[FloatArray, None]:
        return map_rows(self._value, x), None

    def _train(self, x: FloatArray, state: None, spans: Spans | None) -> tuple[FloatArray, None, Backward]:
        y = map_rows(self._value, x)
        y.flags.writeable = False
        return y, None, _FunctionBackward(self, y)


class _FunctionBackward(SameShapeBackward):
    __slots__ = ("_layer",)

    def __init__(self, layer: _Function, y: FloatArray) -> None:
        super().__init__(y.shape, y.dtype, y)
        self._layer = layer

    def _run(
        self, dy: FloatArray | None, dstate: None, need_dx: bool, need_dstate: bool
    ) -> tuple[FloatArray | None, None]:
        assert dy is not None
        (y,) = self._take()
        return map_rows(self._layer._gradient, y, dy) if need_dx else None, None


class Activation(_Function):
    """`y = function(x)`, element by element.

    Args:
        function: One of `lstmx.reference.ACTIVATIONS`: "sigmoid", "tanh", "relu" (`max(x, 0)`),
            "hard_sigmoid" (`alpha * x + beta` between 0 and 1), "affine" (`alpha * x + beta`), "leaky_relu"
            (`alpha * x` below 0), "thresholded_relu" (x above alpha, else 0), "scaled_tanh" (`alpha *
            tanh(beta * x)`), "elu" (`alpha * (exp(x) - 1)` below 0), "softsign" (`x / (1 + |x|)`) or
            "softplus" (`log(1 + exp(x))`). For softmax see `Softmax`.
        alpha: None is ONNX's default: 0.2 of hard_sigmoid, 0.01 of leaky_relu, 1 of the others. PyTorch's and
            Keras 3's hard_sigmoid has alpha 1/6. It is no less than 0 for the relus and elu, and greater than
            0 for hard_sigmoid and scaled_tanh.
        beta: None is ONNX's default: 0.5 of hard_sigmoid, 0 of affine, 1 of scaled_tanh.

    Call: `y, None = layer(x)`, x and y of shape `[..., F]`. Where a function has a corner, its gradient is
    that of the side of lower slope.

    Source: https://onnx.ai/onnx/operators/onnx__LSTM.html lists the formulas.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: The function is unknown or has no such parameter, alpha is out of range, or x has no axis.

    Example:
        >>> import lstmx, numpy as np
        >>> lstmx.Activation("leaky_relu", 0.5)([[-2.0, 0.0, 2.0]])[0].tolist()
        [[-1.0, 0.0, 2.0]]
        >>> layers = lstmx.Linear(3, 8), lstmx.Activation("relu"), lstmx.Linear(8, 1)
        >>> y, _, backward = lstmx.Sequential(*layers).forward(np.ones((4, 3), np.float32))
        >>> backward(y)[0].shape
        (4, 3)
    """

    def __init__(self, function: str, alpha: float | None = None, beta: float | None = None) -> None:
        self._configure(function, alpha, beta)
        self._create(None)

    def _configure(self, function: Any, alpha: Any = None, beta: Any = None) -> None:
        from lstmx import reference  # which many models do without

        self.function = check_choice("function", function, reference.ACTIVATIONS)
        self.alpha = None if alpha is None else check_float("alpha", alpha)
        self.beta = None if beta is None else check_float("beta", beta)
        self._rule = reference.Activation(self.function, self.alpha, self.beta)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the class under "type"."""
        return {"type": "Activation", "function": self.function, "alpha": self.alpha, "beta": self.beta}

    def _value(self, x: DoubleArray) -> DoubleArray:
        return self._rule(x)

    def _gradient(self, y: DoubleArray, dy: DoubleArray) -> DoubleArray:
        return dy * self._rule.slope(y)


class Softmax(_Function):
    """`y = exp(x) / sum(exp(x))`, the sum over the last axis: probabilities of classes.

    A model that ends with it is for prediction. `lstmx.losses.CrossEntropy` takes the logits, the x of this
    layer, so that models are trained without it.

    Call: `y, None = layer(x)`, x and y of shape `[..., F]`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Softmax.html.

    Raises:
        ValueError: x has no axis.

    Example:
        >>> import lstmx
        >>> lstmx.Softmax()([[5.0, 5.0, -1000.0]])[0].tolist()
        [[0.5, 0.5, 0.0]]
    """

    def __init__(self) -> None:
        self._configure()
        self._create(None)

    def _configure(self) -> None:
        """It has no arguments."""

    def config(self) -> dict[str, Any]:
        """Return the class under "type"."""
        return {"type": "Softmax"}

    def _value(self, x: DoubleArray) -> DoubleArray:
        from lstmx import reference

        return reference.softmax(x)

    def _gradient(self, y: DoubleArray, dy: DoubleArray) -> DoubleArray:
        from lstmx import reference

        return reference.softmax_backward(y, dy)
