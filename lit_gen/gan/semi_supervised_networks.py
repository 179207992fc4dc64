"""Fully connected networks of the semi-supervised GAN: a noisy classifier with weight norm, a generator with batch norm."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gen.core.errors import require
from lit_gen.gan.networks import Generator


class GaussianNoise(nn.Module):
    """Adds normal noise in training.

    Args:
        std: its standard deviation; 0 for none.

    Shape:
        input and output: any.
    """

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, torch.randn_like(x), alpha=self.std) if self.training and self.std else x

    def extra_repr(self) -> str:
        return f"std={self.std}"


class WeightNormLinear(nn.Module):
    r"""A linear layer whose weights' directions and lengths are separate parameters.

    .. math:: y = \frac{g}{\lVert v \rVert_2} \odot (V x) + b, \qquad v \text{ the rows of } V

    Args:
        in_features: length of x.
        out_features: length of y.
        learn_scale: g is a parameter; else it stays what :meth:`initialise` makes of it, and is a buffer.

    Shape:
        input: ``[B, in_features]``; output: ``[B, out_features]``.

    References:
        Salimans and Kingma, Weight normalization, NeurIPS 2016 (arXiv:1602.07868), equations 2 and 6.
    """

    scale: Tensor

    def __init__(self, in_features: int, out_features: int, learn_scale: bool = False) -> None:
        super().__init__()
        self.direction = nn.Parameter(0.1 * torch.randn(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        if learn_scale:
            self.scale = nn.Parameter(torch.ones(out_features))
        else:
            self.register_buffer("scale", torch.ones(out_features))

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # the rows are divided by their lengths after the product, where there are fewer numbers
        return F.linear(x, self.direction), torch.linalg.vector_norm(self.direction, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        projected, length = self._projected(x)
        return projected * (self.scale / length) + self.bias

    @torch.no_grad()
    def initialise(self, x: Tensor) -> Tensor:
        """Sets scale and bias so that every output has mean 0 and variance 1 over these inputs; returns the outputs."""
        projected, length = self._projected(x)
        std, mean = torch.std_mean(projected / length, dim=0, correction=0)
        std = std.clamp_min(1e-6)
        self.scale.copy_(1.0 / std)
        self.bias.copy_(-mean / std)
        return self(x)


class SemiSupervisedClassifier(nn.Module):
    """Images to the logits of K classes; the logit of one more class, "generated", is 0 and is not computed.

    Hidden layers are ReLU of :class:`WeightNormLinear`; only the last layer learns its scale. In training every layer's
    input gets normal noise. Images in [-1, 1] are first brought to [0, 1], where the authors' are, so that
    ``input_noise`` means the same.

    Args:
        image_shape: (C, H, W).
        num_classes: K.
        hidden: widths of the hidden layers.
        input_noise: standard deviation of the noise on the image.
        hidden_noise: standard deviation of the noise on the hidden layers.

    Shape:
        image: ``[B, C, H, W]`` in [-1, 1]; output: ``[B, K]``.

    Raises:
        UsageError: no hidden layer, or a negative standard deviation.

    References:
        Salimans et al., Improved techniques for training GANs, NeurIPS 2016 (arXiv:1606.03498), section 5, and the authors'
        code, https://github.com/openai/improved-gan.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        hidden: tuple[int, ...] = (1000, 500, 250, 250, 250),
        input_noise: float = 0.3,
        hidden_noise: float = 0.5,
    ) -> None:
        super().__init__()
        require(len(hidden) > 0, "hidden", list(hidden), "one width or more")
        require(input_noise >= 0, "input_noise", input_noise, "input_noise >= 0")
        require(hidden_noise >= 0, "hidden_noise", hidden_noise, "hidden_noise >= 0")
        layers: list[nn.Module] = []
        width, noise = math.prod(image_shape), input_noise
        for following in hidden:
            layers += [GaussianNoise(noise), WeightNormLinear(width, following), nn.ReLU()]
            width, noise = following, hidden_noise
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Sequential(GaussianNoise(noise), WeightNormLinear(width, num_classes, learn_scale=True))

    def features(self, image: Tensor) -> Tensor:
        """The last hidden activations ``[B, F]``, before their noise: what feature matching compares."""
        return self.trunk(self._pixels(image))

    def logits(self, features: Tensor) -> Tensor:
        """The outputs ``[B, K]`` for features ``[B, F]``."""
        return self.head(features)

    def forward(self, image: Tensor) -> Tensor:
        return self.logits(self.features(image))

    @torch.no_grad()
    def initialise(self, image: Tensor) -> None:
        """Brings every layer's outputs to mean 0 and variance 1 on these images and their noise, by scales and biases."""
        x = self._pixels(image)
        for layer in (*self.trunk, *self.head):
            x = layer.initialise(x) if isinstance(layer, WeightNormLinear) else layer(x)

    @staticmethod
    def _pixels(image: Tensor) -> Tensor:
        return image.flatten(1).add(1.0).div(2.0)


class SemiSupervisedGenerator(Generator):
    """Codes to images: hidden layers with batch norm (without a gain) and softplus, a weight-normalised output.

    The authors' images are in [0, 1], the sigmoid of the output; ours are in [-1, 1], tanh(a / 2) = 2 sigmoid(a) - 1.

    Args:
        image_shape, latent_dim, num_classes: see :class:`Generator`.
        hidden: widths of the hidden layers.

    Shape:
        z: ``[B, latent_dim]``; output: ``[B, C, H, W]``.

    References:
        As :class:`SemiSupervisedClassifier`.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int,
        num_classes: int = 0,
        hidden: tuple[int, ...] = (500, 500),
    ) -> None:
        super().__init__(image_shape, latent_dim, num_classes)
        layers: list[nn.Module] = []
        width = self.code_dim
        for following in hidden:
            linear, norm = nn.Linear(width, following, bias=False), nn.BatchNorm1d(following, eps=1e-6)
            nn.init.xavier_uniform_(linear.weight)
            norm.weight.requires_grad_(False)  # a gain of 1
            layers += [linear, norm, nn.Softplus()]
            width = following
        output = WeightNormLinear(width, math.prod(image_shape), learn_scale=True)
        nn.init.xavier_uniform_(output.direction)
        self.network = nn.Sequential(*layers, output)

    def synthesis(self, code: Tensor) -> Tensor:
        return torch.tanh(self.network(code) / 2.0).unflatten(1, self.image_shape)
