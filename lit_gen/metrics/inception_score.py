"""Inception Score: samples should be recognisable one by one and diverse together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric


class MeanStd(NamedTuple):
    """A value averaged over splits or subsets, and its (population) standard deviation over them."""

    mean: Tensor
    std: Tensor


class InceptionScore(Metric):
    r"""Inception Score, :math:`\exp \mathbb{E}_x \mathrm{KL}(p(y|x) \,\|\, p(y))`, averaged over splits of the samples.

    The split that a sample falls into depends on its global index alone, so each split is three running sums: memory does
    not depend on the number of samples, and the value not on how they are shared between processes.

    Args:
        num_classes: K.
        n: number of samples in all.
        splits: number of splits.
        seed: of the permutation that deals samples to splits (the default is torch-fidelity's); None: in order.

    Raises:
        ValueError: there are fewer samples than splits.

    References:
        Salimans et al., Improved techniques for training GANs, NeurIPS 2016, arXiv:1606.03498, section 4.
    """

    full_state_update = False
    higher_is_better = True
    count: Tensor
    probabilities: Tensor
    negentropy: Tensor

    def __init__(self, num_classes: int, n: int, splits: int = 10, seed: int | None = 2020) -> None:
        super().__init__()
        if n < splits:
            raise ValueError(f"n = {n} samples cannot be dealt to {splits} splits")
        order = np.arange(n) if seed is None else np.random.RandomState(seed).permutation(n)
        split = np.empty(n, dtype=np.int64)
        for i in range(splits):
            split[order[i * n // splits : (i + 1) * n // splits]] = i
        self.split = torch.from_numpy(split)
        self.add_state("count", torch.zeros(splits, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("probabilities", torch.zeros(splits, num_classes, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("negentropy", torch.zeros(splits, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, index: Tensor) -> None:
        """Adds samples.

        Args:
            logits: unnormalised class scores ``[N, K]``.
            index: int64 ``[N]``, which of the n samples they are.
        """
        log_p = logits.detach().to(self.probabilities).log_softmax(1)
        p = log_p.exp()
        split = self.split[index.cpu()].to(p.device)
        self.count.index_add_(0, split, torch.ones_like(log_p[:, 0]))
        self.probabilities.index_add_(0, split, p)
        self.negentropy.index_add_(0, split, (p * log_p).sum(1))

    def compute(self) -> MeanStd:
        r"""Score and its standard deviation over the splits, from :math:`H(p(y)) - \mathbb{E}_x H(p(y|x))`."""
        marginal = self.probabilities / self.count[:, None]
        score = (self.negentropy / self.count - torch.special.xlogy(marginal, marginal).sum(1)).exp()
        return MeanStd(score.mean(), score.std(correction=0))
