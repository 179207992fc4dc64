"""Convergence diagnostics on processes whose answers are known, and against definitions written as loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sampler_targets import generator
from torch import Tensor

from lit_gen.energy.samplers import autocorrelation, effective_sample_size, split_rhat


def iid(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def ar1(rho: float, length: int, chains: int) -> Tensor:
    """Stationary, of unit variance."""
    noise = iid(length, chains, 1, seed=2)
    draws = [noise[0]]
    for e in noise[1:]:
        draws.append(rho * draws[-1] + math.sqrt(1 - rho**2) * e)
    return torch.stack(draws)


def test_rhat_against_the_book() -> None:
    """Gelman et al., Bayesian data analysis, section 11.4, written with loops."""
    draws = iid(21, 3, 2) + torch.tensor([0.0, 0.4, 1.0]).view(1, 3, 1)
    for j in range(2):
        halves = [c[part, j].numpy() for c in draws.unbind(1) for part in (slice(0, 10), slice(11, 21))]
        means = [np.mean(half) for half in halves]
        between = 10 / 5 * sum((m - np.mean(means)) ** 2 for m in means)
        within = np.mean([np.sum((half - np.mean(half)) ** 2) / 9 for half in halves])
        expected = math.sqrt((0.9 * within + between / 10) / within)
        assert split_rhat(draws)[j].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("rank_normalized", [False, True])
def test_rhat_of_good_and_bad_chains(rank_normalized: bool) -> None:
    good = iid(1000, 4, 3)
    rhat = split_rhat(good, rank_normalized)
    assert rhat.shape == (3,)
    assert ((rhat > 0.995) & (rhat < 1.01)).all()
    separated = good + torch.tensor([0.0, 0.0, 0.0, 2.0]).view(1, 4, 1)
    assert (split_rhat(separated, rank_normalized) > 1.2).all()
    # one chain that drifts: only its halves disagree
    drifting = good[:, :1] + torch.linspace(-2, 2, 1000, dtype=torch.float64).view(-1, 1, 1)
    assert (split_rhat(drifting, rank_normalized) > 1.2).all()


def test_rank_normalized_rhat_sees_scales_and_heavy_tails() -> None:
    scales = iid(1000, 4) * torch.tensor([1.0, 1.0, 1.0, 4.0])
    assert split_rhat(scales) < 1.01
    assert split_rhat(scales, rank_normalized=True) > 1.05
    cauchy = torch.tan(torch.pi * (torch.rand(1000, 4, generator=generator(1), dtype=torch.float64) - 0.5))
    cauchy[:, 0] += 3
    assert split_rhat(cauchy) < 1.05  # the variance drowns the shift
    assert split_rhat(cauchy, rank_normalized=True) > 1.1
    # ranks do not change under a monotone map: the part for the draws; ties share ranks: bits are no trouble
    bits = (iid(1000, 4) > 0).float()
    assert split_rhat(bits, rank_normalized=True) == pytest.approx(1, abs=0.01)


def test_constant_draws() -> None:
    assert split_rhat(torch.ones(10, 2, 1)).isnan().all()
    assert split_rhat(torch.ones(10, 2, 1) * torch.tensor([0.0, 1.0]).view(1, 2, 1)).isinf().all()


def test_autocorrelation_against_numpy() -> None:
    draws = ar1(0.6, 50, 2).flatten(1)
    ours = autocorrelation(draws)
    for chain, column in zip(draws.T.numpy(), ours.T):
        centred = chain - chain.mean()
        full = np.correlate(centred, centred, "full")[49:]
        torch.testing.assert_close(column, torch.from_numpy(full / full[0]))


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, -0.3])
def test_effective_sample_size_of_an_autoregression(rho: float) -> None:
    """The mean of an AR(1) of n draws is worth n (1 - rho) / (1 + rho) independent ones."""
    draws = ar1(rho, 10000, 8)
    expected = draws.numel() * (1 - rho) / (1 + rho)
    ess = effective_sample_size(draws)
    assert ess.shape == (1,)
    assert ess.item() == pytest.approx(expected, rel=0.1)


def test_effective_sample_size_is_that_of_the_mean() -> None:
    """Against the definition: variance of one draw / variance of the chain's mean, over 2,000 chains of 400."""
    draws = ar1(0.8, 400, 2000)
    measured = draws.var() / draws.mean(0).var() * 2000
    assert effective_sample_size(draws).item() == pytest.approx(measured.item(), rel=0.15)


def test_effective_sample_size_sees_separated_chains() -> None:
    separated = iid(1000, 4, 1) + torch.tensor([0.0, 0.0, 0.0, 5.0]).view(1, 4, 1)
    assert effective_sample_size(iid(1000, 4, 1)) > 3500
    assert effective_sample_size(separated) < 20


def test_effective_sample_size_against_loops() -> None:
    """Vehtari et al. 2021, written with loops, on an odd number of short and noisy chains."""
    draws = ar1(0.4, 61, 3).flatten(1)
    halves = [chain[part].numpy() for chain in draws.T for part in (slice(0, 30), slice(31, 61))]
    n, m = 30, 6
    within = np.mean([half.var(ddof=1) for half in halves])
    pooled = (n - 1) / n * within + np.var([half.mean() for half in halves], ddof=1)
    rho = []
    for lag in range(n):
        parts = [np.sum((h - h.mean())[: n - lag] * (h - h.mean())[lag:]) / n for h in halves]
        correlations = [part / h.var() for part, h in zip(parts, halves)]
        rho.append(1 - (within - np.mean([h.var(ddof=1) * c for h, c in zip(halves, correlations)])) / pooled)
    total, smallest = 0.0, math.inf
    for k in range(n // 2):
        pair = rho[2 * k] + rho[2 * k + 1]
        if pair <= 0:
            break
        smallest = min(smallest, pair)
        total += smallest
    assert effective_sample_size(draws).item() == pytest.approx(n * m / (2 * total - 1), rel=1e-9)


def test_antithetic_draws_are_capped() -> None:
    """Draws that alternate have a mean of no variance; the cap is that of Stan."""
    draws = torch.tensor([1.0, -1.0]).repeat(200).unsqueeze(1).expand(-1, 2) + 1e-3 * iid(400, 2)
    assert effective_sample_size(draws).item() == pytest.approx(800 * math.log10(800))


@pytest.mark.parametrize("function", [autocorrelation, split_rhat, effective_sample_size])
@pytest.mark.parametrize("shape", [[3, 2], [8]])
def test_too_few_draws(function, shape: list[int]) -> None:
    with pytest.raises(ValueError, match=r"shape of draws = \[.*\]; accepted: \[N, C, ...\] with N >= 4"):
        function(torch.zeros(shape))
