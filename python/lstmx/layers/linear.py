"""Linear: the affine map y = x W^T + b over the last axis, whatever axes lie before it.

The arithmetic is `_core.LinearPlan`'s; here are the arguments, the initial values and the shapes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from lstmx import _core
from lstmx._checks import FloatArray, check_bool, check_choice, check_float, check_int
from lstmx._inputs import Spans, as_dense, check_dtype
from lstmx.layers.arena import Arena, Parameter, Shape
from lstmx.layers.initial import fill_glorot, fill_normal, fill_uniform
from lstmx.layers.module import Backward, Module
from lstmx.layers.products import HasSettings, Products, Settings, new_linear_plan, products_of


class Linear(HasSettings, Module):
    """`y = x @ weight.T + bias` over the last axis of x.

    Args:
        in_features: Width of x.
        out_features: Width of y.
        bias: Whether there is a bias.
        init: How the weights start. "pytorch": U(-1/sqrt(in), 1/sqrt(in)), as `torch.nn.Linear`;
            "glorot": U(-b, b) with b = sqrt(6 / (in + out)), as Keras's `Dense`; "normal": N(0, 1).
        bias_init: The number at which the biases start. None: as PyTorch for init="pytorch" (drawn like the
            weights), otherwise 0.
        dtype: Of parameters, x and y: "float32" or "float64".
        precision: How exact products have to be, or None, as the process or thread says: see `LSTM`.
        engine: What makes products: "auto", "fma" or "tiles".
        rng: Seed or generator for the initial values: `np.random.default_rng(rng)`.

    Parameters: `weight [out, in]`, `bias [out]`.

    Call: `y, None = layer(x)`, x of shape `[..., in]`, y of shape `[..., out]`.

    Raises:
        TypeError, ValueError: An argument is of the wrong kind or out of range.

    Example:
        >>> import lstmx, numpy as np
        >>> layer = lstmx.Linear(10, 1, rng=0)
        >>> y, _ = layer(np.zeros((4, 20, 10), np.float32))
        >>> y.shape
        (4, 20, 1)
        >>> lstmx.Linear(1, 10, init="normal", bias_init=0.1)
        Linear(1, 10, init='normal', bias_init=0.1)
    """

    _TRANSIENT = Module._TRANSIENT | {"_plan", "_weights", "_d_weights"}

    input_size: int
    output_size: int
    dtype: np.dtype[Any]

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        init: str = "pytorch",
        bias_init: float | None = None,
        dtype: str = "float32",
        precision: str | None = None,
        engine: str = "auto",
        rng: Any = None,
    ) -> None:
        self._configure(
            in_features,
            out_features,
            bias,
            init=init,
            bias_init=bias_init,
            dtype=dtype,
            precision=precision,
            engine=engine,
        )
        self._create(rng)

    def _configure(
        self,
        in_features: Any,
        out_features: Any,
        bias: Any = True,
        *,
        init: Any = "pytorch",
        bias_init: Any = None,
        dtype: Any = "float32",
        precision: Any = None,
        engine: Any = "auto",
    ) -> None:
        self.input_size = check_int("in_features", in_features, minimum=1)
        self.output_size = check_int("out_features", out_features, minimum=1)
        self.bias = check_bool("bias", bias)
        self.init = check_choice("init", init, ("pytorch", "glorot", "normal"))
        if bias_init is not None and not self.bias:
            raise ValueError(f"bias_init: expected None with bias=False, got {bias_init!r}")
        self.bias_init = None if bias_init is None else check_float("bias_init", bias_init)
        self.dtype = check_dtype("dtype", dtype)
        self._settings = Settings.check(precision, engine, self.dtype)

    @property
    def in_features(self) -> int:
        """Width of x."""
        return self.input_size

    @property
    def out_features(self) -> int:
        """Width of y."""
        return self.output_size

    def products(self, rows: int) -> Products:
        """Return what makes the products on the active target in a call with so many rows of x.

        Rows count along all axes but the last. A call whose numbers are out of an engine's range, as Inf and
        NaN are, leaves them to multiply-add units nevertheless.

        Raises:
            TypeError, ValueError: `rows` is not an integer, or below 1.
        """
        return products_of(self._plan, check_int("rows", rows, minimum=1))

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the class under "type"."""
        return {
            "type": "Linear",
            "in_features": self.input_size,
            "out_features": self.output_size,
            "bias": self.bias,
            "init": self.init,
            "bias_init": self.bias_init,
            "dtype": self.dtype.name,
        } | self._settings.config()

    def _parameters(self) -> Iterator[Parameter]:
        yield Parameter("weight", (self.output_size, self.input_size), False)
        if self.bias:
            yield Parameter("bias", (self.output_size,), True)

    def _initialise(self, rng: np.random.Generator) -> None:
        bound = 1.0 / math.sqrt(self.input_size)
        with self.editing() as params:
            if self.init == "pytorch":
                fill_uniform(params["weight"], bound, rng)
            elif self.init == "glorot":
                fill_glorot(params["weight"], rng)
            else:
                fill_normal(params["weight"], rng)
            if self.bias_init is not None:
                params["bias"][...] = self.bias_init
            elif self.bias and self.init == "pytorch":
                fill_uniform(params["bias"], bound, rng)

    def _bind(self, arena: Arena) -> None:
        super()._bind(arena)
        self._plan = new_linear_plan(self.input_size, self.output_size, self.dtype, self._settings)
        self._weights = (self._params["weight"], self._params.get("bias"))
        self._d_weights = (self._grads["weight"], self._grads.get("bias"))

    def _output_shape(self, name: str, shape: Shape) -> Shape:
        if not shape or shape[-1] != self.input_size:
            raise ValueError(f"{name}: expected shape (..., {self.input_size}), got {shape}")
        return (*shape[:-1], self.output_size)

    def _infer(self, x: FloatArray, state: None, spans: Spans | None) -> tuple[FloatArray, None]:
        return self._compute(x, False)[0], None

    def _train(self, x: FloatArray, state: None, spans: Spans | None) -> tuple[FloatArray, None, Backward]:
        y, x, tape = self._compute(x, True)
        return y, None, _LinearBackward(self, x, tape)

    def _compute(
        self, x: FloatArray, training: bool
    ) -> tuple[FloatArray, FloatArray, _core.LinearTape | None]:
        """Return y, x as the plan read it, and the tape."""
        call = self._arena.version, *self._weights
        threads = _core.get_num_threads()
        made = self._plan.call(*call, x, training, threads)
        if made is None:
            x = np.ascontiguousarray(x)
            made = self._plan.call(*call, x, training, threads)
            assert made is not None
        return made[0], x, made[1]


class _LinearBackward(Backward):
    __slots__ = ("_layer", "_shape")

    def __init__(self, layer: Linear, x: FloatArray, tape: _core.LinearTape | None) -> None:
        super().__init__(x, tape)
        self._layer = layer
        self._shape = x.shape

    def _check_dy(self, name: str, dy: Any) -> FloatArray:
        return as_dense(name, dy, (*self._shape[:-1], self._layer.output_size), self._layer.dtype)

    def _run(
        self, dy: FloatArray | None, dstate: None, need_dx: bool, need_dstate: bool
    ) -> tuple[FloatArray | None, None]:
        assert dy is not None
        x, tape = self._take()
        dense = np.ascontiguousarray(dy)  # another layer's may be strided
        return tape.call(x, dense, need_dx, *self._layer._d_weights, _core.get_num_threads()), None
