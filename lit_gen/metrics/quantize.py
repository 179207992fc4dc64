"""From a model's images to the 8-bit images that every extractor is given."""

from __future__ import annotations

import torch
from torch import Tensor


def quantize(images: Tensor, value_range: tuple[float, float]) -> Tensor:
    r"""Rounds images to 8 bits: :math:`\mathrm{clamp}(\mathrm{round}(255 (x - a) / (b - a)), 0, 255)`.

    Truncating instead of rounding moves a quarter of the pixels by one and every distance with them.

    Args:
        images: floating-point images with pixels in [a, b]; what lies outside is clamped.
        value_range: (a, b).

    Shape:
        images and result: ``[N, C, H, W]``.

    Returns:
        uint8 images.

    Raises:
        ValueError: a pixel is NaN or infinite.

    References:
        Parmar et al., On aliased resizing and surprising subtleties in GAN evaluation, CVPR 2022, arXiv:2104.11222.
    """
    if not torch.isfinite(images).all():
        raise ValueError("images to be measured contain NaN or infinite pixels")
    low, high = value_range
    return images.float().sub(low).mul(255.0 / (high - low)).round_().clamp_(0, 255).to(torch.uint8)
