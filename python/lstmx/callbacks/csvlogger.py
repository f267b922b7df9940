"""A table of the epochs that any spreadsheet reads."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path

from lstmx.callbacks.base import Callback, Logs
from lstmx.callbacks.logfile import LogFile


class CSVLogger(Callback):
    """Writes one line an epoch to a CSV file: `epoch` (from 1), then the numbers of the logs.

    A training that goes on from a checkpoint goes on in the file: lines of epochs that the checkpoint does
    not know are replaced. A training from the beginning replaces the file. Where the disk is full, one
    warning is given and training goes on without the file.

    Args:
        path: The file; its folder must exist.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file: LogFile | None = None
        self._columns: list[str] = []

    def on_train_begin(self) -> None:
        """Open the file, with what is to be kept of it."""
        kept: list[list[str]] = []
        if self.trainer.epoch > 0 and self.path.exists():
            from lstmx.files import write_atomic

            with self.path.open(newline="", encoding="utf-8") as file:
                kept = [row for row in csv.reader(file) if _belongs(row, self.trainer.epoch)]
            write_atomic(self.path, _lines(kept))
        self._columns = kept[0] if kept else []
        self._file = LogFile(self.path, replace=not kept)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Write the epoch's line."""
        assert self._file is not None
        rows = []
        if not self._columns:
            self._columns = ["epoch", *logs]
            rows.append(self._columns)
        values = {"epoch": str(epoch + 1), **{name: repr(float(value)) for name, value in logs.items()}}
        rows.append([values.get(name, "") for name in self._columns])
        self._file.write(_lines(rows))

    def on_train_end(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def __repr__(self) -> str:
        return f"CSVLogger({str(self.path)!r})"


def _belongs(row: list[str], epochs: int) -> bool:
    """Whether a line is the head of the table or one of the first `epochs`."""
    return bool(row) and (row[0] == "epoch" or (row[0].isdecimal() and int(row[0]) <= epochs))


def _lines(rows: Iterable[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
