"""The forecaster: no look-ahead, fair baselines, errors in the series' own unit, files and pictures."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import datetime, timedelta

import numpy as np
import pytest
from PIL import Image

import lstmx
from lstmx import files
from lstmx.tabular import TimeStep

DAY = TimeStep(microseconds=86_400_000_000)


def wave(rows: int = 300, seed: int = 0) -> np.ndarray:
    """A level that climbs, with a season of 12 rows and a little noise."""
    t = np.arange(rows)
    return 100 + 0.1 * t + 5 * np.sin(2 * np.pi * t / 12) + np.random.default_rng(seed).normal(0, 0.1, rows)


def small(**options) -> lstmx.Forecaster:
    return lstmx.Forecaster(**{"window": 24, "horizon": 6, "hidden_size": 8, "rng": 0, **options})


@pytest.fixture(scope="module")
def fitted() -> lstmx.Forecaster:
    forecaster = small(season=12, step=DAY, time_column="day")
    forecaster.fit(wave(), epochs=10)
    return forecaster


@pytest.mark.parametrize("normalize", ["last", "window", "train"])
def test_learns_a_wave_better_than_both_baselines(normalize):
    forecaster = small(normalize=normalize, season=12)
    level = wave() - 0.1 * np.arange(300)  # "train" is for levels that stay
    history = forecaster.fit(level, epochs=30, learning_rate=5e-3)
    metrics = forecaster.metrics
    assert metrics["lstm"]["mae"] < 0.5 * metrics["persistence"]["mae"]
    assert len(history["loss"]) == len(history["val_loss"]) == history.epochs
    prediction = forecaster.predict(level[:-6])
    assert prediction.shape == (6,)
    assert np.abs(prediction - level[-6:]).mean() < 1.0


def test_further_columns_help_where_they_tell_the_future(rng):
    """The target is the other column, six rows later."""
    cause = rng.normal(0, 1, 900)
    values = np.column_stack([np.roll(cause, 6), cause])[6:]
    options = {"hidden_size": 16, "window": 12}
    alone, both = small(columns=["effect"], **options), small(columns=["effect", "cause"], **options)
    for forecaster, data in ((alone, values[:, :1]), (both, values)):
        forecaster.fit(data, epochs=30, learning_rate=1e-2)
    assert both.metrics["lstm"]["mae"] < 0.5 * alone.metrics["lstm"]["mae"]
    assert both.predict(values).shape == (6,)


def test_the_validation_part_changes_neither_scale_nor_the_first_epoch_of_training():
    values = wave()
    changed = values.copy()
    changed[240:] = changed[240:] * -3 + 1000
    first, second = small(), small()
    history, other = (f.fit(v, val=0.2, epochs=1) for f, v in ((first, values), (second, changed)))
    assert history["loss"] == other["loss"]
    assert history["val_loss"] != other["val_loss"]
    assert first.model.arena.params.tobytes() == second.model.arena.params.tobytes()
    np.testing.assert_array_equal(first.predict(values[:240]), second.predict(values[:240]))


def test_the_training_part_ends_where_the_validation_part_begins():
    """The last row of the training part is a target; the first of the validation part is not."""
    values = wave()
    for row, same in ((239, False), (240, True)):
        changed = values.copy()
        changed[row] += 50
        first, second = small(normalize="train"), small(normalize="train")
        losses = [f.fit(v, val=0.2, epochs=1)["loss"] for f, v in ((first, values), (second, changed))]
        assert (losses[0] == losses[1]) is same


def test_the_best_epoch_is_kept():
    forecaster = small()
    noise = np.random.default_rng(0).normal(size=300)  # more training makes it worse
    history = forecaster.fit(noise, epochs=30, learning_rate=0.05, patience=30)
    best = min(history["val_loss"])
    scale = forecaster._scale[0]
    assert forecaster.metrics["lstm"]["mae"] == pytest.approx(best * scale, rel=1e-4)
    assert history["val_loss"][-1] > best


def test_patience_ends_the_training():
    history = small().fit(
        np.random.default_rng(0).normal(size=300), epochs=200, patience=2, learning_rate=0.05
    )
    assert history.epochs < 200


def test_errors_are_those_of_the_forecasts_in_the_own_unit(fitted):
    values = wave()
    found = fitted.evaluate(values, start=280)
    firsts = range(280, 300 - 6 + 1)
    actual = np.array([values[first : first + 6] for first in firsts])
    forecasts = np.array([fitted.predict(values[:first]) for first in firsts])
    persistence = np.array([[values[first - 1]] * 6 for first in firsts])
    seasonal = np.array([values[first - 12 : first - 6] for first in firsts])
    assert found["forecasts"] == len(firsts)
    assert found["season"] == 12
    for name, forecast in (("lstm", forecasts), ("persistence", persistence), ("seasonal_naive", seasonal)):
        assert found[name]["mae"] == pytest.approx(np.abs(actual - forecast).mean(), rel=1e-6)
        assert found[name]["rmse"] == pytest.approx(np.sqrt(((actual - forecast) ** 2).mean()), rel=1e-6)


def test_a_season_shorter_than_the_horizon_is_repeated():
    values = np.tile([1.0, 2.0, 5.0, 3.0], 75)
    forecaster = small(season=4, normalize="train")
    forecaster.fit(values, epochs=1)
    assert forecaster.metrics["seasonal_naive"] == {"mae": 0.0, "rmse": 0.0}


def test_the_season_follows_from_the_step_or_is_absent():
    for options, season in (({"step": DAY}, 7), ({"step": DAY, "season": 5}, 5), ({}, None)):
        forecaster = small(**options)
        forecaster.fit(wave(), epochs=1)
        assert forecaster.metrics["season"] == season
        assert (forecaster.metrics["seasonal_naive"] is None) == (season is None)
    forecaster = small(season=280)
    forecaster.fit(wave(), epochs=1)
    assert forecaster.metrics["seasonal_naive"] is None


def test_only_the_last_window_counts_and_levels_may_drift(fitted):
    values = wave()
    np.testing.assert_array_equal(fitted.predict(values), fitted.predict(values[-24:]))
    np.testing.assert_allclose(
        fitted.predict(values + 1000), fitted.predict(values) + 1000, rtol=0, atol=1e-4
    )


def test_a_constant_series_and_a_constant_column():
    forecaster = small()
    forecaster.fit(np.full(300, 7.0), epochs=2)
    assert np.isfinite(forecaster.predict(np.full(24, 7.0))).all()
    for normalize in ("last", "window", "train"):
        forecaster = small(columns=["a", "b"], normalize=normalize)
        forecaster.fit(np.column_stack([wave(), np.full(300, 3)]), epochs=2)
        assert np.isfinite(forecaster.metrics["lstm"]["rmse"])


def test_the_same_seed_gives_the_same_forecaster():
    first, second, third = small(rng=5), small(rng=5), small(rng=6)
    for forecaster in (first, second, third):
        forecaster.fit(wave(), epochs=2)
    assert first.predict(wave()).tobytes() == second.predict(wave()).tobytes()
    assert first.predict(wave()).tobytes() != third.predict(wave()).tobytes()


def test_callbacks_are_called():
    class Count(lstmx.callbacks.Callback):
        epochs = 0

        def on_epoch_end(self, epoch, logs):
            assert "val_loss" in logs
            self.epochs += 1

    count = Count()
    small().fit(wave(), epochs=3, callbacks=[count])
    assert count.epochs == 3


def test_the_smallest_series_that_fits_is_accepted():
    forecaster = small()
    for val in (0.01, 0.2, 0.5, 0.9):
        rows = forecaster.rows_needed(val)
        forecaster.fit(wave(rows), val=val, epochs=1)
        with pytest.raises(ValueError, match=rf"values: expected at least {rows} rows .* got {rows - 1}"):
            forecaster.fit(wave(rows - 1), val=val, epochs=1)


# ---------------------------------------------------------------- files and copies


def test_save_and_load_give_the_same_forecasts_bit_for_bit(fitted, tmp_path):
    fitted.save(tmp_path / "f")
    again = lstmx.Forecaster.load(tmp_path / "f")
    assert again.predict(wave()).tobytes() == fitted.predict(wave()).tobytes()
    assert repr(again) == repr(fitted)
    assert again.metrics == fitted.metrics
    assert again.step == DAY
    assert isinstance(lstmx.load(tmp_path / "f"), lstmx.Sequential)


def test_copies_give_the_same_forecasts(fitted):
    for again in (copy.deepcopy(fitted), pickle.loads(pickle.dumps(fitted))):
        assert again.predict(wave()).tobytes() == fitted.predict(wave()).tobytes()
        assert repr(again) == repr(fitted)


def test_repr_is_the_call_that_makes_it(fitted):
    again = eval(repr(fitted), {"Forecaster": lstmx.Forecaster, "TimeStep": TimeStep})
    assert repr(again) == repr(fitted)


def change(path, key: str, value: object) -> None:
    """Write the file anew with another value (None: none) in its description."""
    tensors, metadata = files.read_tensors(path)
    extra = json.loads(metadata["extra"])
    del extra["forecaster"][key]
    if value is not None:
        extra["forecaster"][key] = value
    files.write_tensors(path, tensors, {**metadata, "extra": json.dumps(extra)})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("window", -1, "window: expected at least 2, got -1"),
        ("window", "24", "window: expected an integer"),
        ("horizon", 7, "expected a batch-first model from 1 columns to 7 steps"),
        ("columns", ["a", "b"], "expected a batch-first model from 2 columns to 6 steps"),
        ("columns", "ab", "expected a list of columns"),
        ("columns", [], "columns: expected one or more"),
        ("normalize", "none", "normalize: expected one of"),
        ("step", {"years": 1}, "years"),
        ("step", {"months": 99, "day": 99}, "time step: expected"),
        ("step", 3, "time step"),
        ("mean", [1.0, 2.0], "mean: expected 1 numbers"),
        ("mean", ["x"], "mean: expected a number"),
        ("scale", [0.0], "scale: expected numbers above 0"),
        ("time_column", 3, "time_column: expected a name"),
        ("metrics", None, "'metrics' is missing"),
    ],
)
def test_a_changed_description_is_refused(fitted, tmp_path, key, value, message):
    fitted.save(tmp_path / "f")
    change(tmp_path / "f", key, value)
    with pytest.raises(ValueError, match=r"/f: forecaster: .*" + message):
        lstmx.Forecaster.load(tmp_path / "f")


def test_other_models_are_refused(tmp_path):
    lstmx.save(tmp_path / "f", lstmx.Linear(1, 1))
    with pytest.raises(ValueError, match="a model, but not a forecaster's"):
        lstmx.Forecaster.load(tmp_path / "f")
    lstmx.save(tmp_path / "f", lstmx.Linear(1, 1), extra={"forecaster": {}})
    with pytest.raises(ValueError, match="expected the layers LSTM, LastStep, Linear, got Linear"):
        lstmx.Forecaster.load(tmp_path / "f")


def test_a_new_forecaster_can_neither_predict_nor_save(tmp_path):
    with pytest.raises(RuntimeError, match="call fit first"):
        small().predict(wave())
    with pytest.raises(RuntimeError, match="call fit before save"):
        small().save(tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- wrong arguments


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"columns": "abc"}, TypeError, "columns: expected a sequence of names, got 'abc'"),
        ({"columns": []}, ValueError, "columns: expected one or more different names"),
        ({"columns": ["a", "a"]}, ValueError, "columns: expected one or more different names"),
        ({"window": 1}, ValueError, "window: expected at least 2, got 1"),
        ({"horizon": 0}, ValueError, "horizon: expected at least 1, got 0"),
        ({"hidden_size": 1.5}, TypeError, "hidden_size: expected an integer, got 1.5"),
        ({"num_layers": 0}, ValueError, "num_layers"),
        ({"normalize": "z"}, ValueError, "normalize: expected one of 'last', 'window', 'train', got 'z'"),
        ({"season": 0}, ValueError, "season: expected at least 1"),
        ({"step": "1 day"}, TypeError, "step: expected a TimeStep or None"),
        ({"time_column": 0}, TypeError, "time_column: expected a name or None"),
    ],
)
def test_wrong_constructions_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        small(**options)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (["a"] * 300, TypeError, "values: expected real numbers, got dtype <U1"),
        (np.zeros(300, complex), TypeError, "values: expected real numbers, got dtype complex128"),
        (np.zeros((300, 2)), ValueError, r"values: expected shape \(\*, 1\), .* got \(300, 2\)"),
        (np.zeros((300, 1, 1)), ValueError, r"values: expected shape"),
        (
            np.where(np.arange(300) == 7, np.nan, 1.0),
            ValueError,
            "finite numbers, got nan in row 7, column 'value'",
        ),
        (np.zeros(10), ValueError, "values: expected at least .* rows"),
    ],
)
def test_wrong_values_are_refused(fitted, values, error, message):
    for use in (small().fit, fitted.predict, fitted.evaluate):
        with pytest.raises(error, match=message):
            use(values)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"val": 0.0}, ValueError),
        ({"val": 1.0}, ValueError),
        ({"val": "x"}, TypeError),
        ({"epochs": 0}, ValueError),
        ({"batch_size": 0}, ValueError),
        ({"patience": 0}, ValueError),
        ({"learning_rate": -1.0}, ValueError),
    ],
)
def test_wrong_fit_arguments_are_refused_and_change_nothing(options, error):
    forecaster = small()
    with pytest.raises(
        error, match=f"{'lr' if 'learning_rate' in options else next(iter(options))}: expected"
    ):
        forecaster.fit(wave(), **options)
    assert forecaster.model is None
    assert forecaster.metrics is None


def test_evaluate_refuses_starts_outside(fitted):
    for start in (23, 295):
        with pytest.raises(ValueError, match="start: expected"):
            fitted.evaluate(wave(), start=start)


# ---------------------------------------------------------------- pictures


def test_the_picture_is_drawn_with_and_without_times(fitted, tmp_path):
    times = [datetime(2024, 1, 1) + timedelta(days=k) for k in range(300)]
    for name, values, options in (
        ("times.png", wave(), {"times": times}),
        ("rows.png", wave(), {}),
        ("short.png", wave()[:24], {}),
    ):
        assert fitted.plot(tmp_path / name, values, **options) == tmp_path / name
        with Image.open(tmp_path / name) as picture:
            assert picture.size[0] > 500
    with pytest.raises(ValueError, match="times: expected 300, got 2"):
        fitted.plot(tmp_path / "x.png", wave(), times=times[:2])
    assert not (tmp_path / "x.png").exists()
