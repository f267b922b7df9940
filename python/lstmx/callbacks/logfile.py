"""A file that a training writes beside its work, and without which it goes on."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path


class LogFile:
    """An unbuffered file to append to. A write that fails warns once, and the file is given up.

    Unbuffered, because a buffer that cannot be written would be tried again when Python closes it.

    Args:
        path: The file.
        replace: Whether what is there is dropped rather than appended to.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str], *, replace: bool = False) -> None:
        self.path = Path(path)
        self._file: io.FileIO | None = open(self.path, "wb" if replace else "ab", buffering=0)  # noqa: SIM115

    def write(self, data: bytes) -> None:
        """Write all of `data`, or warn."""
        if self._file is None:
            return
        try:
            rest = memoryview(data)
            while len(rest):  # a nearly full disk takes a part before it says no
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._file.close()
            self._file = None
            warnings.warn(
                f"{self.path}: {error.strerror}; training goes on without this file",
                RuntimeWarning,
                stacklevel=3,
            )

    def close(self) -> None:
        """Close the file, if it is open."""
        if self._file is not None:
            self._file.close()
            self._file = None
