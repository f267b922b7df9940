"""Streams: bits of the whole sequence however it is cut, rows begun anew, copies, saved states, refusals."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import lstmx

T, B, F = 7, 4, 3

MODELS = {
    "lstm": lambda: lstmx.LSTM(F, 5, rng=0),
    "batch first": lambda: lstmx.LSTM(F, 5, batch_first=True, rng=0),
    "two layers": lambda: lstmx.LSTM(F, 5, 2, dropout=0.5, rng=0),
    "linear": lambda: lstmx.Linear(F, 5, rng=0),
    "dropout": lambda: lstmx.Dropout(0.5, rng=0),
    "sequential": lambda: lstmx.Sequential(
        lstmx.Dropout(0.5, rng=0),
        lstmx.Linear(F, 6, rng=0),
        lstmx.Sequential(lstmx.LSTM(6, 5, 2, batch_first=True, rng=0), lstmx.Linear(5, 4, rng=0)),
        lstmx.LSTM(4, 5, batch_first=True, rng=0),
    ),
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


def batch_first(model):
    return bool(model.batch_first)


def inputs(rng, model, steps=T):
    """A sequence in the model's layout, and what the model makes of it at once."""
    x = rng.standard_normal((steps, B, F)).astype(np.float32)
    x = np.ascontiguousarray(x.swapaxes(0, 1)) if batch_first(model) else x
    return x, model(x)[0]


def at(model, array, steps):
    """The steps of a sequence in the model's layout, as a view."""
    return array[:, steps] if batch_first(model) else array[steps]


def assert_same_state(got, expected):
    assert type(got) is type(expected)
    if isinstance(got, tuple):
        for a, b in zip(got, expected, strict=True):
            assert_same_state(a, b)
    elif got is not None:
        np.testing.assert_array_equal(got, expected)


class TestBits:
    def test_steps(self, rng, model):
        x, y = inputs(rng, model)
        stream = model.stream(B)
        for t in range(T):
            np.testing.assert_array_equal(stream.step(at(model, x, t)), at(model, y, t))
        assert_same_state(stream.state, model(x)[1])

    @pytest.mark.parametrize("cuts", [[T], [3, 4], [0, 1, 6], ["step", 4, "step", 1], [5, "step", "step"]])
    def test_any_mix_of_steps_and_chunks(self, rng, model, cuts):
        x, y = inputs(rng, model)
        stream, t = model.stream(B), 0
        for cut in cuts:
            if cut == "step":
                np.testing.assert_array_equal(stream.step(at(model, x, t)), at(model, y, t))
                t += 1
            else:
                steps = slice(t, t + cut)
                np.testing.assert_array_equal(stream.run(at(model, x, steps)), at(model, y, steps))
                t += cut
        assert t == T

    def test_on_every_target(self, rng, target):
        self.test_steps(rng, MODELS["sequential"]())

    def test_what_an_array_may_be(self, rng, model):
        x, y = inputs(rng, model)
        x_0, want = at(model, x, 0), at(model, y, 0)
        np.testing.assert_array_equal(model.stream(B).step(x_0.tolist()), want)
        np.testing.assert_array_equal(model.stream(B).step(x_0.astype(np.float64)), want)
        np.testing.assert_array_equal(model.stream(B).step(np.asfortranarray(x_0)), want)

    def test_one_row(self, rng):
        lstm = MODELS["lstm"]()
        x, y = inputs(rng, lstm)
        stream = lstm.stream(1)
        for t in range(T):
            np.testing.assert_array_equal(stream.step(x[t, :1]), y[t, :1])

    def test_results_stay_when_the_stream_goes_on(self, rng, model):
        x, y = inputs(rng, model)
        stream = model.stream(B)
        first, state = stream.step(at(model, x, 0)), stream.state
        kept = copy.deepcopy(state)
        stream.run(at(model, x, slice(1, T)))
        stream.reset(0)
        np.testing.assert_array_equal(first, at(model, y, 0))
        assert_same_state(state, kept)


class TestReset:
    def test_all_rows(self, rng, model):
        x, y = inputs(rng, model)
        stream = model.stream(B)
        stream.run(x)
        stream.reset()
        assert stream.state is None
        np.testing.assert_array_equal(stream.run(x), y)

    @pytest.mark.parametrize(
        "rows", [[1, 3], np.array([False, True, False, True]), (3, 1, 1), np.array([1, 3], np.uint8)]
    )
    def test_some_rows(self, rng, model, rows):
        x, _ = inputs(rng, model)
        more, _ = inputs(rng, model)
        stream, on = model.stream(B), model.stream(B)
        bad = x.copy()
        rows_of_x = bad if batch_first(model) else bad.swapaxes(0, 1)
        rows_of_x[[1, 3]] = np.nan  # what is reset is forgotten, whatever it was
        stream.run(bad)
        on.run(x)
        stream.reset(rows)
        got, went_on, anew = stream.run(more), on.run(more), model(more)[0]
        for b in range(B):
            row = (b,) if batch_first(model) else (slice(None), b)
            np.testing.assert_array_equal(got[row], (anew if b in (1, 3) else went_on)[row])

    def test_one_row_and_none(self, rng):
        lstm = MODELS["lstm"]()
        x, _ = inputs(rng, lstm)
        stream = lstm.stream(B)
        stream.run(x)
        before = stream.state
        stream.reset([])
        assert_same_state(stream.state, before)
        stream.reset(2)
        h, c = stream.state
        assert not h[:, 2].any()
        assert not c[:, 2].any()
        assert h[:, 1].any()

    def test_before_the_first_step(self, rng, model):
        x, y = inputs(rng, model)
        stream = model.stream(B)
        stream.reset([0])
        np.testing.assert_array_equal(stream.run(x), y)


class TestCopies:
    def test_a_fork_goes_on_by_itself(self, rng, model):
        x, y = inputs(rng, model)
        other, _ = inputs(rng, model)
        stream = model.stream(B)
        stream.step(at(model, x, 0))
        fork = stream.fork()
        fork.run(other)
        fork.reset(0)
        np.testing.assert_array_equal(stream.run(at(model, x, slice(1, T))), at(model, y, slice(1, T)))
        again = model.stream(B)
        again.step(at(model, x, 0))
        np.testing.assert_array_equal(again.fork().run(at(model, x, slice(1, 3))), at(model, y, slice(1, 3)))

    def test_a_state_is_saved_and_restored(self, rng, model):
        x, y = inputs(rng, model)
        rest = at(model, x, slice(3, T)), at(model, y, slice(3, T))
        stream = model.stream(B)
        stream.run(at(model, x, slice(0, 3)))
        saved = stream.state
        for restored in (stream, model.stream(B)):
            for _ in range(2):  # what was restored is a copy: running on does not touch it
                restored.state = saved
                np.testing.assert_array_equal(restored.run(rest[0]), rest[1])
        stream.state = saved
        stream.reset([0])
        assert_same_state(model(at(model, x, slice(0, 3)))[1], saved)
        stream.state = None
        np.testing.assert_array_equal(stream.run(x), y)

    @pytest.mark.parametrize("how", [copy.deepcopy, lambda stream: pickle.loads(pickle.dumps(stream))])
    def test_copies_with_the_model(self, rng, model, how):
        x, y = inputs(rng, model)
        stream = model.stream(B)
        stream.step(at(model, x, 0))
        twin = how(stream)
        np.testing.assert_array_equal(twin.run(at(model, x, slice(1, T))), at(model, y, slice(1, T)))
        np.testing.assert_array_equal(stream.run(at(model, x, slice(1, T))), at(model, y, slice(1, T)))

    def test_repr(self):
        assert repr(lstmx.LSTM(3, 5).stream(2)) == "LSTM(3, 5).stream(2)"


def test_changed_parameters_count_from_the_next_step(rng):
    model = MODELS["sequential"]()
    x, y = inputs(rng, model)
    stream = model.stream(B)
    np.testing.assert_array_equal(stream.step(x[:, 0]), y[:, 0])
    with model.editing() as params:
        for view in params.values():
            view *= 0.5
    _, state = copy.deepcopy(MODELS["sequential"]())(x[:, :1])
    np.testing.assert_array_equal(stream.run(x[:, 1:]), model(x[:, 1:], state)[0])


def test_streams_of_one_model_in_many_threads(rng):
    model = MODELS["sequential"]()
    data = [inputs(rng, model, 30) for _ in range(4)]

    def work(item):
        stream = model.stream(B)
        return np.stack([stream.step(item[0][:, t]) for t in range(30)], 1)

    with ThreadPoolExecutor(4) as pool:
        for got, (_, y) in zip(pool.map(work, data), data, strict=True):
            np.testing.assert_array_equal(got, y)


def zeros(*shape):
    return np.zeros(shape, np.float32)


STATE = (zeros(1, B, 5), zeros(1, B, 5))

REFUSED = [
    (lambda s: s.step(zeros(B, 2)), ValueError, r"x_t: expected shape \(4, 3\), got \(4, 2\)"),
    (lambda s: s.step(zeros(3, F)), ValueError, r"x_t: expected shape \(4, 3\), got \(3, 3\)"),
    (lambda s: s.step(zeros(1, B, F)), ValueError, r"x_t: expected shape \(4, 3\), got \(1, 4, 3\)"),
    (lambda s: s.step("text"), TypeError, "x_t: expected real numbers"),
    (lambda s: s.run(zeros(B, F)), ValueError, r"x_chunk: expected shape \(\*, 4, 3\), got \(4, 3\)"),
    (lambda s: s.run(zeros(B, 2, F)), ValueError, r"x_chunk: expected shape \(\*, 4, 3\), got \(4, 2, 3\)"),
    (lambda s: s.run([[1, 2], [3]]), TypeError, "x_chunk: expected an array of real numbers"),
    (lambda s: s.reset(4), ValueError, "rows: expected 0 to 3, got 4"),
    (lambda s: s.reset([0, -1]), ValueError, "rows: expected 0 to 3, got -1"),
    (lambda s: s.reset([True]), ValueError, r"rows: expected a mask of shape \(4,\), got \(1,\)"),
    (lambda s: s.reset([0.0]), TypeError, "rows: expected integers or a mask, got dtype float64"),
    (lambda s: s.reset([[1], 2]), TypeError, "rows: expected integers or a mask, got list"),
    (lambda s: setattr(s, "state", 1), TypeError, r"state: expected a pair \(h_0, c_0\), got int"),
    (
        lambda s: setattr(s, "state", (zeros(1, 2, 5), zeros(1, 2, 5))),
        ValueError,
        r"state\[0\] \(h_0\): expected shape \(1, 4, 5\), got \(1, 2, 5\)",
    ),
]


@pytest.mark.parametrize(("call", "error", "match"), REFUSED, ids=[r[2] for r in REFUSED])
def test_what_is_refused_leaves_the_stream_as_it_was(rng, call, error, match):
    lstm = MODELS["lstm"]()
    x, _ = inputs(rng, lstm)
    stream = lstm.stream(B)
    stream.run(x)
    before = stream.state
    with pytest.raises(error, match=match):
        call(stream)
    assert_same_state(stream.state, before)


def test_shapes_where_any_width_will_do():
    stream = lstmx.Dropout().stream(B)
    with pytest.raises(ValueError, match=r"x_t: expected shape \(4, \*\), got \(3, 2\)"):
        stream.step(zeros(3, 2))
    assert stream.step(zeros(B, 2)).shape == (B, 2)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: lstmx.LSTM(3, 5, bidirectional=True), r"got LSTM\(3, 5, bidirectional=True\), which also"),
        (lstmx.LastStep, r"got LastStep\(\), which waits"),
        (
            lambda: lstmx.Sequential(lstmx.Linear(3, 3), lstmx.Sequential(lstmx.LastStep())),
            r"stream: expected layers that need no later step, got LastStep\(\)",
        ),
    ],
)
def test_models_that_need_later_steps(make, match):
    with pytest.raises(ValueError, match=match):
        make().stream(B)


@pytest.mark.parametrize(
    ("batch_size", "error", "match"),
    [
        (0, ValueError, "batch_size: expected at least 1, got 0"),
        (2.0, TypeError, "batch_size: expected an int"),
    ],
)
def test_batch_sizes(batch_size, error, match):
    with pytest.raises(error, match=match):
        lstmx.LSTM(3, 5).stream(batch_size)
