"""`lstmx demo`: an LSTM learns to turn a sine into a cosine, with everything that training can show.

The job has constants of its own, of which none is an option: results can be compared between machines,
versions and frameworks. The training is `lstmx.Trainer`'s over an `lstmx.data.Stream`.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lstmx.cli._common import (
    UserError,
    check_folder,
    missing_packages,
    picture_command,
    tell_file,
    whole_number,
)

if TYPE_CHECKING:
    from lstmx._checks import FloatArray
    from lstmx.callbacks import Callback
    from lstmx.data import Stream
    from lstmx.layers import Sequential

STEPS = 20  # time steps of a batch, through which gradients flow
BATCH = 50  # rows; row r of batch n starts at t = STEPS * (n + r)
WIDTH = 10  # of the LSTM, its input and its output
LEARNING_RATE = 0.006
ITERATIONS = 200
PRINT_EVERY = 20

PICTURE, ANIMATION, EVENTS, MODEL = "prediction.png", "training.gif", "tensorboard", "model.safetensors"


def add_command(commands: Any) -> None:
    """Declare the command and its arguments."""
    parser = commands.add_parser(
        "demo",
        help="learn a cosine from a sine, with progress, picture, TensorBoard scalars and model file",
        description="Train a small LSTM for 200 iterations on a stream of sines, cosine as target, and write "
        "a picture, TensorBoard scalars and the model.",
    )
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, metavar="S", help="of the weights (default 0)"
    )
    parser.add_argument("--live", action="store_true", help="watch prediction and target in a window")
    parser.add_argument("--gif", action="store_true", help="write the animation of prediction and target")
    parser.add_argument("--out", default="lstmx-demo", metavar="DIR", help="folder (default: %(default)s)")
    parser.set_defaults(run=run)


def series(steps: int) -> tuple[FloatArray, FloatArray]:
    """Sine and cosine of t / (10 pi) for t = 0, 1, ..., each [steps]."""
    angle = np.arange(steps) / (10 * math.pi)
    return np.sin(angle).astype(np.float32), np.cos(angle).astype(np.float32)


def stream() -> Stream:
    """All the training data: a batch an iteration."""
    from lstmx.data import Stream

    x, y = series(STEPS * (ITERATIONS + BATCH - 1))
    return Stream(x, y, STEPS, BATCH, row_offset=STEPS)


def new_model(seed: int) -> Sequential:
    """Linear 1 -> 10, LSTM 10 -> 10, Linear 10 -> 1, with the job's initial values."""
    from lstmx.layers import LSTM, Linear, Sequential

    rng = np.random.default_rng(seed)
    return Sequential(
        Linear(1, WIDTH, init="normal", bias_init=0.1, rng=rng),
        LSTM(WIDTH, WIDTH, batch_first=True, init="glorot", forget_bias=1.0, rng=rng),
        Linear(WIDTH, 1, init="normal", bias_init=0.1, rng=rng),
    )


def run(arguments: argparse.Namespace) -> int:
    """Train, draw, save, and say where everything lies."""
    from lstmx import files
    from lstmx.callbacks import Progress
    from lstmx.losses import MSE
    from lstmx.optim import Adam
    from lstmx.trainer import Trainer

    folder = Path(arguments.out)
    _check_packages()
    check_folder(folder)
    callbacks = [*_live_plots(arguments, folder), _scalars(folder), Progress(), _print_costs()]
    model = new_model(arguments.seed)
    trainer = Trainer(model, MSE(divisor="batch"), Adam(lr=LEARNING_RATE), callbacks)
    history = trainer.fit(stream())
    if history.interrupted:
        return 130
    files.save(folder / MODEL, model, extra={"command": "lstmx demo", "seed": arguments.seed})
    _draw(folder / PICTURE, model)
    _say_where(folder, animation=arguments.gif)
    return 0


def _check_packages() -> None:
    missing = missing_packages("matplotlib", "tensorboardX")
    if missing:
        raise UserError(
            f"demo draws and logs with {' and '.join(missing)}, not installed: "
            "from the checkout of lstmx, pip install '.[viz]'"
        )


def _live_plots(arguments: argparse.Namespace, folder: Path) -> list[Callback]:
    from lstmx.callbacks import LivePlot

    plots: list[Callback] = []
    if arguments.live:
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise UserError("--live needs a screen, and there is none (DISPLAY is not set); --gif needs none")
        plots.append(LivePlot(every=2, window=True))
    if arguments.gif:
        folder.mkdir(parents=True, exist_ok=True)
        plots.append(LivePlot(folder / ANIMATION, every=4, window=False))
    return plots


def _scalars(folder: Path) -> Callback:
    """The TensorBoard callback; events of an earlier demo are replaced, as all files of a demo are."""
    from lstmx.callbacks import TensorBoard

    for old in (folder / EVENTS).glob("events.out.tfevents.*"):
        old.unlink()
    return TensorBoard(folder / EVENTS, tags={"loss": "cost"})


def _print_costs() -> Callback:
    from tqdm import tqdm

    from lstmx.callbacks import Callback

    class PrintCosts(Callback):
        """Prints the cost of every 20th iteration, above the bar."""

        def on_train_batch_end(self, batch: int, logs: Mapping[str, float]) -> None:
            if (batch + 1) % PRINT_EVERY == 0:
                tqdm.write(f"iteration {batch + 1:3d}: cost {logs['loss']:.4f}")

    return PrintCosts()


def _draw(path: Path, model: Sequential) -> None:
    """The cosine and what the model makes of the sine, from a state of zeros, over three periods."""
    from lstmx.plotting import plot_prediction

    x, y = series(round(3 * 2 * math.pi * 10 * math.pi))
    prediction, _ = model(x[None, :, None])
    title = f"sine to cosine after {ITERATIONS} iterations, begun with a state of zeros"
    plot_prediction(path, y, prediction, title=title, xlabel="t", ylabel="cos(t / (10π))")


def _say_where(folder: Path, *, animation: bool) -> None:
    install = "  (first: pip install tensorboard)" if missing_packages("tensorboard") else ""
    tell_file("picture", folder / PICTURE, f"{picture_command()} {{}}")
    if animation:
        tell_file("animation", folder / ANIMATION, f"{picture_command()} {{}}")
    tell_file("scalars", folder / EVENTS, f"tensorboard --logdir {{}}{install}")
    tell_file("model", folder / MODEL, "lstmx info {}")
