"""What every layer is: parameters by name in an arena, one way to infer, to train and to be copied.

The public methods here check their arguments and then call the layer's own hooks, which may trust what they
are given; a `Sequential` calls its layers' hooks directly, so that everything is checked once and before
anything is written. No layer's mathematics is here.
"""

from __future__ import annotations

import contextlib
import copy
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import numpy as np

from lstmx._checks import FLOAT32, FloatArray, check_array, check_bool
from lstmx._inputs import Spans, as_floats, check_spans
from lstmx.layers.arena import Arena, ArrayViews, Parameter, Shape
from lstmx.layers.stream import Stream


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` found: names it expected and did not get, names it got and did not expect."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Backward(ABC):
    """What `forward` returns to train with: gradients of one earlier forward call, once.

    Call it as `dx, dstate = backward(dy, dstate=None, *, need_dx=True, need_dstate=True)`:

    - `dy`: gradient of the loss with respect to `y`, of its shape.
    - `dstate`: gradient with respect to the final state, of its structure; None stands for zeros.
    - `dx`, `dstate` returned: gradients with respect to the input and the initial state; None where the layer
      keeps no state or where `need_dx` or `need_dstate` is False, which saves the work.

    Parameter gradients are added to `layer.grads`. The call refers to its own forward call: other forward
    calls and even changed parameters in between do not disturb it. It releases what forward kept.

    Raises:
        RuntimeError: It was called before.
        TypeError, ValueError: `dy` or `dstate` is not as described; nothing was written and the call can be
        repeated.

    Example:
        >>> import lstmx, numpy as np
        >>> layer = lstmx.Linear(3, 2)
        >>> y, _, backward = layer.forward(np.ones((5, 3), np.float32))
        >>> dx, _ = backward(np.ones((5, 2), np.float32))
        >>> dx.shape, layer.grads["bias"].tolist()
        ((5, 3), [5.0, 5.0])
    """

    __slots__ = ("_kept",)

    def __init__(self, *kept: Any) -> None:
        self._kept = [kept]

    def __call__(
        self, dy: Any, dstate: Any = None, *, need_dx: bool = True, need_dstate: bool = True
    ) -> tuple[FloatArray | None, Any]:
        """Return `(dx, dstate)`, as the class says, and add to the layer's gradients."""
        if not self._kept:
            raise RuntimeError("backward: already called; a forward call can be differentiated once")
        dy = self._check_dy("dy", dy)
        dstate = self._check_dstate("dstate", dstate)
        return self._run(dy, dstate, need_dx, need_dstate)

    def _take(self) -> Any:
        """Hand over what forward kept and forget it; atomic, so that of two threads one gets it."""
        try:
            return self._kept.pop()
        except IndexError:
            raise RuntimeError(
                "backward: already called; a forward call can be differentiated once"
            ) from None

    @abstractmethod
    def _check_dy(self, name: str, dy: Any) -> FloatArray | None: ...

    def _check_dstate(self, name: str, dstate: Any) -> Any:
        if dstate is not None:
            raise TypeError(f"{name}: expected None (the layer keeps no state), got {type(dstate).__name__}")
        return None

    @abstractmethod
    def _run(
        self, dy: FloatArray | None, dstate: Any, need_dx: bool, need_dstate: bool
    ) -> tuple[FloatArray | None, Any]: ...


class SameShapeBackward(Backward):
    """Base of those whose y has the shape of x, and no state."""

    __slots__ = ("_dtype", "_shape")

    def __init__(self, shape: Shape, dtype: np.dtype[Any], *kept: Any) -> None:
        super().__init__(*kept)
        self._shape = shape
        self._dtype = dtype

    def _check_dy(self, name: str, dy: Any) -> FloatArray:
        return as_floats(name, dy, self._shape, self._dtype)


class Module(ABC):
    """Base of all layers. Calling one infers, `forward` trains; both take `(x, state, *, lengths, resets)`.

    Attributes:
        input_size: Width of the last axis of x, or None where any will do.
        output_size: Width of the last axis of y, or None where it is that of x.
        batch_first: Whether the layer reads time from axis 1 of `[B, T, F]`; None where it does not read
            time.
        dtype: The NumPy dtype of parameters, x and y; None where that of x will do.

    A state is None, an array with the rows of the batch along axis 1, or a tuple of states.

    Inference changes nothing in the layer and may run in several Python threads at once. Training and
    anything that writes parameters belongs to one thread at a time.

    Example:
        >>> import lstmx, numpy as np
        >>> model = lstmx.Sequential(lstmx.LSTM(1, 8, batch_first=True), lstmx.LastStep(), lstmx.Linear(8, 1))
        >>> y, state = model(np.zeros((4, 20, 1), np.float32))
        >>> y.shape, model.num_parameters
        ((4, 1), 361)
        >>> list(model.params)[:2]
        ['0.weight_ih_l0', '0.weight_hh_l0']
    """

    input_size: int | None = None
    output_size: int | None = None
    batch_first: bool | None = None
    dtype: np.dtype[Any] | None = FLOAT32

    _reads_integers: bool = False  # instead of real numbers; x has then no axis of features

    _TRANSIENT = frozenset({"_arena", "_params", "_grads", "_owner"})

    _rng: np.random.Generator | None = None
    _buffers: Mapping[str, FloatArray] = MappingProxyType({})
    _arena: Arena
    _params: Mapping[str, FloatArray]
    _grads: ArrayViews
    _owner: weakref.ref[Module] | None

    # --- calls ----------------------------------------------------------------------------------------------

    def __call__(
        self, x: Any, state: Any = None, *, lengths: Any = None, resets: Any = None
    ) -> tuple[FloatArray, Any]:
        """Return `(y, state)`: inference, without dropout; state is None where a layer keeps none.

        `lengths` and `resets` are for layers that read time (`batch_first` is not None); see `LSTM`.
        """
        x = self._check_x("x", x)
        state = self._check_state("state", state, x.shape)
        plain = lengths is None and resets is None
        return self._infer(x, state, None if plain else self._check_spans(lengths, resets, x.shape))

    def forward(
        self, x: Any, state: Any = None, *, lengths: Any = None, resets: Any = None, training: bool = True
    ) -> tuple[FloatArray, Any, Backward]:
        """Return `(y, state, backward)`: the training pass, with dropout; see `Backward`.

        With `training=False` it is inference, but with a `backward`: nothing is dropped or drawn, `BatchNorm`
        uses its running statistics and leaves them as they are. So are gradients by the input of a trained
        model, or all gradients but for the noise.

        The arrays given and the `y` returned are kept by reference, not copied: do not change them before
        `backward` was called. (Where backward reads `y` again, it is read-only.)
        """
        x = self._check_x("x", x)
        state = self._check_state("state", state, x.shape)
        plain = lengths is None and resets is None
        spans = None if plain else self._check_spans(lengths, resets, x.shape)
        if not check_bool("training", training):
            return self._infer_taped(x, state, spans)
        return self._train(x, state, spans)

    def stream(self, batch_size: int) -> Stream:
        """Return a `Stream`: inference step by step over `batch_size` sequences, with the state carried.

        Raises:
            TypeError: `batch_size` is not an integer.
            ValueError: It is below 1, or a layer's output depends on later steps.

        Example:
            >>> import lstmx, numpy as np
            >>> stream = lstmx.LSTM(3, 8).stream(2)
            >>> stream.step(np.zeros((2, 3), np.float32)).shape
            (2, 8)
        """
        return Stream(self, batch_size)

    # --- parameters -----------------------------------------------------------------------------------------

    @property
    def arena(self) -> Arena:
        """The flat memory behind `params` and `grads`."""
        return self._arena

    @property
    def params(self) -> Mapping[str, FloatArray]:
        """Parameters by name: read-only views. To write, use `editing`, `load_state_dict` or an optimiser."""
        return self._params

    @property
    def grads(self) -> ArrayViews:
        """Gradients by name: writable views, into which backward calls accumulate."""
        return self._grads

    @property
    def buffers(self) -> Mapping[str, FloatArray]:
        """What training keeps besides parameters, without gradients, by name: read-only views.

        Such as `BatchNorm`'s running statistics. `state_dict`, files, checkpoints and copies hold them, and
        `editing` and `load_state_dict` write them, like parameters; optimisers do not see them.
        """
        return MappingProxyType(_views(self._named_buffers(), writable=False))

    @property
    def num_parameters(self) -> int:
        """The number of trainable numbers."""
        return self._arena.params.size

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        self._arena.grads.fill(0)

    @contextlib.contextmanager
    def editing(self) -> Iterator[ArrayViews]:
        """Give writable views of the parameters and buffers for the length of a `with` block.

        The version of the arena is raised at the end of the block, and the views become read-only again.

        Example:
            >>> import lstmx
            >>> layer = lstmx.Linear(2, 1)
            >>> with layer.editing() as params:
            ...     params["weight"][...] = [[1, 2]]
            ...     params["bias"] = [3]
            >>> layer([[10, 100]])[0].tolist()
            [[213.0]]
        """
        views = self._arena.param_views(writable=True) | _views(self._named_buffers(), writable=True)
        try:
            yield ArrayViews(views)
        finally:
            for view in views.values():
                view.flags.writeable = False
            self._arena.touch()

    def state_dict(self) -> dict[str, FloatArray]:
        """Return copies of the parameters and buffers by name."""
        return {name: view.copy() for name, view in (*self._params.items(), *self._named_buffers().items())}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copy parameters and buffers from a mapping of arrays by name, such as `state_dict()` or PyTorch's.

        Args:
            state_dict: Arrays (or CPU tensors) of real numbers, of the shapes of those in `state_dict()`.
            strict: Whether a missing or unexpected name is an error. If not, what is there is loaded.

        Returns:
            `(missing_keys, unexpected_keys)`, both empty when `strict`.

        Raises:
            TypeError: Not a mapping of real arrays.
            ValueError: A name is missing or unexpected (if `strict`), or a shape differs. Nothing was
                written.

        Example:
            >>> import lstmx
            >>> a, b = lstmx.LSTM(3, 4), lstmx.LSTM(3, 4)
            >>> b.load_state_dict(a.state_dict())
            IncompatibleKeys(missing_keys=[], unexpected_keys=[])
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(
                f"state_dict: expected a mapping of arrays by name, got {type(state_dict).__name__}"
            )
        known = {**self._params, **self._named_buffers()}
        missing = [name for name in known if name not in state_dict]
        unexpected = [name for name in state_dict if name not in known]
        if strict and (missing or unexpected):
            problems = [("missing", missing), ("unexpected", unexpected)]
            listed = "; ".join(f"{kind} {', '.join(map(repr, names))}" for kind, names in problems if names)
            raise ValueError(
                f"state_dict: expected the names of {type(self).__name__}'s parameters, got {listed}"
            )
        values = {
            name: check_array(f"state_dict[{name!r}]", state_dict[name], shape=view.shape, dtype=view.dtype)
            for name, view in known.items()
            if name in state_dict
        }
        with self.editing() as views:
            for name, value in values.items():
                views[name][...] = value
        return IncompatibleKeys(missing, unexpected)

    # --- description ----------------------------------------------------------------------------------------

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the class under "type": what `from_config` builds from."""

    def rngs(self) -> list[np.random.Generator]:
        """Return the generators that training draws from, in order, for checkpoints to save."""
        return [] if self._rng is None else [self._rng]

    def __repr__(self) -> str:
        import inspect

        config = self.config()
        arguments = []
        for name, argument in inspect.signature(type(self)).parameters.items():
            if name not in config:  # a generator: not part of the description
                continue
            if argument.default is inspect.Parameter.empty:
                arguments.append(repr(config[name]))
            elif config[name] != (
                list(argument.default) if isinstance(argument.default, tuple) else argument.default
            ):
                arguments.append(f"{name}={config[name]!r}")
        return f"{type(self).__name__}({', '.join(arguments)})"

    # --- copies ---------------------------------------------------------------------------------------------

    def __copy__(self) -> Self:
        # A shallow copy would share parameters with the original and pack them under a version of its own.
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name not in self._TRANSIENT}
        state["_values"] = (self._arena.params.copy(), self._arena.grads.copy())
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        params, grads = state.pop("_values")
        self.__dict__.update(state)
        self._allocate()
        self._arena.params[...] = params
        self._arena.grads[...] = grads

    # --- for layers -----------------------------------------------------------------------------------------

    def _parameters(self) -> Iterator[Parameter]:
        """Yield the layer's parameters in PyTorch's order; needs only what `_configure` set."""
        yield from ()

    def _buffer_shapes(self) -> Iterator[tuple[str, Shape]]:
        """Yield the names and shapes of the layer's buffers; needs only what `_configure` set."""
        yield from ()

    def _named_buffers(self) -> Mapping[str, FloatArray]:
        """The buffers themselves, of a container those of its layers."""
        return self._buffers

    @property
    def _draws(self) -> bool:
        """Whether training draws random numbers; needs only what `_configure` set."""
        return False

    def _create(self, rng: Any, *, initial_values: bool = True) -> None:
        """End a constructor, after `_configure`: the generator, the memory, the initial values."""
        generator = np.random.default_rng(rng)
        self._rng = generator if self._draws else None
        buffers = {name: np.zeros(shape, self.dtype or FLOAT32) for name, shape in self._buffer_shapes()}
        if buffers:
            self._buffers = buffers
        self._allocate()
        if initial_values:  # otherwise zeros from the system, untouched, for a file's values
            self._initialise(generator)

    def _initialise(self, rng: np.random.Generator) -> None:  # noqa: B027 (a layer may have no parameters)
        """Draw the initial values."""

    def _allocate(self) -> None:
        """Give the layer an arena of its own, of zeros."""
        self._owner = None
        self._bind(Arena.create(self._parameters(), self.dtype or FLOAT32))

    def _bind(self, arena: Arena) -> None:
        """Take `arena` as the layer's memory; layers that keep views or plans make them anew here."""
        self._arena = arena
        self._params = MappingProxyType(arena.param_views(writable=False))
        self._grads = ArrayViews(arena.grad_views())

    def _as_x(self, name: str, x: Any) -> Any:
        """Return x as the layer reads it, of whatever shape."""
        return as_floats(name, x, dtype=self.dtype or FLOAT32)

    def _check_x(self, name: str, x: Any) -> Any:
        """Return x as the layer reads it, of a shape that fits."""
        array = self._as_x(name, x)
        self._output_shape(name, array.shape)
        return array

    def _stream_obstacle(self) -> str | None:
        """What in the layer reads later steps, for a message; None: nothing, it can go step by step."""
        return None

    def _restart(self, state: Any, rows: Any) -> None:
        """Set `rows` of a state, which is the caller's own, to what a sequence starts from."""
        if isinstance(state, tuple):
            for item in state:
                self._restart(item, rows)
        elif state is not None:
            state[:, rows] = 0

    @abstractmethod
    def _output_shape(self, name: str, shape: Shape) -> Shape:
        """Return the shape of y for an x of `shape`; ValueError, with `name`, where x cannot be of it."""

    def _check_state(self, name: str, state: Any, shape: Shape) -> Any:
        """Return `state` as the kernels read it; `shape` is that of x."""
        if state is not None:
            raise TypeError(
                f"{name}: expected None ({type(self).__name__} keeps no state), got {type(state).__name__}"
            )
        return None

    def _check_spans(self, lengths: Any, resets: Any, shape: Shape) -> Spans | None:
        """Return `lengths` and `resets` as the kernels read them; `shape` is that of x."""
        if self.batch_first is None:
            name, value = ("resets", resets) if lengths is None else ("lengths", lengths)
            raise TypeError(
                f"{name}: expected None ({type(self).__name__} reads no time), got {type(value).__name__}"
            )
        return check_spans(lengths, resets, shape, self.batch_first)

    @abstractmethod
    def _infer(self, x: FloatArray, state: Any, spans: Spans | None) -> tuple[FloatArray, Any]:
        """Return `(y, state)` for checked arguments."""

    @abstractmethod
    def _train(self, x: FloatArray, state: Any, spans: Spans | None) -> tuple[FloatArray, Any, Backward]:
        """Return `(y, state, backward)` for checked arguments."""

    def _infer_taped(
        self, x: FloatArray, state: Any, spans: Spans | None
    ) -> tuple[FloatArray, Any, Backward]:
        """`_infer` with a backward; for layers whose training differs, or contains what does, to override."""
        return self._train(x, state, spans)


def _views(arrays: Mapping[str, FloatArray], *, writable: bool) -> dict[str, FloatArray]:
    views = {name: array.view() for name, array in arrays.items()}
    for view in views.values():
        view.flags.writeable = writable
    return views
