"""The door to PyTorch: `lstmx.torch.LSTM` in the place of `torch.nn.LSTM`, computed by lstmx's kernels.

The modules keep PyTorch's parameters, names, initial values and autograd; only the recurrence runs in the
core, as an operator that `torch.compile` and `torch.export` take as one node. Tensors and kernels share
memory. This package needs PyTorch (`import lstmx` does not). float32 and float64 on the CPU only; no second
derivatives, no `torch.func` transforms, no TorchScript.
"""

try:
    import torch as _torch  # noqa: F401 (PyTorch itself)
except ImportError as error:
    raise ImportError(f"lstmx.torch: expected PyTorch (pip install torch), got: {error}") from error

from lstmx.torch.conversion import convert, from_torch
from lstmx.torch.modules import LSTM, LSTMCell

__all__ = ["LSTM", "LSTMCell", "convert", "from_torch"]
