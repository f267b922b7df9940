"""The errors of float32 at each precision, and what they do to a training: figures of docs/precision.md.

    python benchmarks/precision.py [--text FILE]         # about fifteen minutes on one core

One LSTM layer, forward and backward, by size: y, c_n and every gradient, element by element, by the library
at each precision, by its multiply-add units and by PyTorch. With --text (a text to learn from, as the page
names it), the loss of a model of characters at each precision, step by step, too. The engine's arithmetic is
that of the target `emulated`, which is AMX's; no times are measured. Figures go between the marks in the
page, the curves into a picture beside it. Needs PyTorch, AVX-512 and, for the curves, matplotlib.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

import lstmx

PAGE = Path(__file__).parents[1] / "docs" / "precision.md"
ARRAYS = ("y", "c_n", "dx", "dh_0", "dc_0", "d_weight_ih", "d_weight_hh", "d_bias")
QUANTILES = (0.5, 0.9, 0.99, 1.0)
UNITS = {"high": 1e-6, "medium": 1e-3}  # of the tables; 1e-7 of the others

Arrays: TypeAlias = dict[str, NDArray[Any]]
Errors: TypeAlias = dict[str, list[float]]  # of each array, by quantile


class Size(NamedTuple):
    """One layer and its batch: T steps of B rows, I features, H units."""

    T: int
    B: int
    I: int  # noqa: E741 (the field's letter)
    H: int

    def draw(self) -> Arrays:
        """Data and given gradients, from N(0, 1)."""
        rng, state = np.random.default_rng(0), (self.B, self.H)
        shapes = {"x": (self.T, self.B, self.I), "h_0": state, "c_0": state, "dy": (self.T, *state)}
        drawn = {name: rng.normal(size=shape) for name, shape in shapes.items()}
        return {name: array.astype(np.float32) for name, array in drawn.items()}


SIZES = (Size(30, 16, 24, 40), Size(50, 64, 64, 128), Size(20, 32, 64, 384), Size(8, 32, 64, 1024))


# --- the sides ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def setting(precision: str | None) -> Iterator[None]:
    """The emulated engine at a precision, for all products; None: multiply-add units."""
    engine = "fma" if precision is None else "tiles"
    with lstmx.targets.use("emulated"), lstmx.float32_precision(precision, engine=engine):
        yield


SETTINGS = {"multiply-add": None, "highest": "highest", "high": "high", "medium": "medium"}


def ours(size: Size, data: Arrays, dtype: str) -> Arrays:
    """What the library makes of the data, by the present settings."""
    layer = lstmx.LSTM(size.I, size.H, dtype=dtype)
    layer.load_state_dict(lstmx.LSTM(size.I, size.H, rng=0).state_dict())
    y, (_, c_n), backward = layer.forward(data["x"], (data["h_0"][None], data["c_0"][None]))
    dx, (dh_0, dc_0) = backward(data["dy"])
    grads = layer.grads
    by_weights = grads["weight_ih_l0"], grads["weight_hh_l0"], grads["bias_ih_l0"]
    return dict(zip(ARRAYS, (y, c_n[0], dx, dh_0[0], dc_0[0], *by_weights), strict=True))


def pytorchs(size: Size, data: Arrays) -> Arrays:
    """What PyTorch makes of them in float32, on one thread."""
    import torch

    torch.set_num_threads(1)
    layer = torch.nn.LSTM(size.I, size.H)
    weights = lstmx.LSTM(size.I, size.H, rng=0).state_dict()
    layer.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})
    x, h_0, c_0 = (torch.from_numpy(data[name]).requires_grad_() for name in ("x", "h_0", "c_0"))
    y, (_, c_n) = layer(x, (h_0[None], c_0[None]))
    y.backward(torch.from_numpy(data["dy"]))
    gradients = (x, h_0, c_0, layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0)
    tensors = y.detach(), c_n.detach()[0], *(tensor.grad for tensor in gradients)
    return dict(zip(ARRAYS, (tensor.numpy() for tensor in tensors), strict=True))


def errors(size: Size) -> dict[str, Errors]:
    """The errors of each side, in the root mean square of the array that they are in."""
    data = size.draw()
    truth = ours(size, data, "float64")

    def of(got: Arrays) -> Errors:
        made = {}
        for name, exact in truth.items():
            off = np.abs(got[name] - exact) / math.sqrt(np.mean(exact**2))
            made[name] = [float(q) for q in np.quantile(off, QUANTILES)]
        return made

    found = {"PyTorch": of(pytorchs(size, data))}
    for name, precision in SETTINGS.items():
        with setting(precision):
            found[name] = of(ours(size, data, "float32"))
    return found


# --- the training -------------------------------------------------------------------------------------------


def losses(text: str, steps: int, size: Size, layers: int = 2) -> list[float]:
    """The loss of each training step on windows of the text, the same ones at every call."""
    characters = sorted(set(text))
    codes = np.array([characters.index(c) for c in characters], np.int64)
    codes = codes[np.searchsorted(np.array(characters), np.array(list(text)))]
    model = lstmx.Sequential(
        lstmx.Embedding(len(characters), size.I, rng=0),
        lstmx.LSTM(size.I, size.H, layers, batch_first=True, rng=1),
        lstmx.Linear(size.H, len(characters), rng=2),
    )
    loss, optimizer, rng = lstmx.losses.CrossEntropy(), lstmx.optim.Adam(lr=2e-3), np.random.default_rng(3)
    made = []
    for _ in range(steps):
        starts = rng.integers(0, len(codes) - size.T - 1, size.B)
        windows = codes[starts[:, np.newaxis] + np.arange(size.T + 1)]
        model.zero_grad()
        logits, _, backward = model.forward(windows[:, :-1])
        value, d_logits = loss(logits, windows[:, 1:])
        backward(d_logits)
        optimizer.step(model)
        made.append(float(value))
    return made


def curves(text: str, steps: int, size: Size) -> dict[str, list[float]]:
    """The losses at each precision; "other kernels": by multiply-add units, of another target."""
    made = {}
    for name, precision in SETTINGS.items():
        with setting(precision):
            made[name] = losses(text, steps, size)
    with lstmx.targets.use("avx2"):
        made["other kernels"] = losses(text, steps, size)
    return made


def draw(path: Path, made: dict[str, list[float]]) -> None:
    """Draw the curves, and below them how far each is from that of the multiply-add units."""
    from lstmx import plotting

    plotting.require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6), dpi=80, layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    base = np.array(made["multiply-add"])
    for n, ((name, values), width) in enumerate(zip(made.items(), (6, 4, 2.5, 1, 1), strict=True)):
        if name != "other kernels":
            above.plot(values, label=name, linewidth=width, color=f"C{n}")
        if name != "multiply-add":
            difference = np.abs(np.array(values) - base)
            below.semilogy(difference + 1e-9, label=name, linewidth=1, color=f"C{n}")
    above.set_ylabel("loss")
    below.set_ylabel("difference from multiply-add")
    below.set_xlabel("step")
    below.set_ylim(top=1)  # room for the names
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.legend(loc="upper right", ncols=2)
    figure.savefig(path)


# --- the page -----------------------------------------------------------------------------------------------


def summary(by_size: dict[Size, dict[str, Errors]]) -> str:
    """The largest error of outputs and of gradients, by size and side."""
    sides = list(next(iter(by_size.values())))
    lines = [f"| T, B, I, H | of | {' | '.join(sides)} |", "|---" * (len(sides) + 2) + "|"]
    for size, found in by_size.items():
        for label, names in (("y, c_n", ARRAYS[:2]), ("gradients", ARRAYS[2:])):
            worst = [max(found[side][name][-1] for name in names) for side in sides]
            lines.append(f"| {', '.join(map(str, size))} | {label} | {' | '.join(map(scientific, worst))} |")
    return "\n".join(lines)


def table(size: Size, found: dict[str, Errors]) -> str:
    """All quantiles of one size, those of a side in one unit."""
    units = [UNITS.get(side, 1e-7) for side in found]
    head = [f"{side}, {unit:.0e}" for side, unit in zip(found, units, strict=True)]
    title = f"T, B, I, H = {', '.join(map(str, size))}"
    lines = [f"| {title} | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for name in ARRAYS:
        cells = [
            " ".join(f"{float(f'{q / unit:.2g}'):g}" for q in made[name])
            for made, unit in zip(found.values(), units, strict=True)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def scientific(number: float) -> str:
    """Two digits: 1.2e-07."""
    return f"{number:.1e}"


def describe_curves(made: dict[str, list[float]], size: Size) -> str:
    """The text under the picture."""
    base = np.array(made["multiply-add"])
    off = {name: np.abs(np.array(values) - base).max() for name, values in made.items()}
    listed = ", ".join(f"{name} {scientific(off[name])}" for name in made if name != "multiply-add")
    return (
        f"{base.size} steps of Adam on {size.B} windows of {size.T} characters; two layers of {size.H}. "
        f"The loss falls from {base[0]:.3f} to {base[-20:].mean():.3f} (mean of the last 20). Largest "
        f"difference of any step's loss from that of the multiply-add units: {listed}."
    )


def put(page: str, mark: str, text: str) -> str:
    """`page` with `text` between the marks of that name."""
    found, n = re.subn(
        rf"(<!-- {mark} -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}{text}\n{m[2]}", page, flags=re.DOTALL
    )
    if n != 1:
        raise ValueError(f"{PAGE}: expected one mark {mark!r}, got {n}")
    return found


def main(arguments: list[str] | None = None, write: Callable[[str], Any] = PAGE.write_text) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", type=Path, help="a text to learn from; without it the curves stay")
    parser.add_argument("--steps", type=int, default=200, help="training steps (200)")
    options = parser.parse_args(arguments)
    by_size = {}
    for size in SIZES:
        by_size[size] = errors(size)
        print(table(size, by_size[size]), flush=True)
    page = put(PAGE.read_text(), "summary", summary(by_size))
    page = put(page, "errors", "\n\n".join(table(size, found) for size, found in by_size.items()))
    if options.text is not None:
        size = Size(32, 16, 64, 256)
        made = curves(options.text.read_text(), options.steps, size)
        draw(PAGE.with_name("precision.png"), made)
        page = put(page, "curves", describe_curves(made, size))
    write(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
