"""Kernel Inception Distance: unbiased, and therefore comparable between small sample sizes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lit_gen.metrics.features import FeatureStore
from lit_gen.metrics.inception_score import MeanStd

_CHUNK_ELEMENTS = 4_000_000


class KernelDistance(FeatureStore):
    """Kernel distance of generated features to real ones; keeps the features, see :class:`FeatureStore`.

    Args:
        real: real features ``[M, D]``.
        n: number of generated samples.
        subsets: see :func:`kernel_distance`.
        subset_size: likewise.
        seed: likewise.
    """

    higher_is_better = False

    def __init__(self, real: Tensor, n: int, subsets: int = 100, subset_size: int = 1000, seed: int = 2020) -> None:
        super().__init__(real.shape[1], n)
        self.real, self.subsets, self.subset_size, self.seed = real, subsets, subset_size, seed

    def compute(self) -> MeanStd:
        """The distance and its standard deviation over the subsets."""
        return kernel_distance(super().compute(), self.real, self.subsets, self.subset_size, self.seed)


def kernel_distance(
    fake: Tensor, real: Tensor, subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> MeanStd:
    r"""Unbiased squared maximum mean discrepancy with :math:`k(x, y) = (x^T y / D + 1)^3`, averaged over random subsets.

    .. math:: \frac{\sum_{i \ne j} k(x_i, x_j) + \sum_{i \ne j} k(y_i, y_j)}{m (m - 1)} - \frac{2 \sum_{ij} k(x_i, y_j)}{m^2}

    The subsets are those that torch-fidelity draws, the arithmetic is in float64 (torch-fidelity's is in float32, good to
    about 1e-8 absolute). All subsets are summed in one pass over the kernel matrix, in chunks, as :math:`s^T K s` with
    their indicator vectors s, unless the subsets together are smaller than that matrix.

    Args:
        fake: generated features ``[N, D]``.
        real: real features ``[M, D]``.
        subsets: number of subsets.
        subset_size: m; lowered to the number of samples where there are fewer.
        seed: of the draws.

    References:
        Binkowski et al., Demystifying MMD GANs, ICLR 2018, arXiv:1801.01401, section 4.
    """
    m = min(subset_size, len(fake), len(real))
    x, y = fake.double(), real.to(fake.device).double()
    random = np.random.RandomState(seed)
    draws = [(random.choice(len(x), m, replace=False), random.choice(len(y), m, replace=False)) for _ in range(subsets)]
    if max(len(x), len(y)) ** 2 <= subsets * m * m:
        in_x, in_y = (_indicators([draw[side] for draw in draws], len(whole)).to(x) for side, whole in ((0, x), (1, y)))
        values = _discrepancies(x, y, in_x, in_y, m)
    else:
        ones = x.new_ones(m, 1)
        values = torch.cat([_discrepancies(x[i], y[j], ones, ones, m) for i, j in draws])
    return MeanStd(values.mean(), values.std(correction=0))


def _discrepancies(x: Tensor, y: Tensor, in_x: Tensor, in_y: Tensor, m: int) -> Tensor:
    """The estimates ``[S]`` for S subsets of m samples each, given as indicators ``[N, S]`` and ``[M, S]``."""
    within = _kernel_sums(x, x, in_x, in_x) - in_x.T @ _kernel(x.square().sum(1) / x.shape[1])
    within = within + _kernel_sums(y, y, in_y, in_y) - in_y.T @ _kernel(y.square().sum(1) / y.shape[1])
    return within / (m * (m - 1)) - 2.0 * _kernel_sums(x, y, in_x, in_y) / (m * m)


def _kernel(product: Tensor) -> Tensor:
    return (product + 1.0) ** 3


def _kernel_sums(x: Tensor, y: Tensor, in_x: Tensor, in_y: Tensor) -> Tensor:
    """The sums of k over each subset's pairs, ``[S]``."""
    rows = max(1, _CHUNK_ELEMENTS // len(y))
    total = x.new_zeros(in_x.shape[1])
    for part, weight in zip(x.split(rows), in_x.split(rows)):
        total += (weight * (_kernel(part @ y.T / x.shape[1]) @ in_y)).sum(0)
    return total


def _indicators(subsets: list[np.ndarray], n: int) -> Tensor:
    indicators = torch.zeros(n, len(subsets))
    for column, subset in enumerate(subsets):
        indicators[torch.from_numpy(subset), column] = 1.0
    return indicators
