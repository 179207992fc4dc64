"""What keeps a discriminator smooth: penalties on its gradient in the image, and a constraint on its weights."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from lit_gen.core.errors import UsageError
from lit_gen.core.random import RowNoise


class Penalty:
    """A term added to the discriminator's loss: ``weight`` times a mean over rows, in float32 with autocast off.

    Lazy regularisation: with ``interval`` k it is computed at every k-th discriminator update only, k times as strong.

    Args:
        weight: factor of the term.
        interval: k.

    Raises:
        UsageError: weight < 0 or interval < 1.

    References:
        Lazy regularisation: Karras et al., Analyzing and improving the image quality of StyleGAN, CVPR 2020
        (arXiv:1912.04958), section 3.1.
    """

    name: ClassVar[str]

    def __init__(self, weight: float, interval: int = 1) -> None:
        if weight < 0:
            raise UsageError(f"{type(self).__name__}: weight = {weight}; accepted: weight >= 0")
        if interval < 1:
            raise UsageError(f"{type(self).__name__}: interval = {interval}; accepted: interval >= 1")
        self.weight, self.interval = weight, interval

    def __call__(
        self, discriminator: nn.Module, real: Tensor, fake: Tensor, label: Tensor | None, noise: RowNoise
    ) -> Tensor:
        """The value before weighting, a scalar that can be differentiated in the discriminator's weights.

        Args:
            discriminator: called as ``discriminator(image, label)``.
            real: images of the data.
            fake: generated images.
            label: labels given to the discriminator, or None.
            noise: the batch's source of randomness.

        Shape:
            real, fake: ``[B, C, H, W]``; label: ``[B]``.
        """
        # Second derivatives in 16 bits are worthless, and autocast would cast inside the network.
        with torch.autocast(real.device.type, enabled=False), torch.enable_grad():
            return self.value(discriminator, real.detach().float(), fake.detach().float(), label, noise)

    def value(
        self, discriminator: nn.Module, real: Tensor, fake: Tensor, label: Tensor | None, noise: RowNoise
    ) -> Tensor:
        """The penalty's formula; inputs are float32 and detached."""
        raise NotImplementedError(f"{type(self).__name__} must implement value")


def input_gradient(discriminator: nn.Module, image: Tensor, label: Tensor | None) -> Tensor:
    """The gradient of every row's output in its own pixels, ``[B, C*H*W]``, which can be differentiated."""
    image = image.requires_grad_()
    logits = discriminator(image, label)
    (gradient,) = torch.autograd.grad(logits.sum(), image, create_graph=True)
    return gradient.flatten(1)


class GradientPenalty(Penalty):
    r"""Pulls the norm of the critic's gradient to 1 on the lines between data and generated images.

    .. math::
        \lambda\, E_{\hat x}\big[(\lVert \nabla_{\hat x} d(\hat x) \rVert_2 - 1)^2\big], \qquad
        \hat x = \epsilon x + (1 - \epsilon) G(z), \quad \epsilon \sim U[0, 1]

    One :math:`\epsilon` for each sample, the norm over all pixels and channels of that sample. The critic must not have
    batch normalisation, which would make one row's output depend on the others (section 4 of the paper).

    Args:
        weight: lambda.
        interval: see :class:`Penalty`.

    References:
        Gulrajani et al., Improved training of Wasserstein GANs, NeurIPS 2017 (arXiv:1704.00028), equation 3.
    """

    name = "gradient_penalty"

    def __init__(self, weight: float = 10.0, interval: int = 1) -> None:
        super().__init__(weight, interval)

    def value(
        self, discriminator: nn.Module, real: Tensor, fake: Tensor, label: Tensor | None, noise: RowNoise
    ) -> Tensor:
        epsilon = noise.uniform(1, 1, 1)  # [B, 1, 1, 1]
        gradient = input_gradient(discriminator, torch.lerp(fake, real, epsilon), label)
        norm = (gradient.square().sum(dim=1) + 1e-12).sqrt()  # the square root has no derivative at 0
        return (norm - 1.0).square().mean()


class R1(Penalty):
    r"""Zero-centred gradient penalty on data alone: the discriminator is flat where the data is.

    .. math:: \frac{\gamma}{2} E_x\big[\lVert \nabla_x d(x) \rVert_2^2\big]

    Args:
        weight: gamma.
        interval: see :class:`Penalty`.

    References:
        Mescheder et al., Which training methods for GANs do actually converge?, ICML 2018 (arXiv:1801.04406),
        equation 9.
    """

    name = "r1"

    def __init__(self, weight: float = 10.0, interval: int = 1) -> None:
        super().__init__(weight, interval)

    def value(
        self, discriminator: nn.Module, real: Tensor, fake: Tensor, label: Tensor | None, noise: RowNoise
    ) -> Tensor:
        return 0.5 * input_gradient(discriminator, real, label).square().sum(dim=1).mean()


class Constraint:
    """A projection of the discriminator's weights, applied after each of its updates."""

    def apply(self, discriminator: nn.Module) -> None:
        """Projects the weights in place."""
        raise NotImplementedError(f"{type(self).__name__} must implement apply")


class WeightClipping(Constraint):
    r"""Keeps every weight of the critic in a box, so that its Lipschitz constant is bounded.

    .. math:: w \leftarrow \min(\max(w, -c), c)

    Args:
        limit: c.

    Raises:
        UsageError: c <= 0.

    References:
        Arjovsky et al., Wasserstein generative adversarial networks, ICML 2017 (arXiv:1701.07875), algorithm 1, line 7.
    """

    def __init__(self, limit: float = 0.01) -> None:
        if limit <= 0:
            raise UsageError(f"WeightClipping: limit = {limit}; accepted: limit > 0")
        self.limit = limit

    @torch.no_grad()
    def apply(self, discriminator: nn.Module) -> None:
        for parameter in discriminator.parameters():
            parameter.clamp_(-self.limit, self.limit)
