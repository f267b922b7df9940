"""The `lstmx` command: demo, train, predict, bench, info.

Each command is one module that declares its arguments and runs; what it runs is the library's, so that a
Python user can do the same. Whatever the user can put right ends in one message, `lstmx: error: ...`, and
exit status 2; a traceback means a defect of lstmx. Nothing is written before the input has been found good.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from lstmx._version import __version__
from lstmx.cli import bench, demo, info, predict, train
from lstmx.cli._common import UserError

COMMANDS = (demo, train, predict, bench, info)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}\n{self.format_usage().strip()}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` (default: the process's arguments) names.

    Returns:
        The exit status: 0, 2 for a user's error, 130 after Ctrl-C.
    """
    try:
        arguments = _parser().parse_args(argv)
        status: int = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (UserError, ValueError, OSError, FloatingPointError) as error:
        print(f"lstmx: error: {_describe(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lstmx: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="lstmx",
        description="LSTM networks on CPUs: train, forecast, look inside.",
        epilog="`lstmx COMMAND --help` explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"lstmx {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for command in COMMANDS:
        command.add_command(commands)
    return parser


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)
