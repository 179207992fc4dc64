r"""Interpolated n-gram probabilities, and the table in which they are looked up.

Every smoothing here has the form

.. math:: p_k(w \mid h) = s_k(h w) + r_k(h)\, p_{k-1}(w \mid h'), \qquad p_0 = \text{uniform}

of a share s for the k-gram that was seen and a rest r for those that were not; h' is the history h without its first token. A
history that never occurred has s = 0 and r = 1. The table holds :math:`p_k(w \mid h)` of every k-gram that was seen, as in the
ARPA format: one bisection for each order finds the probability of any token.

References:
    Chen and Goodman, An empirical study of smoothing techniques for language modeling, Computer Speech and Language 13, 1999,
    section 2.8 (equivalence of backing off and interpolation).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_gen.core.text import BOS, PAD
from lit_gen.text.ngram_counts import Level, NGramCounts


class Shares(NamedTuple):
    """Of one depth k: the share of each k-gram, float64 ``[n]``, and the rest of each (k-1)-gram, float64 ``[m]``."""

    seen: Tensor
    rest: Tensor

    @classmethod
    def none(cls, level: Level) -> "Shares":
        """Of a depth that is left out: its probabilities are those of the depth above."""
        seen = torch.zeros(len(level.key), dtype=torch.float64, device=level.key.device)
        return cls(seen, torch.ones(len(level.first) - 1, dtype=torch.float64, device=level.key.device))


class Smoothing(ABC):
    """How counts become probabilities."""

    @abstractmethod
    def shares(self, counts: NGramCounts) -> list[Shares]:
        """Shares and rests of depth 1 .. N; of every history, both sum to one over the tokens that can follow."""

    @abstractmethod
    def record(self, counts: NGramCounts) -> dict[str, Any]:
        """What a run's record says of the smoothing."""


class NGramTable:
    """Probabilities after any history. ``PAD`` and ``BOS`` are never predicted; every other token of the vocabulary can be.

    Args:
        counts: the n-grams.
        shares: of depth 1 .. N.
    """

    def __init__(self, counts: NGramCounts, shares: list[Shares]) -> None:
        self.counts = counts
        self.levels = [level for level in counts.levels if len(level.key)]  # the first alone before training
        self.rest = [share.rest for share in shares]
        uniform = torch.full((counts.size,), 1 / (counts.size - 2), dtype=torch.float64, device=self.rest[0].device)
        uniform[[PAD, BOS]] = 0
        self.prob = [shares[0].seen + shares[0].rest * uniform]
        for level, (seen, rest) in zip(self.levels[1:], shares[1:]):
            self.prob.append(seen + rest[level.parent] * self.prob[-1][level.suffix])
        self.best = self._most_probable()

    def _most_probable(self) -> list[Tensor]:
        """The most probable token after each history of 0 .. N - 1 tokens that occurs."""
        best, top = [self.prob[0].argmax()[None]], self.prob[0].max()[None]
        for depth, (level, above) in enumerate(zip(self.levels[1:], self.levels), start=2):
            # Of the tokens that were not seen after a history the best is the best after its suffix.
            unseen = self.rest[depth - 1] * top[above.suffix]
            prob = self.prob[depth - 1]
            top = unseen.scatter_reduce(0, level.parent, prob, "amax")
            none = self.counts.size
            token = torch.where(prob == top[level.parent], level.token, none)
            seen = torch.full_like(best[-1][above.suffix], none).scatter_reduce(0, level.parent, token, "amin")
            best.append(torch.where(seen < none, seen, best[-1][above.suffix]))
        return best

    def log_prob(self, histories: Tensor, tokens: Tensor) -> Tensor:
        """log p of tokens ``[...]`` after histories ``[N, ...]`` (of :meth:`NGramCounts.read`), float64 ``[...]``."""
        prob = self.prob[0][tokens]
        for depth, level in enumerate(self.levels[1:], start=2):
            history = histories[depth - 1]
            node = level.find(history, tokens, self.counts.size)
            unseen = prob * self._rest(depth, history)
            prob = torch.where(node >= 0, self.prob[depth - 1][node], unseen)
        return prob.log()

    def most_probable(self, histories: Tensor) -> Tensor:
        """The most probable token after each of the histories ``[N, ...]``, int64 ``[...]``."""
        token = self.best[0].expand(histories.shape[1:])
        for best, history in zip(self.best[1:], histories[1:]):
            token = torch.where(history >= 0, best[history], token)
        return token

    def distribution(self, histories: Tensor) -> Tensor:
        """Probabilities of all tokens after histories ``[N, R]``, float64 ``[R, V]``."""
        rows = torch.arange(histories.shape[1], device=histories.device)
        prob = self.prob[0].expand(len(rows), -1).clone()
        for depth, level in enumerate(self.levels[1:], start=2):
            history = histories[depth - 1]
            prob *= self._rest(depth, history)[:, None]
            known = history.clamp(min=0)
            first, end = level.first[known], torch.where(history >= 0, level.first[known + 1], level.first[known])
            row = rows.repeat_interleave(end - first)
            begin = (end - first).cumsum(0) - (end - first)
            child = torch.arange(len(row), device=rows.device) - (begin - first)[row]
            prob[row, level.token[child]] = self.prob[depth - 1][child]
        return prob

    def _rest(self, depth: int, history: Tensor) -> Tensor:
        """r of histories, one where they do not occur."""
        return torch.where(history >= 0, self.rest[depth - 1][history], 1.0)
