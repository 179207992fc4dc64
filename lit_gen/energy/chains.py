"""Persistent Markov chains, shared out among the processes and kept whole in the checkpoint."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lit_gen.core.distributed import world_size
from lit_gen.core.errors import require
from lit_gen.core.random import BatchKey, RowNoise
from lit_gen.core.sharded import gather_rows, share


class PersistentChains:
    """The states of C Markov chains that live through the whole training; each process moves its part of them.

    Not a buffer of the model: data parallelism would overwrite every process's chains with those of the first. Neither the
    number of processes nor a resume changes what a chain does: its noise is keyed by the batch and by its own number.

    Args:
        count: C, over all processes.
        axis: of the states that counts the chains.

    Raises:
        UsageError: fewer chains than processes.
    """

    def __init__(self, count: int, axis: int = 0) -> None:
        require(count >= 1, "chains", count, "1 or more")
        self.count, self.axis = count, axis
        self.state: Tensor | None = None
        self._whole: Tensor | None = None

    def start(self, initial: Callable[[], Tensor], device: torch.device | str) -> None:
        """Takes this process's part of the loaded states, or of ``initial()`` where none were loaded.

        Args:
            initial: gives the states of all chains, the same on every process.
            device: where the chains live.
        """
        if self.state is not None:
            return
        require(self.count >= world_size(), "chains", self.count, f"at least one for each of {world_size()} processes")
        whole = initial() if self._whole is None else self._whole
        first, last = share(self.count)
        self.state = whole.narrow(self.axis, first, last - first).to(device, copy=True)
        self._whole = None

    def noise(self, key: BatchKey, device: torch.device | str) -> RowNoise:
        """The source of noise for this process's chains at the batch of this key."""
        first, last = share(self.count)
        return RowNoise(BatchKey(key.seed, first, self.count), last - first, "chains", device)

    # ---------------------------------------------------------------- checkpoint

    def whole(self) -> Tensor | None:
        """The states of all chains on the CPU; every process must call it. None where they were never started."""
        return self._whole if self.state is None else gather_rows(self.state, self.count, self.axis)

    def load(self, whole: Tensor | None) -> None:
        """Takes the states of all chains from a checkpoint, for :meth:`start` to share out.

        Raises:
            UsageError: another number of chains.
        """
        if whole is not None:
            length = whole.shape[self.axis]
            require(length == self.count, "chains", self.count, f"{length}, the number of chains in the checkpoint")
        self._whole, self.state = whole, None
