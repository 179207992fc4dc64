r"""The variational lower bound on the log-likelihood of a deep belief network.

.. math::
    \log p(v) \ge E_q \Big[ \sum_{l=0}^{L-2} \big( \log p(x_l \mid x_{l+1}) + H(q(x_{l+1} \mid x_l)) \big)
                           + \log p^*(x_{L-1}) \Big] - \log Z

with :math:`x_{l+1} \sim q(\cdot \mid x_l)` from the data upwards, and :math:`p^*(x) = e^{-F(x)}` and Z those of the machine
at the top. The gap is the divergence of q from the true posterior of the layers between.

References:
    Salakhutdinov and Murray, On the Quantitative Analysis of Deep Belief Networks, ICML 2008, section 5.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gen.core.random import RowNoise
from lit_gen.energy.belief_network import BeliefNetwork
from lit_gen.energy.units import Units


def conditional_log_prob(units: Units, x: Tensor, field: Tensor) -> Tensor:
    """log p(x | field) of independent units, ``[...]``."""
    return (units.coupled(x) * field).sum(-1) - units.energy(x) - units.log_partition(field)


@torch.no_grad()
def unnormalised_bound(network: BeliefNetwork, v: Tensor, noise: RowNoise) -> Tensor:
    """The bound of each row plus log Z of the top machine, from one draw of q, ``[B]`` in nats.

    The entropies are exact given the states drawn below. With labels, p(v) is the sum of p(v, y) over them.
    """
    x, total = v, v.new_zeros(len(v))
    for layer in network.below:
        machine, field = layer.machine, layer.recognition_field(x)
        mean = machine.hidden.mean_(field.clone())
        entropy = -conditional_log_prob(machine.hidden, mean, field)  # log q is linear in a binary state
        above = machine.hidden.draw_(mean, noise)
        total += entropy + conditional_log_prob(machine.visible, x, machine.visible_field(above))
        x = above
    return total - network.free_energy(x)
