"""Products by an engine: lstmx at each precision beside PyTorch, and beside its own multiply-add units.

    python benchmarks/engines.py                     # named shapes, then 200 random ones
    python benchmarks/engines.py --number 0 --threads 1

Only precisions that the active target has an engine for are measured: `highest` and `high` against PyTorch in
float32, `medium` against PyTorch in bfloat16. Then the cost rule: random shapes (those of sweep.py), each at
the precision as the rule chooses and with `engine="fma"`, by turns in one process; where the rule keeps the
engine off both are the same code, and nothing is timed. Writes results/engines.json and RESULTS.md. Exit
status 1 if a side failed or the rule was wrong: slower than the units by more than 3 %.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import statistics
import sys
import time
from collections.abc import Callable

import lstmx
import report
from harness import Row, ratio_summary, write_results
from lstmx._bench import MODES, SIDES, Case, Worker, compare, pin, processors, ratios, serve, torch_side
from shapes import AGAINST_TORCH_BY_ENGINE, SHAPES
from sweep import draw

# What two sides may differ by: sums of bf16 products agree no better, and PyTorch's states are bf16 as well.
TOLERANCE = {"highest": 1e-4, "high": 1e-3, "medium": 0.15}
PEER = {"highest": "torch", "high": "torch", "medium": "torch-bf16"}
WORST = 0.97
ROUNDS, ROUND_SECONDS = 7, 0.3
SWEEP_ROUNDS, SWEEP_SECONDS = 5, 0.04


def precisions() -> list[str]:
    """Those that the active target has an engine for."""
    return [
        p
        for p in ("highest", "high", "medium")
        if lstmx.LSTM(64, 64, precision=p).products(64)[0].engine != "fma"
    ]


def main(argv: list[str] | None = None) -> int:
    options = _parse(argv)
    found = precisions()
    if not found:
        print(f"the target {lstmx.targets.active()} has no engine: nothing is measured")
        return 2
    rows: list[Row] = []
    for precision in found:
        for threads in options.threads:
            rows += beside_pytorch(precision, threads)
    pinned = pin(1)
    if pinned is not None:
        pinned()
    lstmx.set_num_threads(1)
    worst = [cost_rule(precision, options.number, options.seed) for precision in found if options.number]
    for result in worst:
        print(
            f"{result['precision']}: the engine was chosen for {result['chosen']} of {result['shapes']} "
            f"calls; worst {result['worst']:.2f} times the speed of multiply-add units, at {result['shape']}"
        )
    print(write_results("engines", {"rows": rows, "rule": worst}))
    print(report.write())
    return 0 if all(result["worst"] >= WORST for result in worst) else 1


def beside_pytorch(precision: str, threads: int) -> list[Row]:
    """A row for each shape that the issue of engines names, inference and training."""
    rows = []
    peer = PEER[precision]
    with (
        Worker([__file__], "lstmx", threads, {"LSTMX_PRECISION": precision}) as ours,
        Worker([__file__], peer, threads) as theirs,
    ):
        for name in AGAINST_TORCH_BY_ENGINE[precision]:
            for mode in MODES:
                case = dataclasses.replace(SHAPES[name], mode=mode)
                times = compare(
                    [ours, theirs],
                    case.as_json(),
                    tolerance=TOLERANCE[precision],
                    rounds=ROUNDS,
                    round_seconds=ROUND_SECONDS,
                )
                ratio = ratio_summary(ratios(times, peer))
                print(
                    f"{precision:<8}{name:<16}{mode:<10}{threads}  {ratio['median']:.2f}x of {peer}",
                    flush=True,
                )
                rows.append(
                    {
                        "shape": name,
                        **case.as_json(),
                        "precision": precision,
                        "threads": threads,
                        "peer": peer,
                        "seconds": {side: statistics.median(rounds) for side, rounds in times.items()},
                        "ratio": ratio,
                    }
                )
    return rows


def cost_rule(precision: str, number: int, seed: int) -> Row:
    """How the rule's choice does beside the units where it takes the engine: the worst of random shapes."""
    lowest, where, chosen = float("inf"), "", 0
    for case in draw(number, seed, max_gflop=1.0):
        if lstmx.LSTM(case.I, case.H, precision=precision).products(case.B)[0].engine == "fma":
            continue
        for mode in MODES:
            chosen += 1
            sides = [_call(case, mode, precision, engine) for engine in ("auto", "fma")]
            times = [_seconds(side) for side in sides]
            runs = max(1, round(SWEEP_SECONDS / max(times[1], 1e-6)))
            rounds = [[_seconds(side, runs) for side in sides] for _ in range(SWEEP_ROUNDS)]
            ratio = statistics.median(units / engine for engine, units in rounds)
            if ratio < lowest:
                lowest, where = ratio, f"{case.T},{case.B},{case.I},{case.H} {mode}"
    return {
        "precision": precision,
        "shapes": number * len(MODES),
        "chosen": chosen,
        "worst": lowest,
        "shape": where,
        "seed": seed,
    }


def _call(case: Case, mode: str, precision: str, engine: str) -> Callable[[], object]:
    lstm = lstmx.LSTM(case.I, case.H, precision=precision, engine=engine)
    lstm.load_state_dict(case.weights())
    x = case.x()
    if mode == "inference":
        return functools.partial(lstm, x)
    dy = case.dy()

    def train() -> None:
        lstm.arena.touch()
        lstm.zero_grad()
        backward = lstm.forward(x)[2]
        backward(dy, need_dstate=False)

    return train


def _seconds(run: Callable[[], object], runs: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(runs):
        run()
    return (time.perf_counter() - start) / runs


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--number", type=int, default=200, help="random shapes (default 200), 0: none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2][: len(processors())])
    options = parser.parse_args(argv)
    if options.number < 0 or options.seed < 0:
        parser.error("--number, --seed: expected at least 0")
    if not all(1 <= threads <= len(processors()) for threads in options.threads):
        parser.error(f"--threads: expected 1 to {len(processors())}, got {options.threads}")
    return options


if __name__ == "__main__":
    if "--worker" in sys.argv:
        serve({**SIDES, "torch-bf16": functools.partial(torch_side, dtype="bfloat16")})
    else:
        sys.exit(main())
