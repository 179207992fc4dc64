"""Means over seeds with their intervals, and paired comparisons on the same test items."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from lit_gen.core.errors import require

LEVEL = 0.95


@dataclass(frozen=True)
class Summary:
    """Values over seeds.

    Args:
        n: number of seeds.
        mean: over them.
        std: sample standard deviation (ddof = 1); None for one seed.
        half_width: of the t-based 95 % interval of the mean; None for one seed.
    """

    n: int
    mean: float
    std: float | None
    half_width: float | None


def summary(values: Sequence[float]) -> Summary:
    r"""Mean, sample standard deviation and :math:`t_{0.975, n-1}\, s / \sqrt n`.

    Raises:
        UsageError: there is no value.
    """
    require(len(values) > 0, "values", list(values), "at least one")
    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1:
        return Summary(1, mean, None, None)
    from scipy.stats import t  # half a second

    std = statistics.stdev(values)
    return Summary(n, mean, std, float(t.ppf((1 + LEVEL) / 2, n - 1)) * std / math.sqrt(n))


def separated(a: Summary, b: Summary) -> bool:
    """Whether the means of two rows differ by more than chance over seeds: Welch's 95 % interval of the difference excludes 0.

    One seed has no spread: with it on either side any difference counts.

    References:
        Welch, The generalization of Student's problem when several different population variances are involved,
        Biometrika 34, 1947.
    """
    gap = abs(a.mean - b.mean)
    if a.std is None or b.std is None:
        return gap > 0
    parts = [summary.std**2 / summary.n for summary in (a, b)]
    if sum(parts) == 0:
        return gap > 0
    from scipy.stats import t

    freedom = sum(parts) ** 2 / sum(part**2 / (summary.n - 1) for part, summary in zip(parts, (a, b)))
    return gap > float(t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(sum(parts))


@dataclass(frozen=True)
class Comparison:
    """A row against the baseline on the same test items.

    Args:
        row: the row.
        baseline: the other row.
        column: what is compared.
        difference: row minus baseline.
        error: its standard error over the items; None where the test gives none.
        p: two-sided p value.
        n: items.
        method: of the test.
    """

    row: str
    baseline: str
    column: str
    difference: float
    error: float | None
    p: float
    n: int
    method: str


def paired_difference(values: Sequence[float], baseline: Sequence[float]) -> tuple[float, float, float]:
    """Mean of the differences item by item, its standard error, and the p value of the paired t-test.

    Differences that are all equal have no error, and p is 1 where they are zero, else 0.

    Args:
        values: of n items.
        baseline: of the same items in the same order.

    Raises:
        UsageError: the items are not as many, or fewer than two.
    """
    require(len(values) == len(baseline), "items", f"{len(values)} and {len(baseline)}", "as many of both rows")
    require(len(values) >= 2, "items", len(values), "two or more")
    from scipy.stats import t

    differences = [a - b for a, b in zip(values, baseline)]
    mean, n = math.fsum(differences) / len(differences), len(differences)
    error = statistics.stdev(differences) / math.sqrt(n)
    if error == 0:
        return mean, 0.0, 1.0 if mean == 0 else 0.0
    return mean, error, float(2 * t.sf(abs(mean) / error, n - 1))


def paired_bleu(
    hypotheses: Sequence[str], baseline: Sequence[str], references: Sequence[str], tokenize: str, trials: int = 10_000
) -> tuple[float, float, float]:
    """sacreBLEU's paired approximate randomisation test of two systems.

    Args:
        hypotheses, baseline: translations of the same sentences.
        references: one for each.
        tokenize: sacreBLEU's tokeniser.
        trials: of the randomisation.

    Returns:
        BLEU of both, and the p value.

    Raises:
        UsageError: they differ in number.

    References:
        Riezler and Maxwell, On some pitfalls in automatic evaluation and significance testing for MT, 2005. Post, A call for
        clarity in reporting BLEU scores, WMT 2018, arXiv:1804.08771.
    """
    counts = {len(hypotheses), len(baseline), len(references)}
    require(len(counts) == 1, "sentences", sorted(counts), "as many of both rows as references")
    from sacrebleu.metrics import BLEU
    from sacrebleu.significance import PairedTest

    systems = [("baseline", list(baseline)), ("row", list(hypotheses))]
    metrics = {"BLEU": BLEU(tokenize=tokenize, force=True, references=[list(references)])}
    _, scores = PairedTest(systems, metrics, references=None, test_type="ar", n_samples=trials)()
    other, own = scores["BLEU"]
    # it counts the shuffles with a larger difference, of which there are none where all are zero
    return own.score, other.score, 1.0 if list(hypotheses) == list(baseline) else float(own.p_value)


def bootstrap_bleu(hypotheses: Sequence[str], references: Sequence[str], tokenize: str, samples: int = 1000) -> float:
    """Half the width of sacreBLEU's 95 % bootstrap interval of BLEU over sentences.

    References:
        Koehn, Statistical significance tests for machine translation evaluation, EMNLP 2004.
    """
    from sacrebleu.metrics import BLEU

    score = BLEU(tokenize=tokenize, force=True).corpus_score(list(hypotheses), [list(references)], n_bootstrap=samples)
    return float(score._ci)
