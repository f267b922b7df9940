"""How exact the products of float32 layers have to be: PyTorch's words, and what they allow the hardware.

"highest" is float32. "high" and "medium" let the engine of the active target (`lstmx.targets.engines`) give
each number as two bf16 parts, or as one, which is faster; where no engine gains from that, they compute
"highest". A layer's own `precision` and `engine` stand before a `with float32_precision(...)` block, and that
before what `set_float32_precision` or the environment variable LSTMX_PRECISION says. docs/precision.md has
the errors of each setting. float64 is never touched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lstmx import _core
from lstmx._checks import check_choice

PRECISIONS = ("highest", "high", "medium")
ENGINES = ("auto", "fma", "tiles")


def get_float32_precision() -> str:
    """Return the precision of layers without one of their own: "highest", "high" or "medium".

    Inside `float32_precision` it is the block's.

    Example:
        >>> import lstmx
        >>> lstmx.get_float32_precision()
        'highest'
    """
    return _core.get_float32_precision()


def set_float32_precision(precision: str) -> None:
    """Set the precision of float32 layers without one of their own, from their next call on.

    It is the process's, for all threads but those inside `float32_precision`, which go on with theirs. The
    words are those of `torch.set_float32_matmul_precision`, which is not touched and not read.

    Args:
        precision: What a float32 number has to be in products: "highest", all of it; "high", at least two
            bf16 parts (an error of about 1e-5 of an LSTM's outputs); "medium", at least one (about 1e-2).

    Raises:
        TypeError, ValueError: There is no such precision; the message names the valid ones.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.set_float32_matmul_precision.html.

    Example:
        >>> import lstmx
        >>> lstmx.set_float32_precision("high")
        >>> lstmx.get_float32_precision()
        'high'
        >>> lstmx.set_float32_precision("highest")
    """
    _core.set_float32_precision(check_choice("precision", precision, PRECISIONS))


@contextlib.contextmanager
def float32_precision(precision: str | None = None, *, engine: str | None = None) -> Iterator[None]:
    """Inside a `with` block, let layers without settings of their own compute like this, in this thread.

    Blocks may stand in one another, and in any number of threads at once. A backward pass computes as its
    forward did, wherever it is called.

    Args:
        precision: "highest", "high" or "medium"; None leaves it as it is.
        engine: What makes products: "auto", the target's engine where it is faster; "fma", the multiply-add
            units, so that all is "highest"; "tiles", the engine wherever it can, also where it is slower.
            None leaves it as it is.

    Raises:
        TypeError, ValueError: There is no such precision or engine; the message names the valid ones.

    Example:
        >>> import lstmx, numpy as np
        >>> lstm = lstmx.LSTM(3, 8, rng=0)
        >>> with lstmx.float32_precision("medium"):
        ...     y, _ = lstm(np.zeros((5, 2, 3), np.float32))
        >>> with lstmx.float32_precision(engine="fma"):
        ...     lstm.products(2)
        [Products(engine='fma', precision='highest')]
    """
    before = _core.get_thread_products()
    inside = (
        before[0] if precision is None else check_choice("precision", precision, PRECISIONS),
        before[1] if engine is None else check_choice("engine", engine, ENGINES),
    )
    _core.set_thread_products(*inside)
    try:
        yield
    finally:
        _core.set_thread_products(*before)
