"""Features kept whole, in the samples' order, for the metrics that compare samples pairwise."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class FeatureStore(Metric):
    """Keeps n features of dimension D in memory, 4 n D bytes on every process (41 MB for 5,000 of Inception's 2,048).

    Each process fills in the rows of its own samples and the sum over processes is the whole, in the samples' order: the
    result does not depend on the number of processes, and one of them may have no sample at all.

    Args:
        feature_dim: D.
        n: number of samples in all.
    """

    full_state_update = False
    features: Tensor

    def __init__(self, feature_dim: int, n: int) -> None:
        super().__init__()
        self.add_state("features", torch.zeros(n, feature_dim), dist_reduce_fx="sum")

    def update(self, features: Tensor, index: Tensor) -> None:
        """Adds features ``[N, D]`` of the samples ``index`` (int64 ``[N]``, each between 0 and n - 1)."""
        self.features[index.to(self.features.device)] = features.detach().to(self.features)

    def compute(self) -> Tensor:
        """All features, float32 ``[n, D]``."""
        return self.features.clone()
