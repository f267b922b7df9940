"""Forecaster: the next values of one column of an evenly spaced series, from a window of the last ones.

A many-to-one LSTM with its scaling, its columns and its time step as one object that is fitted, judged
against two baselines, saved and loaded. All at once: each of the `horizon` values has its own output. The
training loop is `lstmx.Trainer`'s, the windows are `lstmx.data.Windows`'s; here is what a forecast needs
besides them: scaling without look-ahead, the split by time, and errors in the series' own unit. No
probabilities, no covariates of the future.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lstmx import data, files
from lstmx._checks import FloatArray, check_choice, check_float, check_int
from lstmx.callbacks import Callback, EarlyStopping
from lstmx.layers import LSTM, LastStep, Linear, Sequential
from lstmx.optim import Adam
from lstmx.tabular import TimeStep
from lstmx.trainer import Trainer

if TYPE_CHECKING:
    from lstmx.history import History

Floats: TypeAlias = NDArray[np.float64]

NORMALIZATIONS = ("last", "window", "train")


class Forecaster:
    """Forecasts the next `horizon` values of the first column from the last `window` rows of all columns.

    Args:
        columns: Names of the columns of values. The first is the target, the others are further inputs.
        window: Rows that a forecast sees.
        horizon: Rows that it forecasts.
        hidden_size: Width of the LSTM.
        num_layers: LSTM layers.
        normalize: What the model sees instead of the values, over a scale of the training part: "last":
            differences from the window's last row, so that the model learns the way on from there, whatever
            the level; "window": each window with mean 0 and deviation 1; "train": the training part with
            mean 0 and deviation 1, for series whose level means the same for ever.
        season: Rows in a season, for the seasonal-naive baseline. None takes it from `step` (24 hours,
            7 days, 52 weeks, 12 months); without either there is no such baseline.
        step: The time between rows, if there is one; kept for who reads the forecast.
        time_column: The name of the time column, kept likewise.
        rng: Seed or generator of initial weights and shuffling: `np.random.default_rng(rng)`.

    Attributes:
        model: `Sequential(LSTM, LastStep, Linear)` after `fit` or `load`, None before.
        metrics: What `fit` found on the validation part (see `evaluate`), None before.

    Raises:
        TypeError, ValueError: An argument is of the wrong kind or out of range.

    >>> import numpy as np
    >>> import lstmx
    >>> t = np.arange(400)
    >>> level = 20 + 0.05 * t + 3 * np.sin(2 * np.pi * t / 12)
    >>> forecaster = lstmx.Forecaster(["level"], window=24, horizon=6, season=12, rng=0)
    >>> history = forecaster.fit(level, epochs=15)
    >>> forecaster.predict(level).shape
    (6,)
    >>> forecaster.metrics["lstm"]["mae"] < forecaster.metrics["persistence"]["mae"]
    True
    """

    def __init__(
        self,
        columns: Sequence[str] = ("value",),
        *,
        window: int = 96,
        horizon: int = 24,
        hidden_size: int = 32,
        num_layers: int = 1,
        normalize: str = "last",
        season: int | None = None,
        step: TimeStep | None = None,
        time_column: str | None = None,
        rng: Any = None,
    ) -> None:
        self.columns = _check_columns(columns)
        self.window = check_int("window", window, minimum=2)
        self.horizon = check_int("horizon", horizon, minimum=1)
        self.hidden_size = check_int("hidden_size", hidden_size, minimum=1)
        self.num_layers = check_int("num_layers", num_layers, minimum=1)
        self.normalize = check_choice("normalize", normalize, NORMALIZATIONS)
        self.season = None if season is None else check_int("season", season, minimum=1)
        if step is not None and not isinstance(step, TimeStep):
            raise TypeError(f"step: expected a TimeStep or None, got {step!r}")
        if time_column is not None and not isinstance(time_column, str):
            raise TypeError(f"time_column: expected a name or None, got {time_column!r}")
        self.step = step
        self.time_column = time_column
        self.model: Sequential | None = None
        self.metrics: dict[str, Any] | None = None
        self._rng = np.random.default_rng(rng)
        self._mean = np.zeros(len(self.columns))
        self._scale = np.ones(len(self.columns))

    def __repr__(self) -> str:
        named = (
            "window",
            "horizon",
            "hidden_size",
            "num_layers",
            "normalize",
            "season",
            "step",
            "time_column",
        )
        arguments = ", ".join(f"{name}={getattr(self, name)!r}" for name in named)
        return f"Forecaster({list(self.columns)!r}, {arguments})"

    @property
    def target(self) -> str:
        """The name of the column that is forecast: the first."""
        return self.columns[0]

    # ---------------------------------------------------------------- fitting

    def rows_needed(self, val: float = 0.2) -> int:
        """The fewest rows that `fit` takes: window and horizon to train on, horizon to judge by."""
        val = check_float("val", val, minimum=0.0, maximum=1.0, exclusive=True)
        rows = max(self.window + self.horizon, math.floor((self.window + self.horizon) / (1 - val)))
        while rows - _split(rows, val) < self.horizon or _split(rows, val) < self.window + self.horizon:
            rows += 1
        return rows

    def fit(
        self,
        values: ArrayLike,
        *,
        val: float = 0.2,
        epochs: int = 30,
        batch_size: int = 32,
        learning_rate: float = 2e-3,
        patience: int = 5,
        callbacks: Sequence[Callback] = (),
    ) -> History:
        """Train on the earlier part of a series, judge on the later one, keep the best epoch's weights.

        Scales come from the training part alone, and no target of the training part lies in the validation
        part. The validation part chooses the epoch, so the errors in `metrics` are a little kinder to the
        model than data that nobody has seen; the baselines choose nothing. Fitting again begins anew.

        Args:
            values: Real numbers [N, columns], or [N] for one column; evenly spaced, oldest first.
            val: The fraction of rows, at the end, that makes the validation part.
            epochs: Passes over the training part, at most.
            batch_size: Windows a training step.
            learning_rate: Adam's.
            patience: Epochs without a better validation loss after which training ends.
            callbacks: More callbacks for the trainer.

        Returns:
            The history: "loss" and "val_loss" (mean absolute error, scaled) an epoch.

        Raises:
            TypeError, ValueError: An argument is wrong; too few rows; a value is not finite.
            FloatingPointError: Training diverged.
        """
        values = self._check_values(values)
        val = check_float("val", val, minimum=0.0, maximum=1.0, exclusive=True)
        check_int("epochs", epochs, minimum=1)
        check_int("batch_size", batch_size, minimum=1)
        check_int("patience", patience, minimum=1)
        if len(values) < self.rows_needed(val):
            raise ValueError(
                f"values: expected at least {self.rows_needed(val)} rows (window {self.window}, horizon "
                f"{self.horizon}, val {val:g}), got {len(values)}"
            )
        split = _split(len(values), val)
        self._learn_scale(values[:split])
        scaled = ((values - self._mean) / self._scale).astype(np.float32)
        training = _ScaledWindows(self, scaled[:split], batch_size, shuffle=True, rng=self._rng)
        validation = _ScaledWindows(self, scaled[split - self.window :], 256, shuffle=False, rng=None)
        model = self._new_model()
        stopping = EarlyStopping(monitor="val_loss", patience=patience, restore_best_weights=True)
        trainer = Trainer(
            model,
            loss="mae",
            optimizer=Adam(lr=learning_rate),
            callbacks=[stopping, *callbacks],
            clip_norm=1.0,
        )
        history = trainer.fit(training, epochs=epochs, validation=validation)
        self.model = model
        self.metrics = self.evaluate(values, start=split)
        return history

    def _new_model(self) -> Sequential:
        lstm = LSTM(
            len(self.columns),
            self.hidden_size,
            self.num_layers,
            batch_first=True,
            forget_bias=1.0,
            rng=self._rng,
        )
        return Sequential(lstm, LastStep(), Linear(self.hidden_size, self.horizon, rng=self._rng))

    def _learn_scale(self, training: Floats) -> None:
        """The centre and the scale of each column, from the training part."""
        self._mean = training.mean(axis=0)
        if self.normalize == "last":  # the typical distance from the last row of a window
            lags = range(1, self.window)
            squares = [np.mean((training[lag:] - training[:-lag]) ** 2, axis=0) for lag in lags]
            scale = np.sqrt(np.mean(squares, axis=0))
        else:
            scale = training.std(axis=0)
        self._scale = np.where(scale > 0, scale, 1.0)  # a constant column stays 0

    # ---------------------------------------------------------------- use

    def predict(self, values: ArrayLike) -> Floats:
        """The next `horizon` values of the target, in its own unit.

        Args:
            values: [N, columns], or [N] for one column, up to now. The last `window` rows are read.

        Raises:
            RuntimeError: Neither fitted nor loaded.
            TypeError, ValueError: Not real numbers, not finite, too few rows or another number of columns.
        """
        values = self._check_values(values, minimum=self.window)
        forecast: Floats = self._forecast(values[None, -self.window :])[0]
        return forecast

    def evaluate(self, values: ArrayLike, *, start: int | None = None) -> dict[str, Any]:
        """Errors of all forecasts whose targets lie in `values[start:]`, beside those of two baselines.

        Persistence repeats the last value; seasonal-naive repeats the last season known at that time.

        Args:
            values: [N, columns], or [N] for one column.
            start: The first row that is a target; rows before it are the past. None: after the first window.

        Returns:
            `{"forecasts": how many, "lstm": {"mae", "rmse"}, "persistence": {...}, "seasonal_naive": {...},
            "season": int}`, errors in the target's unit, over all forecasts and steps ahead. None in place of
            seasonal-naive without a season, or where less than a season lies before `start`.
        """
        values = self._check_values(values, minimum=self.window + self.horizon)
        start = self.window if start is None else check_int("start", start, minimum=self.window)
        if start > len(values) - self.horizon:
            raise ValueError(f"start: expected at most {len(values) - self.horizon}, got {start}")
        target = values[:, 0]
        first_steps = np.arange(start, len(values) - self.horizon + 1)
        steps = first_steps[:, None] + np.arange(self.horizon)
        actual = target[steps]
        season = self._season()
        seasonal = None
        if season is not None and season <= start:
            seasonal = _errors(actual, target[steps - season * (1 + np.arange(self.horizon) // season)])
        return {
            "forecasts": len(first_steps),
            "lstm": _errors(actual, self._rolling(values, first_steps)),
            "persistence": _errors(actual, target[first_steps - 1][:, None]),
            "seasonal_naive": seasonal,
            "season": season,
        }

    def plot(
        self, path: str | os.PathLike[str], values: ArrayLike, *, times: Sequence[datetime] | None = None
    ) -> Path:
        """Draw the last rows, the forecasts that would have been made there, and the one that follows.

        Up to eight forecasts, one behind the other, each made without sight of what it forecasts.

        Args:
            path: The picture to write; the suffix chooses the format.
            values: As for `predict`.
            times: The N times of the rows; with `step` the axis shows them.

        Returns:
            The path written.

        Raises:
            ImportError: matplotlib is missing.
        """
        from lstmx import plotting

        values = self._check_values(values, minimum=self.window)
        if times is not None and len(times) != len(values):
            raise ValueError(f"times: expected {len(values)}, got {len(times)}")
        pieces = min(8, (len(values) - self.window) // self.horizon)
        firsts = len(values) - self.horizon * np.arange(pieces, -1, -1)
        forecasts = self._rolling(values, firsts)
        shown = np.arange(max(0, int(firsts[0]) - min(self.window, 2 * self.horizon)), len(values))
        figure, ax = plotting.new_figure()
        ax.plot(self._axis(shown, times), values[shown, 0], label=self.target, **plotting.TARGET)
        for first, forecast in zip(firsts, forecasts, strict=True):
            where = self._axis(np.arange(first - 1, first + self.horizon), times)
            line = np.concatenate(
                [values[first - 1 : first, 0], forecast]
            )  # joined to the row it starts from
            label = f"forecast, {self.horizon} steps" if first == firsts[0] else None
            ax.plot(where, line, label=label, **plotting.PREDICTION)
            ax.plot(where[:1], line[:1], ".", color=plotting.PREDICTION["color"])
        ax.axvline(self._axis(np.array([len(values) - 1]), times)[0], color="0.7", linewidth=1)
        ax.set_ylabel(self.target)
        ax.set_xlabel(self.time_column or "row")
        ax.grid(alpha=0.3)
        ax.legend()
        return plotting.save_figure(path, figure)

    def _axis(self, rows: NDArray[np.int64], times: Sequence[datetime] | None) -> list[Any]:
        """Positions of rows on the horizontal axis, also of rows yet to come."""
        if times is None or self.step is None:
            return list(rows)
        ahead = max(0, int(rows[-1]) - len(times) + 1)
        known = [times[row] for row in rows if row < len(times)]
        return known + self.step.after(times[-1], ahead)

    def _season(self) -> int | None:
        if self.season is not None or self.step is None:
            return self.season
        return self.step.season

    def _rolling(self, values: Floats, first_steps: NDArray[np.int64]) -> Floats:
        """The forecasts [n, horizon] that begin at the given rows, each from the window before its row."""
        windows = np.lib.stride_tricks.sliding_window_view(values, self.window, axis=0).swapaxes(1, 2)
        chunks = np.array_split(first_steps - self.window, math.ceil(len(first_steps) / 256))
        return np.concatenate([self._forecast(windows[chunk]) for chunk in chunks])

    def _forecast(self, windows: Floats) -> Floats:
        """[n, window, columns] in own units -> [n, horizon] in the target's."""
        if self.model is None:
            raise RuntimeError("forecaster: expected a fitted or loaded one, got a new one; call fit first")
        scaled = (windows - self._mean) / self._scale
        centre, spread = self._reference(scaled)
        output, _ = self.model(((scaled - centre) / spread).astype(np.float32))
        relative = centre[:, :, 0] + spread[:, :, 0] * output.astype(np.float64)
        forecast: Floats = relative * self._scale[0] + self._mean[0]
        return forecast

    def _reference(self, scaled: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """What windows [n, window, columns] are seen relative to: centre, spread, both [n, 1, columns]."""
        if self.normalize == "last":
            centre = scaled[:, -1:]
            return centre, np.ones_like(centre)
        if self.normalize == "window":
            # The floor keeps a window at rest from blowing its noise up.
            return scaled.mean(axis=1, keepdims=True), np.maximum(scaled.std(axis=1, keepdims=True), 1e-3)
        centre = np.zeros_like(scaled[:, -1:])
        return centre, np.ones_like(centre)

    def _check_values(self, values: ArrayLike, minimum: int = 1) -> Floats:
        array = np.asarray(values)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"values: expected real numbers, got dtype {array.dtype}")
        width = len(self.columns)
        if array.ndim == 1 and width == 1:
            array = array[:, None]
        if array.ndim != 2 or array.shape[1] != width:
            raise ValueError(
                f"values: expected shape (*, {width}), one column each of {self.columns}, got {array.shape}"
            )
        if len(array) < minimum:
            raise ValueError(f"values: expected at least {minimum} rows, got {len(array)}")
        bad = np.argwhere(~np.isfinite(array))
        if len(bad):
            row, column = map(int, bad[0])
            where = f"row {row}, column {self.columns[column]!r}"
            raise ValueError(f"values: expected finite numbers, got {array[row, column]} in {where}")
        return array.astype(np.float64)

    # ---------------------------------------------------------------- files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write model, scaling, columns, time step and metrics to one file; `lstmx.load` reads its model too.

        Raises:
            RuntimeError: Neither fitted nor loaded.
            OSError: The file cannot be written.
        """
        if self.model is None:
            raise RuntimeError("forecaster: expected a fitted one, got a new one; call fit before save")
        step = self.step
        description = {
            "columns": list(self.columns),
            "window": self.window,
            "horizon": self.horizon,
            "normalize": self.normalize,
            "season": self.season,
            "step": step and {"microseconds": step.microseconds, "months": step.months, "day": step.day},
            "time_column": self.time_column,
            "mean": self._mean.tolist(),
            "scale": self._scale.tolist(),
            "metrics": self.metrics,
        }
        files.save(path, self.model, extra={"forecaster": description})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Forecaster:
        """Read what `save` wrote; the forecasts are the same bit for bit.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is malformed, or its model is not a forecaster's.
        """
        model, extra = files.load_with_extra(path)
        description = extra.get("forecaster")
        if not isinstance(description, dict):
            raise ValueError(
                f"{os.fspath(path)}: a model, but not a forecaster's (made by Forecaster or lstmx train)"
            )
        try:
            return cls._restored(model, description)
        except (TypeError, ValueError, KeyError) as error:
            problem = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ValueError(f"{os.fspath(path)}: forecaster: {problem}") from None

    @classmethod
    def _restored(cls, model: Any, description: Mapping[str, Any]) -> Forecaster:
        kinds = [type(layer) for layer in model.layers] if isinstance(model, Sequential) else [type(model)]
        if kinds != [LSTM, LastStep, Linear]:
            names = ", ".join(kind.__name__ for kind in kinds)
            raise ValueError(f"expected the layers LSTM, LastStep, Linear, got {names}")
        step = description["step"]
        if not isinstance(description["columns"], list) or not isinstance(step, dict | None):
            raise ValueError("expected a list of columns and a time step")
        lstm = model.layers[0]
        forecaster = cls(
            description["columns"],
            window=description["window"],
            horizon=description["horizon"],
            hidden_size=lstm.hidden_size,
            num_layers=lstm.num_layers,
            normalize=description["normalize"],
            season=description["season"],
            step=None if step is None else TimeStep(**step),
            time_column=description["time_column"],
        )
        width = len(forecaster.columns)
        if (lstm.input_size, model.layers[2].out_features) != (
            width,
            forecaster.horizon,
        ) or not lstm.batch_first:
            raise ValueError(
                f"expected a batch-first model from {width} columns to {forecaster.horizon} steps"
            )
        forecaster._mean = _check_numbers("mean", description["mean"], width)
        forecaster._scale = _check_numbers("scale", description["scale"], width)
        if not (forecaster._scale > 0).all():
            raise ValueError(f"scale: expected numbers above 0, got {description['scale']}")
        forecaster.metrics = description["metrics"]
        forecaster.model = model
        return forecaster


class _ScaledWindows:
    """`lstmx.data.Windows` over scaled values, each window then taken relative to its own reference."""

    stateful = False

    def __init__(
        self, forecaster: Forecaster, scaled: FloatArray, batch_size: int, *, shuffle: bool, rng: Any
    ) -> None:
        self._reference = forecaster._reference
        self._windows = data.Windows(
            scaled,
            forecaster.window,
            forecaster.horizon,
            batch_size=batch_size,
            shuffle=shuffle,
            rng=rng,
            targets=[0],
        )

    def __len__(self) -> int:
        return len(self._windows)

    def __iter__(self) -> Iterator[data.Batch]:
        for batch in self._windows:
            assert batch.y is not None  # Windows always tells what follows
            centre, spread = self._reference(batch.x)
            yield data.Batch(
                (batch.x - centre) / spread, (batch.y[:, :, 0] - centre[:, :, 0]) / spread[:, :, 0]
            )

    def rngs(self) -> list[np.random.Generator]:
        """The generators of the shuffling."""
        return self._windows.rngs()


def _split(rows: int, val: float) -> int:
    """The first row of the validation part."""
    return rows - math.ceil(rows * val)


def _errors(actual: Floats, forecast: Floats) -> dict[str, float]:
    difference = actual - forecast
    return {"mae": float(np.abs(difference).mean()), "rmse": float(np.sqrt((difference**2).mean()))}


def _check_columns(columns: Sequence[str]) -> tuple[str, ...]:
    if isinstance(columns, str) or not all(isinstance(column, str) for column in columns):
        raise TypeError(f"columns: expected a sequence of names, got {columns!r}")
    if not columns or len(set(columns)) != len(columns):
        raise ValueError(f"columns: expected one or more different names, got {list(columns)}")
    return tuple(columns)


def _check_numbers(name: str, numbers: Any, length: int) -> Floats:
    if not isinstance(numbers, list) or len(numbers) != length:
        raise ValueError(f"{name}: expected {length} numbers, got {numbers!r}")
    return np.array([check_float(name, number) for number in numbers])
