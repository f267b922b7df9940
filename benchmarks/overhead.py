"""What a call costs beyond its kernels: one LSTM call, and one step of the trainer.

    python benchmarks/overhead.py

The kernels' time grows with the number of time steps T, the rest does not: both are timed over several small
T at batch 1, one thread, and the line through the times is followed to T = 0. What remains there is Python,
the binding and, in the trainer, the optimiser's kernel over 500 parameters and the loss: an upper limit of
the overhead. The lengths take turns; of each counts the best round, to which others' load adds nothing. Exit
status 1 where a limit is passed.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable

import numpy as np

import lstmx
from harness import write_results
from lstmx._bench import pin

LENGTHS = (1, 2, 3, 4, 6, 8)
CALL_LIMIT_US, STEP_LIMIT_US = 2.5, 25.0
ROUNDS, CALLS, STEPS = 60, 400, 100


def main() -> int:
    lstmx.set_num_threads(1)
    pinned = pin(1)
    if pinned is not None:
        pinned()
    call = _at_zero({steps: _call(steps) for steps in LENGTHS}, CALLS)
    step = _at_zero({steps: _trainer(steps) for steps in LENGTHS}, STEPS)
    rows = [
        {"what": "one LSTM call", "microseconds": call, "at_most": CALL_LIMIT_US},
        {"what": "one step of the trainer", "microseconds": step, "at_most": STEP_LIMIT_US},
    ]
    for row in rows:
        verdict = "ok" if row["microseconds"] <= row["at_most"] else "NO"
        print(
            f"{row['what']}: {row['microseconds']:.2f} us over its kernels "
            f"(at most {row['at_most']:g}): {verdict}"
        )
    print(write_results("overhead", {"rows": rows}))
    return 0 if all(row["microseconds"] <= row["at_most"] for row in rows) else 1


def _call(steps: int) -> Callable[[], None]:
    """CALLS calls of inference."""
    lstm = lstmx.LSTM(8, 16, rng=0)
    x = np.ones((steps, 1, 8), np.float32)

    def run() -> None:
        for _ in range(CALLS):
            lstm(x)

    return run


def _trainer(steps: int) -> Callable[[], None]:
    """STEPS steps of `Trainer.fit` on a stream."""
    model = lstmx.Sequential(lstmx.LSTM(1, 10, batch_first=True, rng=0), lstmx.Linear(10, 1, rng=0))
    trainer = lstmx.Trainer(model)
    series = np.ones(steps * STEPS, np.float32)
    data = lstmx.data.Stream(series, series, steps, 1)
    return functools.partial(_more, trainer, data)


def _more(trainer: lstmx.Trainer, data: lstmx.data.Stream) -> None:
    trainer.fit(data, epochs=trainer.epoch + 1)


def _at_zero(runs: dict[int, Callable[[], None]], repeats: int) -> float:
    """Microseconds of one repeat at zero steps, by a least-squares line through the best of each length."""
    times: dict[int, list[float]] = {steps: [] for steps in runs}
    for _ in range(ROUNDS):
        for steps, run in runs.items():
            start = time.perf_counter()
            run()
            times[steps].append(1e6 * (time.perf_counter() - start) / repeats)
    _, at_zero = np.polyfit(list(times), [min(values) for values in times.values()], 1)
    return float(at_zero)


if __name__ == "__main__":
    sys.exit(main())
