r"""The deep belief network: directed layers, and a bipartite machine over the two at the top.

.. math:: p(x_0, \dots, x_L) = \prod_{l=0}^{L-2} p(x_l \mid x_{l+1}) \; p(x_{L-1}, x_L)

Layer l is a :class:`BipartiteMachine` over :math:`x_l` (visible) and :math:`x_{l+1}` (hidden). Below the top, its visible
conditional :math:`p(x_l \mid x_{l+1})` generates and its hidden conditional is the factorial approximation
:math:`q(x_{l+1} \mid x_l)` of the posterior, which recognises. Only the machine at the top is undirected. Labels, where there
are any, are a softmax group beside :math:`x_{L-1}`.

References:
    Hinton, Osindero and Teh, A fast learning algorithm for deep belief nets, Neural Computation 2006.
    Bengio, Lamblin, Popovici and Larochelle, Greedy layer-wise training of deep networks, NIPS 2007.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gen.core.errors import require
from lit_gen.core.images import UNLABELLED
from lit_gen.core.random import RowNoise
from lit_gen.energy.joined import Joined
from lit_gen.energy.labels import class_logits
from lit_gen.energy.machine import BipartiteMachine
from lit_gen.energy.units import Bernoulli, Softmax, Units


class BeliefLayer(nn.Module):
    """One machine of the network; fine-tuning gives it recognition weights of its own.

    Its visible bias only generates and its hidden bias only recognises, so that the weights alone have to be doubled.

    Args:
        machine: over the states below and above.
        doubled: keep recognition weights, which are the machine's until ``untied`` is set.
    """

    mean: Tensor
    untied: Tensor

    def __init__(self, machine: BipartiteMachine, doubled: bool = False) -> None:
        super().__init__()
        self.machine = machine
        self.recognition_weight = nn.Parameter(machine.weight.detach().clone()) if doubled else None
        self.register_buffer("untied", torch.tensor(False))
        # mean visible state of the data; of the units by themselves before training
        self.register_buffer("mean", machine.visible_mean(torch.zeros(machine.hidden.dim)))

    def recognition_field(self, x: Tensor) -> Tensor:
        """What the units above receive in the upward pass, ``[..., hidden.dim]``."""
        if not self.untied:
            return self.machine.hidden_field(x)
        return self.machine.visible.coupled(x) @ self.recognition_weight

    @torch.no_grad()
    def untie(self) -> None:
        """From here on generation and recognition have weights of their own, equal to begin with."""
        self.recognition_weight.copy_(self.machine.weight)
        self.untied.fill_(True)


class BeliefNetwork(nn.Module):
    """Layers of a deep belief network, of which the first ``depth`` are in use.

    Args:
        visible: units of the image.
        hidden: numbers of hidden units (Bernoulli), from the bottom to the top.
        num_classes: number of labels at the top; 0 for none.
        weight_std: standard deviation of the initial weights.
        doubled: give the layers below the top recognition weights, for fine-tuning by wake and sleep.

    Shape:
        v: ``[B, visible.dim]``; x: states at the bottom of the machine in use that is highest, without the label.
    """

    in_use: Tensor

    def __init__(
        self, visible: Units, hidden: list[int], num_classes: int = 0, weight_std: float = 0.01, doubled: bool = False
    ) -> None:
        super().__init__()
        self.num_classes, self.layers = num_classes, nn.ModuleList()
        for index, n in enumerate(hidden):
            top = index == len(hidden) - 1
            if top and num_classes:
                visible = Joined([visible, Softmax(1, num_classes)])
            self.layers.append(BeliefLayer(BipartiteMachine(visible, Bernoulli(n), weight_std), doubled and not top))
            visible = Bernoulli(n)
        self.register_buffer("in_use", torch.tensor(1))

    # ---------------------------------------------------------------- layers

    @property
    def depth(self) -> int:
        """Number of layers in use."""
        return int(self.in_use)

    @property
    def below(self) -> list[BeliefLayer]:
        """The directed layers in use, from the bottom."""
        return list(self.layers[: self.depth - 1])

    @property
    def top(self) -> BipartiteMachine:
        """The undirected machine: that of the highest layer in use."""
        return self.layers[self.depth - 1].machine

    @property
    def top_mean(self) -> Tensor:
        """Mean state of the data at the visible units of the top machine."""
        return self.layers[self.depth - 1].mean

    @property
    def labelled(self) -> bool:
        """Whether the highest layer in use has the label."""
        return bool(self.num_classes) and self.depth == len(self.layers)

    @torch.no_grad()
    def grow(self, depth: int) -> None:
        """Takes this many layers into use."""
        self.in_use.fill_(depth)

    @torch.no_grad()
    def begin_top(self, mean: Tensor, smoothing: float, transposed: bool = False) -> None:
        """Initialises the highest layer in use before it is trained.

        Args:
            mean: mean state of its visible units over the data, ``[top.visible.dim]``.
            smoothing: weight of the uniform distribution in the visible biases, which fit the mean.
            transposed: take the machine below, upside down. The network then has exactly the distribution over images that it
                had without this layer, from which training can only improve the bound (Hinton et al. 2006, section 4).
        """
        self.layers[self.depth - 1].mean.copy_(mean)
        self.top.visible.fit(mean, smoothing)
        if transposed and self.below:
            below, units = self.below[-1].machine, self.top.visible
            require(isinstance(below.visible, Bernoulli), "initial", "transposed", "random, above units not Bernoulli")
            require(below.visible.dim == self.top.hidden.dim, "hidden units above transposed weights",
                    self.top.hidden.dim, f"{below.visible.dim}, as many as two layers below")  # fmt: skip
            self.top.weight[: below.hidden.dim] = below.weight.T
            (units.parts[0] if isinstance(units, Joined) else units).bias.copy_(below.hidden.bias)
            self.top.hidden.bias.copy_(below.visible.bias)

    # ---------------------------------------------------------------- up and down

    @torch.no_grad()
    def recognise(self, v: Tensor, noise: RowNoise | None = None) -> list[Tensor]:
        r"""States :math:`x_0 = v, x_1, \dots` up to the visible units of the top machine.

        Args:
            v: visible states.
            noise: draw each layer from q given the one below; its mean given the mean below where None.
        """
        states = [v]
        for layer in self.below:
            mean = layer.machine.hidden.mean_(layer.recognition_field(states[-1]))
            states.append(mean if noise is None else layer.machine.hidden.draw_(mean, noise))
        return states

    @torch.no_grad()
    def generate(self, x: Tensor, noise: RowNoise | None = None) -> list[Tensor]:
        r"""States :math:`E[v \mid x_1], x_1, \dots, x` of one ancestral pass down from x.

        Args:
            x: state at the bottom of the top machine, which is v itself in a network of depth 1.
            noise: draw the layers between; their means where None.
        """
        states = [x]
        for index, layer in reversed(list(enumerate(self.below))):
            mean = layer.machine.visible_mean(states[0])
            states.insert(0, mean if noise is None or index == 0 else layer.machine.visible.draw_(mean, noise))
        return states

    def reconstruct(self, v: Tensor) -> Tensor:
        """Means ``[B, visible.dim]`` after one pass up, through the top machine, and down."""
        x = self.recognise(v)[-1]
        top = self.top.visible_mean(self.top.hidden_mean(self.join(x)))
        return self.generate(self.split(top)[0])[0]

    # ---------------------------------------------------------------- labels

    def join(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """Visible states of the top machine; p(y | x) stands for a label that is not given or is -1."""
        if not self.labelled:
            return x
        if label is not None and not (label == UNLABELLED).any():
            return torch.cat([x, F.one_hot(label, self.num_classes).to(x.dtype)], -1)
        with torch.no_grad():
            believed = class_logits(self.top, x).softmax(-1)
        if label is not None:
            given = F.one_hot(label.clamp(min=0), self.num_classes).to(x.dtype)
            believed = torch.where((label == UNLABELLED).unsqueeze(-1), believed, given)
        return torch.cat([x, believed], -1)

    def split(self, state: Tensor) -> tuple[Tensor, Tensor | None]:
        """x and the label's part of visible states of the top machine."""
        return self.top.visible.split(state) if self.labelled else (state, None)

    def free_energy(self, x: Tensor) -> Tensor:
        """-log of the unnormalised :math:`p(x_{L-1})` of the top machine, summed over labels, ``[B]``, in nats."""
        return -class_logits(self.top, x).logsumexp(-1) if self.labelled else self.top.free_energy(x)
