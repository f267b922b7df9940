"""Arrays that carry, for each element, the size of its rounding error through the reference.

Running error analysis (Wilkinson; Higham, "Accuracy and Stability of Numerical Algorithms", section 3.3),
done by NumPy's own dispatch: a `Bounded` goes through `lstmx.reference` like an array, so that outputs and
all gradients come out with an error for each element, and no formula is written twice.

Errors are counted in eps, that of float32 or of float64, to first order, and combined in quadrature, as
independent errors are: added up as if all had the worst sign, they would grow without bound over the steps of
a recurrence, where real ones do not, and no longer tell a wrong result from a right one. What each operation
adds, u = eps / 2 being the largest relative error of one rounding:

- sum, difference, product, quotient, root: u of the result. A choice (where, maximum) and a size add
  nothing; a comparison compares the values.
- a sum of n products: sqrt(n) u of the sum of absolute products, which is the standard deviation that n
  roundings of the worst kind of data, terms of one sign, stay below (Higham and Mary 2019).
- sigmoid, tanh and the like: 4 eps of the result, the accuracy that the kernels promise (4 ulp).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EPS = float(np.finfo(np.float32).eps)
ROUNDING = 0.5
ACTIVATION = 4.0

_HANDLERS = {}


def _handles(*functions):
    def register(handler):
        _HANDLERS.update(dict.fromkeys(functions, handler))
        return handler

    return register


class Bounded(np.lib.mixins.NDArrayOperatorsMixin):
    """float64 values, and for each of them the error of its counterpart in the kernel, in eps."""

    def __init__(self, value, error=None):
        self.value = np.asarray(value, np.float64)
        self.error = np.zeros_like(self.value) if error is None else error
        assert self.value.shape == self.error.shape

    shape = property(lambda self: self.value.shape)
    ndim = property(lambda self: self.value.ndim)
    T = property(lambda self: Bounded(self.value.T, self.error.T))

    def __getitem__(self, index):
        return Bounded(self.value[index], self.error[index])

    def reshape(self, *shape):
        return Bounded(self.value.reshape(*shape), self.error.reshape(*shape))

    def sum(self, axis):
        rounding = ROUNDING * np.sqrt(self.value.shape[axis]) * np.abs(self.value).sum(axis)
        return Bounded(self.value.sum(axis), np.hypot(_norm(self.error, axis), rounding))

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if method != "__call__" or kwargs or ufunc not in _HANDLERS:
            return NotImplemented
        return _HANDLERS[ufunc](*(i if isinstance(i, Bounded) else _constant(i) for i in inputs))

    def __array_function__(self, function, types, args, kwargs):
        if function is np.where:
            return _where(*args, **kwargs)
        if function not in (np.stack, np.concatenate):
            return NotImplemented
        items = [i if isinstance(i, Bounded) else _constant(i) for i in args[0]]
        value = function([i.value for i in items], *args[1:], **kwargs)
        return Bounded(value, function([i.error for i in items], *args[1:], **kwargs))


def _constant(value):
    """A number of the formulas: the kernel has it rounded, in eps by as much as float32 would."""
    value = np.asarray(value, np.float64)
    return Bounded(value, np.abs(value.astype(np.float32) - value) / EPS)


def _where(condition, a, b):
    """A choice, which rounds nothing."""
    a, b = (i if isinstance(i, Bounded) else _constant(i) for i in (a, b))
    return Bounded(np.where(condition, a.value, b.value), np.where(condition, a.error, b.error))


def _norm(errors, axis):
    return np.sqrt((errors * errors).sum(axis))


def _rounded(value, *errors):
    """The value of one operation, its operands' errors and its own rounding."""
    squares = sum((e * e for e in errors), (ROUNDING * value) ** 2)
    return Bounded(value, np.sqrt(squares))


@_handles(np.negative)
def _negative(a):
    return Bounded(-a.value, a.error)


@_handles(np.add)
def _add(a, b):
    return _rounded(a.value + b.value, a.error, b.error)


@_handles(np.subtract)
def _subtract(a, b):
    return _rounded(a.value - b.value, a.error, b.error)


@_handles(np.multiply)
def _multiply(a, b):
    if a is b:  # a square: the two errors are one
        return _rounded(a.value * a.value, 2.0 * a.value * a.error)
    return _rounded(a.value * b.value, a.value * b.error, a.error * b.value)


@_handles(np.divide)
def _divide(a, b):
    value = a.value / b.value
    return _rounded(value, a.error / b.value, value * b.error / b.value)


@_handles(np.sqrt)
def _sqrt(a):
    value = np.sqrt(a.value)
    # to first order e / (2 root); near zero the root of the error itself
    first_order = a.error / (2.0 * np.maximum(value, np.finfo(np.float64).tiny))
    return _rounded(value, np.minimum(np.sqrt(a.error / EPS), first_order))


@_handles(np.maximum)
def _maximum(a, b):
    return _where(a.value >= b.value, a, b)


@_handles(np.minimum)
def _minimum(a, b):
    return _where(a.value <= b.value, a, b)


@_handles(np.absolute)
def _absolute(a):
    return Bounded(np.abs(a.value), a.error)


@_handles(np.greater)
def _greater(a, b):
    return a.value > b.value


@_handles(np.less)
def _less(a, b):
    return a.value < b.value


@_handles(np.less_equal)
def _less_equal(a, b):
    return a.value <= b.value


@_handles(np.matmul)
def _matmul(a, b):
    rounding = ROUNDING * np.sqrt(a.shape[-1]) * (np.abs(a.value) @ np.abs(b.value))
    squares = (a.value**2) @ (b.error**2) + (a.error**2) @ (b.value**2) + rounding**2
    return Bounded(a.value @ b.value, np.sqrt(squares))


@_handles(np.tanh)
def _tanh(a):
    value = np.tanh(a.value)
    return Bounded(value, np.hypot((1.0 - value * value) * a.error, ACTIVATION * value))


# The reference's sigmoid is exp(-logaddexp(0, -x)); the accuracy of the whole is charged to the exp.
@_handles(np.logaddexp)
def _logaddexp(a, b):
    value = np.logaddexp(a.value, b.value)
    return Bounded(value, np.hypot(np.exp(a.value - value) * a.error, np.exp(b.value - value) * b.error))


@_handles(np.exp)
def _exp(a):
    value = np.exp(a.value)
    return Bounded(value, value * np.hypot(a.error, ACTIVATION))


@_handles(np.expm1)
def _expm1(a):
    value = np.expm1(a.value)
    return Bounded(value, np.hypot((value + 1.0) * a.error, ACTIVATION * value))


@_handles(np.log1p)
def _log1p(a):
    value = np.log1p(a.value)
    return Bounded(value, np.hypot(a.error / (1.0 + a.value), ACTIVATION * value))


def bounded(array: NDArray[np.float32] | None) -> Bounded | None:
    """An input: exact, since the kernel is given these very numbers."""
    return None if array is None else Bounded(array)
