r"""Interpolated Kneser-Ney smoothing of n-gram counts, modified (three discounts) or plain (one).

.. math::
    p_k(w \mid h) = \frac{a(hw) - D_k(a(hw))}{\sum_v a(hv)} + \gamma_k(h)\, p_{k-1}(w \mid h'), \qquad
    \gamma_k(h) = \frac{\sum_v D_k(a(hv))}{\sum_v a(hv)}

where a is the count at the highest order and the number of different tokens before the k-gram (continuation count) at the
lower ones, D(0) = 0, and :math:`p_0` is uniform over the tokens that can be predicted. From :math:`n_i`, the number of
k-grams with a = i, the discounts are estimated at each order as

.. math:: D(i) = i - (i + 1)\, Y\, \frac{n_{i+1}}{n_i}, \qquad Y = \frac{n_1}{n_1 + 2 n_2}

for i = 1, 2, 3 and D(3) for all larger counts in the modified form, and D = Y for all counts in the plain one.

References:
    Kneser and Ney, Improved backing-off for m-gram language modeling, ICASSP 1995.
    Chen and Goodman, An empirical study of smoothing techniques for language modeling, Computer Speech and Language 13, 1999,
    sections 2.7 and 3 (equations 17, 26).
    Heafield et al., Scalable modified Kneser-Ney language model estimation, ACL 2013 (the fallback: KenLM's
    ``--discount_fallback``).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from lit_gen.core.errors import require
from lit_gen.text.ngram_counts import NGramCounts
from lit_gen.text.ngram_table import Shares, Smoothing

FALLBACK = {"modified": (0.5, 1.0, 1.5), "estimated": (0.5, 0.5, 0.5)}
"""D(1), D(2), D(3) where they cannot be estimated: some count of counts is zero, or an estimate leaves (0, i]."""


class KneserNey(Smoothing):
    """Interpolated Kneser-Ney smoothing. Unigrams are discounted like every order, in favour of the uniform distribution.

    NLTK's ``KneserNeyInterpolated`` is this with a fixed discount (0.1 where none is given), except that it leaves unigrams
    undiscounted, so that a token never seen has probability zero, and that its own padding also predicts the padding.

    Args:
        discounts: "modified": three for each order, estimated; "estimated": one for each order, estimated; a number:
            that one for all orders.

    Raises:
        UsageError: neither of these, or a number outside (0, 1].
    """

    def __init__(self, discounts: Literal["modified", "estimated"] | float = "modified") -> None:
        valid = discounts in FALLBACK if isinstance(discounts, str) else 0 < discounts <= 1
        require(valid, "discounts", discounts, "modified, estimated, or a number with 0 < number <= 1")
        self.discounts = discounts

    def evidence(self, counts: NGramCounts, depth: int) -> Tensor:
        """a of the k-grams of depth k: counts at the highest order, continuation counts below, int64 ``[n]``."""
        return counts.levels[-1].count if depth == counts.order else counts.continuations(depth)

    def estimate(self, evidence: Tensor) -> tuple[float, float, float]:
        """D(1), D(2) and D(3), the last for all counts of three and more."""
        if not isinstance(self.discounts, str):
            return (self.discounts,) * 3
        n1, n2, n3, n4 = (int((evidence == i).sum()) for i in (1, 2, 3, 4))
        modified = self.discounts == "modified"
        if min((n1, n2, n3, n4) if modified else (n1, n2)) == 0:
            return FALLBACK[self.discounts]
        y = n1 / (n1 + 2 * n2)
        if not modified:
            return (y,) * 3
        values = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        return values if all(0 < value <= i for i, value in enumerate(values, start=1)) else FALLBACK["modified"]

    def shares(self, counts: NGramCounts) -> list[Shares]:
        shares = []
        for depth, level in enumerate(counts.levels, start=1):
            a = self.evidence(counts, depth)
            discount = a.new_tensor((0.0, *self.estimate(a)), dtype=torch.float64)[a.clamp(max=3)]
            total, removed = level.total(a), level.total(discount)
            never = total == 0  # a history that only the padding before the text has
            seen = (a - discount) / total.masked_fill(never, 1)[level.parent]
            shares.append(Shares(seen, torch.where(never, 1.0, removed / total)))
        return shares

    def record(self, counts: NGramCounts) -> dict[str, Any]:
        estimates = [self.estimate(self.evidence(counts, depth)) for depth in range(1, counts.order + 1)]
        return {"smoothing": "Kneser-Ney", "discounts": self.discounts, "discounts_of_orders": estimates}
