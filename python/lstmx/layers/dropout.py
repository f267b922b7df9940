"""Dropout: zeroes elements at random while training and scales the rest, so that inference needs no change.

The mask of a forward call is kept for its backward call. The mask helper here also serves dropout between the
layers of an `LSTM`. Recurrent kinds of dropout are not here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lstmx._checks import FLOAT32, FloatArray, check_float
from lstmx._inputs import Spans
from lstmx.layers.arena import Shape
from lstmx.layers.module import Backward, Module, SameShapeBackward


def draw_mask(shape: Shape, p: float, rng: np.random.Generator, dtype: np.dtype[Any] = FLOAT32) -> FloatArray:
    """Return an array of 0 (with probability p) and 1 / (1 - p)."""
    mask: FloatArray = rng.random(shape, dtype=dtype)
    np.greater_equal(mask, dtype.type(p), out=mask, casting="unsafe")
    if p < 1.0:
        mask *= dtype.type(1.0 / (1.0 - p))
    return mask


class Dropout(Module):
    """Inverted dropout: in `forward`, each element of x is zeroed with probability p or divided by 1 - p.

    Calling the layer (inference) returns x itself.

    Args:
        p: The probability of zeroing, from 0 to 1.
        rng: Seed or generator of the masks: `np.random.default_rng(rng)`; `rngs()` gives it back.

    Call: `y, None = layer(x)`, x of any shape, y of the same.

    Source: Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting";
    the scaling is that of `torch.nn.Dropout`.

    Raises:
        TypeError, ValueError: p is not a number from 0 to 1.

    Example:
        >>> import lstmx, numpy as np
        >>> layer = lstmx.Dropout(0.5, rng=0)
        >>> x = np.ones((1, 4), np.float32)
        >>> layer(x)[0].tolist()
        [[1.0, 1.0, 1.0, 1.0]]
        >>> y, _, backward = layer.forward(x)
        >>> sorted(set(y.ravel().tolist())) in ([0.0], [2.0], [0.0, 2.0])
        True
    """

    dtype = None

    _rng: np.random.Generator

    def __init__(self, p: float = 0.5, *, rng: Any = None) -> None:
        self._configure(p)
        self._create(rng)

    def _configure(self, p: Any = 0.5) -> None:
        self.p = check_float("p", p, minimum=0.0, maximum=1.0)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the class under "type"."""
        return {"type": "Dropout", "p": self.p}

    @property
    def _draws(self) -> bool:
        return True

    def _output_shape(self, name: str, shape: Shape) -> Shape:
        return shape

    def _infer(self, x: FloatArray, state: None, spans: Spans | None) -> tuple[FloatArray, None]:
        return x, None

    def _train(self, x: FloatArray, state: None, spans: Spans | None) -> tuple[FloatArray, None, Backward]:
        mask = draw_mask(x.shape, self.p, self._rng, x.dtype)
        return np.asarray(x * mask), None, _DropoutBackward(x, mask)

    def _infer_taped(
        self, x: FloatArray, state: None, spans: Spans | None
    ) -> tuple[FloatArray, None, Backward]:
        return x, None, _DropoutBackward(x, None)


class _DropoutBackward(SameShapeBackward):
    __slots__ = ()

    def __init__(self, x: FloatArray, mask: FloatArray | None) -> None:
        super().__init__(x.shape, x.dtype, mask)

    def _run(
        self, dy: FloatArray | None, dstate: None, need_dx: bool, need_dstate: bool
    ) -> tuple[FloatArray | None, None]:
        assert dy is not None
        (mask,) = self._take()
        if mask is not None and need_dx:
            dy = np.asarray(dy * mask)
        return dy if need_dx else None, None
