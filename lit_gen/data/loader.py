"""Loaders: a plan says which examples, a store has their images, a transform makes the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from lit_gen.core.errors import UsageError
from lit_gen.core.images import ImageBatch
from lit_gen.core.random import BatchKey
from lit_gen.data.stores import ImageStore

Transform = Callable[[Any], Any]


class Examples(Protocol):
    """The examples of one split."""

    def __len__(self) -> int: ...

    def stream(self, batches: list[Any], transform: Transform | None) -> Iterator[Any]:
        """The batches that a plan asks for, transformed."""
        ...


class TrainSchedule(Protocol):
    """A plan for training: the same number of batches in every epoch and on every rank."""

    @property
    def examples(self) -> int:
        """What an epoch is made of: its examples, or its tokens."""
        ...

    @property
    def global_batch(self) -> int:
        """The size of a batch over all processes: its rows, or its tokens."""
        ...

    def __len__(self) -> int: ...

    def batches(self, epoch: int, first: int = 0, last: int | None = None) -> Iterator[Any]:
        """What the batches ``first .. last-1`` of an epoch are made of on this rank; the second entry is a batch's key."""
        ...


class EvalSchedule(Protocol):
    """A plan for evaluation: this rank's batches, always the same."""

    def __len__(self) -> int: ...

    def batches(self) -> Iterator[Any]:
        """What the batches are made of; the second entry is a batch's key."""
        ...


@dataclass(frozen=True)
class Split:
    """The examples of one split.

    Args:
        images: store of what a model sees (binarised, where binarisation is static).
        clean: store of the same images without binarisation.
        index: int64 ``[n]``, their numbers in the stores.
        label: int64 ``[n]``, labels as a model may see them, ``UNLABELLED`` where withheld.
        true_label: int64 ``[n]``, all labels that the data has.
    """

    images: ImageStore
    clean: ImageStore
    index: Tensor
    label: Tensor
    true_label: Tensor

    def __len__(self) -> int:
        return self.index.shape[0]

    def stream(self, batches: list[tuple[Tensor, BatchKey]], transform: Transform | None) -> Iterator[ImageBatch]:
        """Batches of planned examples, of uint8 images where there is no transform."""
        images = self.images.stream(self.index[rows] for rows, _ in batches)
        raw = (ImageBatch(pixels, self.label[rows], key) for pixels, (rows, key) in zip(images, batches, strict=True))
        return on_one_thread(raw, transform)


def on_one_thread(raw: Iterator[Any], transform: Transform | None = None) -> Iterator[Any]:
    """The same batches, transformed, each made on the calling thread alone.

    A batch takes a dozen passes over some hundred kilobytes: waking other threads for each costs more than they save, and
    where the cores are busy (with workers, or with another run) waiting for them costs a hundred times more.
    """
    batches = raw if transform is None else map(transform, raw)
    while True:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            batch = next(batches, None)
        finally:
            torch.set_num_threads(threads)
        if batch is None:
            return
        yield batch


class TrainLoader:
    """One epoch of training batches per iteration, with a position that goes into the checkpoint.

    An iteration starts where :meth:`load_state_dict` said, else at the start of the epoch after the one last iterated.

    Args:
        split: the training examples.
        plan: the plan over them.
        transform: applied to every batch; None leaves uint8 images (to be converted on the device).
        group: None yields batches; an integer k yields lists of k consecutive batches (fewer at the end of an epoch).
        epoch: the first epoch.
        stop: number of items after which an epoch ends, where that is before its end (``limit_train_batches``).
    """

    def __init__(
        self,
        split: Examples,
        plan: TrainSchedule,
        transform: Transform | None,
        group: int | None = None,
        epoch: int = 0,
        stop: int | None = None,
    ) -> None:
        self.split, self.plan, self.transform, self.group = split, plan, transform, group
        self.stop = len(self) if stop is None else min(stop, len(self))
        self.epoch, self.batch, self._begun = epoch, 0, False

    def __len__(self) -> int:
        """Number of items (batches, or lists of batches) of an epoch, the same on every rank."""
        return -(-len(self.plan) // (self.group or 1))

    def __iter__(self) -> Iterator[Any]:
        # The body runs at the first `next`, so an iterator that is never used leaves the position alone.
        if self._begun or self.batch >= self.stop:
            self.epoch, self.batch = self.epoch + 1, 0
        self._begun = True
        k = self.group or 1
        planned = list(self.plan.batches(self.epoch, self.batch * k, min(self.stop * k, len(self.plan))))
        for i, batch in enumerate(self.split.stream(planned, self.transform)):
            if i % k == 0:
                item = []
            item.append(batch)
            if len(item) == k or i + 1 == len(planned):
                self.batch += 1
                yield item if self.group else batch

    def _cut(self) -> list[int]:
        return [self.plan.examples, self.plan.global_batch, self.group or 0]

    def state_dict(self) -> dict[str, Any]:
        """``epoch``, ``batch`` (the next item of it), and how the epoch was cut into batches."""
        return {"epoch": self.epoch, "batch": self.batch, "cut": self._cut()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next iteration continues there; at the end of an epoch that is the start of the next one.

        Raises:
            UsageError: in mid-epoch, when the epoch was cut into other batches than this loader cuts.
        """
        epoch, batch, cut = state["epoch"], state["batch"], state.get("cut", self._cut())
        if cut != self._cut() and 0 < batch < self.stop:
            raise UsageError(
                "cannot continue in mid-epoch: [examples, global batch, batches per step] is "
                f"{self._cut()}, the checkpoint's epoch was begun with {cut}"
            )
        self.epoch, self.batch, self._begun = epoch, batch, False


class EvalLoader:
    """This rank's batches of an evaluation split; every iteration yields the same ones.

    Args:
        split: the examples.
        plan: the plan over them.
        transform: as in :class:`TrainLoader`.
    """

    def __init__(self, split: Examples, plan: EvalSchedule, transform: Transform | None) -> None:
        self.split, self.plan, self.transform = split, plan, transform

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[Any]:
        return self.split.stream(list(self.plan.batches()), self.transform)
