"""Corpus scores equal sacreBLEU's, in one process and in two, each sentence counted once."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
from metrics_processes import in_two_processes

from lit_gen.core.distributed import rank
from lit_gen.core.errors import UsageError
from lit_gen.metrics.translation import TranslationScores, detokenize

REFERENCES = [
    "Ein Mann mit einem orangefarbenen Hut, der etwas anstarrt.",
    "Ein Boston Terrier läuft über saftig-grünes Gras vor einem weißen Zaun.",
    "Ein Mädchen in einem Karateanzug bricht ein Brett mit einem Tritt.",
    "Fünf Leute in Winterjacken und mit Helmen stehen im Schnee.",
    "Leute reparieren das Dach eines Hauses.",
]
HYPOTHESES = [
    "Ein Mann mit einem orangen Hut starrt etwas an.",
    "Ein Boston Terrier läuft über Gras vor einem weißen Zaun.",
    "Ein Mädchen im Karateanzug bricht ein Brett mit einem Tritt.",
    "Fünf Leute in Winterjacken mit Helmen stehen im Schnee",
    "Leute reparieren das Dach eines Hauses.",
]


def scored(scores: TranslationScores, hypotheses: list[str], references: list) -> dict[str, float]:
    scores.reset()
    scores.update(hypotheses, references, range(len(hypotheses)))
    return scores.compute()


@pytest.mark.parametrize("tokenize", ["none", "13a", "intl", "char"])
@pytest.mark.parametrize("lowercase", [False, True])
def test_real_sentences_equal_sacrebleu(tokenize: str, lowercase: bool) -> None:
    scores = TranslationScores(tokenize, lowercase)
    found = scored(scores, HYPOTHESES, REFERENCES)
    bleu = sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES], tokenize=tokenize, lowercase=lowercase, force=True)
    chrf = sacrebleu.CHRF(lowercase=lowercase).corpus_score(HYPOTHESES, [REFERENCES])
    assert (found["bleu"], found["chrf"]) == (bleu.score, chrf.score)
    assert found["exact_match"] == 1 / 5
    report = scores.report()
    case = "lc" if lowercase else "mixed"
    version = sacrebleu.__version__
    expected = f"nrefs:1|case:{case}|eff:no|tok:{tokenize}|smooth:exp|version:{version}"
    assert report["bleu"]["signature"] == expected
    assert report["bleu"]["precisions"] == bleu.precisions
    assert report["chrf"]["signature"] == f"nrefs:1|case:{case}|eff:yes|nc:6|nw:0|space:no|version:{version}"


def test_random_sentences_with_several_references_equal_sacrebleu() -> None:
    draw = random.Random(0)

    def sentence() -> str:
        return " ".join(draw.choices("abcdefgh", k=draw.randint(1, 15)))

    hypotheses = [sentence() for _ in range(60)]
    references = [[sentence() for _ in range(3)] for _ in range(60)]
    streams = [[several[i] for several in references] for i in range(3)]
    found = scored(TranslationScores("none"), hypotheses, references)
    assert found["bleu"] == sacrebleu.corpus_bleu(hypotheses, streams, tokenize="none", force=True).score
    assert found["chrf"] == sacrebleu.corpus_chrf(hypotheses, streams).score


def test_order_and_repetition_do_not_matter() -> None:
    one, other = TranslationScores(), TranslationScores()
    one.update(HYPOTHESES, REFERENCES, range(5))
    for i in (4, 2, 0, 3, 1, 4, 0):
        other.update([HYPOTHESES[i]], [REFERENCES[i]], [i])
    assert one.compute() == other.compute()
    other.reset()
    other.update(REFERENCES, REFERENCES, range(5))
    assert other.compute() == pytest.approx(
        {"bleu": 100, "chrf": 100, "rouge_1": 1, "rouge_2": 1, "rouge_l": 1, "exact_match": 1}
    )


def test_case_and_white_space_in_exact_matches() -> None:
    assert scored(TranslationScores(), ["ein Hund ", "eine Wiese"], ["ein Hund", "Eine Wiese\n"])["exact_match"] == 0.5
    assert scored(TranslationScores(lowercase=True), ["ein hund", "x"], ["Ein Hund", "y"])["exact_match"] == 0.5


def dealt_with_padding() -> tuple[dict[str, float], dict[str, Any], list[int]]:
    """This rank's result where the ranks take turns and the last batch is padded with the first sentences."""
    scores = TranslationScores()
    mine = [*range(rank(), 5, 2), 0, 1]
    scores.update([HYPOTHESES[i] for i in mine], [REFERENCES[i] for i in mine], mine)
    alone = TranslationScores()
    if rank() == 0:
        alone.update(HYPOTHESES, REFERENCES, range(5))
    return scores.compute(), alone.report(), list(scores.sentences())


def test_two_processes_equal_one(tmp_path: Path) -> None:
    one = TranslationScores()
    expected = scored(one, HYPOTHESES, REFERENCES)
    for together, of_one_rank, numbers in in_two_processes(dealt_with_padding, tmp_path / "two"):
        assert together == expected
        assert of_one_rank == one.report()
        assert numbers == [0, 1, 2, 3, 4]


def test_detokenised() -> None:
    assert (
        detokenize("ein mann mit einem hut , der etwas anstarrt .", "de")
        == "ein mann mit einem hut, der etwas anstarrt."
    )
    assert detokenize("the dog &apos;s ball ( red ) .", "en") == "the dog's ball (red)."


def test_mistakes() -> None:
    with pytest.raises(UsageError, match="tokenize = 'moses'; accepted: 13a, char"):
        TranslationScores("moses")
    with pytest.raises(UsageError, match="smooth_method"):
        TranslationScores(smooth_method="some")
    with pytest.raises(ValueError, match="zip"):
        TranslationScores().update(["a"], ["a", "b"], [0])
    with pytest.raises(UsageError, match="no sentence"):
        TranslationScores().report()
