"""Which examples make up which batch on which process: pure arithmetic, no images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lit_gen.core.errors import UsageError
from lit_gen.core.random import BatchKey, derive_seed, run_seed, seeded_generator


def batch_bounds(examples: int, global_batch: int, world_size: int = 1, drop_last: bool = False) -> list[int]:
    """First row of every global batch of an epoch, and the end of the last one.

    Every batch has ``global_batch`` rows but for the end of the epoch: a tail of less than half a batch shares its rows
    evenly with the batch before it, so that no step is taken on a handful of examples. The cut depends on the global
    batch alone, hence two processes cut as one process with the doubled batch does (except where that would leave a
    process without a row, which needs a batch size of 1: then the tail joins the batch before it).

    Args:
        examples: number of training examples N.
        global_batch: rows of one batch over all processes.
        world_size: number of processes.
        drop_last: leave the tail out instead (each epoch leaves out others, as each is a new permutation).

    Returns:
        Increasing integers ``[0, ..., N]``.

    Raises:
        UsageError: there is not one example for each process, or with ``drop_last`` not one whole batch.
    """
    if examples < world_size:
        raise UsageError(f"{examples} training examples for {world_size} processes; accepted: at least one each")
    full, tail = divmod(examples, global_batch)
    bounds = [i * global_batch for i in range(full + 1)]
    if drop_last:
        if full == 0:
            raise UsageError(f"drop_last leaves nothing: {examples} training examples, global batch {global_batch}")
        return bounds
    if tail == 0:
        return bounds
    if full == 0 or (2 * tail >= global_batch and tail >= world_size):
        return [*bounds, examples]
    shared = global_batch + tail
    if shared >= 2 * world_size:
        return [*bounds[:-1], bounds[-2] + (shared + 1) // 2, examples]
    return [*bounds[:-1], examples]


@dataclass(frozen=True)
class TrainPlan:
    """Epochs of shuffled batches, each example exactly once an epoch, dealt over the processes row by row.

    Epoch e is a permutation drawn from (run seed, e). Of each global batch the process of rank r holds the r-th of
    ``world_size`` contiguous, equally long slices, so the rows of all ranks in order are the batch of one process.

    Args:
        examples: number of training examples.
        batch_size: rows of a batch on one process.
        world_size: number of processes.
        rank: this process, 0 .. world_size-1.
        drop_last: see :func:`batch_bounds`.
        reshuffle: False repeats the permutation of epoch 0 (to overfit a few batches).

    Raises:
        UsageError: see :func:`batch_bounds`.
    """

    examples: int
    batch_size: int
    world_size: int = 1
    rank: int = 0
    drop_last: bool = False
    reshuffle: bool = True
    bounds: list[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        bounds = batch_bounds(self.examples, self.global_batch, self.world_size, self.drop_last)
        object.__setattr__(self, "bounds", bounds)

    @property
    def global_batch(self) -> int:
        """Rows of one batch over all processes."""
        return self.batch_size * self.world_size

    def __len__(self) -> int:
        """Number of batches of an epoch, the same on every rank."""
        return len(self.bounds) - 1

    def permutation(self, epoch: int) -> Tensor:
        """The order of the examples in this epoch, int64 ``[examples]``."""
        generator = seeded_generator(run_seed(), "permutation", epoch if self.reshuffle else 0)
        return torch.randperm(self.examples, generator=generator)

    def batches(self, epoch: int, first: int = 0, last: int | None = None) -> Iterator[tuple[Tensor, BatchKey]]:
        """Examples (int64 ``[B]``) and key of the batches ``first .. last-1`` of an epoch, as this rank holds them."""
        order, seed = self.permutation(epoch), run_seed()
        for i in range(first, len(self) if last is None else last):
            begin, rows = self.bounds[i], self.bounds[i + 1] - self.bounds[i]
            start, stop = rows * self.rank // self.world_size, rows * (self.rank + 1) // self.world_size
            yield order[begin + start : begin + stop], BatchKey(derive_seed(seed, "train", epoch, i), start, rows)


@dataclass(frozen=True)
class EvalPlan:
    """Examples in fixed order, each exactly once over the processes; whole batches are dealt out in turn.

    The batches and their keys do not depend on the number of processes; ranks may hold one batch more or less. Only where
    there would be fewer batches than processes they are made smaller: Lightning leaves out the whole evaluation, its
    collective operations included, on a rank that has no batch.

    Args:
        examples: number of examples; 0 gives no batch.
        batch_size: rows of a batch; the last one may have fewer.
        split: "val", "test" or "predict", part of the key.
        world_size: number of processes.
        rank: this process.
    """

    examples: int
    batch_size: int
    split: str
    world_size: int = 1
    rank: int = 0

    @property
    def rows(self) -> int:
        """Rows of a batch."""
        enough = -(-self.examples // self.batch_size) >= self.world_size
        return self.batch_size if enough else max(1, self.examples // self.world_size)

    def mine(self) -> range:
        """Numbers of this rank's batches."""
        return range(self.rank, -(-self.examples // self.rows), self.world_size)

    def __len__(self) -> int:
        """Number of batches on this rank."""
        return len(self.mine())

    def batches(self) -> Iterator[tuple[Tensor, BatchKey]]:
        """Examples (int64 ``[B]``) and key of this rank's batches."""
        seed = run_seed()
        for i in self.mine():
            begin, end = i * self.rows, min((i + 1) * self.rows, self.examples)
            yield torch.arange(begin, end), BatchKey(derive_seed(seed, self.split, i), 0, end - begin)
