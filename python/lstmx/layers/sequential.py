"""Sequential: layers one after the other, with all their parameters in one arena.

It owns its layers: it moves their parameters into its own memory, checks once that they fit each other, and
then runs them in order. It computes nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lstmx._checks import FloatArray, check_int
from lstmx._inputs import Spans
from lstmx.layers.arena import Shape
from lstmx.layers.container import Container, check_free
from lstmx.layers.module import Backward, Module


class Sequential(Container):
    """Layers in order: each reads what the one before wrote.

    Args:
        *layers: At least one layer. Their parameters move into one arena: views of `params` or `grads` taken
            from a layer before belong to it no longer. A layer belongs to one model only; `copy.deepcopy`
            makes another. An `Embedding` can only be the first: x then holds its integers.

    Parameters are named with the layer's index in front, `1.weight_hh_l0`. The state is a tuple with one item
    a layer, None for those that keep no state; None stands for all of it.

    Call: `y, state = model(x, state=None, *, lengths=None, resets=None)`; `y, state, backward =
    model.forward(x, state, *, lengths=None, resets=None)` trains. `lengths` and `resets`, see `LSTM`,
    go to every layer that reads time, up to one that leaves no time in its output, as `LastStep` does. Layers
    that work on each step alone compute the padding, too; what they make of it never reaches an `LSTM`.

    Raises:
        TypeError: An argument is no layer.
        ValueError: No layer; a layer twice, or part of another model; neighbours that do not fit.

    Example:
        >>> import lstmx, numpy as np
        >>> model = lstmx.Sequential(lstmx.Linear(1, 10), lstmx.LSTM(10, 10), lstmx.Linear(10, 1))
        >>> x = np.zeros((20, 50, 1), np.float32)
        >>> y, state, backward = model.forward(x)
        >>> dx, dstate = backward(2 * y, need_dx=False)
        >>> [None if s is None else s[0].shape for s in state]
        [None, (1, 50, 10), None]
        >>> y, state = model(x, state)
        >>> len(model), model[1].hidden_size, model.num_parameters
        (3, 10, 911)
    """

    layers: tuple[Module, ...]

    def __init__(self, *layers: Module) -> None:
        _check_layers(layers)
        self.layers = layers
        self._adopt()

    def _adopt(self) -> None:
        super()._adopt()
        self._reads_integers = self.layers[0]._reads_integers
        # Before the first layer that knows of a width, any will do to all; an Embedding knows that of y only.
        sized = (n for n in self.layers if n.input_size is not None or n.output_size is not None)
        first = next(sized, None)
        self.input_size = None if first is None else first.input_size
        self.output_size = next((n.output_size for n in self.layers[::-1] if n.output_size is not None), None)
        self.batch_first = next((n.batch_first for n in self.layers if n.batch_first is not None), None)
        self._known_shapes: tuple[Any, ...] = (None,)  # of the latest x

    def _children(self) -> Iterator[tuple[str, Module]]:
        for index, layer in enumerate(self.layers):
            yield f"{index}.", layer

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: int) -> Module:
        return self.layers[check_int("index", index)]

    def __iter__(self) -> Iterator[Module]:
        return iter(self.layers)

    def config(self) -> dict[str, Any]:
        """Return the layers' configurations under "layers", with the class under "type"."""
        return {"type": "Sequential", "layers": [layer.config() for layer in self.layers]}

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"

    def __getstate__(self) -> dict[str, Any]:
        return {"layers": self.layers}  # they bring their values

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.layers = state["layers"]
        self._adopt()

    # --- checks ---------------------------------------------------------------------------------------------

    def _as_x(self, name: str, x: Any) -> Any:
        return self.layers[0]._as_x(name, x) if self._reads_integers else super()._as_x(name, x)

    def _output_shape(self, name: str, shape: Shape) -> Shape:
        return self._shapes_for(name, shape)[-1]

    def _shapes_for(self, name: str, shape: Shape) -> tuple[Shape, ...]:
        """The shapes between the layers for an x of `shape`, which comes first."""
        shapes = self._known_shapes
        if shapes[0] != shape:
            made = [shape]
            for layer in self.layers:
                made.append(layer._output_shape(name, made[-1]))
            self._known_shapes = shapes = tuple(made)
        return shapes

    def _check_state(self, name: str, state: Any, shape: Shape) -> tuple[Any, ...]:
        items = _check_items(name, state, len(self.layers))
        shapes = self._shapes_for(name, shape)
        return tuple(
            [
                None if item is None else layer._check_state(f"{name}[{index}]", item, shapes[index])
                for index, (layer, item) in enumerate(zip(self.layers, items, strict=True))
            ]
        )

    def _restart(self, state: tuple[Any, ...], rows: Any) -> None:
        for layer, item in zip(self.layers, state, strict=True):
            if item is not None:
                layer._restart(item, rows)

    def _check_spans(self, lengths: Any, resets: Any, shape: Shape) -> Spans | None:
        for layer, its_shape in zip(self.layers, self._shapes_for("x", shape), strict=False):
            if layer.batch_first is not None:  # the first that reads time
                return layer._check_spans(lengths, resets, its_shape)
        return super()._check_spans(lengths, resets, shape)

    # --- the two passes -------------------------------------------------------------------------------------

    def _infer(
        self, x: FloatArray, state: tuple[Any, ...] | None, spans: Spans | None
    ) -> tuple[FloatArray, tuple[Any, ...]]:
        final = []
        for layer, item in zip(self.layers, state or (None,) * len(self.layers), strict=True):
            y, item = layer._infer(x, item, spans)
            final.append(item)
            x, spans = y, _spans_after(spans, x, y)
        return x, tuple(final)

    def _infer_taped(
        self, x: FloatArray, state: tuple[Any, ...] | None, spans: Spans | None
    ) -> tuple[FloatArray, tuple[Any, ...], Backward]:
        return self._train(x, state, spans, False)

    def _train(
        self, x: FloatArray, state: tuple[Any, ...] | None, spans: Spans | None, training: bool = True
    ) -> tuple[FloatArray, tuple[Any, ...], Backward]:
        final, steps = [], []
        for layer, item in zip(self.layers, state or (None,) * len(self.layers), strict=True):
            y, item, backward = (layer._train if training else layer._infer_taped)(x, item, spans)
            final.append(item)
            steps.append(backward)
            x, spans = y, _spans_after(spans, x, y)
        return x, tuple(final), _SequentialBackward(steps)


class _SequentialBackward(Backward):
    __slots__ = ("_steps",)

    def __init__(self, steps: list[Backward]) -> None:
        super().__init__()
        self._steps = steps

    def _check_dy(self, name: str, dy: Any) -> FloatArray | None:
        return self._steps[-1]._check_dy(name, dy)

    def _check_dstate(self, name: str, dstate: Any) -> tuple[Any, ...] | None:
        if dstate is None:
            return None
        items = _check_items(name, dstate, len(self._steps))
        return tuple(
            step._check_dstate(f"{name}[{index}]", item)
            for index, (step, item) in enumerate(zip(self._steps, items, strict=True))
        )

    def _run(
        self, dy: FloatArray | None, dstate: tuple[Any, ...] | None, need_dx: bool, need_dstate: bool
    ) -> tuple[FloatArray | None, tuple[Any, ...] | None]:
        self._take()
        d_initial = []
        for index in reversed(range(len(self._steps))):
            item = None if dstate is None else dstate[index]
            dy, item = self._steps[index]._run(dy, item, need_dx or index > 0, need_dstate)
            d_initial.append(item)
        return dy, tuple(reversed(d_initial)) if need_dstate else None


def _spans_after(spans: Spans | None, x: FloatArray, y: FloatArray) -> Spans | None:
    """What is left of `spans` once a layer made y of x: nothing where it took the axis of time away."""
    return spans if y.ndim >= x.ndim else None


def _check_items(name: str, items: Any, count: int) -> Any:
    if items is None:
        return (None,) * count
    if not isinstance(items, (tuple, list)):
        raise TypeError(f"{name}: expected a tuple of {count} items, one a layer, got {type(items).__name__}")
    if len(items) != count:
        raise ValueError(f"{name}: expected {count} items, one a layer, got {len(items)}")
    return items


def _check_layers(layers: tuple[Any, ...]) -> None:
    if not layers:
        raise ValueError("layers: expected at least one layer, got none")
    seen: dict[int, int] = {}
    width: int | None = None
    batch_first: bool | None = None
    dtype: np.dtype[Any] | None = None
    for index, layer in enumerate(layers):
        name = f"layers[{index}]"
        check_free(name, layer)
        if id(layer) in seen:
            raise ValueError(
                f"{name}: expected a layer of its own, got the same object as layers[{seen[id(layer)]}]"
            )
        seen[id(layer)] = index
        if index > 0 and layer._reads_integers:
            raise ValueError(
                f"{name}: expected a layer that reads real numbers after the first, got {layer!r}"
            )
        if width is not None and layer.input_size is not None and layer.input_size != width:
            raise ValueError(
                f"{name}: expected input size {width}, the width before it, got {layer.input_size}"
            )
        width = layer.output_size if layer.output_size is not None else width
        if batch_first is not None and layer.batch_first is not None and layer.batch_first != batch_first:
            raise ValueError(
                f"{name}: expected batch_first={batch_first} as the layers before, got {layer.batch_first}"
            )
        batch_first = layer.batch_first if layer.batch_first is not None else batch_first
        if dtype is not None and layer.dtype is not None and layer.dtype != dtype:
            raise ValueError(f"{name}: expected dtype {dtype} as the layers before, got {layer.dtype}")
        dtype = layer.dtype if layer.dtype is not None else dtype
