r"""A path of distributions from independent visible units to a bipartite machine: what annealing and tempering walk along.

.. math::
    E_\beta(v, h) = \epsilon_v(v) + \epsilon_h(h) - \beta\,(s(v) - o_v)^T W (s(h) - o_h)
                    - (1 - \beta)\,[s(v)^T (a_0 - a) - s(h)^T c]

with the constant fields a of the visible and c of the hidden units, and :math:`a_0` that of the base-rate model. At
:math:`\beta = 1` this is the machine, at :math:`\beta = 0` visible units are independent with the base rates :math:`a_0` and
hidden ones feel nothing: for binary units :math:`\log p_\beta` is the geometric path of Salakhutdinov and Murray (equation 15).
Only fields change along the path, so that it is the same for every kind of unit, and proper for Gaussian ones at every
:math:`\beta`.

References:
    Salakhutdinov and Murray, On the Quantitative Analysis of Deep Belief Networks, ICML 2008, section 4.1.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from lit_gen.core.random import RowNoise
from lit_gen.energy.machine import BipartiteMachine

SMOOTHING = 0.05
"""Weight of the uniform distribution in the base rates: no pixel is impossible (the authors' code adds 5 % as well)."""


class TemperedPath:
    """Densities and Gibbs transitions at any inverse temperature between base rates and machine.

    The parameters are read at every call: the path follows a machine that is being trained.

    Args:
        machine: the end of the path.
        mean: mean visible state of the data ``[visible.dim]``, for the base rates.

    Shape:
        v: ``[..., visible.dim]``; beta: a number, or a tensor that broadcasts against ``[..., 1]``.
    """

    def __init__(self, machine: BipartiteMachine, mean: Tensor) -> None:
        self.machine = machine
        self.base = copy.deepcopy(machine.visible).requires_grad_(False)
        self.base.fit(mean, SMOOTHING)

    def base_field(self) -> Tensor:
        """a_0 - a, ``[visible.dim]``."""
        return self.base.constant_field() - self.machine.visible.constant_field()

    @torch.no_grad()
    def start(self, noise: RowNoise) -> Tensor:
        """Exact draws from the base-rate model (beta = 0), ``[rows, visible.dim]``."""
        field = self.base_field().expand(noise.rows, -1).clone()
        return self.machine.visible.sample_(field, noise, self.machine.beta)

    @torch.no_grad()
    def log_z0(self) -> Tensor:
        """The exact log Z at beta = 0."""
        machine = self.machine
        hidden = machine.hidden.log_partition(-machine.hidden.constant_field(), machine.beta)
        return machine.visible.log_partition(self.base_field(), machine.beta) + hidden

    @torch.no_grad()
    def log_density(self, v: Tensor, beta: float | Tensor, field: Tensor | None = None) -> Tensor:
        """log of the unnormalised density of v at beta, ``[...]``; ``field``: the hidden units' field at v, if known."""
        machine = self.machine
        field = machine.hidden_field(v) if field is None else field
        hidden = machine.hidden.log_partition(self.hidden_field(field, beta), machine.beta)
        linear = ((1 - beta) * machine.visible.coupled(v) * self.base_field()).sum(-1)
        if machine.centred:
            linear = linear - (beta * field * machine.hidden_offset).sum(-1)
        return machine.beta * (linear - machine.visible.energy(v)) + hidden

    def hidden_field(self, field: Tensor, beta: float | Tensor) -> Tensor:
        """The hidden units' field at beta, given the machine's."""
        return beta * field - (1 - beta) * self.machine.hidden.constant_field()

    @torch.no_grad()
    def step(self, v: Tensor, beta: float | Tensor, noise: RowNoise, field: Tensor | None = None) -> Tensor:
        """One step v -> h -> v of block Gibbs sampling, which leaves the distribution at beta as it is."""
        machine = self.machine
        field = machine.hidden_field(v) if field is None else field
        h = machine.hidden.sample_(self.hidden_field(field, beta), noise, machine.beta)
        v = machine.visible_field(h).mul_(beta).add_((1 - beta) * self.base_field())
        return machine.visible.sample_(v, noise, machine.beta)
