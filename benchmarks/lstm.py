"""One LSTM layer by shape, beside PyTorch (no-grad, with gradients, packed), ONNX Runtime and JAX.

    python benchmarks/lstm.py                      # all of it: a while
    python benchmarks/lstm.py --shapes sine 64,48,96,160 --threads 1 --modes training --peers torch --quick

Every side is a process of its own with equal pinned threads; results must agree before anything is timed;
sides take turns. Rows go to results/lstm.json, where they replace those of the same measurement, and
RESULTS.md is drawn up anew (with --quick or --out: to a file of their own, and no page). Exit status 1 if a
side failed or disagreed.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys

import peers
import report
from harness import Row, Run, merge_rows, run_of, write_results
from lstmx import targets as lstmx_targets
from lstmx._bench import MODES, Case, processors
from shapes import SHAPES, parse_shape, targets

PACKED = "packed"  # a peer to choose: PyTorch, and whoever else takes lengths, on rows of random lengths
FULL = {"rounds": 7, "round_seconds": 0.3, "probe_seconds": 1.0}
QUICK = {"rounds": 3, "round_seconds": 0.03, "probe_seconds": 0.2}


def main(argv: list[str] | None = None) -> int:
    options = _parse(argv)
    chosen = peers.installed([peer for peer in options.peers if peer != PACKED])
    for peer in set(options.peers) - {PACKED} - set(chosen):
        print(f"{peer} is not installed: left out")
    name = options.out or ("quick" if options.quick else "lstm")
    rows: list[Row] = []
    failures = 0
    for isa in options.isa:
        for threads in options.threads:
            with run_of(threads, isa, **(QUICK if options.quick else FULL)) as run:
                for shape, case in _cases(options):
                    others = chosen if not case.lengths else peers.installed(["torch", "onnxruntime"])
                    failures += not _measure(run, shape, case, others, rows)
            if rows:
                write_results(name, {"rows": merge_rows(name, rows)})
    if rows and name == "lstm":
        print(report.write())
    return 1 if failures else 0


def _cases(options: argparse.Namespace) -> list[tuple[str, Case]]:
    lengths = [False] * (options.peers != [PACKED]) + [True] * (PACKED in options.peers)
    return [
        (shape, dataclasses.replace(case, mode=mode, lengths=with_lengths))
        for shape, case in options.shapes
        for mode in options.modes
        for with_lengths in lengths
    ]


def _measure(run: Run, shape: str, case: Case, others: list[str], rows: list[Row]) -> bool:
    title = f"{shape:<24}{case.mode:<10}{'lengths' if case.lengths else '':<8}{run.isa:<7}{run.threads}"
    try:
        row = run.measure(shape, case, others)
    except RuntimeError as error:
        print(f"{title}  FAILED: {error}", flush=True)
        return False
    rows.append(row)
    parts = [f"lstmx {report.microseconds(row['seconds']['lstmx'])} us"]
    for peer, ratio in row["ratio"].items():
        target = targets(shape, peer=peer, mode=case.mode, lengths=case.lengths, isa=run.isa)
        wanted = "" if target is None else f" (at least {target.at_least:g})"
        parts.append(f"{peer} {ratio['median']:.2f}x{wanted}")
    print(f"{title}  {', '.join(parts)}", flush=True)
    return True


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    everyone = ["torch", "torch-grad", PACKED, "onnxruntime", "jax"]
    isas = ["native"] + ["avx2"] * ("avx2" in lstmx_targets.supported())
    parser.add_argument(
        "--shapes", nargs="+", default=list(SHAPES), help="names or T,B,I,H (default: all names)"
    )
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2][: len(processors())])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--peers", nargs="+", choices=everyone, default=everyone)
    parser.add_argument("--isa", nargs="+", choices=isas, default=isas, help="avx2: both sides limited to it")
    parser.add_argument("--quick", action="store_true", help="few short rounds, to results/quick.json")
    parser.add_argument("--out", metavar="NAME", help="to results/NAME.json")
    options = parser.parse_args(argv)
    if not all(1 <= threads <= len(processors()) for threads in options.threads):
        parser.error(f"--threads: expected 1 to {len(processors())}, got {options.threads}")
    try:
        options.shapes = [parse_shape(text) for text in options.shapes]
    except ValueError as error:
        parser.error(str(error))
    return options


if __name__ == "__main__":
    sys.exit(main())
