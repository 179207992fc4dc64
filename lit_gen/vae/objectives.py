"""The objectives of the variational family as pure functions of tensors. Everything is in nats per example."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lit_gen.vae.gaussian import DiagonalGaussian


def kl_to_standard_normal(q: DiagonalGaussian) -> Tensor:
    r""":math:`KL(q \| N(0, I)) = \frac12 \sum_j (\mu_j^2 + \sigma_j^2 - 1) - \log \sigma_j`, summed over dimensions.

    Shape:
        q: ``[..., Z]``; result ``[...]``.

    References:
        Kingma and Welling, Auto-Encoding Variational Bayes, ICLR 2014, arXiv:1312.6114, appendix B.
    """
    return (0.5 * (q.mean.square() + q.std.square()) - q.log_std - 0.5).sum(-1)


def kl_between(q: DiagonalGaussian, p: DiagonalGaussian) -> Tensor:
    r""":math:`KL(q \| p)` of two diagonal Gaussians, summed over dimensions.

    Shape:
        q, p: ``[..., Z]``; result ``[...]``.
    """
    ratio = (q.std / p.std).square()
    shift = ((q.mean - p.mean) / p.std).square()
    return (0.5 * (ratio + shift - 1) + p.log_std - q.log_std).sum(-1)


def elbo(reconstruction: Tensor, kl: Tensor, beta: float = 1.0) -> Tensor:
    r"""The evidence lower bound, :math:`\frac1M \sum_m \log p(x | z_m) - \beta KL(q(z|x) \| p(z))`.

    beta = 1 bounds log p(x); other values weigh the KL term (beta-VAE).

    Shape:
        reconstruction: ``[M, B]``; kl: ``[B]``; result ``[B]``.

    References:
        Kingma and Welling, ICLR 2014, equation 7. Higgins et al., beta-VAE, ICLR 2017, equation 4.
    """
    return reconstruction.mean(0) - (kl if beta == 1.0 else beta * kl)


def importance_weighted(log_weights: Tensor) -> Tensor:
    r"""The IWAE bound :math:`\log \frac1k \sum_i w_i`, with :math:`w_i = p(x, z_i) / q(z_i | x)`.

    Shape:
        log_weights: ``[k, B]``; result ``[B]``.

    References:
        Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, ICLR 2016, arXiv:1509.00519, equation 8.
    """
    return torch.logsumexp(log_weights, 0) - math.log(log_weights.shape[0])


def doubly_reparameterized(log_weights: Tensor, z: Tensor) -> Tensor:
    r"""The IWAE bound in value, with the doubly reparameterised estimator (DReG) as its gradient.

    With :math:`\tilde w_i = w_i / \sum_j w_j` the decoder's gradient is that of IWAE, the encoder's has the weights squared:

    .. math:: \sum_i \tilde w_i \nabla_\theta \log w_i, \qquad
              \sum_i \tilde w_i^2 \frac{\partial \log w_i}{\partial z_i} \frac{\partial z_i}{\partial \phi}

    so that the encoder's signal does not drown in noise as k grows.

    Args:
        log_weights: computed with the density of q CONSTANT in its parameters (:meth:`DiagonalGaussian.detach`), so that the
            encoder is reached through z alone.
        z: the samples; a hook on them multiplies the encoder's gradient by the second factor of the weight.

    Shape:
        log_weights: ``[k, B]``; z: ``[k, B, Z]``; result ``[B]``.

    References:
        Tucker et al., Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives, ICLR 2019, arXiv:1810.04152,
        equation 8.
    """
    weights = log_weights.detach().softmax(0)
    if z.requires_grad:
        z.register_hook(lambda gradient: weights.unsqueeze(-1) * gradient)
    surrogate = (weights * log_weights).sum(0)
    return importance_weighted(log_weights.detach()) + surrogate - surrogate.detach()


def warmup(step: int, length: int) -> float:
    """Linear warm-up of the KL term's weight from 0 to 1 over ``length`` updates; 1 throughout where length is 0.

    References:
        Bowman et al., CoNLL 2016, section 3.1. Soenderby et al., Ladder VAE, NeurIPS 2016, section 2.3.
    """
    return min(1.0, step / length) if length else 1.0
