"""The activation functions of the cells, those of ONNX's recurrent operators, and softmax, a layer's alone.

Each has its derivative in terms of the activated value alone: nothing else is kept for backward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lstmx.reference._arrays import Array, as_float64, float64


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), accurate in both tails and free of overflow.

    >>> [float(s) for s in sigmoid(np.array([-1000.0, 0.0, 1000.0]))]
    [0.0, 0.5, 1.0]
    """
    return np.exp(-np.logaddexp(0.0, -x))


def softmax(x: ArrayLike) -> Array:
    """Return exp(x) / sum(exp(x)), the sum over the last axis: positive numbers whose sum is 1.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Softmax.html.

    Args:
        x: [..., F].

    Returns:
        [..., F].

    Raises:
        TypeError: x does not hold real numbers.

    Example:
        >>> softmax([[1000.0, 1000.0, -1000.0]]).tolist()
        [[0.5, 0.5, 0.0]]
    """
    x = as_float64("x", x)
    exps = np.exp(x - x.max(axis=-1, keepdims=True, initial=-np.inf))  # so that exp cannot overflow
    y: Array = exps / exps.sum(axis=-1, keepdims=True)
    return y


def softmax_backward(y: ArrayLike, dy: ArrayLike) -> Array:
    """Return the gradient of a scalar by x, [..., F], given its gradient by y = softmax(x).

    Args:
        y: What `softmax` returned, [..., F].
        dy: [..., F].

    Raises:
        TypeError: An argument does not hold real numbers.
        ValueError: A shape does not fit the other.

    Example:
        >>> softmax_backward([0.5, 0.5], [1.0, 0.0]).tolist()
        [0.25, -0.25]
    """
    y = as_float64("y", y)
    dy = float64("dy", dy, y.shape)
    dx: Array = y * (dy - (y * dy).sum(axis=-1, keepdims=True))
    return dx


class _Rule(NamedTuple):
    """y = value(x, alpha, beta), dy/dx = slope(y, alpha, beta), and the defaults; None: not a parameter."""

    value: Callable[[Array, float, float], Array]
    slope: Callable[[Array, float, float], Array]
    alpha: float | None = None
    beta: float | None = None


_RULES = {
    "sigmoid": _Rule(lambda x, _, __: sigmoid(x), lambda y, _, __: y * (1.0 - y)),
    "tanh": _Rule(lambda x, _, __: np.tanh(x), lambda y, _, __: 1.0 - y * y),
    "relu": _Rule(lambda x, _, __: np.maximum(x, 0.0), lambda y, _, __: np.where(y > 0.0, 1.0, 0.0)),
    "hard_sigmoid": _Rule(
        lambda x, alpha, beta: np.minimum(np.maximum(alpha * x + beta, 0.0), 1.0),
        lambda y, alpha, _: np.where((y > 0.0) & (y < 1.0), alpha, 0.0),
        alpha=0.2,
        beta=0.5,
    ),
    "affine": _Rule(
        lambda x, alpha, beta: alpha * x + beta,
        lambda y, alpha, _: alpha * np.ones(y.shape),
        alpha=1.0,
        beta=0.0,
    ),
    "leaky_relu": _Rule(
        lambda x, alpha, _: np.where(x > 0.0, x, alpha * x),
        lambda y, alpha, _: np.where(y > 0.0, 1.0, alpha),
        alpha=0.01,
    ),
    "thresholded_relu": _Rule(
        lambda x, alpha, _: np.where(x > alpha, x, 0.0),
        lambda y, _, __: np.where(y > 0.0, 1.0, 0.0),
        alpha=1.0,
    ),
    "scaled_tanh": _Rule(
        lambda x, alpha, beta: alpha * np.tanh(beta * x),
        lambda y, alpha, beta: beta * (alpha - y * y / alpha),
        alpha=1.0,
        beta=1.0,
    ),
    "elu": _Rule(
        lambda x, alpha, _: np.where(x > 0.0, x, alpha * np.expm1(np.minimum(x, 0.0))),
        lambda y, alpha, _: np.where(y > 0.0, 1.0, y + alpha),
        alpha=1.0,
    ),
    "softsign": _Rule(
        lambda x, _, __: x / (1.0 + np.absolute(x)),
        lambda y, _, __: (1.0 - np.absolute(y)) * (1.0 - np.absolute(y)),
    ),
    "softplus": _Rule(
        lambda x, _, __: np.maximum(x, 0.0) + np.log1p(np.exp(-np.absolute(x))),
        lambda y, _, __: -np.expm1(-y),
    ),
}
ACTIVATIONS = tuple(_RULES)
"""The names that `Activation` knows."""


@dataclass(frozen=True)
class Activation:
    """An activation function: https://onnx.ai/onnx/operators/onnx__LSTM.html lists the formulas.

    Attributes:
        name: One of `ACTIVATIONS`. "affine" is the identity unless alpha or beta say otherwise.
        alpha: None is ONNX's default, 1 where it has none. Keras 3's "hard_sigmoid" has alpha 1/6. It is no
            less than 0 for the relus and elu, and greater than 0 for hard_sigmoid and scaled_tanh: otherwise
            the derivative would not follow from the activated value.
        beta: As alpha; that of affine is 0.

    Raises:
        ValueError: The name is unknown, the function has no such parameter, or alpha is out of range.

    Example:
        >>> keras = Activation("hard_sigmoid", alpha=1 / 6)
        >>> keras(np.array([-9.0, 0.0, 1.5, 9.0])).tolist()
        [0.0, 0.5, 0.75, 1.0]
    """

    name: str
    alpha: float | None = None
    beta: float | None = None

    def __post_init__(self) -> None:
        if self.name not in _RULES:
            raise ValueError(f"activation: expected one of {', '.join(_RULES)}, got {self.name!r}")
        rule = _RULES[self.name]
        for parameter in ("alpha", "beta"):
            default, given = getattr(rule, parameter), getattr(self, parameter)
            if default is None and given is not None:
                raise ValueError(f"{parameter}: expected none for {self.name}, got {given}")
            if given is None:
                object.__setattr__(self, parameter, default)
        least = {"hard_sigmoid": np.nextafter(0, 1), "scaled_tanh": np.nextafter(0, 1), "affine": -np.inf}
        if self.alpha is not None and not self.alpha >= least.get(self.name, 0.0):
            sign = ">" if self.name in least else ">="
            raise ValueError(f"alpha: expected a number {sign} 0 for {self.name}, got {self.alpha}")

    @classmethod
    def of(cls, activation: str | Activation) -> Activation:
        """The activation of that name; one that is one already stays."""
        return cls(activation) if isinstance(activation, str) else activation

    def __call__(self, x: Array) -> Array:
        """The function at x."""
        return _RULES[self.name].value(x, *self._parameters)

    def slope(self, y: Array) -> Array:
        """Its derivative where its value is y; 0 where it is flat, at a corner the side of lower slope.

        >>> Activation("tanh").slope(np.tanh(np.array([0.0]))).tolist()
        [1.0]
        """
        return _RULES[self.name].slope(y, *self._parameters)

    @property
    def _parameters(self) -> tuple[float, float]:
        return 0.0 if self.alpha is None else self.alpha, 0.0 if self.beta is None else self.beta
