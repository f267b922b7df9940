"""The bindings' own checks: a wrong array is refused by name before anything is written."""

from __future__ import annotations

import numpy as np
import pytest

from lstmx import _core
from tests.kernels.arrays import assert_same_bits
from tests.kernels.lstm_case import PARAMETERS, make_case

T, B, I, H = 3, 4, 5, 6  # noqa: E741
FLOATS = (*PARAMETERS, "x", "h_0", "c_0", "y", "h_n", "c_n")
FORWARD = (*FLOATS[:-3], "lengths", "resets", *FLOATS[-3:])
BACKWARD = (
    *("x", "y", "h_0", "dy", "dh_n", "dc_n", "dx", "dh_0", "dc_0"),
    *(f"d_{name}" for name in PARAMETERS),
)
WRITTEN = ("y", "h_n", "c_n", "dx", "dh_0", "dc_0", *(f"d_{name}" for name in PARAMETERS))


@pytest.fixture
def arrays(rng):
    case = make_case(rng, T, B, I, H)
    shapes = {"y": (T, B, H), "dx": (T, B, I)}
    shapes |= dict.fromkeys(("h_n", "c_n", "dh_0", "dc_0"), (B, H))
    shapes |= {f"d_{name}": case[name].shape for name in PARAMETERS}
    spans = {"lengths": np.array([3, 0, 1, 2]), "resets": np.zeros((T, B), bool)}
    return case | spans | {name: np.full(shape, 7.0, np.float32) for name, shape in shapes.items()}


def spoilt(array):
    """What a wrong array of this kind may look like."""
    wrong_bytes = array.astype(array.dtype.newbyteorder())
    yield "float64", array.astype(np.float64)
    yield "float16", array.astype(np.float16)
    yield "int32", array.astype(np.int32)
    yield "other byte order", wrong_bytes
    yield "one axis more", array[None]
    yield "one axis less", array[0]
    yield "one row less", array[:-1]
    yield "one column more", np.concatenate([array, array[..., :1]], axis=-1)
    yield "no columns", array[..., :0]
    yield "last axis not contiguous", np.repeat(array, 2, axis=-1)[..., ::2]
    yield "last axis reversed", array[..., ::-1]
    if array.ndim > 1:
        yield "transposed", np.asfortranarray(array)
    packed = np.zeros(array.shape, [("pad", "u1"), ("value", "<f4")])["value"]
    yield "strides that are no whole floats", packed
    yield "a list", array.tolist()


def refused(call, arguments, name):
    """Whether the call is refused by name; nothing may be written."""
    before = {n: np.array(a) for n, a in arguments.items() if n in WRITTEN and isinstance(a, np.ndarray)}
    with pytest.raises((ValueError, TypeError)) as error:
        call(arguments)
    if error.type is ValueError:
        assert str(error.value).startswith(f"{name}: expected"), error.value
    for written, array in before.items():
        np.testing.assert_array_equal(arguments[written], array, err_msg=written)


def forward(arguments, training=False, checkpoint_steps=0, threads=1):
    given = [arguments[name] for name in FORWARD]
    return _core.LstmPlan(I, H).forward(1, *given, training, checkpoint_steps, threads)


@pytest.mark.parametrize("name", FLOATS)
def test_forward_refuses(arrays, name):
    for what, wrong in spoilt(arrays[name]):
        print(what)
        if not (name == "x" and what == "one row less"):  # x says how many there are
            refused(forward, arrays | {name: wrong}, name)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("lengths", np.array([3, 0, 1, 2], np.int32)),
        ("lengths", np.array([3, 0, 1, 2], np.uint64)),
        ("lengths", np.array([3.0, 0.0, 1.0, 2.0])),
        ("lengths", np.array([3, 0, 1, 2], ">i8")),
        ("lengths", np.array([3, 0, 1])),
        ("lengths", np.array([[3, 0, 1, 2]])),
        ("lengths", np.array([3, 3, 0, 0, 1, 1, 2, 2])[::2]),
        ("lengths", np.array([4, 0, 1, 2])),
        ("lengths", np.array([3, 0, -1, 2])),
        ("lengths", np.array([3, 0, 1, 2**62])),
        ("resets", np.zeros((T, B), np.uint8)),
        ("resets", np.zeros((T, B), np.float32)),
        ("resets", np.zeros((T, B + 1), bool)),
        ("resets", np.zeros((T - 1, B), bool)),
        ("resets", np.zeros(T * B, bool)),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.dtype}-{value.shape}",
)
def test_forward_refuses_lengths_and_resets(arrays, name, wrong):
    refused(forward, arrays | {name: wrong}, name)


@pytest.mark.parametrize("checkpoint_steps", [-1, -(2**62)])
def test_checkpoint_steps(arrays, checkpoint_steps):
    with pytest.raises(ValueError, match="checkpoint_steps: expected at least 0"):
        forward(arrays, checkpoint_steps=checkpoint_steps)


@pytest.mark.parametrize("name", BACKWARD)
def test_backward_refuses_and_can_then_be_called_rightly(arrays, name):
    tape = forward(arrays, training=True)

    def backward(arguments):
        tape.backward(*(arguments[n] for n in BACKWARD), 1)

    for what, wrong in spoilt(arrays[name]):
        print(what)
        refused(backward, arrays | {name: wrong}, name)
    backward(arrays)


@pytest.mark.parametrize("name", [n for n in WRITTEN if n in FORWARD])
def test_read_only_outputs_of_forward_are_refused(arrays, name):
    arrays[name].setflags(write=False)
    refused(forward, arrays, name)


@pytest.mark.parametrize("name", [n for n in WRITTEN if n not in FORWARD])
def test_read_only_outputs_of_backward_are_refused(arrays, name):
    tape = forward(arrays, training=True)
    arrays[name].setflags(write=False)
    refused(lambda arguments: tape.backward(*(arguments[n] for n in BACKWARD), 1), arrays, name)


@pytest.mark.parametrize("name", ["weight_ih", "weight_hh", "x", "y", "h_n", "c_n"])
def test_none_is_refused_where_an_array_is_needed(arrays, name):
    refused(forward, arrays | {name: None}, name)


def test_read_only_inputs_are_fine(arrays):
    for name in (*PARAMETERS, "x", "h_0", "c_0"):
        arrays[name].setflags(write=False)
    forward(arrays)


@pytest.mark.parametrize("threads", [0, -1])
def test_number_of_threads(arrays, threads):
    with pytest.raises(ValueError, match="threads: expected at least 1"):
        forward(arrays, threads=threads)


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0), (-1, 3), (3, -1), (2**40, 1), (1, 2**40)])
@pytest.mark.parametrize("plan", [_core.LstmPlan, _core.LinearPlan])
def test_sizes_of_a_plan(plan, sizes):
    with pytest.raises(ValueError, match="expected 1 to"):
        plan(*sizes)


@pytest.mark.parametrize("name", ["weight", "bias", "x", "y"])
def test_linear_forward_refuses(rng, name):
    shapes = {"weight": (6, 5), "bias": (6,), "x": (4, 5), "y": (4, 6)}
    arrays = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}

    def call(arguments):
        _core.LinearPlan(5, 6).forward(1, *(arguments[n] for n in shapes), False, 1)

    for what, wrong in spoilt(arrays[name]):
        print(what)
        if not (name == "x" and what == "one row less"):
            refused(call, arrays | {name: wrong}, name)


@pytest.mark.parametrize("name", ["x", "dy", "dx", "d_weight", "d_bias"])
def test_linear_backward_refuses(rng, name):
    shapes = {"x": (4, 5), "dy": (4, 6), "dx": (4, 5), "d_weight": (6, 5), "d_bias": (6,)}
    arrays = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    weight, y = np.ones((6, 5), np.float32), np.empty((4, 6), np.float32)
    tape = _core.LinearPlan(5, 6).forward(1, weight, None, arrays["x"], y, True, 1)

    def call(arguments):
        tape.backward(*(arguments[n] for n in shapes), 1)

    for what, wrong in spoilt(arrays[name]):
        print(what)
        refused(call, arrays | {name: wrong}, name)
    before = arrays["d_weight"].copy()
    call(arrays)
    with pytest.raises(AssertionError):
        assert_same_bits("d_weight", arrays["d_weight"], before)
