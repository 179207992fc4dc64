"""The sublayers of a Transformer, and how a layer is made of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_gen.text.dropout import dropout
from lit_gen.text.multi_head_attention import CrossAttention, SelfAttention

NormPlace = Literal["post", "pre"]
Activation = Literal["relu", "gelu"]
Initialisation = Literal["xavier", "gpt2"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "gelu": F.gelu}


class FeedForward(nn.Module):
    """Two linear layers with an activation between them, the same at each position: ``[..., D]`` -> ``[..., D]``."""

    def __init__(self, embedding_dim: int, hidden: int, activation: Activation, dropout: float, bias: bool) -> None:
        super().__init__()
        self.activation, self.dropout = ACTIVATIONS[activation], dropout
        self.hidden = nn.Linear(embedding_dim, hidden, bias)
        self.output = nn.Linear(hidden, embedding_dim, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(dropout(self.activation(self.hidden(x)), self.dropout, self.training))


class Sublayer(nn.Module):
    """Residual connection, dropout and layer normalisation around a network ``[..., D]`` -> ``[..., D]``."""

    def __init__(self, network: nn.Module, embedding_dim: int, norm: NormPlace, dropout: float, bias: bool) -> None:
        super().__init__()
        self.network, self.norm = network, nn.LayerNorm(embedding_dim, bias=bias)
        self.pre, self.dropout = norm == "pre", dropout

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Applies the network, which is given all other arguments."""
        y = self.network(self.norm(x) if self.pre else x, *args, **kwargs)
        x = x + dropout(y, self.dropout, self.training)
        return x if self.pre else self.norm(x)


class TransformerLayer(nn.Module):
    """One layer: self-attention, attention to the source (given ``encoder_width``), feed-forward.

    Args:
        embedding_dim: D.
        encoder_width: of the source's states; None for a layer that attends to itself alone.
        heads, ..., bias: see ``TransformerStack``.
    """

    def __init__(
        self,
        embedding_dim: int,
        encoder_width: int | None,
        heads: int,
        feed_forward: int,
        dropout: float,
        attention_dropout: float,
        feed_forward_dropout: float,
        norm: NormPlace,
        activation: Activation,
        bias: bool,
    ) -> None:
        super().__init__()

        def sublayer(network: nn.Module) -> Sublayer:
            return Sublayer(network, embedding_dim, norm, dropout, bias)

        self.self_attention = sublayer(SelfAttention(embedding_dim, heads, attention_dropout, bias))
        self.cross_attention: Sublayer | None = None
        if encoder_width is not None:
            cross = CrossAttention(embedding_dim, encoder_width, heads, attention_dropout, bias)
            self.cross_attention = sublayer(cross)
        self.feed_forward = sublayer(FeedForward(embedding_dim, feed_forward, activation, feed_forward_dropout, bias))


def initialise(stack: nn.Module, scheme: Initialisation) -> None:
    """Gives all linear layers of a stack of layers their first weights; see ``TransformerStack``."""
    sums = sum(isinstance(module, Sublayer) for module in stack.modules())
    for name, module in stack.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        if scheme == "xavier":
            nn.init.xavier_uniform_(module.weight)
        else:
            nn.init.normal_(module.weight, std=0.02 / math.sqrt(sums) if name.endswith(".output") else 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
