"""Encoders and decoders: plain modules for images of any size, with or without a label.

An encoder maps an image (and a one-hot label) to ``outputs`` features; a decoder maps a latent vector (and a one-hot label)
to a map of numbers with the image's height and width, of as many channels as the likelihood asks for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from einops import repeat
from torch import Tensor, nn

Shape = tuple[int, int, int]
EncoderCallable = Callable[[Shape, int, int], nn.Module]
"""(image shape, number of outputs, number of classes or 0) -> encoder."""
DecoderCallable = Callable[[Shape, int, int], nn.Module]
"""(shape of the parameter map, latent dimension, number of classes or 0) -> decoder."""

Activation = Literal["tanh", "relu", "elu", "gelu", "softplus"]
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
}


def mlp(sizes: Sequence[int], activation: Activation) -> nn.Sequential:
    """Linear layers with the activation between them; Glorot's initialisation, zero biases (Burda et al., section 5)."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        linear = nn.Linear(inputs, outputs)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


def with_label(x: Tensor, label: Tensor | None) -> Tensor:
    """Appends a one-hot label ``[..., K]`` to vectors ``[..., D]``; leading dimensions broadcast."""
    return x if label is None else torch.cat([x, label.expand(*x.shape[:-1], -1)], -1)


class MLPEncoder(nn.Module):
    """Fully connected encoder; the defaults are Burda's 784-200-200.

    Args:
        image_shape: (channels, height, width).
        outputs: number of features, e.g. twice the latent dimension.
        num_classes: length of the one-hot label; 0 for none.
        hidden: widths of the hidden layers.
        activation: name of the non-linearity.

    Shape:
        image ``[B, C, H, W]``, label ``[B, K]`` -> ``[B, outputs]``.

    References:
        Burda et al., ICLR 2016, section 5.1.
    """

    def __init__(
        self,
        image_shape: Shape,
        outputs: int,
        num_classes: int = 0,
        hidden: Sequence[int] = (200, 200),
        activation: Activation = "tanh",
    ) -> None:
        super().__init__()
        self.layers = mlp([math.prod(image_shape) + num_classes, *hidden, outputs], activation)

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        return self.layers(with_label(image.flatten(1), label))


class MLPDecoder(nn.Module):
    """Fully connected decoder; the defaults are Burda's 200-200-784.

    Args:
        image_shape: shape of the parameter map, (numbers per pixel x channels, height, width).
        latent_dim: length of z.
        num_classes, hidden, activation: as in :class:`MLPEncoder`.

    Shape:
        z ``[..., Z]``, label ``[..., K]`` -> ``[..., C, H, W]``.
    """

    def __init__(
        self,
        image_shape: Shape,
        latent_dim: int,
        num_classes: int = 0,
        hidden: Sequence[int] = (200, 200),
        activation: Activation = "tanh",
    ) -> None:
        super().__init__()
        self.image_shape = tuple(image_shape)
        self.layers = mlp([latent_dim + num_classes, *hidden, math.prod(image_shape)], activation)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return self.layers(with_label(z, label)).view(*z.shape[:-1], *self.image_shape)


def pyramid(image_shape: Shape, smallest: int = 4) -> list[tuple[int, int]]:
    """Sizes of an image halved (rounding up) until its longer side is at most ``smallest``; the first is the image's."""
    sizes = [(image_shape[1], image_shape[2])]
    while max(sizes[-1]) > smallest:
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


class ConvEncoder(nn.Module):
    """Strided 3x3 convolutions, each halving the image and doubling the width, until 4x4 or less is left.

    Args:
        image_shape, outputs, num_classes: as in :class:`MLPEncoder`; the label enters as constant planes.
        width: channels after the first convolution.
        max_width: upper limit of the doubling.
        activation: name of the non-linearity.

    Shape:
        image ``[B, C, H, W]``, label ``[B, K]`` -> ``[B, outputs]``.
    """

    def __init__(
        self,
        image_shape: Shape,
        outputs: int,
        num_classes: int = 0,
        width: int = 32,
        max_width: int = 256,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        sizes = pyramid(image_shape)
        widths = [image_shape[0] + num_classes, width, *(min(width << i, max_width) for i in range(1, len(sizes)))]
        layers: list[nn.Module] = [nn.Conv2d(widths[0], widths[1], 3, padding=1), ACTIVATIONS[activation]()]
        for inputs, channels in pairwise(widths[1:]):
            layers += [nn.Conv2d(inputs, channels, 3, stride=2, padding=1), ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * math.prod(sizes[-1]), outputs))

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        if label is not None:
            planes = repeat(label, "b k -> b k h w", h=image.shape[-2], w=image.shape[-1])
            image = torch.cat([image, planes], 1)
        return self.layers(image)


class ConvDecoder(nn.Module):
    """The mirror of :class:`ConvEncoder`: fractionally strided convolutions that hit every size of the pyramid exactly.

    Args:
        image_shape, latent_dim, num_classes: as in :class:`MLPDecoder`.
        width, max_width, activation: as in :class:`ConvEncoder`.

    Shape:
        z ``[..., Z]``, label ``[..., K]`` -> ``[..., C, H, W]``.
    """

    def __init__(
        self,
        image_shape: Shape,
        latent_dim: int,
        num_classes: int = 0,
        width: int = 32,
        max_width: int = 256,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        sizes = pyramid(image_shape)[::-1]
        widths = [width, *(min(width << i, max_width) for i in range(1, len(sizes)))][::-1]
        start = (widths[0], *sizes[0])
        layers: list[nn.Module] = [nn.Linear(latent_dim + num_classes, math.prod(start)), nn.Unflatten(1, start)]
        for (inputs, channels), (small, large) in zip(pairwise(widths), pairwise(sizes)):
            # Output is 2 s - 1 + extra: the extra row or column tells 2 s from 2 s - 1.
            extra = (large[0] - 2 * small[0] + 1, large[1] - 2 * small[1] + 1)
            up = nn.ConvTranspose2d(inputs, channels, 3, stride=2, padding=1, output_padding=extra)
            layers += [ACTIVATIONS[activation](), up]
        layers += [ACTIVATIONS[activation](), nn.Conv2d(widths[-1], image_shape[0], 3, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        output = self.layers(with_label(z, label).flatten(0, -2))
        return output.unflatten(0, z.shape[:-1])
