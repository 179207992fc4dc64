r"""Importance sampling: draws from an easy density q, weighted by :math:`w = f / q`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lit_gen.energy.samplers import estimates
from lit_gen.energy.samplers.checks import require
from lit_gen.energy.samplers.transitions import LogDensity, evaluate


class Estimate(NamedTuple):
    """An expectation and its standard error, float64 on the CPU, with the shape of the function's value."""

    value: Tensor
    stderr: Tensor


class Weighted(NamedTuple):
    """Draws with log weights that together stand for the target: also what annealed importance sampling returns.

    Attributes:
        x: ``[n, ...]``.
        log_weight: ``[n]``, unnormalised.
    """

    x: Tensor
    log_weight: Tensor

    def expectation(self, function: Callable[[Tensor], Tensor]) -> Estimate:
        r"""Self-normalised estimate of E[g(x)] under the target, consistent, with a bias of order 1/n.

        .. math::
            \hat\mu = \sum_i \bar w_i\, g(x_i), \quad \bar w_i = w_i / \textstyle\sum_j w_j, \qquad
            \mathrm{stderr}^2 = \sum_i \bar w_i^2 (g(x_i) - \hat\mu)^2

        Args:
            function: states ``[n, ...]`` -> values ``[n, ...]``.

        References:
            Robert and Casella, Monte Carlo statistical methods, Springer 2004, section 3.3. Owen, Monte Carlo theory,
            methods and examples, 2013, section 9.2.
        """
        g = estimates.float64(function(self.x))
        weight = torch.softmax(estimates.float64(self.log_weight), 0).reshape(-1, *[1] * (g.ndim - 1))
        value = (weight * g).sum(0)
        return Estimate(value, (weight * (g - value)).square().sum(0).sqrt())

    def log_z(self, log_base: float = 0.0) -> estimates.LogZ:
        """Log normaliser of the target; see :func:`~lit_gen.energy.samplers.estimates.log_z`."""
        return estimates.log_z(self.log_weight, log_base)

    def ess(self) -> float:
        """Effective sample size, 1 .. n."""
        return estimates.weight_ess(self.log_weight)


@torch.no_grad()
def importance_sampling(
    log_density: LogDensity,
    draw: Callable[[int, torch.Generator], Tensor],
    log_proposal: LogDensity,
    n: int,
    generator: torch.Generator,
) -> Weighted:
    r"""Draws n states from q and weighs them by f / q.

    The mean weight is :math:`Z` where q is normalised. The variance is finite only where q has the heavier tails.

    Args:
        log_density: log f of the target, unnormalised.
        draw: (n, generator) -> n states from q.
        log_proposal: log q; normalised, for log Z.
        n: number of draws.
        generator: the source of all randomness.

    Raises:
        ValueError: n < 2.

    References:
        MacKay, Information theory, inference, and learning algorithms, CUP 2003, section 29.2. Goodfellow et al., Deep
        learning, MIT Press 2016, section 17.2.
    """
    require(n >= 2, "n", n, "an integer of 2 or more")
    x = draw(n, generator)
    return Weighted(x, evaluate(log_density, x) - evaluate(log_proposal, x))
