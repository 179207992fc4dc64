r"""Annealed importance sampling, upwards and downwards: log Z from both sides.

A path of densities :math:`f_0, \dots, f_K` joins a base with known :math:`Z_0` to the target. Sliding along it, each
chain collects

.. math::
    \log w = \sum_{k=1}^{K} \log f_{\beta_k}(x_{k-1}) - \log f_{\beta_{k-1}}(x_{k-1}), \qquad
    x_k \sim T_{\beta_k}(\cdot \mid x_{k-1}),

and :math:`E[w] = Z_K / Z_0` exactly, for kernels that leave :math:`p_{\beta_k}` invariant but need not mix.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from lit_gen.energy.samplers.checks import require
from lit_gen.energy.samplers.estimates import LogZ, log_z, reverse_log_z
from lit_gen.energy.samplers.paths import KernelAt, Path

PIECES = ((0.5, 1e-3), (0.9, 1e-4), (1.0, 1e-5))


class Annealed(NamedTuple):
    """The end of an annealing run.

    Attributes:
        x: last states ``[C, ...]``. Upwards, ``Weighted(x, log_weight)`` stands for the target.
        log_weight: ``[C]``, float64.
        log_z: log normaliser of the target.
        acceptance: mean acceptance of the transitions, ``[C]``.
    """

    x: Tensor
    log_weight: Tensor
    log_z: LogZ
    acceptance: Tensor


def schedule(pieces: Sequence[tuple[float, float]] = PIECES) -> Tensor:
    """Inverse temperatures from 0 to 1 in pieces of equal spacing, float64.

    The default is the authors' for restricted Boltzmann machines, 0 : 1/1,000 : 0.5 : 1/10,000 : 0.9 : 1/100,000 : 1: 14,501
    values (their code repeats 0.5 and 0.9, which adds nothing to the weights).

    Args:
        pieces: (end, spacing) of each piece, in order; the last end is 1.

    Raises:
        ValueError: ends do not increase to 1, or a spacing is not positive or longer than its piece.

    References:
        Salakhutdinov and Murray, On the quantitative analysis of deep belief networks, ICML 2008, section 4, and their code.
    """
    ends = [0.0, *(end for end, _ in pieces)]
    increasing = all(a < b for a, b in pairwise(ends))
    require(increasing and ends[-1] == 1.0, "ends of the pieces", ends[1:], "increasing, the last one 1")
    values = [torch.zeros(1, dtype=torch.float64)]
    for start, (end, spacing) in zip(ends, pieces):
        # a little more than the length: 0.9 - 0.5 is not quite 0.4
        require(0 < spacing <= (end - start) * 1.001, "spacing", spacing, f"more than 0, up to {end - start:g}")
        values.append(torch.linspace(start, end, round((end - start) / spacing) + 1, dtype=torch.float64)[1:])
    return torch.cat(values)


def linear_schedule(steps: int) -> Tensor:
    """``steps`` + 1 equally spaced inverse temperatures from 0 to 1, float64 (``steps`` >= 1, else a ValueError)."""
    require(steps >= 1, "steps", steps, "an integer of 1 or more")
    return torch.linspace(0, 1, steps + 1, dtype=torch.float64)


def ais(
    path: Path,
    kernel_at: KernelAt,
    betas: Sequence[float] | Tensor,
    x: Tensor,
    generator: torch.Generator,
    log_base: float = 0.0,
) -> Annealed:
    r"""Annealed importance sampling from exact draws of the base up to the target.

    The weights are unbiased for :math:`Z_K / Z_0`, so that by Jensen's inequality the estimate of log Z is, in expectation,
    a stochastic **lower** bound: it is seldom much above log Z, and may lie far below it.

    Args:
        path: log f_beta; f_0 is the base.
        kernel_at: inverse temperature (a float) -> kernel that leaves p_beta invariant.
        betas: from 0 to 1, increasing: :func:`schedule`, :func:`linear_schedule`.
        x: **exact** draws from the base, one for each chain.
        generator: the source of all randomness.
        log_base: log Z_0 in nats.

    Shape:
        x: ``[C, ...]``, C >= 2.

    Raises:
        ValueError: the betas do not increase from 0 to 1, or log weights are NaN.

    References:
        Neal, Annealed importance sampling, Statistics and Computing 2001 (arXiv:physics/9803008), section 2.
        Goodfellow et al., Deep learning, MIT Press 2016, section 18.7.1.
    """
    x, log_weight, acceptance = _anneal(path, kernel_at, _checked(betas), x, generator)
    return Annealed(x, log_weight, log_z(log_weight, log_base), acceptance)


def reverse_ais(
    path: Path,
    kernel_at: KernelAt,
    betas: Sequence[float] | Tensor,
    x: Tensor,
    generator: torch.Generator,
    log_base: float = 0.0,
) -> Annealed:
    r"""Annealing from exact draws of the **target** down to the base: the other half of bidirectional Monte Carlo.

    The weights are unbiased for :math:`Z_0 / Z_K`, so that :math:`\log Z_0 - \log \bar w` is, in expectation, a stochastic
    **upper** bound of log Z. This holds for exact draws only; draws of a chain that has not converged (or data in the place of
    the model's own samples) give an estimate that bounds nothing.

    Arguments and errors are those of :func:`ais`, in the same order of betas, except for where the chains begin.

    Args:
        x: **exact** draws from the target, one for each chain.

    References:
        Grosse, Ghahramani and Adams, Sandwiching the marginal likelihood using bidirectional Monte Carlo, 2015
        (arXiv:1511.02543). Burda, Grosse and Salakhutdinov, Accurate and conservative estimates of MRF
        log-likelihood using reverse annealing, AISTATS 2015 (arXiv:1412.8566).
    """
    x, log_weight, acceptance = _anneal(path, kernel_at, _checked(betas)[::-1], x, generator)
    return Annealed(x, log_weight, reverse_log_z(log_weight, log_base), acceptance)


@torch.no_grad()
def _anneal(
    path: Path, kernel_at: KernelAt, betas: list[float], x: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    # no float64 on Apple's GPUs
    log_weight = torch.zeros(len(x), device=x.device, dtype=torch.float32 if x.device.type == "mps" else torch.float64)
    accepted = torch.zeros(len(x), device=x.device)
    for k, (old, new) in enumerate(pairwise(betas), 1):
        log_weight += path.difference(x, new, old)
        if k < len(betas) - 1:  # the last transition would change no weight
            x, rate, _ = kernel_at(new)(x, generator)
            accepted += rate
    return x, log_weight, accepted / max(len(betas) - 2, 1)


def _checked(betas: Sequence[float] | Tensor) -> list[float]:
    values = betas.tolist() if isinstance(betas, Tensor) else [float(beta) for beta in betas]
    ends = values[0] == 0 and values[-1] == 1 if len(values) >= 2 else False
    increasing = all(a < b for a, b in pairwise(values))
    shown = values if len(values) <= 6 else [*values[:3], "...", *values[-2:]]
    require(ends and increasing, "betas", shown, "increasing, from 0 to 1")
    return values
