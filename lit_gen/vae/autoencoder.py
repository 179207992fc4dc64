"""The deterministic autoencoder, with a Gaussian fitted to its codes so that it can be sampled.

References:
    Hinton and Salakhutdinov, Reducing the dimensionality of data with neural networks, Science 2006.
    Ghosh et al., From Variational to Deterministic Autoencoders, ICLR 2020, arXiv:1903.12436, section 4 (ex-post density).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lit_gen.core.images import ImageSpec
from lit_gen.core.random import RowNoise
from lit_gen.vae.base import EncoderDecoder


class Autoencoder(EncoderDecoder):
    """Autoencoder; the loss is the reconstruction's negative log-likelihood in nats, summed over pixels.

    It has no prior, hence no likelihood of an image. To sample, a full-covariance Gaussian is fitted to the codes: their
    moments are kept as running averages over the training batches (those of rank 0 under DDP) and change no gradient. A
    latent vector z from N(0, I) stands for the code mean + covariance^(1/2) z.

    Args:
        momentum: weight of the newest batch in the codes' moments, once enough batches were seen.
        **kwargs: as in :class:`EncoderDecoder`.
    """

    def __init__(self, momentum: float = 0.01, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum
        self.register_buffer("code_mean", torch.zeros(self.latent_dim))
        self.register_buffer("code_covariance", torch.eye(self.latent_dim))
        self.register_buffer("code_batches", torch.zeros((), dtype=torch.int64))

    def make_networks(self, spec: ImageSpec) -> dict[str, nn.Module]:
        return {
            "encoder": self.make_encoder(spec.shape, self.latent_dim, 0),
            "decoder": self.make_decoder(self.params_shape(spec), self.latent_dim, 0),
        }

    def corrupt(self, image: Tensor, noise: RowNoise) -> Tensor:
        """What the encoder sees of the image; the image itself here."""
        return image

    def terms(self, image: Tensor, label: Tensor, noise: RowNoise) -> dict[str, Tensor]:
        code = self.net("encoder")(self.corrupt(image, noise))
        if self.training:
            self.follow(code.detach().float())
        return {"loss": -self.likelihood.log_prob(image, self.net("decoder")(code))}

    def follow(self, code: Tensor) -> None:
        """Folds a batch of codes ``[B, Z]`` into the running moments."""
        weight = max(self.momentum, 1 / (1 + int(self.code_batches)))
        shift = code.mean(0) - self.code_mean
        centred = code - self.code_mean - weight * shift
        self.code_mean += weight * shift
        self.code_covariance.lerp_(centred.T @ centred / len(code), weight)
        self.code_batches += 1

    def from_latent(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """The images ``[n, C, H, W]`` of z ``[n, Z]``, which is mapped to codes of the fitted Gaussian."""
        values, vectors = torch.linalg.eigh(self.code_covariance)
        code = self.code_mean + (z * values.clamp_min(0).sqrt()) @ vectors.T
        with self.evaluating():
            return self.likelihood.mean(self.net("decoder")(code))

    def sample(self, n: int, *, label: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        return self.from_latent(torch.randn(n, self.latent_dim, generator=generator, device=self.device))

    def code(self, image: Tensor, label: Tensor) -> Tensor:
        return self.net("encoder")(image)

    def reconstruct(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        """The decoder's mean image at the code of the (uncorrupted) image, ``[B, C, H, W]``."""
        with self.evaluating():
            return self.likelihood.mean(self.net("decoder")(self.net("encoder")(image)))
