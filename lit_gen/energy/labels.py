"""A label beside the other visible units of a machine: what it is given these is exact."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gen.energy.machine import BipartiteMachine


def class_logits(machine: BipartiteMachine, x: Tensor) -> Tensor:
    """-F(x, y) for each label y, ``[B, K]``: log p(y | x) up to a constant of x.

    Args:
        machine: its visible units are :class:`Joined`, the label last.
        x: states of the others, ``[B, dim]``.
    """
    *_, labels = machine.visible.parts
    without = torch.cat([x, x.new_zeros(len(x), labels.dim)], -1)
    classes = torch.eye(labels.dim, dtype=x.dtype, device=x.device)
    # the field is linear in the label: one product with the weights serves all classes
    field = machine.hidden_field(without).unsqueeze(1) + machine.weight[-labels.dim :]
    energy = machine.visible.energy(without).unsqueeze(1) + labels.energy(classes)
    return -machine.free_energy_at(energy, field)
