"""Ending a training that no longer gets better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lstmx._checks import FloatArray, check_bool, check_int
from lstmx.callbacks.base import Best, Callback, Logs


class EarlyStopping(Callback):
    """Stops the training when a number has not improved for `patience` epochs in a row.

    Args:
        monitor: The number to watch, a name in the logs of an epoch.
        patience: After this many epochs in a row without improvement the training ends (0 means 1).
        min_delta: An improvement must be larger than this.
        mode: `"min"` where less is better, `"max"` where more is.
        restore_best_weights: Whether the model gets, when the training ends (stopped or not), the parameters
            of its best epoch.

    Attributes:
        best: The best value so far; nan before the first epoch.
        best_epoch: The epoch of it, counted from 0; -1 before the first.

    Its counters and the best parameters are part of a checkpoint. A trainer that has been stopped stays
    stopped until its `stop_training` is set to False.

    Raises:
        ValueError: (at the end of the first epoch) The logs have no such number.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 0,
        min_delta: float = 0.0,
        mode: str = "min",
        restore_best_weights: bool = False,
    ) -> None:
        self._best = Best(monitor, mode, min_delta)
        self.patience = check_int("patience", patience, minimum=0)
        self.restore_best_weights = check_bool("restore_best_weights", restore_best_weights)
        self._reset()

    @property
    def best(self) -> float:
        """The best value so far."""
        return self._best.value

    def _reset(self) -> None:
        self._best.reset()
        self.best_epoch = -1
        self._waited = 0
        self._weights: dict[str, FloatArray] = {}

    def on_train_begin(self) -> None:
        """Start counting, unless a training goes on."""
        if self.trainer.epoch == 0:
            self._reset()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Compare with the best epoch."""
        if self._best.update(logs):
            self._waited = 0
            self.best_epoch = epoch
            if self.restore_best_weights:
                self._weights = self.trainer.model.state_dict()
            return
        self._waited += 1
        if self._waited >= max(self.patience, 1):
            self.trainer.stop_training = True

    def on_train_end(self) -> None:
        """Give the model its best parameters back, where that is wanted."""
        if self._weights:
            self.trainer.model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """The best value and epoch, the epochs waited, the best parameters."""
        weights = {f"weights/{name}": value for name, value in self._weights.items()}
        return {"best": self.best, "best_epoch": self.best_epoch, "waited": self._waited, **weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._best.value = float(state["best"])
        self.best_epoch = int(state["best_epoch"])
        self._waited = int(state["waited"])
        self._weights = {
            name.removeprefix("weights/"): np.asarray(value)
            for name, value in state.items()
            if name.startswith("weights/")
        }

    def __repr__(self) -> str:
        return (
            f"EarlyStopping(monitor={self._best.monitor!r}, patience={self.patience}, "
            f"min_delta={self._best.min_delta!r}, mode={self._best.mode!r}, "
            f"restore_best_weights={self.restore_best_weights})"
        )
