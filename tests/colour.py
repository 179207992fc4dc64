"""Digits in colour: stands in for a colour data set that cannot be downloaded."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gen.data import Digits


class ColourDigits(Digits):
    """The embedded digits with three channels: red as drawn, green darker, blue inverted."""

    name = "colour_digits"
    native_shape = (3, 8, 8)

    def read_pixels(self, part: str) -> tuple[Tensor, Tensor]:
        images, labels = super().read_pixels(part)
        return torch.cat([images, images // 2, 255 - images], dim=1), labels
