"""The base of all callbacks: the hooks, under Keras's names, and what a checkpoint keeps of a callback."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from lstmx._checks import check_choice, check_float

if TYPE_CHECKING:
    from lstmx.trainer import Trainer

Logs: TypeAlias = Mapping[str, float]


class Callback:
    """Hooks that `Trainer` calls; derive from it and override those you need. Others cost nothing.

    Epochs and batches are counted from 0 in the hooks, as in Keras. Of the `logs`, those of a batch hold the
    loss of that batch, those of an epoch its mean loss and, with validation, `val_loss`. `on_train_end` is
    called however the training ends, Ctrl-C and errors included.

    Attributes:
        trainer: The trainer, from the first hook on: `trainer.model`, `trainer.optimizer`, `trainer.epoch`
            (epochs completed), `trainer.step` (steps completed), `trainer.epochs` and
            `trainer.steps_per_epoch` (how many there will be), `trainer.last_batch` and
            `trainer.last_prediction`; set `trainer.stop_training` to end the training with this epoch.

    Example:
        >>> class Halve(Callback):
        ...     def on_epoch_end(self, epoch, logs):
        ...         self.trainer.optimizer.lr /= 2
    """

    trainer: Trainer

    def on_train_begin(self) -> None:
        """Called before the first epoch of a `fit`."""

    def on_train_end(self) -> None:
        """Called after the last epoch of a `fit`, or when it ends otherwise."""

    def on_epoch_begin(self, epoch: int) -> None:
        """Called before the first batch of an epoch."""

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Called after the last batch of an epoch and its validation."""

    def on_train_batch_begin(self, batch: int) -> None:
        """Called before a training step."""

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Called after a training step."""

    def on_test_begin(self) -> None:
        """Called before an evaluation, that of `fit`'s validation data included."""

    def on_test_end(self, logs: Logs) -> None:
        """Called after an evaluation."""

    def on_test_batch_begin(self, batch: int) -> None:
        """Called before a batch of an evaluation."""

    def on_test_batch_end(self, batch: int, logs: Logs) -> None:
        """Called after a batch of an evaluation."""

    def on_predict_begin(self) -> None:
        """Called before a prediction."""

    def on_predict_end(self) -> None:
        """Called after a prediction."""

    def on_predict_batch_begin(self, batch: int) -> None:
        """Called before a batch of a prediction."""

    def on_predict_batch_end(self, batch: int) -> None:
        """Called after a batch of a prediction."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training must know of this callback: arrays, and what JSON can hold."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""


class Best:
    """The best value so far of one number in the logs: what `EarlyStopping` and `Checkpoint` share."""

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0) -> None:
        if not isinstance(monitor, str):
            raise TypeError(f"monitor: expected a name in the logs, got {monitor!r}")
        self.monitor = monitor
        self.mode = check_choice("mode", mode, ("min", "max"))
        self.min_delta = check_float("min_delta", min_delta, minimum=0.0)
        self.value = math.nan

    def reset(self) -> None:
        """Forget what was seen."""
        self.value = math.nan

    def update(self, logs: Logs) -> bool:
        """Whether the number in `logs` is better than all before; NaN never is.

        Raises:
            ValueError: The logs have no such number.
        """
        if self.monitor not in logs:
            hint = "; give fit validation data" if self.monitor.startswith("val_") else ""
            raise ValueError(f"monitor: expected one of {', '.join(logs)}, got {self.monitor!r}{hint}")
        value = float(logs[self.monitor])
        gain = self.value - value if self.mode == "min" else value - self.value
        better = gain > self.min_delta or (math.isnan(self.value) and not math.isnan(value))
        if better:
            self.value = value
        return better
