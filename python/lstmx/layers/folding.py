"""Folding: a model for inference whose BatchNorms have gone into the weights of their neighbours.

In inference a BatchNorm is one factor and one summand a feature, which an affine map beside it takes over. It
also sets padded steps to 0, which an affine map does not: where that could be seen, the BatchNorm stays.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np

from lstmx._checks import check_bool
from lstmx.layers.batchnorm import BatchNorm
from lstmx.layers.blocks import DoubleArray
from lstmx.layers.config import from_config
from lstmx.layers.dropout import Dropout
from lstmx.layers.laststep import LastStep
from lstmx.layers.linear import Linear
from lstmx.layers.module import Module
from lstmx.layers.recurrent import Recurrent
from lstmx.layers.residual import Residual
from lstmx.layers.sequential import Sequential


def fold_batch_norm(model: Module, *, lengths: bool = True) -> Module:
    """Return a copy of `model` for inference, with each `BatchNorm` folded into its neighbour if possible.

    Possible is: into an `LSTM`, `GRU`, `RNN` or `Linear` that reads its output, or a `Linear` whose output it
    reads, within a `Sequential` (also one inside a `Residual`); a `Dropout` between them does nothing in
    inference. A layer without biases gets them. Everything else stays as it is.

    Args:
        model: Any layer. It is not changed.
        lengths: Whether y has to stay the same in calls with `lengths`, padding included. A `BatchNorm`
            beside a `Linear` then only goes where padded steps are not seen later: before a layer that reads
            time, or after a `LastStep`. With False, for calls without, none stays beside one.

    Returns:
        The copy, its layers in one `Sequential` even if some were in another within it. Calls give the y of
        `model` up to rounding (of numbers as large as the running mean divided by the deviation), the state
        without the items of what is gone. It is not for training: there it is another model. The ONNX export,
        which has no `BatchNorm`, takes it if none is left.

    Raises:
        TypeError: `model` is not a layer, or `lengths` not a bool.

    Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", section 3.2.

    Example:
        >>> import lstmx
        >>> layers = lstmx.BatchNorm(3), lstmx.LSTM(3, 8), lstmx.BatchNorm(8), lstmx.Linear(8, 1)
        >>> model = lstmx.Sequential(*layers)
        >>> lstmx.fold_batch_norm(model)
        Sequential(LSTM(3, 8), BatchNorm(8), Linear(8, 1))
        >>> lstmx.fold_batch_norm(model, lengths=False)
        Sequential(LSTM(3, 8), Linear(8, 1))
    """
    if not isinstance(model, Module):
        raise TypeError(f"model: expected an lstmx layer, got {type(model).__name__}")
    return _folded(model, check_bool("lengths", lengths))


def _folded(model: Module, lengths: bool) -> Module:
    if isinstance(model, Residual):
        return Residual(_folded(model.layer, lengths))
    if not isinstance(model, Sequential):
        return copy.deepcopy(model)
    layers = [_folded(layer, lengths) for layer in _leaves(model)]
    for k in reversed(range(len(layers))):  # from the end, so that several in a row fold one by one
        norm = layers[k]
        if isinstance(norm, BatchNorm) and _fold(norm, layers, k, lengths):
            del layers[k]
    return Sequential(*layers)


def _leaves(model: Sequential) -> Iterator[Module]:
    for layer in model:
        if isinstance(layer, Sequential):
            yield from _leaves(layer)
        else:
            yield layer


def _fold(norm: BatchNorm, layers: list[Module], k: int, lengths: bool) -> bool:
    """Fold layer k, `norm`, into one of the others, if it can be; return whether it was."""
    after = next((n for n in range(k + 1, len(layers)) if not isinstance(layers[n], Dropout)), k)
    before = next((n for n in reversed(range(k)) if not isinstance(layers[n], Dropout)), k)
    has_time = not any(isinstance(layer, LastStep) for layer in layers[:k])
    # What reads time reads no padding: what stands there ahead of it is never seen.
    seen = lengths and has_time and all(layer.batch_first is None for layer in layers[k + 1 :])
    if isinstance(layers[after], Recurrent) or (isinstance(layers[after], Linear) and not seen):
        layers[after] = _before(norm, _with_bias(layers[after]))
    elif isinstance(layers[before], Linear) and not seen:
        layers[before] = _after(norm, _with_bias(layers[before]))
    else:
        return False
    return True


def _with_bias(layer: Module) -> Module:
    """Return `layer`, or one with biases of 0 in the place of one without."""
    config = layer.config()
    if config["bias"]:
        return layer
    made = from_config(config | {"bias": True}, initial_values=False)
    made.load_state_dict(layer.state_dict(), strict=False)
    return made


def _affine(norm: BatchNorm) -> tuple[DoubleArray, DoubleArray]:
    """Return `scale` and `shift`, [F] each: inference of `norm` is `x * scale + shift`."""
    weight, bias = (norm.params[name].astype(np.float64) for name in ("weight", "bias"))
    mean, deviation = norm._running()
    scale = weight * deviation
    return scale, bias - mean * scale


def _before(norm: BatchNorm, layer: Module) -> Module:
    """Return `layer`, changed: W (x * scale + shift) + b is (W * scale) x + (W shift + b)."""
    scale, shift = _affine(norm)
    names = [("weight", "bias")]
    if isinstance(layer, Recurrent):
        names = [(f"weight_ih_{suffix}", f"bias_ih_{suffix}") for suffix in layer._suffixes(0)]
    with layer.editing() as params:
        for weight, bias in names:
            params[bias] = params[bias] + params[weight].astype(np.float64) @ shift
            params[weight] = params[weight] * scale
    return layer


def _after(norm: BatchNorm, layer: Module) -> Module:
    """Return `layer`, changed: (W x + b) * scale + shift is (scale W) x + (scale b + shift)."""
    scale, shift = _affine(norm)
    with layer.editing() as params:
        params["weight"] = params["weight"] * scale[:, np.newaxis]
        params["bias"] = params["bias"] * scale + shift
    return layer
