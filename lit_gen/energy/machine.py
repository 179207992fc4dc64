r"""The bipartite machine: two layers of units and the weights between them; its energy, free energy and Gibbs steps.

.. math:: E(v, h) = \epsilon_v(v) + \epsilon_h(h) - (s(v) - o_v)^T W (s(h) - o_h)

with the units' own energies :math:`\epsilon` and statistics s (:mod:`lit_gen.energy.units`). The offsets o are zero, or, where
the machine is centred, running means of the statistics: the same family of distributions in other coordinates, in which the
gradient is closer to the natural one. Given one layer, the units of the other are independent, so that the sum over hidden
states is closed:

.. math:: F(v) = -\log \sum_h e^{-E(v, h)} = \epsilon_v(v) + (s(v) - o_v)^T W o_h - \log Z_h(f), \quad f = W^T (s(v) - o_v)

References:
    Smolensky, Information Processing in Dynamical Systems: Foundations of Harmony Theory, 1986.
    Montavon and Müller, Deep Boltzmann Machines and the Centering Trick, 2012.
    Melchior, Fischer and Wiskott, How to Center Deep Boltzmann Machines, JMLR 2016, section 3.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lit_gen.core.errors import require
from lit_gen.core.random import RowNoise
from lit_gen.energy.units import Units


class BipartiteMachine(nn.Module):
    """Energy, free energy and conditional distributions of two layers of units.

    Args:
        visible: the units that are seen.
        hidden: the others.
        weight_std: standard deviation of the initial weights (0.01: Hinton 2012, section 8).
        centred: subtract offsets, which :meth:`move_offsets` keeps up to date.
        temperature: T; all distributions are those of the energy E / T.

    Shape:
        v: ``[..., visible.dim]``, h: ``[..., hidden.dim]``; weight: ``[visible.dim, hidden.dim]``.

    Raises:
        UsageError: a bad temperature or scale.
    """

    visible_offset: Tensor
    hidden_offset: Tensor

    def __init__(
        self, visible: Units, hidden: Units, weight_std: float = 0.01, centred: bool = False, temperature: float = 1.0
    ) -> None:
        super().__init__()
        require(weight_std >= 0, "weight_std", weight_std, "0 or more")
        require(temperature > 0, "temperature", temperature, "a number greater than 0")
        self.visible, self.hidden, self.centred = visible, hidden, centred
        self.beta = 1.0 / temperature
        self.weight = nn.Parameter(weight_std * torch.randn(visible.dim, hidden.dim))
        self.register_buffer("visible_offset", torch.zeros(visible.dim))
        self.register_buffer("hidden_offset", torch.zeros(hidden.dim))

    # ---------------------------------------------------------------- energies

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h) / T, ``[...]``, in nats."""
        interaction = (self.hidden_field(v) * (self.hidden.coupled(h) - self.hidden_offset)).sum(-1)
        return self.beta * (self.visible.energy(v) + self.hidden.energy(h) - interaction)

    def forward(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Free energy ``[...]`` in nats, and the hidden units' field, from which a Gibbs chain can go on."""
        field = self.hidden_field(v)
        return self.free_energy_at(self.visible.energy(v), field), field

    def free_energy_at(self, visible_energy: Tensor, field: Tensor) -> Tensor:
        """F ``[...]`` of visible states with this energy ``[...]`` that give this field ``[..., hidden.dim]``."""
        free_energy = self.beta * visible_energy - self.hidden.log_partition(field, self.beta)
        return free_energy + self.beta * (field @ self.hidden_offset) if self.centred else free_energy

    def free_energy(self, v: Tensor) -> Tensor:
        """F(v) = -log sum_h exp(-E(v, h) / T), ``[...]``, in nats."""
        return self(v)[0]

    def visible_free_energy(self, h: Tensor) -> Tensor:
        """-log sum_v exp(-E(v, h) / T), ``[...]``: the free energy seen from the other side."""
        field = self.visible_field(h)
        free_energy = self.beta * self.hidden.energy(h) - self.visible.log_partition(field, self.beta)
        if self.centred:
            free_energy = free_energy + self.beta * (field @ self.visible_offset)
        return free_energy

    # ---------------------------------------------------------------- conditional distributions

    def hidden_field(self, v: Tensor, out: Tensor | None = None) -> Tensor:
        """What the hidden units receive from the visible ones, ``[..., hidden.dim]``."""
        field = torch.matmul(self.visible.coupled(v), self.weight, out=out)
        # not by a difference in the states: that would take memory at every half-step of a chain
        return field.sub_(self.visible_offset @ self.weight) if self.centred else field

    def visible_field(self, h: Tensor, out: Tensor | None = None) -> Tensor:
        """What the visible units receive from the hidden ones, ``[..., visible.dim]``."""
        field = torch.matmul(self.hidden.coupled(h), self.weight.T, out=out)
        return field.sub_(self.weight @ self.hidden_offset) if self.centred else field

    @torch.no_grad()
    def hidden_mean(self, v: Tensor) -> Tensor:
        """E[h | v]."""
        return self.hidden.mean_(self.hidden_field(v), self.beta)

    @torch.no_grad()
    def visible_mean(self, h: Tensor) -> Tensor:
        """E[v | h]."""
        return self.visible.mean_(self.visible_field(h), self.beta)

    @torch.no_grad()
    def sample_hidden(self, v: Tensor, noise: RowNoise) -> Tensor:
        """h drawn from p(h | v)."""
        return self.hidden.sample_(self.hidden_field(v), noise, self.beta)

    @torch.no_grad()
    def sample_visible(self, h: Tensor, noise: RowNoise) -> Tensor:
        """v drawn from p(v | h)."""
        return self.visible.sample_(self.visible_field(h), noise, self.beta)

    # ---------------------------------------------------------------- block Gibbs sampling

    @torch.no_grad()
    def gibbs(
        self,
        v: Tensor,
        steps: int,
        noise: RowNoise,
        *,
        field: Tensor | None = None,
        known: Tensor | None = None,
        bias: Tensor | None = None,
        visit: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """Visible states after so many steps v -> h -> v of block Gibbs sampling; ``v`` itself is not changed.

        All half-steps work in the memory that the first one takes.

        Args:
            v: where the chains start, ``[B, visible.dim]``.
            steps: k, 1 or more.
            noise: of the chains' rows.
            field: the hidden units' field at v, where it is known already.
            known: bool ``[B, visible.dim]``; where True the state keeps its value (clamped units).
            bias: ``[B, visible.dim]``; a field that the visible units feel besides.
            visit: called at every step with E[v | h], which the step then overwrites.
        """
        start = v
        h = self.hidden_field(v) if field is None else field.clone()
        v = torch.empty_like(v, memory_format=torch.contiguous_format)
        for step in range(steps):
            if step:
                h = self.hidden_field(v, out=h)
            h = self.hidden.sample_(h, noise, self.beta)
            v = self.visible_field(h, out=v)
            if bias is not None:
                v += bias
            v = self.visible.mean_(v, self.beta)
            if visit is not None:
                visit(v)
            v = self.visible.draw_(v, noise, self.beta)
            if known is not None:
                torch.where(known, start, v, out=v)
        return v

    # ---------------------------------------------------------------- centring

    @torch.no_grad()
    def move_offsets(self, v: Tensor, h: Tensor, rate: float) -> None:
        """Moves the offsets towards these mean statistics and the biases such that the distribution stays the same.

        Args:
            v: mean of the visible statistics over data, ``[visible.dim]``.
            h: mean of the hidden statistics given data, ``[hidden.dim]``.
            rate: in [0, 1].
        """
        dv, dh = rate * (v - self.visible_offset), rate * (h - self.hidden_offset)
        self.visible.shift_bias(self.weight @ dh)
        self.hidden.shift_bias(dv @ self.weight)
        self.visible_offset += dv
        self.hidden_offset += dh

    def plain(self) -> "BipartiteMachine":
        """A machine of the same distribution without offsets and at temperature 1, apart from this one.

        Its energy differs by a constant, which does not matter to log p(v).

        Raises:
            UsageError: units whose variance depends on the temperature, at T other than 1.
        """
        machine = copy.deepcopy(self).requires_grad_(False)
        machine.move_offsets(torch.zeros_like(self.visible_offset), torch.zeros_like(self.hidden_offset), 1.0)
        machine.centred = False
        if self.beta != 1.0:
            for units in (machine.visible, machine.hidden):
                require(units.discrete, "temperature", 1 / self.beta, "1 with Gaussian units")
                units.shift_bias((self.beta - 1) * units.constant_field())
            machine.weight *= self.beta
            machine.beta = 1.0
        return machine
