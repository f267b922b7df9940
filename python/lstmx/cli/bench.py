"""`lstmx bench`: an LSTM layer on this machine, beside PyTorch where that is installed, with a picture.

What runs it is `lstmx._bench`: each side in a process of its own at equal pinned threads, results compared
before anything is timed, sides taking turns. Named shapes, other peers and the machine's limits are in the
checkout's `benchmarks/`.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lstmx.cli._common import UserError, check_folder, missing_packages, whole_number

if TYPE_CHECKING:
    from lstmx._bench import Case

DEFAULT_SHAPES = ((20, 50, 10, 10), (64, 48, 96, 160))
LARGEST_BYTES = 2**30  # of x, y, gates and gradients of a shape, about
NAMES = {"lstmx": "lstmx", "torch": "PyTorch"}


class Result(NamedTuple):
    """A shape in a mode: median seconds by side, PyTorch's time by ours if measured, GF/s by side."""

    case: Case
    seconds: dict[str, float]
    ratio: float | None
    gflops: dict[str, float]


def add_command(commands: Any) -> None:
    """Declare the command and its arguments."""
    parser = commands.add_parser(
        "bench",
        help="time an LSTM layer, beside PyTorch if wanted",
        description="Time one LSTM layer, inference and training (forward and backward), and draw a picture. "
        "Each side runs in a process of its own; results must agree before anything is timed.",
    )
    parser.add_argument(
        "--shape",
        type=_shape,
        action="append",
        metavar="T,B,I,H",
        help="time steps, batch, inputs, hidden units; repeatable (default: 20,50,10,10 and 64,48,96,160)",
    )
    parser.add_argument(
        "--against", choices=("torch", "none"), default="torch", help="the other side (default: %(default)s)"
    )
    parser.add_argument(
        "--threads", type=whole_number(1), metavar="N", help="of each side (default: lstmx's own default)"
    )
    parser.add_argument(
        "--out", default="lstmx-bench.png", metavar="FILE", help="the picture (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, draw."""
    from lstmx._bench import processors
    from lstmx._core import get_num_threads

    available = len(processors())
    threads = min(get_num_threads(), available) if arguments.threads is None else arguments.threads
    if threads > available:
        raise UserError(f"--threads: expected at most {available}, the processors there are, got {threads}")
    sides = ["lstmx"] if arguments.against == "none" else ["lstmx", arguments.against]
    if missing_packages(*sides[1:]):
        raise UserError("--against torch: PyTorch is not installed; install it, or use --against none")
    picture = Path(arguments.out)
    check_folder(picture.parent)
    draw = not missing_packages("matplotlib")
    if draw:
        picture = _check_picture(picture)
    else:
        print("no picture: matplotlib is missing; from the checkout of lstmx, pip install '.[viz]'")
    results = _measure(arguments.shape or list(DEFAULT_SHAPES), sides, threads)
    if draw:
        _draw(picture, results, threads)
        print(f"picture   {picture}")
    return 0


def _shape(text: str) -> tuple[int, int, int, int]:
    """An argparse type."""
    try:
        steps, batch, inputs, hidden = (int(part) for part in text.split(","))
    except ValueError:
        steps = batch = inputs = hidden = 0
    if min(steps, batch, inputs, hidden) < 1:
        raise argparse.ArgumentTypeError(f"expected four integers T,B,I,H of at least 1, got {text!r}")
    floats = steps * batch * (2 * inputs + 8 * hidden) + 12 * hidden * (inputs + hidden)
    if 4 * floats > LARGEST_BYTES:
        raise argparse.ArgumentTypeError(f"expected a shape that takes at most 1 GiB, got {text!r}")
    return steps, batch, inputs, hidden


def _check_picture(path: Path) -> Path:
    """The path with its suffix, refused before any work where matplotlib cannot write that kind."""
    from matplotlib.figure import Figure

    path = path if path.suffix else path.with_suffix(".png")
    kinds = sorted(Figure().canvas.get_supported_filetypes())
    if path.suffix[1:].lower() not in kinds:
        raise UserError(f"--out: expected a file ending with one of {', '.join(kinds)}, got {str(path)!r}")
    if path.is_dir():
        raise UserError(f"--out: expected a file, got the folder {str(path)!r}")
    return path


def _measure(shapes: list[tuple[int, int, int, int]], sides: list[str], threads: int) -> list[Result]:
    from lstmx._bench import MODES, Case, Worker, machine

    print(f"{machine()['processor']}, {threads} thread{'s' * (threads > 1)}; median times in microseconds")
    columns = [f"{NAMES[side]:>14}" for side in sides] + ["   ratio"] * (len(sides) > 1)
    print(f"{'T,B,I,H':<20}{'mode':<11}{''.join(columns)}{'GF/s':>9}")
    results = []
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Worker(["-m", "lstmx._bench"], side, threads)) for side in sides]
        for shape in shapes:
            for mode in MODES:
                result = _measure_case(workers, Case(*shape, mode=mode))
                results.append(result)
                print(_line(result), flush=True)
    return results


def _measure_case(workers: list[Any], case: Case) -> Result:
    import statistics

    from lstmx._bench import compare, ratios

    try:
        times = compare(workers, case.as_json())
    except RuntimeError as error:
        raise UserError(f"{_name(case)}, {case.mode}: {error}") from None
    seconds = {side: statistics.median(rounds) for side, rounds in times.items()}
    ratio = statistics.median(ratios(times, "torch")) if "torch" in times else None
    return Result(case, seconds, ratio, {side: case.flops() / s / 1e9 for side, s in seconds.items()})


def _name(case: Case) -> str:
    return f"{case.T},{case.B},{case.I},{case.H}"


def _line(result: Result) -> str:
    times = "".join(f"{1e6 * seconds:>14,.1f}" for seconds in result.seconds.values())
    ratio = "" if result.ratio is None else f"{result.ratio:>7.2f}x"
    name = _name(result.case)
    return f"{name:<20}{result.case.mode:<11}{times}{ratio}{result.gflops['lstmx']:>9.3g}"


def _draw(path: Path, results: list[Result], threads: int) -> None:
    """Bars of GF/s by shape and mode, one a side, with the ratio above."""
    from lstmx._bench import machine
    from lstmx.plotting import new_figure, save_figure

    figure, ax = new_figure()
    figure.set_figwidth(max(figure.get_figwidth(), 1.4 * len(results)))  # room for the labels
    sides = list(results[0].seconds)
    colors = {"lstmx": "tab:blue", "torch": "tab:orange"}
    width = 0.8 / len(sides)
    for index, side in enumerate(sides):
        middle = [k + (index - (len(sides) - 1) / 2) * width for k in range(len(results))]
        heights = [result.gflops[side] for result in results]
        ax.bar(middle, heights, width, color=colors[side], label=NAMES[side])
    for k, result in enumerate(results):
        if result.ratio is not None:
            ax.annotate(
                f"{result.ratio:.2f}x",
                (k, max(result.gflops.values())),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
            )
    ax.set_xticks(range(len(results)), [f"{_name(r.case)}\n{r.case.mode}" for r in results])
    ax.set_ylabel("GF/s")
    ax.margins(y=0.12)
    ax.set_title(f"One LSTM layer (T,B,I,H), {threads} thread{'s' * (threads > 1)}, {machine()['processor']}")
    ax.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(path, figure)
