"""The base of all DataModules: three splits, their loaders on every process, and batches that anybody may look at."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from lit_gen.core.errors import UsageError
from lit_gen.data.loader import EvalLoader, EvalSchedule, Examples, TrainLoader, TrainSchedule, Transform

SPLITS = ("train", "val", "test")


class SplitDataModule(LightningDataModule):
    """Training, validation and test examples and how they are dealt to processes, whatever an example is.

    A subclass sets ``name`` and ``spec`` and implements :meth:`read_splits`, :meth:`train_plan` and :meth:`eval_plan`. The
    data is read once, at the first call that needs it.
    """

    name: str = "data"

    def __init__(self) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # more processes than evaluation batches
        self._splits: dict[str, Examples] | None = None
        self._seen: list[str] = []

    # ---------------------------------------------------------------- what a subclass says

    def read_splits(self) -> dict[str, Examples]:
        """Reads the data: the examples of "train", "val" and "test".

        Raises:
            UsageError: the data is missing or cannot be read.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement read_splits")

    def train_plan(self, examples: Examples, world_size: int, rank: int, reshuffle: bool) -> TrainSchedule:
        """Which training examples make up which batch on this process; ``reshuffle`` False repeats the first epoch."""
        raise NotImplementedError(f"{type(self).__name__} must implement train_plan")

    def eval_plan(self, examples: Examples, name: str, world_size: int = 1, rank: int = 0) -> EvalSchedule:
        """The evaluation batches of this process; ``name`` ("val", "test", "predict", ...) is part of their keys."""
        raise NotImplementedError(f"{type(self).__name__} must implement eval_plan")

    def transform(self, split: str) -> Transform | None:
        """What makes a model's input of the batches that a split streams; None where they are that already."""
        return None

    def _loader_transform(self, split: str) -> Transform | None:
        return self.transform(split)

    # ---------------------------------------------------------------- splits

    def setup(self, stage: str | None = None) -> None:
        """Reads the data once and divides it into splits."""
        if self._splits is None:
            self._splits = self.read_splits()

    def saw(self, name: str, *content: Any) -> None:
        """Called by whoever reads the data, in a fixed order: what was read, as bytes or texts, for :attr:`content_hash`."""
        digest = hashlib.sha256()
        for part in content:
            digest.update(part.encode() if isinstance(part, str) else part)
        self._seen.append(f"{name} {digest.hexdigest()}")

    @property
    def content_hash(self) -> str:
        """Sixteen hexadecimal digits of the data as it was read, before any option of ours touches it: two runs with the same
        ones had the same data, wherever it lay. Reads the data where that has not happened."""
        self.setup()
        return hashlib.sha256("\n".join(self._seen).encode()).hexdigest()[:16]

    def split(self, name: str) -> Any:
        """The examples of "train", "val" or "test"; reads the data where that has not happened."""
        if name not in SPLITS:
            raise UsageError(f"split = {name!r}; accepted: {', '.join(SPLITS)}")
        self.setup()
        return self._splits[name]

    def num_examples(self, split: str) -> int:
        """Number of examples of a split."""
        return len(self.split(split))

    def eval_batches(self, split: str, limit: int | None = None) -> Iterator[Any]:
        """A split, "train" too, as a model sees it in evaluation: fixed order, no augmentation, always the same noise.

        The batches are those that one process evaluates, on the CPU, whatever process asks; they end after ``limit`` rows.
        """
        examples = self.split(split)
        planned, rows = [], 0
        for each in self.eval_plan(examples, split).batches() if len(examples) else ():
            if limit is not None and rows >= limit:
                break
            planned.append(each)
            rows += each[1].total
        left = rows if limit is None else limit
        for batch in examples.stream(planned, self.transform("val")):
            # a cut batch keeps its key, and with it the noise of its rows
            yield batch if len(batch[0]) <= left else first_rows(batch, left)
            left -= len(batch[0])

    # ---------------------------------------------------------------- loaders

    def train_dataloader(self) -> TrainLoader:
        trainer, examples = self.trainer, self.split("train")
        plan = self.train_plan(examples, *self._process(), reshuffle=not (trainer and trainer.overfit_batches))
        group = getattr(trainer.lightning_module, "batches_per_step", None) if trainer else None
        epoch = trainer.current_epoch if trainer else 0
        loader = TrainLoader(examples, plan, self._loader_transform("train"), group, epoch)
        if trainer:
            limit = trainer.limit_train_batches
            loader.stop = min(len(loader), limit if isinstance(limit, int) else int(limit * len(loader)))
        return loader

    def val_dataloader(self) -> EvalLoader | list:
        return self._eval_loader("val", "val")

    def test_dataloader(self) -> EvalLoader | list:
        return self._eval_loader("test", "test")

    def predict_dataloader(self) -> EvalLoader | list:
        return self._eval_loader("test", "predict")

    def _eval_loader(self, split: str, name: str) -> EvalLoader | list:
        examples = self.split(split)
        if len(examples) == 0:
            return []  # Lightning's way to say that there is nothing to evaluate
        return EvalLoader(examples, self.eval_plan(examples, name, *self._process()), self._loader_transform(split))

    def _process(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    # ---------------------------------------------------------------- to the device

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Moves the tensors of a batch, or of each of a list of batches; its other fields stay as they are."""
        if device.type == "cpu":
            return batch
        if isinstance(batch, list):
            return [self.transfer_batch_to_device(each, device, dataloader_idx) for each in batch]
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in _tensors(batch).items()}
        return batch._replace(**moved)


def first_rows(batch: Any, rows: int) -> Any:
    """A batch that one process holds alone, cut to its first rows; a count of predicted tokens follows."""
    cut = batch._replace(**{name: tensor[:rows] for name, tensor in _tensors(batch).items()})
    return cut._replace(tokens=cut.amount) if hasattr(cut, "tokens") else cut


def _tensors(batch: Any) -> dict[str, Tensor]:
    return {name: value for name, value in batch._asdict().items() if isinstance(value, Tensor)}
