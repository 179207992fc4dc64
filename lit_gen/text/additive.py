r"""Additive smoothing of n-gram counts (Lidstone's; Laplace's for delta = 1).

.. math:: p(w \mid h) = \frac{c(hw) + \delta}{c(h) + \delta\, |V|}

over the tokens V that can be predicted, with c(h) the sum of c(hw) over w. A history that was never seen says nothing: uniform.

References:
    Lidstone, Note on the general case of the Bayes-Laplace formula for inductive or a posteriori probabilities, Transactions
    of the Faculty of Actuaries 8, 1920.
    Chen and Goodman, An empirical study of smoothing techniques for language modeling, Computer Speech and Language 13, 1999,
    section 2.1.
"""

from __future__ import annotations

from typing import Any

from lit_gen.core.errors import require
from lit_gen.text.ngram_counts import NGramCounts
from lit_gen.text.ngram_table import Shares, Smoothing


class Additive(Smoothing):
    """Adds delta to every count of order N; lower orders have no part.

    Args:
        delta: what is added.

    Raises:
        UsageError: delta is not positive.
    """

    def __init__(self, delta: float = 1.0) -> None:
        require(delta > 0, "delta", delta, "delta > 0")
        self.delta = delta

    def shares(self, counts: NGramCounts) -> list[Shares]:
        *lower, level = counts.levels
        added = self.delta * (counts.size - 2)  # all but PAD and BOS
        total = level.total(level.count) + added
        return [*map(Shares.none, lower), Shares(level.count / total[level.parent], added / total)]

    def record(self, counts: NGramCounts) -> dict[str, Any]:
        return {"smoothing": "additive", "delta": self.delta}
