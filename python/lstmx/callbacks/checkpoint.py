"""Saving the whole training now and then, so that a killed one loses little."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lstmx._checks import check_int
from lstmx.callbacks.base import Best, Callback, Logs


class Checkpoint(Callback):
    """Writes `Trainer.save_checkpoint` to a file at the end of epochs.

    The file is replaced in one step (temporary file, fsync, rename, fsync of the folder): a kill at any
    instant leaves the last good one, and a training resumed from it is bit for bit the one that was not
    interrupted. The trainer runs this callback after all others, so that the file holds what they did in the
    epoch.

    Args:
        path: The file; `{epoch}` in it becomes the number of epochs completed, which keeps every file.
        every: Epochs from one save to the next.
        monitor: Where given, only epochs better than all before are saved: a name in the logs of an epoch.
        mode: `"min"` where less of `monitor` is better, `"max"` where more is.

    Raises:
        OSError: A file cannot be written. The training ends, and the previous checkpoint is whole.

    Example:
        >>> import lstmx, numpy as np, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = f"{folder.name}/last.safetensors"
        >>> def trainer(*callbacks):
        ...     return lstmx.Trainer(lstmx.Linear(1, 1, rng=0), callbacks=callbacks)
        >>> x = np.linspace(-1, 1, 8, dtype=np.float32)[:, None]
        >>> history = trainer(Checkpoint(path)).fit((x, 2 * x), epochs=3)  # killed here, say
        >>> resumed = trainer().load_checkpoint(path)
        >>> resumed.epoch
        3
        >>> history = resumed.fit((x, 2 * x), epochs=5)
        >>> history.epochs
        5
        >>> folder.cleanup()
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        every: int = 1,
        monitor: str | None = None,
        mode: str = "min",
    ) -> None:
        self.path = Path(path)
        self.every = check_int("every", every, minimum=1)
        self._best = None if monitor is None else Best(monitor, mode)

    def on_train_begin(self) -> None:
        """Refuse a folder that does not exist before time is spent."""
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"path: expected a file in a folder that exists, got {self.path}")
        if self._best is not None and self.trainer.epoch == 0:
            self._best.reset()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Save, if it is time."""
        if (epoch + 1) % self.every:
            return
        if self._best is None or self._best.update(logs):
            path = str(self.path).replace("{epoch}", str(epoch + 1))
            self.trainer.save_checkpoint(path)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far."""
        return {} if self._best is None else {"best": self._best.value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        if self._best is not None and "best" in state:
            self._best.value = float(state["best"])

    def __repr__(self) -> str:
        monitored = (
            "" if self._best is None else f", monitor={self._best.monitor!r}, mode={self._best.mode!r}"
        )
        return f"Checkpoint({str(self.path)!r}, every={self.every}{monitored})"
