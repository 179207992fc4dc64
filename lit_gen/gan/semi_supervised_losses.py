r"""Losses and scores of the semi-supervised GAN, as functions of the K logits of its classifier.

References:
    Salimans, Goodfellow, Zaremba, Cheung, Radford and Chen, Improved techniques for training GANs, NeurIPS 2016,
    arXiv:1606.03498, sections 3.1 and 5. The authors' code: https://github.com/openai/improved-gan.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gen.core.averages import Averages
from lit_gen.gan.objectives import Minimax


def log_evidence(logits: Tensor) -> Tensor:
    r"""The logit of "x is real".

    .. math:: \log \frac{D(x)}{1 - D(x)} = \log Z(x) = \log \sum_k \exp l_k(x)

    Shape:
        logits: ``[B, K]``; result: ``[B]``.
    """
    return torch.logsumexp(logits, dim=1)


def unsupervised_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    r"""What tells data from generated images, a scalar.

    .. math::
        L = -\tfrac12 E_x \log D(x) - \tfrac12 E_z \log(1 - D(G(z)))
          = \tfrac12 E_x [\mathrm{softplus}(s(x)) - s(x)] + \tfrac12 E_z\, \mathrm{softplus}(s(G(z))), \quad s = \log Z

    The halves are those of the authors' code (the paper has none): it is then the mean cross entropy of a batch that is half
    data and half generated, on the same scale as that of the labelled images.

    Shape:
        real_logits, fake_logits: ``[B, K]``.
    """
    return 0.5 * Minimax().discriminator_loss(log_evidence(real_logits), log_evidence(fake_logits))


def feature_matching_loss(real_mean: Tensor, fake_mean: Tensor) -> Tensor:
    r"""The generator's loss, a scalar: mean, over the F features, of the squared distance of mean features.

    .. math:: L_G = \tfrac1F \lVert E_x f(x) - E_z f(G(z)) \rVert_2^2

    The paper has the sum instead of the mean over features; this is the authors' code.

    Shape:
        real_mean, fake_mean: ``[F]``.
    """
    return (real_mean - fake_mean).square().mean()


class ClassifierScores(Averages):
    """Averages over held-out images, and how many labelled ones there were and how many of them wrong, over all processes."""

    def __init__(self) -> None:
        super().__init__(("error", "cross_entropy", "loss_real", "loss_fake"))

    def compute(self) -> tuple[dict[str, float], int, int]:
        """Means by name, the number of labelled images, the number of wrong predictions."""
        error = self.names.index("error")
        means = {name: mean for name, (mean, _) in super().compute().items()}
        return means, int(self.counts[error]), int(self.sums[error])
