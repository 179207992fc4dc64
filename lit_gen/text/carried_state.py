"""The state of a network that reads a text in windows: it goes from one batch to the next, and into the checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lit_gen.core.sharded import gather_rows
from lit_gen.core.text import StreamBatch
from lit_gen.text.cache import Cache, TensorCache


class CarriedState:
    """What a feature layer remembers of the streams it reads, as a constant: truncated backpropagation through time.

    Each process holds the rows of its own streams; the checkpoint holds all of them, for any number of processes to share out.
    """

    def __init__(self) -> None:
        self.cache: Cache | None = None
        self._rows = 0  # over all processes
        self._whole: list[Tensor] | None = None

    def before(self, batch: StreamBatch) -> Cache | None:
        """The state in which this batch is read; None where its rows begin anew."""
        if batch.begins:
            self.cache = None
        elif self._whole is not None:
            first = batch.key.start
            rows = slice(first, first + len(batch.input))
            self.cache = TensorCache(*(tensor[rows].to(batch.input.device) for tensor in self._whole))
        self._whole = None
        return self.cache

    def after(self, batch: StreamBatch, cache: Cache) -> None:
        """Takes the state in which a batch leaves the layer."""
        self.cache, self._rows = cache.detach(), batch.key.total

    # ---------------------------------------------------------------- checkpoint

    def whole(self) -> list[Tensor] | None:
        """The states of all streams on the CPU; every process must call it. None where nothing was read."""
        if self.cache is None:
            return self._whole
        return [gather_rows(tensor, self._rows) for tensor in self.cache]

    def load(self, whole: Sequence[Tensor] | None) -> None:
        """Takes the states of all streams from a checkpoint, for the next batch to share out."""
        self._whole, self.cache = None if whole is None else list(whole), None
