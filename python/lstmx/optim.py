"""The optimisers: SGD with momentum, Adam, AdamW, and clipping by the global norm of the gradients.

A model's parameters and gradients are flat arrays (its arena), so a step is one call into the core for all
parameters. Here lives what surrounds that call: which parameters decay, the running means that belong to one
model, and their names in a checkpoint. The formulas are PyTorch's
(https://docs.pytorch.org/docs/stable/optim.html) and stand in float64 in `lstmx.reference`. Not here:
learning rate schedules; set `lr` between steps.
"""

from __future__ import annotations

import fnmatch
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lstmx import _core
from lstmx._checks import FloatArray, check_bool, check_choice, check_float

if TYPE_CHECKING:
    from lstmx.layers import Module
    from lstmx.layers.arena import Arena

Groups = Mapping[str, Mapping[str, Any]]

_GROUP_SETTINGS = ("weight_decay", "decay_biases", "lr_scale")


class _Batch(NamedTuple):
    """Parameters that one call into the core updates: all those of one learning rate."""

    lr_scale: float
    segments: NDArray[np.int64]  # [n, 2] start, stop in the arena
    decays: NDArray[np.float64]  # [n]


class Optimizer(ABC):
    """What the optimisers share: the learning rate, parameter groups, and state that belongs to one model.

    **Weight decay** is L2 decay, 0 unless asked for, and never touches biases unless `decay_biases` says so.

    **Groups** give parameters settings of their own: a mapping from a pattern over parameter names (`*`
    matches anything, as in a shell) to a dict with any of

    - `weight_decay`: the decay of these parameters instead of the optimiser's;
    - `decay_biases`: whether the biases among them decay too;
    - `lr_scale`: a factor on the learning rate; 0 freezes them.

    The first pattern that matches a name wins; parameters that no pattern matches keep the optimiser's
    settings.

    **State** (momentum, running means, number of steps) belongs to the model of the first step. A step with
    another model is refused; make a new optimiser for it. A copy or a pickle of an optimiser carries the
    state but is free: it belongs to the next model of the same parameters that it steps.
    """

    _slots: tuple[str, ...] = ()  # the names of the state arrays

    def __init__(self, weight_decay: float, decay_biases: bool, groups: Groups | None) -> None:
        self._weight_decay = check_float("weight_decay", weight_decay, minimum=0.0)
        self._decay_biases = check_bool("decay_biases", decay_biases)
        self._groups = _check_groups(groups)
        self._steps = 0
        self._arena: Arena | None = None
        self._batches: tuple[_Batch, ...] = ()
        self._state: dict[str, FloatArray] = {}  # flat, in the arena's layout
        self._loaded: dict[str, NDArray[Any]] | None = None  # by name, for the model of the next step

    @property
    def lr(self) -> float:
        """The learning rate; set it between steps, as a schedule does."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = check_float("lr", value, minimum=0.0)

    @property
    def steps(self) -> int:
        """The number of steps taken."""
        return self._steps

    def bind(self, model: Module) -> None:
        """Let the state belong to `model` from now on, as the first step would.

        Raises:
            ValueError: It belongs to another model, a group's pattern matches none of the parameters, or
                state that was loaded before does not fit them.
        """
        if model.arena is not self._arena:
            self._bind(model.arena)

    def step(self, model: Module, *, grad_scale: float = 1.0) -> None:
        """Update the parameters of `model` from the gradients it has accumulated.

        Args:
            model: The model; that of the first step in every later one.
            grad_scale: A factor on all gradients, such as clipping gives.

        Raises:
            ValueError: `model` is not the model of the first step, or a group's pattern matches none of its
                parameters.
        """
        arena = model.arena
        if arena is not self._arena:
            self._bind(arena)
        self._steps += 1
        # Before and after: an interrupt between the two must not leave packed weights that look current.
        arena.touch()
        for batch in self._batches:
            self._update(arena, batch, grad_scale)
        arena.touch()

    @abstractmethod
    def _update(self, arena: Arena, batch: _Batch, grad_scale: float) -> None:
        """One fused step over the segments of `batch`."""

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Copies of what a resumed training needs: `lr`, `steps` and, as `m/NAME`, the state per parameter.

        Hyperparameters other than the learning rate are not in it; they are the constructor's.
        """
        state: dict[str, NDArray[Any]] = {
            "lr": np.array(self._lr, np.float64),
            "steps": np.array(self._steps, np.int64),
        }
        if self._arena is None:
            for key, value in (self._loaded or {}).items():
                state[key] = value.copy()
            return state
        for slot, flat in self._state.items():
            for entry in self._arena.entries:
                state[f"{slot}/{entry.name}"] = flat[entry.start : entry.stop].reshape(entry.shape).copy()
        return state

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `state_dict` gave, of this optimiser or of one of the same class.

        Where the optimiser has no model yet, names and shapes are compared with those of the model at the
        first step.

        Raises:
            ValueError: A name is missing or unknown, or a shape differs; nothing has then changed.
        """
        values = {key: np.array(value) for key, value in state.items()}
        for key in ("lr", "steps"):
            if key not in values or values[key].shape != ():
                raise ValueError(f"state[{key!r}]: expected a number, got {state.get(key)!r}")
        lr = check_float("state['lr']", values.pop("lr").item(), minimum=0.0)
        steps = int(values.pop("steps"))
        for key in values:
            if key.partition("/")[0] not in self._slots:
                raise ValueError(f"state: expected names of {type(self).__name__}, got {key!r}")
        if self._arena is None:
            self._loaded = values or None
        else:
            self._state = self._flatten(self._arena, values)
        self._lr, self._steps = lr, steps

    def _bind(self, arena: Arena) -> None:
        """Make `arena` the one that this optimiser's state belongs to."""
        if self._arena is not None:
            raise ValueError(
                "model: expected the model of this optimiser's first step, got another one; "
                "its running state belongs to that model, so make a new optimiser"
            )
        batches = self._batches_of(arena)
        self._state = self._flatten(arena, self._loaded or {})
        self._batches = batches
        self._loaded = None
        self._arena = arena

    def _flatten(self, arena: Arena, values: Mapping[str, NDArray[Any]]) -> dict[str, FloatArray]:
        """The state arrays by slot from those by name; zeros where there are none at all."""
        flat = {slot: np.zeros_like(arena.params) for slot in self._slots}
        if not values:
            return flat
        expected = {f"{slot}/{entry.name}": (slot, entry) for slot in self._slots for entry in arena.entries}
        for key, value in values.items():
            if key not in expected:
                raise ValueError(f"state: the model has no parameter for {key!r}")
            slot, entry = expected[key]
            if value.shape != tuple(entry.shape):
                raise ValueError(f"state[{key!r}]: expected shape {tuple(entry.shape)}, got {value.shape}")
            flat[slot][entry.start : entry.stop] = value.reshape(-1)
        missing = [key for key in expected if key not in values]
        if missing:
            raise ValueError(f"state: expected {missing[0]!r} ({len(missing)} names missing)")
        return flat

    def _batches_of(self, arena: Arena) -> tuple[_Batch, ...]:
        """Runs of neighbouring parameters with equal settings, by learning rate."""
        runs: dict[float, list[tuple[int, int, float]]] = {}
        unused = set(self._groups)
        for entry in arena.entries:
            matching = [pattern for pattern in self._groups if fnmatch.fnmatchcase(entry.name, pattern)]
            unused.difference_update(matching)
            settings = self._groups[matching[0]] if matching else {}
            decay = settings.get("weight_decay", self._weight_decay)
            if entry.is_bias and not settings.get("decay_biases", self._decay_biases):
                decay = 0.0
            lr_scale = settings.get("lr_scale", 1.0)
            if lr_scale == 0.0 or entry.start == entry.stop:
                continue
            run = runs.setdefault(lr_scale, [])
            if run and run[-1][1:] == (entry.start, decay):
                run[-1] = (run[-1][0], entry.stop, decay)
            else:
                run.append((entry.start, entry.stop, decay))
        if unused:
            names = ", ".join(entry.name for entry in arena.entries)
            raise ValueError(f"groups: expected patterns of {names}, got {sorted(unused)[0]!r}")
        return tuple(
            _Batch(
                lr_scale,
                np.array([(start, stop) for start, stop, _ in run], np.int64),
                np.array([decay for _, _, decay in run], np.float64),
            )
            for lr_scale, run in runs.items()
        )

    def _common_arguments(self) -> str:
        text = f"weight_decay={self._weight_decay!r}, decay_biases={self._decay_biases!r}"
        return f"{text}, groups={self._groups!r}" if self._groups else text

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if self._arena is not None:
            named = self.state_dict()
            del named["lr"], named["steps"]
            state["_loaded"] = named or None
        state.update(_arena=None, _batches=(), _state={})
        return state


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum and Nesterov's variant: `torch.optim.SGD` with dampening 0.

    Args:
        lr: Learning rate, at least 0.
        momentum: Decay of the velocity, at least 0; 0 is plain gradient descent.
        nesterov: Whether the step looks ahead (Sutskever et al. 2013); needs a momentum.
        weight_decay: L2 decay, added to the gradients.
        decay_biases: Whether biases decay too.
        groups: Settings of their own for some parameters; see `Optimizer`.

    Example:
        >>> SGD(lr=0.1, momentum=0.9, groups={"0.*": {"lr_scale": 0.0}})  # freezes the first layer
        SGD(lr=0.1, momentum=0.9, nesterov=False, weight_decay=0.0, decay_biases=False,
            groups={'0.*': {'lr_scale': 0.0}})
    """

    def __init__(
        self,
        lr: float = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        *,
        decay_biases: bool = False,
        groups: Groups | None = None,
    ) -> None:
        self.lr = lr
        self._momentum = check_float("momentum", momentum, minimum=0.0)
        self._nesterov = check_bool("nesterov", nesterov)
        if self._nesterov and self._momentum == 0.0:
            raise ValueError(
                f"nesterov: expected False without a momentum, got True and momentum={momentum!r}"
            )
        self._slots = ("velocity",) if self._momentum else ()
        super().__init__(weight_decay, decay_biases, groups)

    def _update(self, arena: Arena, batch: _Batch, grad_scale: float) -> None:
        _core.sgd_step(
            arena.params,
            arena.grads,
            self._state.get("velocity"),
            batch.segments,
            batch.decays,
            self._lr * batch.lr_scale,
            self._momentum,
            self._nesterov,
            grad_scale,
        )

    def __repr__(self) -> str:
        return (
            f"SGD(lr={self._lr!r}, momentum={self._momentum!r}, nesterov={self._nesterov!r}, "
            f"{self._common_arguments()})"
        )


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015): `torch.optim.Adam`.

    Args:
        lr: Learning rate, at least 0.
        betas: Decay of the running means of the gradients and of their squares, each at least 0 and below 1.
        eps: Added to the root of the mean square, at least 0.
        weight_decay: L2 decay, added to the gradients. (`AdamW` takes it from the parameters.)
        decay_biases: Whether biases decay too.
        groups: Settings of their own for some parameters; see `Optimizer`.

    Example:
        >>> import numpy as np, lstmx
        >>> model = lstmx.Linear(1, 1, rng=0)
        >>> optimizer = Adam(lr=0.1)
        >>> y, _, backward = model.forward(np.ones((4, 1), np.float32))
        >>> before = float(model.params["bias"][0])
        >>> _ = backward(np.ones((4, 1), np.float32))
        >>> optimizer.step(model)
        >>> round(float(model.params["bias"][0]) - before, 4)  # the first step has length lr
        -0.1
    """

    _slots = ("m", "v")
    _decoupled: ClassVar[bool] = False

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        decay_biases: bool = False,
        groups: Groups | None = None,
    ) -> None:
        self.lr = lr
        self._betas = _check_betas(betas)
        self._eps = check_float("eps", eps, minimum=0.0)
        super().__init__(weight_decay, decay_biases, groups)

    def _update(self, arena: Arena, batch: _Batch, grad_scale: float) -> None:
        _core.adam_step(
            arena.params,
            arena.grads,
            self._state["m"],
            self._state["v"],
            batch.segments,
            batch.decays,
            self._lr * batch.lr_scale,
            self._betas[0],
            self._betas[1],
            self._eps,
            self._steps,
            self._decoupled,
            grad_scale,
        )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(lr={self._lr!r}, betas={self._betas!r}, eps={self._eps!r}, "
            f"{self._common_arguments()})"
        )


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019): `torch.optim.AdamW`.

    Unlike PyTorch's it leaves the biases undecayed unless `decay_biases` says otherwise.

    Args:
        lr: Learning rate, at least 0.
        betas: Decay of the running means of the gradients and of their squares, each at least 0 and below 1.
        eps: Added to the root of the mean square, at least 0.
        weight_decay: A step takes `lr * weight_decay` of each decaying parameter away.
        decay_biases: Whether biases decay too.
        groups: Settings of their own for some parameters; see `Optimizer`.

    Example:
        >>> AdamW(lr=0.002)
        AdamW(lr=0.002, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01, decay_biases=False)
    """

    _decoupled: ClassVar[bool] = True

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        decay_biases: bool = False,
        groups: Groups | None = None,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay, decay_biases=decay_biases, groups=groups)


_BY_NAME: dict[str, type[SGD] | type[Adam]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}


def get(optimizer: str | Optimizer) -> Optimizer:
    """The optimiser of this name with its defaults, or `optimizer` itself where it is one.

    Raises:
        TypeError: `optimizer` is neither a name nor an optimiser.
        ValueError: There is no optimiser of this name.

    Example:
        >>> get("sgd").lr
        0.01
    """
    if isinstance(optimizer, str):
        return _BY_NAME[check_choice("optimizer", optimizer, _BY_NAME)]()
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer: expected a name or an Optimizer, got {optimizer!r}")
    return optimizer


def grad_norm(model: Module) -> float:
    """The Euclidean norm of all gradients of `model` taken as one vector."""
    return math.sqrt(_core.sum_of_squares(model.arena.grads))


def clip_scale(norm: float, max_norm: float) -> float:
    """The factor that brings gradients of this norm down to `max_norm`, at most 1.

    The 1e-6 in it is that of PyTorch's `clip_grad_norm_`.
    """
    return min(1.0, max_norm / (norm + 1e-6))


def clip_grad_norm(model: Module, max_norm: float) -> float:
    """Scale the gradients of `model` so that their norm is at most `max_norm` (Pascanu et al. 2013).

    Args:
        model: A model whose gradients are accumulated.
        max_norm: The largest norm allowed, more than 0.

    Returns:
        The norm before. Where it is not finite, the gradients are left as they are.

    Example:
        >>> import numpy as np, lstmx
        >>> model = lstmx.Linear(1, 1, rng=0)
        >>> model.grads["weight"][...], model.grads["bias"][...] = 3.0, 4.0
        >>> clip_grad_norm(model, 1.0)
        5.0
        >>> round(float(model.grads["bias"][0]), 5)
        0.8
    """
    limit = check_float("max_norm", max_norm, minimum=0.0, exclusive=True)
    norm = grad_norm(model)
    if math.isfinite(norm) and (scale := clip_scale(norm, limit)) < 1.0:
        model.arena.grads *= scale
    return norm


def _check_betas(betas: tuple[float, float]) -> tuple[float, float]:
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise TypeError(f"betas: expected two numbers, got {betas!r}")
    for i, beta in enumerate(betas):
        if check_float(f"betas[{i}]", beta, minimum=0.0, maximum=1.0) == 1.0:
            raise ValueError(f"betas[{i}]: expected less than 1, got {beta}")
    return float(betas[0]), float(betas[1])


def _check_groups(groups: Groups | None) -> dict[str, dict[str, Any]]:
    checked: dict[str, dict[str, Any]] = {}
    if groups is not None and not isinstance(groups, Mapping):
        raise TypeError(f"groups: expected a mapping from patterns to settings, got {groups!r}")
    for pattern, settings in (groups or {}).items():
        if not isinstance(pattern, str) or not isinstance(settings, Mapping):
            raise TypeError(f"groups: expected a pattern and a dict, got {pattern!r}: {settings!r}")
        checked[pattern] = {}
        for key, value in settings.items():
            name = f"groups[{pattern!r}][{key!r}]"
            check_choice(f"groups[{pattern!r}]", key, _GROUP_SETTINGS)
            if key == "decay_biases":
                checked[pattern][key] = check_bool(name, value)
            else:
                checked[pattern][key] = check_float(name, value, minimum=0.0)
    return checked
