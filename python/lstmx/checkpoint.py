"""The state of a training as one file, and back: what `Trainer.save_checkpoint` and `load_checkpoint` do.

Arrays (parameters, running means of the optimiser, best weights) become tensors, everything else one JSON
text in the metadata. Loading checks all of it against the trainer before it changes anything. Not here:
writing the file in one step and reading it strictly, which is `lstmx.files`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lstmx.files import read_tensors, write_tensors

if TYPE_CHECKING:
    from lstmx.callbacks import Callback
    from lstmx.trainer import Trainer

FORMAT = "lstmx-checkpoint"
FORMAT_VERSION = "1"

Tensors = dict[str, NDArray[Any]]


def save(path: str | os.PathLike[str], trainer: Trainer) -> None:
    """Write the state of `trainer`; see `Trainer.save_checkpoint`."""
    tensors: Tensors = {}
    tensors.update(_prefixed("model/", trainer.model.state_dict()))
    tensors.update(_prefixed("optimizer/", trainer.optimizer.state_dict()))
    callbacks: dict[str, dict[str, Any]] = {}
    for key, callback in _named(trainer.callbacks):
        state = callback.state_dict()
        if not state:
            continue
        arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
        tensors.update(_prefixed(f"callbacks/{key}/", arrays))
        callbacks[key] = {name: value for name, value in state.items() if name not in arrays}
    state = {
        "optimizer": type(trainer.optimizer).__name__,
        "epoch": trainer.epoch,
        "step": trainer.step,
        "stop_training": trainer.stop_training,
        "history": dict(trainer.history),
        "model_rngs": rng_states(trainer.model.rngs()),
        "data_rngs": trainer.data_rng_states(),
        "callbacks": callbacks,
    }
    metadata = {"format": FORMAT, "format_version": FORMAT_VERSION, "trainer": json.dumps(state)}
    write_tensors(path, tensors, metadata)


def load(path: str | os.PathLike[str], trainer: Trainer) -> None:
    """Give `trainer` the state in the file; see `Trainer.load_checkpoint`."""
    tensors, metadata = read_tensors(path)
    try:
        state = _parse(metadata)
        _restore(trainer, tensors, state)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{os.fspath(path)}: not a whole checkpoint ({error!r})") from None
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None


def _parse(metadata: Mapping[str, str]) -> dict[str, Any]:
    if metadata.get("format") != FORMAT:
        raise ValueError(f"metadata: expected format {FORMAT!r}, got {metadata.get('format')!r}")
    if metadata.get("format_version") != FORMAT_VERSION:
        got = metadata.get("format_version")
        raise ValueError(f"metadata: expected format_version {FORMAT_VERSION!r}, got {got!r}")
    state = json.loads(metadata["trainer"])
    if not isinstance(state, dict):
        raise ValueError("metadata: expected a JSON object as trainer")
    return state


def _restore(trainer: Trainer, tensors: Tensors, state: dict[str, Any]) -> None:
    """Check everything, then take it over."""
    model, optimizer = trainer.model, trainer.optimizer
    parameters = _part("model/", tensors)
    expected = {name: value.shape for name, value in {**model.params, **model.buffers}.items()}
    found = {name: value.shape for name, value in parameters.items()}
    if expected != found:
        raise ValueError(f"model: expected parameters {expected}, got {found}")
    if state["optimizer"] != type(optimizer).__name__:
        raise ValueError(f"optimizer: expected {type(optimizer).__name__}, got {state['optimizer']}")
    history = {str(name): [float(value) for value in values] for name, values in state["history"].items()}
    epoch, step, stop = int(state["epoch"]), int(state["step"]), bool(state["stop_training"])
    check_rng_states("model", model.rngs(), state["model_rngs"])
    callbacks = [
        (callback, {**state["callbacks"][key], **_part(f"callbacks/{key}/", tensors)})
        for key, callback in _named(trainer.callbacks)
        if key in state["callbacks"]
    ]

    optimizer.load_state_dict(_part("optimizer/", tensors))
    model.load_state_dict(parameters)
    set_rng_states(model.rngs(), state["model_rngs"])
    for callback, values in callbacks:
        callback.load_state_dict(values)
    trainer.resume_from(epoch, step, stop, history, state["data_rngs"])


def rng_states(rngs: list[np.random.Generator]) -> list[dict[str, Any]]:
    """The states of generators, as JSON can hold them."""
    return [_encode(rng.bit_generator.state) for rng in rngs]


def check_rng_states(name: str, rngs: list[np.random.Generator], states: list[dict[str, Any]]) -> None:
    """Refuse states that are not those of as many generators of the same kinds."""
    expected = [type(rng.bit_generator).__name__ for rng in rngs]
    found = [state["bit_generator"] for state in states]
    if expected != found:
        raise ValueError(f"{name}: expected random generators {expected}, got {found} in the checkpoint")


def set_rng_states(rngs: list[np.random.Generator], states: list[dict[str, Any]]) -> None:
    """Undo `rng_states`."""
    for rng, state in zip(rngs, states, strict=True):
        rng.bit_generator.state = _decode(state)


def _encode(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _encode(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": value.dtype.str}
    return value.item() if isinstance(value, np.generic) else value


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"array", "dtype"}:
            return np.array(value["array"], value["dtype"])
        return {key: _decode(item) for key, item in value.items()}
    return value


def _named(callbacks: tuple[Callback, ...]) -> Iterator[tuple[str, Callback]]:
    """Callbacks by class and number within the class, so that others may come and go between runs."""
    counts: dict[str, int] = {}
    for callback in callbacks:
        kind = type(callback).__name__
        number = counts[kind] = counts.get(kind, -1) + 1
        yield f"{kind}.{number}", callback


def _prefixed(prefix: str, values: Mapping[str, NDArray[Any]]) -> Tensors:
    return {prefix + name: value for name, value in values.items()}


def _part(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
