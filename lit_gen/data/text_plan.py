"""Which stretches of a running text make up which batch on which process: pure arithmetic, no text.

A text of N tokens has N places: at place i a model has read bos and the tokens before i, and predicts token i.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lit_gen.core.errors import require
from lit_gen.core.random import BatchKey, derive_seed, run_seed, seeded_generator
from lit_gen.data.plan import EvalPlan


class PlannedWindows(NamedTuple):
    """What a batch of running text is made of.

    start: int64 ``[B]``, the first place that each row reads.
    key: identity of the batch.
    width: places that each row reads.
    first: int64 ``[B]``, the first place that is predicted; those before are read only.
    stop: int64 ``[B]``, the end of the row's places; what a row reads beyond is padding.
    begins: True where the rows do not continue those of the batch before.
    tokens: predicted tokens over all processes.
    """

    start: Tensor
    key: BatchKey
    width: int
    first: Tensor
    stop: Tensor
    begins: bool
    tokens: int


@dataclass(frozen=True, eq=False)
class Streams:
    """Contiguous streams side by side, read through windows.

    Args:
        begin: int64 ``[R]``, the first place of each stream.
        end: int64 ``[R]``, the place after its last.
        width: places in a window.
    """

    begin: Tensor
    end: Tensor
    width: int

    @classmethod
    def of(cls, length: int, count: int, width: int) -> "Streams":
        """A text of so many places cut into ``count`` streams that differ by one place at most."""
        bounds = torch.arange(count + 1) * length // count
        return cls(bounds[:-1], bounds[1:], width)

    def __getitem__(self, rows: slice | Tensor) -> "Streams":
        return Streams(self.begin[rows], self.end[rows], self.width)

    def __len__(self) -> int:
        """Number of windows."""
        return -(-int((self.end - self.begin).max()) // self.width)

    def window(self, t: int, rows: slice, key: BatchKey) -> PlannedWindows:
        """Window t of the streams ``rows``; the last one of all streams is as wide as it must be."""
        start = self.begin + t * self.width
        width = min(self.width, int((self.end - start).max()))
        stop = torch.minimum(start + width, self.end)
        tokens = int((stop - start).sum())
        return PlannedWindows(start[rows], key, width, start[rows], stop[rows], t == 0, tokens)


@dataclass(frozen=True)
class StreamPlan:
    """The text as contiguous streams side by side, for truncated backpropagation through time.

    Batch t is window t of all streams, so that row r of a batch continues row r of the batch before it. Every token is
    predicted exactly once an epoch. There are as many streams as rows in the global batch, and the process of rank r holds
    the r-th ``batch_size`` of them, so two processes see what one process with the doubled batch sees.

    Args:
        examples: number of tokens N.
        batch_size: rows of a batch on one process.
        block_size: places in a window; the last may have fewer.
        world_size: number of processes.
        rank: this process, 0 .. world_size-1.

    Raises:
        UsageError: there is not one token for each stream.
    """

    examples: int
    batch_size: int
    block_size: int
    world_size: int = 1
    rank: int = 0

    def __post_init__(self) -> None:
        count = self.batch_size * self.world_size
        require(
            count <= self.examples, "streams of all processes", count, f"at most {self.examples}, one for each token"
        )

    @property
    def global_batch(self) -> int:
        """Tokens of a batch over all processes."""
        return self.batch_size * self.world_size * self.block_size

    def _streams(self) -> Streams:
        return Streams.of(self.examples, self.batch_size * self.world_size, self.block_size)

    def __len__(self) -> int:
        """Number of batches of an epoch, the same on every rank."""
        return len(self._streams())

    def batches(self, epoch: int, first: int = 0, last: int | None = None) -> Iterator[PlannedWindows]:
        """The batches ``first .. last-1`` of an epoch, as this rank holds them."""
        streams, start = self._streams(), self.rank * self.batch_size
        for t in range(first, len(self) if last is None else last):
            key = BatchKey(derive_seed(run_seed(), "train", epoch, t), start, self.batch_size * self.world_size)
            yield streams.window(t, slice(start, start + self.batch_size), key)


@dataclass(frozen=True)
class BlockPlan:
    """Blocks at random places of the text, drawn uniformly with replacement from (run seed, epoch, batch).

    The process of rank r holds the r-th ``batch_size`` blocks of the global batch.

    Args:
        examples: number of tokens N.
        batch_size: blocks of a batch on one process.
        block_size: places in a block.
        batches_per_epoch: what is called an epoch; None: as many batches as hold N tokens.
        world_size: number of processes.
        rank: this process, 0 .. world_size-1.
        reshuffle: False repeats epoch 0 (to overfit a few batches).

    Raises:
        UsageError: the text is shorter than a block.
    """

    examples: int
    batch_size: int
    block_size: int
    batches_per_epoch: int | None = None
    world_size: int = 1
    rank: int = 0
    reshuffle: bool = True

    def __post_init__(self) -> None:
        accepted = f"at most {self.examples}, the tokens of the training text"
        require(self.block_size <= self.examples, "block_size", self.block_size, accepted)

    @property
    def global_batch(self) -> int:
        """Tokens of a batch over all processes."""
        return self.batch_size * self.world_size * self.block_size

    def __len__(self) -> int:
        """Number of batches of an epoch, the same on every rank."""
        return self.batches_per_epoch or -(-self.examples // self.global_batch)

    def batches(self, epoch: int, first: int = 0, last: int | None = None) -> Iterator[PlannedWindows]:
        """The batches ``first .. last-1`` of an epoch, as this rank holds them."""
        rows, begin = self.batch_size * self.world_size, self.rank * self.batch_size
        for i in range(first, len(self) if last is None else last):
            generator = seeded_generator(run_seed(), "blocks", epoch if self.reshuffle else 0, i)
            start = torch.randint(self.examples - self.block_size + 1, (rows,), generator=generator)
            start = start[begin : begin + self.batch_size]
            key = BatchKey(derive_seed(run_seed(), "train", epoch, i), begin, rows)
            yield PlannedWindows(
                start, key, self.block_size, start, start + self.block_size, True, rows * self.block_size
            )


@dataclass(frozen=True)
class EvalStreamPlan:
    """The text as a fixed number of contiguous streams; groups of whole streams are dealt to the processes in turn.

    Every token is predicted exactly once, and what a model has read before it depends on the number of streams alone, not
    on how many of them are read at once, nor on the number of processes. A process without a stream gets one batch that
    predicts nothing: Lightning would leave out the evaluation on it, and the others would wait.

    Args:
        examples: number of tokens N.
        streams: number of streams (N where the text is shorter).
        block_size: places in a window.
        batch_size: streams read at once.
        split: "val", "test" or "predict", part of the key.
        world_size: number of processes.
        rank: this process.
    """

    examples: int
    streams: int
    block_size: int
    batch_size: int
    split: str
    world_size: int = 1
    rank: int = 0

    def _groups(self) -> Iterator[tuple[Streams, BatchKey]]:
        count = min(self.streams, self.examples)
        streams = Streams.of(self.examples, count, self.block_size)
        for rows, key in EvalPlan(count, self.batch_size, self.split, self.world_size, self.rank).batches():
            yield streams[rows], key

    def __len__(self) -> int:
        """Number of batches on this rank."""
        return sum(len(group) for group, _ in self._groups()) or 1

    def batches(self) -> Iterator[PlannedWindows]:
        """This rank's batches: all windows of a group of streams, then those of the next."""
        group = None
        for group, key in self._groups():
            for t in range(len(group)):
                yield group.window(t, slice(None), key._replace(seed=derive_seed(key.seed, t)))
        if group is None:
            nowhere = torch.ones(1, dtype=torch.int64)
            key = BatchKey(derive_seed(run_seed(), self.split, "idle"), 0, 1)
            yield PlannedWindows(nowhere - 1, key, 1, nowhere, nowhere, True, 0)


@dataclass(frozen=True)
class EvalBlockPlan:
    """Blocks that advance by a stride; each predicts its last ``stride`` places, the first block all of its own.

    Every token is predicted exactly once, after at least ``block_size - stride`` others that the model has read in the
    same block (as far as the text has them). The last block ends with the text and predicts what is left.

    Args:
        examples: number of tokens N.
        block_size: places in a block (N where the text is shorter).
        stride: places by which blocks advance, 1 .. block_size.
        batch_size: blocks in a batch.
        split: "val", "test" or "predict", part of the key.
        world_size: number of processes.
        rank: this process.
    """

    examples: int
    block_size: int
    stride: int
    batch_size: int
    split: str
    world_size: int = 1
    rank: int = 0

    @property
    def width(self) -> int:
        """Places in a block."""
        return min(self.block_size, self.examples)

    def _dealt(self) -> EvalPlan:
        blocks = 1 - (self.width - self.examples) // self.stride
        return EvalPlan(blocks, self.batch_size, self.split, self.world_size, self.rank)

    def __len__(self) -> int:
        """Number of batches on this rank."""
        return len(self._dealt())

    def batches(self) -> Iterator[PlannedWindows]:
        """This rank's batches, from the beginning of the text to its end."""
        for number, key in self._dealt().batches():
            first = torch.where(number == 0, 0, self.width + (number - 1) * self.stride)
            stop = (self.width + number * self.stride).clamp(max=self.examples)
            yield PlannedWindows(stop - self.width, key, self.width, first, stop, True, int((stop - first).sum()))
