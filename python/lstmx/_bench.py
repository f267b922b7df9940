"""What `lstmx bench` and the checkout's benchmarks run on: sides in processes of their own, taking turns.

A side (lstmx, PyTorch, ...) is a function that prepares a case: results that all sides must agree on, and
one run to be timed. `Worker` starts it in a process with pinned threads, `compare` checks the results, then
lets the sides take turns and returns a time a round. Here are also the LSTM layer as a `Case` and its first
two sides. Not here: named shapes, other peers, limits of the machine, files and pages (those are the
checkout's `benchmarks/`).
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

MODES = ("inference", "training")
TOLERANCE = (
    1e-4  # largest difference between sides, as a part of an array's largest value; float32 leaves about 1e-6
)


class Job(NamedTuple):
    """What a side prepares for a case: arrays that all sides must agree on, and one run to be timed."""

    check: Mapping[str, NDArray[Any]]
    run: Callable[[], object]


Side = Callable[[dict[str, Any], int], Job]


class Disagreement(RuntimeError):
    """Two sides give different results, so that comparing their times would mean nothing."""


# --- processes ----------------------------------------------------------------------------------------------


def serve(sides: Mapping[str, Side]) -> None:
    """Be a worker: side and threads are the last arguments; requests and answers are lines of JSON."""
    side, threads = sides[sys.argv[-2]], int(sys.argv[-1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not get among the answers
    job: Job | None = None
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            if "case" in request:
                job = None  # its memory goes before the next one's comes
                job = side(request["case"], threads)
                np.savez(request["check"], **dict[str, Any](job.check))
            elif job is None:
                raise RuntimeError("asked to run before a case was prepared")
            else:
                answer["seconds"] = statistics.median(_timed(job.run) for _ in range(request["runs"]))
        except Exception as error:
            traceback.print_tb(error.__traceback__)
            answer["error"] = f"{type(error).__name__}: {_first_line(str(error))}"
        print(json.dumps(answer), file=answers, flush=True)


def _first_line(message: str, longest: int = 300) -> str:
    """Enough to know an error by: a binding's message prints whole arrays."""
    line = message.split("\n", 1)[0]
    return line if len(line) <= longest else f"{line[:longest]} ..."


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def processors() -> list[int]:
    """The processors that this process may use; `threads` of a worker are pinned to the first ones."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def pin(threads: int) -> Callable[[], None] | None:
    """What pins a new process to the first `threads` processors, called in it; None where there is no way."""
    first = processors()[:threads]
    if not hasattr(os, "sched_setaffinity"):
        return None
    return lambda: os.sched_setaffinity(0, first)


class Worker:
    """A side in its own process, its threads pinned to the first processors that this process may use.

    Args:
        program: What the interpreter runs: a script, or "-m" and a module. It calls `serve`.
        side: The name of the side there.
        threads: The number of threads and of processors.
        environment: Further variables.
    """

    def __init__(
        self, program: Sequence[str], side: str, threads: int, environment: Mapping[str, str] | None = None
    ) -> None:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LSTMX_NUM_THREADS")
        self.side = side
        self._process = subprocess.Popen(
            [sys.executable, *program, "--worker", side, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **dict.fromkeys(names, str(threads)), **(environment or {})},
            preexec_fn=pin(threads),
            start_new_session=True,  # Ctrl-C reaches the parent, which ends its workers
        )

    def prepare(self, case: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Let the side prepare a case; returns the arrays to be checked."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "check.npz")
            self._ask(case=dict(case), check=path)
            with np.load(path) as arrays:
                return dict(arrays)

    def time(self, runs: int) -> float:
        """The median seconds of `runs` runs."""
        return float(self._ask(runs=runs)["seconds"])

    def _ask(self, **request: Any) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"the process of {self.side} ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{self.side}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# --- comparison ---------------------------------------------------------------------------------------------


def compare(
    workers: Sequence[Worker],
    case: Mapping[str, Any],
    *,
    tolerance: float = TOLERANCE,
    rounds: int = 7,
    round_seconds: float = 0.3,
) -> dict[str, list[float]]:
    """Seconds of a run by side, a median a round, after a check that all sides agree with the first.

    The sides take turns, one round each, a round being as many runs as fill about `round_seconds`.

    Raises:
        Disagreement: The results differ by more than `tolerance`; nothing was timed.
        RuntimeError: A side failed.
    """
    check_agreement({worker.side: worker.prepare(case) for worker in workers}, tolerance)
    runs = {}
    for worker in workers:
        worker.time(1)
        runs[worker.side] = max(round(round_seconds / max(worker.time(3), 1e-7)), 1)
    times: dict[str, list[float]] = {worker.side: [] for worker in workers}
    for _ in range(rounds):
        for worker in workers:
            times[worker.side].append(worker.time(runs[worker.side]))
    return times


def check_agreement(results: Mapping[str, Mapping[str, NDArray[Any]]], tolerance: float) -> None:
    """Raise `Disagreement` unless all sides give the first one's arrays, to a part of the largest value."""
    sides = list(results)
    expected = results[sides[0]]
    for side in sides[1:]:
        got = results[side]
        if got.keys() != expected.keys():
            raise Disagreement(f"{side} gives {sorted(got)}, {sides[0]} {sorted(expected)}")
        for name, value in expected.items():
            if got[name].shape != value.shape:
                raise Disagreement(f"{name}: {side} has shape {got[name].shape}, {sides[0]} {value.shape}")
            scale = max(float(np.abs(value).max(initial=0.0)), 1e-30)
            error = float(np.abs(np.subtract(got[name], value, dtype=np.float64)).max(initial=0.0)) / scale
            if not error <= tolerance:  # NaN is refused, too
                raise Disagreement(
                    f"{name}: {side} and {sides[0]} differ by {error:.1e} of the largest value "
                    f"(at most {tolerance:.0e})"
                )


def ratios(times: Mapping[str, Sequence[float]], peer: str, ours: str = "lstmx") -> list[float]:
    """The peer's time by ours, round by round: neighbours in time, so that a drifting clock cancels."""
    return [theirs / mine for theirs, mine in zip(times[peer], times[ours], strict=True)]


def machine() -> dict[str, Any]:
    """What a result should be read with: processor, versions, and how busy the machine was."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else []:
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    return {
        "processor": model,
        "processors": len(processors()),
        "python": platform.python_version(),
        "load_at_start": load,
    }


# --- an LSTM layer ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """One LSTM layer at work: T steps, B rows, I inputs, H hidden units; the same arrays for all sides."""

    T: int
    B: int
    I: int  # noqa: E741 - the field's letter
    H: int
    layers: int = 1
    bidirectional: bool = False
    mode: str = "inference"
    lengths: bool = False
    seed: int = 0

    def as_json(self) -> dict[str, Any]:
        """The arguments, as a worker gets them."""
        return dataclasses.asdict(self)

    @property
    def directions(self) -> int:
        """1 or 2."""
        return 2 if self.bidirectional else 1

    def row_lengths(self) -> NDArray[np.int64]:
        """`[B]`: T/4 .. T at random where the case has lengths (at least 1), else T."""
        if not self.lengths:
            return np.full(self.B, self.T, np.int64)
        rng = np.random.default_rng([self.seed, 1])
        return rng.integers(max(self.T // 4, 1), self.T + 1, self.B, dtype=np.int64)

    def cells(self) -> list[tuple[int, int]]:
        """(input width, H) of every layer and direction."""
        widths = [self.I] + [self.directions * self.H] * (self.layers - 1)
        return [(width, self.H) for width in widths for _ in range(self.directions)]

    def flops(self) -> float:
        """Operations of a run: 8H(I+H) a (t, b) forward and 16H(I+H) backward; padding does not count."""
        steps = float(self.row_lengths().sum())
        forward = steps * sum(8.0 * hidden * (width + hidden) for width, hidden in self.cells())
        return forward if self.mode == "inference" else 3.0 * forward

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """All parameters under PyTorch's names, U(-1/sqrt(H), 1/sqrt(H))."""
        rng = np.random.default_rng([self.seed, 2])
        arrays = {}
        for k, (width, hidden) in enumerate(self.cells()):
            suffix = f"l{k // self.directions}" + "_reverse" * (k % self.directions)
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            shapes = ((4 * hidden, width), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,))
            for name, shape in zip(names, shapes, strict=True):
                values = rng.uniform(-1.0, 1.0, shape) / np.sqrt(hidden)
                arrays[f"{name}_{suffix}"] = values.astype(np.float32)
        return arrays

    def x(self) -> NDArray[np.float32]:
        """`[T, B, I]`."""
        rng = np.random.default_rng([self.seed, 3])
        return rng.standard_normal((self.T, self.B, self.I), dtype=np.float32)

    def dy(self) -> NDArray[np.float32]:
        """`[T, B, D*H]`."""
        rng = np.random.default_rng([self.seed, 4])
        return rng.standard_normal((self.T, self.B, self.directions * self.H), dtype=np.float32)


def lstmx_side(request: dict[str, Any], threads: int) -> Job:
    """`lstmx.LSTM` by its public calls; training runs on changed weights, as after an optimiser's step."""
    import lstmx

    lstmx.set_num_threads(threads)
    case = Case(**request)
    lstm = lstmx.LSTM(case.I, case.H, case.layers, bidirectional=case.bidirectional)
    lstm.load_state_dict(case.weights())
    x = case.x()
    options: dict[str, Any] = {"lengths": case.row_lengths()} if case.lengths else {}

    if case.mode == "inference":
        y, (h_n, c_n) = lstm(x, **options)
        return Job({"y": y, "h_n": h_n, "c_n": c_n}, lambda: lstm(x, **options))

    dy = case.dy()

    def train() -> tuple[Any, Any, Any]:
        lstm.arena.touch()
        lstm.zero_grad()
        y, state, backward = lstm.forward(x, **options)
        dx, _ = backward(dy, need_dstate=False)
        return y, state, dx

    y, (h_n, c_n), dx = train()
    grads = {name: grad.copy() for name, grad in lstm.grads.items()}
    return Job({"y": y, "h_n": h_n, "c_n": c_n, "dx": dx, **grads}, train)


def torch_side(
    request: dict[str, Any], threads: int, *, gradients: bool = False, dtype: str = "float32"
) -> Job:
    """`torch.nn.LSTM`, in inference under `no_grad` unless `gradients`; with lengths: pack, run, unpack."""
    torch: Any = importlib.import_module("torch")  # untyped here, so that types do not depend on its presence
    torch.set_num_threads(threads)
    case = Case(**request)
    lstm = torch.nn.LSTM(case.I, case.H, case.layers, bidirectional=case.bidirectional)
    lstm.load_state_dict({name: torch.from_numpy(value) for name, value in case.weights().items()})
    lstm = lstm.to(getattr(torch, dtype))
    x = torch.from_numpy(case.x()).to(getattr(torch, dtype))
    lengths = torch.from_numpy(case.row_lengths()) if case.lengths else None
    call = _torch_call(torch, lstm, lengths, case.T)

    if case.mode == "inference":
        lstm.eval()
        run = call if gradients else torch.no_grad()(call)
        y, (h_n, c_n) = run(x)
        return Job(_arrays(y=y, h_n=h_n, c_n=c_n), lambda: run(x))

    dy = torch.from_numpy(case.dy()).to(x.dtype)
    x.requires_grad_(True)

    def train() -> tuple[Any, Any]:
        x.grad = None
        lstm.zero_grad()
        y, state = call(x)
        y.backward(dy)
        return y, state

    y, (h_n, c_n) = train()
    grads = {name: p.grad for name, p in lstm.named_parameters()}
    return Job(_arrays(y=y, h_n=h_n, c_n=c_n, dx=x.grad, **grads), train)


def _arrays(**tensors: Any) -> dict[str, NDArray[np.float32]]:
    return {name: tensor.detach().float().numpy().copy() for name, tensor in tensors.items()}


def _torch_call(torch: Any, lstm: Any, lengths: Any, steps: int) -> Callable[[Any], Any]:
    if lengths is None:
        return lambda x: lstm(x)
    rnn = torch.nn.utils.rnn

    def packed(x: Any) -> Any:
        y, state = lstm(rnn.pack_padded_sequence(x, lengths, enforce_sorted=False))
        return rnn.pad_packed_sequence(y, total_length=steps)[0], state

    return packed


SIDES: dict[str, Side] = {"lstmx": lstmx_side, "torch": torch_side}

if __name__ == "__main__":
    serve(SIDES)
