"""RNN: the plain recurrent network of Elman, a layer like `LSTM` with the simplest cell.

All that is not the cell is in `recurrent.py`. It has no c. To the core it is a cell with one gate of four, so
that it costs about as much as an LSTM of the same width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lstmx import _core
from lstmx._checks import check_choice
from lstmx.layers.recurrent import Recurrent, check_zoneout


class RNN(Recurrent):
    """Plain recurrent units: one or several layers, one or both directions, PyTorch's names and equations.

    Per step, with f the `nonlinearity`::

        h' = f(W_ih x + b_ih + W_hh h + b_hh)

    Args:
        input_size: Width I of x.
        hidden_size: Width H of the hidden state; or several, H_k of each layer.
        num_layers: As the arguments that follow, see `LSTM`, whose they are.
        nonlinearity: f, "tanh" or "relu".
        bias: Whether there are biases, two a layer as in PyTorch.
        batch_first: Whether x and y are `[B, T, *]` instead of `[T, B, *]`. The state is `[L*D, B, H]` in
            both cases.
        dropout: Probability of `Dropout` on the output of every layer but the last, in `forward` only.
        bidirectional: Whether each layer also runs backwards in time (D = 2).
        reverse: Whether the one direction that there is runs from each row's end to its start.
        merge: What a layer makes of its two directions: "concat" or "sum".
        connection: What connects every layer after the first with its input: None, "residual", "highway".
        learn_initial_state: Whether h begins as a parameter, where a call has no `state`.
        zoneout: Probability that a unit of h stays at a step what it was before: drawn in `forward`, the
            expectation in calls of the layer.
        recurrent_dropout: Probability of zeroing, in `forward` only, each element of h where it enters
            `weight_hh`, one mask for all steps.
        weight_dropout: Probability of zeroing, in `forward` only, each element of the `weight_hh`.
        init: How weights start, "pytorch" or "glorot".
        checkpoint_steps: None, or the number of steps between saved states in training.
        dtype: Of parameters, x, y and states: "float32" or "float64".
        precision: How exact products have to be, or None, as the process or thread says: see `LSTM`.
        engine: What makes products: "auto", "fma" or "tiles".
        rng: Seed or generator of the initial values and of dropout: `np.random.default_rng(rng)`.

    Parameters of layer k: `weight_ih_lk [H, in]`, `weight_hh_lk [H, H]`, `bias_ih_lk [H]`, `bias_hh_lk [H]`,
    and if learnt `h_0_lk [H]`; with the suffix `_reverse` those of the backward direction; of connections as
    in `LSTM`.

    Call: `y, h_n = rnn(x, state=None, *, lengths=None, resets=None)`, `y, h_n, backward = rnn.forward(...)`
    and `dx, dh_0 = backward(dy, dh_n)`, all as in `GRU`: the state is one array h, `[L*D, B, H]` (unbatched
    `[L*D, H]`); where layers differ in width, a tuple of one array `[D, B, H_k]` a layer.

    Source: Elman 1990, "Finding Structure in Time";
    https://docs.pytorch.org/docs/stable/generated/torch.nn.RNN.html; those of the other arguments are named
    in `LSTM`.

    Raises:
        TypeError, ValueError: An argument is of the wrong kind or out of range.

    Example:
        >>> import lstmx, numpy as np
        >>> rnn = lstmx.RNN(3, 8, num_layers=2, nonlinearity="relu", rng=0)
        >>> x = np.zeros((20, 4, 3), np.float32)
        >>> y, h_n = rnn(x)
        >>> y.shape, h_n.shape
        ((20, 4, 8), (2, 4, 8))
        >>> y, h_n, backward = rnn.forward(x, h_n)
        >>> dx, dh_0 = backward(np.ones_like(y))
        >>> dx.shape, dh_0.shape, rnn.grads["weight_hh_l1"].shape
        ((20, 4, 3), (2, 4, 8), (8, 8))
    """

    _GATES = 1
    _STATES = ("h",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        reverse: bool = False,
        merge: str = "concat",
        connection: str | None = None,
        learn_initial_state: bool = False,
        zoneout: float = 0.0,
        recurrent_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        init: str = "pytorch",
        checkpoint_steps: int | None = None,
        dtype: str = "float32",
        precision: str | None = None,
        engine: str = "auto",
        rng: Any = None,
    ) -> None:
        self._configure(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            nonlinearity=nonlinearity,
            reverse=reverse,
            merge=merge,
            connection=connection,
            learn_initial_state=learn_initial_state,
            zoneout=zoneout,
            recurrent_dropout=recurrent_dropout,
            weight_dropout=weight_dropout,
            init=init,
            checkpoint_steps=checkpoint_steps,
            dtype=dtype,
            precision=precision,
            engine=engine,
        )
        self._warn_of_dropout()
        self._create(rng)

    def _configure(self, *common: Any, nonlinearity: Any = "tanh", zoneout: Any = 0.0, **more: Any) -> None:
        super()._configure(*common, **more)
        self.nonlinearity = check_choice("nonlinearity", nonlinearity, ("tanh", "relu"))
        self.zoneout = check_zoneout("zoneout", zoneout)
        self._finish_configuration(self.zoneout, 0.0)

    def _plan(self, width: int, hidden: int) -> _core.LstmPlan:
        return self._new_plan(width, hidden, cell="rnn", output=(self.nonlinearity, 0.0, 0.0))
