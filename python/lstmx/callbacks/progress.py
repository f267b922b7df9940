"""Telling the one who waits how far the training is."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

from lstmx.callbacks.base import Callback, Logs

if TYPE_CHECKING:
    from tqdm import tqdm

_SECONDS_BETWEEN_DRAWINGS = 0.1


class Progress(Callback):
    """A bar over the steps of each epoch, with the loss; one plain line an epoch where there is no terminal.

    Args:
        file: Where to write; standard error by default.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file
        self._bar: tqdm[Any] | None = None
        self._due = 0.0
        self._begin = 0.0

    def on_epoch_begin(self, epoch: int) -> None:
        """Begin a bar, where there is a terminal."""
        self._begin = time.monotonic()
        out = self._out()
        if not out.isatty():
            return
        self._due = 0.0
        self._bar = _new_bar(
            total=self.trainer.steps_per_epoch,
            desc=f"epoch {epoch + 1}/{self.trainer.epochs}",
            file=out,
        )

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Move the bar; it is drawn ten times a second at most."""
        if self._bar is None:
            return
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _SECONDS_BETWEEN_DRAWINGS
            self._draw(batch + 1, logs)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Finish the bar, or write the line."""
        if self._bar is not None:
            self._draw(self.trainer.steps_in_epoch, logs)
            self._close()
            return
        seconds = time.monotonic() - self._begin
        line = f"epoch {epoch + 1}/{self.trainer.epochs}: {format_logs(logs)}, {seconds:.1f} s"
        print(line, file=self._out(), flush=True)

    def on_train_end(self) -> None:
        """Leave no half a bar behind, and say so where Ctrl-C ended the training."""
        self._close()
        if self.trainer.history.interrupted:
            print(f"interrupted; epochs completed: {self.trainer.epoch}", file=self._out(), flush=True)

    def _draw(self, steps: int, logs: Logs) -> None:
        assert self._bar is not None
        self._bar.set_postfix_str(format_logs(logs), refresh=False)
        self._bar.n = steps
        self._bar.refresh()

    def _close(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()

    def _out(self) -> TextIO:
        return sys.stderr if self._file is None else self._file

    def __repr__(self) -> str:
        return "Progress()" if self._file is None else f"Progress({self._file!r})"


def format_logs(logs: Logs) -> str:
    """`loss 0.0123, val_loss 0.045`."""
    return ", ".join(f"{name} {value:.4g}" for name, value in logs.items())


def _new_bar(**arguments: Any) -> tqdm[Any]:
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        monitor_interval = 0  # no watching thread: this bar is drawn by whoever moves it

    return Bar(unit="step", dynamic_ncols=True, mininterval=0, miniters=1, **arguments)
