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
        if batch is None:
            return self.arrays
        return tuple([(cells, batch, width) for cells, width in self.arrays])

    def empty(self, batch: int | None) -> State:
        """Return new memory for h and c."""
        if self.whole:
            cells, width = self.arrays[0]
            shape = (cells, width) if batch is None else (cells, batch, width)
            return np.empty(shape, FLOAT32), np.empty(shape, FLOAT32)
        h, c = (tuple([np.empty(shape, FLOAT32) for shape in self.shapes(batch)]) for _ in "hc")
        return h, c

    def check(
        self, name: str, pair: Any, labels: tuple[str, str], batch: int | None, *, none: bool = False
    ) -> tuple[Any, Any]:
        """Return a pair as the kernels read it.

        `labels` name its halves in messages; `none`: each of them may be None, as in gradients.
        """
        h, c = check_items(name, pair, 2, f"a pair ({labels[0]}, {labels[1]})")
        shapes = self.shapes(batch)
        return (
            None if none and h is None else self._check_half(name, 0, labels[0], h, shapes),
            None if none and c is None else self._check_half(name, 1, labels[1], c, shapes),
        )

    def _check_half(self, name: str, index: int, label: str, value: Any, shapes: tuple[Shape, ...]) -> Half:
        if self.whole:
            return _as_state(value, shapes[0], "{}[{}] ({})", name, index, label)
        count = len(shapes)
        items = check_items(f"{name}[{index}] ({label})", value, count, f"{count} arrays, one a layer")
        return tuple(
            [
                _as_state(item, shape, "{}[{}][{}] ({})", name, index, k, label)
                for k, (item, shape) in enumerate(zip(items, shapes, strict=True))
            ]
        )


def cells_of(half: Half | None) -> Any:
    """Return h or c as a sequence of each cell's part, `[B, H_k]`, a view of it; None where there is none."""
    if half is None:
        return None
    if isinstance(half, tuple):
        return [part for array in half for part in cells_of(array)]
    return half if half.ndim == 3 else half[:, np.newaxis]


def check_items(name: str, value: Any, count: int, what: str) -> Any:
    """Refuse what is no tuple or list of `count` items."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name}: expected {what}, got {type(value).__name__}")
    if len(value) != count:
        raise ValueError(f"{name}: expected {what}, got {len(value)} items")
    return value


def _as_state(value: Any, shape: Shape, name: str, *parts: Any) -> FloatArray:
    """Return one array of a state, or of its gradient, C-contiguous; the name is made only for messages."""
    plain = type(value) is np.ndarray and value.dtype == FLOAT32 and value.shape == shape
    if plain and value.flags.carray:
        return value  # type: ignore[no-any-return]
    return as_dense(name.format(*parts), value, shape)
