"""Residual generator and discriminator of WGAN-GP and SNGAN, for any power-of-two size from 16 to 128.

Gulrajani et al., Improved training of Wasserstein GANs, NeurIPS 2017 (arXiv:1704.00028), appendix F; Miyato et al.,
Spectral normalization for generative adversarial networks, ICLR 2018 (arXiv:1802.05957), appendix B.4, tables 4 and 5.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from einops.layers.torch import Reduce
from torch import Tensor, nn

from lit_gen.gan.dcgan import pyramid
from lit_gen.gan.layers import Normalisation, normalise
from lit_gen.gan.networks import Condition, Discriminator, Generator


def initialise_resnet(network: nn.Module) -> None:
    """He's initialisation for convolutions, Glorot's for linear layers, biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.Linear | nn.Embedding):
            nn.init.xavier_uniform_(module.weight)
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)


def channels_at(size: int, width: int) -> int:
    """``width`` up to 32x32, and half as many for each doubling of the size beyond."""
    return max(1, width * 32 // max(size, 32))


class UpBlock(nn.Module):
    """norm - ReLU - upsample - conv 3x3 - norm - ReLU - conv 3x3, beside upsample - conv 1x1.

    Shape:
        input: ``[B, C, H, W]``; output: ``[B, C', 2H, 2W]``.
    """

    def __init__(self, features: int, out: int, normalisation: Normalisation, reference_size: int) -> None:
        super().__init__()
        self.norm1 = normalise(normalisation, features, reference_size=reference_size)
        self.conv1 = nn.Conv2d(features, out, 3, padding=1)
        self.norm2 = normalise(normalisation, out, reference_size=reference_size)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.shortcut = nn.Conv2d(features, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(x))
        h = self.conv1(F.interpolate(h, scale_factor=2.0))
        h = self.conv2(F.relu(self.norm2(h)))
        # a 1x1 convolution and nearest-neighbour upsampling commute: the cheap order
        return h + F.interpolate(self.shortcut(x), scale_factor=2.0)


class DownBlock(nn.Module):
    """norm - ReLU - conv 3x3 - norm - ReLU - conv 3x3 (- mean pool), beside conv 1x1 (- mean pool) or nothing.

    The first block of a discriminator sees pixels: no normalisation and no ReLU in front.

    Shape:
        input: ``[B, C, H, W]``; output: ``[B, C', H/2, W/2]``, or ``[B, C', H, W]`` without ``down``.
    """

    def __init__(self, features: int, out: int, normalisation: Normalisation, down: bool, first: bool = False) -> None:
        super().__init__()
        self.down, self.first = down, first
        self.norm1 = normalise("none" if first else normalisation, features)
        self.conv1 = nn.Conv2d(features, out, 3, padding=1)
        self.norm2 = normalise(normalisation, out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.shortcut = nn.Conv2d(features, out, 1) if down or features != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.first else F.relu(self.norm1(x))
        h = self.conv2(F.relu(self.norm2(self.conv1(h))))
        if self.down:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)  # pooling commutes with the 1x1 shortcut
        return h + self.shortcut(x)


class ResNetGenerator(Generator):
    """Table 4a of SNGAN; for a 32x32 image and width w (256 there, 128 in WGAN-GP):

    | layer             | output       |
    |-------------------|--------------|
    | dense             | w x  4 x  4  |
    | ResBlock up       | w x  8 x  8  |
    | ResBlock up       | w x 16 x 16  |
    | ResBlock up       | w x 32 x 32  |
    | norm, ReLU, conv 3x3, tanh | C x 32 x 32 |

    Each doubling of the size adds a block of half the width.

    Args:
        image_shape, latent_dim, num_classes: see :class:`~lit_gen.gan.networks.Generator`.
        width: w.
        normalisation: none, batch, layer or virtual.
        reference_size: rows of the reference batch where the normalisation is virtual.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int,
        num_classes: int = 0,
        width: int = 128,
        normalisation: Normalisation = "batch",
        reference_size: int = 64,
    ) -> None:
        super().__init__(image_shape, latent_dim, num_classes, reference_size if normalisation == "virtual" else 0)
        doublings = len(pyramid(image_shape, width))
        sizes = [4 * 2**level for level in range(doublings + 1)]  # 4, 8, ..., H
        channels = [channels_at(size, width) for size in sizes]
        rows = self.reference_size
        self.network = nn.Sequential(
            nn.Linear(self.code_dim, channels[0] * 4 * 4),
            nn.Unflatten(1, (channels[0], 4, 4)),
            *(UpBlock(coarse, fine, normalisation, rows) for coarse, fine in pairwise(channels)),
            normalise(normalisation, channels[-1], reference_size=rows),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels[-1], image_shape[0], 3, padding=1),
            nn.Tanh(),
        )
        initialise_resnet(self)

    def synthesis(self, code: Tensor) -> Tensor:
        return self.network(code)


class ResNetDiscriminator(Discriminator):
    """Table 4b of SNGAN; for a 32x32 image and width w (128 in both papers):

    | layer                 | output       |
    |-----------------------|--------------|
    | ResBlock down (first) | w x 16 x 16  |
    | ResBlock down         | w x  8 x  8  |
    | ResBlock              | w x  8 x  8  |
    | ResBlock              | w x  8 x  8  |
    | ReLU, pool, one output | 1           |

    Each doubling of the size adds a block in front.

    Args:
        image_shape, num_classes, condition, minibatch_kernels, spectral_norm: see
            :class:`~lit_gen.gan.networks.Discriminator`.
        width: w.
        normalisation: none (SNGAN), layer (an option of WGAN-GP) or batch.
        pooling: ``sum`` (SNGAN) or ``mean`` (WGAN-GP) over positions.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int = 0,
        width: int = 128,
        normalisation: Literal["none", "batch", "layer"] = "none",
        pooling: Literal["sum", "mean"] = "mean",
        condition: Condition = "projection",
        minibatch_kernels: int = 0,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__(image_shape, num_classes, condition, minibatch_kernels, spectral_norm)
        halvings = len(pyramid(image_shape, width)) - 1
        channels = [channels_at(self.height // 2**level, width) for level in range(1, halvings + 1)]
        blocks = [DownBlock(self.in_channels, channels[0], normalisation, down=True, first=True)]
        blocks += [DownBlock(fine, coarse, normalisation, down=True) for fine, coarse in pairwise(channels)]
        blocks += [DownBlock(width, width, normalisation, down=False) for _ in range(2)]
        self.trunk = nn.Sequential(*blocks, nn.ReLU(inplace=True), Reduce("b c h w -> b c", pooling))
        self.finish(width)

    def initialise(self) -> None:
        initialise_resnet(self)
