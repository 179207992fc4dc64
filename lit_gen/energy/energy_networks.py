"""Networks that give every image one number, its energy: plain modules for images of any size.

Langevin dynamics and score matching follow the energy's gradient in the pixels, and train the weights through it: the
activations are smooth, and no layer couples the rows of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn.utils import parametrizations

from lit_gen.core.errors import require

Shape = tuple[int, int, int]
EnergyCallable = Callable[[Shape], nn.Module]
"""(image shape) -> network, called as ``network(image)``: ``[B, C, H, W]`` -> ``[B]``."""

Activation = Literal["swish", "softplus", "elu", "gelu", "tanh"]
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "swish": nn.SiLU,
    "softplus": nn.Softplus,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}


def activation_layer(name: str) -> nn.Module:
    """The activation of that name.

    Raises:
        UsageError: no such activation.
    """
    require(name in ACTIVATIONS, "activation", name, ", ".join(ACTIVATIONS))
    return ACTIVATIONS[name]()


def check_widths(name: str, widths: Sequence[int]) -> None:
    """Raises UsageError where a width is not positive."""
    require(all(width >= 1 for width in widths), name, list(widths), "integers of 1 or more")


def constrain_spectrum(network: nn.Module) -> None:
    r"""Divides every weight by its largest singular value, in place: the energy's slope is bounded.

    One power iteration for each forward pass in training mode, none while sampling.

    References:
        Miyato et al., Spectral normalization for generative adversarial networks, ICLR 2018 (arXiv:1802.05957); for
        energies Du and Mordatch 2019 (arXiv:1903.08689), section 3.3.
    """
    for module in list(network.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d):
            parametrizations.spectral_norm(module)


class EnergyNetwork(nn.Module):
    """Layers that end in one number for each image; the last has no bias, for a constant is no part of an energy.

    Weights begin as torch draws them, small: larger ones (He's) learn sooner, but leave wells of their own far from the data,
    where score matching, which sees only data with noise, does not fill them in.

    Args:
        layers: all but the last.
        features: length of what they put out.
        spectral_norm: see :func:`constrain_spectrum`.

    Shape:
        image ``[B, C, H, W]`` -> ``[B]``.
    """

    def __init__(self, layers: Sequence[nn.Module], features: int, spectral_norm: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers, nn.Linear(features, 1, bias=False))
        if spectral_norm:
            constrain_spectrum(self)

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image).squeeze(1)


class MLPEnergy(EnergyNetwork):
    """Fully connected.

    Args:
        image_shape: (channels, height, width).
        hidden: widths of the hidden layers.
        activation: ``swish``, ``softplus``, ``elu``, ``gelu`` or ``tanh``.
        spectral_norm: see :func:`constrain_spectrum`.

    Raises:
        UsageError: no such activation, or a width below 1.
    """

    def __init__(
        self,
        image_shape: Shape,
        hidden: Sequence[int] = (256, 256),
        activation: Activation = "swish",
        spectral_norm: bool = False,
    ) -> None:
        check_widths("hidden", hidden)
        layers: list[nn.Module] = [nn.Flatten()]
        sizes = [math.prod(image_shape), *hidden]
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), activation_layer(activation)]
        super().__init__(layers, sizes[-1], spectral_norm)


class ConvEnergy(EnergyNetwork):
    """A 3x3 convolution, then strided 4x4 convolutions that halve the image and double the width until 4x4 or less is left.

    Kernels of 4 with stride 2 cover every pixel equally often: their gradient in the pixels has no checkerboard.

    Args:
        image_shape: (channels, height, width).
        width: channels after the first convolution.
        max_width: upper limit of the doubling.
        activation, spectral_norm: as in :class:`MLPEnergy`.

    Raises:
        UsageError: no such activation, or a width below 1.

    References:
        The plain network of Nijkamp et al., AAAI 2020 (arXiv:1903.12370), supplement, with swish for leaky ReLU.
    """

    def __init__(
        self,
        image_shape: Shape,
        width: int = 32,
        max_width: int = 256,
        activation: Activation = "swish",
        spectral_norm: bool = False,
    ) -> None:
        check_widths("width", [width, max_width])
        channels, height, wide = image_shape
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), activation_layer(activation)]
        while max(height, wide) > 4:
            wider = min(2 * width, max(width, max_width))
            # one more row of zeros where a side is odd, so that no pixel is left out
            layers += [nn.ZeroPad2d((0, wide % 2, 0, height % 2))] if height % 2 or wide % 2 else []
            layers += [nn.Conv2d(width, wider, 4, 2, 1), activation_layer(activation)]
            width, height, wide = wider, (height + 1) // 2, (wide + 1) // 2
        super().__init__([*layers, nn.Flatten()], width * height * wide, spectral_norm)
