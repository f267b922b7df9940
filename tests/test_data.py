"""The data sets: what the batches hold, that they are views, order, shuffling, rows that continue."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from lstmx.data import Arrays, Batch, Stream, Windows, check_rows_continue


def series(steps, features=2):
    """Element [n, f] is n + f / 10: it tells where it came from."""
    return (np.arange(steps)[:, None] + np.arange(features) / 10).astype(np.float32)


# ---------------------------------------------------------------- Stream


@pytest.mark.parametrize(
    ("steps", "batch_size", "length"), [(3, 2, 12), (3, 2, 17), (5, 3, 20), (1, 1, 4), (9, 4, 8)]
)
def test_stream_cuts_the_series_into_equal_rows(steps, batch_size, length):
    x, y = series(length), series(length, 1) + 100
    stream = Stream(x, y, steps, batch_size)
    part = length // batch_size
    batches = list(stream)
    assert len(stream) == len(batches) == -(-part // steps)
    for row in range(batch_size):
        expected = slice(row * part, (row + 1) * part)
        np.testing.assert_array_equal(np.concatenate([batch.x[row] for batch in batches]), x[expected])
        np.testing.assert_array_equal(np.concatenate([batch.y[row] for batch in batches]), y[expected])
    assert all(batch.x.shape[1] == steps for batch in batches[:-1])
    assert stream.stateful
    assert stream.rngs() == []


def test_stream_of_the_sine_job():
    """Row r of batch n starts at t = 20 (n + r)."""
    t = np.arange(20.0 * (200 + 49))
    stream = Stream(t, t, steps=20, batch_size=50, row_offset=20)
    assert len(stream) == 200
    for n, (x, y, weights, mask) in enumerate(stream):
        assert x.shape == y.shape == (50, 20, 1)
        np.testing.assert_array_equal(x[:, 0, 0], 20 * (n + np.arange(50)))
        np.testing.assert_array_equal(x[:, :, 0], x[:, :1, 0] + np.arange(20))
        assert weights is mask is None
    check_rows_continue(stream)


def test_stream_batches_are_read_only_views():
    x, y = series(40), np.arange(40, dtype=np.float32)
    stream = Stream(x, y, 5, 4)
    for batch in stream:
        assert np.shares_memory(batch.x, x)
        assert np.shares_memory(batch.y, y)
        for array in batch[:2]:
            assert array.strides[-1] == array.itemsize
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0
    x[0, 0] = 77
    assert next(iter(stream)).x[0, 0, 0] == 77


def test_stream_weights_mask_and_classes():
    n = 24
    stream = Stream(series(n), np.arange(n) % 3, 4, 2, weights=np.arange(n), mask=np.arange(n) % 2 == 0)
    first = next(iter(stream))
    assert first.y.dtype.kind == "i"
    np.testing.assert_array_equal(first.y, [[0, 1, 2, 0], [0, 1, 2, 0]])
    np.testing.assert_array_equal(first.weights, [[0, 1, 2, 3], [12, 13, 14, 15]])
    np.testing.assert_array_equal(first.mask, [[True, False] * 2] * 2)


def test_stream_converts_once_what_is_not_float32():
    x = series(12).astype(np.float64)
    stream = Stream(x, x[:, 0].tolist(), 3, 2)
    batch = next(iter(stream))
    assert batch.x.dtype == batch.y.dtype == np.float32
    assert batch.y.shape == (2, 3, 1)
    backwards = series(12)[::-1, ::-1]
    np.testing.assert_array_equal(next(iter(Stream(backwards, backwards, 3, 2))).x[0], backwards[:3])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.zeros((2, 2, 2)), [0, 0], 1, 1), ValueError, r"x: expected shape \(N, features\) or \(N,\)"),
        ((["a", "b"], [0, 0], 1, 1), TypeError, "x: expected real numbers"),
        (([1, 2], [1, 2, 3], 1, 1), ValueError, r"y: expected length 2 as x, got shape \(3,\)"),
        (([1, 2], [1j, 2], 1, 1), TypeError, "y: expected real numbers"),
        (([1, 2], [1, 2], 0, 1), ValueError, "steps: expected at least 1, got 0"),
        (([1, 2], [1, 2], 1.0, 1), TypeError, "steps: expected an integer"),
        (([1, 2], [1, 2], 1, 3), ValueError, "x: expected at least 3 rows of 1 step, got 2 steps"),
        (([], [], 1, 1), ValueError, "x: expected at least 1 rows"),
    ],
)
def test_stream_refusals(arguments, error, message):
    with pytest.raises(error, match=message):
        Stream(*arguments)
    with pytest.raises(ValueError, match="row_offset: expected at least 1, got 0"):
        Stream([1, 2], [1, 2], 1, 1, row_offset=0)
    with pytest.raises(ValueError, match="row_offset=2"):
        Stream([1, 2], [1, 2], 1, 2, row_offset=2)


# ---------------------------------------------------------------- rows that continue


def test_rows_continue_in_streams():
    for row_offset in (None, 1, 7):
        check_rows_continue(Stream(series(60), series(60), 4, 3, row_offset=row_offset))


def test_rows_that_do_not_continue_are_found():
    x = series(24)
    rows = x.reshape(2, 12, 2)
    good = [Batch(rows[:, :4], rows[:, :4]), Batch(rows[:, 4:8], rows[:, 4:8])]
    check_rows_continue(good)
    with pytest.raises(ValueError, match="batch 1: row 0 of x does not continue row 0 of batch 0"):
        check_rows_continue([good[0], Batch(rows[:, 5:9], rows[:, 4:8])])
    with pytest.raises(ValueError, match="batch 1: row 0 of y does not continue"):
        check_rows_continue([good[0], Batch(rows[:, 4:8], rows[:, 5:9])])
    with pytest.raises(ValueError, match="batch 1: row 0 of x does not continue"):
        check_rows_continue([good[0], Batch(rows[::-1, 4:8], rows[:, 4:8])])
    with pytest.raises(ValueError, match="batch 1: expected 2 rows as before, got 1"):
        check_rows_continue([good[0], Batch(rows[:1, 4:8])])
    with pytest.raises(ValueError, match="row 0 of x does not continue"):
        check_rows_continue(Arrays(rows.reshape(6, 4, 2), batch_size=2))


def test_rows_of_copies_need_a_clock():
    x = series(24)
    rows = x.reshape(2, 12, 2)
    copies = [Batch(rows[:, start : start + 4].copy()) for start in (0, 4, 8)]
    with pytest.raises(ValueError, match=r"batch 1: x is no view .* give clock="):
        check_rows_continue(copies)
    check_rows_continue(copies, clock=0)
    check_rows_continue(copies, clock=1)
    with pytest.raises(
        ValueError, match=r"batch 1: row 0 .* clock goes from 3.0 to 8.0, expected increments of 1"
    ):
        check_rows_continue([copies[0], copies[2]], clock=0)
    with pytest.raises(ValueError, match="batch 1: row 1 does not continue"):
        check_rows_continue([copies[0], Batch(np.stack([rows[0, 4:8], rows[1, 5:9]]))], clock=0)
    with pytest.raises(ValueError, match="stands still"):
        check_rows_continue([Batch(np.zeros((2, 4, 1)))] * 2, clock=0)


# ---------------------------------------------------------------- Windows


@pytest.mark.parametrize("window", [1, 5])
@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("stride", [1, 4])
def test_windows_hold_what_they_should(window, horizon, stride):
    values = series(23, 3)
    data = Windows(values, window, horizon, stride, batch_size=4)
    expected = list(range(0, 23 - window - horizon + 1, stride))
    assert data.num_examples == len(expected)
    x = np.concatenate([batch.x for batch in data])
    y = np.concatenate([batch.y for batch in data])
    assert len(data) == len(list(data)) == -(-len(expected) // 4)
    for i, start in enumerate(expected):
        np.testing.assert_array_equal(x[i], values[start : start + window])
        np.testing.assert_array_equal(y[i], values[start + window : start + window + horizon])
    assert not data.stateful


def test_windows_are_read_only_views():
    values = series(100)
    for batch in Windows(values, 10, 2):
        assert np.shares_memory(batch.x, values)
        assert np.shares_memory(batch.y, values)
        with pytest.raises(ValueError, match="read-only"):
            batch.x[0, 0, 0] = 1
    flat = values[:, 0].copy()
    batch = next(iter(Windows(flat, 10, 2)))
    assert batch.x.shape == (32, 10, 1)
    assert np.shares_memory(batch.x, flat)


@pytest.mark.parametrize(
    ("targets", "columns"), [(2, [2]), ([0], [0]), ([-1, 0], [2, 0]), (np.array([1]), [1])]
)
def test_windows_of_some_targets(targets, columns):
    values = series(30, 3)
    batch = next(iter(Windows(values, 6, 2, targets=targets)))
    assert batch.x.shape == (23, 6, 3)
    np.testing.assert_array_equal(batch.y[4], values[10:12][:, columns])
    assert batch.y.strides[-1] == 4


def test_shuffled_windows_are_the_same_in_another_order():
    values = series(50)
    plain, shuffled = (
        Windows(values, 5, 2, batch_size=7),
        Windows(values, 5, 2, batch_size=7, shuffle=True, rng=3),
    )
    first, second = (np.concatenate([b.x[:, 0, 0] for b in shuffled]) for _ in range(2))
    ordered = np.concatenate([b.x[:, 0, 0] for b in plain])
    assert sorted(first) == sorted(second) == list(ordered)
    assert not np.array_equal(first, ordered)
    assert not np.array_equal(first, second)
    again = Windows(values, 5, 2, batch_size=7, shuffle=True, rng=3)
    np.testing.assert_array_equal(np.concatenate([b.x[:, 0, 0] for b in again]), first)
    for batch in shuffled:
        np.testing.assert_array_equal(batch.y[:, 0, 0], batch.x[:, 0, 0] + 5)
    [generator] = shuffled.rngs()
    state = generator.bit_generator.state
    np.testing.assert_array_equal(np.concatenate([b.x[:, 0, 0] for b in shuffled.in_order()]), ordered)
    assert generator.bit_generator.state == state
    assert plain.rngs() == []


def test_a_generator_is_taken_as_it_is():
    generator = np.random.default_rng(0)
    assert Arrays(np.zeros(3), shuffle=True, rng=generator).rngs() == [generator]
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    list(Windows(series(20), 3, 1, shuffle=True))
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_copies_of_windows_stay_small():
    values = series(1000, 1)
    data = Windows(values, 100, 10, shuffle=True, rng=1, targets=0)
    pickled = pickle.dumps(data)
    assert len(pickled) < 2 * values.nbytes + 2000
    original = [batch.x.copy() for batch in copy.deepcopy(data)]
    for other in (pickle.loads(pickled), copy.deepcopy(data)):
        for batch, expected in zip(other, original, strict=True):
            np.testing.assert_array_equal(batch.x, expected)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"series": np.zeros(9)},
            ValueError,
            r"series: expected at least window \+ horizon = 10 steps, got 9",
        ),
        ({"series": np.zeros((20, 1, 1))}, ValueError, "series: expected shape"),
        ({"series": "abc"}, TypeError, "series: expected real numbers"),
        ({"window": 0}, ValueError, "window: expected at least 1, got 0"),
        ({"horizon": 0}, ValueError, "horizon: expected at least 1, got 0"),
        ({"stride": 0}, ValueError, "stride: expected at least 1, got 0"),
        ({"batch_size": 0}, ValueError, "batch_size: expected at least 1, got 0"),
        ({"shuffle": 1}, TypeError, "shuffle: expected True or False"),
        ({"targets": 2}, ValueError, "targets: expected columns in 0 .. 1, got 2"),
        ({"targets": [-3]}, ValueError, "targets: expected columns in 0 .. 1, got -3"),
        ({"targets": []}, ValueError, "targets: expected at least one column"),
        ({"targets": [0.5]}, TypeError, "targets: expected an integer"),
    ],
)
def test_windows_refusals(arguments, error, message):
    with pytest.raises(error, match=message):
        Windows(**{"series": series(30), "window": 7, "horizon": 3, **arguments})


# ---------------------------------------------------------------- Arrays


def test_arrays_in_order_and_shuffled():
    x, y = np.arange(10, dtype=np.float32), np.arange(10) * 2
    weights, mask = np.arange(10) / 10, np.arange(10) % 2 == 0
    data = Arrays(x, y, 4, weights=weights, mask=mask)
    assert [len(batch.x) for batch in data] == [4, 4, 2]
    assert len(data) == 3
    assert all(np.shares_memory(batch.x, x) for batch in data)
    shuffled = Arrays(x, y, 4, shuffle=True, rng=0, weights=weights, mask=mask)
    for batch in [*data, *shuffled]:
        np.testing.assert_array_equal(batch.y, 2 * batch.x)
        np.testing.assert_array_equal(batch.weights, batch.x / np.float32(10))
        np.testing.assert_array_equal(batch.mask, batch.x % 2 == 0)
        assert batch.y.dtype.kind == "i"
    assert sorted(np.concatenate([batch.x for batch in shuffled])) == list(x)
    assert list(Arrays(x[:0], batch_size=4)) == []


def test_arrays_keeps_integers_for_an_embedding():
    x = np.arange(12).reshape(6, 2)
    (batch,) = Arrays(x)
    assert batch.x.dtype == x.dtype
    assert np.shares_memory(batch.x, x)
    assert next(iter(Arrays(x * 1.0))).x.dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": 3.0}, ValueError, r"x: expected at least 1 dimension"),
        ({"y": np.zeros(3)}, ValueError, r"y: expected length 4 as x, got shape \(3,\)"),
        ({"weights": np.zeros(3)}, ValueError, "weights: expected length 4"),
        ({"mask": np.zeros(4)}, TypeError, "mask: expected booleans"),
        ({"mask": np.zeros(3, bool)}, ValueError, "mask: expected length 4"),
        ({"batch_size": True}, TypeError, "batch_size: expected an integer"),
    ],
)
def test_arrays_refusals(arguments, error, message):
    with pytest.raises(error, match=message):
        Arrays(**{"x": np.zeros((4, 2)), **arguments})


def test_reprs_say_what_is_inside():
    assert repr(Stream(series(12), series(12, 1), 3, 2)) == (
        "Stream(<float32 (12, 2)>, <float32 (12, 1)>, steps=3, batch_size=2, row_offset=6)"
    )
    assert repr(Windows(series(12), 3, 2)).startswith(
        "Windows(<float32 (12, 2)>, window=3, horizon=2, stride=1,"
    )
    assert repr(Arrays(series(4))) == "Arrays(<float32 (4, 2)>, None, batch_size=32, shuffle=False)"
