r"""The neural probabilistic language model of Bengio et al.: a perceptron over the last N - 1 words.

With :math:`x = [C(w_{t-N+2}); \dots; C(w_t)]` the concatenated embeddings of the words that predict :math:`w_{t+1}`, the
model is

.. math:: y = b + W x + U \tanh(d + H x)

The features are :math:`[\tanh(d + H x); x]`, so that the output layer's matrix is :math:`[U, W]`; without direct (skip)
connections, W = 0, the second part is absent. Before the first word stand zeros.

References:
    Bengio, Ducharme, Vincent and Jauvin, A Neural Probabilistic Language Model, JMLR 3, 2003, equation 1.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from lit_gen.core.errors import require
from lit_gen.text.cache import TensorCache


class FeedForwardFeatures(nn.Module):
    """Perceptron over the embeddings of the last N - 1 words.

    Args:
        embedding_dim: D, length of an embedding.
        order: N, the predicted word counted, as in an n-gram.
        hidden: number of hidden units.
        layers: hidden layers; the paper has one.
        skip: direct connections from the embeddings to the output layer.
        dropout: of hidden units.

    Shape:
        x ``[R, T, D]`` -> features ``[R, T, hidden]``, with skip ``[R, T, hidden + (N - 1) D]``.

    Raises:
        UsageError: an order below 2, a size below 1, or a dropout outside [0, 1).
    """

    def __init__(
        self,
        embedding_dim: int,
        order: int = 5,
        hidden: int = 128,
        layers: int = 1,
        skip: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        require(order >= 2, "order", order, "2 or more")
        require(hidden >= 1, "hidden", hidden, "1 or more")
        require(layers >= 1, "layers", layers, "1 or more")
        require(0 <= dropout < 1, "dropout", dropout, "0 <= dropout < 1")
        self.words, self.skip = order - 1, skip
        context = self.words * embedding_dim
        self.width = hidden + (context if skip else 0)
        sizes = [context] + [hidden] * layers
        steps = [(nn.Linear(n, m), nn.Tanh(), nn.Dropout(dropout)) for n, m in pairwise(sizes)]
        self.perceptron = nn.Sequential(*(part for step in steps for part in step))

    def forward(self, x: Tensor, cache: TensorCache | None = None) -> tuple[Tensor, TensorCache]:
        """Features of T more positions, and the last N - 2 embeddings."""
        time = x.shape[1]
        (before,) = (x.new_zeros(x.shape[0], self.words - 1, x.shape[2]),) if cache is None else cache
        read = torch.cat((before.to(x.dtype), x), dim=1)  # [R, N - 2 + T, D]
        # concatenated by slices: unfold would not copy here, but in its backward pass and in every matrix product
        context = torch.cat([read[:, k : k + time] for k in range(self.words)], dim=2)  # [R, T, (N - 1) D]
        hidden = self.perceptron(context)
        features = torch.cat((hidden, context), dim=2) if self.skip else hidden
        return features, TensorCache(read[:, time:])
