"""A deep belief network's recognition weights as a feed-forward classifier, for fine-tuning by back-propagation."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from lit_gen.energy.belief_network import BeliefNetwork
from lit_gen.energy.labels import class_logits


class BeliefClassifier(nn.Module):
    """Logistic layers that begin as the network's upward pass, and class logits on top of them.

    Where the network has labels, the logits are the exact -F(x, y) of its top machine, so that the classifier begins as good as
    the generative model; otherwise they are linear in the highest hidden layer. The weights are copies: the generative model is
    not changed.

    Args:
        network: where the sizes come from.
        num_classes: number of labels.

    References:
        Bengio, Lamblin, Popovici and Larochelle, Greedy layer-wise training of deep networks, NIPS 2007.
        Larochelle and Bengio, Classification using Discriminative Restricted Boltzmann Machines, ICML 2008.
    """

    def __init__(self, network: BeliefNetwork, num_classes: int) -> None:
        super().__init__()
        machines = [layer.machine for layer in network.layers]
        self.top = copy.deepcopy(machines.pop()) if network.num_classes else None
        self.recognisers = nn.ModuleList(nn.Linear(*machine.weight.shape) for machine in machines)
        if self.top is None:
            self.head = nn.Linear(machines[-1].hidden.dim, num_classes)
        else:
            self.top.visible.parts[0].requires_grad_(False)  # says nothing of the label

    @torch.no_grad()
    def begin(self, network: BeliefNetwork) -> None:
        """Takes the network's weights."""
        for linear, layer in zip(self.recognisers, network.layers):
            linear.weight.copy_(layer.machine.weight.T)
            linear.bias.copy_(layer.machine.hidden.bias)
        if self.top is not None:
            self.top.load_state_dict(network.layers[-1].machine.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, K]`` of the coupling statistics ``[B, visible.dim]`` of images."""
        for linear in self.recognisers:
            x = linear(x).sigmoid()
        return self.head(x) if self.top is None else class_logits(self.top, x)
