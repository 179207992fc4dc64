"""What all generators and discriminators share (labels, reference batch, output head), and the fully connected pair."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from lit_gen.core.errors import UsageError
from lit_gen.gan.layers import MinibatchDiscrimination, Normalisation, constrain_spectrum, normalise

Condition = Literal["concat", "projection"]


class Generator(nn.Module):
    """Maps codes, and labels where there are any, to images in [-1, 1]. A subclass implements :meth:`synthesis`.

    The label is appended to the code as a one-hot vector (Mirza and Osindero, Conditional generative adversarial nets,
    2014, arXiv:1411.1784): the first linear layer is its embedding. For virtual batch norm a reference batch of codes,
    drawn once, runs in front of every batch.

    Args:
        image_shape: (C, H, W).
        latent_dim: length of the code.
        num_classes: number of labels; 0 for an unconditional generator.
        reference_size: rows of the reference batch; 0 for none.

    Shape:
        z: ``[B, latent_dim]``; label: int64 ``[B]``; output: ``[B, C, H, W]``.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], latent_dim: int, num_classes: int = 0, reference_size: int = 0
    ) -> None:
        super().__init__()
        self.image_shape, self.num_classes, self.reference_size = tuple(image_shape), num_classes, reference_size
        self.code_dim = latent_dim + num_classes
        if reference_size:
            self.register_buffer("reference", torch.randn(reference_size, latent_dim))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if self.reference_size:
            z = torch.cat([self.reference, z])
        if self.num_classes:
            if self.reference_size:
                cycle = torch.arange(self.reference_size, device=z.device) % self.num_classes
                label = torch.cat([cycle, label])
            z = torch.cat([z, F.one_hot(label, self.num_classes).to(z.dtype)], dim=1)
        return self.synthesis(z)[self.reference_size :]

    def synthesis(self, code: Tensor) -> Tensor:
        """The images of codes ``[B, latent_dim + num_classes]``."""
        raise NotImplementedError(f"{type(self).__name__} must implement synthesis")


class Discriminator(nn.Module):
    """Maps images, and labels where there are any, to logits. A subclass sets ``trunk`` and calls :meth:`finish`.

    Labels enter as one more input channel, an embedding of the label's own (``concat``, after Mirza and Osindero 2014),
    or as the inner product of an embedding with the features (``projection``; Miyato and Koyama, cGANs with projection
    discriminator, ICLR 2018, arXiv:1802.05637, equation 4).

    Args:
        image_shape: (C, H, W).
        num_classes: number of labels; 0 for an unconditional discriminator.
        condition: ``concat`` or ``projection``.
        minibatch_kernels: B of :class:`MinibatchDiscrimination`; 0 for none.
        spectral_norm: see :func:`constrain_spectrum`.

    Shape:
        image: ``[B, C, H, W]``; label: int64 ``[B]``; output: ``[B]``.

    Raises:
        UsageError: no such way to condition, or a negative number of kernels.
    """

    trunk: nn.Module

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int = 0,
        condition: Condition = "concat",
        minibatch_kernels: int = 0,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        if condition not in get_args(Condition):
            raise UsageError(f"condition = {condition!r}; accepted: concat, projection")
        if minibatch_kernels < 0:
            raise UsageError(f"minibatch_kernels = {minibatch_kernels}; accepted: minibatch_kernels >= 0")
        self.minibatch_kernels, self.spectral_norm = minibatch_kernels, spectral_norm
        channels, self.height, self.width = image_shape
        self.concat = num_classes > 0 and condition == "concat"
        self.projected = num_classes if condition == "projection" else 0
        self.in_channels = channels + self.concat
        if self.concat:
            self.plane = nn.Embedding(num_classes, self.height * self.width)

    def finish(self, feature_dim: int) -> None:
        """Adds the head over features of this length, and the constraint on all weights. Last call of ``__init__``."""
        kernels = self.minibatch_kernels
        self.minibatch = MinibatchDiscrimination(feature_dim, kernels) if kernels else nn.Identity()
        self.head = nn.Linear(feature_dim + kernels, 1)
        if self.projected:
            self.projection = nn.Embedding(self.projected, feature_dim)
        self.initialise()
        if self.spectral_norm:
            constrain_spectrum(self)

    def initialise(self) -> None:
        """Draws the initial weights where torch's own are not wanted."""

    def features(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        """The last hidden activations ``[B, F]``; what feature matching compares."""
        if self.concat:
            plane = rearrange(self.plane(label), "b (h w) -> b 1 h w", h=self.height)
            image = torch.cat([image, plane.to(image.dtype)], dim=1)
        return self.trunk(image)

    def logits(self, features: Tensor, label: Tensor | None = None) -> Tensor:
        """The outputs ``[B]`` for features ``[B, F]``."""
        logits = self.head(self.minibatch(features)).squeeze(1)
        return logits + (self.projection(label) * features).sum(dim=1) if self.projected else logits

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        return self.logits(self.features(image, label), label)


class MLPGenerator(Generator):
    """Fully connected: code -> hidden layers with ReLU -> tanh.

    Args:
        image_shape, latent_dim, num_classes: see :class:`Generator`.
        hidden: widths of the hidden layers.
        normalisation: after every hidden layer: none, batch, layer or virtual.
        reference_size: rows of the reference batch where the normalisation is virtual.

    References:
        Goodfellow et al., Generative adversarial nets, NeurIPS 2014 (arXiv:1406.2661), section 5, used such networks.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int,
        num_classes: int = 0,
        hidden: tuple[int, ...] = (256, 512, 1024),
        normalisation: Normalisation = "batch",
        reference_size: int = 64,
    ) -> None:
        super().__init__(image_shape, latent_dim, num_classes, reference_size if normalisation == "virtual" else 0)
        layers: list[nn.Module] = []
        width = self.code_dim
        for following in hidden:
            norm = normalise(normalisation, following, spatial=False, reference_size=self.reference_size)
            layers += [nn.Linear(width, following), norm, nn.ReLU(inplace=True)]
            width = following
        self.network = nn.Sequential(*layers, nn.Linear(width, math.prod(image_shape)), nn.Tanh())

    def synthesis(self, code: Tensor) -> Tensor:
        return self.network(code).unflatten(1, self.image_shape)


class MLPDiscriminator(Discriminator):
    """Fully connected: pixels -> hidden layers with LeakyReLU 0.2 and dropout -> logit.

    Args:
        image_shape, num_classes, condition, minibatch_kernels, spectral_norm: see :class:`Discriminator`.
        hidden: widths of the hidden layers.
        dropout: probability of dropping a hidden unit (the paper trained its discriminators with dropout).

    References:
        Goodfellow et al., Generative adversarial nets, NeurIPS 2014 (arXiv:1406.2661), section 5, used such networks.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int = 0,
        hidden: tuple[int, ...] = (1024, 512, 256),
        dropout: float = 0.0,
        condition: Condition = "concat",
        minibatch_kernels: int = 0,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__(image_shape, num_classes, condition, minibatch_kernels, spectral_norm)
        if not 0.0 <= dropout < 1.0:
            raise UsageError(f"dropout = {dropout}; accepted: 0 <= dropout < 1")
        layers: list[nn.Module] = [nn.Flatten()]
        width = self.in_channels * self.height * self.width
        for following in hidden:
            layers += [nn.Linear(width, following), nn.LeakyReLU(0.2, inplace=True)]
            layers += [nn.Dropout(dropout)] if dropout else []
            width = following
        self.trunk = nn.Sequential(*layers)
        self.finish(width)
