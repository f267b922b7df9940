"""The door to ONNX: `export` writes a model for ONNX Runtime and others, `import_model` reads such graphs.

Imported on demand only: it needs the package onnx (the `onnx` extra), which nothing else here does. What is
converted at this border is the order of the gates (ONNX's i, o, f, c) and the arrangement of the arrays; the
numbers stay. Not here: running graphs, which is ONNX Runtime's business.
"""

from __future__ import annotations

try:
    import onnx  # noqa: F401
except ImportError as error:
    raise ImportError("lstmx.onnx needs onnx: from the checkout of lstmx, pip install '.[onnx]'") from error

from lstmx.onnx._export import export
from lstmx.onnx._import import import_model

__all__ = ["export", "import_model"]
