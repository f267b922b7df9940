"""All gradients of the float64 kernels against central differences of the kernels themselves.

Nothing but the kernels is involved: backward is judged by forward. Each array is moved along random
directions, so that every element counts and few calls are needed.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernels import variant_case
from tests.kernels.lstm_case import ACTIVATION_GRADIENTS, PARAMETERS, make_case, run
from tests.kernels.test_lengths_and_resets import spanned

STEP = 1e-5
# Truncation is STEP^2 / 6 times a third derivative, rounding some eps of the sum over STEP.
TOLERANCE = 2e-8
SIZES = [(1, 1, 1, 1), (5, 3, 4, 7), (4, 9, 3, 17), (3, 2, 12, 32)]


def projection(case):
    """sum(dy * y) + sum(dh_n * h_n) + sum(dc_n * c_n): its gradients are those that backward returns."""
    got = run(case, training=False)
    given = {"y": case["dy"], "h_n": case["dh_n"], "c_n": case["dc_n"]}
    return sum(float((given[name] * got[name]).sum()) for name in given)


@pytest.mark.parametrize("checkpoint_steps", [0, 2])
@pytest.mark.parametrize("which", ["whole rows", "lengths", "resets", "both"])
@pytest.mark.parametrize("sizes", SIZES, ids="T{0[0]}-B{0[1]}-I{0[2]}-H{0[3]}".format)
def test_gradients(target, rng, sizes, which, checkpoint_steps):
    case = spanned(rng, make_case(rng, *sizes, dtype=np.float64), which)
    gradients = run(case, checkpoint_steps=checkpoint_steps)
    names = dict(zip(("x", "h_0", "c_0"), ACTIVATION_GRADIENTS, strict=True))
    names |= {name: f"d_{name}" for name in PARAMETERS}
    for name, gradient_name in names.items():
        gradient = gradients[gradient_name]
        for _ in range(3):
            direction = rng.standard_normal(case[name].shape)
            ahead, behind = (
                projection(case | {name: case[name] + sign * STEP * direction}) for sign in (1, -1)
            )
            expected = (ahead - behind) / (2 * STEP)
            scale = 1.0 + np.abs(gradient * direction).sum()
            assert abs(float((gradient * direction).sum()) - expected) <= TOLERANCE * scale, name


def variant_projection(variant, case):
    """As `projection`, with sum(dcells * cells); in training, which has all masks."""
    got = variant_case.run(variant, case)
    given = {"y": case["dy"], "h_n": case["dh_n"], "c_n": case["dc_n"], "cells": case["dcells"]}
    return sum(float((given[name] * got[name]).sum()) for name in given if given[name] is not None)


@pytest.mark.parametrize("spans", [False, True], ids=["full", "spans"])
@pytest.mark.parametrize("variant", variant_case.VARIANTS, ids=lambda variant: variant.name)
def test_gradients_of_variants(target, rng, variant, spans):
    """Of three directions one may cross a kink, which a clip or a relu has."""
    case = variant_case.make_case(rng, variant, 4, 3, 5, 19, spans=spans, dtype=np.float64)
    gradients = variant_case.run(variant, case, checkpoint_steps=2 if spans else 0)
    names = {
        name: f"d_{name}"
        for name in (*variant_case.PARAMETERS, *variant_case.GAINS)
        if case[name] is not None
    }
    names |= dict(zip(("x", "h_0", "c_0"), ACTIVATION_GRADIENTS, strict=True))
    together = {}
    if not variant.has_cells:  # h is c
        together = {"h_0": ("h_0", "c_0")}
        gradients["dh_0"] = gradients["dh_0"] + gradients["dc_0"]
        del names["c_0"]
    for name, gradient_name in names.items():
        gradient, errors = gradients[gradient_name], []
        for _ in range(3):
            direction = rng.standard_normal(case[name].shape)
            ahead, behind = (
                variant_projection(
                    variant,
                    case | {n: case[n] + sign * STEP * direction for n in together.get(name, (name,))},
                )
                for sign in (1, -1)
            )
            scale = 1.0 + np.abs(gradient * direction).sum()
            errors.append(abs(float((gradient * direction).sum()) - (ahead - behind) / (2 * STEP)) / scale)
        assert np.median(errors) <= TOLERANCE, (name, errors)
