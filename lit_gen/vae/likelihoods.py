"""What the decoder's outputs mean: the distribution p(x | z) of an image given its latent vector.

All are independent over pixels and channels. ``params`` is the decoder's output, ``[..., B, P C, H, W]`` with P numbers for
each pixel and channel; leading dimensions (samples of z) broadcast against the image.
"""

from __future__ import annotations

import copy
import math
import warnings
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from lit_gen.core.errors import UsageError
from lit_gen.core.images import ImageSpec
from lit_gen.vae.gaussian import LOG_2_PI, MIN_STD


class Likelihood:
    """A distribution over images; subclasses say what the decoder's numbers are."""

    params_per_pixel: ClassVar[int] = 1
    spec: ImageSpec

    def bind(self, spec: ImageSpec) -> "Likelihood":
        """Returns a copy for data of this spec.

        Raises:
            UsageError: the distribution has no mass on the data's range.
        """
        bound = copy.copy(self)
        bound.spec = spec
        return bound

    def pixel_log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        """Log probability (density) of every pixel, in nats.

        Shape:
            x: ``[B, C, H, W]``; params: ``[..., B, P C, H, W]``; result ``[..., B, C, H, W]``.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement pixel_log_prob")

    def log_prob(self, x: Tensor, params: Tensor, mask: Tensor | None = None) -> Tensor:
        """Log probability (density) of the image in nats: the sum over pixels, or over those where the mask is 1.

        Shape:
            x: ``[B, C, H, W]``; params: ``[..., B, P C, H, W]``; mask: ``[B, 1 or C, H, W]``; result ``[..., B]``.
        """
        pixels = self.pixel_log_prob(x, params.float())
        return (pixels if mask is None else pixels * mask).sum((-3, -2, -1))

    def mean(self, params: Tensor) -> Tensor:
        """The expected image, ``[..., B, C, H, W]``."""
        raise NotImplementedError(f"{type(self).__name__} must implement mean")

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """An image drawn from the distribution, ``[..., B, C, H, W]``, clamped to the data's range."""
        raise NotImplementedError(f"{type(self).__name__} must implement sample")

    @property
    def levels_nats(self) -> float:
        """Nats per dimension to add to a negative log density so that it counts 8-bit levels; 0 for a probability."""
        return 0.0


class Bernoulli(Likelihood):
    """Binary pixels; the decoder gives logits. Grey pixels in [0, 1] are accepted, but then the number is a cross entropy.

    References:
        Kingma and Welling, ICLR 2014, appendix C.1.
    """

    def bind(self, spec: ImageSpec) -> "Likelihood":
        if spec.value_range != (0.0, 1.0):
            raise UsageError(
                f"Bernoulli takes pixels in [0, 1], the data is in {list(spec.value_range)}: set data.init_args.value_range"
            )
        if not spec.binary:
            warnings.warn(
                "Bernoulli on grey pixels: 'nll' is a cross entropy, not a likelihood; binarise the data to compare",
                stacklevel=2,
            )
        return super().bind(spec)

    def pixel_log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        return -F.binary_cross_entropy_with_logits(params, x.expand_as(params), reduction="none")

    def mean(self, params: Tensor) -> Tensor:
        return params.float().sigmoid()

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return torch.bernoulli(self.mean(params), generator=generator)


class Gaussian(Likelihood):
    """Normal pixels with one fixed standard deviation; the decoder gives the mean. A density: compare on dequantised data.

    Args:
        std: the standard deviation, in the data's units. With std = sqrt(1/2) the loss is the squared error.

    Raises:
        UsageError: std is not positive.
    """

    def __init__(self, std: float = 1.0) -> None:
        if not std > 0:
            raise UsageError(f"Gaussian: std = {std}; accepted: std > 0")
        self.std = std

    def pixel_log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        return -0.5 * ((x - params) / self.std).square() - (0.5 * LOG_2_PI + math.log(self.std))

    def mean(self, params: Tensor) -> Tensor:
        return params.float().clamp(*self.spec.value_range)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        noise = torch.randn(params.shape, generator=generator, device=params.device)
        return (params.float() + self.std * noise).clamp(*self.spec.value_range)

    @property
    def levels_nats(self) -> float:
        low, high = self.spec.value_range
        return math.log(256 / (high - low))


class LearnedGaussian(Gaussian):
    """Normal pixels; the decoder gives mean and raw scale, and std = softplus(scale) + ``min_std``.

    Args:
        min_std: bound that keeps the density of constant pixels finite; about one grey level by default.

    Raises:
        UsageError: min_std is not positive.

    References:
        Kingma and Welling, ICLR 2014, appendix C.2 (with the softplus in place of their exponential).
    """

    params_per_pixel: ClassVar[int] = 2

    def __init__(self, min_std: float = 1 / 256) -> None:
        if not min_std > 0:
            raise UsageError(f"LearnedGaussian: min_std = {min_std}; accepted: min_std > 0")
        self.min_std = max(min_std, MIN_STD)

    def split(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, each ``[..., B, C, H, W]``."""
        mean, scale = params.float().chunk(2, dim=-3)
        return mean, F.softplus(scale) + self.min_std

    def pixel_log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        mean, std = self.split(params)
        return -0.5 * ((x - mean) / std).square() - std.log() - 0.5 * LOG_2_PI

    def mean(self, params: Tensor) -> Tensor:
        return super().mean(self.split(params)[0])

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        mean, std = self.split(params)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        return (mean + std * noise).clamp(*self.spec.value_range)


class Categorical(Likelihood):
    """Each pixel one of 256 grey levels; the decoder gives 256 logits, level by level (``[(l c), h, w]``).

    Values of the data are rounded to the nearest level, so dequantisation noise must be off.

    References:
        van den Oord et al., Pixel Recurrent Neural Networks, ICML 2016, section 3 (the 256-way softmax).
    """

    params_per_pixel: ClassVar[int] = 256

    def pixel_log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        low, high = self.spec.value_range
        level = ((x - low) * (255 / (high - low))).round().clamp(0, 255).long()
        logits = rearrange(params, "... b (l c) h w -> (... b) l c h w", l=256)
        shape = (*params.shape[:-3], *x.shape[-3:])
        return -F.cross_entropy(logits, level.expand(shape).reshape(-1, *x.shape[-3:]), reduction="none").view(shape)

    def mean(self, params: Tensor) -> Tensor:
        low, high = self.spec.value_range
        probability = rearrange(params.float(), "... (l c) h w -> ... c h w l", l=256).softmax(-1)
        return probability @ torch.linspace(low, high, 256, device=params.device)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        low, high = self.spec.value_range
        probability = rearrange(params.float(), "... (l c) h w -> ... c h w l", l=256).softmax(-1)
        level = torch.multinomial(probability.reshape(-1, 256), 1, generator=generator).view(probability.shape[:-1])
        return low + (high - low) * level.float() / 255
