"""From PyTorch to lstmx: `convert` swaps the LSTMs of a PyTorch model, `from_torch` makes a model of lstmx.

Both take over weights; neither computes anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lstmx import layers
from lstmx.torch.modules import LSTM


def convert(module: nn.Module) -> list[str]:
    """Make every `torch.nn.LSTM` in a module an `LSTM` of this one, in place.

    The objects stay and only change their class: parameters, optimisers over them, hooks and references are
    as before. Only modules of exactly that class, on the CPU and float32 or float64 are changed.

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
        if type(child) is nn.LSTM and all(map(_is_computable, child.parameters())):
            child.__class__ = LSTM  # type: ignore[assignment]
            names.append(name)
    return names


def _is_computable(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.float32, torch.float64) and tensor.device.type == "cpu"


def from_torch(module: nn.Module | list[nn.Module] | tuple[nn.Module, ...]) -> layers.Module:
    """Return the lstmx layer, or `lstmx.Sequential` of layers, that computes what PyTorch's module does.

    Args:
        module: An `nn.LSTM` (or `LSTM`), `nn.GRU`, `nn.RNN`, `nn.Linear`, `nn.Dropout`, an activation
            (`nn.ReLU`, `nn.LeakyReLU`, `nn.ELU`, `nn.Sigmoid`, `nn.Hardsigmoid`, `nn.Tanh`, `nn.Softsign`,
            `nn.Softplus` with its usual beta and threshold, beyond which it differs by 2e-9 here, or
            `nn.Softmax(dim=-1)`), or several of them in order: an `nn.Sequential`, an `nn.ModuleList`, a list
            or a tuple. In such a row, each layer reads the output of the one before, without the states of an
            LSTM, as in `lstmx.Sequential`.

    Returns:
        A layer of its own, with a copy of the weights: as float64 if that is what they are, else as float32.

    Raises:
        TypeError: A module of another kind.
        ValueError: No module at all, neighbours that do not fit, or another dim of `nn.Softmax`, beta or
            threshold of `nn.Softplus`, or negative slope or alpha.

    Example:
        >>> import torch, lstmx.torch
        >>> lstmx.torch.from_torch([torch.nn.LSTM(3, 8, batch_first=True), torch.nn.Linear(8, 1)])
        Sequential(LSTM(3, 8, batch_first=True), Linear(8, 1))
    """
    if isinstance(module, (list, tuple)) or type(module) in (nn.Sequential, nn.ModuleList):
        return layers.Sequential(*map(from_torch, module))  # type: ignore[arg-type]
    weights = module.state_dict() if isinstance(module, nn.Module) else {}
    dtype = torch.float64 if any(w.dtype == torch.float64 for w in weights.values()) else torch.float32
    layer = _empty_layer(module, str(dtype).removeprefix("torch."))
    layer.load_state_dict({name: w.detach().to("cpu", dtype) for name, w in weights.items()})
    return layer


def _empty_layer(module: Any, dtype: str) -> layers.Module:
    kind = type(module)
    if kind in (nn.LSTM, LSTM, nn.GRU, nn.RNN):
        names = "input_size", "hidden_size", "num_layers", "bias", "batch_first", "bidirectional"
        options = {name: getattr(module, name) for name in names} | {"dtype": dtype}
        options["dropout"] = module.dropout if module.num_layers > 1 else 0.0
        if kind is nn.GRU:
            return layers.GRU(**options)
        if kind is nn.RNN:
            return layers.RNN(**options, nonlinearity=module.nonlinearity)
        return layers.LSTM(**options, proj_size=module.proj_size)
    if kind is nn.Linear:
        return layers.Linear(module.in_features, module.out_features, module.bias is not None, dtype=dtype)
    if kind is nn.Dropout:
        return layers.Dropout(module.p)
    if kind in _FUNCTIONS:
        return _FUNCTIONS[kind](module)
    known = (nn.LSTM, nn.GRU, nn.RNN, nn.Linear, nn.Dropout, *_FUNCTIONS)
    listed = ", ".join(f"nn.{one.__name__}" for one in known)
    raise TypeError(f"module: expected {listed} or a sequence of them, got {kind.__name__}")


def _softplus(module: nn.Softplus) -> layers.Module:
    _expect(module, beta=1.0, threshold=20.0)
    return layers.Activation("softplus")


def _softmax(module: nn.Softmax) -> layers.Module:
    _expect(module, dim=-1)
    return layers.Softmax()


def _expect(module: nn.Module, **options: float) -> None:
    for name, expected in options.items():
        got = getattr(module, name)
        if got != expected:
            raise ValueError(f"module: expected nn.{type(module).__name__} with {name}={expected}, got {got}")


_FUNCTIONS: dict[type[nn.Module], Callable[[Any], layers.Module]] = {
    nn.ReLU: lambda module: layers.Activation("relu"),
    nn.LeakyReLU: lambda module: layers.Activation("leaky_relu", module.negative_slope),
    nn.ELU: lambda module: layers.Activation("elu", module.alpha),
    nn.Sigmoid: lambda module: layers.Activation("sigmoid"),
    nn.Hardsigmoid: lambda module: layers.Activation("hard_sigmoid", 1 / 6),
    nn.Tanh: lambda module: layers.Activation("tanh"),
    nn.Softsign: lambda module: layers.Activation("softsign"),
    nn.Softplus: _softplus,
    nn.Softmax: _softmax,
}
