"""The mean visible state of the training data: base rates for annealing, initial biases, where persistent chains begin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

State = Callable[[Tensor, Tensor], Tensor]
"""(images ``[n, C, H, W]`` in the data's range, labels ``[n]``) -> visible states ``[n, dim]``."""


class Images(Protocol):
    """What is asked of a DataModule."""

    binarize: str
    dequantize: bool
    value_range: str

    def clean_batches(self, split: str, batch_size: int = 256) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs of uint8 ``[n, C, H, W]`` and int64 ``[n]``."""
        ...


def mean_pixels(datamodule: Images, images: Tensor) -> Tensor:
    """Images as the model sees them, averaged over the noise of their conversion.

    A pixel that is binarised at random becomes its probability, one that is dequantised the middle of its interval.

    Shape:
        images: uint8 ``[n, C, H, W]``; result: float32 ``[n, C, H, W]``.
    """
    if datamodule.binarize == "threshold":
        pixels = (images >= 128).float()
    elif datamodule.dequantize:
        pixels = (images.float() + 0.5) / 256
    else:
        pixels = images.float() / 255
    return 2 * pixels - 1 if datamodule.value_range == "symmetric" else pixels


def mean_state(datamodule: Images, state: State) -> Tensor:
    """Mean visible state ``[dim]`` over the training images, the same on every process.

    The noise of binarisation and dequantisation is averaged out exactly where the state is linear in the pixels, as that of
    Bernoulli and Gaussian units. Augmentation is left out.

    Args:
        datamodule: where the images come from.
        state: called with images and their labels.
    """
    total, count = 0.0, 0
    for images, label in datamodule.clean_batches("train"):
        total = total + state(mean_pixels(datamodule, images), label).double().sum(0)
        count += len(images)
    return (total / count).float()


def first_states(datamodule: Images, state: State, count: int) -> Tensor:
    """Visible states of the first training images, ``[min(count, images), dim]``, the same on every process."""
    states, missing = [], count
    for images, label in datamodule.clean_batches("train"):
        states.append(state(mean_pixels(datamodule, images[:missing]), label[:missing]))
        missing -= len(states[-1])
        if missing == 0:
            break
    return torch.cat(states)
