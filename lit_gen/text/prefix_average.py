r"""The average of what was read so far, uniform or weighted: the simplest feature layers of a language model.

The features at position t are a weighted mean of the embeddings :math:`x_1 .. x_t`,

.. math:: h_t = \sum_{i \le t} \alpha_{t,i} x_i, \qquad \alpha_{t,i} = \frac{e^{s_i}}{\sum_{j \le t} e^{s_j}}

with a score :math:`s_i` for each token: zero for the uniform average, so that :math:`\alpha_{t,i} = 1/t`, or learned,
:math:`s_i = v^\top \tanh(W x_i + b)`. Since no score depends on t, the largest score, the numerator and the denominator are
all that a position needs of those before it.

References:
    Bahdanau, Cho and Bengio, Neural Machine Translation by Jointly Learning to Align and Translate, ICLR 2015, arXiv:1409.0473
    (additive scores).
    Milakov and Gimelshein, Online Normalizer Calculation for Softmax, 2018, arXiv:1805.02867 (the running softmax).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lit_gen.core.errors import require
from lit_gen.text.cache import TensorCache


class PrefixAverage(nn.Module):
    """Average of the embeddings read so far. Order matters only in what belongs to the prefix.

    Args:
        embedding_dim: D, length of an embedding.
        weighting: "uniform", or "attention" for learned scores.
        hidden: length of the hidden layer that computes a score.

    Shape:
        x ``[R, T, D]`` -> features ``[R, T, D]``.

    Raises:
        UsageError: an unknown weighting, or a size below 1.
    """

    def __init__(
        self, embedding_dim: int, weighting: Literal["uniform", "attention"] = "uniform", hidden: int = 64
    ) -> None:
        super().__init__()
        require(weighting in ("uniform", "attention"), "weighting", weighting, "uniform, attention")
        require(hidden >= 1, "hidden", hidden, "1 or more")
        self.width = embedding_dim
        self.score: nn.Module | None = None
        if weighting == "attention":
            self.score = nn.Sequential(nn.Linear(embedding_dim, hidden), nn.Tanh(), nn.Linear(hidden, 1, bias=False))

    def forward(self, x: Tensor, cache: TensorCache | None = None) -> tuple[Tensor, TensorCache]:
        """Averages up to each of T more positions, and the largest score, numerator and denominator up to the last."""
        score = x.new_zeros(x.shape[:2]) if self.score is None else self.score(x).squeeze(-1)
        score = score.float()  # sums of many terms
        before = self.empty(x) if cache is None else cache
        largest, numerator, denominator = before  # [R], [R, D], [R]

        # [R, T]; subtracted from every score, it cancels: a constant for autograd
        running = torch.maximum(largest.unsqueeze(1), score.detach().cummax(1).values)
        past = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        terms = (score.unsqueeze(1) - running.unsqueeze(2)).masked_fill(~past, -torch.inf).exp()  # [R, T, T]
        carried = (largest.unsqueeze(1) - running).exp()  # [R, T], what the terms before the first position shrink by
        numerator = terms @ x.float() + carried.unsqueeze(2) * numerator.unsqueeze(1)  # [R, T, D]
        denominator = terms.sum(2) + carried * denominator.unsqueeze(1)  # [R, T]
        after = TensorCache(running[:, -1], numerator[:, -1], denominator[:, -1])
        return (numerator / denominator.unsqueeze(2)).to(x.dtype), after

    def empty(self, x: Tensor) -> TensorCache:
        """The cache of sequences that were not begun."""
        rows = x.shape[0]
        zeros = torch.zeros(rows, self.width, device=x.device)
        return TensorCache(zeros.new_full((rows,), -torch.inf), zeros, zeros[:, 0])
