"""The limits of this machine, from `probe.cpp`, and the bound that they set on a case.

A bound is the least time that one resource leaves for a run; the largest of them names what a shape is
bound by:

- flops: the operations (8H(I+H) a (t,b), three times that in training) at the rate of independent
  multiply-adds.
- L2: where the weights exceed L1, each register tile of 6 rows reads them once: 16H(I+H) bytes a tile, of
  which the part of x needs no order in time and fills its tiles over T*B; three times that in training.
- L3: where the weights exceed L2, the recurrent ones (16H^2 bytes) come from L3 once a step; three times in
  training.
- gates: T*B*H cells (3 sigmoids and 2 tanh each) at the rate of a vectorised pass in L1; twice in training.
- latency: T steps one after another, each a chain of H multiply-adds and a cell, and CALL_SECONDS for the
  call; twice in training. (A row is one chain, so that its bits do not depend on its neighbours.)
  Directions may run side by side.

Not here: what a kernel really does; these are limits that a kernel cannot pass, not a model of one.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from lstmx import targets
from lstmx._bench import Case, pin

SOURCE = Path(__file__).with_name("probe.cpp")
TILE_ROWS = 6
CALL_SECONDS = 2.5e-6

Limits = dict[str, float]

_FLAGS = {
    "avx512": ("-march=native", "-mprefer-vector-width=512", "-DWIDTH=16"),
    "avx2": ("-mavx2", "-mfma", "-DWIDTH=8"),
    "portable": ("-DWIDTH=4",),
}


def limits(isa: str, threads: int, seconds: float = 1.0) -> Limits | None:
    """The machine's rates now, with the registers of a side limited to `isa`; None without a compiler."""
    # engines beside the multiply-add units, which some targets have, are not measured
    native = next(target for target in reversed(targets.supported()) if target in _FLAGS)
    target = native if isa == "native" else isa
    program = _program(target)
    if program is None:
        return None
    command = [program, str(threads), str(seconds)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=pin(threads))
    answer: Limits = json.loads(result.stdout)
    return answer


@functools.cache
def _program(target: str) -> str | None:
    compiler = next(filter(shutil.which, (os.environ.get("CXX", ""), "c++", "g++", "clang++")), None)
    if compiler is None:
        print("no C++ compiler, so no limits of the machine: set CXX")
        return None
    options = ("-std=c++17", "-O3", "-ffp-contract=fast", *_FLAGS[target], str(SOURCE), "-pthread")
    mark = hashlib.sha256(repr((compiler, options)).encode() + SOURCE.read_bytes()).hexdigest()[:16]
    program = Path(tempfile.gettempdir()) / f"lstmx-probe-{os.getuid()}" / mark
    if not program.exists():
        program.parent.mkdir(mode=0o700, exist_ok=True)
        unfinished = program.with_suffix(f".{os.getpid()}")
        subprocess.run([compiler, *options, "-o", str(unfinished)], check=True)
        unfinished.replace(program)
    return str(program)


def bounds(case: Case, machine: Limits) -> dict[str, float]:
    """Least seconds of a run by resource."""
    training = case.mode == "training"
    rows = float(case.row_lengths().sum())  # (t, b) that are computed
    steps = float(case.row_lengths().max())
    row_tiles = rows / TILE_ROWS
    step_tiles = max(steps, row_tiles)  # a step with few rows still reads all recurrent weights
    l2_bytes = l3_bytes = cells = chain = 0.0
    for width, hidden in case.cells():
        recurrent, weights = 16.0 * hidden**2, 16.0 * hidden * (width + hidden)
        if weights > machine["l1_bytes"]:
            l2_bytes += step_tiles * recurrent + max(row_tiles, 1) * (weights - recurrent)
        if weights > machine["l2_bytes"]:
            l3_bytes += steps * recurrent
        cells += rows * hidden
        chain += steps * (hidden * machine["multiply_add_s"] + machine["cell_s"]) / case.directions
    passes, twice = (3.0, 2.0) if training else (1.0, 1.0)
    return {
        "flops": case.flops() / machine["flops"],
        "L2": passes * l2_bytes / machine["l2_bytes_per_s"],
        "L3": passes * l3_bytes / machine["l3_bytes_per_s"],
        "gates": twice * cells / machine["cells_per_s"],
        "latency": twice * (CALL_SECONDS + chain),
    }


def name_bound(case: Case, machine: Limits) -> dict[str, Any]:
    """The resource that leaves the least time, and the seconds it leaves."""
    least = bounds(case, machine)
    name = max(least, key=least.__getitem__)
    return {"bound": name, "bound_seconds": least[name]}
