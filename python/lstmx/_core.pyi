from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Array = NDArray[Any]
_Segments = NDArray[np.int64]
_Decays = NDArray[np.float64]
_Lengths = NDArray[np.int64]
_Resets = NDArray[np.bool_]

def compiled_targets() -> list[str]: ...
def supported_targets() -> list[str]: ...
def active_target() -> str: ...
def set_active_target(name: str) -> None: ...
def get_float32_precision() -> str: ...
def set_float32_precision(precision: str) -> None: ...
def get_thread_products() -> tuple[str | None, str]: ...
def set_thread_products(precision: str | None, engine: str) -> None: ...
def has_openmp() -> bool: ...
def get_num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def sgd_step(
    params: _Array,
    grads: _Array,
    velocity: _Array | None,
    segments: _Segments,
    decays: _Decays,
    lr: float,
    momentum: float,
    nesterov: bool,
    grad_scale: float,
) -> None: ...
def adam_step(
    params: _Array,
    grads: _Array,
    m: _Array,
    v: _Array,
    segments: _Segments,
    decays: _Decays,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
    decoupled: bool,
    grad_scale: float,
) -> None: ...
def sum_of_squares(x: _Array) -> float: ...
def squared_error(pred: object, target: object, divisor: str) -> tuple[float, _Array] | None: ...

_Function = tuple[str, float, float]
_Statistics = Sequence[_Array]

class LstmPlan:
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        cell: str = ...,
        output_size: int | None = ...,
        coupled: bool = ...,
        peepholes: bool = ...,
        layer_norm: bool = ...,
        batch_norm: bool = ...,
        eps: float = ...,
        gate_clip: float = ...,
        cell_clip: float = ...,
        gate: _Function = ...,
        candidate: _Function = ...,
        output: _Function = ...,
        precision: str | None = ...,
        engine: str = ...,
    ) -> None: ...
    def products(self, B: int) -> tuple[str, int]: ...
    def call(
        self,
        version: int,
        weight_ih: _Array,
        weight_hh: _Array,
        bias_ih: _Array | None,
        bias_hh: _Array | None,
        x: object,
        state: object | None,
        batch_first: bool,
        training: bool,
        checkpoint_steps: int,
        threads: int,
    ) -> tuple[_Array, tuple[_Array, _Array], LstmTape | None] | None: ...
    def forward(
        self,
        version: int,
        weight_ih: _Array,
        weight_hh: _Array,
        bias_ih: _Array | None,
        bias_hh: _Array | None,
        x: _Array,
        h_0: _Array | None,
        c_0: _Array | None,
        lengths: _Lengths | None,
        resets: _Resets | None,
        y: _Array,
        h_n: _Array,
        c_n: _Array,
        training: bool,
        checkpoint_steps: int,
        threads: int,
        weight_ch: _Array | None = ...,
        weight_hr: _Array | None = ...,
        cells: _Array | None = ...,
        gates: _Array | None = ...,
        keep_h: _Array | None = ...,
        keep_c: _Array | None = ...,
        h_mask: _Array | None = ...,
        gain_ih: _Array | None = ...,
        gain_hh: _Array | None = ...,
        gain_c: _Array | None = ...,
        bias_c: _Array | None = ...,
        running: _Statistics | None = ...,
        made: _Statistics | None = ...,
    ) -> LstmTape | None: ...

class LstmTape:
    def call(
        self,
        x: _Array,
        y: _Array,
        h_0: _Array | None,
        dy: _Array | None,
        dh_n: _Array | None,
        dc_n: _Array | None,
        batch_first: bool,
        need_dx: bool,
        need_dstate: bool,
        d_weight_ih: _Array,
        d_weight_hh: _Array,
        d_bias_ih: _Array | None,
        d_bias_hh: _Array | None,
        threads: int,
    ) -> tuple[_Array | None, tuple[_Array, _Array] | None]: ...
    def backward(
        self,
        x: _Array,
        y: _Array,
        h_0: _Array | None,
        dy: _Array | None,
        dh_n: _Array | None,
        dc_n: _Array | None,
        dx: _Array | None,
        dh_0: _Array | None,
        dc_0: _Array | None,
        d_weight_ih: _Array,
        d_weight_hh: _Array,
        d_bias_ih: _Array | None,
        d_bias_hh: _Array | None,
        threads: int,
        d_weight_ch: _Array | None = ...,
        d_weight_hr: _Array | None = ...,
        dcells: _Array | None = ...,
        keep_h: _Array | None = ...,
        keep_c: _Array | None = ...,
        h_mask: _Array | None = ...,
        d_gain_ih: _Array | None = ...,
        d_gain_hh: _Array | None = ...,
        d_gain_c: _Array | None = ...,
        d_bias_c: _Array | None = ...,
        running: _Statistics | None = ...,
    ) -> None: ...

class LinearPlan:
    def __init__(
        self, in_features: int, out_features: int, *, precision: str | None = ..., engine: str = ...
    ) -> None: ...
    def products(self, N: int) -> tuple[str, int]: ...
    def forward(
        self,
        version: int,
        weight: _Array,
        bias: _Array | None,
        x: _Array,
        y: _Array,
        training: bool,
        threads: int,
    ) -> LinearTape | None: ...
    def call(
        self, version: int, weight: _Array, bias: _Array | None, x: _Array, training: bool, threads: int
    ) -> tuple[_Array, LinearTape | None] | None: ...

class LinearTape:
    def call(
        self,
        x: _Array,
        dy: _Array,
        need_dx: bool,
        d_weight: _Array,
        d_bias: _Array | None,
        threads: int,
    ) -> _Array | None: ...
    def backward(
        self,
        x: _Array,
        dy: _Array,
        dx: _Array | None,
        d_weight: _Array,
        d_bias: _Array | None,
        threads: int,
    ) -> None: ...

# the same in float64; not related at run time, but what takes one takes the other
class Exchange: ...

def dlpack_exchange(kind: type) -> Exchange | None: ...
def numpy_exchange() -> Exchange: ...

class TensorLstm:
    def __init__(self, exchange: Exchange) -> None: ...
    def forward(
        self, tensors: tuple[object, ...], batch_sizes: object | None, reverse: bool, record: bool
    ) -> tuple[Any, Any, Any, TensorTape | None] | int: ...

class TensorTape:
    def backward(
        self, tensors: tuple[object, ...], need_dx: bool, need_dstate: bool
    ) -> tuple[Any, ...] | int: ...

class LstmPlan64(LstmPlan): ...
class LstmTape64(LstmTape): ...
class TensorTape64(TensorTape): ...
class LinearPlan64(LinearPlan): ...
class LinearTape64(LinearTape): ...
