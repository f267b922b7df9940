"""What the commands share: kinds of arguments, the check of a folder, the list of files at the end."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path


class UserError(Exception):
    """Something that the user can put right: the message is all that is shown."""


def whole_number(minimum: int) -> Callable[[str], int]:
    """An argparse type: an integer of at least `minimum`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if number < minimum:
            raise argparse.ArgumentTypeError(f"expected an integer of at least {minimum}, got {text!r}")
        return number

    return parse


def fraction(text: str) -> float:
    """An argparse type: a number between 0 and 1, both excluded."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.0 < number < 1.0:
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, got {text!r}")
    return number


def check_folder(path: Path) -> None:
    """Refuse, before any work, a folder that cannot be made or written to; makes nothing.

    Raises:
        UserError: It is a file, or it (or the folder that it would be made in) cannot be written to.
    """
    nearest = path
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise UserError(f"{nearest}: expected a folder, got a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"{nearest}: no permission to write there")


def tell_file(name: str, path: Path, command: str) -> None:
    """Say where a file lies and, below, the command that shows it, with `{}` for the path."""
    print(f"{name:<10}{path}\n{'':<12}{command.format(shlex.quote(str(path)))}")


def picture_command() -> str:
    """What opens a picture on this system."""
    return {"darwin": "open", "win32": "start"}.get(sys.platform, "xdg-open")


def missing_packages(*names: str) -> list[str]:
    """Those of the named packages that are not installed."""
    return [name for name in names if importlib.util.find_spec(name) is None]
