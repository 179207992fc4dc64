"""Encoded text in memory, and the batches that plans cut out of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from lit_gen.core.text import BOS, EOS, PAD, PairBatch, StreamBatch
from lit_gen.data.bucket_plan import PairLengths, PlannedPairs
from lit_gen.data.loader import Transform, on_one_thread
from lit_gen.data.text_plan import PlannedWindows


def flat(tokens: Iterable[list[int]]) -> Tensor:
    """All tokens in one row, int32."""
    return torch.from_numpy(np.fromiter(chain.from_iterable(tokens), np.int32))


@dataclass(frozen=True, eq=False)
class TokenLines:
    """Lines of tokens in one row of memory; a batch of them is one ``index_select``.

    Args:
        tokens: int32, for each line bos, its tokens, eos.
        start: int64 ``[N]``, where the bos of each line is.
        length: int64 ``[N]``, tokens of each line, eos included, bos not.
    """

    tokens: Tensor
    start: Tensor
    length: Tensor

    @classmethod
    def of(cls, lines: list[list[int]]) -> "TokenLines":
        """Puts bos and eos around each line."""
        length = torch.tensor([len(line) + 1 for line in lines], dtype=torch.int64)
        return cls(flat([BOS, *line, EOS] for line in lines), (length + 1).cumsum(0) - length - 1, length)

    def rows(self, numbers: Tensor, width: int, bos: bool) -> Tensor:
        """The lines of these numbers, int64 ``[B, width]`` and one column more for bos; padded on the right."""
        skipped = 0 if bos else 1
        column = torch.arange(skipped, width + 1)
        place = self.start[numbers, None] + column
        inside = column <= self.length[numbers, None]
        return torch.where(inside, self.tokens[place.clamp_(max=len(self.tokens) - 1)], PAD).long()


@dataclass(frozen=True, eq=False)
class PairSplit:
    """The sentence pairs of one split.

    Args:
        source: the sentences to translate.
        target: their translations.
    """

    source: TokenLines
    target: TokenLines

    def __len__(self) -> int:
        return len(self.target.length)

    def lengths(self, multiple: int = 1) -> PairLengths:
        """What a plan must know of the pairs; widths are rounded up to the multiple."""
        return PairLengths(self.source.length, self.target.length, multiple)

    def stream(self, batches: list[PlannedPairs], transform: Transform | None = None) -> Iterator[PairBatch]:
        """Batches of planned pairs."""
        return on_one_thread(map(self._batch, batches), transform)

    def _batch(self, planned: PlannedPairs) -> PairBatch:
        source = self.source.rows(planned.rows, planned.source_width, bos=False)
        target = self.target.rows(planned.rows, planned.target_width, bos=True)
        return PairBatch(source, target, planned.key, planned.rows, planned.tokens)


@dataclass(frozen=True, eq=False)
class TokenSplit:
    """The running text of one split.

    Args:
        tokens: int32 ``[N]``.
    """

    tokens: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def stream(self, batches: list[PlannedWindows], transform: Transform | None = None) -> Iterator[StreamBatch]:
        """Batches of planned windows."""
        return on_one_thread(map(self._batch, batches), transform)

    def _batch(self, planned: PlannedWindows) -> StreamBatch:
        place = planned.start[:, None] + torch.arange(planned.width)
        inside = place < planned.stop[:, None]
        place.clamp_(max=len(self) - 1)
        target = self.tokens[place]
        # At place 0 a model has read nothing but bos, elsewhere the token before.
        read = torch.where(place == 0, BOS, self.tokens[(place - 1).clamp_(min=0)])
        predicted = inside & (place >= planned.first[:, None])
        return StreamBatch(
            torch.where(inside, read, PAD).long(),
            torch.where(predicted, target, PAD).long(),
            planned.key,
            planned.begins,
            planned.tokens,
        )
