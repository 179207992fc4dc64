"""RBMs over a handful of pixels, and data that can be written out."""

from __future__ import annotations

from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor

from lit_gen.core.images import ImageBatch, ImageSpec
from lit_gen.core.random import BatchKey
from lit_gen.data.sets import InMemoryImages
from lit_gen.energy.rbm import RBM
from tests.energy.enumerated_machine import LAYERS, SETTINGS, randomised


def make_model(name: str = "bernoulli_bernoulli", setting: str = "plain", seed: int = 0, **options: Any) -> RBM:
    """An RBM of the layers of this name in float64, all of whose parameters matter, as if it had been trained."""
    visible, hidden = LAYERS[name]()
    centred, temperature = SETTINGS[setting]
    model = RBM(visible=lambda n: visible, hidden=lambda n: hidden, centred=centred, temperature=temperature, **options)
    places = visible.dim if name.startswith("labelled") else visible.n
    shape = (1, 2, 2) if places == 4 else (1, 1, places)
    model.build(ImageSpec(shape, 0, (0.0, 1.0), binary=name.startswith("bernoulli")))
    randomised(model.machine, seed)
    model.double()
    model.data_mean.uniform_(0.2, 0.8)
    model.should_log = lambda: False  # there is no Trainer
    return model


def batch_of(model: RBM, v: Tensor, seed: int = 0) -> ImageBatch:
    """The batch whose visible states these are."""
    image = model.machine.visible.to_pixels(v).unflatten(-1, model.spec.shape)
    return ImageBatch(image, torch.full((len(v),), -1), BatchKey(seed, 0, len(v)))


def all_images(shape: tuple[int, int, int]) -> Tensor:
    """Every binary image of this shape, float64 ``[2^n, C, H, W]``."""
    channels, height, width = shape
    rows = list(product((0.0, 1.0), repeat=channels * height * width))
    return torch.tensor(rows, dtype=torch.float64).view(-1, *shape)


class BarsAndStripes(InMemoryImages):
    """Every image of full rows, and every one of full columns, once: 14 of 3x3 pixels."""

    name = "bars_and_stripes"
    native_shape = (1, 3, 3)

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"binarize": "threshold", **options})

    def read_pixels(self, part: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
        rows = [torch.tensor(line).view(3, 1).expand(3, 3) for line in product((0, 255), repeat=3)]
        images = torch.stack([*rows, *[image.T for image in rows]]).unique(dim=0).to(torch.uint8)
        return images.unsqueeze(1), torch.full((len(images),), -1)
