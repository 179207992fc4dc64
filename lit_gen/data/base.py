"""The base of all image DataModules: options, splits, and the images that metrics compare with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from lit_gen.core.errors import UsageError
from lit_gen.core.images import UNLABELLED, ImageBatch, ImageSpec
from lit_gen.data.loader import Split, Transform
from lit_gen.data.module import SplitDataModule
from lit_gen.data.plan import EvalPlan, TrainPlan
from lit_gen.data.splits import class_balanced, stratified
from lit_gen.data.stores import ImageStore
from lit_gen.data.transforms import BatchTransform


class ImageDataModule(SplitDataModule):
    """Images in three splits, as :class:`ImageBatch` (image float32 ``[B, C, H, W]``, label int64 ``[B]``).

    ``spec``, ``num_classes`` and ``class_names`` follow from the options alone; the data is read in :meth:`setup`.
    Every training example is seen once an epoch over all processes, every other one exactly once an evaluation, and
    all randomness is keyed by (run seed, epoch, batch, row).

    A subclass sets ``name``, ``native_shape`` and ``all_classes`` and implements :meth:`read`.

    Args:
        image_size: side of the square images; None keeps the data's own. The shorter side is scaled to it, the centre
            cut out.
        value_range: "unit" for [0, 1], "symmetric" for [-1, 1].
        binarize: "none"; "static" (drawn once with ``binarize_seed``, as a fixed data set); "dynamic" (drawn anew for
            every batch; evaluation draws the same each time); "threshold" (128 and above is one).
        binarize_seed: seed of the static binarisation.
        dequantize: adds uniform noise, (x + u) / 256, for models with a density.
        flip: mirrors training images at random.
        crop: shifts training images by up to so many pixels at random.
        labels: keep these classes only; label k of a batch is then the k-th of this list.
        num_labelled: keep the labels of so many training examples, balanced over the classes (semi-supervised); the
            label of the others is ``UNLABELLED``.
        val_size: examples taken out of the training set for validation, classes in proportion.
        split_seed: seed of the validation split, of the subset and of the choice of labelled examples; the run's seed
            has no influence on them.
        subset_size: train on so many examples only, classes in proportion.
        batch_size: training examples in a batch, on each process.
        eval_batch_size: examples in an evaluation batch.
        drop_last: leave out the incomplete batch at the end of a training epoch.

    Raises:
        UsageError: an option out of range, naming it and what is accepted.
    """

    name: str = "images"
    native_shape: tuple[int, int, int]
    all_classes: tuple[str, ...] = ()

    def __init__(
        self,
        image_size: int | None = None,
        value_range: Literal["unit", "symmetric"] = "unit",
        binarize: Literal["none", "static", "dynamic", "threshold"] = "none",
        binarize_seed: int = 0,
        dequantize: bool = False,
        flip: bool = False,
        crop: int = 0,
        labels: list[int] | None = None,
        num_labelled: int | None = None,
        val_size: int = 0,
        split_seed: int = 0,
        subset_size: int | None = None,
        batch_size: int = 64,
        eval_batch_size: int = 256,
        drop_last: bool = False,
    ) -> None:
        super().__init__()
        self.image_size, self.value_range = image_size, value_range
        self.binarize, self.binarize_seed, self.dequantize = binarize, binarize_seed, dequantize
        self.flip, self.crop, self.labels, self.num_labelled = flip, crop, labels, num_labelled
        self.val_size, self.split_seed, self.subset_size = val_size, split_seed, subset_size
        self.batch_size, self.eval_batch_size, self.drop_last = batch_size, eval_batch_size, drop_last
        self._check_options()

    def _check_options(self) -> None:
        ranges, conversions = ("unit", "symmetric"), ("none", "static", "dynamic", "threshold")
        for option, accepted in (("value_range", ranges), ("binarize", conversions)):
            if getattr(self, option) not in accepted:
                raise UsageError(f"{option} = {getattr(self, option)!r}; accepted: {', '.join(accepted)}")
        for option in (
            "image_size",
            "crop",
            "num_labelled",
            "val_size",
            "subset_size",
            "batch_size",
            "eval_batch_size",
        ):
            value, least = getattr(self, option), 0 if option in ("crop", "val_size") else 1
            if value is not None and value < least:
                raise UsageError(f"{option} = {value}; accepted: {least} or more")
        if self.dequantize and self.binarize != "none":
            raise UsageError(f"dequantize = true with binarize = {self.binarize!r}; accepted: one of the two")
        for label in self.labels or ():
            if not 0 <= label < len(self.all_classes):
                accepted = f"0 to {len(self.all_classes) - 1}" if self.all_classes else "none, the data has no labels"
                raise UsageError(f"labels = {self.labels}: {label} is out of range; accepted: {accepted}")
        if self.labels is not None and (not self.labels or len(set(self.labels)) < len(self.labels)):
            raise UsageError(f"labels = {self.labels}; accepted: a list of different labels, or none for all")
        if self.num_labelled is not None and self.num_classes == 0:
            raise UsageError(f"num_labelled = {self.num_labelled}, but {self.name} has no labels")

    # ---------------------------------------------------------------- what the data is

    @property
    def class_names(self) -> list[str]:
        """Names of the labels 0 .. num_classes-1."""
        kept = range(len(self.all_classes)) if self.labels is None else self.labels
        return [self.all_classes[label] for label in kept]

    @property
    def num_classes(self) -> int:
        """Number of labels that occur; 0 where the data has none."""
        return len(self.all_classes) if self.labels is None else len(self.labels)

    @property
    def spec(self) -> ImageSpec:
        """What a model must know of the data; no file is touched."""
        channels, height, width = self.native_shape
        if self.image_size is not None:
            height = width = self.image_size
        value_range = (0.0, 1.0) if self.value_range == "unit" else (-1.0, 1.0)
        return ImageSpec((channels, height, width), self.num_classes, value_range, self.binarize != "none")

    def _identity(self) -> list[Any]:
        return [self.name, self.spec.shape, self.labels, self.val_size, self.split_seed, self.subset_size]

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits for the clean images and their splits: the key of what is computed from them."""
        return hashlib.sha256(json.dumps(self._identity()).encode()).hexdigest()[:16]

    # ---------------------------------------------------------------- reading

    def read(self, part: Literal["train", "test"]) -> tuple[ImageStore, Tensor]:
        """The data set's own training or test part: images at the spec's size, labels int64 ``[N]``.

        The labels are those of the whole data set, before ``labels`` selects; ``UNLABELLED`` where the data has none.

        Raises:
            UsageError: the data is missing or cannot be read.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement read")

    def read_splits(self) -> dict[str, Split]:
        train, train_label, train_index = self._read_kept("train")
        test, test_label, test_index = self._read_kept("test")
        available = len(train_index)
        if self.val_size >= available:
            raise UsageError(f"val_size = {self.val_size}; accepted: less than the {available} training examples")
        chosen = torch.zeros(len(train_index), dtype=torch.bool)
        chosen[stratified(train_label, self.val_size, self.split_seed, "val")] = True
        val_index, val_label = train_index[chosen], train_label[chosen]
        train_index, train_label = train_index[~chosen], train_label[~chosen]
        if self.subset_size is not None:
            if self.subset_size > len(train_index):
                raise UsageError(f"subset_size = {self.subset_size}; accepted: at most {len(train_index)}")
            subset = stratified(train_label, self.subset_size, self.split_seed, "subset")
            train_index, train_label = train_index[subset], train_label[subset]
        visible = train_label
        if self.num_labelled is not None:
            known = class_balanced(train_label, self.num_labelled, self.num_classes, self.split_seed, "labelled")
            visible = torch.full_like(train_label, UNLABELLED)
            visible[known] = train_label[known]
        return {
            "train": Split(*train, train_index, visible, train_label),
            "val": Split(*train, val_index, val_label, val_label),
            "test": Split(*test, test_index, test_label, test_label),
        }

    def _read_kept(self, part: Literal["train", "test"]) -> tuple[tuple[ImageStore, ImageStore], Tensor, Tensor]:
        clean, label = self.read(part)
        images = clean.binarized(self.binarize_seed, part) if self.binarize == "static" else clean
        if self.labels is None:
            return (images, clean), label, torch.arange(len(label))
        position = torch.full((len(self.all_classes),), UNLABELLED)
        position[torch.tensor(self.labels)] = torch.arange(len(self.labels))
        index = (position[label] != UNLABELLED).nonzero().flatten()
        return (images, clean), position[label[index]], index

    def clean_batches(self, split: str, batch_size: int = 256) -> Iterator[tuple[Tensor, Tensor]]:
        """All images of a split in fixed order, neither augmented nor binarised, with all their labels.

        Shape:
            uint8 ``[n, C, H, W]`` and int64 ``[n]``, n = batch_size but for the last chunk.
        """
        examples = self.split(split)
        numbers, labels = examples.index.split(batch_size), examples.true_label.split(batch_size)
        return zip(examples.clean.stream(numbers), labels) if len(examples) else iter(())

    # ---------------------------------------------------------------- loaders

    def train_plan(self, examples: Split, world_size: int, rank: int, reshuffle: bool) -> TrainPlan:
        return TrainPlan(len(examples), self.batch_size, world_size, rank, self.drop_last, reshuffle)

    def eval_plan(self, examples: Split, name: str, world_size: int = 1, rank: int = 0) -> EvalPlan:
        return EvalPlan(len(examples), self.eval_batch_size, name, world_size, rank)

    # ---------------------------------------------------------------- conversion

    def transform(self, split: str) -> BatchTransform:
        """What makes a model's input of the uint8 images of a split; only training images are augmented."""
        symmetric, train = self.value_range == "symmetric", split == "train"
        return BatchTransform(symmetric, self.binarize, self.dequantize, self.flip and train, self.crop if train else 0)

    def _on_accelerator(self) -> bool:
        return bool(self.trainer) and self.trainer.strategy.root_device.type != "cpu"

    def _loader_transform(self, split: str) -> Transform | None:
        # Bytes go over the bus and become floats on the device; on the CPU there is nothing to wait for.
        return None if self._on_accelerator() else self.transform(split)

    def on_after_batch_transfer(
        self, batch: ImageBatch | list[ImageBatch], dataloader_idx: int
    ) -> ImageBatch | list[ImageBatch]:
        if isinstance(batch, list):
            return [self.on_after_batch_transfer(each, dataloader_idx) for each in batch]
        if batch.image.dtype is not torch.uint8:
            return batch
        training = self.trainer is not None and self.trainer.training
        return self.transform("train" if training else "val")(batch)
