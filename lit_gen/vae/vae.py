r"""The variational autoencoder, and beta-VAE.

The model draws z from N(0, I) and x from p(x | z), whose parameters the decoder computes. The encoder gives the mean and scale
of a diagonal Gaussian q(z | x), and both are trained to maximise the evidence lower bound

.. math:: \log p(x) \ge E_{q(z|x)} \log p(x | z) - KL(q(z | x) \| p(z))

with samples :math:`z = \mu + \sigma \epsilon`, through which the gradient passes. The KL term is exact; it is summed over
latent dimensions as the reconstruction is over pixels, and both are averaged over the batch. ``beta`` weighs the KL term.

References:
    Kingma and Welling, Auto-Encoding Variational Bayes, ICLR 2014, arXiv:1312.6114.
    Higgins et al., beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework, ICLR 2017.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lit_gen.core.errors import require
from lit_gen.core.images import ImageBatch, ImageSpec
from lit_gen.core.random import BatchKey, RowNoise
from lit_gen.vae.base import EncoderDecoder
from lit_gen.vae.evaluation import chunk_size, importance_bound
from lit_gen.vae.gaussian import DiagonalGaussian, Parametrisation, standard_normal_log_prob
from lit_gen.vae.objectives import elbo, kl_to_standard_normal, warmup


class VAE(EncoderDecoder):
    """Variational autoencoder.

    ``val/loss`` is the negative beta-weighted bound; ``elbo`` is always unweighted. ``test/nll`` is the importance-sampled
    bound on -log p(x) with ``nll_samples`` samples, an upper bound in expectation.

    Args:
        samples: M, samples of z for each example in training (Kingma and Welling use 1 with batches of 100).
        beta: weight of the KL term.
        kl_warmup: number of updates over which the KL term's weight grows linearly from 0 to beta.
        posterior: how the encoder's outputs give the scale, ``log_variance`` or ``softplus``.
        nll_samples: k of the test bound.
        pixels: whether :meth:`sample` returns the mean of p(x | z), as the papers' figures do, or draws from it.
        **kwargs: as in :class:`EncoderDecoder`.
    """

    measures: ClassVar[tuple[str, ...]] = ("loss", "elbo", "reconstruction", "kl", "nll")

    def __init__(
        self,
        samples: int = 1,
        beta: float = 1.0,
        kl_warmup: int = 0,
        posterior: Parametrisation = "log_variance",
        nll_samples: int = 5000,
        pixels: Literal["mean", "sample"] = "mean",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require(samples >= 1, "samples", samples, "an integer of 1 or more")
        require(beta >= 0, "beta", beta, "beta >= 0")
        require(kl_warmup >= 0, "kl_warmup", kl_warmup, "a number of updates, 0 or more")
        require(nll_samples >= 1, "nll_samples", nll_samples, "an integer of 1 or more")
        self.samples, self.beta, self.kl_warmup = samples, beta, kl_warmup
        self.posterior, self.nll_samples, self.pixels = posterior, nll_samples, pixels

    # ---------------------------------------------------------------- the model

    def make_networks(self, spec: ImageSpec) -> dict[str, nn.Module]:
        classes = spec.num_classes if self.conditional else 0
        return {
            "encoder": self.make_encoder(spec.shape, 2 * self.latent_dim, classes),
            "decoder": self.make_decoder(self.params_shape(spec), self.latent_dim, classes),
        }

    def encode(self, image: Tensor, label: Tensor | None = None) -> DiagonalGaussian:
        """q(z | x), or q(z | x, y), for images ``[B, C, H, W]`` and one-hot labels ``[B, K]``."""
        return DiagonalGaussian.from_features(self.net("encoder")(image, label), self.posterior)

    def decode(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Parameters of p(x | z), ``[..., P C, H, W]``, for z ``[..., Z]``."""
        return self.net("decoder")(z, label)

    def generate(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Parameters of p(x | z) for z drawn from N(0, I): what sampling starts from."""
        return self.decode(z, label)

    def draw(self, noise: RowNoise, samples: int) -> Tensor:
        """Standard normal noise ``[samples, B, Z]``, drawn sample by sample so that chunks continue one sequence."""
        if samples == 1:
            return noise.normal(self.latent_dim).unsqueeze(0)
        return torch.stack([noise.normal(self.latent_dim) for _ in range(samples)])

    # ---------------------------------------------------------------- objectives

    def kl_weight(self) -> float:
        """beta, times the warm-up in training."""
        if self.training and self.kl_warmup:
            return self.beta * warmup(self.global_step, self.kl_warmup)
        return self.beta

    def terms(self, image: Tensor, label: Tensor, noise: RowNoise) -> dict[str, Tensor]:
        y = self.one_hot(label)
        q = self.encode(image, y)
        z = q.rsample(self.draw(noise, self.samples))
        reconstruction = self.likelihood.log_prob(image, self.decode(z, y))
        kl = kl_to_standard_normal(q)
        return {"loss": -elbo(reconstruction, kl, self.kl_weight()), "reconstruction": reconstruction, "kl": kl}

    def measure(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        reconstruction, kl = terms["reconstruction"].mean(0), terms["kl"]
        return {**terms, "reconstruction": reconstruction, "elbo": elbo(reconstruction[None], kl)}

    def log_prob(self, image: Tensor, label: Tensor | None = None, samples: int | None = None, seed: int = 0) -> Tensor:
        """A lower bound (in expectation) on log p(x), not its value: the importance-sampled bound, in nats.

        Args:
            image: ``[B, C, H, W]`` in the spec's range.
            label: int64 ``[B]`` for a conditional model, whose bound is on log p(x | y).
            samples: k; ``nll_samples`` where None.
            seed: of the noise.

        Shape:
            result ``[B]``, float64.
        """
        rows = image.shape[0]
        noise = RowNoise(BatchKey(seed, 0, rows), rows, "log_prob", image.device)
        with self.evaluating():
            return self.bound(image, label, noise, samples or self.nll_samples)

    def bound(self, image: Tensor, label: Tensor | None, noise: RowNoise, samples: int) -> Tensor:
        """The importance-sampled bound ``[B]``; the encoder runs once, the decoder in chunks."""
        y = self.one_hot(label)
        q = self.encode(image, y)

        def log_weights(start: int, stop: int) -> Tensor:
            z = q.rsample(self.draw(noise, stop - start))
            return self.likelihood.log_prob(image, self.decode(z, y)) + standard_normal_log_prob(z) - q.log_prob(z)

        return importance_bound(log_weights, samples, self.chunk(image.shape[0], samples))

    def chunk(self, batch_size: int, samples: int) -> int:
        """Samples decoded at once."""
        return chunk_size(batch_size, math.prod(self.params_shape(self.spec)), samples, self.device.type)

    # ---------------------------------------------------------------- test

    def test_step(self, batch: ImageBatch, batch_idx: int) -> None:
        super().test_step(batch, batch_idx)
        noise = self.noise(batch, "nll")
        self.add_tested(batch_idx, nll=-self.bound(batch.image, batch.label, noise, self.nll_samples))

    def on_test_epoch_end(self) -> None:
        nll, error = self.log_averages("test")["nll"]
        bits = (nll / self.spec.dim + self.likelihood.levels_nats) / math.log(2)
        self.log_dict({"test/nll_stderr": error, "test/bits_per_dim": bits}, sync_dist=True)
        binarize = getattr(self.trainer.datamodule, "binarize", None)
        about = {"bound": "importance-sampled", "samples": self.nll_samples, "unit": "nats", "binarize": binarize}
        self.estimators["test/nll"] = {**about, "stderr": error}

    # ---------------------------------------------------------------- images

    def from_latent(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """The mean images ``[n, C, H, W]`` of latent vectors ``[n, Z]``, for int64 labels ``[n]`` if conditional."""
        with self.evaluating():
            return self.likelihood.mean(self.generate(z, self.one_hot(label)))

    def sample(self, n: int, *, label: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        if self.conditional and label is None:
            label = torch.randint(self.spec.num_classes, (n,), generator=generator, device=self.device)
        z = torch.randn(n, self.latent_dim, generator=generator, device=self.device)
        if self.pixels == "mean":
            return self.from_latent(z, label)
        with self.evaluating():
            return self.likelihood.sample(self.generate(z, self.one_hot(label)), generator)

    def code(self, image: Tensor, label: Tensor) -> Tensor:
        return self.encode(image, self.one_hot(label)).mean

    def reconstruct(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        """The mean image of the decoder at the mean of q(z | x), ``[B, C, H, W]``."""
        with self.evaluating():
            y = self.one_hot(label)
            return self.likelihood.mean(self.decode(self.encode(image, y).mean, y))
