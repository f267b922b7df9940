"""Event files that TensorBoard shows: scalars per step and epoch, histograms, the model's graph and text.

The events are tensorboardX's (its protocol buffers and checksum), but the records are written here, at once
and in the training's own thread: tensorboardX's writer hands them to a thread through a queue, and where that
thread dies of a full disk, training would wait for room in the queue for ever.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import socket
import struct
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lstmx._checks import FloatArray, check_bool, check_float, check_int
from lstmx.callbacks.base import Callback, Logs
from lstmx.callbacks.logfile import LogFile

if TYPE_CHECKING:
    from lstmx.layers import Module

_BINS = 64
_file_numbers = itertools.count()


class TensorBoard(Callback):
    """Writes what TensorBoard shows; look at it with `tensorboard --logdir LOG_DIR`.

    All curves stand over the number of training steps, so that those of steps and of epochs can be compared:

    - `loss` every `every` steps, and `epoch/loss`, `epoch/val_loss` at the end of each epoch;
    - histograms `parameters/NAME` (and `gradients/NAME`, those of the last step) at the end of epochs;
    - the chain of layers as a graph, and a table of them as text.

    A training that goes on from a checkpoint tells TensorBoard to drop what a run that was killed had written
    after it. Where the disk is full, one warning is given and training goes on without the file.

    Args:
        log_dir: The folder of the run; it is made. Each training writes a file of its own in it.
        every: Steps from one scalar to the next; 0 for none.
        histograms_every: Epochs from one set of histograms to the next; 0 for none.
        gradients: Whether there are histograms of the gradients, too.
        tags: Names to show instead, such as `{"loss": "cost"}`.
        flush_seconds: How long an event may wait in memory for more of them.

    Raises:
        ImportError: (when a training begins) tensorboardX is not installed.
        OSError: (when a training begins) The folder or file cannot be made, for another reason than a full
            disk.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        *,
        every: int = 1,
        histograms_every: int = 1,
        gradients: bool = False,
        tags: Mapping[str, str] | None = None,
        flush_seconds: float = 2.0,
    ) -> None:
        self.log_dir = Path(log_dir)
        self.every = check_int("every", every, minimum=0)
        self.histograms_every = check_int("histograms_every", histograms_every, minimum=0)
        self.gradients = check_bool("gradients", gradients)
        self.tags = dict(tags or {})
        self.flush_seconds = check_float("flush_seconds", flush_seconds, minimum=0.0)
        self._writer: EventWriter | None = None

    def on_train_begin(self) -> None:
        """Open a new event file; write the graph and the text."""
        require_tensorboardx()
        self._writer = EventWriter(self.log_dir, self.flush_seconds)
        trainer = self.trainer
        if trainer.step > 0:
            self._writer.drop_from(trainer.step + 1)
        self._writer.graph(trainer.model)
        self._writer.text("model", f"{_layer_table(trainer.model)}\n\n    {trainer!r}", trainer.step)

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Write the scalars of a step, if it is time."""
        step = self.trainer.step
        if self.every and step % self.every == 0 and self._writer is not None:
            for name, value in logs.items():
                self._writer.scalar(self.tags.get(name, name), value, step)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Write the scalars of an epoch and, if it is time, the histograms."""
        if self._writer is None:
            return
        step = self.trainer.step
        for name, value in logs.items():
            self._writer.scalar(f"epoch/{self.tags.get(name, name)}", value, step)
        if self.histograms_every and (epoch + 1) % self.histograms_every == 0:
            model = self.trainer.model
            for name, values in model.params.items():
                self._writer.histogram(f"parameters/{name}", values, step)
            if self.gradients:
                for name, values in model.grads.items():
                    self._writer.histogram(f"gradients/{name}", values, step)
        self._writer.flush()

    def on_train_end(self) -> None:
        """Write what waits and close the file."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def __repr__(self) -> str:
        return (
            f"TensorBoard({str(self.log_dir)!r}, every={self.every}, "
            f"histograms_every={self.histograms_every}, gradients={self.gradients}, tags={self.tags}, "
            f"flush_seconds={self.flush_seconds})"
        )


class EventWriter:
    """One event file of TensorBoard's, written in the caller's thread.

    Args:
        log_dir: The folder; it is made. The file gets a name that no other run has.
        flush_seconds: How long an event may wait in memory.
    """

    def __init__(self, log_dir: Path, flush_seconds: float) -> None:
        from tensorboardX import summary
        from tensorboardX.proto import event_pb2
        from tensorboardX.record_writer import masked_crc32c

        self._summary, self._proto, self._checksum = summary, event_pb2, masked_crc32c
        self._flush_seconds = flush_seconds
        self._waiting = bytearray()
        self._due = time.monotonic() + flush_seconds
        self._file = _open(log_dir)
        self._add(file_version="brain.Event:2")

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Add one number."""
        self._add(step=step, summary=self._summary.scalar(tag, value))

    def histogram(self, tag: str, values: FloatArray, step: int) -> None:
        """Add the distribution of the finite values of an array; nothing where there are none."""
        finite = values[np.isfinite(values)]
        if finite.size:
            self._add(step=step, summary=self._summary.histogram(tag, finite, bins=_BINS))

    def text(self, tag: str, markdown: str, step: int) -> None:
        """Add a text."""
        self._add(step=step, summary=self._summary.text(tag, markdown))

    def graph(self, model: Module) -> None:
        """Add the layers of a model, one node each, in a chain."""
        from tensorboardX.proto.attr_value_pb2 import AttrValue
        from tensorboardX.proto.graph_pb2 import GraphDef
        from tensorboardX.proto.node_def_pb2 import NodeDef

        nodes = [NodeDef(name="x", op="Placeholder")]
        for name, layer in _leaves(model):
            config = AttrValue(s=json.dumps(layer.config()).encode())
            kind = type(layer).__name__
            nodes.append(
                NodeDef(name=f"{name}_{kind}", op=kind, input=[nodes[-1].name], attr={"config": config})
            )
        self._add(graph_def=GraphDef(node=nodes).SerializeToString())

    def drop_from(self, step: int) -> None:
        """Tell TensorBoard to drop events of this step and later ones that earlier files hold."""
        session = self._proto.SessionLog(status=self._proto.SessionLog.START)
        self._add(step=step, session_log=session)

    def flush(self) -> None:
        """Write what waits in memory."""
        if self._file is not None and self._waiting:
            self._file.write(bytes(self._waiting))
        self._waiting.clear()
        self._due = time.monotonic() + self._flush_seconds

    def close(self) -> None:
        """Write what waits and close the file."""
        self.flush()
        if self._file is not None:
            self._file.close()

    def _add(self, **fields: Any) -> None:
        """Append one record: length, checksum of the length, event, checksum of the event."""
        event = self._proto.Event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(event))
        self._waiting += length
        self._waiting += struct.pack("<I", self._checksum(length))
        self._waiting += event
        self._waiting += struct.pack("<I", self._checksum(event))
        if time.monotonic() >= self._due:
            self.flush()


def require_tensorboardx() -> None:
    """Raise an ImportError that says what to install where tensorboardX is missing."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "TensorBoard event files need tensorboardX: from the checkout of lstmx, pip install '.[viz]'"
        ) from error


def _open(log_dir: Path) -> LogFile | None:
    """A new event file in the folder; None, after a warning, where the disk is full."""
    name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}.{next(_file_numbers)}"
    try:
        log_dir.mkdir(parents=True, exist_ok=True)
        return LogFile(log_dir / name)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        warnings.warn(
            f"{log_dir}: {error.strerror}; training goes on without TensorBoard", RuntimeWarning, stacklevel=4
        )
        return None


def _leaves(model: Module, prefix: str = "") -> Iterator[tuple[str, Module]]:
    """The layers that compute, with the name that their parameters have in front."""
    layers = getattr(model, "layers", None)
    if layers is None:
        yield prefix or "0", model
        return
    for index, layer in enumerate(layers):
        yield from _leaves(layer, f"{prefix}.{index}" if prefix else str(index))


def _layer_table(model: Module) -> str:
    """The layers as a table in Markdown."""
    rows = ["| | layer | parameters |", "|---|---|---:|"]
    rows += [f"| {name} | {layer!r} | {layer.num_parameters} |" for name, layer in _leaves(model)]
    rows.append(f"| | all | {model.num_parameters} |")
    return "\n".join(rows)
