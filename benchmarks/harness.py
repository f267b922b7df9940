"""What the benchmark scripts share beyond `lstmx._bench`: rows of results, the files they live in, the
workers of a run.

A row is one case on one machine with one number of threads: the median seconds of each side, the ratio to
each peer (median, lowest and highest round), the machine's limits at that moment and the bound they name.
Rows are what `compare.py` compares and `report.py` draws up. No framework and no shape is known here.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peers
import probe
from lstmx import targets
from lstmx._bench import Case, Worker, compare, machine, ratios

RESULTS = Path(__file__).parent / "results"
KEY = ("shape", "mode", "lengths", "isa", "threads")

Row = dict[str, Any]


def describe_machine() -> dict[str, Any]:
    """The machine, with the versions of all that is compared."""
    names = ("lstmx", "numpy", "torch", "onnxruntime", "jax")
    found = [name for name in names if importlib.util.find_spec(name)]
    versions = {name: importlib.metadata.version(name) for name in found}
    return {**machine(), "target": targets.active(), "versions": versions}


def ratio_summary(rounds: list[float]) -> dict[str, float]:
    """Median, lowest and highest of the ratios of the rounds."""
    return {"median": statistics.median(rounds), "low": min(rounds), "high": max(rounds)}


def key(row: Row) -> tuple[Any, ...]:
    """What says that two rows measure the same."""
    return tuple(row[name] for name in KEY)


class Run:
    """The workers of one number of threads and one instruction set, started when they are first needed."""

    def __init__(
        self, threads: int, isa: str, *, rounds: int, round_seconds: float, probe_seconds: float
    ) -> None:
        self.threads, self.isa = threads, isa
        self._pace = {"rounds": rounds, "round_seconds": round_seconds}
        self._probe_seconds = probe_seconds
        self._workers: dict[str, Worker] = {}

    def measure(self, name: str, case: Case, others: list[str]) -> Row:
        """The row of a case: lstmx beside those of `others` that can do it.

        Raises:
            lstmx._bench.Disagreement: The results differ.
            RuntimeError: A side failed.
        """
        able = [peer for peer in others if peers.can(peer, case, self.isa)]
        workers = [self._worker(side) for side in ("lstmx", *able)]
        times = compare(workers, case.as_json(), **self._pace)
        limits = probe.limits(self.isa, self.threads, self._probe_seconds)
        seconds = {side: statistics.median(rounds) for side, rounds in times.items()}
        return {
            "shape": name,
            **case.as_json(),
            "isa": self.isa,
            "threads": self.threads,
            "seconds": seconds,
            "ratio": {peer: ratio_summary(ratios(times, peer)) for peer in able},
            "gflops": case.flops() / seconds["lstmx"] / 1e9,
            "limits": limits,
            **(probe.name_bound(case, limits) if limits else {}),
        }

    def _worker(self, side: str) -> Worker:
        if side not in self._workers:
            self._workers[side] = peers.start(side, self.threads, self.isa)
        return self._workers[side]

    def close(self) -> None:
        """End the workers."""
        while self._workers:
            self._workers.popitem()[1].close()


@contextlib.contextmanager
def run_of(threads: int, isa: str, **pace: Any) -> Iterator[Run]:
    """A `Run` whose workers end with the block."""
    run = Run(threads, isa, **pace)
    try:
        yield run
    finally:
        run.close()


def read_results(name: str | Path) -> dict[str, Any] | None:
    """The content of benchmarks/results/NAME.json (or of a path), None where there is none."""
    path = name if isinstance(name, Path) else RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def write_results(name: str, content: dict[str, Any]) -> Path:
    """Write `content` with the machine's description as JSON to benchmarks/results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": describe_machine(), **content}, indent=1) + "\n")
    return path


def merge_rows(name: str, rows: list[Row]) -> list[Row]:
    """`rows`, and those of the file NAME that they do not replace, if machine and versions are the same."""
    before, now = read_results(name), describe_machine()
    same = before is not None and all(
        before["machine"].get(field) == now[field]
        for field in ("processor", "processors", "versions", "target")
    )
    merged = {key(row): row for row in before["rows"]} if same else {}
    merged |= {key(row): row for row in rows}
    return list(merged.values())
