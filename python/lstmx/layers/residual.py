"""Residual: a layer whose output is added to its input, so that it learns a difference.

It owns the one layer and hands everything on to it: states, lengths, resets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lstmx._checks import FloatArray
from lstmx._inputs import Spans, padded_steps
from lstmx.layers.arena import Shape
from lstmx.layers.container import Container, check_free
from lstmx.layers.module import Backward, Module


class Residual(Container):
    """`y = x + layer(x)`.

    Args:
        layer: Any layer whose y has the shape of x. It belongs to the residual; several: a `Sequential`.

    Parameters are named with `layer.` in front, `layer.weight_hh_l0`; the state is that of the layer.

    Call: as the layer. Where the layer takes `lengths`, y and dx are 0 beyond them, and x and dy are not read
    there, as with `LSTM`.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition".

    Raises:
        TypeError: The argument is no layer.
        ValueError: It is part of another model, changes the width or reads integers.

    Example:
        >>> import lstmx, numpy as np
        >>> block = lstmx.Residual(lstmx.LSTM(8, 8, batch_first=True))
        >>> y, (h_n, c_n) = block(np.zeros((4, 20, 8), np.float32))
        >>> y.shape, h_n.shape, list(block.params)[0]
        ((4, 20, 8), (1, 4, 8), 'layer.weight_ih_l0')
    """

    layer: Module

    def __init__(self, layer: Module) -> None:
        check_free("layer", layer)
        if layer._reads_integers:
            raise ValueError(f"layer: expected one that reads real numbers, got {layer!r}")
        widths = layer.input_size, layer.output_size
        if None not in widths and widths[0] != widths[1]:
            raise ValueError(f"layer: expected as many features out as in, got {widths[1]} for {widths[0]}")
        self.layer = layer
        self._adopt()

    def _adopt(self) -> None:
        super()._adopt()
        self.input_size, self.output_size = self.layer.input_size, self.layer.output_size
        self.batch_first = self.layer.batch_first

    def _children(self) -> Iterator[tuple[str, Module]]:
        yield "layer.", self.layer

    def config(self) -> dict[str, Any]:
        """Return the layer's configuration under "layer", with the class under "type"."""
        return {"type": "Residual", "layer": self.layer.config()}

    def __repr__(self) -> str:
        return f"Residual({self.layer!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"layer": self.layer}  # it brings its values

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.layer = state["layer"]
        self._adopt()

    # --- checks ---------------------------------------------------------------------------------------------

    def _output_shape(self, name: str, shape: Shape) -> Shape:
        output = self.layer._output_shape(name, shape)
        if output != shape:
            raise ValueError(f"{name}: expected a shape that {self.layer!r} keeps, got {shape} (to {output})")
        return shape

    def _check_state(self, name: str, state: Any, shape: Shape) -> Any:
        return self.layer._check_state(name, state, shape)

    def _restart(self, state: Any, rows: Any) -> None:
        self.layer._restart(state, rows)

    def _check_spans(self, lengths: Any, resets: Any, shape: Shape) -> Spans | None:
        return self.layer._check_spans(lengths, resets, shape)

    # --- the two passes -------------------------------------------------------------------------------------

    def _infer(self, x: FloatArray, state: Any, spans: Spans | None) -> tuple[FloatArray, Any]:
        y, state = self.layer._infer(x, state, spans)
        return _add(x, y, padded_steps(spans, x.shape, self.batch_first)), state

    def _infer_taped(
        self, x: FloatArray, state: Any, spans: Spans | None
    ) -> tuple[FloatArray, Any, Backward]:
        return self._train(x, state, spans, False)

    def _train(
        self, x: FloatArray, state: Any, spans: Spans | None, training: bool = True
    ) -> tuple[FloatArray, Any, Backward]:
        padded = padded_steps(spans, x.shape, self.batch_first)
        y, state, backward = (self.layer._train if training else self.layer._infer_taped)(x, state, spans)
        return _add(x, y, padded), state, _ResidualBackward(backward, padded)


def _add(a: FloatArray, b: FloatArray, padded: NDArray[np.bool_] | None) -> FloatArray:
    """Return a + b, and 0 at the steps that are padded."""
    total = np.add(a, b, order="C")
    if padded is not None:
        total[padded] = 0
    return total


class _ResidualBackward(Backward):
    __slots__ = ("_step",)

    def __init__(self, step: Backward, padded: NDArray[np.bool_] | None) -> None:
        super().__init__(padded)
        self._step = step

    def _check_dy(self, name: str, dy: Any) -> FloatArray | None:
        return self._step._check_dy(name, dy)

    def _check_dstate(self, name: str, dstate: Any) -> Any:
        return self._step._check_dstate(name, dstate)

    def _run(
        self, dy: FloatArray | None, dstate: Any, need_dx: bool, need_dstate: bool
    ) -> tuple[FloatArray | None, Any]:
        (padded,) = self._take()
        if padded is not None and dy is not None:
            dy = dy.copy()
            dy[padded] = 0
        dx, d_initial = self._step._run(dy, dstate, need_dx, need_dstate)
        if dx is not None and dy is not None:
            dx = _add(dx, dy, padded)
        return dx, d_initial
