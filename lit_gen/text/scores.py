"""Scores of soft attention: how well a query (a decoder's state) fits each key (an encoder's state)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn

from lit_gen.core.errors import require


class Score(nn.Module, ABC):
    """A score function. What depends on the keys alone is computed once for a sentence, by :meth:`prepare`.

    Args:
        query_width: H, width of a query.
        key_width: K, width of a key.
    """

    def __init__(self, query_width: int, key_width: int) -> None:
        super().__init__()
        self.query_width, self.key_width = query_width, key_width

    def prepare(self, keys: Tensor) -> Tensor:
        """The keys as the score needs them: ``[B, S, K]`` -> ``[B, S, A]``."""
        return keys

    @abstractmethod
    def forward(self, queries: Tensor, prepared: Tensor) -> Tensor:
        """Scores: queries ``[B, Q, H]``, prepared keys ``[B, S, A]`` -> ``[B, Q, S]``."""


ScoreCallable = Callable[[int, int], Score]
"""(width of a query, width of a key) -> score."""


class DotScore(Score):
    r"""Inner product, :math:`h^\top s`; query and key are of one width.

    Raises:
        UsageError: the widths differ.

    References:
        Luong et al., Effective approaches to attention-based neural machine translation, EMNLP 2015, arXiv:1508.04025,
        section 3.1 (dot).
    """

    def __init__(self, query_width: int, key_width: int) -> None:
        super().__init__(query_width, key_width)
        name = f"decoder width for {type(self).__name__}"
        require(query_width == key_width, name, query_width, f"{key_width}, the encoder's width")

    def forward(self, queries: Tensor, prepared: Tensor) -> Tensor:
        return queries @ prepared.transpose(1, 2)


class ScaledDotScore(DotScore):
    r"""Inner product over the root of the width, :math:`h^\top s / \sqrt H`: of variance one for independent unit entries.

    References:
        Vaswani et al., Attention is all you need, NeurIPS 2017, arXiv:1706.03762, section 3.2.1.
    """

    def prepare(self, keys: Tensor) -> Tensor:
        return keys / math.sqrt(self.query_width)


class BilinearScore(Score):
    r""":math:`h^\top W s`.

    References:
        Luong et al. 2015, arXiv:1508.04025, section 3.1 (general).
    """

    def __init__(self, query_width: int, key_width: int) -> None:
        super().__init__(query_width, key_width)
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(query_width, key_width)))

    def prepare(self, keys: Tensor) -> Tensor:
        return keys @ self.weight.t()

    def forward(self, queries: Tensor, prepared: Tensor) -> Tensor:
        return queries @ prepared.transpose(1, 2)


class AdditiveScore(Score):
    r"""A perceptron with one hidden layer, :math:`v^\top \tanh(W h + U s + b)`.

    Args:
        query_width, key_width: as in :class:`Score`.
        hidden: A, number of hidden units; the query's width where None.

    Raises:
        UsageError: ``hidden`` below 1.

    References:
        Bahdanau et al., Neural machine translation by jointly learning to align and translate, ICLR 2015, arXiv:1409.0473,
        appendix A.1.2.
    """

    def __init__(self, query_width: int, key_width: int, hidden: int | None = None) -> None:
        super().__init__(query_width, key_width)
        require(hidden is None or hidden >= 1, "hidden", hidden, "1 or more, or null")
        hidden = hidden or query_width
        self.query = nn.Linear(query_width, hidden, bias=False)
        self.key = nn.Linear(key_width, hidden)
        self.output = nn.Linear(hidden, 1, bias=False)

    def prepare(self, keys: Tensor) -> Tensor:
        return self.key(keys)

    def forward(self, queries: Tensor, prepared: Tensor) -> Tensor:
        return self.output(torch.tanh(self.query(queries).unsqueeze(2) + prepared.unsqueeze(1))).squeeze(-1)


def attend(score: Score, queries: Tensor, prepared: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    r"""Soft attention, :math:`c = \sum_j a_j s_j` with :math:`a = \mathrm{softmax}(\mathrm{score}(h, s))` over real positions.

    The K hypotheses of a sentence are K T queries on one copy of its keys and values.

    Args:
        score: compares queries with keys.
        queries: of R = B K rows, sentence by sentence.
        prepared: keys after :meth:`Score.prepare`.
        values: what is averaged.
        mask: True on real positions; padding gets weight zero.

    Shape:
        queries ``[R, T, H]``, prepared ``[B, S, A]``, values ``[B, S, E]``, mask bool ``[B, S]`` -> context ``[R, T, E]``,
        weights ``[R, T, S]``.
    """
    sentences, time = values.shape[0], queries.shape[1]
    grouped = rearrange(queries, "(b k) t h -> b (k t) h", b=sentences)
    scores = score(grouped, prepared).masked_fill(~mask.unsqueeze(1), -math.inf)
    weights = scores.softmax(-1)
    context = weights.to(values.dtype) @ values
    return tuple(rearrange(each, "b (k t) d -> (b k) t d", t=time) for each in (context, weights))
