"""ROUGE equals the package rouge-score; the longest common subsequence equals a search over all subsequences."""

from __future__ import annotations

import random
from itertools import combinations

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.scoring import BootstrapAggregator

from lit_gen.core.errors import UsageError
from lit_gen.metrics.rouge import (
    Rouge,
    ascii_words,
    average,
    lcs_length,
    rouge_l,
    textbook_rouge_l,
    textbook_rouge_n,
    unicode_words,
)  # fmt: skip

words = str.split
NAMES = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
PAIRS = [
    ("Ein Hund läuft über die Wiese.", "Ein großer Hund rennt über eine grüne Wiese!"),
    ("The cat's hat: 1,000 mats?", "the cat s hat 1 000 mats"),
    ("", "something"),
    ("something", "..."),
    ("one", "one"),
    ("b a", "a b a b"),
]


def random_pairs(n: int) -> list[tuple[str, str]]:
    draw = random.Random(0)
    return [tuple(" ".join(draw.choices("abcdef", k=draw.randint(0, 15))) for _ in range(2)) for _ in range(n)]


def test_equals_rouge_score() -> None:
    ours, theirs = Rouge("ascii"), RougeScorer(list(NAMES.values()))
    for candidate, reference in [*PAIRS, *random_pairs(200)]:
        found, expected = ours(candidate, reference), theirs.score(reference, candidate)
        for name, their_name in NAMES.items():
            assert found[name] == pytest.approx(tuple(expected[their_name]), abs=1e-12), (name, candidate, reference)


def test_several_references_equal_rouge_score() -> None:
    ours, theirs = Rouge("ascii"), RougeScorer(list(NAMES.values()))
    texts = [text for pair in random_pairs(90) for text in pair]
    for candidate, *references in zip(texts[::3], texts[1::3], texts[2::3]):
        found, expected = ours(candidate, references), theirs.score_multi(references, candidate)
        for name, their_name in NAMES.items():
            assert found[name].f1 == pytest.approx(expected[their_name].fmeasure, abs=1e-12)


def test_corpus_average_lies_where_rouge_score_puts_it() -> None:
    ours, theirs, aggregator = Rouge("ascii"), RougeScorer(["rouge1"]), BootstrapAggregator(n_samples=2000)
    pairs, expected = random_pairs(100), []
    for candidate, reference in pairs:
        score = theirs.score(reference, candidate)
        aggregator.add_scores(score)
        expected.append(score["rouge1"])
    found = average([ours(*pair)["rouge_1"] for pair in pairs])
    assert found == pytest.approx(np.mean(expected, 0))
    np.random.seed(0)  # noqa: NPY002, rouge-score draws from it
    middle = aggregator.aggregate()["rouge1"].mid
    assert found == pytest.approx(tuple(middle), abs=3e-3)  # the median over their resampled corpora


def longest_by_search(a: str, b: str) -> int:
    def subsequences(text: str, length: int) -> set[tuple[str, ...]]:
        return set(combinations(text, length))

    return max(k for k in range(min(len(a), len(b)) + 1) if subsequences(a, k) & subsequences(b, k))


@pytest.mark.parametrize("seed", range(8))
def test_lcs_by_search(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(25):
        a, b = ("".join(draw.choices("xyz", k=draw.randint(0, 9))) for _ in range(2))
        assert lcs_length(a, b) == lcs_length(b, a) == longest_by_search(a, b)


def test_lcs_of_long_texts() -> None:
    # more tokens than a machine word has bits: every third number is shared
    assert lcs_length(range(0, 900, 3), [*range(0, 900, 2)]) == 150


def test_words() -> None:
    assert ascii_words("Füße, 2x!") == ["f", "e", "2x"]
    assert unicode_words("Füße, 2x!") == ["füße", "2x"]
    # one letter of one word is wrong: of four words, or of the eight pieces that rouge-score would see
    candidate, reference = "große grüne Füße laufen", "große grüne Füße liefen"
    assert Rouge("unicode")(candidate, reference)["rouge_1"].f1 == pytest.approx(3 / 4)
    assert Rouge("ascii")(candidate, reference)["rouge_1"].f1 == pytest.approx(6 / 7)
    assert Rouge("whitespace")("a Hut .", "a hut .")["rouge_1"].f1 == pytest.approx(2 / 3)


def test_example_of_the_paper() -> None:
    # Lin 2004, section 3: S2 and S3 against S1, by ROUGE-2 the same, by ROUGE-L not.
    s1, s2, s3, s4 = (
        words(text)
        for text in (
            "police killed the gunman", "police kill the gunman", "the gunman kill police", "the gunman police killed",
        )
    )  # fmt: skip
    assert [rouge_l(s, s1).f1 for s in (s2, s3, s4)] == pytest.approx([3 / 4, 2 / 4, 2 / 4])
    assert textbook_rouge_n(s2, [s1], 2) == textbook_rouge_n(s3, [s1], 2) == pytest.approx(1 / 3)


def test_textbook_recall_sums_over_the_references() -> None:
    candidate, references = words("the cat sat"), [words("the cat"), words("a cat sat down on it")]
    # unigrams: 2 of 2 and 2 of 6; bigrams: 1 of 1 and 1 of 5
    assert textbook_rouge_n(candidate, references, 1) == pytest.approx(4 / 8)
    assert textbook_rouge_n(candidate, references, 2) == pytest.approx(2 / 6)
    assert textbook_rouge_n(candidate, [["x"]], 2) == 0.0


def test_textbook_f_measure() -> None:
    candidate, reference = words("a b c d"), words("a c")  # LCS 2: recall 1, precision 1/2
    assert textbook_rouge_l(candidate, reference) == pytest.approx(2 / 3)
    assert textbook_rouge_l(candidate, reference, beta=2) == pytest.approx(5 * 0.5 / (1 + 4 * 0.5))
    assert textbook_rouge_l(candidate, ["x"]) == 0.0


def test_mistakes() -> None:
    with pytest.raises(UsageError, match="rouge_tokenization = 'moses'; accepted: ascii, unicode, whitespace"):
        Rouge("moses")
    with pytest.raises(UsageError, match="orders"):
        Rouge(orders=[0])
