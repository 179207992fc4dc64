r"""Multi-head attention, of a sequence to itself and to the source.

.. math:: \mathrm{Attention}(Q, K, V) = \mathrm{softmax}\Bigl(\frac{Q K^\top}{\sqrt{d}}\Bigr) V, \qquad
    \mathrm{MultiHead} = \mathrm{Concat}(\mathrm{head}_1 .. \mathrm{head}_h) W^O, \quad
    \mathrm{head}_i = \mathrm{Attention}(Q W^Q_i, K W^K_i, V W^V_i)

References:
    Vaswani et al., Attention is all you need, NeurIPS 2017, arXiv:1706.03762, section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lit_gen.core.errors import require
from lit_gen.text.kv_cache import KVCache
from lit_gen.text.positions import Rotation, rotate


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False, dropout: float = 0.0
) -> Tensor:
    """Attention of R rows to B blocks of keys and values, R = B K: K consecutive rows read one block, as K T queries.

    Args:
        q: queries.
        k: keys.
        v: values.
        mask: bool (True: look) or additive, to be broadcast to ``[B, H, K T, N]``.
        causal: query t sees keys up to t (for B = R and no mask).
        dropout: of attention weights.

    Shape:
        q ``[R, T, H, d]``, k and v ``[B, H, N, d]`` -> ``[R, T, H d]``.
    """
    rows, length, heads, dim = q.shape
    q = q.view(k.shape[0], -1, heads, dim).transpose(1, 2)
    if q.device.type == "cpu" and q.dtype is torch.bfloat16:
        # On sentences torch's kernel takes four times as long in these 16 bits as in 32.
        mask = mask.float() if mask is not None and mask.is_floating_point() else mask
        with torch.autocast("cpu", enabled=False):
            context = scaled_dot_product_attention(q.float(), k.float(), v.float(), mask, dropout, causal).to(q)
    else:
        context = scaled_dot_product_attention(q, k, v, mask, dropout, causal)
    return context.transpose(1, 2).reshape(rows, length, heads * dim)


def key_mask(mask: Tensor) -> Tensor:
    """Real positions bool ``[B, S]`` as an attention mask ``[B, 1, 1, S]``; a row without any sees everything, not NaN."""
    return (mask | ~mask.any(1, keepdim=True))[:, None, None, :]


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself, in both directions under a padding mask, or causal with a cache.

    Args:
        embedding_dim: D.
        heads: H, a divisor of D.
        dropout: of attention weights.
        bias: the projections have biases.

    Shape:
        x ``[R, T, D]`` -> ``[R, T, D]``.

    Raises:
        UsageError: heads that do not divide the width.
    """

    def __init__(self, embedding_dim: int, heads: int, dropout: float = 0.0, bias: bool = True) -> None:
        super().__init__()
        check_heads(embedding_dim, heads)
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(embedding_dim, 3 * embedding_dim, bias)
        self.output = nn.Linear(embedding_dim, embedding_dim, bias)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        layer: int = 0,
        rotation: Rotation | None = None,
    ) -> Tensor:
        """Attends to x under a mask; or, given a cache that was begun for x, to what was read before and causally to x.

        Args:
            x: the new positions.
            mask: as in :func:`attend`; not with a cache.
            cache: from :meth:`KVCache.begin`; takes the new keys and values.
            layer: which of the cache's layers this one is.
            rotation: of the positions of x, where they are rotary.
        """
        rows, length, dim = x.shape
        q, k, v = self.qkv(x).view(rows, length, 3, self.heads, dim // self.heads).unbind(2)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        dropout, causal = self.dropout if self.training else 0.0, False
        if cache is None:
            k, v = k.transpose(1, 2), v.transpose(1, 2)
        else:
            k, v = cache.append(layer, k, v)
            mask, causal = cache.mask, cache.length == length > 1
        return self.output(attend(q, k, v, mask, causal, dropout))


class CrossAttention(nn.Module):
    """Multi-head attention of a target to a source, whose keys and values are projected once, by :meth:`project`.

    Args:
        embedding_dim: D, of the target.
        encoder_width: E, of the source's states.
        heads: H, a divisor of D.
        dropout: of attention weights.
        bias: the projections have biases.

    Shape:
        x ``[R, T, D]``, keys and values ``[B, H, S, D / H]`` -> ``[R, T, D]``; R = B K, K rows for each source.

    Raises:
        UsageError: heads that do not divide the width.
    """

    def __init__(
        self, embedding_dim: int, encoder_width: int, heads: int, dropout: float = 0.0, bias: bool = True
    ) -> None:
        super().__init__()
        check_heads(embedding_dim, heads)
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(embedding_dim, embedding_dim, bias)
        self.key_value = nn.Linear(encoder_width, 2 * embedding_dim, bias)
        self.output = nn.Linear(embedding_dim, embedding_dim, bias)

    def project(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values ``[B, H, S, D / H]`` of the source's states ``[B, S, E]``."""
        k, v = self.key_value(states).unflatten(-1, (2, self.heads, -1)).unbind(2)
        return k.transpose(1, 2), v.transpose(1, 2)

    def forward(self, x: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.output(attend(self._queries(x), k, v, mask, False, self.dropout if self.training else 0.0))

    def weights(self, x: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
        """How much each position of x attends to each of the source, averaged over heads: ``[R, T, S]``."""
        rows, length, dim = x.shape
        q = self._queries(x).view(k.shape[0], -1, self.heads, dim // self.heads).transpose(1, 2)
        scores = q @ k.transpose(2, 3) * (dim // self.heads) ** -0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        return scores.softmax(-1).mean(1).view(rows, length, -1)

    def _queries(self, x: Tensor) -> Tensor:
        rows, length, dim = x.shape
        return self.query(x).view(rows, length, self.heads, dim // self.heads)


def check_heads(embedding_dim: int, heads: int) -> None:
    """UsageError unless the heads divide the width."""
    divides = heads >= 1 and embedding_dim % heads == 0
    require(divides, "heads", heads, f"a divisor of embedding_dim = {embedding_dim}")
