"""Small machines, and what is known of them by writing out all their states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_gen.core.images import ImageSpec
from lit_gen.energy import BoltzmannMachine
from lit_gen.energy.fully_connected import FullyConnected


def make_machine(
    visible: int, hidden: int, scale: float = 1.0, temperature: float = 1.0, seed: int = 0
) -> FullyConnected:
    """A machine in float64 with couplings of a standard deviation that makes them matter."""
    torch.manual_seed(seed)
    machine = FullyConnected(visible, hidden, temperature, weight_std=scale).double()
    with torch.no_grad():
        machine.centred_bias.normal_()
        machine.offset.uniform_()
    return machine


def written_out(machine: FullyConnected) -> tuple[Tensor, Tensor]:
    """All states ``[2^K, K]`` and their probabilities, by the definition: a sum over pairs, in Python."""
    size = machine.units
    weight, bias = machine.weight.detach(), machine.bias.detach()
    states, logs = [], []
    for number in range(1 << size):
        s = [number >> i & 1 for i in range(size)]
        energy = -sum(weight[i, j].item() * s[i] * s[j] for i in range(size) for j in range(i + 1, size))
        energy -= sum(bias[i].item() * s[i] for i in range(size))
        states.append(s)
        logs.append(-energy / machine.temperature)
    return torch.tensor(states, dtype=torch.float64), torch.tensor(logs, dtype=torch.float64).softmax(0)


def number_of(state: Tensor) -> Tensor:
    """The row of :func:`written_out` that holds each state ``[N, K]``."""
    return (state.long() << torch.arange(state.shape[1])).sum(1)


def make_model(
    shape: tuple[int, int, int] = (1, 2, 3), seed: int = 0, scale: float = 1.0, **options: Any
) -> BoltzmannMachine:
    """A model with strong random couplings, in float64."""
    options = {"hidden_units": 2, "sample_steps": 5, "ais_steps": 20, "ais_chains": 8, "n_chains": 8} | options
    model = BoltzmannMachine(**options).build(ImageSpec(shape, 3, (0.0, 1.0), binary=True)).double()
    torch.manual_seed(seed)
    with torch.no_grad():
        model.machine.couplings.normal_(std=scale)
        model.machine.centred_bias.normal_()
    return model
