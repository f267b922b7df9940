"""The linear layer y = x weight' + bias, forward and backward."""

from __future__ import annotations

from typing import NamedTuple

from numpy.typing import ArrayLike

from lstmx.reference._arrays import Array, float64, float64_or_zeros


class LinearGradients(NamedTuple):
    """The gradients of a linear layer, each of the shape of what it belongs to."""

    dx: Array
    d_weight: Array
    d_bias: Array


def linear_forward(x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None) -> Array:
    """Return x weight' + bias: https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear.html.

    Args:
        x: Input, [N, in].
        weight: [out, in].
        bias: [out]; None is zero.

    Returns:
        [N, out].

    Raises:
        TypeError: An argument does not hold real numbers.
        ValueError: A shape does not fit the others.

    Example:
        >>> linear_forward([[1.0, 2.0]], [[3.0, 4.0]], [0.5]).tolist()
        [[11.5]]
    """
    x = float64("x", x, (None, None))
    weight = float64("weight", weight, (None, x.shape[1]))
    return x @ weight.T + float64_or_zeros("bias", bias, (weight.shape[0],))


def linear_backward(x: ArrayLike, weight: ArrayLike, dy: ArrayLike) -> LinearGradients:
    """Return the gradients of a scalar by x, weight and bias, given its gradient by y.

    Args:
        x: The input of the forward pass, [N, in].
        weight: The weights of the forward pass, [out, in].
        dy: [N, out].

    Raises:
        TypeError: An argument does not hold real numbers.
        ValueError: A shape does not fit the others.

    Example:
        >>> linear_backward([[1.0, 2.0]], [[3.0, 4.0]], [[1.0]]).dx.tolist()
        [[3.0, 4.0]]
    """
    x = float64("x", x, (None, None))
    weight = float64("weight", weight, (None, x.shape[1]))
    dy = float64("dy", dy, (x.shape[0], weight.shape[0]))
    return LinearGradients(dx=dy @ weight, d_weight=dy.T @ x, d_bias=dy.sum(axis=0))
