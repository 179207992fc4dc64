r"""What a Markov chain Monte Carlo method is here: a function from the state of C chains to their next state.

A kernel :math:`T(x' \mid x)` that leaves :math:`p` invariant, :math:`\sum_x p(x)\, T(x' \mid x) = p(x')`, is any callable
``kernel(x, generator) -> Transition``. Kernels hold settings, never the state of a chain, so that they compose: a swap of
replicas, an annealing run and a plain chain all take the same objects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lit_gen.energy.samplers.checks import require

LogDensity = Callable[[Tensor], Tensor]
"""States ``[C, ...]`` -> log of an unnormalised density ``[C]``; each row by itself."""


class Transition(NamedTuple):
    """One step of C chains.

    Attributes:
        x: the new states ``[C, ...]``, dtype and device of the old ones.
        accepted: share of this step's proposals that each chain accepted, ``[C]``; 1 for kernels that never reject.
        swapped: replica exchange only: which pairs of neighbouring temperatures swapped (1 or 0), ``[T - 1, C]``.
    """

    x: Tensor
    accepted: Tensor
    swapped: Tensor | None = None


Kernel = Callable[[Tensor, torch.Generator], Transition]


class Chains(NamedTuple):
    """What :func:`run_chains` collects.

    Attributes:
        draws: kept states ``[draws, C, ...]``.
        x: the last state ``[C, ...]``, to go on from.
        acceptance: mean of ``Transition.accepted`` after the burn-in, ``[C]``.
        swap_rate: mean of ``Transition.swapped`` after the burn-in, or None.
    """

    draws: Tensor
    x: Tensor
    acceptance: Tensor
    swap_rate: Tensor | None


@torch.no_grad()
def run_chains(
    kernel: Kernel, x: Tensor, steps: int, generator: torch.Generator, burn_in: int = 0, thin: int = 1
) -> Chains:
    """Runs the chains ``burn_in`` steps, then ``steps`` more, of which every ``thin``-th state is kept.

    Thinning saves memory only: averages over all states are never worse than over the thinned ones (Geyer 1992).

    Args:
        kernel: the transition.
        x: where the chains begin.
        steps: steps after the burn-in; ``steps // thin`` states are kept.
        generator: the source of all randomness, on the device of ``x``.
        burn_in: steps thrown away.
        thin: keep one state in so many.

    Shape:
        x: ``[C, ...]``.

    Raises:
        ValueError: a count is out of range.

    References:
        Geyer, Practical Markov chain Monte Carlo, Statistical Science 1992.
    """
    require(burn_in >= 0, "burn_in", burn_in, "an integer of 0 or more")
    require(thin >= 1, "thin", thin, "an integer of 1 or more")
    require(steps >= thin, "steps", steps, f"an integer of thin = {thin} or more")
    for _ in range(burn_in):
        x = kernel(x, generator).x
    draws = x.new_empty(steps // thin, *x.shape)
    accepted: Tensor | float = 0.0
    swapped: Tensor | None = None
    for step in range(1, steps + 1):
        transition = kernel(x, generator)
        x = transition.x
        accepted = accepted + transition.accepted
        if transition.swapped is not None:
            swapped = transition.swapped if swapped is None else swapped + transition.swapped
        if step % thin == 0:
            draws[step // thin - 1] = x
    return Chains(draws, x, accepted / steps, None if swapped is None else swapped / steps)


def evaluate(log_density: LogDensity, x: Tensor) -> Tensor:
    """The log density of each chain, ``[C]``.

    Raises:
        ValueError: it returned another shape, which would broadcast to nonsense.
    """
    value = log_density(x)
    require(value.shape == x.shape[:1], "shape of the log density", list(value.shape), f"{list(x.shape[:1])}")
    return value


def per_chain(value: Tensor, x: Tensor) -> Tensor:
    """``[C]`` -> ``[C, 1, ..., 1]``, to broadcast against states."""
    return value.reshape(-1, *[1] * (x.ndim - 1))


def accept(log_ratio: Tensor, generator: torch.Generator) -> Tensor:
    """True with probability min(1, exp(log_ratio)); never for NaN or minus infinity.

    A uniform u has -log u ~ Exp(1), which is drawn directly: no logarithm of a rounded 0.
    """
    return -torch.empty_like(log_ratio).exponential_(generator=generator) < log_ratio


def standard_normal(x: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise with shape, dtype and device of ``x``."""
    return torch.empty_like(x).normal_(generator=generator)
