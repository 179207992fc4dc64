"""The domain classifier: a LeNet trained on the data set in hand, where Inception makes no sense or cannot be had."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset

from lit_gen.core.errors import UsageError
from lit_gen.core.random import derive_seed, seeded_generator
from lit_gen.metrics import cache
from lit_gen.metrics.extractors import Extractor
from lit_gen.metrics.real import ImageSource, clean_part

BATCH_SIZE = 128
MAX_UPDATES = 1200
MAX_EPOCHS = 60
MAX_BYTES = 256 * 2**20
"""Training images are held in memory as bytes; of a larger data set an evenly spread part is taken."""


class LeNet(nn.Module):
    """Convolution, ReLU and pooling until at most 7x7 positions are left, then 120 and 84 units, as in LeNet-5.

    Args:
        image_shape: (C, H, W), any size.
        num_classes: K.
        width: filters of the first layer; doubled with each layer up to 128.

    Shape:
        images ``[N, C, H, W]`` in [-1, 1]; features ``[N, 84]`` (after the ReLU), logits ``[N, K]``.

    References:
        LeCun et al., Gradient-based learning applied to document recognition, 1998, section II.B.
    """

    feature_dim = 84

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, width: int = 16) -> None:
        super().__init__()
        channels, height, page_width = image_shape
        layers: list[nn.Module] = []
        filters = width
        while max(height, page_width) > 7:
            pool = (2 if height > 1 else 1, 2 if page_width > 1 else 1)
            layers += [nn.Conv2d(channels, filters, 5, padding=2), nn.ReLU(), nn.MaxPool2d(pool)]
            height, page_width = height // pool[0], page_width // pool[1]
            channels, filters = filters, min(2 * filters, 128)
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        self.units = nn.Sequential(
            nn.Linear(channels * height * page_width, 120), nn.ReLU(), nn.Linear(120, self.feature_dim), nn.ReLU()
        )
        self.scores = nn.Linear(self.feature_dim, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.units(self.convolutions(images))
        return features, self.scores(features)


class DomainClassifier(pl.LightningModule):
    """Trains a :class:`LeNet` with cross entropy, AdamW and one cycle of the learning rate.

    Args:
        image_shape: (C, H, W).
        num_classes: K.
        updates: length of the training.
        learning_rate: at the top of the cycle.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], num_classes: int, updates: int, learning_rate: float = 2e-3
    ) -> None:
        super().__init__()
        self.network = LeNet(image_shape, num_classes)
        self.updates, self.learning_rate = updates, learning_rate
        self.register_buffer("hits", torch.zeros(2, dtype=torch.int64), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits of uint8 images."""
        return self.network(images.float() / 127.5 - 1.0)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self(images)[1], labels)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        self.hits += torch.stack([(self(images)[1].argmax(1) == labels).sum(), torch.ones_like(labels).sum()])

    @property
    def accuracy(self) -> float:
        """Fraction of the test images classified correctly."""
        right, seen = self.hits.tolist()
        return right / max(1, seen)

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.AdamW(self.parameters(), self.learning_rate, weight_decay=1e-2)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, self.updates)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class LeNetExtractor(Extractor):
    """Features and class scores of a trained :class:`LeNet`.

    Args:
        network: the trained network.
        accuracy: its accuracy on the test split.
    """

    name = "lenet"

    def __init__(self, network: LeNet, accuracy: float) -> None:
        super().__init__(network, network.feature_dim, network.scores.out_features)
        self.accuracy = accuracy

    @classmethod
    def for_data(cls, data: ImageSource, seed: int = 0, device: torch.device | str = "cpu") -> "LeNetExtractor":
        """The classifier of a data set, from the cache, or trained by this process alone (about a minute on MNIST).

        The seed is not the run's: runs of different seeds are measured by the same classifier.

        Raises:
            UsageError: the data has no labels.
        """
        return cls.from_weights(data, classifier_weights(data, seed, device))

    @classmethod
    def from_weights(cls, data: ImageSource, weights: dict[str, Tensor | float]) -> "LeNetExtractor":
        """The extractor with what :func:`classifier_weights` returned, perhaps on another process."""
        weights = dict(weights)
        accuracy = weights.pop("accuracy")
        with torch.random.fork_rng(devices=[]):
            network = LeNet(data.spec.shape, data.spec.num_classes)
        network.load_state_dict(weights)
        return cls(network, accuracy)

    def extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(images.float() / 127.5 - 1.0)


def classifier_weights(data: ImageSource, seed: int, device: torch.device | str) -> dict[str, Tensor | float]:
    """Weights of the data set's LeNet and, under ``accuracy``, its accuracy on the test split.

    Cached by the data's name and fingerprint, the seed and a hash of the recipe; the file carries the weights' hash.

    Raises:
        UsageError: the data has no labels.
    """
    if data.spec.num_classes < 2:
        raise UsageError(
            f"{data.name} has {data.spec.num_classes} classes, no domain classifier can be trained on it: "
            "set extractor: inception"
        )
    with torch.random.fork_rng(devices=[]):
        network = LeNet(data.spec.shape, data.spec.num_classes)
    recipe = repr((BATCH_SIZE, MAX_UPDATES, MAX_EPOCHS, MAX_BYTES, network))
    key = (data.name, data.fingerprint, seed, hashlib.sha256(recipe.encode()).hexdigest()[:16])
    weights = cache.load("lenet", key)
    if weights is None:
        weights = _train(data, seed, torch.device(device))
        cache.store("lenet", key, weights)
        print(f"trained the domain classifier of {data.name}: {weights['accuracy']:.2%} of the test images right")
    return weights


def _train(data: ImageSource, seed: int, device: torch.device) -> dict[str, Tensor | float]:
    train, test = _labelled(data, "train"), _labelled(data, "test")
    updates = min(MAX_UPDATES, MAX_EPOCHS * max(1, len(train) // BATCH_SIZE))
    random = RandomSampler(train, True, updates * BATCH_SIZE, seeded_generator(seed, "domain_classifier", "order"))
    with isolate_rng(), _quiet():
        torch.manual_seed(derive_seed(seed, "domain_classifier"))
        classifier = DomainClassifier(data.spec.shape, data.spec.num_classes, updates)
        trainer = pl.Trainer(
            accelerator=device.type if device.type != "cuda" else "gpu",
            devices=[device.index or 0] if device.type == "cuda" else 1,
            max_steps=updates,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            # One process, whatever launched this one: without it a launcher's world size would be expected here.
            plugins=[LightningEnvironment()],
        )
        trainer.fit(classifier, _loader(train, BatchSampler(random, BATCH_SIZE, False)))
        trainer.test(classifier, _loader(test, BatchSampler(SequentialSampler(test), 500, False)), verbose=False)
    state = {name: tensor.detach().cpu().clone() for name, tensor in classifier.network.state_dict().items()}
    return {**state, "accuracy": classifier.accuracy}


def _labelled(data: ImageSource, split: str) -> TensorDataset:
    channels, height, width = data.spec.shape
    parts = [
        (images[labels >= 0], labels[labels >= 0])
        for _, images, labels in clean_part(data, split, MAX_BYTES // (channels * height * width), 1000)
    ]
    if not any(len(labels) for _, labels in parts):
        raise UsageError(f"the {split} split of {data.name} has no labelled image: set extractor: inception")
    return TensorDataset(torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts]))


def _loader(dataset: TensorDataset, batches: BatchSampler) -> DataLoader:
    # With whole batches as the sampler's items, the tensors are indexed once for each batch.
    return DataLoader(dataset, sampler=batches, batch_size=None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Lightning's notices about devices, workers and the end of the training from the user's screen."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
