"""lstmx.functional: the same signatures as the reference, the same results, the refusals."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import lstmx
from lstmx import functional, reference
from tests.kernels.arrays import LAYOUTS, placed_input
from tests.kernels.lstm_case import PARAMETERS, assert_equal_results, assert_matches, expected, make_case, run
from tests.running_error import bounded
from tests.tolerances import assert_close

FORWARD = (*PARAMETERS, "h_0", "c_0")
SPANS = {"lengths": np.array([7, 0, 3, 1, 7, 5]), "resets": np.arange(42).reshape(7, 6) % 5 == 3}


def call(case, threads=None, checkpoint_steps=None):
    y, h_n, c_n, tape = functional.lstm_forward(
        case["x"],
        *(case[name] for name in FORWARD),
        lengths=case["lengths"],
        resets=case["resets"],
        checkpoint_steps=checkpoint_steps,
        threads=threads,
    )
    gradients = functional.lstm_backward(tape, *(case[n] for n in ("dy", "dh_n", "dc_n")), threads=threads)
    return {"y": y, "h_n": h_n, "c_n": c_n} | gradients._asdict()


@pytest.mark.parametrize("name", ["lstm_forward", "lstm_backward", "linear_forward", "linear_backward"])
def test_the_reference_takes_the_same_arguments(name):
    """Those of the reference, in order; besides them only what does not touch the maths."""
    ours, theirs = (list(inspect.signature(getattr(m, name)).parameters) for m in (functional, reference))
    assert ours[: len(theirs)] == theirs
    assert set(ours) - set(theirs) <= {"checkpoint_steps", "threads", "dtype"}


def test_the_results_have_the_same_fields():
    assert functional.LstmGradients._fields == reference.LstmGradients._fields
    assert functional.LinearGradients._fields == reference.LinearGradients._fields


class TestLstm:
    @pytest.mark.parametrize(
        "spans", [{}, {"lengths": SPANS["lengths"]}, {"resets": SPANS["resets"]}, SPANS], ids="+".join
    )
    @pytest.mark.parametrize("without", [(), ("bias_ih", "bias_hh", "h_0", "c_0"), ("dy",), ("dh_n", "dc_n")])
    def test_agrees_with_the_reference(self, target, rng, spans, without):
        case = make_case(rng, 7, 6, 5, 9, without) | spans
        got = call(case)
        assert_matches(got, expected(case))
        for name, array in run(case, threads=lstmx.get_num_threads()).items():
            np.testing.assert_array_equal(got[name], array, err_msg=name)

    def test_options_change_nothing(self, rng):
        case = make_case(rng, 30, 33, 9, 33)
        plain = call(case)
        for threads in (1, 2):
            assert_equal_results(call(case, threads=threads), plain)
        got = call(case, checkpoint_steps=7)
        for name in ("y", "h_n", "c_n", "dx", "dh_0", "dc_0"):
            np.testing.assert_array_equal(got[name], plain[name], err_msg=name)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_strides(self, rng, layout):
        case = make_case(rng, 7, 6, 5, 9)
        placed = case | {name: placed_input(case[name], layout) for name in ("x", "dy", *PARAMETERS[:2])}
        assert_equal_results(call(placed), call(case))

    def test_lists_and_other_numbers(self):
        x = [[[1, 2]], [[3, 4]]]
        weight_ih, weight_hh = np.ones((4, 2), int), np.full((4, 1), 0.5)
        y, h_n, c_n, tape = functional.lstm_forward(
            x, weight_ih, weight_hh, lengths=[1], resets=[[True], [False]]
        )
        want = reference.lstm_forward(x, weight_ih, weight_hh, lengths=[1])
        np.testing.assert_allclose(y, want[0], rtol=1e-6)
        assert y.dtype == h_n.dtype == c_n.dtype == np.float32
        assert all(g.dtype == np.float32 for g in functional.lstm_backward(tape, dh_n=[[1]]))

    def test_nothing_given_is_written_and_y_is_read_only(self, rng):
        case = make_case(rng, 7, 6, 5, 9) | {name: value.copy() for name, value in SPANS.items()}
        before = {name: array.copy() for name, array in case.items()}
        for array in case.values():
            array.setflags(write=False)
        y = call(case)["y"]
        for name, array in case.items():
            np.testing.assert_array_equal(array, before[name], err_msg=name)
        with pytest.raises(ValueError, match="read-only"):
            y[0] = 0

    def test_a_tape_serves_once(self, rng):
        case = make_case(rng, 7, 6, 5, 9)
        tape = functional.lstm_forward(case["x"], *(case[n] for n in PARAMETERS))[3]
        with pytest.raises(ValueError, match=r"dy: expected shape \(7, 6, 9\), got \(7, 9\)"):
            functional.lstm_backward(tape, case["dy"][:, 0])
        functional.lstm_backward(tape, case["dy"])
        with pytest.raises(RuntimeError):
            functional.lstm_backward(tape, case["dy"])

    @pytest.mark.parametrize(("steps", "batch"), [(0, 6), (7, 0)])
    def test_nothing_to_do(self, rng, steps, batch):
        case = make_case(rng, steps, batch, 5, 9)
        for name, got in call(case).items():
            np.testing.assert_array_equal(got, reference_of(case)[name], err_msg=name)


def reference_of(case):
    return {name: value.value for name, value in expected(case).items()}


class TestLinear:
    @pytest.mark.parametrize("bias", [False, True])
    @pytest.mark.parametrize("threads", [None, 2])
    def test_agrees_with_the_reference(self, target, rng, bias, threads):
        x, weight, b, dy = (rng.standard_normal(s).astype(np.float32) for s in ((8, 5), (17, 5), 17, (8, 17)))
        b = b if bias else None
        given = [bounded(a) for a in (x, weight, b)]
        y = functional.linear_forward(x, weight, b, threads=threads)
        assert_close("linear_y", y, reference.linear_forward(*given))
        got = functional.linear_backward(x, weight, dy, threads=threads)
        want = reference.linear_backward(*given[:2], bounded(dy))
        for name, table in (("dx", "linear_dx"), ("d_weight", "d_weight"), ("d_bias", "d_bias")):
            assert_close(table, getattr(got, name), getattr(want, name))


W = {"weight_ih": np.zeros((20, 2)), "weight_hh": np.zeros((20, 5))}
X = np.zeros((4, 3, 2))
LSTM_REFUSALS = [
    ({"x": np.zeros((4, 3))}, ValueError, r"x: expected shape \(\*, \*, \*\), got \(4, 3\)"),
    ({"x": np.zeros((4, 3, 2), complex)}, TypeError, "x: expected real numbers, got dtype complex128"),
    ({"weight_ih": np.zeros((20, 3))}, ValueError, r"weight_ih: expected shape \(\*, 2\), got \(20, 3\)"),
    ({"weight_ih": np.zeros((19, 2))}, ValueError, r"weight_ih: expected shape \(16, 2\), got \(19, 2\)"),
    ({"weight_hh": np.zeros((20, 4))}, ValueError, r"weight_hh: expected shape \(20, 5\), got \(20, 4\)"),
    ({"bias_ih": np.zeros(5)}, ValueError, r"bias_ih: expected shape \(20,\), got \(5,\)"),
    ({"bias_hh": "no"}, TypeError, "bias_hh: expected real numbers"),
    ({"h_0": np.zeros((1, 5))}, ValueError, r"h_0: expected shape \(3, 5\), got \(1, 5\)"),
    ({"c_0": np.zeros((3, 1))}, ValueError, r"c_0: expected shape \(3, 5\), got \(3, 1\)"),
    ({"lengths": [4, 4]}, ValueError, r"lengths: expected shape \(3,\), got \(2,\)"),
    ({"lengths": 4}, ValueError, r"lengths: expected shape \(3,\), got \(\)"),
    ({"lengths": [1.0, 2.0, 3.0]}, TypeError, "lengths: expected integers, got dtype float64"),
    ({"lengths": [True, False, True]}, TypeError, "lengths: expected integers, got dtype bool"),
    ({"lengths": [1, 5, 3]}, ValueError, "lengths: expected 0 to 4, the steps of x, got 5"),
    ({"lengths": [1, -1, 3]}, ValueError, "lengths: expected 0 to 4, the steps of x, got -1"),
    ({"lengths": [[1], [2, 3]]}, TypeError, "lengths: expected integers, got list"),
    ({"resets": np.zeros((3, 4), bool)}, ValueError, r"resets: expected shape \(4, 3\), got \(3, 4\)"),
    ({"resets": np.zeros((4, 3), int)}, TypeError, "resets: expected True and False, got dtype int64"),
    ({"checkpoint_steps": 0}, ValueError, "checkpoint_steps: expected at least 1, got 0"),
    ({"checkpoint_steps": 2.0}, TypeError, "checkpoint_steps: expected an integer, got 2.0"),
    ({"threads": 0}, ValueError, "threads: expected at least 1, got 0"),
]


@pytest.mark.parametrize(("change", "error", "match"), LSTM_REFUSALS, ids=[r[2] for r in LSTM_REFUSALS])
def test_lstm_refusals(change, error, match):
    with pytest.raises(error, match=match):
        functional.lstm_forward(**({"x": X} | W | change))


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((np.zeros((3, 2)), np.zeros((4, 3))), ValueError, r"weight: expected shape \(\*, 2\), got \(4, 3\)"),
        ((np.zeros(3), np.zeros((4, 3))), ValueError, r"x: expected shape \(\*, \*\), got \(3,\)"),
        ((np.zeros((3, 2)), np.zeros((4, 2)), np.zeros(3)), ValueError, "expected shape"),
    ],
)
def test_linear_refusals(arguments, error, match):
    with pytest.raises(error, match=match):
        functional.linear_forward(*arguments)
    with pytest.raises(error, match=match):
        functional.linear_backward(*arguments, *(() if len(arguments) == 3 else (np.zeros((3, 4)),)))


def test_a_tape_of_something_else_is_refused():
    with pytest.raises(TypeError, match="tape: expected what lstm_forward returned, got NoneType"):
        functional.lstm_backward(None)
