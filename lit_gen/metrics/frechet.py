"""Fréchet distance between two Gaussians fitted to features (FID, where the features are Inception's)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg import lapack
from torch import Tensor
from torchmetrics import Metric


class Moments(NamedTuple):
    """Number of samples, mean ``[D]`` and unbiased covariance ``[D, D]`` of features, float64 on the CPU."""

    n: int
    mean: Tensor
    covariance: Tensor


class FeatureMoments(Metric):
    """Mean and covariance of features as running sums: memory does not depend on the number of samples.

    Args:
        feature_dim: D.
    """

    full_state_update = False
    count: Tensor
    total: Tensor
    outer: Tensor

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(feature_dim, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("outer", torch.zeros(feature_dim, feature_dim, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, features: Tensor) -> None:
        """Adds features ``[N, D]``."""
        features = features.detach().to(self.total)
        self.count += features.shape[0]
        self.total += features.sum(0)
        self.outer += _outer(features)

    def compute(self) -> Moments:
        """The moments; NaN where there are fewer than two samples."""
        n = int(self.count)
        mean = (self.total / n).cpu()
        covariance = (self.outer.cpu() - n * torch.outer(mean, mean)) / (n - 1) if n > 1 else self.outer.cpu() * np.nan
        return Moments(n, mean, covariance)


class FrechetDistance(FeatureMoments):
    """Fréchet distance of generated features to real ones; its value is biased by O(1/N): report N beside it.

    Args:
        real: moments of the real features.

    References:
        Heusel et al., GANs trained by a two time-scale update rule, NeurIPS 2017, arXiv:1706.08500, equation 6. On the
        bias: Chong and Forsyth, Effectively unbiased FID and Inception Score, CVPR 2020, arXiv:1911.07023.
    """

    higher_is_better = False

    def __init__(self, real: Moments) -> None:
        super().__init__(real.mean.shape[0])
        self.real = real

    def compute(self) -> Tensor:
        """The distance, a float64 scalar."""
        return frechet_distance(super().compute(), self.real)


def frechet_distance(first: Moments, second: Moments) -> Tensor:
    r"""Squared Fréchet (2-Wasserstein) distance between two Gaussians, a float64 scalar.

    .. math:: |\mu_1 - \mu_2|^2 + \mathrm{tr}\,\Sigma_1 + \mathrm{tr}\,\Sigma_2 - 2\,\mathrm{tr}\,(\Sigma_1\Sigma_2)^{1/2}

    With :math:`\Sigma_1 = L L^T` the eigenvalues of :math:`\Sigma_1 \Sigma_2` that are not zero are those of the symmetric
    :math:`L^T \Sigma_2 L`, several times faster and safer to compute than those of the product. L has as many columns as
    :math:`\Sigma_1` has rank, so fewer samples than dimensions make it cheaper, not inaccurate.

    Args:
        first: moments of one set.
        second: moments of the other.

    References:
        Dowson and Landau, The Fréchet distance between multivariate normal distributions, 1982.
    """
    few, many = sorted((first, second), key=lambda moments: moments.n)
    distance = (first.mean - second.mean).square().sum() + first.covariance.trace() + second.covariance.trace()
    if not torch.isfinite(distance):
        return distance
    factor = _factor(few.covariance)
    eigenvalues = torch.linalg.eigvalsh(factor.T @ many.covariance @ factor)
    return distance - 2.0 * eigenvalues.clamp(min=0.0).sqrt().sum()


def _outer(features: Tensor) -> Tensor:
    """``features.T @ features``; NumPy sees that the result is symmetric and computes half of it."""
    if features.device.type != "cpu":
        return features.T @ features
    array = features.numpy()
    return torch.from_numpy(array.T @ array)


def _factor(covariance: Tensor) -> Tensor:
    """L ``[D, rank]`` with L L^T = covariance: Cholesky's factor, with pivots where the rank is not full."""
    factor, failed_at = torch.linalg.cholesky_ex(covariance)
    if not failed_at:
        return factor
    pivoted, pivots, rank, _ = lapack.dpstrf(np.asfortranarray(covariance.numpy()), lower=1)
    result = np.empty((covariance.shape[0], rank))
    result[pivots - 1] = np.tril(pivoted)[:, :rank]
    return torch.from_numpy(result)
