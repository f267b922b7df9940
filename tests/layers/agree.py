"""Comparison of whole layers with float64: element by element, one tolerance.

The exact accuracy of each kernel is the subject of tests/kernels, with its table of bounds. Here the question
is whether layers, directions, states and gradients are wired as they should be; a wrong wire is off by the
size of the values themselves.
"""

from __future__ import annotations

import numpy as np

# In float32 eps of the largest element: errors of one layer, some ten eps, grow through up to three layers
# and as many steps as these tests have.
MULTIPLE = 200


def agree(name, got, expected):
    """Fail unless `got` is float32, of the shape of `expected`, and equal up to rounding."""
    expected = np.asarray(expected, np.float64)
    assert isinstance(got, np.ndarray), f"{name}: {type(got).__name__}"
    assert got.dtype == np.float32, f"{name}: {got.dtype}"
    assert got.shape == expected.shape, f"{name}: shape {got.shape}, expected {expected.shape}"
    if got.size:
        scale = np.abs(expected).max()
        error = np.abs(got.astype(np.float64) - expected).max()
        assert error <= MULTIPLE * np.finfo(np.float32).eps * scale, (
            f"{name}: off by {error}, largest {scale}"
        )
