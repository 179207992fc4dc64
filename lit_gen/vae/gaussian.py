"""Diagonal Gaussians over latent vectors, and the two ways in which a network may parametrise one."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor

Parametrisation = Literal["log_variance", "softplus"]

LOG_2_PI = math.log(2 * math.pi)
MIN_STD = 1e-5


class DiagonalGaussian(NamedTuple):
    """A batch of Gaussians with diagonal covariance; ``std`` and its logarithm are both kept, neither is computed twice.

    Shape:
        mean, std, log_std: ``[..., Z]``.
    """

    mean: Tensor
    std: Tensor
    log_std: Tensor

    @classmethod
    def from_features(cls, features: Tensor, parametrisation: Parametrisation = "log_variance") -> "DiagonalGaussian":
        r"""Splits a network's output into mean and scale.

        ``log_variance``: :math:`\sigma = \exp(s / 2)`, as in Kingma and Welling's appendix C;
        ``softplus``: :math:`\sigma = \log(1 + e^s)`, which grows linearly and so cannot overflow.

        Shape:
            features: ``[..., 2 Z]``, mean first.
        """
        # float32 also under autocast: exp and log of 16-bit numbers lose the tails.
        mean, raw = features.float().chunk(2, dim=-1)
        if parametrisation == "log_variance":
            log_std = 0.5 * raw
            return cls(mean, log_std.exp(), log_std)
        std = F.softplus(raw) + MIN_STD
        return cls(mean, std, std.log())

    def rsample(self, noise: Tensor) -> Tensor:
        r"""The reparameterised sample :math:`\mu + \sigma \epsilon` (Kingma and Welling, section 2.4); noise broadcasts."""
        return self.mean + self.std * noise

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density in nats, summed over the last dimension."""
        scaled = (z - self.mean) / self.std
        return -(0.5 * (scaled.square() + LOG_2_PI) + self.log_std).sum(-1)

    def detach(self) -> "DiagonalGaussian":
        """The same Gaussian, constant to autograd."""
        return DiagonalGaussian(self.mean.detach(), self.std.detach(), self.log_std.detach())


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """Log density of N(0, I) in nats, summed over the last dimension."""
    return -0.5 * (z.square().sum(-1) + z.shape[-1] * LOG_2_PI)
