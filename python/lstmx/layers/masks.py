"""What is dropped inside the recurrence: zoneout and recurrent dropout, as the kernels take them.

Both are drawn anew for every call, layer and direction, in that direction's own order of the steps. Dropout
between layers is in `dropout.py`, that of weights in `stack.py`.

Sources: Krueger et al. 2017, "Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations"; Gal and
Ghahramani 2016, "A Theoretically Grounded Application of Dropout in Recurrent Neural Networks".
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

from lstmx._checks import FloatArray
from lstmx.layers.dropout import draw_mask

Masks: TypeAlias = dict[str, Any]  # arrays by the kernels' names; those that there are


class Drops(NamedTuple):
    """The probabilities: that a unit of h, or of c, stays as it was at a step, and of recurrent dropout."""

    keep_h: float = 0.0
    keep_c: float = 0.0
    h_mask: float = 0.0

    def masks(self, steps: int, h: FloatArray, c: FloatArray, rng: np.random.Generator | None) -> Masks:
        """Return what the kernels take for one direction with the states h and c, `[B, *]`.

        With a generator the masks of training; without one, those of inference: zoneout's expectation, one
        row for all steps and rows, and no dropout.
        """
        made: Masks = {}
        for name, p, state in (("keep_h", self.keep_h, h), ("keep_c", self.keep_c, c)):
            shape = (steps, *state.shape)
            if p == 0:
                continue
            if rng is None:
                made[name] = np.broadcast_to(np.full(shape[-1], p, state.dtype), shape)
            else:
                mask = rng.random(shape, dtype=state.dtype.type)
                made[name] = np.less(mask, state.dtype.type(p), out=mask, casting="unsafe")
        if self.h_mask > 0 and rng is not None:
            made["h_mask"] = draw_mask(h.shape, self.h_mask, rng, h.dtype)
        return made
