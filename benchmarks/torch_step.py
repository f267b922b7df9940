"""A whole training step in PyTorch with `lstmx.torch.LSTM` beside the same step with `torch.nn.LSTM`.

    python benchmarks/torch_step.py                      # --quick: few short rounds, nothing written

The model is the LSTM and a Linear head of width 1. A step is zero_grad, model, mean squared error, backward
and Adam, the same code but for the LSTM's class. Each case is measured with Adam as it is by default, on the
CPU a loop over the parameters in Python, and with `fused=True`, by PyTorch's documentation its fastest, which
is what a user who counts microseconds sets first; the figure is that of both. Packed, batch and targets are
packed beforehand, as a loader would, and the head reads the packed data. Outputs, loss and all gradients must
agree before anything is timed. Beside both stands the step without an LSTM: what no LSTM can save. Needs
PyTorch. Rows go to results/torch_step.json and RESULTS.md; exit status 1 if a ratio is below its figure.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import itertools
import statistics
import sys
from typing import Any

import report
from harness import ratio_summary, write_results
from lstmx._bench import Case, Job, Worker, compare, processors, ratios, serve
from shapes import SHAPES, targets

# shape, packed
CASES = [("sine", False), ("small", False), ("medium", False), ("sine", True), ("small", True)]
OPTIMIZERS: dict[str, dict[str, Any]] = {"Adam": {}, "fused Adam": {"fused": True}}
FULL = {"rounds": 7, "round_seconds": 0.15}
BATCHES = 12  # that take turns, so that nothing is remembered of the last one's lengths
QUICK = {"rounds": 3, "round_seconds": 0.05}


def step_side(request: dict[str, Any], threads: int, *, lstm: str | None) -> Job:
    """The step with an LSTM of `lstmx.torch` or `torch.nn`; None: a step without one.

    `request` is a case, and "optimizer" a key of `OPTIMIZERS`.
    """
    import torch
    from torch import nn
    from torch.nn.utils.rnn import pack_padded_sequence

    import lstmx.torch

    torch.set_num_threads(threads)
    lstmx.set_num_threads(threads)
    options = OPTIMIZERS[request["optimizer"]]
    case = Case(**{name: value for name, value in request.items() if name != "optimizer"})
    layer = (lstmx.torch if lstm == "lstmx" else nn).LSTM(case.I, case.H)
    layer.load_state_dict({name: torch.from_numpy(value) for name, value in case.weights().items()})
    torch.manual_seed(case.seed)
    head, mean_squared_error = nn.Linear(case.H, 1), nn.MSELoss()
    parameters = [*layer.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, **options)

    def batch(seed: int) -> tuple[Any, Any]:
        drawn = dataclasses.replace(case, seed=seed)
        x, target = torch.from_numpy(drawn.x()), torch.randn(case.T, case.B, 1)
        if case.lengths:
            lengths = torch.from_numpy(drawn.row_lengths())
            x, target = (pack_padded_sequence(a, lengths, enforce_sorted=False) for a in (x, target))
            target = target.data
        if lstm is None:  # what the LSTM would give
            x = layer(x)[0]
            x = (x.data if case.lengths else x).detach().requires_grad_()
        return x, target

    batches = itertools.cycle([batch(seed) for seed in range(BATCHES)])
    gradients = [torch.rand_like(p) for p in layer.parameters()]  # Adam's work, if there is no LSTM

    def differentiate() -> tuple[Any, Any]:
        x, target = next(batches)
        optimizer.zero_grad()
        y = x if lstm is None else layer(x)[0]
        outputs = y.data if case.lengths and lstm is not None else y
        loss = mean_squared_error(head(outputs), target)
        loss.backward()
        if lstm is None:
            x.grad = None
            for parameter, gradient in zip(parameters, gradients, strict=False):
                parameter.grad = gradient
        return outputs, loss

    def step() -> None:
        differentiate()
        optimizer.step()

    arrays = [*differentiate(), *(p.grad for p in parameters)]
    return Job({str(k): array.detach().numpy().copy() for k, array in enumerate(arrays)}, step)


SIDES = {
    "lstmx": functools.partial(step_side, lstm="lstmx"),
    "torch": functools.partial(step_side, lstm="torch"),
    "rest": functools.partial(step_side, lstm=None),
}


def measure(
    shape: str, case: Case, optimizer: str, workers: list[Worker], pace: dict[str, Any]
) -> dict[str, Any]:
    """The row of a case, but for the threads: the seconds of a step by side, and the ratio."""
    *both, rest = workers
    request = case.as_json() | {"optimizer": optimizer}
    times = compare(both, request, **pace)
    rest.prepare(request)
    runs = round(1000 * pace["round_seconds"])
    without = [rest.time(runs) for _ in range(3)]
    return {
        "shape": shape,
        **request,
        "isa": "native",
        "seconds": {side: statistics.median(rounds) for side, rounds in {**times, "rest": without}.items()},
        "ratio": {"torch": ratio_summary(ratios(times, "torch"))},
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2][: len(processors())])
    parser.add_argument("--quick", action="store_true", help="few short rounds, nothing written")
    options = parser.parse_args(argv)
    if not all(1 <= threads <= len(processors()) for threads in options.threads):
        parser.error(f"--threads: expected 1 to {len(processors())}, got {options.threads}")
    rows, missed = [], 0
    for threads in options.threads:
        with contextlib.ExitStack() as stack:
            workers = [stack.enter_context(Worker([__file__], side, threads)) for side in SIDES]
            for optimizer, (shape, lengths) in itertools.product(OPTIMIZERS, CASES):
                case = dataclasses.replace(SHAPES[shape], mode="step", lengths=lengths)
                pace = QUICK if options.quick else FULL
                row = measure(shape, case, optimizer, workers, pace) | {"threads": threads}
                rows.append(row)
                missed += not _print(row)
    if not options.quick:
        print(write_results("torch_step", {"rows": rows}))
        print(report.write())
    return 1 if missed else 0


def _print(row: dict[str, Any]) -> bool:
    """Print a row; returns whether its figure is reached."""
    target = targets(row["shape"], peer="torch", mode="step", lengths=row["lengths"], isa="native")
    assert target is not None
    us = {side: report.microseconds(seconds) for side, seconds in row["seconds"].items()}
    ratio = row["ratio"]["torch"]["median"]
    print(
        f"{row['shape']:<8}{'packed' if row['lengths'] else '':<8}{row['optimizer']:<12}{row['threads']}  "
        f"PyTorch {us['torch']} us a step, lstmx {us['lstmx']} us, without an LSTM {us['rest']} us; "
        f"ratio {ratio:.2f} (at least {target.at_least:g})",
        flush=True,
    )
    return ratio >= target.at_least


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        serve(SIDES)
    else:
        sys.exit(main())
