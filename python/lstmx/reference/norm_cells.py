"""The LSTM with normalization inside the recurrence: over the features of a row, or over the rows of a batch.

Both normalize x W', h R' and c, each on its own: `gain_ih` and `gain_hh` [4H] multiply the normalized
products, the biases are added after; c is seen by its activation as gain_c * normalized(c) + bias_c, both
[H], and carried as it is. The options of the plain cell all combine with it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lstmx.reference._arrays import Array
from lstmx.reference.cells import CellOptions, LstmCell, Step, blocks
from lstmx.reference.loop import Tape, read_statistics


class _Normalized(NamedTuple):
    """What a normalization keeps."""

    n: Array  # (v - mean) / std
    std: Array
    batch: tuple[Array, Array] | None = None  # mean and variance of the batch; None: not from the batch


class NormLstmCell(LstmCell):
    """What the two normalized LSTMs share: gains, biases, and the parameters of their own."""

    def __init__(self, options: CellOptions | None = None, eps: float = 1e-5) -> None:
        super().__init__(options)
        self.eps = eps

    @property
    def parameters(self) -> dict[str, int]:
        """Those of the plain cell, gains, and the bias of c."""
        return super().parameters | {"gain_ih": 4, "gain_hh": 4, "gain_c": 1, "bias_c": 1}

    @abstractmethod
    def standardize(self, step: Step, name: str, v: Array) -> _Normalized:
        """V with mean 0 and variance 1 in whatever sense the cell has it."""

    @abstractmethod
    def standardize_backward(self, step: Step, saved: _Normalized, dn: Array) -> Array:
        """The same undone."""

    def normalize(self, step: Step, name: str, v: Array) -> tuple[Array, Any]:
        """Standardize, scale and, for c, shift."""
        saved = self.standardize(step, name, v)
        scaled = step.params[f"gain_{name}"] * saved.n
        return (scaled + step.params["bias_c"] if name == "c" else scaled), saved

    def normalize_backward(
        self, step: Step, name: str, saved: Any, dv: Array
    ) -> tuple[Array, dict[str, Array]]:
        """The same undone."""
        d_params = {f"gain_{name}": dv * saved.n} | ({"bias_c": dv} if name == "c" else {})
        return self.standardize_backward(step, saved, step.params[f"gain_{name}"] * dv), d_params


class LayerNormLstmCell(NormLstmCell):
    """The layer-normalized LSTM of Ba, Kiros and Hinton (2016), equations 20 to 22, gate by gate.

    The statistics are those of a row's H units in each of the four gates of x W' and of h R', so that no gate
    is scaled by what the others do; equation 20 itself is written for the four together.
    """

    def standardize(self, step: Step, name: str, v: Array) -> _Normalized:
        """See `NormLstmCell`."""
        parts = [self._standardize(block) for block in self._blocks(name, v)]
        n, std = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        return _Normalized(n, std)

    def standardize_backward(self, step: Step, saved: _Normalized, dn: Array) -> Array:
        """See `NormLstmCell`."""
        count = saved.std.shape[1]
        parts = [
            (d - _row_mean(d) - n * _row_mean(d * n)) / std
            for d, n, std in zip(
                blocks(dn, count), blocks(saved.n, count), blocks(saved.std, count), strict=True
            )
        ]
        return np.concatenate(parts, axis=1)

    def _standardize(self, block: Array) -> tuple[Array, Array]:
        centred = block - _row_mean(block)
        std = np.sqrt(_row_mean(centred * centred) + self.eps)
        return centred / std, std

    def _blocks(self, name: str, v: Array) -> list[Array]:
        return [v] if name == "c" else blocks(v, self.gates)


class BatchNormLstmCell(NormLstmCell):
    """The batch-normalized LSTM of Cooijmans, Ballas, Laurent, Gulcehre and Courville (2017).

    In training the statistics of a step are those of the rows that have it; a row that is alone is normalized
    to 0. With running statistics they are constants: those of the same step, beyond the last that there are
    statistics of those of the last. Steps are counted in the order in which a direction makes them; resets do
    not begin anew. The paper starts with gains of 0.1.

    Running statistics are `running_mean_ih`, `running_var_ih`, `running_mean_hh`, `running_var_hh`
    [steps, 4H], `running_mean_c` and `running_var_c` [steps, H]: see `running_statistics`.
    """

    statistics: ClassVar[Mapping[str, int]] = {
        f"running_{kind}_{name}": units
        for name, units in (("ih", 4), ("hh", 4), ("c", 1))
        for kind in ("mean", "var")
    }

    def standardize(self, step: Step, name: str, v: Array) -> _Normalized:
        """See `NormLstmCell`."""
        if step.statistics is not None:
            mean, var = (step.statistics[f"running_{kind}_{name}"] for kind in ("mean", "var"))
            t = min(step.t, len(mean) - 1)
            std = np.sqrt(var[t] + self.eps)
            return _Normalized((v - mean[t]) / std, std)
        mean = _batch_mean(step, v)
        centred = v - mean
        var = _batch_mean(step, centred * centred)
        std = np.sqrt(var + self.eps)
        return _Normalized(centred / std, std, (mean, var))

    def standardize_backward(self, step: Step, saved: _Normalized, dn: Array) -> Array:
        """See `NormLstmCell`."""
        if saved.batch is not None:
            dn = dn - _batch_mean(step, dn) - saved.n * _batch_mean(step, dn * saved.n)
        return dn / saved.std


def running_statistics(
    tape: Tape, statistics: Mapping[str, ArrayLike], momentum: float = 0.1
) -> dict[str, Array]:
    """Return the running statistics of a `BatchNormLstmCell` after a training pass.

    Args:
        tape: Of the training pass.
        statistics: Those before it, each [steps, 4H] or [steps, H]; steps need not be those of the pass: what
            one has and the other lacks stays, or is not kept.
        momentum: The share of the batch. The variance is the unbiased one; a step that fewer than two rows
            have leaves its statistics.

    Raises:
        KeyError: One of the statistics is missing.
        TypeError: They do not hold real numbers.
        ValueError: The shape of one does not fit, or the pass was none of training with such a cell.

    Example:
        >>> from lstmx.reference import recurrent_forward
        >>> cell = BatchNormLstmCell()
        >>> params = {"weight_ih": np.ones((4, 1)), "weight_hh": np.ones((4, 1))}
        >>> params |= {name: np.ones(units) for name, units in cell.parameters.items()}
        >>> run = recurrent_forward([[[1.0], [5.0]]], params, cell=cell)
        >>> old = initial_statistics(1, 1)
        >>> running_statistics(run.tape, old, momentum=0.5)["running_mean_ih"].tolist()
        [[1.5, 1.5, 1.5, 1.5]]
    """
    cell = tape.cell
    if not isinstance(cell, BatchNormLstmCell) or any(step.statistics is not None for step in tape.steps):
        raise ValueError(
            f"tape: expected that of training with a BatchNormLstmCell, got a {cell.name} cell's"
        )
    result = read_statistics(cell, statistics, tape.h_cell.shape[2])
    for name in ("ih", "hh", "c"):
        mean, var = result[f"running_mean_{name}"], result[f"running_var_{name}"]
        for step, saved in zip(tape.steps[: len(mean)], tape.saved, strict=False):
            rows = int(step.alive.sum())
            if rows < 2:
                continue
            batch_mean, batch_var = saved["c_norm" if name == "c" else name].batch
            unbiased = batch_var * (rows / (rows - 1))
            mean[step.t] = (1 - momentum) * mean[step.t] + momentum * batch_mean
            var[step.t] = (1 - momentum) * var[step.t] + momentum * unbiased
    return result


def initial_statistics(steps: int, size: int) -> dict[str, Array]:
    """Running statistics of so many steps before any training, for H = size: means of 0, variances of 1.

    >>> {name: value.shape for name, value in initial_statistics(7, 2).items() if "mean" in name}
    {'running_mean_ih': (7, 8), 'running_mean_hh': (7, 8), 'running_mean_c': (7, 2)}
    """
    return {
        name: np.full((steps, units * size), 1.0 if "var" in name else 0.0)
        for name, units in BatchNormLstmCell.statistics.items()
    }


def _row_mean(v: Array) -> Array:
    """The mean of each row, [B, 1]."""
    mean: Array = (v.sum(axis=1) / v.shape[1]).reshape(-1, 1)
    return mean


def _batch_mean(step: Step, v: Array) -> Array:
    """The mean over the rows that have the step, [F]; 0 where none has."""
    rows = np.where(step.alive[:, np.newaxis], v, 0.0)
    mean: Array = rows.sum(axis=0) / max(int(step.alive.sum()), 1)
    return mean
