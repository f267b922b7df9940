"""The data on its way through a graph, known by its axes, and what rearranging operators make of them.

An axis of a tensor holds any number of axes of the data: none where it has size 1, several where they were
merged. Only their meaning is followed here; the nodes that rearrange them are read in `_import.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np


@dataclass(frozen=True)
class Axis:
    """An axis of the data; its size is None where the file leaves it open.

    Features taken apart are called "forward" and "backward": those of one direction, or half of them.
    """

    name: str
    size: int | None = None


Axes: TypeAlias = tuple[tuple[Axis, ...], ...]


@dataclass(frozen=True)
class Data:
    """What the layers so far have made of x.

    Attributes:
        axes: For each axis of the tensor the axes of the data in it: none where it has size 1, two or more
            where they are merged.
        position: How many steps of the computation led here; only the latest may be computed with.
        kind: "y" for outputs of a layer, "h" and "c" for final states, "end" for that end of y where a
            direction has its final h, "both h" for the final h of both directions side by side, "padded" for
            y behind a step of zeros.
    """

    axes: Axes
    position: int
    kind: str = "y"


def axis_size(group: tuple[Axis, ...]) -> int | Axis:
    """The size of an axis of the tensor: a number, or an axis that stands for its own size."""
    if len(group) == 1 and group[0].size is None:
        return group[0]
    sizes = [axis.size for axis in group]
    known = [size for size in sizes if size is not None]
    return int(np.prod(known, dtype=object)) if len(known) == len(sizes) else Axis("merged axes")


def reshape(data: Data, shape: list[Any]) -> Data | None:
    """`data` with axes grouped as in `shape` (sizes, -1, axes, groups of axes); None if they cannot be."""
    axes = _regroup(data.axes, shape)
    if axes is None:
        return None
    merged = has_axis(data.axes, "direction") and not has_axis(axes, "direction")
    return replace(data, axes=axes, kind=_JOINED.get(data.kind, data.kind) if merged else data.kind)


def has_axis(axes: Axes, *names: str) -> bool:
    """Whether an axis of one of these names is somewhere among them."""
    return any(axis.name in names for group in axes for axis in group)


def _regroup(axes: Axes, shape: list[Any]) -> Axes | None:
    rest = [axis for group in axes for axis in group]
    unknown = shape.index(-1) if -1 in shape else len(shape)
    front = _take(shape[:unknown], rest)
    rest.reverse()
    back = _take(shape[:unknown:-1], rest)
    rest.reverse()
    if front is None or back is None or (rest and unknown == len(shape)):
        return None
    middle = [tuple(rest)] if unknown < len(shape) else []
    groups = [*front, *middle, *(group[::-1] for group in reversed(back))]
    return tuple(map(_merge_directions, groups))


def _take(shape: list[Any], axes: list[Axis]) -> list[tuple[Axis, ...]] | None:
    """Take axes from the front of the list, a group for each item of `shape`."""
    groups = []
    for item in shape:
        count = 0
        if isinstance(item, tuple):
            count = len(item)
        elif isinstance(item, Axis):
            count = 1
        else:
            size = 1
            while count < len(axes) and (size < item or (count == 0 and axes[0].size == 1)):
                size *= axes[count].size or item + 1  # an unknown size is never the one wanted
                count += 1
            if size != item:
                return None
        group = tuple(axes[:count])
        wanted = (item,) if isinstance(item, Axis) else item
        if isinstance(wanted, tuple) and group not in (wanted, wanted[::-1]):
            return None
        del axes[:count]
        groups.append(group)
    return groups


def _merge_directions(group: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Directions in front of features are what a layer's output is: features side by side."""
    if [axis.name for axis in group] != ["direction", "features"] or group[1].size is None:
        return group
    return (Axis("features", 2 * group[1].size),)


_JOINED = {"y": "y", "h": "both h", "end": "both h"}  # what two directions side by side are


def join_directions(parts: tuple[Data, ...], axis: int) -> Data | None:
    """The two directions of y or h, taken apart before, side by side; None if it is not that."""
    if [[a.name for a in part.axes[axis]] for part in parts] != [["forward"], ["backward"]]:
        return None
    first, second = parts
    ((forward,), (backward,)) = first.axes[axis], second.axes[axis]
    if first.kind not in _JOINED or forward.size is None:
        return None
    axes = list(first.axes)
    axes[axis] = (backward,)
    if replace(first, axes=tuple(axes)) != second:
        return None
    axes[axis] = (Axis("features", 2 * forward.size),)
    return replace(first, axes=tuple(axes), kind=_JOINED[first.kind])
