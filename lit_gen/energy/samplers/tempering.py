r"""Parallel tempering: replicas at several temperatures that exchange their states, so that the cold one crosses barriers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from lit_gen.energy.samplers.checks import require
from lit_gen.energy.samplers.paths import KernelAt, Path
from lit_gen.energy.samplers.transitions import Transition, accept, per_chain


class ParallelTempering:
    r"""Replica exchange over a ladder of inverse temperatures, C ladders side by side.

    The joint density :math:`\prod_t f_{\beta_t}(x_t)` is left invariant by a kernel in each replica and by swaps of neighbours,
    accepted with probability :math:`\min(1, r)`,

    .. math::
        \log r = \log f_{\beta_t}(x_{t+1}) + \log f_{\beta_{t+1}}(x_t) - \log f_{\beta_t}(x_t) - \log f_{\beta_{t+1}}(x_{t+1}).

    One call makes two rounds: a transition of all replicas and swaps of the pairs (0,1), (2,3), ..., then a transition and
    swaps of the pairs (1,2), (3,4), ...: the deterministic even-odd scheme, in which states travel along the ladder faster
    than with pairs chosen at random. A ladder of two has one round. All replicas of all ladders step as one batch.

    Args:
        path: log densities; ``GeometricPath(log_density)`` for the powers of one.
        kernel_at: inverse temperatures of the rows, ``[T * C]`` -> kernel for states ``[T * C, ...]``, for instance
            ``lambda beta: Metropolis(path.at(beta), BitFlip())``.
        betas: the ladder, increasing; the last is the target, usually 1.

    Shape:
        x: ``[T, C, ...]``. The transition's ``accepted`` is ``[T, C]`` and ``swapped`` ``[T - 1, C]``.

    Raises:
        ValueError: the ladder is not increasing, or the state has another number of temperatures.

    References:
        Geyer, Markov chain Monte Carlo maximum likelihood, Interface 1991. Syed et al., Non-reversible parallel tempering: a
        scalable highly parallel MCMC scheme, J. Royal Statistical Society B 2022 (arXiv:1905.02939). Desjardins et al.,
        Tempered Markov chain Monte Carlo for training of restricted Boltzmann machines, AISTATS 2010.
    """

    def __init__(self, path: Path, kernel_at: KernelAt, betas: Sequence[float] | Tensor) -> None:
        ladder = torch.as_tensor(betas, dtype=torch.float64)
        increasing = ladder.ndim == 1 and len(ladder) >= 2 and bool((ladder.diff() > 0).all())
        require(
            increasing and bool(ladder[0] >= 0), "betas", ladder.tolist(), "two or more, increasing, from 0 or more"
        )
        self.path, self.kernel_at, self.betas = path, kernel_at, ladder

    def __call__(self, x: Tensor, generator: torch.Generator) -> Transition:
        count = len(self.betas)
        require(x.ndim >= 2 and len(x) == count, "shape of x", list(x.shape), f"[{count}, chains, ...]")
        betas = self.betas.to(x.device, x.dtype if x.is_floating_point() else torch.float32)
        betas = betas.unsqueeze(1).expand(count, x.shape[1])
        swapped = torch.zeros(count - 1, x.shape[1], device=x.device)
        rates = []
        for parity in range(min(2, count - 1)):
            rows, rate, _ = self.kernel_at(betas.flatten())(rearrange(x, "t c ... -> (t c) ..."), generator)
            rates.append(rate.view(x.shape[:2]))
            x, swapped[parity::2] = self.swap(rows.reshape(x.shape), betas, parity, generator)
        return Transition(x, torch.stack(rates).mean(0), swapped)

    def log_swap(self, low: Tensor, high: Tensor, beta_low: Tensor, beta_high: Tensor) -> Tensor:
        """log r for pairs of replicas, ``[N]``, from their states ``[N, ...]`` and inverse temperatures ``[N]``."""
        up, down = self.path.difference(low, beta_high, beta_low), self.path.difference(high, beta_low, beta_high)
        return up + down

    def swap(self, x: Tensor, betas: Tensor, parity: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Swaps the pairs (parity, parity + 1), (parity + 2, parity + 3), ...; returns the states and which were swapped."""
        pairs = (len(x) - parity) // 2
        low, high = slice(parity, parity + 2 * pairs, 2), slice(parity + 1, parity + 2 * pairs, 2)
        a, b = rearrange(x[low], "p c ... -> (p c) ..."), rearrange(x[high], "p c ... -> (p c) ...")
        accepted = accept(self.log_swap(a, b, betas[low].flatten(), betas[high].flatten()), generator)
        mask = per_chain(accepted, a)
        swapped = x.clone()
        swapped[low], swapped[high] = (
            torch.where(mask, b, a).view_as(x[low]),
            torch.where(mask, a, b).view_as(x[high]),
        )
        return swapped, accepted.view(pairs, x.shape[1]).float()
