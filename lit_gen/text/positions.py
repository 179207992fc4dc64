r"""Where a token stands: sinusoidal and learned positions, added to its vector, and rotary ones, which turn queries and keys.

All of them count from ``offset``, the number of tokens read before, so that a sequence may be read in pieces.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_gen.core.errors import UsageError, require


def angles(length: int, dim: int, base: float = 10_000.0) -> Tensor:
    r""":math:`pos / base^{2i/dim}`, float64 ``[length, ceil(dim / 2)]``: one frequency for each pair of dimensions."""
    frequency = base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    return torch.arange(length, dtype=torch.float64).unsqueeze(1) * frequency


def sinusoids(length: int, dim: int) -> Tensor:
    r"""Sinusoidal position vectors ``[length, dim]``.

    .. math:: PE_{pos,2i} = \sin(pos / 10000^{2i/d}), \qquad PE_{pos,2i+1} = \cos(pos / 10000^{2i/d})

    References:
        Vaswani et al., Attention is all you need, NeurIPS 2017, arXiv:1706.03762, section 3.5.
    """
    angle = angles(length, dim)
    return torch.stack((angle.sin(), angle.cos()), -1).flatten(1)[:, :dim].float()


class SinusoidalPositions(nn.Module):
    """Adds :func:`sinusoids` to ``scale`` times the input. Of any length; nothing is learned.

    Args:
        dim: D.
        scale: what the input is multiplied by first.

    Shape:
        x ``[R, T, D]`` -> ``[R, T, D]``.
    """

    max_length: int | None = None

    def __init__(self, dim: int, scale: float = 1.0) -> None:
        super().__init__()
        self.dim, self.scale = dim, scale
        self.register_buffer("table", sinusoids(256, dim), persistent=False)

    def forward(self, x: Tensor, offset: int = 0) -> Tensor:
        end = offset + x.shape[1]
        if end > self.table.shape[0]:
            self.table = sinusoids(2 * end, self.dim).to(self.table)
        return torch.add(self.table[offset:end], x, alpha=self.scale)


class LearnedPositions(nn.Module):
    """Adds a learned vector for each position to ``scale`` times the input.

    Args:
        dim: D.
        max_length: number of positions.
        scale: what the input is multiplied by first.

    Shape:
        x ``[R, T, D]`` -> ``[R, T, D]``.

    Raises:
        UsageError: a sequence is longer than ``max_length``.

    References:
        Gehring et al., Convolutional sequence to sequence learning, ICML 2017, arXiv:1705.03122. Radford et al., Language
        models are unsupervised multitask learners, 2019 (GPT-2; N(0, 0.02) at the start).
    """

    def __init__(self, dim: int, max_length: int, scale: float = 1.0) -> None:
        super().__init__()
        require(max_length >= 1, "max_length", max_length, "an integer of 1 or more")
        self.max_length, self.scale = max_length, scale
        self.table = nn.Parameter(torch.empty(max_length, dim).normal_(std=0.02))

    def forward(self, x: Tensor, offset: int = 0) -> Tensor:
        end = offset + x.shape[1]
        if end > self.max_length:
            raise UsageError(
                f"a sequence of {end} tokens; accepted: up to max_length = {self.max_length} (learned positions)"
            )
        return torch.add(self.table[offset:end], x, alpha=self.scale)


Rotation = tuple[Tensor, Tensor]
"""Cosines and sines ``[T, 1, d / 2]`` of the angles by which the positions of a piece are turned."""


class RotaryPositions(nn.Module):
    r"""Turns each pair of dimensions of queries and keys by an angle proportional to the position.

    .. math:: q_m^\top k_n = (R_m q)^\top (R_n k) = q^\top R_{n-m} k

    so that attention depends on the distance alone. The pairs are (i, i + d/2), a permutation of the paper's (2i, 2i + 1).

    Args:
        dim: d of one head, even.
        scale: what the network's input is multiplied by (nothing is added to it).

    Raises:
        UsageError: an odd ``dim``.

    References:
        Su et al., RoFormer: enhanced Transformer with rotary position embedding, 2021, arXiv:2104.09864, equations 14, 34.
    """

    max_length: int | None = None

    def __init__(self, dim: int, scale: float = 1.0) -> None:
        super().__init__()
        require(dim % 2 == 0, "embedding_dim / heads", dim, "an even number, for rotary positions")
        self.dim, self.scale = dim, scale
        self.register_buffer("cos", angles(256, dim).cos().float(), persistent=False)
        self.register_buffer("sin", angles(256, dim).sin().float(), persistent=False)

    def forward(self, x: Tensor, offset: int = 0) -> Tensor:
        """The network's input: positions come in later."""
        return x if self.scale == 1 else x * self.scale

    def rotation(self, length: int, offset: int = 0) -> Rotation:
        """Cosines and sines for positions offset .. offset + length - 1."""
        end = offset + length
        if end > self.cos.shape[0]:
            angle = angles(2 * end, self.dim)
            self.cos, self.sin = angle.cos().to(self.cos), angle.sin().to(self.sin)
        return self.cos[offset:end].unsqueeze(1), self.sin[offset:end].unsqueeze(1)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Queries or keys ``[R, T, H, d]`` turned by the angles of their positions."""
    cos, sin = (each.to(x.dtype) for each in rotation)
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)
