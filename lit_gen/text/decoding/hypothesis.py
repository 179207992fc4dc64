"""What decoding finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hypothesis:
    """One sequence that a model was made to say.

    Args:
        tokens: what was said, without bos and eos.
        log_probability: the model's :math:`\\log p(y \\mid x)` in nats, eos counted where there is one, nothing
            renormalised: neither temperature nor truncation nor what decoding forbids (pad, bos, an early eos) enters.
        score: what hypotheses are ranked by: the log-probability over the length penalty.
        finished: whether eos was said; False where the maximum length cut the sequence off.
    """

    tokens: tuple[int, ...]
    log_probability: float
    score: float
    finished: bool

    @property
    def length(self) -> int:
        """Number of predicted tokens: lengths in decoding count eos."""
        return len(self.tokens) + self.finished
