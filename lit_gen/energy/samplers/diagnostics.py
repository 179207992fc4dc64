r"""Have the chains converged, and how much are their draws worth?

All functions take draws ``[N, C, ...]``, N states of C chains. Results have the shape of the trailing
dimensions: one number for each scalar of the state. Acceptance rates come with the draws, see
:class:`~lit_gen.energy.samplers.transitions.Chains`.
"""

from __future__ import annotations

import math

import torch
from scipy.stats import rankdata
from torch import Tensor

from lit_gen.energy.samplers.checks import require


def autocorrelation(draws: Tensor) -> Tensor:
    """Autocorrelation of each chain at all lags by FFT, ``[N, C, ...]``; NaN for a chain that never moved.

    Sums are divided by N, not N - lag: smaller variance at long lags (Geyer 1992).
    """
    covariance = _autocovariance(_checked(draws))
    return covariance / covariance[0]


def split_rhat(draws: Tensor, rank_normalized: bool = False) -> Tensor:
    r"""Potential scale reduction of half chains: near 1 where chains agree with each other and with their own past.

    .. math::
        \hat R = \sqrt{\frac{\frac{n-1}{n} W + \frac1n B}{W}}

    with B and W the variances between and within the 2C halves of length n: the version of BDA3. Values above 1.1 there, 1.01
    for the rank-normalised version, say that the chains have not mixed. The latter replaces draws by normal scores of their
    ranks and takes the larger of the value for the draws and for their distance from the median; it also sees
    infinite variances and chains that differ in scale only. NaN where all draws are equal.

    Args:
        draws: states of all chains.
        rank_normalized: the version of Vehtari et al. rather than BDA3's.

    Shape:
        draws: ``[N, C, ...]``, N >= 4.

    Returns:
        ``[...]``, float64 on the CPU.

    Raises:
        ValueError: fewer draws.

    References:
        Gelman et al., Bayesian data analysis, 3rd edition, CRC 2013, equation 11.4. Vehtari et al., Rank-normalization,
        folding, and localization: an improved R-hat for assessing convergence of MCMC, Bayesian Analysis 2021
        (arXiv:1903.08008).
    """
    halves = _split(_checked(draws))
    if not rank_normalized:
        return _rhat(halves)
    median = halves.flatten(0, 1).quantile(0.5, 0)
    return torch.maximum(_rhat(_normal_scores(halves)), _rhat(_normal_scores((halves - median).abs())))


def effective_sample_size(draws: Tensor) -> Tensor:
    r"""Number of independent draws whose mean would be as exact as the mean of these.

    .. math::
        \mathrm{ESS} = \frac{n m}{-1 + 2 \sum_{k=0}^{K} P_k}, \qquad P_k = \hat\rho_{2k} + \hat\rho_{2k+1}, \qquad
        \hat\rho_t = 1 - \frac{W - \frac1m \sum_j s_j^2 \hat\rho_{t,j}}{\frac{n-1}{n} W + \frac1n B}

    over the m = 2C half chains of length n, which lets disagreement between chains count. The sum is Geyer's initial monotone
    sequence: up to the last :math:`P_k > 0` before the first that is not, each no larger than the one before. Not above
    :math:`nm \log_{10} nm`.

    Shape:
        draws: ``[N, C, ...]``, N >= 4.

    Returns:
        ``[...]``, float64 on the CPU.

    Raises:
        ValueError: fewer draws.

    References:
        Geyer, Practical Markov chain Monte Carlo, Statistical Science 1992, section 3.3. Vehtari et al., Bayesian Analysis 2021
        (arXiv:1903.08008).
    """
    halves = _split(_checked(draws))
    n, m = halves.shape[:2]
    within, pooled = _variances(halves)
    covariance = _autocovariance(halves).mean(1) * n / (n - 1)
    rho = 1 - (within - covariance) / pooled
    pairs = rho[: n // 2 * 2].unflatten(0, (-1, 2)).sum(1)
    kept = (pairs > 0).cumprod(0)
    tau = -1 + 2 * (pairs.cummin(0).values * kept).sum(0)
    return n * m / tau.clamp(min=1 / math.log10(n * m))


def _checked(draws: Tensor) -> Tensor:
    require(draws.ndim >= 2 and len(draws) >= 4, "shape of draws", list(draws.shape), "[N, C, ...] with N >= 4")
    return draws.detach().cpu().double()


def _split(draws: Tensor) -> Tensor:
    """``[N, C, ...]`` -> ``[N // 2, 2 C, ...]``; the middle draw of an odd number is left out."""
    half = len(draws) // 2
    return torch.cat([draws[:half], draws[-half:]], 1)


def _variances(draws: Tensor) -> tuple[Tensor, Tensor]:
    """W, and the pooled variance (n - 1)/n W + B/n."""
    n = len(draws)
    within = draws.var(0).mean(0)
    return within, within * (n - 1) / n + draws.mean(0).var(0)


def _rhat(draws: Tensor) -> Tensor:
    within, pooled = _variances(draws)
    return (pooled / within).sqrt()


def _normal_scores(draws: Tensor) -> Tensor:
    """Ranks over all chains together (ties share their mean rank), as normal quantiles."""
    flat = draws.flatten(0, 1)
    rank = torch.from_numpy(rankdata(flat.numpy(), axis=0)).to(flat)
    return torch.special.ndtri((rank - 0.375) / (len(flat) + 0.25)).view_as(draws)


def _autocovariance(draws: Tensor) -> Tensor:
    centred = draws - draws.mean(0)
    # padded to twice the length: circular correlation without wrap-around
    spectrum = torch.fft.rfft(centred, 2 * len(draws), dim=0).abs().square()
    return torch.fft.irfft(spectrum, 2 * len(draws), dim=0)[: len(draws)] / len(draws)
