"""Adversarial objectives: what discriminator and generator minimise, as functions of the discriminator's outputs.

Throughout, :math:`d(x)` is the raw output (logit) of the discriminator, :math:`\\sigma` the logistic function and
:math:`D(x) = \\sigma(d(x))`. Expectations are means over the rows of a batch. Write a new objective as one more class.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor


class Objective:
    """A pair of losses, both to be minimised.

    Attributes:
        logistic: the output is the logit of a probability that the image is real; False for critics and regressors.
    """

    logistic: ClassVar[bool] = False

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The discriminator's loss, a scalar.

        Shape:
            real_logits, fake_logits: ``[B]``, the outputs on data and on generated images.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement discriminator_loss")

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        """The generator's loss, a scalar.

        Shape:
            fake_logits: ``[B]``, the outputs on generated images.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement generator_loss")

    def score(self, logits: Tensor) -> Tensor:
        """What is logged as D(x): the mean probability where the output is a logit, else the mean raw output."""
        return (torch.sigmoid(logits) if self.logistic else logits).mean()


class Minimax(Objective):
    r"""The two-player game as first written, one value function for both players.

    .. math::
        L_D = -E[\log D(x)] - E[\log(1 - D(G(z)))], \qquad L_G = E[\log(1 - D(G(z)))]

    At the optimal discriminator :math:`D^* = p / (p + q)` the value is
    :math:`-L_D = 2\,\mathrm{JSD}(p, q) - 2 \log 2`. The generator's gradient vanishes where D wins; see
    :class:`NonSaturating`.

    References:
        Goodfellow et al., Generative adversarial nets, NeurIPS 2014 (arXiv:1406.2661), equation 1 and theorem 1.
    """

    logistic = True

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        # -log D = softplus(-d) and -log(1 - D) = softplus(d), without overflow
        return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        return -F.softplus(fake_logits).mean()


class NonSaturating(Minimax):
    r"""Minimax, but the generator maximises log D(G(z)): the same fixed point, stronger gradients early.

    .. math:: L_G = -E[\log D(G(z))]

    References:
        Goodfellow et al., Generative adversarial nets, NeurIPS 2014 (arXiv:1406.2661), section 3.
    """

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        return F.softplus(-fake_logits).mean()


class LeastSquares(Objective):
    r"""Least squares towards the targets a (fake), b (real) and c (what the generator wants).

    .. math::
        L_D = \tfrac12 E[(d(x) - b)^2] + \tfrac12 E[(d(G(z)) - a)^2], \qquad L_G = \tfrac12 E[(d(G(z)) - c)^2]

    With b - c = 1 and b - a = 2 the generator minimises the Pearson chi-squared divergence; the default is the paper's
    0-1 coding (a, b, c) = (0, 1, 1), which it found to work as well.

    Args:
        fake_target: a.
        real_target: b.
        generator_target: c.

    References:
        Mao et al., Least squares generative adversarial networks, ICCV 2017 (arXiv:1611.04076), equations 2, 8 and 9.
    """

    def __init__(self, fake_target: float = 0.0, real_target: float = 1.0, generator_target: float = 1.0) -> None:
        self.fake_target, self.real_target, self.generator_target = fake_target, real_target, generator_target

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        real = (real_logits - self.real_target).square().mean()
        fake = (fake_logits - self.fake_target).square().mean()
        return 0.5 * real + 0.5 * fake

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        return 0.5 * (fake_logits - self.generator_target).square().mean()


class Hinge(Objective):
    r"""The hinge version of the adversarial loss: data beyond the margin no longer pulls.

    .. math::
        L_D = E[\max(0, 1 - d(x))] + E[\max(0, 1 + d(G(z)))], \qquad L_G = -E[d(G(z))]

    References:
        Lim and Ye, Geometric GAN, 2017 (arXiv:1705.02894). Miyato et al., Spectral normalization for generative
        adversarial networks, ICLR 2018 (arXiv:1802.05957), equations 16 and 17.
    """

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return F.relu(1.0 - real_logits).mean() + F.relu(1.0 + fake_logits).mean()

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        return -fake_logits.mean()


class Wasserstein(Objective):
    r"""The Kantorovich-Rubinstein dual of the earth mover's distance; the critic must be Lipschitz.

    .. math:: L_D = E[d(G(z))] - E[d(x)], \qquad L_G = -E[d(G(z))]

    Take it with :class:`~lit_gen.gan.WeightClipping`, :class:`~lit_gen.gan.GradientPenalty` or spectral norm;
    :math:`-L_D` then estimates the distance up to the Lipschitz constant.

    References:
        Arjovsky et al., Wasserstein generative adversarial networks, ICML 2017 (arXiv:1701.07875), equations 2 and 3.
    """

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return fake_logits.mean() - real_logits.mean()

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        return -fake_logits.mean()
