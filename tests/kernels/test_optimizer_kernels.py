"""The optimiser kernels of every target against the float64 reference, step by step, segment by segment."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lstmx import _core, reference
from tests.kernels.arrays import assert_same_bits
from tests.running_error import bounded
from tests.tolerances import assert_close

SIZES = (1, 7, 8, 9, 15, 16, 17, 31, 33, 100)
SGD = {"lr": 0.1, "momentum": 0.0, "nesterov": False}
ADAM = {"lr": 0.003, "betas": (0.9, 0.999), "eps": 1e-8}


def one_segment(size, decay=0.0):
    return np.array([[0, size]], np.int64), np.array([decay], np.float64)


def flat(rng, size, offset=0, dtype=np.float32):
    raw = np.empty(size + offset, dtype)
    raw[offset:] = rng.standard_normal(size)
    return raw[offset:]


def sgd(params, grads, velocity, segments, *, lr, momentum, nesterov, grad_scale=1.0):
    _core.sgd_step(params, grads, velocity, *segments, lr, momentum, nesterov, grad_scale)


def adam(params, grads, m, v, segments, *, lr, betas, eps, step, decoupled=False, grad_scale=1.0):
    _core.adam_step(params, grads, m, v, *segments, lr, *betas, eps, step, decoupled, grad_scale)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("offset", [0, 1])
def test_sgd(target, dtype, rng, size, decay, momentum, nesterov, offset):
    options = {"lr": 0.1, "momentum": momentum, "nesterov": nesterov}
    params = flat(rng, size, offset, dtype)
    velocity = flat(rng, size, offset, dtype) if momentum else None
    for _ in range(3):
        grads = flat(rng, size, offset, dtype)
        before = grads.copy()
        want_params, want_velocity = reference.sgd_step(
            bounded(params), bounded(grads) * 0.75, bounded(velocity), weight_decay=decay, **options
        )
        sgd(params, grads, velocity, one_segment(size, decay), grad_scale=0.75, **options)
        assert_close("params", params, want_params)
        if velocity is not None:
            assert_close("velocity", velocity, want_velocity)
        assert_same_bits("grads", grads, before)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("offset", [0, 1])
def test_adam(target, dtype, rng, size, decay, decoupled, offset):
    params = flat(rng, size, offset, dtype)
    m, v = np.zeros(size, dtype), np.zeros(size, dtype)
    for step in (1, 2, 3, 1000, 10**7):
        grads = flat(rng, size, offset, dtype)
        before = grads.copy()
        want = reference.adam_step(
            bounded(params),
            bounded(grads) * 0.75,
            bounded(m),
            bounded(v),
            step=step,
            weight_decay=decay,
            decoupled=decoupled,
            **ADAM,
        )
        adam(
            params,
            grads,
            m,
            v,
            one_segment(size, decay),
            step=step,
            decoupled=decoupled,
            grad_scale=0.75,
            **ADAM,
        )
        for name, got, expected in zip(("params", "m", "v"), (params, m, v), want, strict=True):
            assert_close(name, got, expected)
        assert_same_bits("grads", grads, before)


def test_adam_at_rest(target):
    """Without gradients nothing moves and nothing is 0 / 0, whatever the step."""
    params, m, v = np.ones(5, np.float32), np.zeros(5, np.float32), np.zeros(5, np.float32)
    for step in (1, 2, 100):
        adam(params, np.zeros(5, np.float32), m, v, one_segment(5), step=step, **ADAM)
    assert (params == 1.0).all()


def test_segments_have_their_own_decay_and_the_rest_is_left_alone(target, rng):
    size = 60
    segments = np.array([[3, 20], [20, 21], [30, 30], [40, 57]], np.int64)
    decays = np.array([0.1, 0.0, 0.3, 0.2])
    arrays = {name: flat(rng, size) for name in ("params", "grads", "m")} | {"v": np.abs(flat(rng, size))}
    for kernel, names in ((sgd, ("params", "m")), (adam, ("params", "m", "v"))):
        got = {name: array.copy() for name, array in arrays.items()}
        want = {name: array.copy() for name, array in arrays.items()}
        given = [got[n] for n in ("params", "grads", *names[1:])]
        options = SGD | {"momentum": 0.9} if kernel is sgd else ADAM | {"step": 4}
        kernel(*given, (segments, decays), **options)
        for (start, stop), decay in zip(segments, decays, strict=True):
            piece = [want[n][start:stop] for n in ("params", "grads", *names[1:])]
            kernel(*piece, one_segment(stop - start, decay), **options)
        for name in names:
            assert_same_bits(f"{kernel.__name__} {name}", got[name], want[name])
            outside = np.ones(size, bool)
            for start, stop in segments:
                outside[start:stop] = False
            assert_same_bits(f"{kernel.__name__} {name}", got[name][outside], arrays[name][outside])


def test_nan_stays_in_its_element(target, rng):
    for kernel, options in ((sgd, SGD | {"momentum": 0.9}), (adam, ADAM | {"step": 1})):
        grads = flat(rng, 33)
        grads[20] = np.nan
        params, state = flat(rng, 33), [np.zeros(33, np.float32) for _ in range(1 if kernel is sgd else 2)]
        kernel(params, grads, *state, one_segment(33), **options)
        for array in (params, *state):
            assert np.isnan(array[20])
            assert np.isfinite(np.delete(array, 20)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segments": (np.array([[0, 6]]), np.zeros(1))}, "segments"),
        ({"segments": (np.array([[-1, 5]]), np.zeros(1))}, "segments"),
        ({"segments": (np.array([[3, 2]]), np.zeros(1))}, "segments"),
        ({"segments": (np.array([0, 5]), np.zeros(1))}, "segments"),
        ({"segments": (np.array([[0, 5]]), np.zeros(2))}, "decays"),
        ({"grads": np.zeros(4, np.float32)}, "grads"),
        ({"grads": np.zeros(5)}, "grads"),
        ({"grads": np.zeros(10, np.float32)[::2]}, "grads"),
        ({"params": np.zeros((5, 1), np.float32)}, "params"),
        ({"m": np.zeros(4, np.float32)}, "m"),
        ({"v": np.zeros(4, np.float32)}, "v"),
        ({"step": 0}, "step"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(change, message):
    given = {name: np.ones(5, np.float32) for name in ("params", "grads", "m", "v")}
    given |= {"segments": one_segment(5), "step": 1} | change
    before = {name: given[name].copy() for name in ("params", "m", "v")}
    with pytest.raises(ValueError, match=message):
        adam(**given, **ADAM)
    for name, array in before.items():
        assert_same_bits(name, given[name], array)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 1000])
def test_sum_of_squares(dtype, rng, size):
    x = flat(rng, size, dtype=dtype)
    np.testing.assert_allclose(_core.sum_of_squares(x), math.fsum(float(a) ** 2 for a in x), rtol=1e-14)


def test_sum_of_squares_neither_overflows_nor_vanishes():
    np.testing.assert_allclose(_core.sum_of_squares(np.full(3, 1e30, np.float32)), 3e60, rtol=1e-6)
    np.testing.assert_allclose(_core.sum_of_squares(np.full(3, 1e-30, np.float32)), 3e-60, rtol=1e-6)
    assert math.isnan(_core.sum_of_squares(np.array([1.0, np.nan], np.float32)))
    assert math.isinf(_core.sum_of_squares(np.array([1.0, np.inf], np.float32)))
