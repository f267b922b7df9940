"""From PyTorch to lstmx: `convert` swaps the LSTMs of a PyTorch model, `from_torch` makes a model of lstmx.

Both take over weights; neither computes anything.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lstmx import layers
from lstmx.torch.modules import LSTM


def convert(module: nn.Module) -> list[str]:
    """Make every `torch.nn.LSTM` in a module an `LSTM` of this one, in place.

    The objects stay and only change their class: parameters, optimisers over them, hooks and references are
    as before. Only modules of exactly that class, float32, on the CPU and without projections are changed.

    Args:
        module: Any module; it may be an LSTM itself.

    Returns:
        The names of what was changed, as in `named_modules()`; the module itself is "".

    Raises:
        TypeError: Not a module.

    Example:
        >>> import torch, lstmx.torch
        >>> model = torch.nn.ModuleDict({"rnn": torch.nn.LSTM(3, 8), "head": torch.nn.Linear(8, 1)})
        >>> lstmx.torch.convert(model)
        ['rnn']
        >>> isinstance(model["rnn"], lstmx.torch.LSTM)
        True
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
    names = []
    for name, child in module.named_modules():
        if type(child) is nn.LSTM and child.proj_size == 0 and all(map(_is_float32_cpu, child.parameters())):
            child.__class__ = LSTM  # type: ignore[assignment]
            names.append(name)
    return names


def _is_float32_cpu(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu"


def from_torch(module: nn.Module | list[nn.Module] | tuple[nn.Module, ...]) -> layers.Module:
    """Return the lstmx layer, or `lstmx.Sequential` of layers, that computes what PyTorch's module does.

    Args:
        module: An `nn.LSTM` (or `LSTM`), `nn.GRU`, `nn.RNN`, `nn.Linear` or `nn.Dropout`, or several of them
            in order: an `nn.Sequential`, an `nn.ModuleList`, a list or a tuple. In such a row, each layer
            reads the output of the one before, without the states of an LSTM, as in `lstmx.Sequential`.

    Returns:
        A layer of its own, with a copy of the weights as float32.

    Raises:
        TypeError: A module of another kind.
        ValueError: No module at all, or neighbours that do not fit.

    Example:
        >>> import torch, lstmx.torch
        >>> lstmx.torch.from_torch([torch.nn.LSTM(3, 8, batch_first=True), torch.nn.Linear(8, 1)])
        Sequential(LSTM(3, 8, batch_first=True), Linear(8, 1))
    """
    if isinstance(module, (list, tuple)) or type(module) in (nn.Sequential, nn.ModuleList):
        return layers.Sequential(*map(from_torch, module))  # type: ignore[arg-type]
    layer = _empty_layer(module)
    layer.load_state_dict({n: w.detach().to("cpu", torch.float32) for n, w in module.state_dict().items()})
    return layer


def _empty_layer(module: Any) -> layers.Module:
    kind = type(module)
    if kind in (nn.LSTM, LSTM, nn.GRU, nn.RNN):
        names = "input_size", "hidden_size", "num_layers", "bias", "batch_first", "bidirectional"
        options = {name: getattr(module, name) for name in names}
        options["dropout"] = module.dropout if module.num_layers > 1 else 0.0
        if kind is nn.GRU:
            return layers.GRU(**options)
        if kind is nn.RNN:
            return layers.RNN(**options, nonlinearity=module.nonlinearity)
        return layers.LSTM(**options, proj_size=module.proj_size)
    if kind is nn.Linear:
        return layers.Linear(module.in_features, module.out_features, module.bias is not None)
    if kind is nn.Dropout:
        return layers.Dropout(module.p)
    raise TypeError(
        "module: expected nn.LSTM, nn.GRU, nn.RNN, nn.Linear, nn.Dropout or a sequence of them, "
        f"got {kind.__name__}"
    )
