"""The states of a recurrent layer: how h and c of all layers and directions lie in arrays.

Where all layers have one width, h is one array `[L*D, B, H]`, PyTorch's. Where each has its own, it is a
tuple of arrays `[D, B, H_k]`. Of an unbatched sequence the axis B is missing. c is like h, but for a
projection of h alone. To the kernels every cell has both; a GRU's c is its h, an RNN's nothing, and to
the caller their state is h alone. What a state means is not known here.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

from lstmx._checks import FloatArray
from lstmx._inputs import as_dense
from lstmx.layers.arena import Shape

Half: TypeAlias = FloatArray | tuple[FloatArray, ...]
State: TypeAlias = Any  # the caller's: a pair of halves, or one of them
Pair: TypeAlias = tuple[Half | None, Half | None]  # the kernels': h and c


class HalfLayout(NamedTuple):
    """Where the cells' h, or their c, lies.

    Attributes:
        arrays: The cells in each array and their width.
        whole: Whether there is one array for all, rather than a tuple of them.
        dtype: Of its numbers.
    """

    arrays: tuple[tuple[int, int], ...]
    whole: bool
    dtype: np.dtype[Any]

    @classmethod
    def of(
        cls, width: int | tuple[int, ...], num_layers: int, directions: int, dtype: np.dtype[Any]
    ) -> HalfLayout:
        """Return the layout for layers of one width, or of one each."""
        if isinstance(width, int):
            return cls(((num_layers * directions, width),), True, dtype)
        return cls(tuple((directions, each) for each in width), False, dtype)

    def shapes(self, batch: int | None) -> tuple[Shape, ...]:
        """Return the shape of each array; `batch` is None for an unbatched sequence."""
        if batch is None:
            return self.arrays
        return tuple([(cells, batch, width) for cells, width in self.arrays])

    def empty(self, batch: int | None) -> Half:
        """Return new memory."""
        if self.whole:
            cells, width = self.arrays[0]
            return np.empty((cells, width) if batch is None else (cells, batch, width), self.dtype)
        return tuple([np.empty(shape, self.dtype) for shape in self.shapes(batch)])

    def check(self, value: Any, batch: int | None, name: str, place: str = "", label: str = "") -> Half:
        """Return a half as the kernels read it; in messages it is `name[place] (label)`."""
        shapes = self.shapes(batch)
        if self.whole:
            return _as_state(value, shapes[0], self.dtype, name, place, label)
        count = len(shapes)
        items = check_items(_full(name, place, label), value, count, f"{count} arrays, one a layer")
        return tuple(
            [
                _as_state(item, shape, self.dtype, name, f"{place}[{k}]", label)
                for k, (item, shape) in enumerate(zip(items, shapes, strict=True))
            ]
        )


class StateLayout(NamedTuple):
    """Where h and c lie.

    Attributes:
        h, c: The layout of each; the kernels have both.
        has_c: Whether the caller's state is both, or h alone.
        c_is_h: Whether the kernels' c is h again, as a GRU's.
    """

    h: HalfLayout
    c: HalfLayout
    has_c: bool
    c_is_h: bool

    def empty(self, batch: int | None) -> tuple[Half, Half]:
        """Return new memory for h and c."""
        return self.h.empty(batch), self.c.empty(batch)

    def check(
        self, name: str, state: Any, labels: tuple[str, str], batch: int | None, *, none: bool = False
    ) -> State:
        """Return a caller's state as the kernels read it.

        `labels` name its halves in messages; `none`: each of them may be None, as in gradients.
        """
        if not self.has_c:
            return self.h.check(state, batch, name)
        h, c = check_items(name, state, 2, f"a pair ({labels[0]}, {labels[1]})")
        return (
            None if none and h is None else self.h.check(h, batch, name, "[0]", labels[0]),
            None if none and c is None else self.c.check(c, batch, name, "[1]", labels[1]),
        )

    def pair(self, state: State | None) -> Pair:
        """Return h and c of a caller's state, or of the gradient by one; None where there is none."""
        if state is None:
            return None, None
        return state if self.has_c else (state, None)

    def initial(self, state: State | None) -> Pair:
        """Return h_0 and c_0 as the kernels read them."""
        h, c = self.pair(state)
        return h, h if self.c_is_h else c

    def state(self, pair: tuple[Half, Half]) -> State:
        """Return what the caller sees of h and c."""
        return pair if self.has_c else pair[0]

    def d_state(self, pair: tuple[Half, Half]) -> State:
        """Return the gradient by the caller's state, given those by h and by c: both count if c is h."""
        if self.c_is_h:
            for dh, dc in zip(cells_of(pair[0]), cells_of(pair[1]), strict=True):
                dh += dc
        return self.state(pair)


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


def _full(name: str, place: str, label: str) -> str:
    return f"{name}{place} ({label})" if label else f"{name}{place}"


def _as_state(value: Any, shape: Shape, dtype: np.dtype[Any], *name: str) -> FloatArray:
    """Return one array of a state, or of its gradient, C-contiguous; the name is made only for messages."""
    plain = type(value) is np.ndarray and value.dtype == dtype and value.shape == shape
    if plain and value.flags.carray:
        return value  # type: ignore[no-any-return]
    return as_dense(_full(*name), value, shape, dtype)
