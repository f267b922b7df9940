"""The trainer: a model, a loss and an optimiser, run over data sets; prediction and evaluation beside it.

One step is forward, loss, gradients to zero, backward, clipping, optimiser. Everything is batch-first. The
state of a stateful data set (`lstmx.data.Stream`) is carried from batch to batch without gradient and reset
at the start of a pass. What is to be seen or saved on the way is the business of callbacks. Not here:
schedules of the learning rate, several models at once; a loop of your own over `model.forward` is as fast.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lstmx import checkpoint, losses, optim
from lstmx._checks import FloatArray, check_float, check_int
from lstmx.callbacks import Callback, Checkpoint
from lstmx.data import Arrays, Batch, Dataset
from lstmx.history import History
from lstmx.layers import Module

Data = Dataset | Iterable[Any] | tuple[Any, ...]

_PREDICTION_ROWS = 256


class Trainer:
    """Trains a model, evaluates it and predicts with it.

    Args:
        model: A batch-first model.
        loss: A name (`"mse"`, `"mae"`, `"huber"`, `"cross_entropy"`), one of `lstmx.losses`, or a function
            called like them.
        optimizer: A name (`"sgd"`, `"adam"`, `"adamw"`) or one of `lstmx.optim`, new or used with this model
            only.
        callbacks: `lstmx.callbacks.Callback`s, called in this order (`Checkpoint` after the others).
        clip_norm: The largest global norm of the gradients; None means no limit.

    Attributes:
        history: The numbers of all epochs so far.
        epoch: The number of epochs completed.
        step: The number of training steps completed.
        epochs: The number of epochs that the latest `fit` aims at.
        steps_per_epoch: The number of steps in an epoch of it, None where the data set has no length.
        steps_in_epoch: The number of steps completed in the present epoch.
        stop_training: Whether training ends with the present epoch; callbacks set it.
        last_batch: The batch of the latest training step.
        last_prediction: The model's output for it, before the step.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: A name or number is not as described, a layer of the model is not batch-first, or the
            optimiser belongs to another model.

    Example:
        >>> import lstmx
        >>> t = np.arange(0, 60, 0.1)
        >>> data = lstmx.data.Windows(np.sin(t), window=20, horizon=1, shuffle=True, rng=0)
        >>> model = lstmx.Sequential(
        ...     lstmx.LSTM(1, 8, batch_first=True, rng=0), lstmx.LastStep(), lstmx.Linear(8, 1, rng=1)
        ... )
        >>> trainer = Trainer(model, optimizer=lstmx.optim.Adam(lr=0.01))
        >>> history = trainer.fit(data, epochs=5)
        >>> history["loss"][-1] < history["loss"][0] / 2
        True
    """

    def __init__(
        self,
        model: Module,
        loss: str | losses.LossFunction = "mse",
        optimizer: str | optim.Optimizer = "adam",
        callbacks: Iterable[Callback] = (),
        clip_norm: float | None = None,
    ) -> None:
        if not isinstance(model, Module):
            raise TypeError(f"model: expected a layer or Sequential, got {type(model).__name__}")
        _refuse_time_first(model)
        self.model = model
        self.loss = losses.get(loss)
        self.optimizer = optim.get(optimizer)
        self.callbacks = _check_callbacks(callbacks)
        self.clip_norm = (
            None if clip_norm is None else check_float("clip_norm", clip_norm, minimum=0.0, exclusive=True)
        )
        self.optimizer.bind(model)
        self.history = History()
        self.epoch = 0
        self.step = 0
        self.epochs = 0
        self.steps_per_epoch: int | None = None
        self.steps_in_epoch = 0
        self.stop_training = False
        self.last_batch: Batch
        self.last_prediction: FloatArray
        self._data_rngs: list[np.random.Generator] = []
        self._loaded_rng_states: list[dict[str, Any]] | None = None  # for the data of the next fit

    # ---------------------------------------------------------------- training

    def fit(self, data: Data, epochs: int = 1, validation: Data | None = None) -> History:
        """Train until `epochs` epochs are completed, counted from the beginning of the training.

        A second call, or one after `load_checkpoint`, goes on where the first one ended: `fit(data,
        epochs=5)` and then `fit(data, epochs=8)` train 8 epochs in all.

        Ctrl-C ends the training: the steps completed stay, the history holds the epochs completed, and its
        `interrupted` is True. (`on_train_end` of the callbacks is called, here and after any error.)

        Args:
            data: A data set (see `lstmx.data`); or a tuple of arrays `(x, y)`, `(x, y, weights)` or `(x, y,
                weights, mask)`, which becomes `lstmx.data.Arrays`: batches of 32, in order; or any iterable
                of batches.
            epochs: The number of epochs in all.
            validation: Data to evaluate after each epoch, as `val_loss`.

        Returns:
            The history of all epochs, `trainer.history`.

        Raises:
            FloatingPointError: The loss, or with `clip_norm` the norm of the gradients, is not finite. The
                model has then the parameters from before that step (but `BatchNorm`'s running statistics
                have seen its batch).
        """
        dataset = _as_dataset("data", data)
        total = check_int("epochs", epochs, minimum=1)
        checked = None if validation is None else _as_dataset("validation", validation)
        self._take_rngs(dataset)
        self.epochs = total
        self.steps_per_epoch = len(dataset) if hasattr(dataset, "__len__") else None
        self.history.interrupted = False
        if self._nothing_to_do():
            return self.history
        try:
            self._call("on_train_begin")
            while self.epoch < total and not self.stop_training:
                self._run_epoch(dataset, checked)
        except KeyboardInterrupt:
            self.history.interrupted = True
            self.history.keep(self.epoch)
        finally:
            self._call("on_train_end")
        return self.history

    def _take_rngs(self, data: Any) -> None:
        """Know the data set's generators; give them the state that a checkpoint kept."""
        rngs = list(data.rngs()) if hasattr(data, "rngs") else []
        if self._loaded_rng_states is not None:
            checkpoint.check_rng_states("data", rngs, self._loaded_rng_states)
            checkpoint.set_rng_states(rngs, self._loaded_rng_states)
        self._data_rngs, self._loaded_rng_states = rngs, None

    def _nothing_to_do(self) -> bool:
        reason = ""
        if self.epoch >= self.epochs:
            reason = (
                f"{self.epoch} epochs are completed and epochs={self.epochs} counts from the beginning; "
                f"epochs={self.epoch + self.epochs} would train {self.epochs} more"
            )
        elif self.stop_training:
            reason = "training was stopped; set trainer.stop_training = False to go on"
        if reason:
            warnings.warn(f"fit: nothing to do: {reason}", UserWarning, stacklevel=3)
        return bool(reason)

    def _run_epoch(self, data: Iterable[Any], validation: Iterable[Any] | None) -> None:
        self._call("on_epoch_begin", self.epoch)
        logs = {"loss": self._train_pass(data)}
        if validation is not None:
            logs["val_loss"] = self._evaluate("validation", validation)["loss"]
        self.history.append(logs)
        self.epoch += 1
        self._call("on_epoch_end", self.epoch - 1, logs)

    def _train_pass(self, data: Iterable[Any]) -> float:
        """One epoch of steps; returns their mean loss."""
        model, loss, optimizer = self.model, self.loss, self.optimizer
        stateful = getattr(data, "stateful", False)
        begin, end = self._hooks("on_train_batch_begin"), self._hooks("on_train_batch_end")
        mean = _Mean(loss)
        state = None
        self.steps_in_epoch = 0
        for number, item in enumerate(data):
            batch = item if type(item) is Batch else Batch(*item)
            x, y, weights, mask = batch
            for hook in begin:
                hook(number)
            prediction, new_state, backward = model.forward(x, state)
            value, gradient = loss(prediction, y, weights=weights, mask=mask)
            if not math.isfinite(value):
                raise FloatingPointError(self._not_finite("loss", value, number))
            model.zero_grad()
            backward(gradient, need_dx=False, need_dstate=False)
            if self.clip_norm is None:
                optimizer.step(model)
            else:
                optimizer.step(model, grad_scale=self._clip_scale(number))
            if stateful:
                state = new_state
            mean.add(value, prediction, weights, mask)
            self.step += 1
            self.steps_in_epoch = number + 1
            self.last_batch, self.last_prediction = batch, prediction
            if end:
                logs = {"loss": value}
                for hook in end:
                    hook(number, logs)
        return mean.result("data")

    def _clip_scale(self, number: int) -> float:
        assert self.clip_norm is not None
        norm = optim.grad_norm(self.model)
        if not math.isfinite(norm):
            raise FloatingPointError(self._not_finite("norm of the gradients", norm, number))
        return optim.clip_scale(norm, self.clip_norm)

    def _not_finite(self, name: str, value: float, number: int) -> str:
        return (
            f"{name}: expected a finite number, got {value} in epoch {self.epoch + 1}, step {number + 1}; "
            f"the model has the parameters from before this step. Look for NaN in the data, or try a smaller "
            f"learning rate or clip_norm"
        )

    # ---------------------------------------------------------------- evaluation and prediction

    def evaluate(self, data: Data) -> dict[str, float]:
        """The loss of `data` without training (no dropout): that of all its elements as one batch.

        Args:
            data: As for `fit`. It is read in order, whether it shuffles or not.

        Returns:
            `{"loss": value}`. Of unequal batches each counts by its number of elements.
        """
        return self._evaluate("data", _as_dataset("data", data))

    def _evaluate(self, name: str, data: Iterable[Any]) -> dict[str, float]:
        begin, end = self._hooks("on_test_batch_begin"), self._hooks("on_test_batch_end")
        mean = _Mean(self.loss)
        self._call("on_test_begin")
        for number, (batch, prediction) in enumerate(self._predictions(data, begin)):
            value, _ = self.loss(prediction, batch.y, weights=batch.weights, mask=batch.mask)
            mean.add(value, prediction, batch.weights, batch.mask)
            for hook in end:
                hook(number, {"loss": value})
        logs = {"loss": mean.result(name)}
        self._call("on_test_end", logs)
        return logs

    def predict(self, data: Data | ArrayLike) -> FloatArray:
        """The model's output for `data` (no dropout).

        Args:
            data: An array `[N, ...]` of inputs, or a data set or tuple as for `fit`, whose targets are not
                looked at. It is read in order, whether it shuffles or not.

        Returns:
            `[N, ...]`: the outputs of all batches along the first axis. Those of a stateful data set, whose
            batches continue one another, follow along the time axis: `[B, T of all batches, ...]`.
        """
        if isinstance(data, np.ndarray):
            array = np.asarray(data)
            if array.ndim and len(array) == 0:
                return self.model(array)[0]
            data = Arrays(array, batch_size=_PREDICTION_ROWS)
        dataset = _as_dataset("data", data)
        end = self._hooks("on_predict_batch_end")
        outputs = []
        self._call("on_predict_begin")
        for number, (_, prediction) in enumerate(
            self._predictions(dataset, self._hooks("on_predict_batch_begin"))
        ):
            outputs.append(prediction)
            for hook in end:
                hook(number)
        if not outputs:
            raise ValueError("data: expected at least one batch, got none")
        self._call("on_predict_end")
        return np.concatenate(outputs, axis=1 if getattr(dataset, "stateful", False) else 0)

    def _predictions(
        self, data: Iterable[Any], begin: list[Callable[..., None]]
    ) -> Iterator[tuple[Batch, FloatArray]]:
        """Batches in order with the model's output for each, the state carried where the data set says so."""
        stateful = getattr(data, "stateful", False)
        in_order: Iterable[Any] = data.in_order() if hasattr(data, "in_order") else data
        state = None
        for number, item in enumerate(in_order):
            batch = item if type(item) is Batch else Batch(*item)
            for hook in begin:
                hook(number)
            prediction, new_state = self.model(batch.x, state)
            if stateful:
                state = new_state
            yield batch, prediction

    # ---------------------------------------------------------------- checkpoints

    def save_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Write the whole training to one file, in one step: a crash leaves the previous file.

        In it: the model's parameters, the optimiser's state and learning rate, the state of all random
        generators (dropout, shuffling), the history, and what callbacks must know (`EarlyStopping`'s counters
        and best parameters). Between epochs, a training resumed from it is bit for bit the one that was not
        interrupted.

        Args:
            path: The file; its folder must exist.

        Raises:
            OSError: The file cannot be written; what was there is unharmed.
        """
        checkpoint.save(path, self)

    def load_checkpoint(self, path: str | os.PathLike[str]) -> Self:
        """Take over the training in a file that `save_checkpoint` wrote, and go on with `fit`.

        The trainer must have been made as the one that was saved: a model with the same parameters, the same
        kind of optimiser; and `fit` be given the same data. Callbacks find what is theirs by class and order.

        Returns:
            The trainer itself.

        Raises:
            FileNotFoundError: There is no file.
            ValueError: The file is damaged or no checkpoint, or does not fit this trainer. Nothing has
                changed.
        """
        checkpoint.load(path, self)
        return self

    def data_rng_states(self) -> list[dict[str, Any]]:
        """The states of the data set's generators: now, or as loaded for the next `fit`."""
        loaded = self._loaded_rng_states
        return checkpoint.rng_states(self._data_rngs) if loaded is None else loaded

    def resume_from(
        self,
        epoch: int,
        step: int,
        stop_training: bool,
        history: Mapping[str, list[float]],
        data_rngs: list[dict[str, Any]],
    ) -> None:
        """Set what counts the training's progress; called by `load_checkpoint`."""
        self.epoch, self.step, self.stop_training = epoch, step, stop_training
        self.history = History(history)
        self._loaded_rng_states = data_rngs

    # ---------------------------------------------------------------- callbacks

    def _hooks(self, name: str) -> list[Callable[..., None]]:
        """Those hooks of this name that a callback overrides, Checkpoint's last."""
        for callback in self.callbacks:
            callback.trainer = self
        ordered = sorted(self.callbacks, key=lambda callback: isinstance(callback, Checkpoint))
        return [
            getattr(callback, name)
            for callback in ordered
            if getattr(type(callback), name) is not getattr(Callback, name)
        ]

    def _call(self, name: str, *arguments: Any) -> None:
        for hook in self._hooks(name):
            hook(*arguments)

    def __repr__(self) -> str:
        parts = [repr(self.model), f"loss={self.loss!r}", f"optimizer={self.optimizer!r}"]
        if self.callbacks:
            parts.append(f"callbacks={list(self.callbacks)!r}")
        if self.clip_norm is not None:
            parts.append(f"clip_norm={self.clip_norm!r}")
        return f"Trainer({', '.join(parts)})"


class _Mean:
    """The loss of many batches as if they were one."""

    def __init__(self, loss: losses.LossFunction) -> None:
        self._count = getattr(loss, "count", None)
        self._is_sum = getattr(loss, "divisor", None) == "none"
        self._total = 0.0
        self._counts = 0.0
        self._batches = 0

    def add(
        self,
        value: float,
        prediction: FloatArray,
        weights: FloatArray | None,
        mask: NDArray[np.bool_] | None,
    ) -> None:
        if self._count is None:
            count: float = len(prediction)
        else:
            count = self._count(prediction, weights=weights, mask=mask)
        self._total += value * count
        self._counts += count
        self._batches += 1

    def result(self, name: str) -> float:
        if self._batches == 0:
            raise ValueError(f"{name}: expected at least one batch, got none (is it an iterator, used up?)")
        if self._is_sum:
            return self._total
        return self._total / self._counts if self._counts else 0.0


def _as_dataset(name: str, data: Any) -> Any:
    if type(data) is tuple or isinstance(data, Batch):
        if not 2 <= len(data) <= 4:
            raise ValueError(f"{name}: expected a tuple (x, y[, weights[, mask]]), got {len(data)} items")
        x, y, weights, mask = Batch(*data)
        return Arrays(x, y, weights=weights, mask=mask)
    if isinstance(data, (np.ndarray, str, bytes, Mapping)) or not isinstance(data, Iterable):
        raise TypeError(
            f"{name}: expected a data set, a tuple (x, y) or an iterable of batches, "
            f"got {type(data).__name__}"
        )
    return data


def _refuse_time_first(model: Module, name: str = "model") -> None:
    layers = getattr(model, "layers", None)
    if layers is not None:
        for index, layer in enumerate(layers):
            _refuse_time_first(layer, f"{name}[{index}]")
    elif getattr(model, "batch_first", None) is False:
        raise ValueError(
            f"{name}: expected a batch-first layer, got {model!r}; make it with batch_first=True"
        )


def _check_callbacks(callbacks: Iterable[Callback]) -> tuple[Callback, ...]:
    if isinstance(callbacks, Callback) or not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks: expected a list of callbacks, got {callbacks!r}")
    checked = tuple(callbacks)
    for index, callback in enumerate(checked):
        if not isinstance(callback, Callback):
            raise TypeError(f"callbacks[{index}]: expected a Callback, got {callback!r}")
    return checked
