"""Runs the command in a process of its own, as a user does."""

from __future__ import annotations

import subprocess
import sys

HIDE = """
import sys
from importlib.abc import MetaPathFinder

class Hidden(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            raise ModuleNotFoundError(f"No module named {{name}}", name=name)

import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == {name!r} else find_spec(name, *rest)
sys.meta_path.insert(0, Hidden())
"""


def run_lstmx(*arguments: str, hide: str | None = None, cwd=None) -> subprocess.CompletedProcess[str]:
    """`lstmx ARGUMENTS`, with the package `hide` not to be found."""
    command = [sys.executable, "-m", "lstmx", *arguments]
    if hide is not None:
        code = HIDE.format(name=hide) + "from lstmx.cli import main\nsys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd)
