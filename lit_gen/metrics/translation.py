"""Corpus scores of generated text against references: BLEU and chrF by sacreBLEU, ROUGE, exact matches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from torchmetrics import Metric

from lit_gen.core.distributed import world_size
from lit_gen.core.errors import UsageError, require
from lit_gen.metrics.rouge import Rouge, average

if TYPE_CHECKING:
    from sacremoses import MosesDetokenizer

References = Sequence[str] | Sequence[Sequence[str]]


class TranslationScores(Metric):
    """Collects sentences over all processes, each once by its number, and scores them as one corpus.

    BLEU and chrF run from 0 to 100 as sacreBLEU gives them, ROUGE (F1) and exact matches from 0 to 1. The order in which
    sentences came, and the process on which, change nothing; a sentence given twice (a padded last batch) counts once.

    Args:
        tokenize: sacreBLEU's tokeniser for BLEU: "none" for text that is tokenised, "13a", "intl", "char", "zh", ...
        lowercase: whether BLEU, chrF and exact matches ignore case (ROUGE does, but by white space).
        smooth_method: sacreBLEU's smoothing for BLEU.
        chrf_word_order: 0 for chrF, 2 for chrF++.
        rouge_tokenization: "unicode", "whitespace", or "ascii" for what the package rouge-score gives.

    Raises:
        UsageError: a tokeniser or a smoothing that sacreBLEU does not have.

    References:
        Post, A Call for Clarity in Reporting BLEU Scores, WMT 2018, arXiv:1804.08771. Popović, chrF: character n-gram
        F-score for automatic MT evaluation, WMT 2015, aclanthology.org/W15-3049.
    """

    full_state_update = False

    def __init__(
        self,
        tokenize: str = "13a",
        lowercase: bool = False,
        smooth_method: str = "exp",
        chrf_word_order: int = 0,
        rouge_tokenization: str = "unicode",
    ) -> None:
        super().__init__(sync_on_compute=False)
        from sacrebleu import BLEU, CHRF  # a third of a second, for translation only

        require(tokenize in BLEU.TOKENIZERS, "tokenize", repr(tokenize), ", ".join(sorted(BLEU.TOKENIZERS)))
        require(
            smooth_method in BLEU.SMOOTH_DEFAULTS, "smooth_method", repr(smooth_method), ", ".join(BLEU.SMOOTH_DEFAULTS)
        )
        require(chrf_word_order >= 0, "chrf_word_order", chrf_word_order, "0 or more")
        # force: no warning that the text looks tokenised; it may be
        self._bleu = BLEU(lowercase=lowercase, tokenize=tokenize, smooth_method=smooth_method, force=True)
        self._chrf = CHRF(lowercase=lowercase, word_order=chrf_word_order)
        self.rouge = Rouge(rouge_tokenization)
        self._plain = str.casefold if lowercase else str
        self._sentences: dict[int, tuple[str, tuple[str, ...]]] = {}

    def update(self, hypotheses: Sequence[str], references: References, index: Sequence[int]) -> None:
        """Adds sentences.

        Args:
            hypotheses: n texts; white space around a text does not count.
            references: of each one a text, or several.
            index: the number of each sentence in its corpus.

        Raises:
            ValueError: the three differ in length.
        """
        for hypothesis, reference, number in zip(hypotheses, references, index, strict=True):
            several = (reference,) if isinstance(reference, str) else tuple(reference)
            self._sentences[int(number)] = (hypothesis.strip(), tuple(each.strip() for each in several))

    def reset(self) -> None:
        super().reset()
        self._sentences = {}

    def sentences(self) -> dict[int, tuple[str, tuple[str, ...]]]:
        """Hypothesis and references of all processes by number, in order. Every process must call it."""
        parts: list[dict] = [self._sentences]
        if world_size() > 1:
            parts = [{}] * world_size()
            dist.all_gather_object(parts, self._sentences)
        together = {number: pair for part in parts for number, pair in part.items()}
        return dict(sorted(together.items()))

    def compute(self) -> dict[str, float]:
        """``bleu``, ``chrf``, ``rouge_1``, ``rouge_2``, ``rouge_l``, ``exact_match``; every process must call it.

        Raises:
            UsageError: no process has a sentence.
        """
        return {name: entry["value"] for name, entry in self.report().items()}

    def report(self) -> dict[str, dict[str, Any]]:
        """The values of :meth:`compute` with how each was made: signatures, precisions, lengths. Every process must call it.

        Raises:
            UsageError: no process has a sentence.
        """
        sentences = list(self.sentences().values())
        if not sentences:
            raise UsageError("there is no sentence to score: the split is empty")
        hypotheses, references = [h for h, _ in sentences], [r for _, r in sentences]
        streams = [[r[i] if i < len(r) else None for r in references] for i in range(max(map(len, references)))]
        bleu, chrf = (metric.corpus_score(hypotheses, streams) for metric in (self._bleu, self._chrf))
        report: dict[str, dict[str, Any]] = {
            "bleu": {
                "value": bleu.score,
                "signature": str(self._bleu.get_signature()),
                "precisions": list(bleu.precisions),
                "brevity_penalty": bleu.bp,
                "hypothesis_length": bleu.sys_len,
                "reference_length": bleu.ref_len,
            },
            "chrf": {"value": chrf.score, "signature": str(self._chrf.get_signature())},
        }
        scores = [self.rouge(hypothesis, several) for hypothesis, several in zip(hypotheses, references)]
        for name in scores[0]:
            precision, recall, f1 = average([score[name] for score in scores])
            tokenization = self.rouge.tokenization
            report[name] = {"value": f1, "precision": precision, "recall": recall, "tokenization": tokenization}
        matches = sum(
            self._plain(hypothesis) in map(self._plain, several) for hypothesis, several in zip(hypotheses, references)
        )
        report["exact_match"] = {"value": matches / len(sentences)}
        for entry in report.values():
            entry["n"] = len(sentences)
        return report


def detokenize(text: str, language: str) -> str:
    """Joins what the Moses tokeniser has split: "hut , der" becomes "hut, der", ``&apos;`` an apostrophe.

    Args:
        text: tokens with spaces between them.
        language: its two-letter code, e.g. "de".
    """
    return _detokenizer(language).detokenize(text.split())


@lru_cache(maxsize=8)
def _detokenizer(language: str) -> "MosesDetokenizer":
    from sacremoses import MosesDetokenizer

    return MosesDetokenizer(lang=language)
