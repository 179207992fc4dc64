"""ROUGE: which n-grams, and which longest common subsequence, a text shares with a reference."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np

from lit_gen.core.errors import require

Tokens = Sequence[Hashable]


class Score(NamedTuple):
    """Precision, recall and their harmonic mean, each in [0, 1]."""

    precision: float
    recall: float
    f1: float

    @classmethod
    def of(cls, matches: int, candidate: int, reference: int) -> "Score":
        """The score of ``matches`` among so many units of the candidate and of the reference; no units give zeros."""
        precision, recall = matches / max(candidate, 1), matches / max(reference, 1)
        return cls(precision, recall, 2 * precision * recall / (precision + recall) if matches else 0.0)


def ascii_words(text: str) -> list[str]:
    """Lower-cased runs of [a-z0-9], as the package rouge-score splits; "für" becomes "f", "r"."""
    return re.findall(r"[a-z0-9]+", text.lower())


def unicode_words(text: str) -> list[str]:
    """Lower-cased runs of letters, digits and underscores of any script; "Füße!" becomes "füße"."""
    return re.findall(r"\w+", text.lower())


TOKENIZATIONS: dict[str, Callable[[str], list[str]]] = {
    "ascii": ascii_words,
    "unicode": unicode_words,
    "whitespace": str.split,
}
"""``ascii`` is that of the package rouge-score; ``unicode`` spares other languages; ``whitespace`` is for tokenised text."""


class Rouge:
    r"""ROUGE-N and ROUGE-L of one text against a reference.

    For n-grams the matches are :math:`\sum_g \min(\#_{candidate}(g), \#_{reference}(g))`, for ROUGE-L the length of the longest
    common subsequence of tokens; precision divides them by the units of the candidate, recall by those of the reference.
    With several references the score is that of the one with the highest F1. Nothing is stemmed.

    Args:
        tokenization: "ascii", "unicode" or "whitespace"; see :data:`TOKENIZATIONS`.
        orders: N of the ROUGE-N to compute.

    Raises:
        UsageError: a tokenisation that is not known, or an order below one.

    References:
        Lin, ROUGE: A Package for Automatic Evaluation of Summaries, ACL workshop 2004, aclanthology.org/W04-1013.
    """

    def __init__(self, tokenization: str = "unicode", orders: Sequence[int] = (1, 2)) -> None:
        require(tokenization in TOKENIZATIONS, "rouge_tokenization", repr(tokenization), ", ".join(TOKENIZATIONS))
        require(min(orders, default=1) >= 1, "orders", list(orders), "1 or more")
        self.tokenization, self.orders = tokenization, tuple(orders)

    def __call__(self, candidate: str, references: str | Sequence[str]) -> dict[str, Score]:
        """Scores by name: ``rouge_1``, ``rouge_2``, ..., ``rouge_l``."""
        tokens = TOKENIZATIONS[self.tokenization]
        references = [references] if isinstance(references, str) else references
        scores = [self._score(tokens(candidate), tokens(reference)) for reference in references]
        return {name: max((score[name] for score in scores), key=lambda s: s.f1) for name in scores[0]}

    def _score(self, candidate: list[str], reference: list[str]) -> dict[str, Score]:
        scores = {f"rouge_{n}": rouge_n(candidate, reference, n) for n in self.orders}
        return {**scores, "rouge_l": rouge_l(candidate, reference)}


def ngrams(tokens: Tokens, n: int) -> Counter[tuple[Hashable, ...]]:
    """How often each n-gram occurs."""
    return Counter(zip(*(tokens[i:] for i in range(n))))


def rouge_n(candidate: Tokens, reference: Tokens, n: int) -> Score:
    """ROUGE-N of token sequences."""
    found, wanted = ngrams(candidate, n), ngrams(reference, n)
    return Score.of((found & wanted).total(), found.total(), wanted.total())


def rouge_l(candidate: Tokens, reference: Tokens) -> Score:
    """ROUGE-L of token sequences, with F1."""
    return Score.of(lcs_length(candidate, reference), len(candidate), len(reference))


def lcs_length(a: Tokens, b: Tokens) -> int:
    """Length of the longest common subsequence, a row of the table in one integer.

    References:
        Hyyrö, Bit-Parallel LCS-length Computation Revisited, AWOCA 2004, figure 2.
    """
    places: dict[Hashable, int] = {}
    for i, token in enumerate(a):
        places[token] = places.get(token, 0) | 1 << i
    row = full = (1 << len(a)) - 1
    for token in b:
        matched = row & places.get(token, 0)
        row = (row + matched) | (row - matched)
    return len(a) - (row & full).bit_count()


def average(scores: Sequence[Score]) -> Score:
    """The mean of each of the three over texts, which is how rouge-score and the papers average over a corpus."""
    return Score(*(float(column.mean()) for column in np.array(scores).T))


# ---------------------------------------------------------------- the textbook's equations


def textbook_rouge_n(candidate: Tokens, references: Sequence[Tokens], n: int) -> float:
    r"""ROUGE-N as it is defined: recall alone, summed over the references before dividing.

    .. math:: \mathrm{ROUGE\text{-}N} = \frac{\sum_{S \in refs} \sum_{g \in S} \mathrm{Count}_{match}(g)}
        {\sum_{S \in refs} \sum_{g \in S} \mathrm{Count}(g)}

    It differs from :class:`Rouge`, which gives precision and F1 too and takes the best of several references.

    Returns:
        A number in [0, 1]; 0 where the references have no n-gram.

    References:
        Lin 2004, equation 1.
    """
    found, wanted = ngrams(candidate, n), [ngrams(reference, n) for reference in references]
    total = sum(counts.total() for counts in wanted)
    return sum((found & counts).total() for counts in wanted) / total if total else 0.0


def textbook_rouge_l(candidate: Tokens, reference: Tokens, beta: float = 1.0) -> float:
    r"""ROUGE-L of one sentence as it is defined, recall weighing :math:`\beta` times as much as precision.

    .. math:: R = \frac{\mathrm{LCS}}{m}, \quad P = \frac{\mathrm{LCS}}{n}, \quad
        F = \frac{(1 + \beta^2) R P}{R + \beta^2 P}

    Args:
        candidate: n tokens.
        reference: m tokens.
        beta: weight of the recall.

    References:
        Lin 2004, equations 2 to 4.
    """
    precision, recall, _ = rouge_l(candidate, reference)
    below = recall + beta**2 * precision
    return (1 + beta**2) * recall * precision / below if below else 0.0
