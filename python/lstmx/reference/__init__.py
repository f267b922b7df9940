"""The truth in NumPy float64: every formula of the library, written to be read and not to be fast.

The kernels are tested against these functions, on outputs and on all gradients; the functions themselves are
tested by finite differences and against PyTorch. Names, shapes and the order of arguments are the library's.
Everything is pure: nothing is written in place, and a gradient is returned rather than accumulated.

A recurrent cell is one `CellSpec`: what happens between the matrix products, forward and backward.
"""

from lstmx.reference.cells import LSTM, CellSpec, sigmoid
from lstmx.reference.connection import connect
from lstmx.reference.embedding import embedding_backward, embedding_forward
from lstmx.reference.linear import LinearGradients, linear_backward, linear_forward
from lstmx.reference.losses import cross_entropy, huber, mae, mse
from lstmx.reference.lstm import LstmGradients, LstmTape, lstm_backward, lstm_forward
from lstmx.reference.norm import (
    BatchNormResult,
    NormGradients,
    batch_norm_backward,
    batch_norm_forward,
    batch_norm_inference,
    layer_norm_backward,
    layer_norm_forward,
)
from lstmx.reference.optim import adam_step, clip_scale, global_norm, sgd_step
from lstmx.reference.stack import lstm

__all__ = [
    "LSTM",
    "BatchNormResult",
    "CellSpec",
    "LinearGradients",
    "LstmGradients",
    "LstmTape",
    "NormGradients",
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
    "layer_norm_backward",
    "layer_norm_forward",
    "linear_backward",
    "linear_forward",
    "lstm",
    "lstm_backward",
    "lstm_forward",
    "mae",
    "mse",
    "sgd_step",
    "sigmoid",
]
