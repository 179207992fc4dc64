"""The tree of n-gram counts against dictionaries."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from torch import Tensor

from lit_gen.core.errors import UsageError
from lit_gen.core.text import BOS
from lit_gen.text.ngram_counts import NGramCounts, smallest
from tests.text.ngram_texts import SIZE, counted, slow_counts, text

ORDERS = range(1, 8)


def as_dicts(counts: NGramCounts, values: list[Tensor]) -> list[dict]:
    """Values of the nodes of each depth by k-gram, zeros left out."""
    grams, result = [()], []
    for level, value in zip(counts.levels, values):
        grams = [(*grams[p], t) for p, t in zip(level.parent.tolist(), level.token.tolist())]
        assert len(set(grams)) == len(grams)
        result.append({gram: v for gram, v in zip(grams, value.tolist()) if v})
    return result


@pytest.mark.parametrize("order", ORDERS)
def test_counts_are_those_of_a_dictionary(order: int) -> None:
    tokens = text()
    counts = counted(order, tokens)
    assert as_dicts(counts, [level.count for level in counts.levels]) == slow_counts(tokens, order)


def test_continuations_are_the_different_tokens_before() -> None:
    tokens = text()
    counts, slow = counted(4, tokens), slow_counts(tokens, 4)
    found = as_dicts(counts, [counts.continuations(k) for k in (1, 2, 3)])
    for above, continuations in zip(slow[1:], found):
        before = defaultdict(set)
        for first, *rest in above:
            before[tuple(rest)].add(first)
        assert continuations == {gram: len(tokens) for gram, tokens in before.items()}


def test_a_suffix_is_the_ngram_without_its_first_token() -> None:
    counts = counted(4, text())
    grams = [[()]]
    for level in counts.levels:
        grams.append([(*grams[-1][p], t) for p, t in zip(level.parent.tolist(), level.token.tolist())])
        suffixes = [grams[-2][s] for s in level.suffix.tolist()]
        assert suffixes == [gram[1:] for gram in grams[-1]]


@pytest.mark.parametrize("order", [1, 2, 5])
def test_histories_are_found_where_they_occur_and_nowhere_else(order: int) -> None:
    counts, other = counted(order, text()), text(60, seed=1).reshape(3, 20)
    found = counts.read(other, counts.start(3))
    assert found.shape == (order, 3, 20)
    grams = [[()]]
    for level in counts.levels:
        grams.append([(*grams[-1][p], t) for p, t in zip(level.parent.tolist(), level.token.tolist())])
    missing = 0
    for row in range(3):
        padded = [BOS] * (order - 1) + other[row].tolist()
        for position in range(20):
            end = order + position
            for depth in range(order):
                gram, node = tuple(padded[end - depth : end]), int(found[depth, row, position])
                missing += node < 0
                assert grams[depth][node] == gram if node >= 0 else gram not in grams[depth]
    assert (missing > 0) == (order > 3)


def test_a_text_read_in_pieces_gives_the_histories_of_the_whole() -> None:
    counts, other = counted(5, text()), text(60, seed=1).reshape(3, 20)
    state, pieces = counts.start(3), []
    for piece in other.split([1, 1, 7, 11], dim=1):
        pieces.append(counts.read(piece, state))
        state = pieces[-1][1:, :, -1].T
    assert torch.equal(torch.cat(pieces, 2), counts.read(other, counts.start(3)))


@pytest.mark.parametrize("order", ORDERS)
def test_the_state_dict_restores_all_levels(order: int) -> None:
    counts, loaded = counted(order, text()), NGramCounts(order, SIZE)
    assert not loaded.counted
    loaded.load_state_dict(counts.state_dict())
    assert loaded.counted
    for mine, theirs in zip(counts.levels, loaded.levels, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert torch.equal(a, b)
    loaded.load_state_dict(counted(order, text(50, seed=2)).state_dict())  # a smaller one over a larger one
    assert int(loaded.levels[0].count.sum()) == 50


def test_the_state_dict_is_compact() -> None:
    state = counted(5, text(5000)).state_dict()
    assert {tensor.dtype for tensor in state.values()} <= {torch.uint8, torch.int32}
    assert smallest(torch.tensor([255])).dtype == torch.uint8
    assert smallest(torch.tensor([256])).dtype == torch.int32
    assert smallest(torch.tensor([2**31])).dtype == torch.int64


def test_mistakes_are_named() -> None:
    with pytest.raises(UsageError, match="order = 0"):
        NGramCounts(0, SIZE)
    with pytest.raises(UsageError, match="no tokens"):
        counted(2, torch.zeros(0, dtype=torch.int64))
