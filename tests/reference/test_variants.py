"""Every variant of the recurrent layers: all gradients by finite differences, and what each one means."""

from __future__ import annotations

import numpy as np
import pytest

from lstmx import reference
from lstmx.reference import LSTM, CellOptions, LstmCell
from tests.reference.finite_differences import assert_gradient
from tests.reference.variants import (
    BATCH,
    HIDDEN,
    INPUTS,
    LENGTHS,
    PARAMETRIZE,
    RESETS,
    STEPS,
    VARIANTS,
    make_masks,
    make_params,
    make_statistics,
    state_shapes,
)
from tests.running_error import bounded

SPANS = {"lengths": LENGTHS, "resets": RESETS}


def problem(rng, variant):
    """x, params, state, and the keywords of a variant."""
    x = rng.standard_normal((STEPS, BATCH, INPUTS))
    state = tuple(rng.standard_normal(shape) for shape in state_shapes(variant))
    options = {"cell": variant.cell, "statistics": make_statistics(rng, variant)}
    options |= make_masks(rng, variant)
    return x, make_params(rng, variant), state, options


@pytest.mark.parametrize(**PARAMETRIZE)
def test_every_gradient_of_one_layer(rng, variant):
    """Through y, the final state and the cells, with lengths and resets."""
    x, params, state, options = problem(rng, variant)
    run = reference.recurrent_forward(x, params, state, **options, **SPANS)
    dy, *d_state = (rng.standard_normal(a.shape) for a in (run.y, *run.state))
    dcells = None if run.cells is None else rng.standard_normal(run.cells.shape)
    got = reference.recurrent_backward(run.tape, dy, tuple(d_state), dcells)
    assert got.d_params.keys() == params.keys()

    def scalar(x=x, state=state, **changed):
        run = reference.recurrent_forward(x, params | changed, state, **options, **SPANS)
        value = np.sum(run.y * dy) + sum(np.sum(a * d) for a, d in zip(run.state, d_state, strict=True))
        return float(value if dcells is None else value + np.sum(run.cells * dcells))

    assert_gradient(lambda v: scalar(x=v), x, got.dx, "dx")
    for n, name in enumerate(variant.cell.states):
        at = lambda v, n=n: scalar(state=(*state[:n], v, *state[n + 1 :]))  # noqa: E731
        assert_gradient(at, state[n], got.d_state[n], f"d{name}_0")
    for name, value in params.items():
        assert_gradient(lambda v, name=name: scalar(**{name: v}), value, got.d_params[name], name)


@pytest.mark.parametrize(**PARAMETRIZE)
def test_directions_are_layers_over_turned_rows(rng, variant):
    """Outputs and gradients of two layers in both directions, put together from single ones."""
    x, _, _, _ = problem(rng, variant)
    width = variant.projection or HIDDEN
    suffixes = ["_l0", "_l0_reverse", "_l1", "_l1_reverse"]
    sizes = [INPUTS, INPUTS, 2 * width, 2 * width]
    params, masks, statistics = {}, {}, {}
    for suffix, size in zip(suffixes, sizes, strict=True):
        params |= make_params(rng, variant, suffix, size)
        masks |= make_masks(rng, variant, suffix)
        statistics |= make_statistics(rng, variant, suffix) or {}
    state = tuple(rng.standard_normal(shape) for shape in state_shapes(variant, (4,)))
    options = {"masks": masks, "num_layers": 2, "bidirectional": True, "statistics": statistics}
    y, final, backward = reference.recurrent(x, params, state, cell=variant.cell, **options, **SPANS)
    dy = rng.standard_normal(y.shape)
    d_final = tuple(rng.standard_normal(part.shape) for part in final)
    has_c = "c" in variant.cell.states
    dcells = [rng.standard_normal(c.shape) for c in backward.cells] if has_c else None
    dx, d_initial, grads = backward(dy, d_final, dcells)

    def one(suffix, x, direction, row):
        """A single direction with everything turned by hand, row by row."""
        turn = (lambda a: a) if direction == 0 else turned_by_hand
        own, own_masks, own_statistics = (
            {name.removesuffix(suffix): a for name, a in arrays.items() if name.endswith(suffix)}
            for arrays in (params, masks, statistics)
        )
        timed = {n: a if n == "recurrent_mask" else turn(a) for n, a in own_masks.items()}
        starts = RESETS if direction == 0 else starts_by_hand()
        run = reference.recurrent_forward(
            turn(x),
            own,
            tuple(part[row] for part in state),
            cell=variant.cell,
            lengths=LENGTHS,
            resets=starts,
            statistics=own_statistics or None,
            **timed,
        )
        return run, turn

    lower = [one(suffixes[d], x, d, d) for d in range(2)]
    middle = np.concatenate([turn(run.y) for run, turn in lower], axis=2)
    upper = [one(suffixes[2 + d], middle, d, 2 + d) for d in range(2)]
    np.testing.assert_array_equal(y, np.concatenate([turn(run.y) for run, turn in upper], axis=2))
    d_middle = 0.0
    d_out = dy
    for layer, runs in ((1, upper), (0, lower)):
        d_middle = 0.0
        for d, (run, turn) in enumerate(runs):
            row = 2 * layer + d
            part = d_out[:, :, d * width : (d + 1) * width]
            dc = dcells[layer][:, :, d * HIDDEN : (d + 1) * HIDDEN] if has_c else None
            got = reference.recurrent_backward(
                run.tape, turn(part), tuple(p[row] for p in d_final), None if dc is None else turn(dc)
            )
            d_middle = d_middle + turn(got.dx)
            for name, value in got.d_params.items():
                np.testing.assert_array_equal(grads[f"{name}{suffixes[row]}"], value)
            for mine, theirs in zip(d_initial, got.d_state, strict=True):
                np.testing.assert_array_equal(mine[row], theirs)
        d_out = d_middle
    np.testing.assert_array_equal(dx, d_middle)


def turned_by_hand(a):
    return np.stack([np.concatenate([a[:n, b][::-1], a[n:, b]]) for b, n in enumerate(LENGTHS)], axis=1)


def starts_by_hand():
    """In reverse a piece begins with its last step, unless that is the row's last."""
    starts = np.zeros((STEPS, BATCH), bool)
    for b, n in enumerate(LENGTHS):
        for t in range(n):
            starts[n - 1 - t, b] = t + 1 < n and RESETS[t + 1, b]
    return starts


@pytest.mark.parametrize(**PARAMETRIZE)
def test_error_bounds_travel_along(rng, variant):
    """The values are those of plain arrays, and every output has an error of some size."""
    x, params, state, options = problem(rng, variant)
    ones = lambda a: np.ones(a.shape)  # noqa: E731

    def results(wrap):
        given = {name: wrap(value) for name, value in params.items()}
        run = reference.recurrent_forward(wrap(x), given, tuple(map(wrap, state)), **options, **SPANS)
        dy, d_state = wrap(ones(run.y)), tuple(wrap(ones(part)) for part in run.state)
        dcells = None if run.cells is None else wrap(ones(run.cells))
        got = reference.recurrent_backward(run.tape, dy, d_state, dcells)
        cells = [] if run.cells is None else [run.cells]
        traced = reference.trace(run.tape).values()
        return [run.y, *run.state, *cells, *traced, got.dx, *got.d_state, *got.d_params.values()]

    for got, want in zip(results(bounded), results(lambda a: a), strict=True):
        np.testing.assert_allclose(got.value, want, rtol=1e-12, atol=1e-14)
        assert (got.error >= 0).all()
        assert got.error.any() == want.any()


@pytest.mark.parametrize(**PARAMETRIZE)
def test_padding_is_never_read(rng, variant):
    x, params, state, options = problem(rng, variant)
    outside = np.arange(STEPS)[:, None] >= LENGTHS

    def results(poison):
        fill = lambda a: np.where(outside[:, :, None], poison, a)  # noqa: E731
        filled = {n: fill(a) if n.startswith("zoneout") else a for n, a in options.items()}
        run = reference.recurrent_forward(fill(x), params, state, **filled, **SPANS)
        dcells = None if run.cells is None else fill(np.ones(run.cells.shape))
        got = reference.recurrent_backward(run.tape, fill(np.ones(run.y.shape)), None, dcells)
        return [run.y, *run.state, got.dx, *got.d_state, *got.d_params.values()]

    for clean, poisoned in zip(results(0.5), results(np.nan), strict=True):
        np.testing.assert_array_equal(poisoned, clean)


def first_step(options):
    """The masks of the first step."""
    return {name: mask[:1] for name, mask in options.items() if name.startswith("zoneout")}


class TestMeaning:
    def setup(self, rng, **options):
        variant = VARIANTS[0]._replace(cell=LstmCell(CellOptions(**options)))
        return problem(rng, variant)

    def test_zoneout_of_one_stays_and_of_zero_does_nothing(self, rng):
        x, params, state, _ = self.setup(rng)
        ones = np.ones((STEPS, BATCH, HIDDEN))
        plain = reference.recurrent_forward(x, params, state, cell=LSTM)
        still = reference.recurrent_forward(x, params, state, cell=LSTM, zoneout_h=ones, zoneout_c=ones)
        none = reference.recurrent_forward(
            x, params, state, cell=LSTM, zoneout_h=0 * ones, zoneout_c=0 * ones
        )
        for n in range(2):
            np.testing.assert_array_equal(still.state[n], state[n])
            np.testing.assert_array_equal(none.state[n], plain.state[n])

    def test_a_step_by_hand(self, rng):
        """c is clipped, then seen by o and by h, which is projected, then zoned out, as c is at last."""
        variant = VARIANTS[0]._replace(
            cell=LstmCell(CellOptions(peephole=True, cell_clip=0.3)),
            projection=2,
            masks=("zoneout_h", "zoneout_c"),
        )
        x, p, (h_0, c_0), options = problem(rng, variant)
        run = reference.recurrent_forward(x[:1], p, (h_0, c_0), cell=variant.cell, **first_step(options))
        a = x[0] @ p["weight_ih"].T + h_0 @ p["weight_hh"].T + p["bias_ih"] + p["bias_hh"]
        a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)
        p_i, p_f, p_o = np.split(p["weight_ch"], 3)
        i, f = reference.sigmoid(a_i + p_i * c_0), reference.sigmoid(a_f + p_f * c_0)
        keep_h, keep_c = options["zoneout_h"][0], options["zoneout_c"][0]
        c = np.clip(f * c_0 + i * np.tanh(a_g), -0.3, 0.3)
        h = (reference.sigmoid(a_o + p_o * c) * np.tanh(c)) @ p["weight_hr"].T
        np.testing.assert_allclose(run.state[1], keep_c * c_0 + (1 - keep_c) * c, rtol=1e-13)
        np.testing.assert_allclose(run.state[0], keep_h * h_0 + (1 - keep_h) * h, rtol=1e-13)

    def test_wide_clips_change_nothing(self, rng):
        x, params, state, _ = self.setup(rng)
        wide = LstmCell(CellOptions(gate_clip=1e3, cell_clip=1e3))
        runs = [reference.recurrent_forward(x, params, state, cell=cell) for cell in (LSTM, wide)]
        np.testing.assert_array_equal(runs[0].y, runs[1].y)

    def test_the_carried_c_is_clipped(self, rng):
        x, params, state, options = self.setup(rng, cell_clip=0.2)
        cells = reference.recurrent_forward(x, params, state, **options).cells
        assert np.abs(cells).max() == 0.2

    def test_the_coupled_gate_reads_no_weights(self, rng):
        x, params, state, options = self.setup(rng, coupled=True, peephole=True)
        run = reference.recurrent_forward(x, params, state, **options)
        gates = reference.trace(run.tape)
        np.testing.assert_array_equal(gates["f"], 1.0 - gates["i"])
        grads = reference.recurrent_backward(run.tape, np.ones(run.y.shape)).d_params
        for name, grad in grads.items():
            assert not grad[HIDDEN : 2 * HIDDEN].any(), name
            assert grad[:HIDDEN].all(), name

    def test_a_mask_on_h_is_a_mask_on_the_columns_of_weight_hh(self, rng):
        x, params, state, options = self.setup(rng)
        mask = np.array([0.0, 2.0, 1.0])
        masked = params | {"weight_hh": params["weight_hh"] * mask}
        want = reference.recurrent_forward(x, masked, state, **options)
        got = reference.recurrent_forward(
            x, params, state, **options, recurrent_mask=np.tile(mask, (BATCH, 1))
        )
        np.testing.assert_allclose(got.y, want.y, rtol=1e-13)

    def test_trace_and_cells_are_those_of_the_steps(self, rng):
        x, params, state, options = self.setup(rng)
        run = reference.recurrent_forward(x, params, state, **options, **SPANS)
        gates = reference.trace(run.tape)
        assert list(gates) == ["i", "f", "g", "o"]
        alive = np.arange(STEPS)[:, None] < LENGTHS
        before = np.concatenate([state[1][None], run.cells[:-1]])
        before[RESETS] = 0.0
        c = np.where(alive[:, :, None], gates["f"] * before + gates["i"] * gates["g"], 0.0)
        np.testing.assert_allclose(run.cells, c, rtol=1e-14)
        np.testing.assert_allclose(run.y, gates["o"] * np.tanh(c), rtol=1e-14)
        for gate in (*gates.values(), run.cells, run.y):
            assert not gate[~alive].any()


@pytest.mark.parametrize("name", reference.ACTIVATIONS)
def test_the_slope_follows_from_the_value(name, rng):
    for activation in (reference.Activation(name), *PARAMETERS.get(name, ())):
        x = rng.uniform(-4, 4, 50)
        slope = activation.slope(activation(x))
        step = 1e-6
        np.testing.assert_allclose(
            slope, (activation(x + step) - activation(x - step)) / (2 * step), atol=1e-8
        )


PARAMETERS = {
    "hard_sigmoid": [reference.Activation("hard_sigmoid", 1 / 6)],
    "affine": [reference.Activation("affine", -2.0, 1.0)],
    "leaky_relu": [reference.Activation("leaky_relu", 0.0), reference.Activation("leaky_relu", 0.3)],
    "scaled_tanh": [reference.Activation("scaled_tanh", 1.7, 0.6)],
    "elu": [reference.Activation("elu", 0.3)],
    "thresholded_relu": [reference.Activation("thresholded_relu", 0.5)],
}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CellOptions(gate_clip=0.0), "gate_clip: expected None or a number > 0, got 0.0"),
        (lambda: CellOptions(cell_clip=-1.0), "cell_clip: expected None or a number > 0, got -1.0"),
        (lambda: CellOptions(activations=("tanh",)), "activations: expected 3, of gates, candidate and c"),
        (lambda: CellOptions(activations=("tanh", "tan", "tanh")), "expected one of sigmoid, .*got 'tan'"),
        (lambda: reference.Activation("tanh", 1.0), "alpha: expected none for tanh, got 1.0"),
        (lambda: reference.Activation("relu", beta=1.0), "beta: expected none for relu, got 1.0"),
        (lambda: reference.Activation("elu", -1.0), "alpha: expected a number >= 0 for elu, got -1.0"),
        (
            lambda: reference.Activation("scaled_tanh", 0),
            "alpha: expected a number > 0 for scaled_tanh, got 0",
        ),
    ],
)
def test_refused_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class TestStatistics:
    VARIANT = next(v for v in VARIANTS if v.inference)

    def test_a_cell_without_has_none(self, rng):
        x, params, state, options = problem(rng, VARIANTS[0])
        given = reference.initial_statistics(3, HIDDEN)
        with pytest.raises(ValueError, match="statistics: expected some of none, got running_mean_c, "):
            reference.recurrent_forward(x, params, state, **options | {"statistics": given})

    def test_missing(self, rng):
        x, params, state, options = problem(rng, self.VARIANT)
        del options["statistics"]["running_var_c"]
        with pytest.raises(KeyError, match="running_var_c"):
            reference.recurrent_forward(x, params, state, **options)

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((2, 12), r"running_mean_hh: expected shape \(3, 12\), got \(2, 12\)"),
            ((3, 3), r"running_mean_hh: expected shape \(3, 12\), got \(3, 3\)"),
        ],
    )
    def test_wrong_shapes(self, rng, shape, message):
        x, params, state, options = problem(rng, self.VARIANT)
        options["statistics"]["running_mean_hh"] = np.zeros(shape)
        with pytest.raises(ValueError, match=message):
            reference.recurrent_forward(x, params, state, **options)

    def test_no_steps(self, rng):
        x, params, state, options = problem(rng, self.VARIANT)
        options["statistics"] = reference.initial_statistics(0, HIDDEN)
        with pytest.raises(ValueError, match="running_mean_ih: expected one step or more, got 0"):
            reference.recurrent_forward(x, params, state, **options)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weight_ch": np.zeros(9)}, "params: expected some of weight_ih, .*, bias_hh, got weight_ch"),
        ({"weight_hr": np.zeros((2, 2))}, r"weight_hr: expected shape \(\*, 3\), got \(2, 2\)"),
        ({"zoneout_h": np.zeros((2, 2))}, r"zoneout_h: expected shape \(5, 4, 3\), got \(2, 2\)"),
        ({"recurrent_mask": np.zeros((2, 2))}, r"recurrent_mask: expected shape \(4, 3\), got \(2, 2\)"),
    ],
)
def test_refusals(rng, changed, message):
    x, params, state, options = problem(rng, VARIANTS[0])
    for name, value in changed.items():
        (params if name.startswith("weight") else options)[name] = value
    with pytest.raises(ValueError, match=message):
        reference.recurrent_forward(x, params, state, **options)


def test_a_cell_without_c_takes_nothing_for_it(rng):
    variant = VARIANTS[0]._replace(cell=reference.GRU)
    x, params, state, options = problem(rng, variant)
    forward = reference.recurrent_forward
    with pytest.raises(ValueError, match="zoneout_c: expected None, for the cell gru has no c"):
        forward(x, params, state, **options, zoneout_c=np.zeros((STEPS, BATCH, HIDDEN)))
    with pytest.raises(ValueError, match="state: expected 1 arrays, got 2"):
        forward(x, params, (None, None), **options)
    with pytest.raises(ValueError, match=r"params: expected some of .*, got weight_hr"):
        forward(x, params | {"weight_hr": np.zeros((3, 3))}, state, **options)
    run = forward(x, params, state, **options)
    assert run.cells is None
    with pytest.raises(ValueError, match="dcells: expected None, for the cell gru has no c"):
        reference.recurrent_backward(run.tape, dcells=np.zeros((STEPS, BATCH, HIDDEN)))
    backward = reference.recurrent(x, {f"{n}_l0": p for n, p in params.items()}, cell=reference.GRU)[2]
    with pytest.raises(ValueError, match="cells: expected a cell with a c, got one with h alone"):
        _ = backward.cells


@pytest.mark.parametrize(**PARAMETRIZE)
@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (3, 0)])
def test_nothing_to_do(rng, variant, steps, batch):
    params = make_params(rng, variant)
    run = reference.recurrent_forward(np.zeros((steps, batch, INPUTS)), params, cell=variant.cell)
    got = reference.recurrent_backward(run.tape, np.zeros(run.y.shape))
    assert run.y.shape == (steps, batch, variant.projection or HIDDEN)
    assert run.cells is None or run.cells.shape == (steps, batch, HIDDEN)
    for name, gradient in got.d_params.items():
        assert gradient.shape == params[name].shape
        assert not gradient.any()
