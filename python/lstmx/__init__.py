"""lstmx: LSTM networks on CPUs.

Fused kernels in C++, a thin Python API, a trainer. Importing the package loads the compiled core; every other
part, NumPy included, is loaded when its name is first used.

Example:
    >>> import numpy as np
    >>> import lstmx
    >>> lstm = lstmx.LSTM(3, 8, batch_first=True, rng=0)
    >>> y, (h_n, c_n) = lstm(np.zeros((2, 5, 3), dtype=np.float32))
    >>> y.shape, h_n.shape
    ((2, 5, 8), (1, 2, 8))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lstmx import targets
from lstmx._core import get_num_threads, set_num_threads
from lstmx._version import __version__

if TYPE_CHECKING:
    from lstmx import callbacks, data, files, forecast, functional, losses, optim, plotting, reference
    from lstmx import keras as keras
    from lstmx import onnx as onnx
    from lstmx.files import load, save
    from lstmx.forecast import Forecaster
    from lstmx.history import History
    from lstmx.layers import (
        GRU,
        LSTM,
        RNN,
        Activation,
        BatchNorm,
        Dropout,
        Embedding,
        LastStep,
        LayerNorm,
        Linear,
        Module,
        Residual,
        Sequential,
        Softmax,
        fold_batch_norm,
    )
    from lstmx.precision import float32_precision, get_float32_precision, set_float32_precision
    from lstmx.targets import show_config
    from lstmx.trainer import Trainer

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "BatchNorm",
    "Dropout",
    "Embedding",
    "Forecaster",
    "History",
    "LastStep",
    "LayerNorm",
    "Linear",
    "Module",
    "Residual",
    "Sequential",
    "Softmax",
    "Trainer",
    "__version__",
    "callbacks",
    "data",
    "files",
    "float32_precision",
    "fold_batch_norm",
    "forecast",
    "functional",
    "get_float32_precision",
    "get_num_threads",
    "layers",
    "load",
    "losses",
    "optim",
    "plotting",
    "reference",
    "save",
    "set_float32_precision",
    "set_num_threads",
    "show_config",
    "targets",
]

_MODULE_OF = {
    "GRU": "layers",
    "LSTM": "layers",
    "RNN": "layers",
    "Activation": "layers",
    "BatchNorm": "layers",
    "Dropout": "layers",
    "Embedding": "layers",
    "LastStep": "layers",
    "LayerNorm": "layers",
    "Linear": "layers",
    "Module": "layers",
    "Residual": "layers",
    "Sequential": "layers",
    "Softmax": "layers",
    "fold_batch_norm": "layers",
    "Forecaster": "forecast",
    "History": "history",
    "Trainer": "trainer",
    "float32_precision": "precision",
    "get_float32_precision": "precision",
    "load": "files",
    "save": "files",
    "set_float32_precision": "precision",
    "show_config": "targets",
}

_DOORS = ("keras", "onnx", "torch")  # to other packages, which they may need: `import *` must not load them


def __getattr__(name: str) -> Any:
    if name not in __all__ and name not in _DOORS:
        raise AttributeError(f"module 'lstmx' has no attribute {name!r}")
    module = importlib.import_module(f"lstmx.{_MODULE_OF.get(name, name)}")
    value = getattr(module, name) if name in _MODULE_OF else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_DOORS})
