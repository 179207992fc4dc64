r"""A VAE that completes images: p(hidden pixels | visible pixels) for any mask, learnt by masking at random.

Both the prior and the posterior of z see the visible pixels; the decoder sees z and features of them:

.. math:: \log p(x_h | x_v) \ge E_{q(z | x, m)} \log p(x_h | z, x_v) - KL(q(z | x, m) \| p(z | x_v, m))

With everything hidden this is an ordinary VAE (with a learnt constant prior), so the model also samples.

References:
    Ivanov, Figurnov and Vetrov, Variational Autoencoder with Arbitrary Conditioning, ICLR 2019, arXiv:1806.02382,
    section 4 (without the skip connections from prior to decoder: a vector of features goes there instead).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lit_gen.core.errors import UsageError, require
from lit_gen.core.images import ImageSpec
from lit_gen.core.random import RowNoise
from lit_gen.vae.evaluation import importance_bound
from lit_gen.vae.gaussian import DiagonalGaussian
from lit_gen.vae.objectives import elbo, kl_between
from lit_gen.vae.vae import VAE


def random_mask(noise: RowNoise, height: int, width: int) -> Tensor:
    """A mask for each row, 1 = hidden: all pixels (1/4 of the rows), a rectangle (3/8), or pixels at a random rate (3/8).

    Shape:
        result float32 ``[B, 1, H, W]``.
    """
    kind, rate = noise.uniform(1, 1, 1), noise.uniform(1, 1, 1)
    corners = noise.uniform(2, 2).sort(-1).values  # [B, (y, x), (from, to)]
    y = (torch.arange(height, device=kind.device) + 0.5).div(height)[None, None, :, None]
    x = (torch.arange(width, device=kind.device) + 0.5).div(width)[None, None, None, :]
    (top, bottom), (left, right) = (corners[:, i, :, None, None, None].unbind(1) for i in (0, 1))
    rectangle = (y >= top) & (y <= bottom) & (x >= left) & (x <= right)
    pixels = noise.uniform(1, height, width) < rate
    return torch.where(kind < 0.25, True, torch.where(kind < 0.625, rectangle, pixels)).float()


class InpaintingVAE(VAE):
    """VAE with arbitrary conditioning. Masks are 1 where a pixel is hidden, 0 where it is given.

    ``loss``, ``elbo``, ``reconstruction`` and ``kl`` concern the hidden pixels under random masks (the same ones in every
    evaluation); ``log_prob`` and ``test/nll`` hide everything and so bound the log-likelihood of whole images.

    Args:
        context: number of features of the visible pixels that the decoder receives beside z.
        **kwargs: as in :class:`VAE`; the encoder is built for one channel more (the mask), once as posterior and once as prior.

    Raises:
        UsageError: context is less than 1.
    """

    def __init__(self, context: int = 50, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require(context >= 1, "context", context, "an integer of 1 or more")
        self.context = context

    def make_networks(self, spec: ImageSpec) -> dict[str, nn.Module]:
        channels, height, width = spec.shape
        seen = (channels + 1, height, width)
        return {
            "encoder": self.make_encoder(seen, 2 * self.latent_dim, 0),
            "prior": self.make_encoder(seen, 2 * self.latent_dim + self.context, 0),
            "decoder": self.make_decoder(self.params_shape(spec), self.latent_dim + self.context, 0),
        }

    def infer(self, image: Tensor, mask: Tensor) -> DiagonalGaussian:
        """q(z | x, m), which sees the whole image."""
        return DiagonalGaussian.from_features(self.net("encoder")(torch.cat([image, mask], 1)), self.posterior)

    def prior(self, image: Tensor, mask: Tensor) -> tuple[DiagonalGaussian, Tensor]:
        """p(z | x_v, m), and the features of the visible pixels ``[B, context]``."""
        seen = torch.cat([image * (1 - mask), mask], 1)
        gaussian, context = self.net("prior")(seen).split([2 * self.latent_dim, self.context], -1)
        return DiagonalGaussian.from_features(gaussian, self.posterior), context

    def terms(self, image: Tensor, label: Tensor, noise: RowNoise) -> dict[str, Tensor]:
        mask = random_mask(noise, *image.shape[-2:])
        q, (p, context) = self.infer(image, mask), self.prior(image, mask)
        z = q.rsample(self.draw(noise, self.samples))
        reconstruction = self.likelihood.log_prob(image, self.decode(z, context), mask)
        kl = kl_between(q, p)
        # Section 4.3.1: a very wide prior on the prior's parameters, which keeps them from running away.
        runaway = (p.mean.square() / (2 * 1e4**2) - 1e-4 * (p.log_std - p.std)).sum(-1)
        loss = runaway - elbo(reconstruction, kl, self.kl_weight())
        return {"loss": loss, "reconstruction": reconstruction, "kl": kl}

    def decode(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Parameters of p(x | z, x_v); the context ``[B, context]`` takes the place of the label."""
        return self.net("decoder")(z, label)

    def generate(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        p, context = self.prior(*self.nothing(z.shape[0]))
        return self.decode(p.rsample(z), context)

    def nothing(self, n: int) -> tuple[Tensor, Tensor]:
        """n images of which nothing is seen, and their masks."""
        channels, height, width = self.spec.shape
        mask = torch.ones(n, 1, height, width, device=self.device)
        return mask.new_zeros(n, channels, height, width), mask

    def bound(self, image: Tensor, label: Tensor | None, noise: RowNoise, samples: int) -> Tensor:
        mask = self.nothing(image.shape[0])[1]
        q, (p, context) = self.infer(image, mask), self.prior(image, mask)

        def log_weights(start: int, stop: int) -> Tensor:
            z = q.rsample(self.draw(noise, stop - start))
            return self.likelihood.log_prob(image, self.decode(z, context)) + p.log_prob(z) - q.log_prob(z)

        return importance_bound(log_weights, samples, self.chunk(image.shape[0], samples))

    def complete(self, image: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Fills the hidden pixels with the decoder's mean at a z drawn from p(z | x_v); the others are returned as given.

        Shape:
            image: ``[B, C, H, W]``; mask: ``[B, 1, H, W]``, 1 = hidden; result ``[B, C, H, W]``.

        Raises:
            UsageError: the mask's shape does not fit the image.
        """
        expected = (image.shape[0], 1, *image.shape[-2:])
        if tuple(mask.shape) != expected:
            raise UsageError(
                f"mask has shape {list(mask.shape)}; accepted: {list(expected)}, 1 where a pixel is hidden"
            )
        mask = mask.to(image)
        with self.evaluating():
            p, context = self.prior(image, mask)
            z = p.rsample(torch.randn(p.mean.shape, generator=generator, device=image.device))
            filled = self.likelihood.mean(self.decode(z, context))
        return torch.where(mask.bool(), filled, image)

    def code(self, image: Tensor, label: Tensor) -> Tensor:
        return self.infer(image, self.nothing(image.shape[0])[1]).mean

    def reconstruct(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        """The mean image at the mean of q(z | x) with nothing given to the decoder, ``[B, C, H, W]``."""
        with self.evaluating():
            blank, mask = self.nothing(image.shape[0])
            return self.likelihood.mean(self.decode(self.infer(image, mask).mean, self.prior(blank, mask)[1]))
