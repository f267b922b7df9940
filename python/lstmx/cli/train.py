"""`lstmx train FILE.csv --target COL`: a forecaster from a CSV file, judged against two baselines.

The work is `lstmx.Forecaster`'s and `lstmx.tabular`'s; here are the arguments, the report and the files.
"""

from __future__ import annotations

import argparse
import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lstmx.cli._common import (
    UserError,
    check_folder,
    fraction,
    missing_packages,
    picture_command,
    tell_file,
    whole_number,
)

if TYPE_CHECKING:
    from lstmx.forecast import Forecaster
    from lstmx.history import History
    from lstmx.tabular import Table


def add_command(commands: Any) -> None:
    """Declare the command and its arguments."""
    parser = commands.add_parser(
        "train",
        help="train a forecaster on a CSV file",
        description="Train an LSTM to forecast the next values of a column, and compare it on the last part "
        "of the file with repeating the last value (persistence) and the last season (seasonal-naive).",
    )

    def add(name: str, metavar: str | None, text: str, **options: Any) -> None:
        shown = " (default: %(default)s)" if options.get("default") is not None else ""
        parser.add_argument(name, metavar=metavar, help=text + shown, **options)

    add("file", "FILE.csv", "evenly spaced rows, oldest first, under a line of column names")
    add("--target", "COL", "the column to forecast", required=True)
    add("--time", "COL", "the time column (default: the first that begins with an ISO date)")
    add("--features", "COL", "further columns to forecast from", nargs="+")
    add("--window", "N", "rows that a forecast sees", type=whole_number(2), default=96)
    add("--horizon", "M", "rows that it forecasts", type=whole_number(1), default=24)
    add("--hidden", "H", "width of the LSTM", type=whole_number(1), default=32)
    add("--layers", "L", "LSTM layers", type=whole_number(1), default=1)
    add("--epochs", "E", "passes over the training part, at most", type=whole_number(1), default=30)
    add("--val", "F", "fraction of the rows, the last ones, to judge by", type=fraction, default=0.2)
    choices = ("last", "window", "train")
    scales = "scale by each window's last value, each window's mean and deviation, or the training part's"
    add("--normalize", None, scales, choices=choices, default="last")
    add("--season", "N", "rows in a season (default: from the time step)", type=whole_number(1))
    add("--seed", "S", "seed of all random numbers", type=whole_number(0), default=0)
    add("--out", "DIR", "folder for the results (default: lstmx-train-FILE)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Read, train, report, write."""
    from lstmx import tabular
    from lstmx.callbacks import Progress
    from lstmx.forecast import Forecaster

    folder = Path(arguments.out or f"lstmx-train-{Path(arguments.file).stem}")
    columns = [arguments.target, *(arguments.features or [])]
    columns = list(dict.fromkeys(columns))
    table = tabular.read_csv(arguments.file, columns, time=arguments.time)
    forecaster = Forecaster(
        columns,
        window=arguments.window,
        horizon=arguments.horizon,
        hidden_size=arguments.hidden,
        num_layers=arguments.layers,
        normalize=arguments.normalize,
        season=arguments.season,
        step=table.step,
        time_column=table.time_column,
        rng=arguments.seed,
    )
    rows = forecaster.rows_needed(arguments.val)
    if len(table) < rows:
        sizes = f"window {arguments.window}, horizon {arguments.horizon}, val {arguments.val:g}"
        raise UserError(f"{table.path}: expected at least {rows} rows ({sizes}), got {len(table)}")
    check_folder(folder)
    draw = not missing_packages("matplotlib")
    if not draw:
        print("no picture: matplotlib is missing; from the checkout of lstmx, pip install '.[viz]'")
    print(_describe(table), flush=True)
    started = time.perf_counter()
    history = forecaster.fit(table.values, val=arguments.val, epochs=arguments.epochs, callbacks=[Progress()])
    seconds = time.perf_counter() - started
    print(_report(forecaster, history, seconds))

    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, arguments, table, forecaster, history, seconds, draw)
    return 130 if history.interrupted else 0


def _describe(table: Table) -> str:
    text = f"{table.path}: {len(table)} rows of {', '.join(table.columns)}"
    if table.times is not None:
        first, last = (table.format_time(table.times[k]) for k in (0, -1))
        text += f"; {table.time_column} from {first} to {last}, a row every {table.step}"
    return text


def _report(forecaster: Forecaster, history: History, seconds: float) -> str:
    metrics = forecaster.metrics
    assert metrics is not None
    names = {
        "lstm": "LSTM",
        "persistence": "persistence",
        "seasonal_naive": f"seasonal-naive ({metrics['season']})",
    }
    losses = history.get("val_loss")  # none where Ctrl-C came within the first epoch
    kept = f", kept the weights of epoch {losses.index(min(losses)) + 1}" if losses else ""
    lines = [
        f"trained {history.epochs} epochs in {seconds:.1f} s{kept}",
        f"{metrics['forecasts']} forecasts of {forecaster.horizon} rows in the last part, "
        f"errors in the unit of {forecaster.target}:",
        f"{'':<22}{'MAE':>12}{'RMSE':>12}",
    ]
    for key, name in names.items():
        if metrics[key] is not None:
            lines.append(f"{name:<22}{metrics[key]['mae']:>12.5g}{metrics[key]['rmse']:>12.5g}")
    if metrics["seasonal_naive"] is None:
        lines.append(
            "no seasonal-naive baseline: no season known (--season N), or less than one before the last part"
        )
    better = [
        name for key, name in names.items() if metrics[key] and metrics[key]["mae"] < metrics["lstm"]["mae"]
    ]
    if losses:
        lines.append("The last part also chose the epoch, so that the LSTM's errors are a little optimistic.")
    if better:
        lines.append(f"In MAE the LSTM is worse than {' and '.join(better)}: do not use it as it is.")
    if history.interrupted:
        lines.append("Interrupted: what was learnt until then is kept.")
    return "\n".join(lines)


def _write(
    folder: Path,
    arguments: argparse.Namespace,
    table: Table,
    forecaster: Forecaster,
    history: History,
    seconds: float,
    draw: bool,
) -> None:
    from lstmx import __version__, files

    model, metrics, picture = folder / "model.safetensors", folder / "metrics.json", folder / "forecast.png"
    forecaster.save(model)
    record = {
        "lstmx": __version__,
        "file": arguments.file,
        "rows": len(table),
        "step": None if table.step is None else str(table.step),
        "columns": list(table.columns),
        **{name: getattr(arguments, name) for name in ("window", "horizon", "hidden", "layers", "normalize")},
        **{name: getattr(arguments, name) for name in ("val", "seed")},
        "seconds": round(seconds, 3),
        "history": dict(history),
        "validation": forecaster.metrics,
    }
    files.write_atomic(metrics, (json.dumps(record, indent=2) + "\n").encode())
    tell_file("model", model, f"lstmx predict {{}} {shlex.quote(arguments.file)}")
    tell_file("metrics", metrics, "python -m json.tool {}")
    if draw:
        forecaster.plot(picture, table.values, times=table.times)
        tell_file("picture", picture, f"{picture_command()} {{}}")
