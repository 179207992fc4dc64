"""Small deep belief networks in float64, and what is known of them by writing out all their states.

Nothing here calls the network's own conditionals or energies: they are written down again from its parameters.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_gen.energy.belief_network import BeliefNetwork
from lit_gen.energy.units import Bernoulli


def make_network(
    visible: int, hidden: list[int], classes: int = 0, untied: bool = False, seed: int = 0
) -> BeliefNetwork:
    """A network in float64 all of whose layers are in use and all of whose parameters matter."""
    network = BeliefNetwork(Bernoulli(visible), hidden, classes, doubled=untied).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.9, generator=generator)
    network.grow(len(hidden))
    if untied:
        for layer in network.below:
            layer.untied.fill_(True)
    return network


def binary(n: int) -> Tensor:
    """All states of n binary units, ``[2^n, n]``."""
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=n)), dtype=torch.float64)


def bernoulli(field: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """log p of binary states x, ``[len(field), len(x)]``, given fields ``[n, dim]``."""
    on = torch.sigmoid(field + bias)
    return on.log() @ x.T + (1 - on).log() @ (1 - x).T


@dataclass
class WrittenOut:
    """A network's distributions as tables.

    states: all states of each layer from the image to what the top machine sees, without the label.
    down: log p(x_l | x_{l+1}), ``[S_{l+1}, S_l]``.
    up: log q(x_{l+1} | x_l), ``[S_l, S_{l+1}]``.
    labelled: log p(x_{L-1}, y), ``[S, K]`` (one column without labels).
    """

    states: list[Tensor]
    down: list[Tensor]
    up: list[Tensor]
    labelled: Tensor
    log_z: float

    @property
    def prior(self) -> Tensor:
        """log p(x_{L-1})."""
        return self.labelled.logsumexp(-1)

    def log_prob(self) -> Tensor:
        """log p(v) of all images."""
        log_p = self.prior
        for table in reversed(self.down):
            log_p = (log_p.unsqueeze(-1) + table).logsumexp(0)
        return log_p

    def bound(self) -> Tensor:
        """E_q[log p(v, x_1, ...) - log q(x_1, ... | v)] of all images."""
        value = self.prior
        for down, up in zip(reversed(self.down), reversed(self.up)):
            value = (up.exp() * (down.T - up + value)).sum(-1)
        return value


def write_out(network: BeliefNetwork) -> WrittenOut:
    """All distributions of a small network."""
    *below, top = network.layers[: network.depth]
    states, down, up = [binary(network.layers[0].machine.weight.shape[0])], [], []
    if not below and network.num_classes and network.labelled:
        states = [binary(network.layers[0].machine.weight.shape[0] - network.num_classes)]
    for layer in below:
        machine = layer.machine
        weight = machine.weight.detach()
        recognition = layer.recognition_weight.detach() if layer.untied else weight
        x, above = states[-1], binary(weight.shape[1])
        down.append(bernoulli(above @ weight.T, machine.visible.bias.detach(), x))
        up.append(bernoulli(x @ recognition, machine.hidden.bias.detach(), above))
        states.append(above)
    machine, x = top.machine, states[-1]
    weight, h = machine.weight.detach(), binary(machine.weight.shape[1])
    if network.labelled:
        pixels, label = machine.visible.parts
        a, u, d = pixels.bias.detach(), weight[x.shape[1] :], label.bias.detach()
    else:
        a, u, d = machine.visible.bias.detach(), torch.zeros(1, weight.shape[1]).double(), torch.zeros(1).double()
    exponent = (x @ a).view(-1, 1, 1) + d.view(1, -1, 1) + (h @ machine.hidden.bias.detach()).view(1, 1, -1)
    exponent = exponent + (x @ weight[: x.shape[1]] @ h.T).unsqueeze(1) + (u @ h.T).unsqueeze(0)
    unnormalised = exponent.logsumexp(-1)
    log_z = unnormalised.flatten().logsumexp(0)
    return WrittenOut(states, down, up, unnormalised - log_z, log_z.item())


def index(states: Tensor) -> Tensor:
    """Rows of :func:`binary` that these binary states ``[..., n]`` are."""
    powers = 2 ** torch.arange(states.shape[-1] - 1, -1, -1)
    return (states.long() * powers).sum(-1)
