"""The process's floating-point state is the same after every kernel as before: rounding, denormals, traps."""

from __future__ import annotations

import ctypes
import ctypes.util
import platform

import numpy as np
import pytest

from lstmx import _core
from tests.kernels.lstm_case import make_case, run

FLUSH_TO_ZERO, DENORMALS_ARE_ZERO, TOWARDS_ZERO = 0x8000, 0x0040, 0x6000
FLAGS = 0x003F  # set by any arithmetic

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or platform.libc_ver()[0] != "glibc",
    reason="reads MXCSR through the fenv_t of glibc on x86-64: the floating-point state was NOT checked",
)


class FloatingPointEnvironment(ctypes.Structure):
    """glibc's fenv_t on x86-64."""

    _fields_ = (("x87", ctypes.c_uint8 * 28), ("mxcsr", ctypes.c_uint32))


def read_environment() -> FloatingPointEnvironment:
    environment = FloatingPointEnvironment()
    libm().fegetenv(ctypes.byref(environment))
    return environment


def libm() -> ctypes.CDLL:
    return ctypes.CDLL(ctypes.util.find_library("m") or "libm.so.6")


@pytest.fixture(
    params=[0, FLUSH_TO_ZERO, DENORMALS_ARE_ZERO, FLUSH_TO_ZERO | DENORMALS_ARE_ZERO, TOWARDS_ZERO]
)
def mxcsr(request):
    """A floating-point state of the caller's, restored after the test."""
    before = read_environment()
    changed = FloatingPointEnvironment.from_buffer_copy(before)
    changed.mxcsr = changed.mxcsr & ~(FLUSH_TO_ZERO | DENORMALS_ARE_ZERO | TOWARDS_ZERO) | request.param
    libm().fesetenv(ctypes.byref(changed))
    yield changed.mxcsr & ~FLAGS
    libm().fesetenv(ctypes.byref(before))


@pytest.mark.parametrize("threads", [1, 2])
def test_lstm(target, rng, mxcsr, threads):
    case = make_case(rng, 20, 33, 33, 33)
    case["x"][0] = 1e-40
    run(case, threads=threads)
    assert read_environment().mxcsr & ~FLAGS == mxcsr


def test_linear_and_optimizers(target, rng, mxcsr):
    weight = rng.standard_normal((5, 3)).astype(np.float32)
    x, y, dy = np.full((4, 3), 1e-40, np.float32), np.empty((4, 5), np.float32), np.ones((4, 5), np.float32)
    tape = _core.LinearPlan(3, 5).forward(1, weight, None, x, y, True, 1)
    tape.backward(x, dy, np.empty_like(x), np.zeros_like(weight), None, 1)
    flat = [rng.standard_normal(15).astype(np.float32) for _ in range(4)]
    segments, decays = np.array([[0, 15]]), np.zeros(1)
    _core.sgd_step(*flat[:3], segments, decays, 0.1, 0.9, False, 1.0)
    _core.adam_step(*flat[:3], np.abs(flat[3]), segments, decays, 0.1, 0.9, 0.999, 1e-8, 1, False, 1.0)
    _core.sum_of_squares(flat[0])
    assert read_environment().mxcsr & ~FLAGS == mxcsr


def test_denormal_arithmetic_of_the_caller_survives(target, rng):
    run(make_case(rng, 20, 33, 33, 33), threads=2)
    assert np.float32(1e-40) * np.float32(0.5) > 0.0
