"""The losses against the float64 reference, finite differences and PyTorch; weights, masks, refusals."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from functools import partial

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from lstmx import losses, reference

EPS = float(np.finfo(np.float32).eps)

# Of a regression loss: one subtraction, a product with the weight and one with the rounded constant, half an
# eps each, for the gradient; the sum of the value is float64 over terms of one sign with the same roundings.
REGRESSION_EPS = 4.0
# Of cross-entropy: exp turns the rounding of its argument, up to 40 here, into a relative error of p.
CROSS_ENTROPY_EPS = 64.0

MAKERS = {
    "mse": (losses.MSE, reference.mse),
    "mae": (losses.MAE, reference.mae),
    "huber": (partial(losses.Huber, 0.7), partial(reference.huber, delta=0.7)),
    "cross_entropy": (losses.CrossEntropy, reference.cross_entropy),
}
LOSSES = tuple(MAKERS)
DIVISORS = losses.DIVISORS


def problem(rng, name, shape=(4, 3, 5)):
    pred = (2 * rng.standard_normal(shape)).astype(np.float32)
    if name == "cross_entropy":
        return pred, rng.integers(0, shape[-1], shape[:-1])
    return pred, rng.standard_normal(shape).astype(np.float32)


def assert_agrees(name, got, expected, scale=1.0):
    (value, gradient), (true_value, true_gradient) = got, expected
    assert isinstance(value, float)
    assert gradient.dtype == np.float32
    if name == "cross_entropy":
        assert abs(value - true_value) <= CROSS_ENTROPY_EPS * EPS * abs(true_value) + EPS
        assert np.max(np.abs(gradient - true_gradient), initial=0.0) <= CROSS_ENTROPY_EPS * EPS * scale
    else:
        assert abs(value - true_value) <= REGRESSION_EPS * EPS * abs(true_value)
        assert (np.abs(gradient - true_gradient) <= REGRESSION_EPS * EPS * np.abs(true_gradient)).all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("divisor", DIVISORS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_agrees_with_the_reference(rng, name, divisor, weighted, masked):
    make, truth = MAKERS[name]
    for shape in [(4, 3, 5), (7, 1), (5, 33), (1, 1, 2)]:
        pred, target = problem(rng, name, shape)
        options = {
            "weights": rng.random(target.shape).astype(np.float32) + 0.5 if weighted else None,
            "mask": rng.random(target.shape) < 0.6 if masked else None,
        }
        got = make(divisor=divisor)(pred, target, **options)
        assert_agrees(name, got, truth(pred, target, divisor=divisor, **options), scale=2.0)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_is_the_slope_of_the_value(rng, name):
    loss = MAKERS[name][0](divisor="none")
    pred, target = problem(rng, name)
    weights, mask = rng.random((4, 3)) + 0.5, rng.random((4, 3)) < 0.7
    direction = rng.standard_normal(pred.shape).astype(np.float32)
    step = np.float32(2.0**-9)
    ahead, _ = loss(pred + step * direction, target, weights=weights, mask=mask)
    behind, _ = loss(pred - step * direction, target, weights=weights, mask=mask)
    _, gradient = loss(pred, target, weights=weights, mask=mask)
    slope = float(np.sum(gradient.astype(np.float64) * direction))
    # Central differences of a float32 function: about sqrt(eps) relative to the size of the terms.
    assert (ahead - behind) / (2 * step) == pytest.approx(slope, abs=2e-3 * float(np.abs(gradient).sum()))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("divisor", ["elements", "none"])
def test_agrees_with_pytorch(rng, name, divisor):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: NOT compared with it")
    functions = {
        "mse": torch.nn.functional.mse_loss,
        "mae": torch.nn.functional.l1_loss,
        "huber": partial(torch.nn.functional.huber_loss, delta=0.7),
        "cross_entropy": torch.nn.functional.cross_entropy,
    }
    shape = (12, 5)
    pred, target = problem(rng, name, shape)
    leaf = torch.tensor(pred, dtype=torch.float64, requires_grad=True)
    truth = torch.tensor(target) if name == "cross_entropy" else torch.tensor(target, dtype=torch.float64)
    value = functions[name](leaf, truth, reduction="mean" if divisor == "elements" else "sum")
    value.backward()
    got = MAKERS[name][0](divisor=divisor)(pred, target)
    assert_agrees(name, got, (value.item(), leaf.grad.numpy()))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("divisor", DIVISORS)
def test_masked_elements_are_never_read(rng, name, divisor):
    loss = MAKERS[name][0](divisor=divisor)
    pred, target = problem(rng, name)
    weights = rng.random(target.shape).astype(np.float32)
    mask = rng.random(target.shape) < 0.5
    value, gradient = loss(pred, target, weights=weights, mask=mask)

    spoilt_pred, spoilt_target, spoilt_weights = pred.copy(), target.copy(), weights.copy()
    spoilt_weights[~mask] = -np.inf
    if name == "cross_entropy":
        spoilt_target[~mask] = -100
        spoilt_pred[~mask] = np.nan
    else:
        spoilt_target[~mask] = np.inf
        spoilt_pred[~mask] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again, gradient_again = loss(spoilt_pred, spoilt_target, weights=spoilt_weights, mask=mask)
    assert again == value
    np.testing.assert_array_equal(gradient_again, gradient)
    assert not gradient[~mask].any()
    assert gradient[mask].any()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("divisor", DIVISORS)
def test_nothing_that_counts_gives_zero(rng, name, divisor):
    loss = MAKERS[name][0](divisor=divisor)
    pred, target = problem(rng, name)
    nothing = np.zeros(target.shape)
    for options in ({"mask": nothing.astype(bool)}, {"weights": nothing}):
        value, gradient = loss(pred, target, **options)
        assert value == 0.0
        assert not gradient.any()
    value, gradient = loss(pred[:0], target[:0])
    assert value == 0.0
    assert gradient.shape == (0, 3, 5)


@pytest.mark.parametrize("name", LOSSES)
def test_weights_and_mask_of_the_leading_axes(rng, name):
    loss = MAKERS[name][0]()
    pred, target = problem(rng, name, (4, 3, 2))
    row, step = rng.random(4), rng.random((4, 3)) < 0.5
    ones = np.ones(target.shape)
    spread = (4,) + (1,) * (target.ndim - 1)
    short = loss(pred, target, weights=row, mask=step)
    mask = ones.astype(bool) & step.reshape(step.shape + (1,) * (target.ndim - 2))
    full = loss(pred, target, weights=ones * row.reshape(spread), mask=mask)
    assert short[0] == full[0]
    np.testing.assert_array_equal(short[1], full[1])


def test_a_last_axis_of_one_may_be_missing(rng):
    pred, target = rng.standard_normal((2, 4, 3)).astype(np.float32)
    weights, mask = rng.random((4, 3)), rng.random((4, 3)) < 0.5
    expected, gradient = losses.MSE()(pred, target, weights=weights, mask=mask)
    for p in (pred, pred[..., None]):
        for t in (target, target[..., None]):
            for w in (weights, weights[..., None]):
                value, slope = losses.MSE()(p, t, weights=w, mask=mask[..., None])
                assert value == expected
                np.testing.assert_array_equal(slope, gradient.reshape(p.shape))


@pytest.mark.parametrize("name", LOSSES)
def test_strided_and_converted_arguments(rng, name):
    loss = MAKERS[name][0]()
    pred, target = problem(rng, name, (4, 6, 5))
    expected = loss(pred, target)
    strided = np.asfortranarray(pred)
    for other in (strided, pred.tolist()):
        got = loss(other, target.tolist())
        assert got[0] == pytest.approx(expected[0], rel=REGRESSION_EPS * EPS)
        np.testing.assert_array_equal(got[1], expected[1])
        assert got[1].flags.c_contiguous


@pytest.mark.parametrize("name", LOSSES)
def test_float64_predictions_have_float64_gradients(rng, name):
    loss = MAKERS[name][0]()
    pred, target = problem(rng, name, (4, 6, 5))
    weights = rng.random(pred.shape[:1])
    for options in ({}, {"weights": weights}):
        gradient = loss(pred.astype(np.float64), target, **options)[1]
        assert gradient.dtype == np.float64
        step = 1e-6 * rng.standard_normal(pred.shape)
        ahead, behind = (loss(pred + sign * step, target, **options)[0] for sign in (1, -1))
        np.testing.assert_allclose((gradient * step).sum(), (ahead - behind) / 2, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_arguments_stay_as_they_are(rng, name):
    pred, target = problem(rng, name)
    before = pred.copy(), target.copy()
    for array in (pred, target):
        array.flags.writeable = False
    _, gradient = MAKERS[name][0]()(pred, target)
    gradient[...] = 0
    np.testing.assert_array_equal(pred, before[0])
    np.testing.assert_array_equal(target, before[1])


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("divisor", DIVISORS)
def test_count_makes_one_of_unequal_batches(rng, name, divisor):
    loss = MAKERS[name][0](divisor=divisor)
    pred, target = problem(rng, name, (7, 3, 5))
    weights, mask = rng.random(target.shape[:2]), rng.random(target.shape[:2]) < 0.5
    whole, _ = loss(pred, target, weights=weights, mask=mask)
    total = count = 0.0
    for rows in (slice(0, 4), slice(4, 7)):
        options = {"weights": weights[rows], "mask": mask[rows]}
        n = loss.count(pred[rows], **options)
        total += n * loss(pred[rows], target[rows], **options)[0]
        count += n
    assert total / (1.0 if divisor == "none" else count) == pytest.approx(whole, rel=1e-6)


def test_cross_entropy_far_from_zero():
    logits = np.array([[1e4, 0.0, -1e4], [-3e38, 3e38, 0.0], [88.0, 89.0, 90.0]], np.float32)
    classes = np.array([0, 1, 2])
    value, gradient = losses.CrossEntropy(divisor="none")(logits, classes)
    expected, slope = reference.cross_entropy(logits, classes, divisor="none")
    assert value == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(gradient, slope, atol=4 * EPS)
    value, gradient = losses.CrossEntropy(divisor="none")(logits[:1], [2])
    assert value == 2e4
    np.testing.assert_array_equal(gradient, [[1.0, 0.0, -1.0]])


@hypothesis.given(
    st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=8),
    st.floats(2.0**-10, 2.0**20, width=32),
)
def test_huber_is_bounded_by_its_slopes(errors, delta):
    value, gradient = losses.Huber(delta, divisor="none")(errors, [0.0] * len(errors))
    assert np.all(np.abs(gradient) <= np.float32(delta))
    assert 0 <= value <= delta * sum(map(abs, errors)) * (1 + 8 * EPS)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_shows_without_a_warning(rng, name, bad):
    pred, target = problem(rng, name)
    pred[1, 2, target[1, 2] if name == "cross_entropy" else 0] = bad
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value, _ = MAKERS[name][0]()(pred, target)
    assert not math.isfinite(value)


@pytest.mark.parametrize("name", LOSSES)
def test_repr_makes_it_and_copies_are_equal(name):
    loss = MAKERS[name][0](divisor="batch")
    for other in (eval(repr(loss), vars(losses)), pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss)):
        assert type(other) is type(loss)
        assert vars(other) == vars(loss)


def test_get():
    assert repr(losses.get("huber")) == "Huber(delta=1.0, divisor='elements')"
    own = losses.MSE("none")
    assert losses.get(own) is own
    assert losses.get(math.hypot) is math.hypot
    with pytest.raises(
        ValueError, match="loss: expected one of 'mse', 'mae', 'huber', 'cross_entropy', got 'l2'"
    ):
        losses.get("l2")
    for wrong in (None, 3, losses.MSE):
        with pytest.raises(TypeError, match="loss: expected a name, a Loss or a function"):
            losses.get(wrong)


ONES = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: losses.MSE("sum"), ValueError, "divisor: expected one of"),
        (lambda: losses.Huber(0.0), ValueError, "delta: expected more than 0.0, got 0.0"),
        (lambda: losses.Huber("wide"), TypeError, "delta: expected a number"),
        (lambda: losses.MSE()(ONES + 1j, ONES), TypeError, "pred: expected real numbers, got dtype complex"),
        (lambda: losses.MSE()(1.0, 1.0), ValueError, r"pred: expected at least 1 dimension, got shape \(\)"),
        (
            lambda: losses.MAE()(ONES, ONES[:, :2]),
            ValueError,
            r"target: expected shape \(2, 3\), got \(2, 2\)",
        ),
        (lambda: losses.MAE()(ONES, ONES[0]), ValueError, r"target: expected shape \(2, 3\), got \(3,\)"),
        (lambda: losses.MAE()(ONES, [["a"] * 3] * 2), TypeError, "target: expected real numbers"),
        (
            lambda: losses.MSE()(ONES, ONES, weights=[1.0, -1.0]),
            ValueError,
            "weights: expected numbers of at least",
        ),
        (lambda: losses.MSE()(ONES, ONES, weights=[1.0, np.nan]), ValueError, "weights: .* got nan"),
        (
            lambda: losses.MSE()(ONES, ONES, weights=np.ones(3)),
            ValueError,
            r"weights: .* leading axes, got \(3,\)",
        ),
        (
            lambda: losses.MSE()(ONES, ONES, mask=np.ones(2)),
            TypeError,
            "mask: expected booleans, got dtype float64",
        ),
        (lambda: losses.MSE()(ONES, ONES, mask=np.ones((2, 3, 2), bool)), ValueError, "mask: expected shape"),
        (
            lambda: losses.CrossEntropy()(ONES, [0.0, 1.0]),
            TypeError,
            "target: expected integer classes, got dtype",
        ),
        (lambda: losses.CrossEntropy()(ONES, [True, False]), TypeError, "target: expected integer classes"),
        (
            lambda: losses.CrossEntropy()(ONES, [0, 3]),
            ValueError,
            r"target: expected classes in 0 .. 2, got 3",
        ),
        (
            lambda: losses.CrossEntropy()(ONES, [-1, 0]),
            ValueError,
            r"target: expected classes in 0 .. 2, got -1",
        ),
        (lambda: losses.CrossEntropy()(ONES, [0]), ValueError, r"target: expected shape \(2,\), got \(1,\)"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
