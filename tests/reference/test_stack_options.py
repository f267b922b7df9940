"""What PyTorch's stack lacks, by finite differences: widths, merges, connections, initial states learnt."""

from __future__ import annotations

import numpy as np
import pytest

from lstmx import reference
from tests.reference.finite_differences import assert_gradient
from tests.reference.test_lengths_and_resets import LENGTHS, RESETS

CONNECTIONS = [None, "residual", "highway"]
CASES = [  # widths, directions, merge, connection, whether initial states are learnt
    ((2,), 2, "sum", None, True),
    ((2, 2), 1, "concat", "residual", True),
    ((2, 2), 1, "concat", "highway", False),
    ((2, 2), 2, "sum", None, False),
    ((2, 2), 2, "sum", "residual", False),
    ((3, 2), 1, "concat", None, False),
    ((3, 2), 1, "concat", None, True),
    ((3, 2), 1, "concat", "residual", False),
    ((3, 2), 2, "concat", "highway", True),
    ((3, 2), 2, "sum", "highway", False),
    ((2, 1, 1), 2, "concat", "residual", False),
]


def make_params(rng, widths, ways, merge, connection, learnt):
    """Parameters of a stack over two features, by name."""
    shapes, read = {}, 2
    for k, width in enumerate(widths):
        out = width * (len(ways) if merge == "concat" else 1)
        for way in ways:
            shapes[f"weight_ih_l{k}{way}"] = (4 * width, read)
            shapes[f"weight_hh_l{k}{way}"] = (4 * width, width)
            shapes[f"bias_ih_l{k}{way}"] = shapes[f"bias_hh_l{k}{way}"] = (4 * width,)
            if learnt:
                shapes[f"h_0_l{k}{way}"] = shapes[f"c_0_l{k}{way}"] = (width,)
        if connection is not None and k > 0:
            if read != out:
                shapes[f"weight_res_l{k}"] = (out, read)
            if connection == "highway":
                shapes[f"weight_gate_l{k}"], shapes[f"bias_gate_l{k}"] = (out, read), (out,)
        read = out
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def flat(state):
    """The arrays of a state, whether of one width or of several."""
    return [a for half in state for a in (half if isinstance(half, tuple) else (half,))]


def unflat(arrays, like):
    arrays = iter(arrays)
    return tuple(
        tuple(next(arrays) for _ in half) if isinstance(half, tuple) else next(arrays) for half in like
    )


@pytest.mark.parametrize(("widths", "ways", "merge", "connection", "learnt"), CASES, ids=str)
def test_every_gradient(rng, widths, ways, merge, connection, learnt):
    params = make_params(rng, widths, ("", "_reverse")[:ways], merge, connection, learnt)
    options = {"num_layers": len(widths), "bidirectional": ways == 2, "merge": merge}
    options |= {"connection": connection, "lengths": LENGTHS, "resets": RESETS}
    x = rng.standard_normal((4, 3, 2))
    y, final, backward = reference.lstm(x, params, **options)
    state = None if learnt else unflat([rng.standard_normal(a.shape) for a in flat(final)], final)
    y, final, backward = reference.lstm(x, params, state, **options)
    dy = rng.standard_normal(y.shape)
    dstate = unflat([rng.standard_normal(a.shape) for a in flat(final)], final)
    dx, d_initial, grads = backward(dy, dstate)
    assert grads.keys() == params.keys()

    def scalar(x=x, state=state, **changed):
        y, final, _ = reference.lstm(x, params | changed, state, **options)
        parts = zip([y, *flat(final)], [dy, *flat(dstate)], strict=True)
        return float(sum(np.sum(a * b) for a, b in parts))

    assert_gradient(lambda v: scalar(x=v), x, dx, "dx")
    for name, value in params.items():
        assert_gradient(lambda v, name=name: scalar(**{name: v}), value, grads[name], name)
    if not learnt:
        arrays = flat(state)
        for n, gradient in enumerate(flat(d_initial)):

            def changed(value, n=n):
                return scalar(state=unflat([*arrays[:n], value, *arrays[n + 1 :]], state))

            assert_gradient(changed, arrays[n], gradient, f"state {n}")


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_padding_is_never_read_and_is_zero(rng, connection):
    params = make_params(rng, (3, 2), ("", "_reverse"), "sum", connection, True)
    options = {"num_layers": 2, "bidirectional": True, "merge": "sum", "connection": connection}
    x, dy = rng.standard_normal((4, 3, 2)), rng.standard_normal((4, 3, 2))
    y, _, backward = reference.lstm(x, params, lengths=LENGTHS, **options)
    dx, _, grads = backward(dy)
    padded = np.arange(4)[:, None] >= LENGTHS
    x[padded] = dy[padded] = np.nan
    y_nan, _, backward = reference.lstm(x, params, lengths=LENGTHS, **options)
    dx_nan, _, grads_nan = backward(dy)
    np.testing.assert_array_equal(y_nan, y)
    np.testing.assert_array_equal(dx_nan, dx)
    for name, gradient in grads.items():
        np.testing.assert_array_equal(grads_nan[name], gradient)
    assert not y[padded].any()
    assert not dx[padded].any()


def test_a_state_that_is_given_is_not_the_learnt_one(rng):
    params = make_params(rng, (2,), ("",), "concat", None, True)
    x, zeros = rng.standard_normal((4, 3, 2)), np.zeros((1, 3, 2))
    plain = {name: value for name, value in params.items() if "_0_" not in name}
    y, _, backward = reference.lstm(x, params, (zeros, zeros))
    np.testing.assert_array_equal(y, reference.lstm(x, plain)[0])
    _, _, grads = backward(np.ones_like(y))
    assert not grads["h_0_l0"].any()
    assert not grads["c_0_l0"].any()


def test_what_connections_say():
    x, y = np.array([[[1.0, -2.0]]]), np.array([[[0.5, 0.25]]])
    np.testing.assert_array_equal(reference.connect("residual", x, y, {}, 1)[0], x + y)
    closed = {"weight_gate_l1": np.zeros((2, 2)), "bias_gate_l1": np.full(2, -1e3)}
    np.testing.assert_array_equal(reference.connect("highway", x, y, closed, 1)[0], x)
    with pytest.raises(ValueError, match="weight_res_l1: expected a projection to 1 features, got none"):
        reference.connect("residual", x, y[:, :, :1], {}, 1)
