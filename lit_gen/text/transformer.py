r"""The Transformer: encoder, decoder, and the causal stack that is the feature layer of a GPT.

Each layer is a chain of sublayers (self-attention, attention to the source, feed-forward), each with a residual connection
and layer normalisation, after the sum (post-norm, as in the paper) or before the sublayer (pre-norm):

.. math:: x \leftarrow \mathrm{LN}(x + f(x)) \qquad \text{or} \qquad x \leftarrow x + f(\mathrm{LN}(x))

References:
    Vaswani et al., Attention is all you need, NeurIPS 2017, arXiv:1706.03762.
    Xiong et al., On layer normalization in the Transformer architecture, ICML 2020, arXiv:2002.04745 (pre-norm).
    Radford et al., Language models are unsupervised multitask learners, 2019 (GPT-2).
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lit_gen.core.errors import require
from lit_gen.text.dropout import dropout
from lit_gen.text.encoded import Encoded, masked_mean
from lit_gen.text.kv_cache import KVCache
from lit_gen.text.multi_head_attention import key_mask
from lit_gen.text.positions import LearnedPositions, RotaryPositions, Rotation, SinusoidalPositions
from lit_gen.text.transformer_layers import (
    ACTIVATIONS,
    Activation,
    Initialisation,
    NormPlace,
    TransformerLayer,
    initialise,
)

PositionKind = Literal["sinusoidal", "learned", "rotary"]


class TransformerMemory(NamedTuple):
    """What a Transformer decoder keeps of B source sentences.

    layers: keys and values ``[B, H, S, d]`` for each layer.
    mask: ``[B, 1, 1, S]``, 0 where to look and minus infinity elsewhere: as it is added to scores.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    mask: Tensor

    def select(self, rows: Tensor) -> "TransformerMemory":
        """The given sentences (int64, any length)."""
        layers = tuple((k.index_select(0, rows), v.index_select(0, rows)) for k, v in self.layers)
        return TransformerMemory(layers, self.mask.index_select(0, rows))


class TransformerStack(nn.Module):
    """What encoder, decoder and causal Transformer share: positions, layers and their initialisation.

    The input is a sequence of embeddings; it is multiplied by sqrt(D), given positions and dropped out here.

    Args:
        embedding_dim: D, the width throughout.
        encoder_width: of the source's states; None for layers that attend to their own sequence alone.
        layers: their number.
        heads: H, a divisor of D.
        feed_forward: width of the feed-forward network.
        dropout: of embeddings and of each sublayer's output.
        attention_dropout: of attention weights; ``dropout`` where None.
        feed_forward_dropout: of the feed-forward network's hidden layer; ``dropout`` where None.
        norm: layer normalisation after each residual sum ("post") or before each sublayer ("pre", with one at the end).
        positions: "sinusoidal", "learned" or "rotary".
        max_length: longest sequence, for learned positions.
        activation: of the feed-forward network, "relu" or "gelu".
        bias: linear layers and layer normalisations have biases.
        scale_embedding: multiply the input by sqrt(D) (Vaswani et al., section 3.4).
        initialisation: "xavier" (Glorot's uniform weights; the packed projections count as one matrix, as in torch), or "gpt2"
            (N(0, 0.02); divided by the root of the number of residual sums where a layer writes to them). Biases are zero.

    Raises:
        UsageError: an option out of range.
    """

    def __init__(
        self,
        embedding_dim: int,
        encoder_width: int | None = None,
        layers: int = 6,
        heads: int = 8,
        feed_forward: int = 2048,
        dropout: float = 0.1,
        attention_dropout: float | None = None,
        feed_forward_dropout: float | None = None,
        norm: NormPlace = "post",
        positions: PositionKind = "sinusoidal",
        max_length: int = 512,
        activation: Activation = "relu",
        bias: bool = True,
        scale_embedding: bool = True,
        initialisation: Initialisation = "xavier",
    ) -> None:
        super().__init__()
        require(layers >= 1, "layers", layers, "an integer of 1 or more")
        require(feed_forward >= 1, "feed_forward", feed_forward, "an integer of 1 or more")
        attention_dropout = dropout if attention_dropout is None else attention_dropout
        feed_forward_dropout = dropout if feed_forward_dropout is None else feed_forward_dropout
        for name, value in (
            ("dropout", dropout),
            ("attention_dropout", attention_dropout),
            ("feed_forward_dropout", feed_forward_dropout),
        ):
            require(0 <= value < 1, name, value, f"0 <= {name} < 1")
        require(norm in ("post", "pre"), "norm", norm, "post, pre")
        require(activation in ACTIVATIONS, "activation", activation, ", ".join(ACTIVATIONS))
        require(initialisation in ("xavier", "gpt2"), "initialisation", initialisation, "xavier, gpt2")
        self.width, self.dropout = embedding_dim, dropout
        self.layers = nn.ModuleList(
            TransformerLayer(
                embedding_dim,
                encoder_width,
                heads,
                feed_forward,
                dropout,
                attention_dropout,
                feed_forward_dropout,
                norm,
                activation,
                bias,
            )
            for _ in range(layers)
        )
        scale = math.sqrt(embedding_dim) if scale_embedding else 1.0
        self.positions = make_positions(positions, embedding_dim, heads, max_length, scale)
        self.max_length: int | None = self.positions.max_length
        self.norm = nn.LayerNorm(embedding_dim, bias=bias) if norm == "pre" else nn.Identity()
        initialise(self, initialisation)

    def embed(self, x: Tensor, offset: int = 0) -> tuple[Tensor, Rotation | None]:
        """The first layer's input, and the rotation of its positions where they are rotary; x starts at ``offset``."""
        rotary = isinstance(self.positions, RotaryPositions)
        rotation = self.positions.rotation(x.shape[1], offset) if rotary else None
        return dropout(self.positions(x, offset), self.dropout, self.training), rotation


class TransformerEncoder(TransformerStack):
    """Reads whole source sentences, each position seeing all real ones.

    Args:
        embedding_dim: D.
        **kwargs: see :class:`TransformerStack`.

    Shape:
        x ``[B, S, D]``, mask bool ``[B, S]`` -> :class:`Encoded` with states ``[B, S, D]`` and their masked mean.
    """

    def __init__(self, embedding_dim: int, **kwargs: Any) -> None:
        super().__init__(embedding_dim, encoder_width=None, **kwargs)

    def forward(self, x: Tensor, mask: Tensor) -> Encoded:
        x, rotation = self.embed(x)
        look = key_mask(mask)
        for layer in self.layers:
            x = layer.self_attention(x, look, rotation=rotation)
            x = layer.feed_forward(x)
        states = self.norm(x)
        return Encoded(states, mask, masked_mean(states, mask))


class TransformerDecoder(TransformerStack):
    """Reads target prefixes from left to right, each position also seeing its source sentence.

    Args:
        embedding_dim: D.
        encoder_width: E, of the encoder's states.
        **kwargs: see :class:`TransformerStack`.

    Shape:
        x ``[R, T, D]`` -> ``[R, T, D]``; R = B K, K consecutive rows for each of the memory's B sentences.
    """

    def __init__(self, embedding_dim: int, encoder_width: int, **kwargs: Any) -> None:
        super().__init__(embedding_dim, encoder_width=encoder_width, **kwargs)

    def memory(self, encoded: Encoded) -> TransformerMemory:
        """Keys and values of the source for each layer: all that depends on the source alone."""
        layers = tuple(layer.cross_attention.network.project(encoded.states) for layer in self.layers)
        look = key_mask(encoded.mask)
        mask = layers[0][0].new_zeros(look.shape).masked_fill_(~look, -torch.inf)  # once, not in every layer and step
        return TransformerMemory(layers, mask)

    def forward(self, x: Tensor, memory: TransformerMemory, cache: KVCache | None = None) -> tuple[Tensor, KVCache]:
        """Features of T more positions after those the cache has seen, and the cache to go on with."""
        hypotheses = x.shape[0] // memory.mask.shape[0]
        after = KVCache.begin(cache, x.shape[1], hypotheses)
        x, rotation = self.embed(x, after.length - x.shape[1])
        for i, (layer, (k, v)) in enumerate(zip(self.layers, memory.layers)):
            x = layer.self_attention(x, cache=after, layer=i, rotation=rotation)
            x = layer.cross_attention(x, k, v, memory.mask)
            x = layer.feed_forward(x)
        return self.norm(x), after

    def attention_weights(self, x: Tensor, memory: TransformerMemory) -> Tensor:
        """How much each target position attends to each source position in the last layer, the mean of its heads.

        Shape:
            x ``[R, T, D]`` -> ``[R, T, S]``.
        """
        after = KVCache.begin(None, x.shape[1])
        x, rotation = self.embed(x)
        for i, (layer, (k, v)) in enumerate(zip(self.layers, memory.layers)):
            x = layer.self_attention(x, cache=after, layer=i, rotation=rotation)
            if i == len(self.layers) - 1:
                break
            x = layer.cross_attention(x, k, v, memory.mask)
            x = layer.feed_forward(x)
        last = layer.cross_attention
        return last.network.weights(last.norm(x) if last.pre else x, k, memory.mask)


class CausalTransformer(TransformerStack):
    """A decoder alone, the feature layer of a GPT; by default with GPT-2's choices.

    Args:
        embedding_dim: D.
        norm: see :class:`TransformerStack`, as all others.
        positions: with "learned" ones, ``max_length`` is the longest context; else the attribute is None: there is no limit.
        activation: of the feed-forward network.
        scale_embedding: multiply the input by sqrt(D).
        initialisation: "gpt2" or "xavier".
        **kwargs: see :class:`TransformerStack`.

    Shape:
        x ``[R, T, D]`` -> ``[R, T, D]``.
    """

    def __init__(
        self,
        embedding_dim: int,
        norm: NormPlace = "pre",
        positions: PositionKind = "learned",
        activation: Activation = "gelu",
        scale_embedding: bool = False,
        initialisation: Initialisation = "gpt2",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            embedding_dim,
            encoder_width=None,
            norm=norm,
            positions=positions,
            activation=activation,
            scale_embedding=scale_embedding,
            initialisation=initialisation,
            **kwargs,
        )

    def forward(self, x: Tensor, cache: KVCache | None = None) -> tuple[Tensor, KVCache]:
        """Features of T more positions after those the cache has seen, and the cache to go on with."""
        after = KVCache.begin(cache, x.shape[1])
        x, rotation = self.embed(x, after.length - x.shape[1])
        for i, layer in enumerate(self.layers):
            x = layer.self_attention(x, cache=after, layer=i, rotation=rotation)
            x = layer.feed_forward(x)
        return self.norm(x), after


def make_positions(kind: PositionKind, embedding_dim: int, heads: int, max_length: int, scale: float) -> nn.Module:
    """The positions of this name; see :class:`TransformerStack`."""
    require(kind in ("sinusoidal", "learned", "rotary"), "positions", kind, "sinusoidal, learned, rotary")
    if kind == "learned":
        return LearnedPositions(embedding_dim, max_length, scale)
    if kind == "rotary":
        return RotaryPositions(embedding_dim // heads, scale)
    return SinusoidalPositions(embedding_dim, scale)
