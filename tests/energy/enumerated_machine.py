"""Small bipartite machines of every kind of unit, and what is known of them by writing out all their states.

Nothing here calls the machine's own energies: they are written down again from its parameters. A Gaussian unit is written out
on a fine grid, whose trapezoidal sums of Gaussians are exact to float64 as long as the spacing is less than half a deviation.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy import stats
from torch import Tensor

from lit_gen.core.random import BatchKey, RowNoise
from lit_gen.energy.joined import Joined
from lit_gen.energy.machine import BipartiteMachine
from lit_gen.energy.units import Bernoulli, Gaussian, Softmax, Units

ALPHA = 1e-4  # a right sampler fails a test with this probability, under seeds that are fixed
SURE = 1e-6  # a wrong one must be rejected at this level
GRID = torch.arange(-14.0, 14.0, 0.2, dtype=torch.float64)

LAYERS: dict[str, Callable[[], tuple[Units, Units]]] = {
    "bernoulli_bernoulli": lambda: (Bernoulli(4), Bernoulli(3)),
    "gaussian_bernoulli": lambda: (Gaussian(2, sigma=0.7), Bernoulli(3)),
    "learned_gaussian_bernoulli": lambda: (Gaussian(2, learn_sigma=True), Bernoulli(3)),
    "bernoulli_gaussian": lambda: (Bernoulli(4), Gaussian(2, sigma=0.8)),
    "softmax_bernoulli": lambda: (Softmax(2, 3), Bernoulli(3)),
    "labelled_bernoulli": lambda: (Joined([Bernoulli(3), Softmax(1, 3)]), Bernoulli(3)),
    "bernoulli_softmax": lambda: (Bernoulli(3), Softmax(1, 4)),
}
DISCRETE = [name for name in LAYERS if not name.endswith("gaussian_bernoulli")]
"""Those whose visible states can be counted."""
SETTINGS = {"plain": (False, 1.0), "hot": (False, 1.7), "centred": (True, 1.0), "centred_cold": (True, 0.6)}
"""Whether centred, and temperature."""


def make_machine(name: str, setting: str = "plain", seed: int = 0, scale: float = 0.8) -> BipartiteMachine:
    """A machine in float64 all of whose parameters and offsets matter."""
    visible, hidden = LAYERS[name]()
    return randomised(BipartiteMachine(visible, hidden, 0.0, *SETTINGS[setting]), seed, scale)


def randomised(machine: BipartiteMachine, seed: int = 0, scale: float = 0.8) -> BipartiteMachine:
    """The machine in float64 with random parameters and, where it is centred, random offsets."""
    machine, noise = machine.double(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter_name, parameter in machine.named_parameters():
            spread = scale if parameter_name == "weight" else 0.3 if "variance" in parameter_name else 0.7
            parameter.normal_(std=spread, generator=noise)
        if machine.centred:
            machine.visible_offset.uniform_(generator=noise)
            machine.hidden_offset.uniform_(generator=noise)
    return machine


def row_noise(rows: int, seed: int = 0) -> RowNoise:
    return RowNoise(BatchKey(seed, 0, rows), rows, "test")


# ---------------------------------------------------------------- the definition


def written_out(units: Units) -> tuple[Tensor, float]:
    """All states ``[S, dim]`` in float64, and the logarithm of the volume that each stands for."""
    if isinstance(units, Joined):
        states, volume = torch.zeros(1, 0, dtype=torch.float64), 0.0
        for part in units.parts:
            more, log_volume = written_out(part)
            states = torch.cat([states.repeat_interleave(len(more), 0), more.repeat(len(states), 1)], 1)
            volume += log_volume
        return states, volume
    if isinstance(units, Gaussian):
        return torch.cartesian_prod(*[GRID] * units.n).view(-1, units.n), units.n * math.log(GRID[1] - GRID[0])
    one = torch.eye(units.categories) if isinstance(units, Softmax) else torch.tensor([[0.0], [1.0]])
    rows = torch.cartesian_prod(*[torch.arange(len(one))] * units.n).view(-1, units.n)
    return one[rows].flatten(1).double(), 0.0


def own_energy(units: Units, x: Tensor) -> Tensor:
    """The units' own energy, by its definition."""
    if isinstance(units, Joined):
        pieces = x.split([part.dim for part in units.parts], -1)
        return sum(own_energy(part, piece) for part, piece in zip(units.parts, pieces))
    if isinstance(units, Gaussian):
        return ((x - units.mu) ** 2 / (2 * units.log_variance.exp())).sum(-1)
    return -(x * units.bias).sum(-1)


def statistic(units: Units, x: Tensor) -> Tensor:
    """What the weights multiply, by its definition."""
    return x / units.log_variance.exp().sqrt() if isinstance(units, Gaussian) else x


def reduced_energy(machine: BipartiteMachine, v: Tensor, h: Tensor) -> Tensor:
    """E(v, h) / T for all pairs, ``[V, H]``, by its definition."""
    left = statistic(machine.visible, v) - machine.visible_offset
    right = statistic(machine.hidden, h) - machine.hidden_offset
    energy = (
        own_energy(machine.visible, v).unsqueeze(1) + own_energy(machine.hidden, h) - left @ machine.weight @ right.T
    )
    return machine.beta * energy


class Enumeration:
    """The joint distribution of a machine, as a function of its parameters."""

    def __init__(self, machine: BipartiteMachine) -> None:
        self.machine = machine
        self.v, self.log_dv = written_out(machine.visible)
        self.h, self.log_dh = written_out(machine.hidden)

    def free_energy(self, v: Tensor) -> Tensor:
        return -torch.logsumexp(self.log_dh - reduced_energy(self.machine, v, self.h), 1)

    def log_z(self) -> Tensor:
        return torch.logsumexp(self.log_dv - self.free_energy(self.v), 0)

    def log_prob(self, v: Tensor) -> Tensor:
        """log p(v), differentiable."""
        return -self.free_energy(v) - self.log_z()

    @torch.no_grad()
    def joint(self) -> Tensor:
        """Probabilities ``[V, H]``."""
        logs = -reduced_energy(self.machine, self.v, self.h)
        return logs.flatten().softmax(0).view_as(logs)

    def hidden_given_visible(self, v: Tensor | None = None) -> Tensor:
        """``[V, H]``, rows sum to 1."""
        with torch.no_grad():
            return (-reduced_energy(self.machine, self.v if v is None else v, self.h)).softmax(1)

    def visible_given_hidden(self) -> Tensor:
        """``[H, V]``, rows sum to 1."""
        with torch.no_grad():
            return (-reduced_energy(self.machine, self.v, self.h)).softmax(0).T

    def transitions(self) -> Tensor:
        """T(v, v') of one step v -> h -> v', ``[V, V]``."""
        return self.hidden_given_visible() @ self.visible_given_hidden()

    def code(self, v: Tensor) -> Tensor:
        """Row of :attr:`v` that each state is."""
        distance = torch.cdist(v.double(), self.v, p=1)
        assert distance.min(1).values.max() == 0, "no state of the visible units"
        return distance.argmin(1)

    def counts(self, v: Tensor) -> Tensor:
        return torch.bincount(self.code(v), minlength=len(self.v)).double()

    @torch.no_grad()
    def after(self, start: Tensor, steps: int) -> Tensor:
        """Probabilities ``[B, V]`` of the visible states after so many steps from each start ``[B, dim]``."""
        back, forth = self.hidden_given_visible(), self.visible_given_hidden()
        p = self.hidden_given_visible(start) @ forth
        for _ in range(steps - 1):
            p = p @ back @ forth
        return p


def gradients(machine: BipartiteMachine, v: Tensor) -> Tensor:
    """The machine's gradient of the free energy of each state ``[B, dim]`` by all parameters, side by side, ``[B, P]``."""
    parameters = {name: p.detach() for name, p in machine.named_parameters()}

    def free_energy(parameters: dict[str, Tensor], state: Tensor) -> Tensor:
        return torch.func.functional_call(machine, parameters, (state,))[0]

    parts = torch.func.vmap(torch.func.grad(free_energy), (None, 0))(parameters, v)
    return torch.cat([part.flatten(1) for part in parts.values()], 1)


def gradient(machine: BipartiteMachine, value: Tensor) -> Tensor:
    """The gradient of a number by all parameters, side by side, ``[P]``."""
    parameters = list(machine.parameters())
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, parameters)])


# ---------------------------------------------------------------- tests of goodness of fit


def chi_square(counts: Tensor, p: Tensor) -> float:
    """p-value of counts; states that are expected less than five times are put together."""
    expected = p * counts.sum()
    rare = expected < 5
    if rare.any():
        counts = torch.cat([counts[~rare], counts[rare].sum().view(1)])
        expected = torch.cat([expected[~rare], expected[rare].sum().view(1)])
    statistic = ((counts - expected).square() / expected.clamp(min=1e-9)).sum().item()
    return stats.chi2.sf(statistic, len(counts) - 1)


def mean_p_value(mean: Tensor, expected: Tensor, covariance: Tensor, n: int) -> float:
    """p-value that n independent vectors of this covariance have this mean; directions without variance must agree."""
    values, vectors = torch.linalg.eigh(covariance)
    projected = vectors.T @ (mean - expected)
    moves = values > 1e-11 * values.max()
    assert (projected[~moves].abs() < 1e-6).all()
    return stats.chi2.sf((n * projected[moves].square() / values[moves]).sum().item(), int(moves.sum()))
