"""The recurrent encoder of a sequence-to-sequence model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_gen.text.cells import CellName
from lit_gen.text.encoded import Encoded
from lit_gen.text.recurrent import Recurrent


class RecurrentEncoder(nn.Module):
    """Reads source sentences from left to right, or from both ends; the states of both directions stand side by side.

    Sentences padded at their end are read as if they stood alone: the backward direction begins at the last real token. Padded
    rows are not packed: a step on padding costs less than the packing where lengths are bucketed.

    Args:
        embedding_dim: width of x.
        hidden: width of each layer and direction; the encoder's ``width`` is twice that where bidirectional.
        layers, cell, bidirectional: as in :class:`Recurrent`.
        dropout: between layers and of the states handed to the decoder; with ``variational`` also of the input and the
            recurrent connections.
        variational: one mask for a whole sentence.

    Shape:
        x ``[B, S, embedding_dim]``, mask bool ``[B, S]`` -> :class:`Encoded`. Its summary holds the last layer's final states:
        after the last real token, and after the first one for the backward direction.

    Raises:
        UsageError: an option out of its range.

    References:
        Sutskever et al., Sequence to sequence learning with neural networks, NeurIPS 2014, arXiv:1409.3215.
        Bahdanau et al., ICLR 2015, arXiv:1409.0473, section 3.2 (bidirectional).
    """

    def __init__(
        self,
        embedding_dim: int,
        hidden: int = 256,
        layers: int = 1,
        cell: CellName = "gru",
        bidirectional: bool = False,
        dropout: float = 0.0,
        variational: bool = False,
    ) -> None:
        super().__init__()
        self.recurrent = Recurrent(embedding_dim, hidden, layers, cell, bidirectional, dropout, variational)
        self.hidden, self.width = hidden, self.recurrent.width

    def forward(self, x: Tensor, mask: Tensor) -> Encoded:
        outputs, _ = self.recurrent(x, mask=mask)
        rows, last = torch.arange(len(x), device=x.device), (mask.sum(1) - 1).clamp(min=0)
        summary = torch.cat([outputs[rows, last, : self.hidden], outputs[:, 0, self.hidden :]], -1)
        states = self.recurrent.drop_output(outputs).masked_fill(~mask.unsqueeze(-1), 0)
        return Encoded(states, mask, summary)
