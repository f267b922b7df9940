"""LSTM and LSTMCell: PyTorch's modules with lstmx's operator in the place of PyTorch's.

Parameters, initial values, most checks, copies and text are inherited from PyTorch. Here are the calls:
shapes, states, packed sequences, the order of layers and directions, dropout between them.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lstmx.torch.operators import NOT_PACKED, recur, recur_directly

_State: TypeAlias = tuple[Tensor, Tensor]
_NONE = None, None


class LSTM(nn.RNNBase):
    """`torch.nn.LSTM`, computed by lstmx: the same arguments, parameters, results and gradients.

    It is an `nn.RNNBase` as `torch.nn.LSTM` is, with the same `state_dict` (either loads the other's) and,
    after the same `torch.manual_seed`, the same initial values and dropout.

    Args:
        input_size: Width I of the input.
        hidden_size: Width H of the hidden state.
        num_layers: Layers L; each reads the output of the one before.
        bias: Whether there are biases, two a layer.
        batch_first: Whether input and output are `[B, T, *]` instead of `[T, B, *]`.
        dropout: Probability of dropout on the output of every layer but the last, in training mode.
        bidirectional: Whether each layer also runs backwards in time (D = 2).
        proj_size: Width P of the output h where it is a projection, less than H; 0: there is none, P is H.
        device: None or the CPU.
        dtype: None, `torch.float32` or `torch.float64`.

    Call: `output, (h_n, c_n) = lstm(input, hx=None)`, with input `[T, B, I]`, `[B, T, I]` if batch_first, an
    unbatched `[T, I]` or a `PackedSequence`; hx None for zeros or a pair (h_0, c_0), `[L*D, B, P]` and
    `[L*D, B, H]` (unbatched without B); the output `[T, B, D*P]` accordingly.

    Threads are those of `lstmx.set_num_threads`, not of `torch.set_num_threads`, and products as exact as
    `lstmx.set_float32_precision` says, not `torch.set_float32_matmul_precision`. Under `torch.autocast` a
    module of float32 computes in float32.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html.

    Raises:
        TypeError, ValueError: An argument is of the wrong kind or out of range, or input is of another dtype
            than the parameters (as in `torch.nn.LSTM`).
        RuntimeError: Input or states are of a wrong shape (as in `torch.nn.LSTM`), or not float32 or float64
            on the CPU as the parameters are.

    Example:
        >>> import torch, lstmx.torch
        >>> lstm = lstmx.torch.LSTM(3, 8, num_layers=2, batch_first=True)
        >>> output, (h_n, c_n) = lstm(torch.zeros(4, 20, 3))
        >>> output.shape, h_n.shape
        (torch.Size([4, 20, 8]), torch.Size([2, 4, 8]))
        >>> output.sum().backward()
        >>> lstm.weight_hh_l1.grad.shape
        torch.Size([32, 8])
        >>> torch.nn.LSTM(3, 8, 2).load_state_dict(lstm.state_dict())
        <All keys matched successfully>
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _check_kind(device, dtype)
        options = bias, batch_first, dropout, bidirectional, proj_size
        super().__init__("LSTM", input_size, hidden_size, num_layers, *options, device, dtype)

    def forward(self, input: Tensor | PackedSequence, hx: _State | None = None) -> tuple[Any, _State]:
        """Return `(output, (h_n, c_n))`: see the class."""
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx)
        if input.dim() == 3 and not self.batch_first:
            done = self._run_unchecked(input, hx, NOT_PACKED)
            if done is not None:
                return done
        if input.dim() not in (2, 3):
            raise ValueError(f"input: expected 2 or 3 dimensions, got {input.dim()}")
        batched, batch_axis = input.dim() == 3, 0 if self.batch_first else 1
        x = input if batched else input.unsqueeze(batch_axis)
        if hx is not None:
            _check_pair(hx)
            if hx[0].dim() != input.dim() or hx[1].dim() != input.dim():
                got = hx[0].dim(), hx[1].dim()
                raise RuntimeError(f"hx: expected {input.dim()} dimensions, as the input has, got {got}")
            hx = hx if batched else (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
        self._check_call(x, hx, None)
        output, state = self._run_layers(x.transpose(0, 1) if self.batch_first else x, hx, NOT_PACKED)
        if self.batch_first:
            output = output.transpose(0, 1)
        if batched:
            return output, state
        return output.squeeze(batch_axis), (state[0].squeeze(1), state[1].squeeze(1))

    def _forward_packed(self, input: PackedSequence, hx: _State | None) -> tuple[PackedSequence, _State]:
        data, *packing = input
        done = self._run_unchecked(data, hx, packing)
        if done is None:
            self._check_call(data, hx, input.batch_sizes)
            done = self._run_layers(data, hx, packing)
        output, state = done
        return input._replace(data=output), state

    def _run_unchecked(self, x: Tensor, hx: Any, packing: Any) -> tuple[Tensor, _State] | None:
        """The usual case, a single layer in one direction, or None where the core does not take it as it is.

        Then the checks that follow refuse, in PyTorch's words, what is wrong.
        """
        states = _NONE if hx is None else hx
        if len(self._all_weights) != 1 or type(states) is not tuple or len(states) != 2:
            return None
        done = recur_directly(x, states, self._weights(0), packing, False)
        if done is None:
            return None
        y, h_n, c_n = done
        return y, (h_n, c_n)

    def _check_call(self, x: Tensor, hx: _State | None, batch_sizes: Tensor | None) -> None:
        self.check_input(x, batch_sizes)
        if hx is not None:
            _check_pair(hx)
            h_shape = self.get_expected_hidden_size(x, batch_sizes)
            c_shape = (*h_shape[:2], self.hidden_size)
            self.check_hidden_size(hx[0], h_shape, "hx[0]: expected size {}, got {}")
            self.check_hidden_size(hx[1], c_shape, "hx[1]: expected size {}, got {}")
        if batch_sizes is None and x.shape[1 if self.batch_first else 0] == 0:
            raise RuntimeError(f"input: expected at least one time step, got shape {tuple(x.shape)}")

    def _run_layers(self, x: Tensor, hx: _State | None, packing: Any) -> tuple[Tensor, _State]:
        """Return y and the final states for x [T,B,I] or packed data [N,I]."""
        ways, cells = 2 if self.bidirectional else 1, len(self._all_weights)
        states = [_NONE] * cells if hx is None else list(zip(*map(_split, hx), strict=True))
        h_n, c_n = [], []
        for layer in range(self.num_layers):
            ys = []
            for way in range(ways):
                k = layer * ways + way
                y, h, c = recur(x, states[k], self._weights(k), packing, way == 1)
                ys.append(y)
                h_n.append(h)
                c_n.append(c)
            x = _join(ys, -1)
            if self.dropout and self.training and layer < self.num_layers - 1:
                x = nn.functional.dropout(x, self.dropout)
        return x, (_join(h_n, 0), _join(c_n, 0))

    def _weights(self, k: int) -> list[Tensor | None]:
        """The weights of a layer and direction; None: there is none."""
        own = self._parameters  # getattr finds them there, too, but last
        weights = [own[name] if name in own else getattr(self, name) for name in self._all_weights[k]]
        if not self.bias:
            weights[2:2] = _NONE
        return weights if self.proj_size else [*weights, None]


class LSTMCell(nn.LSTMCell):
    """`torch.nn.LSTMCell`, computed by lstmx: the same arguments, parameters, results and gradients.

    A loop over a sequence's steps is much slower than `LSTM` over the sequence.

    Args:
        input_size: Width I of the input.
        hidden_size: Width H of the hidden state.
        bias: Whether there are biases.
        device: None or the CPU.
        dtype: None, `torch.float32` or `torch.float64`.

    Call: `h_1, c_1 = cell(input, hx=None)`, with input `[B, I]` or `[I]`; hx None for zeros or a pair
    (h_0, c_0), each `[B, H]` or `[H]`, as the results are.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTMCell.html.

    Raises:
        ValueError: Input or states of a wrong number of dimensions.
        RuntimeError: Input or states of a wrong shape, or not float32 or float64 on the CPU as the
            parameters are.

    Example:
        >>> import torch, lstmx.torch
        >>> h, c = lstmx.torch.LSTMCell(3, 8)(torch.zeros(4, 3))
        >>> h.shape, c.shape
        (torch.Size([4, 8]), torch.Size([4, 8]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _check_kind(device, dtype)
        super().__init__(input_size, hidden_size, bias, device, dtype)

    def forward(self, input: Tensor, hx: _State | None = None) -> _State:
        """Return `(h_1, c_1)`: see the class."""
        if hx is not None:
            _check_pair(hx)
        for name, tensor in zip(("input", "hx[0]", "hx[1]"), (input, *(hx or ())), strict=False):
            if tensor.dim() not in (1, 2):
                raise ValueError(f"{name}: expected 1 or 2 dimensions, got {tensor.dim()}")
        x = input.reshape(1, -1, input.shape[-1])
        if x.shape[2] != self.input_size:
            raise RuntimeError(f"input: expected width {self.input_size}, got {x.shape[2]}")
        shape = (*input.shape[:-1], self.hidden_size)
        state = (1, x.shape[1], self.hidden_size)
        for name, tensor in zip(("hx[0]", "hx[1]"), hx or (), strict=False):
            if tensor.shape != shape:
                raise RuntimeError(f"{name}: expected shape {shape}, got {tuple(tensor.shape)}")
        h_0, c_0 = (None, None) if hx is None else (hx[0].reshape(state), hx[1].reshape(state))
        weights = self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, None
        _, h_1, c_1 = recur(x, (h_0, c_0), weights)
        return h_1.reshape(shape), c_1.reshape(shape)


def _check_kind(device: Any, dtype: torch.dtype | None) -> None:
    device = torch.get_default_device() if device is None else torch.device(device)
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if device.type != "cpu":
        raise ValueError(f"device: expected cpu, got {device}")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype: expected torch.float32 or torch.float64, got {dtype}")


def _check_pair(hx: Any) -> None:
    if not isinstance(hx, (tuple, list)):
        raise TypeError(f"hx: expected a pair (h_0, c_0), got {type(hx).__name__}")
    if len(hx) != 2:
        raise RuntimeError(f"hx: expected a pair (h_0, c_0), got {len(hx)} items")


def _split(states: Tensor) -> Any:
    """The states [L*D,B,H] as one [1,B,H] each; a single one without a view of it."""
    return torch.chunk(states, len(states)) if len(states) > 1 else (states,)


def _join(parts: list[Tensor], axis: int) -> Tensor:
    return torch.cat(parts, axis) if len(parts) > 1 else parts[0]
