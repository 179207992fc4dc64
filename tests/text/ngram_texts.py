"""Small texts for the tests of n-gram models, and their counts by dictionaries."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from lit_gen.core.text import BOS
from lit_gen.text.ngram_counts import NGramCounts

SIZE = 9


def text(length: int = 300, seed: int = 0) -> Tensor:
    """A random text in which some tokens are rare, and one of the vocabulary never occurs."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.tensor([0, 0, 0.1, 0.02, 4, 2, 1, 0.1, 0])
    return torch.multinomial(weights, length, replacement=True, generator=generator)


def counted(order: int, tokens: Tensor) -> NGramCounts:
    counts = NGramCounts(order, SIZE)
    counts.fit(tokens)
    return counts


def slow_counts(tokens: Tensor, order: int) -> list[Counter]:
    """How often each k-gram ends at a position of the text, k = 1 .. N."""
    padded = [BOS] * (order - 1) + tokens.tolist()
    ends = range(order, len(padded) + 1)
    return [Counter(tuple(padded[end - k : end]) for end in ends) for k in range(1, order + 1)]
