"""LSTM(batch_norm_steps=): batch normalization inside the recurrence, against the reference.

In float64: where a step has two rows, their small differences are made large, and so are rounding errors. The
kernels' own tests know by how much.
"""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import lstmx
from lstmx import reference
from lstmx.reference import BatchNormLstmCell, CellOptions, running_statistics
from tests.layers.test_lengths_and_resets import LENGTHS, RESETS
from tests.layers.test_lstm import normal

STEPS, BATCH = 6, 4
CASES = [
    {"batch_norm_steps": 9},
    {"batch_norm_steps": 4, "num_layers": 2, "bidirectional": True},
    {"batch_norm_steps": 3, "reverse": True, "peephole": True, "checkpoint_steps": 2},
    {"batch_norm_steps": 6, "proj_size": 2, "num_layers": 2, "gate_clip": 0.9},
]
every_case = pytest.mark.parametrize("options", CASES, ids=str)
every_spans = pytest.mark.parametrize(
    "spans",
    [{}, {"lengths": LENGTHS}, {"lengths": LENGTHS, "resets": RESETS}],
    ids=["full", "lengths", "resets"],
)


def agree(name, got, true):
    assert got.dtype == np.float64, name
    np.testing.assert_allclose(got, true, rtol=1e-7, atol=1e-9, err_msg=name)


def make(rng, options):
    layer = lstmx.LSTM(3, 5, **options, dtype="float64", rng=rng)
    with layer.editing() as params:
        for name, view in params.items():
            if not name.startswith("running"):
                view[...] = rng.standard_normal(view.shape) * 0.7
    return layer


def cell_of(layer):
    return BatchNormLstmCell(CellOptions(peephole=layer.peephole, gate_clip=layer.gate_clip))


def flat(y, final, dx, d_initial):
    return y, *final, dx, *d_initial


def turned(layer, array, spans):
    """Where the layer runs from the end, the reference is given rows turned within their lengths."""
    if array is None or not layer.reverse:
        return array
    lengths = spans.get("lengths", np.full(BATCH, STEPS))
    return reference.stack.turned(np.asarray(array), np.asarray(lengths))


def expected(layer, x, dy, spans, statistics=None):
    lengths = np.asarray(spans.get("lengths", np.full(BATCH, STEPS)))
    given = dict(spans)
    if layer.reverse and "resets" in given:
        ends = reference.stack.last_steps(np.asarray(given["resets"]), lengths)
        given["resets"] = reference.stack.turned(ends, lengths)
    y, final, backward = reference.lstm(
        turned(layer, x, spans),
        layer.params,
        num_layers=layer.num_layers,
        bidirectional=layer.bidirectional,
        cell=cell_of(layer),
        statistics=statistics,
        **given,
    )
    dx, d_initial, grads = backward(turned(layer, dy, spans))
    return turned(layer, y, spans), final, turned(layer, dx, spans), d_initial, grads, backward.tapes


@every_case
@every_spans
def test_training_and_then_inference(rng, options, spans):
    layer = make(rng, options)
    x, dy = normal(rng, STEPS, BATCH, 3), normal(rng, STEPS, BATCH, layer.output_size)
    before = {name: array.copy() for name, array in layer.buffers.items()}
    y, final, backward = layer.forward(x, **spans)
    dx, d_initial = backward(dy)
    *want, grads, tapes = expected(layer, x, dy, spans)
    names = "y", "h_n", "c_n", "dx", "dh_0", "dc_0"
    for name, got, true in zip(names, flat(y, final, dx, d_initial), flat(*want), strict=True):
        agree(name, got, true)
    for name, true in grads.items():
        agree(name, layer.grads[name], true)
    for suffix, tape in tapes.items():
        old = {name.removesuffix(suffix): a for name, a in before.items() if name.endswith(suffix)}
        for name, true in running_statistics(tape, old).items():
            agree(name, layer.buffers[name + suffix], true)

    y, final = layer(x, **spans)
    *want, _, _ = expected(layer, x, dy, spans, dict(layer.buffers))
    agree("y of inference", y, want[0])
    for got, true in zip(final, want[1], strict=True):
        agree("final state of inference", got, true)
    kept = {name: array.copy() for name, array in layer.buffers.items()}
    layer.zero_grad()
    y, _, backward = layer.forward(x, training=False, **spans)
    dx, _ = backward(dy)
    *want, grads, _ = expected(layer, x, dy, spans, dict(layer.buffers))
    agree("dx of inference", dx, want[2])
    for name, true in grads.items():
        agree(f"{name} of inference", layer.grads[name], true)
    for name, array in layer.buffers.items():
        np.testing.assert_array_equal(array, kept[name])


def test_gains_start_at_a_tenth():
    layer = lstmx.LSTM(3, 5, batch_norm_steps=7)
    for name in ("ih", "hh", "c"):
        assert (layer.params[f"gain_{name}_l0"] == np.float32(0.1)).all()
    assert layer.buffers["running_var_c_l0"].shape == (7, 5)
    assert (layer.buffers["running_var_hh_l0"] == 1).all()


def test_copies_and_files(rng, tmp_path):
    layer = make(rng, {"batch_norm_steps": 4, "bidirectional": True})
    x = normal(rng, STEPS, BATCH, 3)
    layer.forward(x)
    y, _ = layer(x)
    lstmx.save(tmp_path / "model.safetensors", layer)
    for twin in (
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        lstmx.load(tmp_path / "model.safetensors"),
    ):
        np.testing.assert_array_equal(twin(x)[0], y)
        twin.forward(x)
        assert (twin(x)[0] != y).any()
        np.testing.assert_array_equal(layer(x)[0], y)
    assert repr(layer) == "LSTM(3, 5, bidirectional=True, batch_norm_steps=4, dtype='float64')"


def test_refusals():
    with pytest.raises(ValueError, match="batch_norm_steps: expected None with layer_norm=True, got 3"):
        lstmx.LSTM(3, 5, layer_norm=True, batch_norm_steps=3)
    with pytest.raises(ValueError, match="batch_norm_steps: expected at least 1, got 0"):
        lstmx.LSTM(3, 5, batch_norm_steps=0)
    with pytest.raises(ValueError, match="statistics count the steps of a call"):
        lstmx.LSTM(3, 5, batch_norm_steps=3).stream(1)
