"""The convolutional encoder of a sequence-to-sequence model."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gen.core.errors import require
from lit_gen.text.encoded import Encoded, masked_mean


class ConvolutionalEncoder(nn.Module):
    r"""Gated convolutions over words and their learned positions, with residual connections.

    With :math:`e = x + p` (p the embeddings of the positions) and :math:`z^0 = W e + b`, each layer is

    .. math:: z^l = \sqrt{1/2} \left( z^{l-1} + A \odot \sigma(B) \right), \quad [A; B] = \mathrm{conv}_k(z^{l-1})

    and the states are :math:`\sqrt{1/2} (W' z^L + b' + e)`, what the paper's attention averages. Padding is zero for every
    convolution, so that a sentence's states do not depend on it. Weight normalisation is left out.

    Args:
        embedding_dim: width of x and of the states.
        hidden: channels of the convolutions.
        layers: number of convolutions.
        kernel: width of a convolution in words, odd.
        dropout: of the embeddings and of each convolution's input.
        max_length: number of learned positions.

    Shape:
        x ``[B, S, embedding_dim]``, mask bool ``[B, S]`` -> :class:`Encoded`; its summary is the mean over real positions.

    Raises:
        UsageError: an option out of its range, or a sentence longer than ``max_length``.

    References:
        Gehring et al., Convolutional sequence to sequence learning, ICML 2017, arXiv:1705.03122, sections 3.1 to 3.5.
    """

    def __init__(
        self,
        embedding_dim: int,
        hidden: int = 256,
        layers: int = 4,
        kernel: int = 3,
        dropout: float = 0.0,
        max_length: int = 1024,
    ) -> None:
        super().__init__()
        require(hidden >= 1, "hidden", hidden, "1 or more")
        require(layers >= 1, "layers", layers, "1 or more")
        require(kernel >= 1 and kernel % 2 == 1, "kernel", kernel, "an odd number of words")
        require(0 <= dropout < 1, "dropout", dropout, "0 <= dropout < 1")
        require(max_length >= 1, "max_length", max_length, "1 or more")
        self.width, self.dropout, self.max_length = embedding_dim, dropout, max_length
        self.positions = nn.Parameter(torch.empty(max_length, embedding_dim).normal_(std=0.1))
        self.widen = nn.Linear(embedding_dim, hidden)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(hidden, 2 * hidden, kernel, padding=kernel // 2) for _ in range(layers)
        )
        self.narrow = nn.Linear(hidden, embedding_dim)
        # Section 3.5: outputs of variance one; four times that in front of a gate, which lets a quarter through.
        keep = 1 - dropout
        for linear in (self.widen, self.narrow):
            nn.init.normal_(linear.weight, std=math.sqrt(keep / linear.in_features))
            nn.init.zeros_(linear.bias)
        for convolution in self.convolutions:
            nn.init.normal_(convolution.weight, std=math.sqrt(4 * keep / (kernel * hidden)))
            nn.init.zeros_(convolution.bias)

    def forward(self, x: Tensor, mask: Tensor) -> Encoded:
        length = x.shape[1]
        require(length <= self.max_length, "length of a sentence", length, f"at most max_length = {self.max_length}")
        padding = ~mask.unsqueeze(1)  # [B, 1, S]
        e = F.dropout(x + self.positions[:length], self.dropout, self.training)
        z = self.widen(e).transpose(1, 2)  # [B, hidden, S]
        for convolution in self.convolutions:
            read = F.dropout(z.masked_fill(padding, 0), self.dropout, self.training)
            z = (z + F.glu(convolution(read), 1)) * math.sqrt(0.5)
        states = (self.narrow(z.transpose(1, 2)) + e) * math.sqrt(0.5)
        states = states.masked_fill(~mask.unsqueeze(-1), 0)
        return Encoded(states, mask, masked_mean(states, mask))
