"""Ancestral sampling, with temperature, of the whole distribution or of its head."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gen.core.errors import require
from lit_gen.core.random import seeded_generator
from lit_gen.text.decoding.one_path import most_probable

CHUNK = 64
"""Steps for which uniform numbers are drawn at once."""


class Sampler:
    r"""Chooses the next token at random.

    .. math:: q(v) \propto \exp(\ell_v / T) \quad \text{for } v \text{ in the head}

    The head is made of the k most probable tokens (top-k), and of them the smallest set whose probability, under the
    tempered and renormalised distribution, is p or more (top-p, the nucleus).

    A token is found by inverting the distribution function at one uniform number that belongs to (seed, row, step):
    what a row becomes does not depend on which rows are decoded with it.

    Args:
        seed: of the uniform numbers.
        rows: the numbers by which the rows to be decoded are known, in their order.
        temperature: T; 0 takes the most probable token.
        top_k: size of the head; None for all tokens.
        top_p: probability of the head; None or 1 for all of it.

    Raises:
        UsageError: an option out of range.

    References:
        Fan et al., Hierarchical neural story generation, ACL 2018, https://arxiv.org/abs/1805.04833, section 5.4
        (top-k). Holtzman et al., The curious case of neural text degeneration, ICLR 2020,
        https://arxiv.org/abs/1904.09751, section 3.1 (top-p).
    """

    def __init__(
        self,
        seed: int,
        rows: list[int] | range,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> None:
        require(0 <= temperature < float("inf"), "temperature", temperature, "a number of 0 or more")
        require(top_k is None or top_k >= 1, "top_k", top_k, "1 or more")
        require(top_p is None or 0 < top_p <= 1, "top_p", top_p, "more than 0, at most 1")
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self.generators = [seeded_generator(seed, "sampling", row) for row in rows]

    def __call__(self, logits: Tensor, first: int, rows: Tensor, step: int) -> Tensor:
        """See :class:`Choice`; ``rows`` are places in the list of rows that the sampler was made for."""
        if self.temperature == 0:
            return most_probable(logits, first, rows, step)
        if step % CHUNK == 0:
            self.uniform = torch.stack(
                [torch.rand(CHUNK, generator=each, dtype=torch.float64) for each in self.generators]
            ).to(logits.device)
        return self.invert(logits[:, first:], self.uniform[rows, step % CHUNK]) + first

    def invert(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """The tokens of logits ``[R, V]`` at which the distribution function exceeds ``uniform [R]``, float64."""
        index = None
        if self.top_k is not None and self.top_k < logits.shape[1]:
            logits, index = logits.topk(self.top_k)
        elif self.top_p is not None and self.top_p < 1:
            logits, index = logits.sort(-1, descending=True)
        if self.temperature != 1:
            logits = (logits - logits.amax(-1, keepdim=True)) / self.temperature
        mass = logits.softmax(-1).cumsum(-1, dtype=torch.float64)
        last = mass[:, -1:]
        if self.top_p is not None and self.top_p < 1:
            # the head ends with the first token that brings the probability to p; sums of rounded numbers may miss it
            # by 1e-7
            reaches = (mass < (self.top_p - 1e-7) * last).sum(-1, keepdim=True)
            last = mass.gather(1, reaches.clamp(max=mass.shape[1] - 1))
        place = torch.searchsorted(mass, uniform.unsqueeze(1) * last, right=True).clamp(max=mass.shape[1] - 1)
        return (place if index is None else index.gather(1, place)).squeeze(1)
