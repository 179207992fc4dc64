"""BLEU as the equations of its paper state it, on tokens as given; for scores to report there is ``TranslationScores``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from lit_gen.metrics.rouge import Tokens, ngrams


def textbook_bleu(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]], max_order: int = 4) -> float:
    r"""BLEU-N of a corpus, or of one sentence, without smoothing.

    .. math:: \mathrm{BLEU} = \mathrm{BP} \cdot \exp \sum_{n=1}^N \frac1N \log p_n, \qquad
        \mathrm{BP} = \begin{cases} 1 & c > r \\ e^{1 - r/c} & c \le r \end{cases}

    with the modified precisions :math:`p_n` and the lengths of :func:`modified_precision` and :func:`effective_length`.
    Where one precision is zero, or there is no n-gram of that order, so is BLEU; scorers that smooth give a positive
    number there, and those that tokenise for themselves another one.

    Args:
        candidates: tokens of each sentence.
        references: of each sentence, one or more token sequences.
        max_order: N.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: not as many sets of references as candidates, or a set that is empty.

    References:
        Papineni et al., BLEU: a Method for Automatic Evaluation of Machine Translation, ACL 2002,
        aclanthology.org/P02-1040, section 2.3.
    """
    if len(candidates) != len(references) or not all(references):
        raise ValueError(f"{len(candidates)} candidates need as many non-empty sets of references")
    precisions = [modified_precision(candidates, references, n) for n in range(1, max_order + 1)]
    if any(matches == 0 for matches, _ in precisions):
        return 0.0
    mean_log = sum(math.log(matches / total) for matches, total in precisions) / max_order
    return brevity_penalty(sum(map(len, candidates)), effective_length(candidates, references)) * math.exp(mean_log)


def modified_precision(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]], n: int) -> tuple[int, int]:
    r"""Numerator and denominator of :math:`p_n`: a candidate's n-gram counts as often as one reference has it, at most.

    .. math:: p_n = \frac{\sum_C \sum_{g \in C} \min(\#_C(g), \max_R \#_R(g))}{\sum_C \sum_{g \in C} \#_C(g)}

    References:
        Papineni et al. 2002, section 2.1.
    """
    matches = total = 0
    for candidate, several in zip(candidates, references):
        found, most = ngrams(candidate, n), Counter()
        for reference in several:
            most |= ngrams(reference, n)
        matches += (found & most).total()
        total += found.total()
    return matches, total


def effective_length(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> int:
    """r: over the corpus, the length of the reference closest in length to each candidate; of two as close, the shorter.

    References:
        Papineni et al. 2002, section 2.2.2.
    """
    return sum(
        min(map(len, several), key=lambda length: (abs(length - len(candidate)), length))
        for candidate, several in zip(candidates, references)
    )


def brevity_penalty(c: int, r: int) -> float:
    """1 for candidates of more than r tokens in all, exp(1 - r / c) for c tokens or fewer; 0 for none."""
    if c > r:
        return 1.0
    return math.exp(1 - r / c) if c else 0.0
