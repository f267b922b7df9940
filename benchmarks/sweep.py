"""Random shapes beside PyTorch: nothing may be tuned to the shapes that have names.

    python benchmarks/sweep.py                     # 200 shapes, 1 thread and 2
    python benchmarks/sweep.py --number 20 --seed 7 --threads 1 --out sweep-7

T, B, I and H are log-uniform; a shape whose forward pass takes more than --max-gflop is drawn again.
Reports the worst ratio and the ten worst shapes of inference and training, in results/sweep.json and, under
that name, in RESULTS.md. Exit status 1 if a side failed or disagreed; a low ratio is a finding, not a
failure.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator

import numpy as np

import peers
import report
from harness import Row, run_of, write_results
from lstmx._bench import MODES, Case, processors

LARGEST = (1000, 256, 512, 512)  # T, B, I, H
PACE = {"rounds": 5, "round_seconds": 0.05, "probe_seconds": 0.06}


def draw(number: int, seed: int, max_gflop: float) -> Iterator[Case]:
    """`number` different shapes."""
    rng = np.random.default_rng(seed)
    seen: set[Case] = set()
    while len(seen) < number:
        sizes = np.exp(rng.uniform(0.0, np.log(np.array(LARGEST) + 1.0)))
        case = Case(*(int(size) for size in sizes))
        if case.flops() <= 1e9 * max_gflop and case not in seen:
            seen.add(case)
            yield case


def main(argv: list[str] | None = None) -> int:
    options = _parse(argv)
    if not peers.installed(["torch"]):
        print("the sweep needs PyTorch: pip install '.[bench]' in the checkout")
        return 2
    rows: list[Row] = []
    failures = 0
    for threads in options.threads:
        with run_of(threads, "native", **PACE) as run:
            for case in draw(options.number, options.seed, options.max_gflop):
                for mode in MODES:
                    name = f"{case.T},{case.B},{case.I},{case.H}"
                    try:
                        row = run.measure(name, dataclasses.replace(case, mode=mode), ["torch"])
                    except RuntimeError as error:
                        print(f"{name} {mode} FAILED: {error}", flush=True)
                        failures += 1
                        continue
                    rows.append(row)
                    print(
                        f"{name:<20}{mode:<10}{threads}  {row['ratio']['torch']['median']:.2f}x", flush=True
                    )
    if not rows:
        print("nothing was measured")
        return 1
    _print_worst(rows)
    about = {"seed": options.seed, "shapes": options.number, "max_gflop": options.max_gflop}
    print(write_results(options.out, {**about, "rows": rows}))
    if options.out == "sweep":
        print(report.write())
    return 1 if failures else 0


def _print_worst(rows: list[Row]) -> None:
    for mode, threads in sorted({(row["mode"], row["threads"]) for row in rows}):
        group = [row for row in rows if row["mode"] == mode and row["threads"] == threads]
        worst = min(group, key=lambda row: row["ratio"]["torch"]["median"])
        print(
            f"worst in {mode}, {threads} thread(s): "
            f"{worst['ratio']['torch']['median']:.2f}x at {worst['shape']}"
        )


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--number", type=int, default=200, help="shapes (default 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-gflop", type=float, default=1.0, help="of a forward pass (default 1)")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2][: len(processors())])
    parser.add_argument("--out", metavar="NAME", default="sweep", help="to results/NAME.json")
    options = parser.parse_args(argv)
    if options.number < 1 or options.max_gflop <= 0 or options.seed < 0:
        parser.error("--number and --max-gflop: expected more than 0; --seed: at least 0")
    if not all(1 <= threads <= len(processors()) for threads in options.threads):
        parser.error(f"--threads: expected 1 to {len(processors())}, got {options.threads}")
    return options


if __name__ == "__main__":
    sys.exit(main())
