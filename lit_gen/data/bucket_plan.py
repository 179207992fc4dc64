"""Batches of sentence pairs by a budget of tokens, pairs of like length together: pure arithmetic, no text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from lit_gen.core.errors import UsageError
from lit_gen.core.random import BatchKey, derive_seed, run_seed, seeded_generator


class PlannedPairs(NamedTuple):
    """What a batch of pairs is made of.

    rows: int64 ``[B]``, numbers of the pairs that this process holds.
    key: identity of the batch.
    source_width: columns of the source, the same on all processes.
    target_width: predicted columns of the target, likewise.
    tokens: predicted tokens over all processes.
    """

    rows: Tensor
    key: BatchKey
    source_width: int
    target_width: int
    tokens: int


@dataclass(frozen=True, eq=False)
class PairLengths:
    """How long the pairs are.

    Args:
        source: int64 ``[N]``, tokens of each source with its eos.
        target: int64 ``[N]``, predicted tokens of each target, its eos included.
        multiple: widths are rounded up to a multiple of it.
    """

    source: Tensor
    target: Tensor
    multiple: int = 1

    def __len__(self) -> int:
        return self.source.shape[0]

    def first(self, n: int | None) -> "PairLengths":
        """Those of the first n pairs."""
        return PairLengths(self.source[:n], self.target[:n], self.multiple)

    def longer(self) -> Tensor:
        """Width of the longer side of each pair, int64 ``[N]``: what a row costs of the budget."""
        return self._width(torch.maximum(self.source, self.target))

    def planned(self, rows: Tensor, mine: slice, seed: int) -> PlannedPairs:
        """The part of a batch of ``rows`` that one process holds."""
        source, target = self.source[rows], self.target[rows]
        key = BatchKey(seed, mine.start, len(rows))
        return PlannedPairs(
            rows[mine], key, int(self._width(source.max())), int(self._width(target.max())), int(target.sum())
        )

    def _width(self, length: Tensor) -> Tensor:
        return -(-length // self.multiple) * self.multiple


def bucket_bounds(widths: list[int], budget: int, world_size: int = 1) -> list[int]:
    """First row of every batch, and the end of the last one.

    A batch takes rows, the widest first, as long as rows times the widest stays within the budget, and at least one for
    each process. A tail of less than half the rows before it shares them evenly.

    Args:
        widths: width of each row, not increasing.
        budget: padded tokens of a batch on the longer side, over all processes.
        world_size: number of processes.

    Returns:
        Increasing integers ``[0, ..., N]``.
    """
    bounds = [0]
    while bounds[-1] < len(widths):
        bounds.append(bounds[-1] + max(world_size, budget // widths[bounds[-1]]))
    bounds[-1] = len(widths)
    if len(bounds) > 2:
        before, tail = bounds[-2] - bounds[-3], bounds[-1] - bounds[-2]
        if tail < world_size or 2 * tail < before:
            shared = before + tail
            bounds[-2:-1] = [bounds[-3] + (shared + 1) // 2] if shared >= 2 * world_size else []
    return bounds


@dataclass(frozen=True, eq=False)
class BucketPlan:
    """Epochs of batches within a budget of tokens, each pair exactly once an epoch, dealt over the processes row by row.

    Pairs are sorted by the width of their longer side, which alone counts in the budget, and pairs of equal width come in
    an order drawn anew for each epoch. The sorted widths are then the same in every epoch, and with them the cut into
    batches: an epoch always has the same number of steps, while the company of a pair changes. The order of the batches is
    drawn for each epoch too. All draws follow from (run seed, epoch).

    Of each batch the process of rank r holds the r-th of ``world_size`` contiguous slices of rows, so the rows of all ranks
    in order are the batch of one process with ``world_size`` times the budget (where that gives each process a row).

    Args:
        lengths: lengths of the training pairs.
        batch_tokens: budget of one process: rows times the width of the longer side. Exceeded only by a pair that is
            wider than all of it, and where a process would be left without a row.
        world_size: number of processes.
        rank: this process, 0 .. world_size-1.
        reshuffle: False repeats epoch 0 (to overfit a few batches).

    Raises:
        UsageError: there is not one pair for each process.
    """

    lengths: PairLengths
    batch_tokens: int
    world_size: int = 1
    rank: int = 0
    reshuffle: bool = True
    bounds: list[int] = field(init=False, repr=False)
    _longer: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.examples < self.world_size:
            raise UsageError(
                f"{self.examples} training pairs for {self.world_size} processes; accepted: at least one each"
            )
        object.__setattr__(self, "_longer", self.lengths.longer())
        widths = self._longer.sort(descending=True).values.tolist()
        object.__setattr__(self, "bounds", bucket_bounds(widths, self.global_batch, self.world_size))

    @property
    def examples(self) -> int:
        """Number of training pairs."""
        return len(self.lengths)

    @property
    def global_batch(self) -> int:
        """Tokens of a batch over all processes."""
        return self.batch_tokens * self.world_size

    def __len__(self) -> int:
        """Number of batches of an epoch, the same on every rank and in every epoch."""
        return len(self.bounds) - 1

    def order(self, epoch: int) -> tuple[Tensor, list[int]]:
        """The pairs of an epoch as they are cut into batches (int64 ``[N]``), and the order in which those come."""
        generator = seeded_generator(run_seed(), "permutation", epoch if self.reshuffle else 0)
        shuffled = torch.randperm(self.examples, generator=generator)
        by_width = shuffled[self._longer[shuffled].sort(descending=True, stable=True).indices]
        return by_width, torch.randperm(len(self), generator=generator).tolist()

    def batches(self, epoch: int, first: int = 0, last: int | None = None) -> Iterator[PlannedPairs]:
        """The batches ``first .. last-1`` of an epoch, as this rank holds them."""
        pairs, turns = self.order(epoch)
        for i in range(first, len(self) if last is None else last):
            begin, end = self.bounds[turns[i]], self.bounds[turns[i] + 1]
            start, stop = ((end - begin) * rank // self.world_size for rank in (self.rank, self.rank + 1))
            yield self.lengths.planned(pairs[begin:end], slice(start, stop), derive_seed(run_seed(), "train", epoch, i))


@dataclass(frozen=True, eq=False)
class EvalBucketPlan:
    """Pairs sorted by length, each exactly once over the processes; whole batches are dealt out in turn.

    The batches and their keys do not depend on the number of processes, except where there would be fewer batches than
    processes: then the budget is halved until there are enough (see :class:`lit_gen.data.plan.EvalPlan`).

    Args:
        lengths: lengths of the pairs.
        batch_tokens: budget of a batch, as in :class:`BucketPlan`.
        split: "val", "test" or "predict", part of the key.
        world_size: number of processes.
        rank: this process.
    """

    lengths: PairLengths
    batch_tokens: int
    split: str
    world_size: int = 1
    rank: int = 0
    bounds: list[int] = field(init=False, repr=False)
    _order: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        longer = self.lengths.longer()
        order = self.lengths.target.sort(descending=True, stable=True).indices
        order = order[longer[order].sort(descending=True, stable=True).indices]
        widths, budget = longer[order].tolist(), self.batch_tokens
        bounds = bucket_bounds(widths, budget)
        while len(bounds) <= min(self.world_size, len(widths)):
            budget //= 2
            bounds = bucket_bounds(widths, budget)
        object.__setattr__(self, "bounds", bounds)
        object.__setattr__(self, "_order", order)

    def mine(self) -> range:
        """Numbers of this rank's batches."""
        return range(self.rank, len(self.bounds) - 1, self.world_size)

    def __len__(self) -> int:
        """Number of batches on this rank."""
        return len(self.mine())

    def batches(self) -> Iterator[PlannedPairs]:
        """This rank's batches, the longest pairs first."""
        for i in self.mine():
            rows = self._order[self.bounds[i] : self.bounds[i + 1]]
            yield self.lengths.planned(rows, slice(0, len(rows)), derive_seed(run_seed(), self.split, i))
