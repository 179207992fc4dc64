r"""The up-down algorithm: contrastive wake-sleep for a deep belief network.

Awake, the data is recognised upwards, and the generative parameters of each layer learn to reproduce the state below from the
one above. The machine at the top takes a few Gibbs steps from there, as in contrastive divergence. Asleep, the states that it
reached are passed down, and the recognition parameters learn to recover the state above, which is known, from the one below:

.. math::
    -\sum_l \log p(x_l \mid x_{l+1}) \;+\; F(x_{L-1}) - F(\tilde x_{L-1}) \;-\; \sum_l \log q(\tilde x_{l+1} \mid \tilde x_l)

with :math:`x` awake and :math:`\tilde x` asleep, all constants. The gradient of this loss is that of the authors' delta rules,
with the top hidden units' states replaced by their expectations, which has less variance.

References:
    Hinton, Osindero and Teh, A fast learning algorithm for deep belief nets, Neural Computation 2006, section 5, appendix B.
    Hinton, Dayan, Frey and Neal, The wake-sleep algorithm for unsupervised neural networks, Science 1995.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lit_gen.core.random import RowNoise
from lit_gen.energy.belief_bound import conditional_log_prob
from lit_gen.energy.belief_network import BeliefNetwork


class Phases(NamedTuple):
    r"""States of both phases.

    wake: :math:`x_0 = v, \dots, x_{L-1}`, drawn upwards.
    wake_top: visible state of the top machine: :math:`x_{L-1}` and the label.
    dream_top: the same after the Gibbs steps.
    dream: states drawn downwards from there; that of the image is its mean, as the authors'.
    """

    wake: list[Tensor]
    wake_top: Tensor
    dream_top: Tensor
    dream: list[Tensor]


@torch.no_grad()
def up_down(network: BeliefNetwork, v: Tensor, label: Tensor, steps: int, noise: RowNoise) -> Phases:
    """Draws the states of both phases, with so many Gibbs steps at the top between them."""
    wake = network.recognise(v, noise)
    wake_top = network.join(wake[-1], label)
    dream_top = network.top.gibbs(wake_top, steps, noise)
    return Phases(wake, wake_top, dream_top, network.generate(network.split(dream_top)[0], noise))


def wake_sleep_loss(network: BeliefNetwork, phases: Phases) -> Tensor:
    """The loss of the module's equation, mean over the batch, differentiable in all parameters."""
    loss = network.top.free_energy(phases.wake_top) - network.top.free_energy(phases.dream_top)
    for index, layer in enumerate(network.below):
        machine = layer.machine
        x, above = phases.wake[index], phases.wake[index + 1]
        loss = loss - conditional_log_prob(machine.visible, x, machine.visible_field(above))
        x, above = phases.dream[index], phases.dream[index + 1]
        loss = loss - conditional_log_prob(machine.hidden, above, layer.recognition_field(x))
    return loss.mean()
