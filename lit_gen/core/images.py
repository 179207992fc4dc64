"""The contract between image data and image models: what a DataModule says of its data, and the batch it yields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from lit_gen.core.random import BatchKey

UNLABELLED = -1


@dataclass(frozen=True)
class ImageSpec:
    """What a model must know of its data before it can build its networks. Kept in every checkpoint.

    Args:
        shape: (channels, height, width).
        num_classes: number of labels; 0 where the data has none.
        value_range: (0.0, 1.0) or (-1.0, 1.0).
        binary: True where every pixel is one of the two ends of the range.
    """

    shape: tuple[int, int, int]
    num_classes: int
    value_range: tuple[float, float]
    binary: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "value_range", tuple(self.value_range))

    @property
    def dim(self) -> int:
        """Number of pixels times channels."""
        channels, height, width = self.shape
        return channels * height * width


class ImageBatch(NamedTuple):
    """One batch of every image DataModule.

    image: float32 ``[B, C, H, W]`` in the spec's range.
    label: int64 ``[B]``; ``UNLABELLED`` (-1) where the label is withheld or the data has none.
    key: identity of the batch, from which all its randomness is derived.
    """

    image: Tensor
    label: Tensor
    key: BatchKey

    unit = "images"

    @property
    def amount(self) -> int:
        """Images of this process."""
        return self.image.shape[0]
