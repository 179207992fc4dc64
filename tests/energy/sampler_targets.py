"""Targets that can be enumerated or integrated, and goodness-of-fit tests against them."""

from __future__ import annotations

import itertools
import math

import torch
from scipy import stats
from torch import Tensor

from lit_gen.energy.samplers import Kernel, Proposal, run_chains

ALPHA = 1e-3  # significance: a right sampler fails with this probability, under seeds that are fixed
SURE = 1e-6  # a wrong sampler must be rejected at this level


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Enumerated:
    """A pairwise model of few coordinates with few values, log f(x) = b(x) + x' W x / 2 (one bias for each value).

    Args:
        coordinates, values: its size; ``len(values) ** coordinates`` states.
        strength: scale of the couplings.
    """

    def __init__(
        self, coordinates: int = 4, values: tuple[int, ...] = (0, 1), strength: float = 1.0, seed: int = 5
    ) -> None:
        noise = generator(seed)
        weight = torch.randn(coordinates, coordinates, generator=noise, dtype=torch.float64).triu(1) * strength
        self.weight = weight + weight.T
        self.bias = torch.randn(coordinates, len(values), generator=noise, dtype=torch.float64) * 0.5
        self.values, self.coordinates = values, coordinates
        self.states = torch.tensor(list(itertools.product(values, repeat=coordinates)), dtype=torch.float64)
        log_density = self(self.states)
        self.log_z = torch.logsumexp(log_density, 0).item()
        self.p = (log_density - self.log_z).exp()

    def __call__(self, x: Tensor) -> Tensor:
        x = x.double().flatten(1)
        which = (x.unsqueeze(-1) == torch.tensor(self.values).to(x)).double()
        return (which * self.bias.to(x)).sum((1, 2)) + 0.5 * ((x @ self.weight.to(x)) * x).sum(1)

    def code(self, x: Tensor) -> Tensor:
        """Row of :attr:`states` that each state is."""
        which = (x.flatten(1).unsqueeze(-1) == torch.tensor(self.values).to(x)).long().argmax(-1)
        powers = len(self.values) ** torch.arange(self.coordinates - 1, -1, -1)
        return (which * powers).sum(1)

    def draw(self, n: int, noise: torch.Generator) -> Tensor:
        return self.states[torch.multinomial(self.p, n, replacement=True, generator=noise)]

    def p_value(self, x: Tensor) -> float:
        """Chi-square test of independent draws."""
        counts = torch.bincount(self.code(x), minlength=len(self.p)).double()
        assert (self.p * len(x)).min() > 5  # or the statistic is not chi-square
        return stats.chisquare(counts, self.p * len(x)).pvalue


class Mixture:
    """A Gaussian mixture on the line, unnormalised."""

    def __init__(self, means: tuple[float, ...], scales: tuple[float, ...], weights: tuple[float, ...]) -> None:
        self.means, self.scales, self.weights = means, scales, weights

    def __call__(self, x: Tensor) -> Tensor:
        mean, scale, weight = (torch.tensor(v).to(x) for v in (self.means, self.scales, self.weights))
        return torch.logsumexp(weight.log() - scale.log() - 0.5 * ((x - mean) / scale) ** 2, 1) + 3.0

    def p_value(self, x: Tensor) -> float:
        """Kolmogorov-Smirnov test of independent draws ``[n, 1]``."""

        def cdf(value):
            parts = zip(self.weights, self.means, self.scales)
            return sum(w * stats.norm.cdf(value, m, s) for w, m, s in parts)

        return stats.kstest(x.flatten().numpy(), cdf).pvalue


class CorrelatedGaussian:
    """N(mean, L L') in the plane; whitened draws are standard normal."""

    mean = torch.tensor([1.0, -2.0], dtype=torch.float64)
    factor = torch.tensor([[1.0, 0.0], [1.2, 0.7]], dtype=torch.float64)

    def whiten(self, x: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.factor.to(x), (x - self.mean.to(x)).T, upper=False).T

    def __call__(self, x: Tensor) -> Tensor:
        return -0.5 * self.whiten(x).square().sum(1)

    def p_value(self, x: Tensor) -> float:
        return stats.kstest(self.whiten(x).flatten().numpy(), "norm").pvalue


class TowardsOne(Proposal):
    """Picks a coordinate and proposes 1 for it with probability 0.8, 0 otherwise: asymmetric.

    Args:
        corrected: whether it says so.
    """

    def __init__(self, corrected: bool = True) -> None:
        self.corrected = corrected

    def sample(self, x: Tensor, noise: torch.Generator) -> Tensor:
        index = torch.randint(x.shape[1], (len(x), 1), generator=noise)
        return x.scatter(1, index, (torch.rand(len(x), 1, generator=noise) < 0.8).to(x.dtype))

    def log_prob(self, new: Tensor, old: Tensor) -> Tensor | None:
        if not self.corrected:
            return None
        up = (new == 1).double()
        return ((new != old) * (up * math.log(0.8) + (1 - up) * math.log(0.2))).sum(1)


def thinned(kernel: Kernel, x: Tensor, thin: int, seed: int = 1) -> Tensor:
    """Nearly independent draws ``[2 * chains, ...]``: two of each chain, ``thin`` steps apart, after as many steps."""
    return run_chains(kernel, x, 2 * thin, generator(seed), burn_in=thin, thin=thin).draws.flatten(0, 1)


def rows_p_value(matrix: Tensor, target: Enumerated, kernel: Kernel, copies: int = 3000) -> float:
    """Chi-square test that one step of the kernel from every state is distributed as that row of the matrix."""
    start = target.states.repeat_interleave(copies, 0)
    pair = target.code(start) * len(matrix) + target.code(kernel(start, generator(2)).x)
    counts = torch.bincount(pair, minlength=matrix.numel()).view_as(matrix).double()
    possible = matrix > 1e-12
    assert counts[~possible].sum() == 0
    expected = matrix[possible] * copies
    statistic = ((counts[possible] - expected).square() / expected).sum().item()
    return stats.chi2.sf(statistic, int(possible.sum()) - len(matrix))


def balance(matrix: Tensor, p: Tensor) -> float:
    """Largest violation of detailed balance p_i P_ij = p_j P_ji."""
    flow = p.unsqueeze(1) * matrix
    return (flow - flow.T).abs().max().item()
