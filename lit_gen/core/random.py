"""Randomness as a function of (run seed, epoch, batch, row): nothing to save, nothing for a callback to disturb.

Every random number that touches training is drawn from a generator seeded by the key of the batch it belongs to. A resumed
run therefore draws what the uninterrupted one drew, and the rows of one global batch get the same noise however many
processes share it: two processes compute what one process computes with the doubled batch.
"""

from __future__ import annotations

import os
import zlib
from typing import NamedTuple

import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from any number of integers and names (splitmix64 over the parts; Steele et al., OOPSLA 2014)."""
    state = 0x9E3779B97F4A7C15
    for part in parts:
        value = zlib.crc32(part.encode()) if isinstance(part, str) else part
        state = (state ^ (value & _MASK)) & _MASK
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def run_seed() -> int:
    """The seed given to ``seed_everything`` (0 where nobody called it)."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


def seeded_generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on ``device`` seeded by :func:`derive_seed` of the parts."""
    return torch.Generator(device=device).manual_seed(derive_seed(*parts))


class BatchKey(NamedTuple):
    """Identity of a batch: the seed of its randomness, and which rows of the global batch this process holds.

    ``start`` is the first row of this process in the global batch of ``total`` rows (over all processes).
    """

    seed: int
    start: int
    total: int


class RowNoise:
    """Noise for the rows of one batch; the same rows get the same noise for any number of processes.

    Successive draws continue one generator, so two sources of the same ``(key, name)`` give the same sequence of draws.

    Args:
        key: the batch's key.
        rows: number of rows held by this process.
        name: what the noise is for; sources of different names are independent.
        device: where the noise is drawn.
    """

    def __init__(self, key: BatchKey, rows: int, name: str, device: torch.device | str = "cpu") -> None:
        self.key, self.rows, self.device = key, rows, device
        self.generator: torch.Generator | None = seeded_generator(key.seed, name, device=device)
        self._drawn: dict[tuple[torch.Size, torch.dtype], Tensor] = {}

    @classmethod
    def of(cls, generator: torch.Generator | None, rows: int, device: torch.device | str = "cpu") -> "RowNoise":
        """Noise for rows that belong to no batch, from a generator; the device's global one where None."""
        noise = cls(BatchKey(0, 0, rows), rows, "", "cpu")
        noise.generator, noise.device = generator, device
        return noise

    def _slice(self, whole: Tensor) -> Tensor:
        return whole[self.key.start : self.key.start + self.rows] if self.key.total != self.rows else whole

    def normal(self, *event: int) -> Tensor:
        """Standard normal noise, ``[rows, *event]``."""
        return self._slice(torch.randn(self.key.total, *event, generator=self.generator, device=self.device))

    def uniform(self, *event: int) -> Tensor:
        """Uniform noise on [0, 1), ``[rows, *event]``."""
        return self._slice(torch.rand(self.key.total, *event, generator=self.generator, device=self.device))

    def integers(self, high: int, *event: int) -> Tensor:
        """Integers 0 .. high-1 (int64), ``[rows, *event]``."""
        shape = (self.key.total, *event)
        return self._slice(torch.randint(high, shape, generator=self.generator, device=self.device))

    # A Markov chain draws the same shapes a thousand times: into the same memory.

    def uniform_like(self, x: Tensor) -> Tensor:
        """Uniform noise in the shape of x ``[rows, ...]``; the next draw of this shape overwrites it."""
        return self._slice(self._buffer(x).uniform_(generator=self.generator))

    def normal_like(self, x: Tensor) -> Tensor:
        """Standard normal noise in the shape of x ``[rows, ...]``; the next draw of this shape overwrites it."""
        return self._slice(self._buffer(x).normal_(generator=self.generator))

    def _buffer(self, x: Tensor) -> Tensor:
        kind = (x.shape, x.dtype)
        if kind not in self._drawn:
            self._drawn[kind] = torch.empty(self.key.total, *x.shape[1:], dtype=x.dtype, device=x.device)
        return self._drawn[kind]
