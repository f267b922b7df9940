"""The states of an LSTM: how h and c of all layers and directions lie in arrays, whole or one a layer.

Where all layers have one width, h is one array `[L*D, B, H]`, PyTorch's. Where each has its own, it is a
tuple of arrays `[D, B, H_k]`. Of an unbatched sequence the axis B is missing. c is like h. What a state means
is not known here.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

from lstmx._checks import FloatArray
from lstmx._inputs import FLOAT32, as_dense
from lstmx.layers.arena import Shape

Half: TypeAlias = FloatArray | tuple[FloatArray, ...]
State: TypeAlias = tuple[Half, Half]
DState: TypeAlias = tuple[Half | None, Half | None]


class StateLayout(NamedTuple):
    """Where the cells' states lie.

    Attributes:
        arrays: The cells in each array and their width.
        whole: Whether there is one array for all, rather than a tuple of them.
    """

    arrays: tuple[tuple[int, int], ...]
    whole: bool

    @classmethod
    def of(cls, hidden_size: int | tuple[int, ...], num_layers: int, directions: int) -> StateLayout:
        """Return the layout for layers of one width, or of one each."""
        if isinstance(hidden_size, int):
            return cls(((num_layers * directions, hidden_size),), True)
        return cls(tuple((directions, width) for width in hidden_size), False)

    def shapes(self, batch: int | None) -> tuple[Shape, ...]:
        """Return the shape of each array; `batch` is None for an unbatched sequence."""
        rows = () if batch is None else (batch,)
        return tuple([(cells, *rows, width) for cells, width in self.arrays])

    def empty(self, batch: int | None) -> Half:
        """Return new memory for h or c."""
        made = tuple([np.empty(shape, FLOAT32) for shape in self.shapes(batch)])
        return made[0] if self.whole else made

    def cells(self, half: Half | None) -> list[Any]:
        """Return each cell's part of h or c, `[B, H_k]`, as views; None for each where there is none."""
        if half is None:
            return [None] * sum([cells for cells, _ in self.arrays])
        parts = [part for array in (half if isinstance(half, tuple) else (half,)) for part in array]
        return [part[np.newaxis] if part.ndim == 1 else part for part in parts]

    def check(self, name: str, state: Any, labels: tuple[str, str], batch: int | None) -> tuple[Any, Any]:
        """Return a pair as the kernels read it; `labels` name its halves in messages."""
        pair = check_items(name, state, 2, f"a pair ({labels[0]}, {labels[1]})")
        shapes = self.shapes(batch)
        h, c = (self._check_half(name, k, labels[k], pair[k], shapes) for k in (0, 1))
        return h, c

    def check_gradient(self, name: str, dstate: Any, batch: int | None) -> DState:
        """The same of a gradient, whose halves may be None."""
        labels = "dh_n", "dc_n"
        pair = check_items(name, dstate, 2, "a pair (dh_n, dc_n)")
        shapes = self.shapes(batch)
        dh, dc = (
            None if pair[k] is None else self._check_half(name, k, labels[k], pair[k], shapes) for k in (0, 1)
        )
        return dh, dc

    def _check_half(self, name: str, index: int, label: str, value: Any, shapes: tuple[Shape, ...]) -> Half:
        if self.whole:
            return _as_state(f"{name}[{index}] ({label})", value, shapes[0])
        count = len(shapes)
        items = check_items(f"{name}[{index}] ({label})", value, count, f"{count} arrays, one a layer")
        return tuple(
            [
                _as_state(f"{name}[{index}][{k}] ({label})", item, shape)
                for k, (item, shape) in enumerate(zip(items, shapes, strict=True))
            ]
        )


def check_items(name: str, value: Any, count: int, what: str) -> Any:
    """Refuse what is no tuple or list of `count` items."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name}: expected {what}, got {type(value).__name__}")
    if len(value) != count:
        raise ValueError(f"{name}: expected {what}, got {len(value)} items")
    return value


def _as_state(name: str, value: Any, shape: Shape) -> FloatArray:
    """Return one array of a state, or of its gradient, C-contiguous."""
    plain = type(value) is np.ndarray and value.dtype == FLOAT32 and value.shape == shape
    return value if plain and value.flags.carray else as_dense(name, value, shape)
