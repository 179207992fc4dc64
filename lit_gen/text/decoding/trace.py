"""Which token continued which hypothesis: enough to read any of them out at the end."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gen.core.text import PAD


class Trace:
    """The tree of a beam search. Nothing is copied while it grows: each step stores parents and tokens, ``[B, K]``."""

    def __init__(self) -> None:
        self.parents: list[Tensor] = []
        self.tokens: list[Tensor] = []

    def add(self, parent: Tensor, token: Tensor) -> None:
        """One step: hypothesis k of a sentence continues hypothesis ``parent[:, k]`` of the step before by ``token``."""
        self.parents.append(parent)
        self.tokens.append(token)

    def select(self, sentences: Tensor) -> None:
        """Keeps the given sentences (int64)."""
        for steps in (self.parents, self.tokens):
            if steps:
                steps[:] = torch.stack(steps)[:, sentences].unbind()

    def read(self, sentences: Tensor, length: Tensor, slot: Tensor) -> Tensor:
        """The tokens of hypotheses.

        Args:
            sentences: int64 ``[B']``.
            length: int64 ``[B', n]``, after which step each hypothesis is read.
            slot: int64 ``[B', n]``, its place among the hypotheses of its sentence at that step.

        Returns:
            int64 ``[B', n, longest length]``, padded.
        """
        longest = int(length.max()) if length.numel() else 0
        said = torch.full((*length.shape, longest), PAD, device=length.device)
        row = sentences.unsqueeze(1)
        for step in range(longest, 0, -1):
            there = length >= step
            said[..., step - 1] = torch.where(there, self.tokens[step - 1][row, slot], PAD)
            slot = torch.where(there, self.parents[step - 1][row, slot], slot)
        return said
