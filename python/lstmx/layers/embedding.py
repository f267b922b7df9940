"""Embedding: from integers (words, characters, categories) to the rows of a trained table.

The only layer that reads integers, so that it comes first in a model. It copies rows; the gradients of a row
that occurs several times are summed in float64, in the order of occurrence.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lstmx._checks import FloatArray, check_int
from lstmx._inputs import Spans, as_floats, check_dtype
from lstmx.layers.arena import Parameter, Shape
from lstmx.layers.initial import fill_normal
from lstmx.layers.module import Backward, Module


class Embedding(Module):
    """`y = weight[x]`: a row of the table for each integer.

    Args:
        num_embeddings: Rows of the table, N.
        embedding_dim: Width of a row, E.
        padding_idx: A row that starts at 0 and whose gradient is 0, for integers that stand for nothing; from
            -N to N - 1, negative ones counting from the end as in PyTorch.
        dtype: Of the table and y: "float32" or "float64".
        rng: Seed or generator for the initial values: `np.random.default_rng(rng)`.

    Parameters: `weight [N, E]`, at first N(0, 1).

    Call: `y, None = layer(x)`, x integers from 0 to N - 1 of any shape `[...]`, y of shape `[..., E]`. A
    batch of sequences is `[T, B]` or `[B, T]`, as the layers behind read it. Integers have no gradient: the
    dx of backward is None.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Embedding.html.

    Raises:
        TypeError, ValueError: An argument is of the wrong kind or out of range.

    Example:
        >>> import lstmx
        >>> layer = lstmx.Embedding(5, 2, padding_idx=0, rng=0)
        >>> layer([[3, 0, 1]])[0].shape
        (1, 3, 2)
        >>> layer([0])[0].tolist()
        [[0.0, 0.0]]
        >>> model = lstmx.Sequential(lstmx.Embedding(100, 8), lstmx.LSTM(8, 16, batch_first=True))
        >>> model([[7, 2, 99], [0, 0, 1]], lengths=[3, 1])[0].shape
        (2, 3, 16)
    """

    output_size: int
    dtype: np.dtype[Any]
    _reads_integers = True

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        dtype: str = "float32",
        rng: Any = None,
    ) -> None:
        self._configure(num_embeddings, embedding_dim, padding_idx, dtype=dtype)
        self._create(rng)

    def _configure(
        self, num_embeddings: Any, embedding_dim: Any, padding_idx: Any = None, *, dtype: Any = "float32"
    ) -> None:
        self.num_embeddings = check_int("num_embeddings", num_embeddings, minimum=1)
        self.output_size = check_int("embedding_dim", embedding_dim, minimum=1)
        self.padding_idx: int | None = None
        if padding_idx is not None:
            rows, index = self.num_embeddings, check_int("padding_idx", padding_idx)
            if not -rows <= index < rows:
                raise ValueError(f"padding_idx: expected {-rows} to {rows - 1}, got {index}")
            self.padding_idx = index % rows
        self.dtype = check_dtype("dtype", dtype)

    @property
    def embedding_dim(self) -> int:
        """Width of y."""
        return self.output_size

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the class under "type"."""
        return {
            "type": "Embedding",
            "num_embeddings": self.num_embeddings,
            "embedding_dim": self.output_size,
            "padding_idx": self.padding_idx,
            "dtype": self.dtype.name,
        }

    def _parameters(self) -> Iterator[Parameter]:
        yield Parameter("weight", (self.num_embeddings, self.output_size), False)

    def _initialise(self, rng: np.random.Generator) -> None:
        with self.editing() as params:
            fill_normal(params["weight"], rng)
            if self.padding_idx is not None:
                params["weight"][self.padding_idx] = 0

    def _as_x(self, name: str, x: Any) -> NDArray[np.intp]:
        try:
            array = np.asarray(x)
        except ValueError as error:
            raise TypeError(f"{name}: expected integers, got {type(x).__name__} ({error})") from None
        if array.dtype.kind not in "iu" and array.size:
            raise TypeError(f"{name}: expected integers, got dtype {array.dtype}")
        wrong = (array < 0) | (array >= self.num_embeddings)
        if wrong.any():
            raise ValueError(f"{name}: expected 0 to {self.num_embeddings - 1}, got {array[wrong][0]}")
        return array.astype(np.intp, copy=False)

    def _output_shape(self, name: str, shape: Shape) -> Shape:
        return (*shape, self.output_size)

    def _infer(self, x: Any, state: None, spans: Spans | None) -> tuple[FloatArray, None]:
        return self._params["weight"].take(x, axis=0), None

    def _train(self, x: Any, state: None, spans: Spans | None) -> tuple[FloatArray, None, Backward]:
        return self._infer(x, None, None)[0], None, _EmbeddingBackward(self, x)


class _EmbeddingBackward(Backward):
    __slots__ = ("_layer", "_shape")

    def __init__(self, layer: Embedding, x: NDArray[np.intp]) -> None:
        super().__init__(x)
        self._layer = layer
        self._shape = x.shape

    def _check_dy(self, name: str, dy: Any) -> FloatArray:
        return as_floats(name, dy, (*self._shape, self._layer.output_size), self._layer.dtype)

    def _run(
        self, dy: FloatArray | None, dstate: None, need_dx: bool, need_dstate: bool
    ) -> tuple[None, None]:
        assert dy is not None
        x, layer = self._take()[0].ravel(), self._layer
        order = np.argsort(x, kind="stable")
        if layer.padding_idx is not None:
            order = order[x[order] != layer.padding_idx]
        rows, starts = np.unique(x[order], return_index=True)
        if rows.size:
            terms = dy.reshape(-1, layer.output_size)[order].astype(np.float64)
            sums = np.add.reduceat(terms, starts, axis=0)
            layer.grads["weight"][rows] += sums.astype(dy.dtype)
        return None, None
