"""Running statistics of batch normalization inside the recurrence: what training makes of its batches'.

A cell's are six arrays by step, `[steps, 4H]` or `[steps, H]`: mean and variance of the products with x, of
those with h, and of c. The kernels normalize with them or with the batch's own, which they hand out.

Source: Cooijmans, Ballas, Laurent, Gulcehre and Courville 2017, "Recurrent Batch Normalization".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lstmx._checks import FloatArray
from lstmx._inputs import Lengths
from lstmx.layers.arena import Shape

MOMENTUM = 0.1
NAMES = tuple(f"running_{kind}_{of}" for of in ("ih", "hh", "c") for kind in ("mean", "var"))


def shapes(steps: int, hidden: int) -> Iterator[tuple[str, Shape]]:
    """Yield the name and the shape of each array of a cell."""
    for name in NAMES:
        yield name, (steps, hidden if name.endswith("_c") else 4 * hidden)


def room_for(running: Sequence[FloatArray], steps: int) -> list[FloatArray]:
    """Return memory for the statistics of a batch of so many steps."""
    return [np.empty((steps, array.shape[1]), array.dtype) for array in running]


def update(
    running: Sequence[FloatArray], batch: Sequence[FloatArray], lengths: Lengths | None, rows: int
) -> None:
    """Move the running statistics towards those of a batch, the variances to the unbiased ones.

    A step that fewer than two rows have leaves its statistics, and so does one beyond the batch's.
    """
    steps = min(len(running[0]), len(batch[0]))
    alive = np.full(steps, rows)
    if lengths is not None:
        alive = (lengths > np.arange(steps)[:, np.newaxis]).sum(axis=1)
    (there,) = np.nonzero(alive > 1)
    unbiased = (alive[there] / (alive[there] - 1))[:, np.newaxis]
    for name, old, new in zip(NAMES, running, batch, strict=True):
        now = new[there] * (unbiased if "var" in name else 1.0)
        old[there] = (1 - MOMENTUM) * old[there] + MOMENTUM * now
