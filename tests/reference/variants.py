"""The variants of the recurrent layers in one list, and one random problem for each.

A variant is the cell and which masks go with it; lengths (zero among them) and resets come with the problem.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lstmx import reference
from lstmx.reference import (
    GRU,
    RNN,
    Activation,
    BatchNormLstmCell,
    CellOptions,
    GruCell,
    LayerNormLstmCell,
    LstmCell,
    RnnCell,
)

STEPS, BATCH, INPUTS, HIDDEN = 5, 4, 2, 3
LENGTHS = np.array([5, 0, 3, 4])
RESETS = np.array([[0, 0, 1, 0, 1], [1, 0, 1, 0, 0], [1, 1, 0, 1, 1], [0, 0, 0, 1, 0]], bool).T


class Variant(NamedTuple):
    name: str
    cell: reference.CellSpec
    projection: int | None = None
    masks: tuple[str, ...] = ()
    inference: bool = False  # with running statistics


def _lstm(name, projection=None, masks=(), **options):
    return Variant(name, LstmCell(CellOptions(**options)), projection, masks)


ALL = {"peephole": True, "gate_clip": 0.9, "cell_clip": 0.6}
VARIANTS = [
    _lstm("plain"),
    _lstm("peephole", peephole=True),
    _lstm("coupled", coupled=True),
    _lstm("gate_clip", gate_clip=0.5),
    _lstm("cell_clip", cell_clip=0.4),
    _lstm("projection", projection=2),
    _lstm("zoneout", masks=("zoneout_h", "zoneout_c")),
    _lstm("zoneout_h", masks=("zoneout_h",)),
    _lstm("recurrent_dropout", masks=("recurrent_mask",)),
    *(_lstm(f"{name}_gates", activations=(name, "tanh", "tanh")) for name in ("hard_sigmoid", "softsign")),
    *(
        _lstm(name, activations=("sigmoid", name, name))
        for name in reference.ACTIVATIONS
        if name not in ("hard_sigmoid", "softsign")
    ),
    _lstm(
        "activations_with_parameters",
        activations=(
            Activation("hard_sigmoid", 1 / 6, 0.4),
            Activation("scaled_tanh", 1.7, 0.6),
            Activation("elu", 0.5),
        ),
    ),
    _lstm("all", projection=2, masks=("zoneout_h", "zoneout_c", "recurrent_mask"), **ALL),
    _lstm("all_coupled", projection=4, masks=("zoneout_h", "zoneout_c"), coupled=True, **ALL),
    Variant("gru", GRU),
    Variant("gru_with_masks", GRU, masks=("zoneout_h", "recurrent_mask")),
    Variant("gru_onnx", GruCell(linear_before_reset=False)),
    Variant("gru_onnx_with_masks", GruCell(False), masks=("zoneout_h", "recurrent_mask")),
    Variant("rnn", RNN),
    Variant("rnn_relu", RnnCell("relu"), masks=("recurrent_mask",)),
    Variant("layer_norm", LayerNormLstmCell(eps=0.1)),
    Variant("layer_norm_all", LayerNormLstmCell(CellOptions(**ALL), eps=0.1), 2, ("zoneout_h", "zoneout_c")),
    Variant("batch_norm", BatchNormLstmCell(eps=0.1)),
    Variant("batch_norm_all", BatchNormLstmCell(CellOptions(**ALL), eps=0.1), 2, ("zoneout_h", "zoneout_c")),
    Variant("batch_norm_inference", BatchNormLstmCell(eps=0.1), inference=True),
]
PARAMETRIZE = {"argnames": "variant", "argvalues": VARIANTS, "ids": [v.name for v in VARIANTS]}


def make_params(rng, variant, suffix="", inputs=INPUTS) -> dict[str, np.ndarray]:
    """Weights and parameters of one layer and direction."""
    cell, width = variant.cell, variant.projection or HIDDEN
    shapes: dict[str, Any] = {
        "weight_ih": (cell.gates * HIDDEN, inputs),
        "weight_hh": (cell.gates * HIDDEN, width),
    }
    if variant.projection:
        shapes["weight_hr"] = (width, HIDDEN)
    shapes |= {name: units * HIDDEN for name, units in cell.parameters.items()}
    return {f"{name}{suffix}": rng.standard_normal(shape) for name, shape in shapes.items()}


def make_masks(rng, variant, suffix="") -> dict[str, np.ndarray]:
    """Real numbers, and zeros and ones among them."""
    width = variant.projection or HIDDEN
    shapes = {
        "zoneout_h": (STEPS, BATCH, width),
        "zoneout_c": (STEPS, BATCH, HIDDEN),
        "recurrent_mask": (BATCH, width),
    }
    return {f"{name}{suffix}": np.clip(rng.uniform(-0.3, 1.3, shapes[name]), 0, 1) for name in variant.masks}


def make_statistics(rng, variant, suffix="") -> dict[str, np.ndarray] | None:
    """Running statistics of fewer steps than there are, or None in training."""
    if not variant.inference:
        return None
    ones = reference.initial_statistics(3, HIDDEN)
    return {f"{name}{suffix}": rng.uniform(0.5, 2.0, one.shape) for name, one in ones.items()}


def state_shapes(variant, leading=()) -> list[tuple[int, ...]]:
    sizes = {"h": variant.projection or HIDDEN, "c": HIDDEN}
    return [(*leading, BATCH, sizes[name]) for name in variant.cell.states]
