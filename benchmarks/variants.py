"""The LSTM's variants, the GRU and the plain recurrent cell beside the plain LSTM: forward and backward.

    python benchmarks/variants.py

One process and one thread, for all sides are this library's kernels, called through `_core` on arrays and
masks made beforehand. Weights count as changed, all gradients are asked for but those of the initial states.
Each variant, one option by itself, takes turns with the plain cell; a ratio is the variant's time by that of
the plain call before it, and the median of the rounds counts. y and dx are first compared with the
reference. Exit status 1 where a median is above the limit.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

import report
from harness import Row, ratio_summary, write_results
from lstmx import _core, reference
from lstmx._bench import Case, Disagreement, pin
from lstmx.reference import (
    GRU,
    Activation,
    BatchNormLstmCell,
    CellOptions,
    CellSpec,
    LayerNormLstmCell,
    LstmCell,
    RnnCell,
)

SHAPES = (Case(48, 24, 12, 40, mode="training"), Case(64, 48, 96, 160, mode="training"))
LIMIT = 1.35
EPS = 1e-2  # of normalizations: rounding errors stay small beside it
ROUNDS, ROUND_SECONDS = 15, 0.02
TOLERANCE = 1e-4  # of y and dx against the reference, relative to the largest


class Variant(NamedTuple):
    """One option of the cell `variant`, or another cell."""

    name: str
    options: dict[str, Any]  # of CellOptions
    masks: tuple[str, ...] = ()
    projects: bool = False
    cell: str = "variant"
    normalization: str = ""  # of the kernels: layer_norm or batch_norm
    limit: float = LIMIT

    def spec(self) -> CellSpec:
        """The cell of the reference."""
        if self.cell == "rnn":
            return RnnCell("tanh")
        if self.normalization:
            kind = LayerNormLstmCell if self.normalization == "layer_norm" else BatchNormLstmCell
            return kind(CellOptions(**self.options), EPS)
        return GRU if self.cell == "gru" else LstmCell(CellOptions(**self.options))

    def plan(self, inputs: int, hidden: int, width: int) -> _core.LstmPlan:
        """The kernels' plan."""
        options = dict(self.options)
        names = options.pop("activations", ("sigmoid", "tanh", "tanh"))
        for kind, function in zip(("gate", "candidate", "output"), map(Activation.of, names), strict=True):
            options[kind] = (function.name, function.alpha or 0.0, function.beta or 0.0)
        options["peepholes"] = options.pop("peephole", False)
        if self.normalization:
            options |= {self.normalization: True, "eps": EPS}
        return _core.LstmPlan(inputs, hidden, cell=self.cell, output_size=width, **options)


PLAIN = Variant("plain", {}, cell="lstm")
VARIANTS = (
    Variant("peepholes", {"peephole": True}),
    Variant("coupled gates", {"coupled": True}),
    Variant("gate clip", {"gate_clip": 3.0}),
    Variant("cell clip", {"cell_clip": 3.0}),
    Variant("projection to half", {}, projects=True),
    Variant("zoneout", {}, masks=("keep_h", "keep_c")),
    Variant("recurrent dropout", {}, masks=("h_mask",)),
    Variant("hard sigmoid", {"activations": ("hard_sigmoid", "tanh", "tanh")}),
    Variant("hard sigmoid and relu", {"activations": ("hard_sigmoid", "relu", "relu")}),
    Variant("layer normalization", {}, normalization="layer_norm"),
    Variant("batch normalization", {}, normalization="batch_norm", limit=2.0),
    Variant("GRU", {}, cell="gru"),
    Variant("RNN", {}, cell="rnn"),
)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of each variant (default {ROUNDS})")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        parser.error(f"--rounds: expected at least 1, got {options.rounds}")
    pinned = pin(1)
    if pinned is not None:
        pinned()
    rows = []
    for case in SHAPES:
        for row in measure(case, options.rounds):
            ratio = row["ratio"]["plain"]
            verdict = "ok" if ratio["median"] <= row["limit"] else "NO"
            print(
                f"{row['shape']} {row['variant']}: {ratio['median']:.2f} of the plain cell's time "
                f"({ratio['low']:.2f} to {ratio['high']:.2f}; at most {row['limit']:g}): {verdict}",
                flush=True,
            )
            rows.append(row)
    print(write_results("variants", {"rows": rows}))
    print(report.write())
    return 0 if all(row["ratio"]["plain"]["median"] <= row["limit"] for row in rows) else 1


def measure(case: Case, rounds: int, variants: Iterable[Variant] = VARIANTS) -> Iterator[Row]:
    """A row for each of `variants`.

    Raises:
        Disagreement: A variant's y or dx is not the reference's.
    """
    plain = prepare(PLAIN, case)
    plain()
    start = time.perf_counter()
    plain()
    calls = max(1, round(ROUND_SECONDS / (time.perf_counter() - start)))
    for variant in variants:
        run = prepare(variant, case)
        run()
        times = [(_seconds(plain, calls), _seconds(run, calls)) for _ in range(rounds)]
        seconds = {"plain": statistics.median(a for a, _ in times)}
        seconds["variant"] = statistics.median(b for _, b in times)
        yield {
            "shape": f"{case.T},{case.B},{case.I},{case.H}",
            **case.as_json(),
            "variant": variant.name,
            "limit": variant.limit,
            "threads": 1,
            "seconds": seconds,
            "ratio": {"plain": ratio_summary([b / a for a, b in times])},
        }


def prepare(variant: Variant, case: Case) -> Callable[[], None]:
    """A training call of the variant's kernels, checked against the reference."""
    rng = np.random.default_rng(0)
    steps, batch, inputs, hidden = case.T, case.B, case.I, case.H
    width = hidden // 2 if variant.projects else hidden
    rows = variant.spec().gates * hidden
    bound = 1 / np.sqrt(hidden)

    def uniform(*shape: int) -> np.ndarray:
        return rng.uniform(-bound, bound, shape).astype(np.float32)

    params: dict[str, np.ndarray | None] = {
        "weight_ih": uniform(rows, inputs),
        "weight_hh": uniform(rows, width),
        "bias_ih": uniform(rows),
        "bias_hh": uniform(rows),
        "weight_ch": uniform(3 * hidden) if variant.options.get("peephole") else None,
        "weight_hr": uniform(width, hidden) if variant.projects else None,
    }
    widths = {"gain_ih": rows, "gain_hh": rows, "gain_c": hidden, "bias_c": hidden}
    gains = {name: 1 + uniform(width) for name, width in widths.items()} if variant.normalization else {}
    d_gains = {f"d_{name}": np.zeros_like(gain) for name, gain in gains.items()}
    x = rng.standard_normal((steps, batch, inputs), dtype=np.float32)
    dy = rng.standard_normal((steps, batch, width), dtype=np.float32)
    shapes = {"keep_h": (steps, batch, width), "keep_c": (steps, batch, hidden), "h_mask": (batch, width)}
    masks = {name: (rng.random(shapes[name]) < 0.5).astype(np.float32) for name in variant.masks}
    y, dx = np.empty_like(dy), np.empty_like(x)
    h_n, c_n = np.empty((batch, width), np.float32), np.empty((batch, hidden), np.float32)
    gradients = [None if value is None else np.zeros_like(value) for value in params.values()]
    values = list(params.values())
    plan = variant.plan(inputs, hidden, width)
    version = 0

    def run() -> None:
        nonlocal version
        version += 1
        forward = (version, *values[:4], x, None, None, None, None, y, h_n, c_n, True, 0, 1)
        tape = plan.forward(*forward, *values[4:], **masks, **gains)
        outputs = (dx, None, None, *gradients[:4], 1, *gradients[4:])
        tape.backward(x, y, None, dy, None, None, *outputs, **masks, **d_gains)

    run()
    names = {"keep_h": "zoneout_h", "keep_c": "zoneout_c", "h_mask": "recurrent_mask"}
    given = {name: value for name, value in params.items() if value is not None} | gains
    kept = {names[name]: mask for name, mask in masks.items()}
    result = reference.recurrent_forward(x, given, cell=variant.spec(), **kept)
    wanted = {"y": result.y, "dx": reference.recurrent_backward(result.tape, dy).dx}
    for name, got in (("y", y), ("dx", dx)):
        error = float(np.abs(got - wanted[name]).max() / np.abs(wanted[name]).max())
        if not error <= TOLERANCE:
            raise Disagreement(f"{name}: {variant.name} is off by {error:.1e} from the reference")
    return run


def _seconds(run: Callable[[], None], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


if __name__ == "__main__":
    sys.exit(main())
