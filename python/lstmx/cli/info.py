"""`lstmx info [MODEL]`: the build and the machine, or what a model file holds."""

from __future__ import annotations

import argparse
from typing import Any


def add_command(commands: Any) -> None:
    """Declare the command and its arguments."""
    parser = commands.add_parser(
        "info",
        help="show version, targets and threads, or a model's layers and sizes",
        description="Without MODEL: version, instruction sets, threads. With MODEL: its layers and sizes.",
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a model file (.safetensors)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print it."""
    if arguments.model is None:
        from lstmx.targets import show_config

        print(show_config())
    else:
        print("\n".join(_describe_model(arguments.model)))
    return 0


def _describe_model(path: str) -> list[str]:
    from lstmx import files
    from lstmx.layers import Sequential

    model, extra = files.load_with_extra(path)
    layers = list(model.layers) if isinstance(model, Sequential) else [model]
    lines = [
        f"{path}: {type(model).__name__}, {model.num_parameters:,} parameters, "
        f"{4 * model.num_parameters:,} bytes of float32"
    ]
    width = max(len(repr(layer)) for layer in layers)
    for index, layer in enumerate(layers):
        lines.append(f"  {index}  {layer!r:<{width}}  {layer.num_parameters:>12,}")
    if "forecaster" in extra:
        lines += _describe_forecaster(path)
    return lines


def _describe_forecaster(path: str) -> list[str]:
    from lstmx.forecast import Forecaster

    forecaster = Forecaster.load(path)
    step = "" if forecaster.step is None else f", a row every {forecaster.step} ({forecaster.time_column})"
    columns = ", ".join(map(repr, forecaster.columns))
    return [
        f"forecasts {forecaster.horizon} rows of {forecaster.target!r}{step}, "
        f"from the last {forecaster.window} rows of {columns}",
        f"normalize: {forecaster.normalize}",
    ]
