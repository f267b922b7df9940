"""The sine job of `lstmx demo` beside the same job in PyTorch: the time of one iteration.

    python benchmarks/sine_job.py

Both sides start from the same weights, and their costs over the first iterations must agree before anything
is timed. lstmx runs the demo's model and data through its Trainer, without callbacks; PyTorch the usual
loop. Needs PyTorch.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
from typing import Any

import numpy as np

from harness import ratio_summary, write_results
from lstmx._bench import Job, Worker, compare, processors, ratios, serve
from shapes import SINE_JOB

CHECKED = 20  # iterations whose costs are compared


def lstmx_side(case: dict[str, Any], threads: int) -> Job:
    import lstmx
    from lstmx.cli import demo

    lstmx.set_num_threads(threads)

    class Costs(lstmx.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.values: list[float] = []

        def on_train_batch_end(self, batch: int, logs: Any) -> None:
            self.values.append(logs["loss"])

    data = demo.stream()  # made beforehand, as the other side's batches are

    def job(*callbacks: lstmx.callbacks.Callback) -> None:
        model = demo.new_model(case["seed"])
        optimizer = lstmx.optim.Adam(lr=demo.LEARNING_RATE)
        lstmx.Trainer(model, lstmx.losses.MSE(divisor="batch"), optimizer, callbacks).fit(data)

    costs = Costs()
    job(costs)
    return Job({"costs": np.array(costs.values[:CHECKED])}, job)


def torch_side(case: dict[str, Any], threads: int) -> Job:
    import torch

    from lstmx.cli import demo

    torch.set_num_threads(threads)
    weights = demo.new_model(case["seed"]).state_dict()
    batches = [(torch.from_numpy(b.x.copy()), torch.from_numpy(b.y.copy())) for b in demo.stream()]

    def new_model() -> torch.nn.ModuleList:
        width = demo.WIDTH
        layers = [
            torch.nn.Linear(1, width),
            torch.nn.LSTM(width, width, batch_first=True),
            torch.nn.Linear(width, 1),
        ]
        model = torch.nn.ModuleList(layers)
        model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
        return model

    def job() -> list[float]:
        model = new_model()
        optimizer = torch.optim.Adam(model.parameters(), lr=demo.LEARNING_RATE)
        state, costs = None, []
        for x, y in batches:
            optimizer.zero_grad()
            hidden, state = model[1](model[0](x), state)
            cost = ((model[2](hidden) - y) ** 2).sum() / len(x)
            cost.backward()
            optimizer.step()
            state = tuple(s.detach() for s in state)
            costs.append(cost.item())
        return costs

    return Job({"costs": np.array(job()[:CHECKED])}, job)


def main() -> int:
    from lstmx.cli import demo

    rows = []
    for threads in [1, 2][: len(processors())]:
        with contextlib.ExitStack() as stack:
            workers = [stack.enter_context(Worker([__file__], side, threads)) for side in ("torch", "lstmx")]
            times = compare(workers, {"seed": 0})
        seconds = {side: statistics.median(rounds) / demo.ITERATIONS for side, rounds in times.items()}
        ratio = ratio_summary(ratios(times, "torch"))
        what = {
            "shape": "sine job",
            "mode": "training",
            "lengths": False,
            "isa": "native",
            "threads": threads,
        }
        rows.append({**what, "seconds": seconds, "ratio": {"torch": ratio}})
        print(
            f"sine job, {threads} thread(s): PyTorch {1e6 * seconds['torch']:.0f} us an iteration, "
            f"lstmx {1e6 * seconds['lstmx']:.0f} us, ratio {ratio['median']:.1f} "
            f"(at least {SINE_JOB.at_least:g})"
        )
    print(write_results("sine_job", {"target_ratio": SINE_JOB.at_least, "rows": rows}))
    return 0 if all(row["ratio"]["torch"]["median"] >= SINE_JOB.at_least for row in rows) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        serve({"lstmx": lstmx_side, "torch": torch_side})
    else:
        sys.exit(main())
