"""Compares sides (lstmx, PyTorch, ...) on one job: each in a process of its own, at equal threads, alternating.

A benchmark script defines what a side does and calls `serve` in the worker processes and `compare` in the parent.
Results are compared before anything is timed. This file knows no framework and no shape.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

RESULTS = Path(__file__).parent / "results"


class Job(NamedTuple):
    """What a side prepares for a case: numbers that all sides must agree on, and one run to be timed."""

    check: np.ndarray
    run: Callable[[], object]


Sides = dict[str, Callable[[dict[str, Any], int], Job]]


def serve(sides: Sides) -> None:
    """The worker: reads requests as lines of JSON from standard input, answers on standard output."""
    side, threads = sys.argv[2], int(sys.argv[3])
    job = None
    for line in sys.stdin:
        request = json.loads(line)
        if "case" in request:
            job = sides[side](request["case"], threads)
            answer = np.asarray(job.check, dtype=np.float64).ravel().tolist()
        else:
            answer = [_timed(job.run) for _ in range(request["runs"])]
        print(json.dumps(answer), flush=True)


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


class Worker:
    """A side in its own process, its threads pinned to the first processors that this process may use."""

    def __init__(self, script: str, side: str, threads: int, environment: dict[str, str] | None = None) -> None:
        processors = sorted(os.sched_getaffinity(0))[:threads]
        limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        self.side = side
        self._process = subprocess.Popen(
            [sys.executable, script, "--worker", side, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **limits, **(environment or {})},
            preexec_fn=lambda: os.sched_setaffinity(0, processors),
        )

    def ask(self, **request: Any) -> list[float]:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self.side} ended with {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def compare(
    workers: list[Worker], case: dict[str, Any], *, tolerance: float, rounds: int = 7, round_seconds: float = 0.3
) -> dict[str, float]:
    """Median seconds of a run for each side, after checking that all agree with the first within `tolerance`.

    The sides take turns, one round each, a round being as many runs as fill about `round_seconds`.

    Raises:
        RuntimeError: The results differ.
    """
    checks = [np.array(worker.ask(case=case)) for worker in workers]
    for worker, check in zip(workers[1:], checks[1:], strict=True):
        scale = max(np.abs(checks[0]).max(), 1e-30)
        error = np.abs(check - checks[0]).max() / scale if check.shape == checks[0].shape else np.inf
        if not error <= tolerance:
            raise RuntimeError(
                f"{worker.side} and {workers[0].side} differ by {error:.1e} of the largest value on {case}"
            )
    runs = {}
    for worker in workers:
        worker.ask(runs=2)
        once = statistics.median(worker.ask(runs=3))
        runs[worker.side] = int(min(max(round_seconds / once, 3), 2000))
    times: dict[str, list[float]] = {worker.side: [] for worker in workers}
    for _ in range(rounds):
        for worker in workers:
            times[worker.side].append(statistics.median(worker.ask(runs=runs[worker.side])))
    return {side: statistics.median(values) for side, values in times.items()}


def machine() -> dict[str, Any]:
    """What a result should be read with."""
    model = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {"processor": model, "processors": len(os.sched_getaffinity(0)), "python": platform.python_version()}


def write_results(name: str, content: dict[str, Any]) -> Path:
    """Write `content` with the machine's description as JSON to benchmarks/results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **content}, indent=1) + "\n")
    return path
