"""DCGAN: generator and discriminator of strided convolutions alone, for any power-of-two size from 16 to 128.

Radford, Metz and Chintala, Unsupervised representation learning with deep convolutional generative adversarial
networks, ICLR 2016 (arXiv:1511.06434): no pooling (strides instead), batch normalisation everywhere except at the
generator's output and the discriminator's input, no hidden fully connected layers, ReLU and tanh in the generator,
LeakyReLU 0.2 in the discriminator, weights from N(0, 0.02).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from lit_gen.core.errors import UsageError
from lit_gen.gan.layers import Normalisation, normalise
from lit_gen.gan.networks import Condition, Discriminator, Generator

SIZES = (16, 32, 64, 128)


def pyramid(image_shape: tuple[int, int, int], width: int) -> list[int]:
    """Channels at sizes 4, 8, ... up to half the image's: ``width`` at the finest, twice as many at each coarser one.

    Raises:
        UsageError: the image is not square or not of a size that halves down to 4, or the width is not positive.
    """
    _, height, wide = image_shape
    if height != wide or height not in SIZES:
        raise UsageError(
            f"image size {height}x{wide}; accepted by this network: {', '.join(f'{s}x{s}' for s in SIZES)}"
        )
    if width < 1:
        raise UsageError(f"width = {width}; accepted: width >= 1")
    return [width * 2**level for level in reversed(range((height // 4).bit_length() - 1))]


def initialise_dcgan(network: nn.Module) -> None:
    """Weights from N(0, 0.02), gains of batch norm from N(1, 0.02), biases 0 (section 4 and the authors' code)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)


class DCGANGenerator(Generator):
    """Figure 1 of the paper; for a 64x64 image and width w:

    | layer                              | output        |
    |------------------------------------|---------------|
    | project the code and reshape       | 8w x  4 x  4  |
    | fractionally strided conv 4x4, 1/2 | 4w x  8 x  8  |
    | fractionally strided conv 4x4, 1/2 | 2w x 16 x 16  |
    | fractionally strided conv 4x4, 1/2 |  w x 32 x 32  |
    | fractionally strided conv 4x4, 1/2 |  C x 64 x 64  |

    Smaller and larger images have fewer and more rows. The paper has w = 128 and 5x5 kernels; its successors 4x4, which
    cover every pixel equally often.

    Args:
        image_shape, latent_dim, num_classes: see :class:`~lit_gen.gan.networks.Generator`.
        width: w, channels at half the image's size.
        normalisation: none, batch, layer or virtual.
        reference_size: rows of the reference batch where the normalisation is virtual.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int,
        num_classes: int = 0,
        width: int = 64,
        normalisation: Normalisation = "batch",
        reference_size: int = 64,
    ) -> None:
        super().__init__(image_shape, latent_dim, num_classes, reference_size if normalisation == "virtual" else 0)
        channels = pyramid(image_shape, width)
        bias = normalisation == "none"  # a normalisation that follows would cancel it

        def norm(features: int) -> nn.Module:
            return normalise(normalisation, features, reference_size=self.reference_size)

        layers: list[nn.Module] = [
            nn.Linear(self.code_dim, channels[0] * 4 * 4, bias=bias),
            nn.Unflatten(1, (channels[0], 4, 4)),
            norm(channels[0]),
            nn.ReLU(inplace=True),
        ]
        for coarse, fine in pairwise(channels):
            layers += [nn.ConvTranspose2d(coarse, fine, 4, 2, 1, bias=bias), norm(fine), nn.ReLU(inplace=True)]
        layers += [nn.ConvTranspose2d(channels[-1], image_shape[0], 4, 2, 1), nn.Tanh()]  # no batch norm at the output
        self.network = nn.Sequential(*layers)
        initialise_dcgan(self)

    def synthesis(self, code: Tensor) -> Tensor:
        return self.network(code)


class DCGANDiscriminator(Discriminator):
    """The generator's mirror image; for a 64x64 image and width w:

    | layer                          | output        |
    |--------------------------------|---------------|
    | conv 4x4, stride 2 (no norm)   |  w x 32 x 32  |
    | conv 4x4, stride 2             | 2w x 16 x 16  |
    | conv 4x4, stride 2             | 4w x  8 x  8  |
    | conv 4x4, stride 2             | 8w x  4 x  4  |
    | flatten, one output            | 1             |

    Args:
        image_shape, num_classes, condition, minibatch_kernels, spectral_norm: see
            :class:`~lit_gen.gan.networks.Discriminator`.
        width: w.
        normalisation: none, batch or layer; for a gradient penalty none or layer.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int = 0,
        width: int = 64,
        normalisation: Literal["none", "batch", "layer"] = "batch",
        condition: Condition = "concat",
        minibatch_kernels: int = 0,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__(image_shape, num_classes, condition, minibatch_kernels, spectral_norm)
        channels = pyramid(image_shape, width)[::-1]
        bias = normalisation == "none"
        # no batch norm at the input
        layers: list[nn.Module] = [nn.Conv2d(self.in_channels, channels[0], 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for fine, coarse in pairwise(channels):
            layers += [nn.Conv2d(fine, coarse, 4, 2, 1, bias=bias), normalise(normalisation, coarse)]
            layers += [nn.LeakyReLU(0.2, inplace=True)]
        self.trunk = nn.Sequential(*layers, nn.Flatten())
        self.finish(channels[-1] * 4 * 4)

    def initialise(self) -> None:
        initialise_dcgan(self)
