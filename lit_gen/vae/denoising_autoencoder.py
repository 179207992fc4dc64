"""The denoising autoencoder: the encoder sees a corrupted image, the loss compares with the clean one.

References:
    Vincent et al., Stacked Denoising Autoencoders, JMLR 2010, section 3.3 (the corruption processes).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from lit_gen.core.errors import require
from lit_gen.core.random import RowNoise
from lit_gen.vae.autoencoder import Autoencoder

Corruption = Literal["masking", "gaussian", "salt_and_pepper"]


class DenoisingAutoencoder(Autoencoder):
    """Denoising autoencoder. Validation and test corrupt too, with the same noise each time.

    Args:
        corruption: ``masking`` sets pixels to the darkest value, ``salt_and_pepper`` to the darkest or brightest by a coin,
            ``gaussian`` adds noise.
        level: fraction of pixels hit, in [0, 1]; for ``gaussian`` the standard deviation.
        **kwargs: as in :class:`Autoencoder`.

    Raises:
        UsageError: the level is out of range.
    """

    def __init__(self, corruption: Corruption = "masking", level: float = 0.25, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if corruption == "gaussian":
            require(level >= 0, "level", level, "a standard deviation of 0 or more")
        else:
            require(0 <= level <= 1, "level", level, "a fraction of pixels, 0 <= level <= 1")
        self.corruption, self.level = corruption, level

    def corrupt(self, image: Tensor, noise: RowNoise) -> Tensor:
        event = image.shape[1:]
        if self.corruption == "gaussian":
            return image + self.level * noise.normal(*event)
        low, high = self.spec.value_range
        hit = noise.uniform(*event) < self.level
        if self.corruption == "masking":
            return image.masked_fill(hit, low)
        extreme = torch.where(noise.uniform(*event) < 0.5, low, high)
        return torch.where(hit, extreme, image)
