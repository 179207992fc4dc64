"""Where an RBM's gradient gets the model's states from: contrastive divergence, persistent chains, parallel tempering."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gen.core.errors import require
from lit_gen.core.random import RowNoise, run_seed, seeded_generator
from lit_gen.energy.chains import PersistentChains
from lit_gen.energy.machine import BipartiteMachine
from lit_gen.energy.path import TemperedPath


class NegativePhase:
    """Supplies visible states of the model.

    Args:
        k: steps v -> h -> v for each update.
        chains: persistent chains over all processes; None where there are none.

    Raises:
        UsageError: k < 1, or no chain.
    """

    def __init__(self, k: int, chains: int | None) -> None:
        require(k >= 1, "k", k, "an integer of 1 or more")
        self.k = k
        self.chains = None if chains is None else PersistentChains(chains)

    def start(self, machine: BipartiteMachine, mean: Tensor) -> None:
        """Begins or takes up the persistent chains; called once before the first update.

        Args:
            machine: the machine to sample from.
            mean: mean visible state of the data, ``[visible.dim]``.
        """

    def states(self, machine: BipartiteMachine, v: Tensor, field: Tensor, noise: RowNoise) -> Tensor:
        """Visible states of the model, ``[N, visible.dim]``.

        Args:
            machine: the machine to sample from.
            v: the batch's visible states ``[B, visible.dim]``.
            field: the hidden units' field at v, ``[B, hidden.dim]``.
            noise: of the batch's rows.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement states")

    def base_states(self, path: TemperedPath, count: int) -> Tensor:
        """Where so many chains begin: draws from the base-rate model, the same on every process."""
        device = path.machine.weight.device
        return path.start(RowNoise.of(seeded_generator(run_seed(), "chains", device=device), count, device))


class ContrastiveDivergence(NegativePhase):
    """CD-k: chains that begin at the data of every batch and make k steps.

    Args:
        k: steps v -> h -> v.

    Raises:
        UsageError: k < 1.

    References:
        Hinton, Training Products of Experts by Minimizing Contrastive Divergence, Neural Computation 2002.
    """

    def __init__(self, k: int = 1) -> None:
        super().__init__(k, None)

    def states(self, machine: BipartiteMachine, v: Tensor, field: Tensor, noise: RowNoise) -> Tensor:
        return machine.gibbs(v, self.k, noise, field=field)


class PersistentContrastiveDivergence(NegativePhase):
    """PCD-k: C chains that go on from batch to batch, k steps each time.

    Args:
        k: steps v -> h -> v for each update.
        chains: C, over all processes.

    Raises:
        UsageError: k < 1, or fewer chains than processes.

    References:
        Tieleman, Training Restricted Boltzmann Machines using Approximations to the Likelihood Gradient, ICML 2008.
    """

    def __init__(self, k: int = 1, chains: int = 100) -> None:
        super().__init__(k, chains)

    def start(self, machine: BipartiteMachine, mean: Tensor) -> None:
        self.chains.start(lambda: self.base_states(TemperedPath(machine, mean), self.chains.count), mean.device)

    def states(self, machine: BipartiteMachine, v: Tensor, field: Tensor, noise: RowNoise) -> Tensor:
        self.chains.state = machine.gibbs(self.chains.state, self.k, self.chains.noise(noise.key, v.device))
        return self.chains.state


class ParallelTempering(NegativePhase):
    r"""C persistent chains, each at T inverse temperatures whose neighbours exchange states; the model's are those at 1.

    The temperatures lie on the :class:`TemperedPath`, equally spaced from the base rates, which are drawn exactly, to the
    machine. After every step the neighbours i and i + 1 are exchanged with probability
    :math:`\min(1, p_i(v_{i+1})\,p_{i+1}(v_i) / p_i(v_i)\,p_{i+1}(v_{i+1}))`, first the pairs with even i, then the odd.

    Args:
        k: steps for each update.
        chains: C, over all processes.
        temperatures: T.

    Raises:
        UsageError: k < 1, T < 2, or fewer chains than processes.

    References:
        Desjardins, Courville, Bengio, Vincent and Delalleau, Tempered Markov Chain Monte Carlo for Training of Restricted
        Boltzmann Machines, AISTATS 2010. Cho, Raiko and Ilin, Parallel Tempering is Efficient for Learning Restricted
        Boltzmann Machines, IJCNN 2010.
    """

    def __init__(self, k: int = 1, chains: int = 100, temperatures: int = 10) -> None:
        super().__init__(k, chains)
        require(temperatures >= 2, "temperatures", temperatures, "2 or more")
        self.temperatures = temperatures
        self.path: TemperedPath | None = None

    def start(self, machine: BipartiteMachine, mean: Tensor) -> None:
        self.path = TemperedPath(machine, mean)
        self.beta = torch.linspace(0, 1, self.temperatures, device=mean.device).unsqueeze(-1)
        count, shape = self.chains.count * self.temperatures, (self.chains.count, self.temperatures, -1)
        # a chain's replicas [T, dim] stay together on one process
        self.chains.start(lambda: self.base_states(self.path, count).view(shape), mean.device)

    def states(self, machine: BipartiteMachine, v: Tensor, field: Tensor, noise: RowNoise) -> Tensor:
        noise = self.chains.noise(noise.key, v.device)
        for _ in range(self.k):
            self.chains.state = self.exchange(self.path.step(self.chains.state, self.beta, noise), noise)
        return self.chains.state[:, -1]

    def exchange(self, state: Tensor, noise: RowNoise) -> Tensor:
        """The states ``[C, T, dim]`` after the neighbours' exchanges."""
        field = self.path.machine.hidden_field(state)
        for first in (0, 1):
            low = torch.arange(first, self.temperatures - 1, 2, device=state.device)
            if len(low) == 0:
                continue
            pair = torch.stack([low, low + 1])  # [2, P]
            v, f, beta = state[:, pair], field[:, pair], self.beta[pair]  # [C, 2, P, dim]
            own = self.path.log_density(v, beta, f).sum(1)
            other = self.path.log_density(v, beta.flip(0), f).sum(1)
            accept = noise.uniform(len(low)).log() < other - own  # [C, P]
            order = torch.where(accept.unsqueeze(1), pair.flip(0), pair)  # [C, 2, P]
            index = torch.arange(self.temperatures, device=state.device).repeat(len(state), 1)
            index[:, pair.flatten()] = order.flatten(1)
            state = state.gather(1, index.unsqueeze(-1).expand_as(state))
            field = field.gather(1, index.unsqueeze(-1).expand_as(field))
        return state
