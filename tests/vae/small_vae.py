"""Small models and batches for the tests of the variational family."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from pytorch_lightning import LightningDataModule

from lit_gen.core.images import ImageBatch, ImageSpec
from lit_gen.core.random import BatchKey, derive_seed
from lit_gen.vae import MLPDecoder, MLPEncoder

SPEC = ImageSpec((1, 5, 6), 3, (0.0, 1.0), binary=True)
SMALL = {
    "encoder": partial(MLPEncoder, hidden=[16]),
    "decoder": partial(MLPDecoder, hidden=[16]),
    "latent_dim": 4,
    "optimizer": partial(torch.optim.Adam, lr=1e-2),
}


def make_batch(rows: int = 6, seed: int = 1, spec: ImageSpec = SPEC) -> ImageBatch:
    """Binary images whose first row of pixels says the label."""
    generator = torch.Generator().manual_seed(seed)
    image = (torch.rand(rows, *spec.shape, generator=generator) < 0.3).float()
    label = torch.arange(rows) % spec.num_classes
    image[:, :, 0] = 0.0
    image[torch.arange(rows), :, 0, label] = 1.0
    return ImageBatch(image, label, BatchKey(derive_seed(seed), 0, rows))


class Loader:
    """Yields the same images each epoch, under new keys: a model must not learn its noise by heart.

    Not a list, which Lightning would take for several loaders.
    """

    def __init__(self, batches: list[ImageBatch], name: str) -> None:
        self.batches, self.name, self.epoch = batches, name, 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[ImageBatch]:
        self.epoch += self.name == "train"
        for i, batch in enumerate(self.batches):
            yield batch._replace(key=batch.key._replace(seed=derive_seed(self.name, self.epoch, i)))


class Batches(LightningDataModule):
    """A DataModule of fixed batches."""

    def __init__(self, train: list[ImageBatch], evaluation: list[ImageBatch] | None = None) -> None:
        super().__init__()
        self.spec, self.train, self.evaluation = SPEC, train, evaluation or train

    def train_dataloader(self) -> Loader:
        return Loader(self.train, "train")

    def val_dataloader(self) -> Loader:
        return Loader(self.evaluation, "evaluation")

    def test_dataloader(self) -> Loader:
        return Loader(self.evaluation, "evaluation")
