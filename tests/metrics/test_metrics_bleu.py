"""BLEU as in its paper: worked examples, and sacreBLEU without smoothing and without a tokeniser."""

from __future__ import annotations

import math
import random

import pytest
import sacrebleu

from lit_gen.metrics.textbook_bleu import brevity_penalty, effective_length, modified_precision, textbook_bleu

words = str.split
THE_SEVEN_TIMES = words("the the the the the the the")
CAT_ON_MAT = [words("the cat is on the mat"), words("there is a cat on the mat")]


def test_the_seven_times() -> None:
    # Papineni et al. 2002, example 2: "the" is clipped to the two of the first reference.
    assert modified_precision([THE_SEVEN_TIMES], [CAT_ON_MAT], 1) == (2, 7)
    assert modified_precision([THE_SEVEN_TIMES], [CAT_ON_MAT], 2) == (0, 6)
    assert textbook_bleu([THE_SEVEN_TIMES], [CAT_ON_MAT], max_order=1) == pytest.approx(2 / 7)
    assert textbook_bleu([THE_SEVEN_TIMES], [CAT_ON_MAT], max_order=2) == 0.0


def test_example_worked_by_hand() -> None:
    # "the cat sat on the mat": unigrams the cat on the mat 5/6, bigrams "the cat", "on the", "the mat" 3/5; BP 1 (6 of 6)
    candidate = [words("the cat sat on the mat")]
    assert modified_precision(candidate, [CAT_ON_MAT], 1) == (5, 6)
    assert modified_precision(candidate, [CAT_ON_MAT], 2) == (3, 5)
    assert textbook_bleu(candidate, [CAT_ON_MAT], max_order=2) == pytest.approx(math.sqrt(5 / 6 * 3 / 5))
    # one token fewer than the reference costs exp(1 - 6/5): "the cat is on the"
    short = [CAT_ON_MAT[0][:5]]
    assert textbook_bleu(short, [CAT_ON_MAT[:1]]) == pytest.approx(math.exp(1 - 6 / 5))


def test_first_example_of_the_paper() -> None:
    # Papineni et al. 2002, example 1: modified unigram precision 17/18 for the good candidate, 8/14 for the other one.
    good = words("it is a guide to action which ensures that the military always obeys the commands of the party")
    bad = words("it is to insure the troops forever hearing the activity guidebook that party direct")
    references = [
        words("it is a guide to action that ensures that the military will forever heed party commands"),
        words(
            "it is the guiding principle which guarantees the military forces always being under the command of the party"
        ),
        words("it is the practical guide for the army always to heed the directions of the party"),
    ]
    assert modified_precision([good], [references], 1) == (17, 18)
    assert modified_precision([good], [references], 2) == (10, 17)
    assert modified_precision([bad], [references], 1) == (8, 14)
    assert modified_precision([bad], [references], 2) == (1, 13)


@pytest.mark.parametrize(
    ("lengths", "candidate", "expected"), [((12, 15, 17), 12, 12), ((4, 8), 6, 4), ((9, 8), 6, 8), ((3, 20), 11, 3)]
)
def test_closest_reference_length(lengths: tuple[int, ...], candidate: int, expected: int) -> None:
    assert effective_length([["x"] * candidate], [[["x"] * length for length in lengths]]) == expected


def test_brevity_penalty() -> None:
    assert brevity_penalty(10, 9) == brevity_penalty(10, 10) == 1.0
    assert brevity_penalty(5, 10) == pytest.approx(math.exp(-1))
    assert brevity_penalty(0, 3) == 0.0


@pytest.mark.parametrize("seed", range(6))
def test_equals_unsmoothed_sacrebleu(seed: int) -> None:
    draw = random.Random(seed)

    def sentence() -> list[str]:
        return draw.choices("abc", k=draw.randint(1, 12))

    candidates = [sentence() for _ in range(20)]
    references = [[sentence() for _ in range(2)] for _ in range(20)]
    streams = [[" ".join(several[i]) for several in references] for i in range(2)]
    expected = sacrebleu.corpus_bleu(
        [" ".join(candidate) for candidate in candidates], streams, tokenize="none", smooth_method="none", force=True
    )
    assert expected.score > 0
    assert 100 * textbook_bleu(candidates, references) == pytest.approx(expected.score, rel=1e-12)


def test_without_references() -> None:
    with pytest.raises(ValueError, match="1 candidates need"):
        textbook_bleu([["a"]], [[]])
