"""Length penalties: what divides the log-probability of a hypothesis when hypotheses of different lengths are compared.

Without one, beam search prefers short outputs, since every token lowers the log-probability. Lengths count eos.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from lit_gen.core.errors import require


class LengthPenalty(ABC):
    r"""A positive function of the length that does not fall: :math:`\mathrm{score}(y) = \log p(y \mid x) / lp(|y|)`.

    Args:
        alpha: strength; 0 compares the plain log-probabilities.

    Raises:
        UsageError: a negative or infinite alpha, under which a longer hypothesis could have the smaller divisor and the
        search's bound
            on unfinished hypotheses would not hold.
    """

    def __init__(self, alpha: float) -> None:
        require(0 <= alpha < float("inf"), "alpha", alpha, "a number of 0 or more")
        self.alpha = alpha

    @abstractmethod
    def __call__(self, length: Tensor | float) -> Tensor | float:
        """The divisor of a length, or of each of a tensor of lengths."""


class GNMTPenalty(LengthPenalty):
    r"""Google's penalty:

    .. math:: lp(y) = \left( \frac{5 + |y|}{5 + 1} \right)^\alpha

    References:
        Wu et al., Google's neural machine translation system, 2016, https://arxiv.org/abs/1609.08144, equation 14.
    """

    def __call__(self, length: Tensor | float) -> Tensor | float:
        return ((5 + length) / 6) ** self.alpha


class PowerPenalty(LengthPenalty):
    r"""A power of the length; with :math:`\alpha = 1` the score is the mean log-probability of a token.

    .. math:: lp(y) = |y|^\alpha
    """

    def __call__(self, length: Tensor | float) -> Tensor | float:
        return length**self.alpha


PENALTIES: dict[str, type[LengthPenalty]] = {"gnmt": GNMTPenalty, "power": PowerPenalty}
