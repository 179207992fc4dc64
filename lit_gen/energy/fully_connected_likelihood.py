"""The likelihood of a general Boltzmann machine: exact for a small one, by sums over all its states, else annealed.

The exact quantities are differentiable; moments are meant to be taken without autograd, since they are the gradient.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gen.core.errors import UsageError
from lit_gen.core.random import RowNoise
from lit_gen.energy.fully_connected import FullyConnected, Moments
from lit_gen.energy.samplers import GeometricPath, LogZ, Transition, ais, linear_schedule
from lit_gen.energy.sequential_sweeps import SequentialSweeps
from lit_gen.energy.units import ENUMERABLE

CHUNK = 1 << 17
"""States looked at together."""


def check_enumerable(units: int, what: str) -> None:
    """Refuses to sum over more states than 2^20.

    Raises:
        UsageError: naming the number of units and the limit.
    """
    if units > ENUMERABLE:
        raise UsageError(f"{what} needs a sum over the states of K = {units} units; accepted: at most {ENUMERABLE}")


def all_states(units: int, like: Tensor) -> Tensor:
    """All of {0, 1}^units, ``[2^units, units]``, in the order of binary numbers (first unit: lowest bit)."""
    numbers = torch.arange(1 << units, device=like.device)
    return (numbers[:, None] >> torch.arange(units, device=like.device) & 1).to(like)


def hidden_log_weights(machine: FullyConnected, visible: Tensor) -> Tensor:
    """-E(v, h) / T for every h, ``[N, 2^H]``, of visible values ``[N, V]``.

    Raises:
        UsageError: too many hidden units to enumerate.
    """
    check_enumerable(machine.hidden, "an exact free energy")
    weight, bias, n = machine.weight, machine.bias, machine.visible
    hidden = all_states(machine.hidden, weight)
    of_visible = 0.5 * (visible @ weight[:n, :n] * visible).sum(-1) + visible @ bias[:n]
    of_hidden = 0.5 * (hidden @ weight[n:, n:] * hidden).sum(-1) + hidden @ bias[n:]
    return (of_visible[:, None] + of_hidden + visible @ weight[:n, n:] @ hidden.t()) / machine.temperature


def _visible_chunks(machine: FullyConnected) -> Iterator[Tensor]:
    check_enumerable(machine.units, "an exact log Z")
    states = all_states(machine.visible, machine.couplings)
    yield from states.split(max(1, CHUNK >> machine.hidden))


def free_energy(machine: FullyConnected, visible: Tensor) -> Tensor:
    r""":math:`F(v) = -T \log \sum_h e^{-E(v, h)/T}`, ``[N]``, by enumeration of the hidden states."""
    chunks = visible.split(max(1, CHUNK >> machine.hidden))
    return -machine.temperature * torch.cat([hidden_log_weights(machine, chunk).logsumexp(-1) for chunk in chunks])


def log_partition(machine: FullyConnected) -> Tensor:
    r""":math:`\log Z = \log \sum_s e^{-E(s)/T}`, a scalar, by enumeration.

    Raises:
        UsageError: the machine has more than 20 units.
    """
    parts = [hidden_log_weights(machine, chunk).flatten().logsumexp(0) for chunk in _visible_chunks(machine)]
    return torch.stack(parts).logsumexp(0)


def log_likelihood(machine: FullyConnected, visible: Tensor) -> Tensor:
    """log p(v) ``[N]`` in nats, with the hidden units summed out.

    Raises:
        UsageError: the machine has more than 20 units.
    """
    return -free_energy(machine, visible) / machine.temperature - log_partition(machine)


def model_moments(machine: FullyConnected) -> Moments:
    """Moments of p(s).

    Raises:
        UsageError: the machine has more than 20 units.
    """
    log_z = log_partition(machine)
    return _sum(
        _weighted(machine, chunk, (hidden_log_weights(machine, chunk) - log_z).exp())
        for chunk in _visible_chunks(machine)
    )


def data_moments(machine: FullyConnected, visible: Tensor) -> Moments:
    """Moments of p(h | v) times the rows of ``visible`` ``[N, V]``, equally weighted."""
    return _sum(
        _weighted(machine, chunk, hidden_log_weights(machine, chunk).softmax(-1) / len(visible))
        for chunk in visible.split(max(1, CHUNK >> machine.hidden))
    )


def hidden_probability(machine: FullyConnected, visible: Tensor) -> Tensor:
    """p(h_j = 1 | v), ``[N, H]``."""
    return hidden_log_weights(machine, visible).softmax(-1) @ all_states(machine.hidden, visible)


def _weighted(machine: FullyConnected, visible: Tensor, probability: Tensor) -> Moments:
    """What the joint states (rows of ``visible``, all h) with these probabilities ``[n, 2^H]`` add to the moments."""
    hidden = all_states(machine.hidden, visible)
    of_visible, of_hidden = probability.sum(1), probability.sum(0)
    cross = visible.t() @ (probability @ hidden)
    upper = torch.cat([visible.t() * of_visible @ visible, cross], 1)
    lower = torch.cat([cross.t(), hidden.t() * of_hidden @ hidden], 1)
    return Moments(torch.cat([of_visible @ visible, of_hidden @ hidden]), torch.cat([upper, lower]))


def _sum(parts: Iterator[Moments]) -> Moments:
    total = next(parts)
    for part in parts:
        total = Moments(total.first + part.first, total.second + part.second)
    return total


@torch.no_grad()
def annealed_log_partition(
    machine: FullyConnected, rate: Tensor, steps: int, chains: int, generator: torch.Generator
) -> LogZ:
    r"""Estimates log Z by annealed importance sampling, from independent units up to the machine.

    .. math:: p_\beta(s) \propto \exp(-\beta E(s) / T + (1 - \beta) \textstyle\sum_i s_i \,\mathrm{logit}(r_i))

    with a Gibbs sweep at each of the inverse temperatures. A stochastic lower bound; see :func:`lit_gen.energy.samplers.ais`.

    Args:
        machine: the machine.
        rate: r, the probabilities of the base, strictly between 0 and 1.
        steps: number of inverse temperatures above 0, equally spaced.
        chains: number of importance weights.
        generator: the source of all randomness, on the machine's device.

    Shape:
        rate: ``[K]``.

    References:
        Salakhutdinov, Learning and evaluating Boltzmann machines, University of Toronto TR 2008-002, section 3.
    """
    weight, bias, base = machine.weight, machine.bias, rate.logit()
    noise = RowNoise.of(generator, chains, weight.device)
    start = (noise.uniform(len(bias)) < rate).to(weight)
    sweeps = SequentialSweeps(weight, bias, start)

    def kernel_at(beta: float):
        def kernel(state: Tensor, generator: torch.Generator) -> Transition:
            sweeps.beta, sweeps.field = beta / machine.temperature, (1 - beta) * base
            sweeps.state = state
            sweeps.sweep(noise)
            return Transition(sweeps.state, state.new_ones(len(state)))

        return kernel

    path = GeometricPath(
        log_target=lambda state: (0.5 * (state @ weight * state).sum(-1) + state @ bias) / machine.temperature,
        log_base=lambda state: state @ base,
    )
    return ais(path, kernel_at, linear_schedule(steps), start, generator, F.softplus(base).sum().item()).log_z
