"""`lstmx predict MODEL FILE.csv`: the forecast that follows the last row of a CSV file, as CSV."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lstmx.forecast import Forecaster
    from lstmx.tabular import Table


def add_command(commands: Any) -> None:
    """Declare the command and its arguments."""
    parser = commands.add_parser(
        "predict",
        help="forecast what follows a CSV file",
        description="Forecast what follows the last row of FILE.csv, with a model that `lstmx train` made.",
    )
    parser.add_argument("model", metavar="MODEL", help="the model file that `lstmx train` wrote")
    parser.add_argument("file", metavar="FILE.csv", help="the series, up to the last known row")
    parser.add_argument("--out", metavar="FILE", help="where to write the CSV (default: standard output)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Load, read, forecast, write."""
    from lstmx import files, tabular
    from lstmx.forecast import Forecaster

    forecaster = Forecaster.load(arguments.model)
    table = tabular.read_csv(
        arguments.file, forecaster.columns, time=forecaster.time_column, minimum_rows=forecaster.window
    )
    text = _to_csv(forecaster, table)
    if arguments.out is None:
        sys.stdout.write(text)
    else:
        files.write_atomic(arguments.out, text.encode())
    return 0


def _to_csv(forecaster: Forecaster, table: Table) -> str:
    _check_step(forecaster, table)
    values = forecaster.predict(table.values)
    if forecaster.step is None or table.times is None:
        heading, labels = "step", [str(step) for step in range(1, len(values) + 1)]
    else:
        times = forecaster.step.after(table.times[-1], len(values))
        heading, labels = str(table.time_column), [table.format_time(time) for time in times]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([heading, forecaster.target])
    writer.writerows((label, f"{value:.9g}") for label, value in zip(labels, values, strict=True))
    return text.getvalue()


def _check_step(forecaster: Forecaster, table: Table) -> None:
    """A model of hours knows nothing of days."""
    if forecaster.step is not None and str(table.step) != str(forecaster.step):
        raise ValueError(
            f"{table.path}: expected a row every {forecaster.step}, as the model was trained on, "
            f"got one every {table.step}"
        )
