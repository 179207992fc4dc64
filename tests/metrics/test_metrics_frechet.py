"""The Fréchet distance against closed forms and scipy's matrix square root."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from lit_gen.metrics import FeatureMoments, FrechetDistance, Moments, frechet_distance


def moments_of(features: Tensor) -> Moments:
    metric = FeatureMoments(features.shape[1])
    for part in features.split(7):
        metric.update(part)
    return metric.compute()


def by_square_root(first: Moments, second: Moments) -> float:
    root = scipy.linalg.sqrtm((first.covariance @ second.covariance).numpy()).real
    mean = (first.mean - second.mean).square().sum()
    return float(mean + first.covariance.trace() + second.covariance.trace() - 2 * np.trace(root))


def test_moments_are_those_of_all_features() -> None:
    features = torch.randn(50, 6) * 3 + 100
    n, mean, covariance = moments_of(features)
    assert n == 50
    assert torch.allclose(mean, features.double().mean(0), rtol=1e-12)
    assert torch.allclose(covariance, features.double().T.cov(), rtol=1e-8)


def test_commuting_gaussians_in_closed_form() -> None:
    rotation = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64)).Q
    a, b = torch.rand(8, dtype=torch.float64) + 0.1, torch.rand(8, dtype=torch.float64) + 0.1
    first = Moments(100, torch.randn(8, dtype=torch.float64), rotation @ a.diag() @ rotation.T)
    second = Moments(100, torch.randn(8, dtype=torch.float64), rotation @ b.diag() @ rotation.T)
    expected = (first.mean - second.mean).square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    assert float(frechet_distance(first, second)) == pytest.approx(float(expected), rel=1e-10)


def test_samples_of_two_known_gaussians() -> None:
    """FID of N(0, I) and N(1, 4 I) in 3 dimensions is 3 + 3 (2 - 1)^2 = 6."""
    generator = torch.Generator().manual_seed(0)
    first = moments_of(torch.randn(100_000, 3, generator=generator))
    metric = FrechetDistance(first)
    metric.update(1 + 2 * torch.randn(100_000, 3, generator=generator))
    assert float(metric.compute()) == pytest.approx(6.0, rel=0.01)


@pytest.mark.parametrize(("n_first", "n_second"), [(200, 300), (20, 300), (300, 20), (20, 15)])
def test_against_scipy(n_first: int, n_second: int) -> None:
    mixing = torch.randn(40, 40)
    first, second = moments_of(torch.randn(n_first, 40) @ mixing), moments_of(torch.rand(n_second, 40) * 5)
    value = float(frechet_distance(first, second))
    assert value == pytest.approx(by_square_root(first, second), rel=1e-5)
    assert value == pytest.approx(float(frechet_distance(second, first)), rel=1e-9)


def test_distance_to_itself_is_zero() -> None:
    for n in (10, 400):
        same = moments_of(torch.randn(n, 30))
        assert float(frechet_distance(same, same)) == pytest.approx(0.0, abs=1e-6)


def test_constant_features() -> None:
    first, second = moments_of(torch.zeros(9, 4)), moments_of(torch.ones(9, 4))
    assert float(frechet_distance(first, second)) == 4.0


def test_memory_does_not_depend_on_the_number_of_samples() -> None:
    metric = FeatureMoments(5)

    def size() -> int:
        return sum(state.numel() for state in (metric.count, metric.total, metric.outer))

    metric.update(torch.randn(10, 5))
    before = size()
    metric.update(torch.randn(1000, 5))
    assert size() == before
