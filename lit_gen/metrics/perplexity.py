"""Perplexity: one sum of nats and one count of tokens over all data, exponentiated at the end."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics import Metric


class Perplexity(Metric):
    r"""Negative log-likelihood per token, and what follows from it, of all predicted tokens together.

    .. math:: \mathrm{nll} = -\frac1N \sum_{i=1}^N \log p(x_i \mid x_{<i}), \qquad \mathrm{perplexity} = e^{\mathrm{nll}}

    Neither the batch size nor the number of processes has an influence: nats are rounded to multiples of 2^-20, so that
    their float64 sum is exact and does not depend on its order. Padding never comes in.
    """

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("nats", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("tokens", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("correct", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, nats: Tensor, correct: Tensor) -> None:
        """Adds predicted tokens.

        Args:
            nats: ``[N]``, minus the natural logarithm of each token's probability, without label smoothing.
            correct: bool ``[N]``, whether the token is the most probable one.
        """
        self.nats += (nats.detach().double() * 2**20).round().sum() / 2**20
        self.tokens += nats.numel()
        self.correct += correct.sum()

    def compute(self) -> dict[str, float]:
        """``nll`` (nats per token), ``perplexity`` (e to the nll), ``bits_per_token``, ``accuracy``; nan without tokens."""
        tokens = int(self.tokens)
        nll = float(self.nats) / tokens if tokens else math.nan
        try:
            perplexity = math.exp(nll)
        except OverflowError:
            perplexity = math.inf
        accuracy = int(self.correct) / tokens if tokens else math.nan
        return {"nll": nll, "perplexity": perplexity, "bits_per_token": nll / math.log(2), "accuracy": accuracy}
