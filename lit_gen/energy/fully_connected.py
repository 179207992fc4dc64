r"""The energy of the general Boltzmann machine, and what can be said of it in closed form.

.. math:: E(s) = -\tfrac12 s^\top W s - b^\top s = -\sum_{i<j} w_{ij} s_i s_j - \sum_i b_i s_i, \quad p(s) = e^{-E(s)/T} / Z

E is linear in the products :math:`s_i s_j` and in s, so its mean over any distribution follows from their means: these
are all that learning needs.

References:
    Ackley, Hinton and Sejnowski, A learning algorithm for Boltzmann machines, Cognitive Science 1985, equations 1 to 5.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Moments(NamedTuple):
    """Means over a distribution: ``first`` ``[K]`` of s, ``second`` ``[K, K]`` of s s^T (whose diagonal nobody reads)."""

    first: Tensor
    second: Tensor

    @classmethod
    def of(cls, state: Tensor, count: float | None = None) -> Moments:
        """Means over the rows of a state ``[N, K]``; the sum is divided by ``count`` where given.

        A row may hold means of independent units in place of their values.
        """
        count = len(state) if count is None else count
        return cls(state.sum(0) / count, state.t() @ state / count)


class FullyConnected(nn.Module):
    r"""K = visible + hidden binary units, each coupled to each other; visible ones come first.

    The parameters are the couplings of pairs i < j, so W is symmetric with zero diagonal whatever an optimizer does, and
    weight decay counts each coupling once.

    With an ``offset`` c the parameters are those of the centred machine,
    :math:`E(s) = -\frac12 (s - c)^\top W (s - c) - b_c^\top (s - c)`. It is the same family of distributions; the gradient
    of a coupling becomes the covariance-like :math:`\langle (s_i - c_i)(s_j - c_j) \rangle`, which is better conditioned.
    ``weight`` and ``bias`` are always those of the uncentred energy.

    Args:
        visible: number of visible units.
        hidden: number of hidden units.
        temperature: T.
        weight_std: standard deviation of the couplings before training.

    References:
        Montavon and Müller, Deep Boltzmann machines and the centering trick, Neural Networks: Tricks of the Trade 2012.
    """

    rows: Tensor
    columns: Tensor
    offset: Tensor

    def __init__(self, visible: int, hidden: int, temperature: float = 1.0, weight_std: float = 0.01) -> None:
        super().__init__()
        self.visible, self.hidden, self.temperature = visible, hidden, temperature
        rows, columns = torch.triu_indices(self.units, self.units, 1)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        self.register_buffer("offset", torch.zeros(self.units))
        self.couplings = nn.Parameter(torch.randn(len(rows)) * weight_std)
        self.centred_bias = nn.Parameter(torch.zeros(self.units))

    @property
    def units(self) -> int:
        """K."""
        return self.visible + self.hidden

    @property
    def weight(self) -> Tensor:
        """W ``[K, K]``, symmetric with zero diagonal."""
        upper = self.couplings.new_zeros(self.units, self.units).index_put((self.rows, self.columns), self.couplings)
        return upper + upper.t()

    @property
    def bias(self) -> Tensor:
        """b ``[K]``: b_c - W c."""
        return self.centred_bias - self.weight @ self.offset

    @torch.no_grad()
    def start_at(self, rate: Tensor, centre: bool) -> None:
        """Makes the units independent-like, on with probability ``rate`` ``[K]`` but for the small couplings.

        Args:
            rate: strictly between 0 and 1.
            centre: also take the rates as offsets.
        """
        self.centred_bias.copy_(rate.logit() * self.temperature)
        if centre:
            self.offset.copy_(rate)

    def energy(self, state: Tensor) -> Tensor:
        """E(s) ``[...]`` of states ``[..., K]``; also the mean energy of independent units with these means."""
        return -0.5 * (state @ self.weight * state).sum(-1) - state @ self.bias

    def expected_energy(self, moments: Moments) -> Tensor:
        """Mean energy under a distribution with these moments, a scalar."""
        return -0.5 * (self.weight * moments.second).sum() - self.bias @ moments.first

    def log_odds(self, state: Tensor) -> Tensor:
        """Log-odds of each unit given all others, ``[..., K]`` for states ``[..., K]`` (equation 4)."""
        return (state @ self.weight + self.bias) / self.temperature

    def conditional_nll(self, state: Tensor) -> Tensor:
        r""":math:`-\sum_{i \in v} \log p(s_i | s_{-i})` over the visible units, ``[N]`` in nats.

        Without hidden units this is the negative pseudo-log-likelihood.

        References:
            Besag, Statistical analysis of non-lattice data, The Statistician 1975.
        """
        log_odds = self.log_odds(state)[:, : self.visible]
        target = state[:, : self.visible]
        return F.binary_cross_entropy_with_logits(log_odds, target, reduction="none").sum(-1)

    def variational_bound(self, state: Tensor) -> Tensor:
        r"""A lower bound on :math:`\log \sum_h e^{-E(v, h)/T}`, ``[N]``: log p(v) >= bound - log Z.

        .. math:: E_q[-E(v, h)/T] + H(q), \quad q(h) = \prod_j \mu_j^{h_j} (1 - \mu_j)^{1 - h_j}

        Args:
            state: visible values and the means mu of the hidden units, ``[N, K]``. The bound is tight where
                q is p(h | v), as it is without hidden units.

        References:
            Salakhutdinov, Learning and evaluating Boltzmann machines, University of Toronto TR 2008-002, equation 9.
        """
        mean = state[:, self.visible :]
        entropy = -(torch.xlogy(mean, mean) + torch.xlogy(1 - mean, 1 - mean)).sum(-1)
        return entropy - self.energy(state) / self.temperature
