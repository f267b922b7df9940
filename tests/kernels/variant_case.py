"""One problem for the kernels of the LSTM's variants and the GRU; its solution by them and the reference."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lstmx import _core, reference
from lstmx.reference import (
    GRU,
    Activation,
    BatchNormLstmCell,
    CellOptions,
    LayerNormLstmCell,
    LstmCell,
    RnnCell,
)
from tests.kernels.arrays import assert_same_bits, output, placed_input
from tests.running_error import bounded

PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_ch", "weight_hr")
NORMALIZING = ("layer_norm", "batch_norm", "eps")
GAINS = ("gain_ih", "gain_hh", "gain_c", "bias_c")  # of normalizations
STATISTICS = tuple(f"running_{kind}_{name}" for name in ("ih", "hh", "c") for kind in ("mean", "var"))
ACTIVATION_GRADIENTS = ("dx", "dh_0", "dc_0")
MASKS = ("keep_h", "keep_c", "h_mask")  # by the names of the kernels
REFERENCE_MASKS = dict(zip(MASKS, ("zoneout_h", "zoneout_c", "recurrent_mask"), strict=True))


class Variant(NamedTuple):
    name: str
    options: dict[str, Any]  # of CellOptions
    masks: tuple[str, ...] = ()
    projects: bool = False
    kernel: str = "variant"  # the cell

    @property
    def cell(self) -> reference.CellSpec:
        if self.kernel == "rnn":
            return RnnCell(self.options["activations"][2])
        if self.kernel == "gru":
            return GRU
        options = {name: value for name, value in self.options.items() if name not in NORMALIZING}
        if self.options.get("layer_norm"):
            return LayerNormLstmCell(CellOptions(**options), self.options["eps"])
        if self.options.get("batch_norm"):
            return BatchNormLstmCell(CellOptions(**options), self.options["eps"])
        return LstmCell(CellOptions(**options))

    @property
    def has_cells(self) -> bool:
        return self.kernel not in ("gru", "rnn")

    def plan(self, inputs, hidden, width, dtype=np.float32):
        """The kernels' plan."""
        options = dict(self.options)
        names = options.pop("activations", ("sigmoid", "tanh", "tanh"))
        functions = [Activation.of(name) for name in names]
        for kind, function in zip(("gate", "candidate", "output"), functions, strict=True):
            options[kind] = (function.name, function.alpha or 0.0, function.beta or 0.0)
        options["peepholes"] = options.pop("peephole", False)
        make = _core.LstmPlan if dtype == np.float32 else _core.LstmPlan64
        return make(inputs, hidden, cell=self.kernel, output_size=width, **options)


def _activations(*names):
    return {"activations": names}


_EVERYTHING = {"peephole": True, "coupled": True, "gate_clip": 0.8, "cell_clip": 0.7}
VARIANTS = [
    Variant("plain", {}),
    Variant("peephole", {"peephole": True}),
    Variant("coupled", {"coupled": True}),
    Variant("gate_clip", {"gate_clip": 0.5}),
    Variant("cell_clip", {"cell_clip": 0.4}),
    Variant("projection", {}, projects=True),
    Variant("zoneout", {}, ("keep_h", "keep_c")),
    Variant("zoneout_of_a_projection", {}, ("keep_h", "keep_c"), projects=True),
    Variant("recurrent_dropout", {}, ("h_mask",)),
    Variant("hard_gates", _activations("hard_sigmoid", "relu", "softsign")),
    Variant("other_functions", _activations("softsign", "elu", "softplus")),
    Variant("functions_with_parameters", _activations(
        Activation("hard_sigmoid", 1 / 6, 0.4),
        Activation("leaky_relu", 0.3),
        Activation("scaled_tanh", 1.7, 0.6),
    )),
    Variant("clip_of_a_falling_function", {"gate_clip": 0.9} | _activations(
        "sigmoid", Activation("affine", -0.5, 0.1), "thresholded_relu",
    )),
    Variant("everything", _EVERYTHING, MASKS, projects=True),
    Variant("everything_but_a_projection", _EVERYTHING, MASKS),
    Variant("layer_norm", {"layer_norm": True, "eps": 1e-2}),
    Variant(
        "layer_norm_of_everything", _EVERYTHING | {"layer_norm": True, "eps": 1e-2}, MASKS, projects=True
    ),
    Variant("gru", {}, kernel="gru"),
    Variant("gru_with_masks", {}, ("keep_h", "h_mask"), kernel="gru"),
    Variant("rnn", _activations("tanh", "tanh", "tanh"), kernel="rnn"),
    Variant("rnn_with_masks", _activations("tanh", "tanh", "relu"), ("keep_h", "h_mask"), kernel="rnn"),
]  # fmt: skip


def make_case(rng, variant, steps, batch, inputs, hidden, *, spans=True, without=(), dtype=np.float32):
    """Random arrays for one layer, the names in `without` being None; with `spans`, rows of their own lengths
    (zero among them) and resets.
    """

    def normal(*shape, scale=1.0):
        return (scale * rng.standard_normal(shape)).astype(dtype)

    rows = variant.cell.gates * hidden
    width = (hidden + 1) // 2 if variant.projects else hidden
    scale = 1.5 / np.sqrt(inputs + width)
    case = {
        "weight_ih": normal(rows, inputs, scale=scale),
        "weight_hh": normal(rows, width, scale=scale),
        "bias_ih": normal(rows),
        "bias_hh": normal(rows),
        "weight_ch": normal(3 * hidden) if variant.options.get("peephole") else None,
        "weight_hr": normal(width, hidden, scale=1 / np.sqrt(hidden)) if variant.projects else None,
        **dict.fromkeys(GAINS),
        "x": normal(steps, batch, inputs),
        "h_0": normal(batch, width),
        "c_0": normal(batch, hidden),
        "dy": normal(steps, batch, width),
        "dh_n": normal(batch, width),
        "dc_n": normal(batch, hidden),
        "dcells": normal(steps, batch, hidden),
        "lengths": None,
        "resets": None,
        **dict.fromkeys(MASKS),
    }
    shapes = {"keep_h": (steps, batch, width), "keep_c": (steps, batch, hidden), "h_mask": (batch, width)}
    for name in variant.masks:  # zeros and ones among them
        case[name] = np.clip(rng.uniform(-0.3, 1.3, shapes[name]), 0, 1).astype(dtype)
    if variant.options.keys() & {"layer_norm", "batch_norm"}:
        case |= {name: 1 + normal(4 * hidden, scale=0.3) for name in GAINS[:2]}
        case |= {name: 1 + normal(hidden, scale=0.3) for name in GAINS[2:]}
    if not variant.has_cells:
        case |= {"c_0": case["h_0"], "dc_n": None, "dcells": None}
    if spans:
        case["lengths"] = rng.integers(0, steps + 1, batch)
        case["resets"] = rng.random((steps, batch)) < 0.3
    return case | dict.fromkeys(without)


def run(
    variant,
    case,
    *,
    training=True,
    threads=1,
    checkpoint_steps=0,
    trace=False,
    layouts=None,
    unwanted=(),
    initial=0.0,
    running=None,
    made=None,
):
    """What the kernels of the active target make of a case: outputs and, in training, all gradients.

    `layouts` names the memory layout of arrays [T,B,*]; `unwanted` the gradients not asked for; the parameter
    gradients start at `initial`. Nothing outside the outputs may be written.
    """
    steps, batch, inputs = case["x"].shape
    dtype = case["x"].dtype
    width, hidden = case["weight_hh"].shape[1], case["weight_ih"].shape[0] // variant.cell.gates
    shapes = {
        "y": (steps, batch, width),
        "h_n": (batch, width),
        "c_n": (batch, hidden),
        "cells": (steps, batch, hidden),
        "dx": (steps, batch, inputs),
        "dh_0": (batch, width),
        "dc_0": (batch, hidden),
    }
    if trace:
        shapes["gates"] = (steps, batch, 4 * hidden)
    layouts = {} if layouts is None else layouts
    placed = {name: output(shape, layouts.get(name, "contiguous"), dtype) for name, shape in shapes.items()}
    out = {name: p.array for name, p in placed.items()}
    case = case | {name: placed_input(case[name], layout) for name, layout in layouts.items() if name in case}
    plan = variant.plan(inputs, hidden, width, dtype)
    given = [case[name] for name in ("x", "h_0", "c_0", "lengths", "resets")]
    masks = {name: case[name] for name in MASKS if training or name != "h_mask"}
    tape = plan.forward(
        1,
        *(case[name] for name in PARAMETERS[:4]),
        *given,
        *(out[name] for name in ("y", "h_n", "c_n")),
        training,
        checkpoint_steps,
        threads,
        *(case[name] for name in PARAMETERS[4:]),
        cells=out["cells"],
        gates=out.get("gates"),
        **masks,
        **{name: case[name] for name in GAINS},
        running=running,
        made=made,
    )
    assert (tape is not None) == training
    names = ["y", "h_n", "c_n", "cells", *(["gates"] if trace else [])]
    gradients = {}
    if training:
        gradients = {
            f"d_{name}": None if case[name] is None else np.full(case[name].shape, initial, dtype)
            for name in (*PARAMETERS, *GAINS)
        }
        before = out["y"].copy()
        d_parameters = list(gradients.values())
        wanted = [name for name in ACTIVATION_GRADIENTS if name not in unwanted]
        tape.backward(
            *(case["x"], out["y"], case["h_0"], case["dy"], case["dh_n"], case["dc_n"]),
            *(out[name] if name in wanted else None for name in ACTIVATION_GRADIENTS),
            *(*d_parameters[:4], threads, *d_parameters[4:6]),
            dcells=case["dcells"],
            **masks,
            **{f"d_{name}": gradients[f"d_{name}"] for name in GAINS},
            running=running,
        )
        assert_same_bits("y after backward", out["y"], before)
        names += wanted
    for name, p in placed.items():
        p.check(name)
    return {name: out[name] for name in names} | {n: g for n, g in gradients.items() if g is not None}


def expected(variant, case, *, training=True, running=None):
    """The same by the reference, with error bounds; of a cell without c, what there is."""
    has_cells = variant.has_cells
    given = {
        name: bounded(value) for name, value in case.items() if value is not None and value.dtype.kind == "f"
    }
    masks = {REFERENCE_MASKS[name]: given.get(name) for name in MASKS if training or name != "h_mask"}
    spans = {name: case[name] for name in ("lengths", "resets")}
    params = {name: given[name] for name in (*PARAMETERS, *GAINS) if name in given}
    state = (given["h_0"], given["c_0"]) if has_cells else (given["h_0"],)
    statistics = None if running is None else dict(zip(STATISTICS, running, strict=True))
    result = reference.recurrent_forward(
        given["x"], params, state, cell=variant.cell, statistics=statistics, **spans, **masks
    )
    outputs = {"y": result.y, "h_n": result.state[0]}
    if has_cells:
        outputs |= {"c_n": result.state[1], "cells": result.cells}
        outputs["gates"] = np.concatenate(list(reference.trace(result.tape).values()), axis=2)
    if training:
        d_state = tuple(given[name] for name in (("dh_n", "dc_n") if has_cells else ("dh_n",)))
        gradients = reference.recurrent_backward(result.tape, given["dy"], d_state, given.get("dcells"))
        outputs |= {"dx": gradients.dx, "dh_0": gradients.d_state[0]}
        outputs |= {f"d_{name}": gradient for name, gradient in gradients.d_params.items()}
        if has_cells:
            outputs["dc_0"] = gradients.d_state[1]
    return {
        name: bounded(value) if isinstance(value, np.ndarray) else value for name, value in outputs.items()
    }
