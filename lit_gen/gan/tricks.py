"""Tricks of Salimans et al., Improved techniques for training GANs, NeurIPS 2016 (arXiv:1606.03498), as loss terms.

The two tricks of that paper that are layers are in ``layers.py``: :class:`MinibatchDiscrimination`
(``minibatch_kernels`` of a discriminator) and :class:`VirtualBatchNorm` (``normalisation: virtual`` of a generator).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lit_gen.core.errors import UsageError
from lit_gen.gan.objectives import Objective


@dataclass
class Pass:
    """What one forward pass of an update leaves for the tricks.

    network: the network under update.
    real_logits, fake_logits: the discriminator's outputs ``[B]``; the former None in the generator's update.
    real_features, fake_features: ``[B, F]`` in the generator's update where a trick asks for them.
    """

    network: nn.Module
    fake_logits: Tensor
    real_logits: Tensor | None = None
    real_features: Tensor | None = None
    fake_features: Tensor | None = None


class Trick:
    """A part of the training that adds a term to one or both losses.

    A trick itself holds hyper-parameters only; what it must remember is in the module that :meth:`build` returns, one
    for each network, kept in the checkpoint.

    Attributes:
        needs_features: the generator's pass must carry the discriminator's features.
        replaces_objective: the generator's term takes the place of the objective's.
    """

    needs_features: ClassVar[bool] = False
    replaces_objective: bool = False

    def check(self, objective: Objective) -> None:
        """Raises UsageError where the trick makes no sense with this objective."""

    def build(self, network: nn.Module) -> nn.Module:
        """The trick's memory for this network."""
        return nn.Module()

    def discriminator_loss(self, step: Pass, memory: nn.Module) -> Tensor | float:
        """Term of the discriminator's loss."""
        return 0.0

    def generator_loss(self, step: Pass, memory: nn.Module) -> Tensor | float:
        """Term of the generator's loss."""
        return 0.0

    def after_step(self, network: nn.Module, memory: nn.Module) -> None:
        """Called when the network's optimizer has stepped."""


class FeatureMatching(Trick):
    r"""The generator matches the mean features of the data instead of maximising the discriminator's output.

    .. math:: L_G = \lVert E_x f(x) - E_z f(G(z)) \rVert_2^2

    where f are the last hidden activations of the discriminator. The means are over one batch of one process.

    Args:
        weight: factor of the term.
        replace: drop the generator's objective, as the paper does; False adds the term to it, which learns faster.

    References:
        Salimans et al. 2016, section 3.1.
    """

    needs_features = True

    def __init__(self, weight: float = 1.0, replace: bool = True) -> None:
        if weight <= 0:
            raise UsageError(f"FeatureMatching: weight = {weight}; accepted: weight > 0")
        self.weight, self.replaces_objective = weight, replace

    def generator_loss(self, step: Pass, memory: nn.Module) -> Tensor:
        gap = step.real_features.detach().mean(dim=0) - step.fake_features.mean(dim=0)
        return self.weight * gap.square().sum()


class ParameterHistory(nn.Module):
    """The mean of a network's past parameters, as buffers."""

    steps: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        for index, parameter in enumerate(network.parameters()):
            self.register_buffer(f"mean_{index}", torch.zeros_like(parameter.detach()))

    @property
    def means(self) -> list[Tensor]:
        return [buffer for name, buffer in self.named_buffers() if name != "steps"]


class HistoricalAveraging(Trick):
    r"""Ties each player's parameters to their own past mean, so that the players do not circle each other.

    .. math:: \lambda\, \Big\lVert \theta - \frac1t \sum_{i=1}^t \theta[i] \Big\rVert_2^2

    The sum is over the parameters after each past update; before the first one the term is 0.

    Args:
        weight: lambda (1 in the paper's formula).

    References:
        Salimans et al. 2016, section 3.3.
    """

    def __init__(self, weight: float = 1.0) -> None:
        if weight <= 0:
            raise UsageError(f"HistoricalAveraging: weight = {weight}; accepted: weight > 0")
        self.weight = weight

    def build(self, network: nn.Module) -> ParameterHistory:
        return ParameterHistory(network)

    def _distance(self, step: Pass, memory: ParameterHistory) -> Tensor | float:
        if memory.steps == 0:
            return 0.0
        pairs = zip(step.network.parameters(), memory.means, strict=True)
        return self.weight * sum((parameter - mean).square().sum() for parameter, mean in pairs)

    discriminator_loss = generator_loss = _distance

    @torch.no_grad()
    def after_step(self, network: nn.Module, memory: ParameterHistory) -> None:
        memory.steps += 1
        torch._foreach_lerp_(memory.means, list(network.parameters()), 1.0 / int(memory.steps))


class OneSidedLabelSmoothing(Trick):
    r"""The discriminator's target for data is alpha instead of 1; the target for generated images stays 0.

    .. math::
        L_D = -E[\alpha \log D(x) + (1 - \alpha) \log(1 - D(x))] - E[\log(1 - D(G(z)))]

    whose optimum is :math:`D^* = \alpha p / (p + q)`. Since :math:`\log D - \log(1 - D) = d`, the logit, this is the
    logistic loss plus the term :math:`(1 - \alpha) E[d(x)]`.

    Args:
        alpha: target for data.

    Raises:
        UsageError: alpha is outside (0, 1], or the objective is not logistic.

    References:
        Salimans et al. 2016, section 3.4.
    """

    def __init__(self, alpha: float = 0.9) -> None:
        if not 0.0 < alpha <= 1.0:
            raise UsageError(f"OneSidedLabelSmoothing: alpha = {alpha}; accepted: 0 < alpha <= 1")
        self.alpha = alpha

    def check(self, objective: Objective) -> None:
        if not objective.logistic:
            name = type(objective).__name__
            raise UsageError(f"OneSidedLabelSmoothing with objective {name}; accepted: Minimax, NonSaturating")

    def discriminator_loss(self, step: Pass, memory: nn.Module) -> Tensor:
        return (1.0 - self.alpha) * step.real_logits.mean()
