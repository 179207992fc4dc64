"""What an encoder says of its source sentences."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Encoded(NamedTuple):
    """Encoded source sentences.

    states: ``[B, S, width]``, one vector for each position; what stands on padding has no meaning.
    mask: bool ``[B, S]``, True on real tokens.
    summary: ``[B, width]``, one vector for each sentence: the final state of a recurrent encoder (of both directions), the
        mean over real positions of a convolutional encoder or a Transformer.
    """

    states: Tensor
    mask: Tensor
    summary: Tensor

    def select(self, rows: Tensor) -> "Encoded":
        """The given sentences (int64, any length)."""
        return Encoded(*(tensor.index_select(0, rows) for tensor in self))


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean over the positions where the mask is True: ``[B, S, D]``, bool ``[B, S]`` -> ``[B, D]``."""
    return (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
