r"""The importance weighted autoencoder: a VAE trained on a tighter bound.

.. math:: \log p(x) \ge L_k = E \log \frac1k \sum_{i=1}^k \frac{p(x, z_i)}{q(z_i | x)} \ge ELBO

References:
    Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, ICLR 2016, arXiv:1509.00519, section 3.
    Tucker et al., Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives, ICLR 2019, arXiv:1810.04152.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor

from lit_gen.core.random import RowNoise
from lit_gen.vae.gaussian import standard_normal_log_prob
from lit_gen.vae.objectives import doubly_reparameterized, importance_weighted, kl_to_standard_normal
from lit_gen.vae.vae import VAE

Gradient = Literal["reparameterized", "doubly_reparameterized"]


class IWAE(VAE):
    r"""Importance weighted autoencoder. ``iwae`` is the bound with k samples, ``elbo`` the one with a single sample.

    With ``beta`` other than 1, or during warm-up, the weights are
    :math:`\log w = \log p(x|z) + \beta (\log p(z) - \log q(z|x))`.

    Args:
        samples: k.
        gradient: the estimator, ``reparameterized`` (Burda et al., equation 13) or ``doubly_reparameterized``
            (Tucker et al., equation 8), of the same expectation but less variance in the encoder as k grows.
        **kwargs: as in :class:`VAE`.
    """

    measures: ClassVar[tuple[str, ...]] = (*VAE.measures, "iwae")

    def __init__(self, samples: int = 5, gradient: Gradient = "reparameterized", **kwargs: Any) -> None:
        super().__init__(samples=samples, **kwargs)
        self.gradient = gradient

    def terms(self, image: Tensor, label: Tensor, noise: RowNoise) -> dict[str, Tensor]:
        y = self.one_hot(label)
        q = self.encode(image, y)
        z = q.rsample(self.draw(noise, self.samples))
        reconstruction = self.likelihood.log_prob(image, self.decode(z, y))
        doubly = self.gradient == "doubly_reparameterized"
        log_ratio = standard_normal_log_prob(z) - (q.detach() if doubly else q).log_prob(z)
        log_weights = reconstruction + self.kl_weight() * log_ratio
        bound = doubly_reparameterized(log_weights, z) if doubly else importance_weighted(log_weights)
        return {
            "loss": -bound,
            "reconstruction": reconstruction,
            "log_ratio": log_ratio,
            "kl": kl_to_standard_normal(q),
        }

    def measure(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        values = dict(terms)
        iwae = importance_weighted(terms["reconstruction"] + values.pop("log_ratio"))
        return {**super().measure(values), "iwae": iwae}
