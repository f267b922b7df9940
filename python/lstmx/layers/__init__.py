"""The layers of lstmx: LSTM, GRU, RNN, Linear, Activation, Softmax, Embedding, LayerNorm, BatchNorm, Dropout,
LastStep, Residual, Sequential, and what they have in common.

Every layer is called the same way: `y, state = layer(x, state)` to infer, `y, state, backward =
layer.forward(x, state)` to train. Losses, optimisers and the training loop are elsewhere.
"""

from lstmx.layers.activation import Activation, Softmax
from lstmx.layers.arena import Arena, Entry
from lstmx.layers.batchnorm import BatchNorm
from lstmx.layers.config import from_config, parameter_shapes
from lstmx.layers.dropout import Dropout
from lstmx.layers.embedding import Embedding
from lstmx.layers.folding import fold_batch_norm
from lstmx.layers.gru import GRU
from lstmx.layers.laststep import LastStep
from lstmx.layers.layernorm import LayerNorm
from lstmx.layers.linear import Linear
from lstmx.layers.lstm import LSTM
from lstmx.layers.module import Backward, IncompatibleKeys, Module
from lstmx.layers.residual import Residual
from lstmx.layers.rnn import RNN
from lstmx.layers.sequential import Sequential
from lstmx.layers.stream import Stream

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "Arena",
    "Backward",
    "BatchNorm",
    "Dropout",
    "Embedding",
    "Entry",
    "IncompatibleKeys",
    "LastStep",
    "LayerNorm",
    "Linear",
    "Module",
    "Residual",
    "Sequential",
    "Softmax",
    "Stream",
    "fold_batch_norm",
    "from_config",
    "parameter_shapes",
]
