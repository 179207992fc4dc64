"""Statistics against scipy, numpy and hand-worked numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sacrebleu.metrics import BLEU
from scipy import stats

from lit_gen.core.errors import UsageError
from lit_gen.papers.statistics import bootstrap_bleu, paired_bleu, paired_difference, separated, summary

SENTENCES = [f"{who} {what} {where} {when}" for who in ("a man", "two dogs", "the girl", "one of the children")
             for what in ("runs", "is sitting quietly", "plays a game") for where in ("in the park", "on the beach")
             for when in ("at night", "with a red ball and a hat")]  # fmt: skip


def broken(sentences: list[str], every: int) -> list[str]:
    """Every so manieth sentence without its last words, and with another beginning."""
    return [f"some {' '.join(s.split()[1:-2])}" if i % every == 0 else s for i, s in enumerate(sentences)]


@pytest.mark.parametrize("n", [2, 3, 10])
def test_interval_is_scipys(n: int) -> None:
    values = np.random.default_rng(n).normal(80, 3, n).tolist()
    found = summary(values)
    low, high = stats.t.interval(0.95, n - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (found.n, found.mean, found.std) == (
        n,
        pytest.approx(np.mean(values)),
        pytest.approx(np.std(values, ddof=1)),
    )
    assert [found.mean - found.half_width, found.mean + found.half_width] == pytest.approx([low, high])


def test_interval_by_hand() -> None:
    found = summary([1.0, 2.0, 3.0])  # t(0.975, 2) = 4.302653
    assert (found.mean, found.std, found.half_width) == (2.0, 1.0, pytest.approx(4.302653 / math.sqrt(3), rel=1e-6))


def test_one_seed_has_no_spread_and_none_is_an_error() -> None:
    assert (summary([5.0]).std, summary([5.0]).half_width) == (None, None)
    with pytest.raises(UsageError, match="accepted: at least one"):
        summary([])


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0, 3.0, 5.0])
def test_separated_is_scipys_welch_test(shift: float) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, 4).tolist(), rng.normal(shift, 2, 6).tolist()
    assert separated(summary(a), summary(b)) == (stats.ttest_ind(a, b, equal_var=False).pvalue < 0.05)


def test_separated_without_spread() -> None:
    assert separated(summary([1.0]), summary([1.1, 5.0]))
    assert not separated(summary([1.0]), summary([1.0]))
    assert separated(summary([1.0, 1.0]), summary([2.0, 2.0]))


def test_paired_difference_is_scipys() -> None:
    rng = np.random.default_rng(0)
    common = rng.normal(90, 20, 500)  # what examples have in common cancels
    a, b = common + rng.normal(0.1, 1, 500), common
    mean, error, p = paired_difference(a.tolist(), b.tolist())
    wanted = stats.ttest_rel(a, b)
    assert (mean, error) == (pytest.approx((a - b).mean()), pytest.approx(stats.sem(a - b)))
    assert p == pytest.approx(wanted.pvalue)
    assert error < stats.sem(a) / 10


def test_paired_difference_of_equal_items() -> None:
    assert paired_difference([1.0, 2.0], [1.0, 2.0]) == (0.0, 0.0, 1.0)
    assert paired_difference([2.0, 3.0], [1.0, 2.0]) == (1.0, 0.0, 0.0)
    with pytest.raises(UsageError, match="accepted: as many of both rows"):
        paired_difference([1.0], [1.0, 2.0])


def test_paired_bleu_is_sacrebleus() -> None:
    good, bad = broken(SENTENCES, 12), broken(SENTENCES, 3)
    own, other, p = paired_bleu(good, bad, SENTENCES, "none", trials=500)
    scorer = BLEU(tokenize="none", force=True)
    assert own == pytest.approx(scorer.corpus_score(good, [SENTENCES]).score)
    assert other == pytest.approx(scorer.corpus_score(bad, [SENTENCES]).score)
    assert own > other
    assert p < 0.05
    assert paired_bleu(bad, bad, SENTENCES, "none", trials=200)[2] > 0.9
    with pytest.raises(UsageError, match="accepted: as many of both rows as references"):
        paired_bleu(good[1:], bad, SENTENCES, "none")


def test_bootstrap_of_bleu_shrinks_with_the_corpus() -> None:
    one = bootstrap_bleu(broken(SENTENCES, 3), SENTENCES, "none")
    four = bootstrap_bleu(broken(SENTENCES, 3) * 4, SENTENCES * 4, "none")
    assert 0 < four < one
    assert bootstrap_bleu(SENTENCES, SENTENCES, "none") == pytest.approx(0, abs=1e-9)
