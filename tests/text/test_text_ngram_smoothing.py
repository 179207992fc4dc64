"""Smoothed n-gram probabilities against examples worked by hand, the papers' equations, and NLTK."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict

import pytest
import torch
from torch import Tensor

from lit_gen.core.errors import UsageError
from lit_gen.core.text import BOS, EOS, PAD, UNK
from lit_gen.text.additive import Additive
from lit_gen.text.kneser_ney import FALLBACK, KneserNey
from lit_gen.text.ngram_counts import NGramCounts
from lit_gen.text.ngram_table import NGramTable, Shares, Smoothing
from tests.text.ngram_texts import SIZE, counted, slow_counts, text

PREDICTED = [token for token in range(SIZE) if token not in (PAD, BOS)]
SMOOTHINGS = [Additive(0.3), KneserNey(), KneserNey("estimated"), KneserNey(0.6)]


def described(smoothing: Smoothing) -> str:
    return f"{type(smoothing).__name__}-{getattr(smoothing, 'discounts', '')}"


every_smoothing = pytest.mark.parametrize("smoothing", SMOOTHINGS, ids=described)


def table(tokens: Tensor, order: int, smoothing: Smoothing, size: int = SIZE) -> NGramTable:
    counts = NGramCounts(order, size)
    counts.fit(tokens)
    return NGramTable(counts, smoothing.shares(counts))


def prob(of: NGramTable, token: int, history: list[int]) -> float:
    """p(token | history), the history's first tokens being those at the beginning of the text where it is short."""
    # reading BOS at the beginning of a text leaves it there
    last = of.counts.read(torch.tensor([history or [BOS]]), of.counts.start(1))[:, :, -1]
    return float(of.log_prob(last, torch.tensor([token])).exp())


def random_histories(order: int, rows: int = 200) -> Tensor:
    """Histories of N - 1 tokens, seen and unseen, special tokens among them."""
    return torch.randint(SIZE, (rows, max(order - 1, 1)), generator=torch.Generator().manual_seed(3))


# ---------------------------------------------------------------- by hand

A, B = 4, 5
EXAMPLE = torch.tensor([A, B, A, A, B])
"""abaab: of the bigrams, with ^ for the beginning, ^a, ba and aa occur once and ab twice. 4 tokens: a, b, EOS, UNK."""


def test_additive_by_hand() -> None:
    bigram = table(EXAMPLE, 2, Additive(0.5), size=6)
    # c(a) = 3 with delta |V| = 0.5 * 4 = 2 added
    assert prob(bigram, B, [A]) == pytest.approx((2 + 0.5) / 5)
    assert prob(bigram, A, [A]) == pytest.approx((1 + 0.5) / 5)
    assert prob(bigram, EOS, [A]) == pytest.approx(0.5 / 5)
    assert prob(bigram, A, []) == pytest.approx((1 + 0.5) / (1 + 2))
    assert prob(bigram, A, [UNK]) == pytest.approx(1 / 4)  # never seen
    unigram = table(EXAMPLE, 1, Additive(0.5), size=6)
    assert prob(unigram, A, []) == pytest.approx((3 + 0.5) / (5 + 2))


def test_kneser_ney_by_hand() -> None:
    bigram = table(EXAMPLE, 2, KneserNey(0.5), size=6)
    # a comes after ^, b and a: 3 ways; b after a: 1 way. Of 4 in all, the discounts leave 2 * 0.5 / 4 to the uniform 1 / 4.
    p_a, p_b, p_other = (3 - 0.5) / 4 + 1 / 16, (1 - 0.5) / 4 + 1 / 16, 1 / 16
    assert p_a + p_b + 2 * p_other == 1
    assert prob(bigram, A, [UNK]) == pytest.approx(p_a)  # a history never seen: the unigrams
    assert prob(bigram, B, [UNK]) == pytest.approx(p_b)
    # After a: b twice, a once, of 3; two discounts of 0.5 leave gamma = 1 / 3.
    assert prob(bigram, B, [A]) == pytest.approx((2 - 0.5) / 3 + p_b / 3)
    assert prob(bigram, A, [A]) == pytest.approx((1 - 0.5) / 3 + p_a / 3)
    assert prob(bigram, EOS, [A]) == pytest.approx(p_other / 3)
    # After b: a once, of 1.
    assert prob(bigram, A, [B]) == pytest.approx(0.5 + 0.5 * p_a)
    assert prob(bigram, B, [B]) == pytest.approx(0.5 * p_b)
    # At the beginning: a once, of 1.
    assert prob(bigram, A, []) == pytest.approx(0.5 + 0.5 * p_a)


def test_discounts_by_hand() -> None:
    # n1 = 8, n2 = 4, n3 = 2, n4 = 1: Y = 8 / 16 = 1/2; D(1) = 1 - 2/2 * 4/8; D(2) = 2 - 3/2 * 2/4; D(3) = 3 - 4/2 * 1/2
    evidence = torch.tensor([1] * 8 + [2] * 4 + [3] * 2 + [4] + [0] * 5 + [9] * 3)
    assert KneserNey().estimate(evidence) == pytest.approx((0.5, 1.25, 2.0))
    assert KneserNey("estimated").estimate(evidence) == pytest.approx((0.5, 0.5, 0.5))
    assert KneserNey(0.1).estimate(evidence) == (0.1, 0.1, 0.1)
    # no estimate: nothing occurs twice; and one that is negative, D(2) = 2 - 3 * (8 / 10) * 7
    assert KneserNey().estimate(torch.tensor([1, 1, 3, 4])) == FALLBACK["modified"]
    assert KneserNey("estimated").estimate(torch.tensor([1, 1, 3, 4])) == FALLBACK["estimated"]
    assert KneserNey().estimate(torch.tensor([1] * 8 + [2] + [3] * 7 + [4])) == FALLBACK["modified"]


# ---------------------------------------------------------------- the equations, one by one


def slow_kneser_ney(tokens: Tensor, order: int, estimated: bool):
    """Chen and Goodman's equations with dictionaries: p(w | h) for a history of N - 1 tokens."""
    evidence = []
    slow = slow_counts(tokens, order)
    for k in range(1, order + 1):
        if k == order:
            evidence.append(slow[-1])
        else:
            before = defaultdict(set)
            for first, *rest in slow[k]:
                before[tuple(rest)].add(first)
            evidence.append(Counter({gram: len(different) for gram, different in before.items()}))

    def discount(k: int, a: int) -> float:
        if a == 0:
            return 0.0
        if not estimated:
            return 0.6
        n = Counter(evidence[k - 1].values())
        if 0 in (n[1], n[2], n[3], n[4]):
            return (0.5, 1.0, 1.5)[min(a, 3) - 1]
        y = n[1] / (n[1] + 2 * n[2])
        d = [i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3)]
        if any(value <= 0 for value in d):
            return (0.5, 1.0, 1.5)[min(a, 3) - 1]
        return d[min(a, 3) - 1]

    def p(w: int, h: tuple[int, ...]) -> float:
        k = len(h) + 1
        lower = p(w, h[1:]) if h else 1 / len(PREDICTED)
        following = {v: evidence[k - 1][(*h, v)] for v in PREDICTED}
        total = sum(following.values())
        if total == 0:
            return lower
        gamma = sum(discount(k, a) for a in following.values()) / total
        return (following[w] - discount(k, following[w])) / total + gamma * lower

    return p


@pytest.mark.parametrize("order", range(1, 8))
@pytest.mark.parametrize("estimated", [True, False], ids=["modified", "one discount"])
def test_kneser_ney_follows_the_equations(order: int, estimated: bool) -> None:
    tokens = text(200)
    p = slow_kneser_ney(tokens, order, estimated)
    fast = table(tokens, order, KneserNey() if estimated else KneserNey(0.6))
    occurring = torch.cat((torch.full((order - 1,), BOS), tokens)).unfold(0, max(order - 1, 1), 17)[:6]
    for history in torch.cat((random_histories(order, 6), occurring)):
        last = fast.counts.read(history[None], fast.counts.start(1))[:, :, -1]
        expected = [p(w, tuple(history.tolist()) if order > 1 else ()) for w in PREDICTED]
        assert fast.distribution(last)[0, PREDICTED].tolist() == pytest.approx(expected, rel=1e-12)


def test_all_three_discounts_are_estimated_somewhere() -> None:
    """The oracle above would not notice an estimate that is never used."""
    found = KneserNey().record(counted(4, text(200)))["discounts_of_orders"]
    assert any(values != FALLBACK["modified"] for values in found)


# ---------------------------------------------------------------- NLTK


def nltk_counts(model, tokens: Tensor, order: int):
    """An NLTK model of all k-grams that end at a token of the text. (NLTK's own padding also predicts the padding.)"""
    padded = [BOS] * (order - 1) + tokens.tolist()
    ends = range(order, len(padded) + 1)
    grams = [[tuple(map(str, padded[end - k : end])) for k in range(1, order + 1)] for end in ends]
    # NLTK adds its unknown word, which stands for UNK in the vocabulary, and for BOS in histories
    model.fit(grams, vocabulary_text=[str(token) for token in PREDICTED if token != UNK])
    return model


def words_and_histories(order: int) -> itertools.product:
    words = [token for token in PREDICTED if token != UNK]
    histories = [row.tolist() for row in random_histories(order, 40) if UNK not in row and PAD not in row]
    return itertools.product(words, histories)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_additive_is_nltks_lidstone(order: int) -> None:
    lm = pytest.importorskip("nltk.lm", reason="NLTK is not installed")
    theirs = nltk_counts(lm.Lidstone(0.3, order), text(), order)
    ours = table(text(), order, Additive(0.3))
    for word, history in words_and_histories(order):
        context = [str(token) for token in history] if order > 1 else None
        assert prob(ours, word, history) == pytest.approx(theirs.score(str(word), context), rel=1e-12)


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("discount", [0.1, 0.75])
def test_kneser_ney_is_nltks_but_for_the_unigrams(order: int, discount: float) -> None:
    """NLTK has one fixed discount, and does not discount unigrams: a token never seen has probability zero."""
    lm = pytest.importorskip("nltk.lm", reason="NLTK is not installed")
    theirs = nltk_counts(lm.KneserNeyInterpolated(order, discount), text(), order)
    counts = counted(order, text())
    shares = KneserNey(discount).shares(counts)
    ways = counts.continuations(1).double()
    shares[0] = Shares(ways / ways.sum(), torch.zeros(1, dtype=torch.float64))
    ours = NGramTable(counts, shares)
    for word, history in words_and_histories(order):
        expected = theirs.score(str(word), [str(token) for token in history])
        assert prob(ours, word, history) == pytest.approx(expected, rel=1e-12)


# ---------------------------------------------------------------- what holds for all


@every_smoothing
@pytest.mark.parametrize("order", range(1, 8))
def test_probabilities_sum_to_one_after_any_history(order: int, smoothing: Smoothing) -> None:
    of = table(text(), order, smoothing)
    last = of.counts.read(random_histories(order), of.counts.start(200))[:, :, -1]
    assert order < 3 or (last < 0).any()
    p = of.distribution(last)
    torch.testing.assert_close(p.sum(1), torch.ones(200, dtype=torch.float64), rtol=1e-12, atol=0)
    assert (p[:, PREDICTED] > 0).all()
    assert (p[:, [PAD, BOS]] == 0).all()


@every_smoothing
@pytest.mark.parametrize("order", [1, 2, 5])
def test_one_token_is_looked_up_as_in_the_distribution(order: int, smoothing: Smoothing) -> None:
    of = table(text(), order, smoothing)
    last = of.counts.read(random_histories(order), of.counts.start(200))[:, :, -1]
    p = of.distribution(last)
    for token in range(SIZE):
        torch.testing.assert_close(of.log_prob(last, torch.full((200,), token)).exp(), p[:, token])
    best = of.most_probable(last)
    torch.testing.assert_close(p.gather(1, best[:, None])[:, 0], p.max(1).values)


def test_more_context_predicts_a_repetition_better() -> None:
    tokens = torch.tensor([A, B, B, A, 6, 7] * 20)
    values = [prob(table(tokens, order, KneserNey()), B, [6, 7, A, B]) for order in (1, 2, 3)]
    assert values == sorted(values)
    assert values[-1] > 0.9


@pytest.mark.parametrize("discounts", [0.0, 1.1, -0.5, "both"])
def test_bad_discounts_are_named(discounts: float | str) -> None:
    with pytest.raises(UsageError, match=f"discounts = {discounts}"):
        KneserNey(discounts)


def test_a_bad_delta_is_named() -> None:
    with pytest.raises(UsageError, match="delta = 0"):
        Additive(0)
