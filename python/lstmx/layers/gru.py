"""GRU: the gated recurrent unit, a layer like `LSTM` with another cell.

All that is not the cell is in `recurrent.py`. To the core a GRU has a c, which is its h; to the caller its
state is h alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lstmx import _core
from lstmx.layers.recurrent import Recurrent, check_zoneout


class GRU(Recurrent):
    """Gated recurrent units: one or several layers, one or both directions, PyTorch's names and equations.

    Per step, with gates in the order r, z, n and sigma the logistic function::

        r = sigma(W_ir x + b_ir + W_hr h + b_hr)        h' = (1 - z) * n + z * h
        z = sigma(W_iz x + b_iz + W_hz h + b_hz)
        n =  tanh(W_in x + b_in + r * (W_hn h + b_hn))

    Args:
        input_size: Width I of x.
        hidden_size: Width H of the hidden state; or several, H_k of each layer.
        num_layers: As the arguments that follow, see `LSTM`, whose they are.
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
            `weight_hh`, one mask for all steps. The h in h' is left alone.
        weight_dropout: Probability of zeroing, in `forward` only, each element of the `weight_hh`.
        init: How weights start, "pytorch" or "glorot", whose matrices are those of all three gates.
        checkpoint_steps: None, or the number of steps between saved states in training.
        dtype: Of parameters, x, y and states: "float32" or "float64".
        precision: How exact products have to be, or None, as the process or thread says: see `LSTM`.
        engine: What makes products: "auto", "fma" or "tiles".
        rng: Seed or generator of the initial values and of dropout: `np.random.default_rng(rng)`.

    Parameters of layer k: `weight_ih_lk [3H, in]`, `weight_hh_lk [3H, H]`, `bias_ih_lk [3H]`, `bias_hh_lk
    [3H]`, and if learnt `h_0_lk [H]`; with the suffix `_reverse` those of the backward direction; of
    connections as in `LSTM`.

    Call: `y, h_n = gru(x, state=None, *, lengths=None, resets=None)`, all as in `LSTM` but for the state,
    which is one array h, `[L*D, B, H]` (unbatched `[L*D, H]`); where layers differ in width, a tuple of one
    array `[D, B, H_k]` a layer. `y, h_n, backward = gru.forward(x, state, *, lengths=None, resets=None)`
    trains, and `dx, dh_0 = backward(dy, dh_n)`.

    Source: Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder for Statistical
    Machine Translation"; https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html, which multiplies
    by r after the product with W_hn, as cuDNN does; those of the other arguments are named in `LSTM`.

    Raises:
        TypeError, ValueError: An argument is of the wrong kind or out of range.

    Example:
        >>> import lstmx, numpy as np
        >>> gru = lstmx.GRU(3, 8, num_layers=2, batch_first=True, rng=0)
        >>> x = np.zeros((4, 20, 3), np.float32)
        >>> y, h_n = gru(x)
        >>> y.shape, h_n.shape
        ((4, 20, 8), (2, 4, 8))
        >>> y, h_n, backward = gru.forward(x, h_n)
        >>> dx, dh_0 = backward(np.ones_like(y))
        >>> dx.shape, dh_0.shape, gru.grads["weight_hh_l1"].shape
        ((4, 20, 3), (2, 4, 8), (24, 8))
    """

    _GATES = 3
    _STATES = ("h",)
    _C_IS_H = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
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

    def _configure(self, *common: Any, zoneout: Any = 0.0, **more: Any) -> None:
        super()._configure(*common, **more)
        self.zoneout = check_zoneout("zoneout", zoneout)
        self._finish_configuration(self.zoneout, 0.0)

    def _plan(self, width: int, hidden: int) -> _core.LstmPlan:
        return self._new_plan(width, hidden, cell="gru")
