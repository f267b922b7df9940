"""The truth in NumPy float64: every formula of the library, written to be read and not to be fast.

The kernels are tested against these functions, on outputs and on all gradients; the functions themselves are
tested by finite differences and against PyTorch. Names, shapes and the order of arguments are the library's.
Everything is pure: nothing is written in place, and a gradient is returned rather than accumulated.

A recurrent cell is one `CellSpec`: what happens between the matrix products, forward and backward. All cells
run in one time loop (`recurrent_forward`), and that in layers and directions (`recurrent`).
"""

from lstmx.reference.activations import ACTIVATIONS, Activation, sigmoid, softmax, softmax_backward
from lstmx.reference.cells import LSTM, CellOptions, CellSpec, LstmCell
from lstmx.reference.connection import connect
from lstmx.reference.embedding import embedding_backward, embedding_forward
from lstmx.reference.gru import GRU, RNN, GruCell, RnnCell
from lstmx.reference.linear import LinearGradients, linear_backward, linear_forward
from lstmx.reference.loop import Gradients, Run, Tape, recurrent_backward, recurrent_forward, trace
from lstmx.reference.losses import cross_entropy, huber, mae, mse
from lstmx.reference.lstm import LstmGradients, lstm_backward, lstm_forward
from lstmx.reference.norm import (
    BatchNormResult,
    NormGradients,
    batch_norm_backward,
    batch_norm_forward,
    batch_norm_inference,
    layer_norm_backward,
    layer_norm_forward,
)
from lstmx.reference.norm_cells import (
    BatchNormLstmCell,
    LayerNormLstmCell,
    initial_statistics,
    running_statistics,
)
from lstmx.reference.optim import adam_step, clip_scale, global_norm, sgd_step
from lstmx.reference.stack import Backward, lstm, recurrent

__all__ = [
    "ACTIVATIONS",
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "Backward",
    "BatchNormLstmCell",
    "BatchNormResult",
    "CellOptions",
    "CellSpec",
    "Gradients",
    "GruCell",
    "LayerNormLstmCell",
    "LinearGradients",
    "LstmCell",
    "LstmGradients",
    "NormGradients",
    "RnnCell",
    "Run",
    "Tape",
    "adam_step",
    "batch_norm_backward",
    "batch_norm_forward",
    "batch_norm_inference",
    "clip_scale",
    "connect",
    "cross_entropy",
    "embedding_backward",
    "embedding_forward",
    "global_norm",
    "huber",
    "initial_statistics",
    "layer_norm_backward",
    "layer_norm_forward",
    "linear_backward",
    "linear_forward",
    "lstm",
    "lstm_backward",
    "lstm_forward",
    "mae",
    "mse",
    "recurrent",
    "recurrent_backward",
    "recurrent_forward",
    "running_statistics",
    "sgd_step",
    "sigmoid",
    "softmax",
    "softmax_backward",
    "trace",
]
