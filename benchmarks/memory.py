"""Memory: what training keeps for backward, and whether a long run of changing shapes grows.

    python benchmarks/memory.py

For backward: a fresh process runs forward and backward of one layer and looks at its resident memory; counted
is what exceeds x, y, dy and dx, in floats a (t,b) and hidden unit (at most 6). Growth: 10^5 training steps
and calls of random shapes; the last quarter may lie at most 1 MB above the second. Linux only. Exit status 1
on a miss.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

import lstmx
from harness import write_results
from lstmx._bench import Case

KEPT_SHAPES = (
    Case(500, 64, 32, 64),
    Case(500, 64, 128, 128),
    Case(2000, 8, 64, 256),
    Case(100, 1000, 16, 20),
)
FLOATS_AT_MOST = 6.0
GROWTH_AT_MOST = 1.0  # MB
STEPS = 100_000
SAMPLE_EVERY = 250


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of changing shapes (default {STEPS})")
    parser.add_argument("--kept", type=json.loads, help=argparse.SUPPRESS)  # the fresh process
    options = parser.parse_args()
    if options.kept:
        print(json.dumps(_kept(Case(**options.kept["case"]), options.kept["threads"])))
        return 0
    if options.steps < 4 * SAMPLE_EVERY:
        parser.error(f"--steps: expected at least {4 * SAMPLE_EVERY}, got {options.steps}")
    rows = [_in_fresh_process(case, threads) for case in KEPT_SHAPES for threads in (1, 2)]
    for row in rows:
        print(
            f"T,B,I,H {row['shape']}, {row['threads']} thread(s): kept {row['kept']:.2f} floats a (t,b) and "
            f"hidden unit, at the peak {row['peak']:.2f} (at most {FLOATS_AT_MOST:g})"
        )
    growth = _growth(options.steps)
    print(
        f"{options.steps} steps of changing shapes: "
        f"{growth['second_quarter_mb']:.1f} MB in the second quarter, "
        f"{growth['last_quarter_mb']:.1f} MB in the last (at most {GROWTH_AT_MOST:g} MB more)"
    )
    print(write_results("memory", {"backward": rows, "growth": growth}))
    grown = growth["last_quarter_mb"] - growth["second_quarter_mb"]
    return 0 if max(row["peak"] for row in rows) <= FLOATS_AT_MOST and grown <= GROWTH_AT_MOST else 1


def _in_fresh_process(case: Case, threads: int) -> dict[str, float]:
    request = json.dumps({"case": case.as_json(), "threads": threads})
    command = [sys.executable, __file__, "--kept", request]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _kept(case: Case, threads: int) -> dict[str, float | str | int]:
    """Floats a (t,b) and hidden unit, between forward and backward and at the peak of both."""
    lstmx.set_num_threads(threads)
    lstm = lstmx.LSTM(case.I, case.H, rng=0)
    x, dy = case.x(), case.dy()
    small = np.zeros((2, 1, case.I), np.float32)
    lstm.forward(small)[2](np.ones((2, 1, case.H), np.float32))  # what a layer allocates once
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    y, _, backward = lstm.forward(x)
    between = _status("VmRSS")
    dx, _ = backward(dy)
    peak = _status("VmHWM")
    unit = 4.0 * case.T * case.B * case.H
    return {
        "shape": f"{case.T},{case.B},{case.I},{case.H}",
        "threads": threads,
        "kept": (between - before - y.nbytes) / unit,
        "peak": (peak - before - y.nbytes - dx.nbytes) / unit,
    }


def _growth(steps: int) -> dict[str, float]:
    """Resident memory over steps of random shapes: two layers that train, another that only infers."""
    rng = np.random.default_rng(0)
    layers = [lstmx.LSTM(8, 16, rng=0), lstmx.LSTM(8, 24, bidirectional=True, rng=1)]
    infers = lstmx.LSTM(8, 40, rng=2)
    samples = []
    for step in range(steps):
        shape = (int(rng.integers(1, 30)), int(rng.integers(1, 20)), 8)
        x = rng.standard_normal(shape, dtype=np.float32)
        lstm = layers[step % 2]
        lstm.zero_grad()
        y, _, backward = lstm.forward(x)
        backward(np.ones(y.shape, np.float32))
        lstm.arena.touch()
        infers(x)
        if step % SAMPLE_EVERY == 0:
            samples.append(_status("VmRSS") / 1e6)
    quarter = len(samples) // 4
    return {
        "steps": steps,
        "second_quarter_mb": statistics.median(samples[quarter : 2 * quarter]),
        "last_quarter_mb": statistics.median(samples[-quarter:]),
    }


def _status(field: str) -> int:
    """Bytes of a line of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    sys.exit(main())
