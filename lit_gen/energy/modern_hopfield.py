r"""The modern (dense, continuous) Hopfield network, whose recall is attention over the stored patterns.

The energy of a continuous state :math:`\xi` among patterns :math:`x_1 \ldots x_P`

.. math:: E(\xi) = -\tfrac1\beta \log \sum_\mu e^{\beta\, (x_\mu^T \xi + b_\mu)} + \tfrac12 \xi^T \xi + \tfrac1\beta \log P
                   + \tfrac12 \max_\mu \|x_\mu\|^2

is not raised by the update :math:`\xi \leftarrow X\, \mathrm{softmax}(\beta\, (X^T \xi + b))`, which recalls a well separated
pattern in one step. The number of random patterns that can be stored grows exponentially with their dimension.

With :math:`b_\mu = 0` this is the network of the paper. It compares by the dot product, which prefers long patterns: a dim
image may recall a bright one. With :math:`b_\mu = -\|x_\mu\|^2 / 2` it compares by the Euclidean distance; for patterns of
equal length (binary images) the two are the same.

References:
    Krotov and Hopfield, Dense associative memory for pattern recognition, NeurIPS 2016, arXiv:1606.01164.
    Demircigil et al., On a model of associative memory with huge storage capacity, Journal of Statistical Physics 168, 2017,
    arXiv:1702.01929.
    Ramsauer et al., Hopfield networks is all you need, ICLR 2021, arXiv:2008.02217, eqs. 2 and 3, theorems 1, 3 and 4.
    Millidge et al., Universal Hopfield networks, ICML 2022, arXiv:2202.04557 (other similarities).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from lit_gen.core.errors import require
from lit_gen.energy.associative_memory import AssociativeMemory


def modern_energy(state: Tensor, patterns: Tensor, beta: float, bias: Tensor | None = None) -> Tensor:
    """Energy of states ``[B, N]`` among patterns ``[P, N]`` with a bias ``[P]`` (0 where None): ``[B]``."""
    score = state @ patterns.mT if bias is None else state @ patterns.mT + bias
    constant = math.log(len(patterns)) / beta + 0.5 * patterns.square().sum(-1).max()
    return 0.5 * state.square().sum(-1) - torch.logsumexp(beta * score, -1) / beta + constant


def modern_update(state: Tensor, patterns: Tensor, beta: float, bias: Tensor | None = None) -> Tensor:
    """One update of states ``[B, N]`` among patterns ``[P, N]`` with a bias ``[P]`` or ``[B, P]``: ``[B, N]``."""
    score = state @ patterns.mT if bias is None else state @ patterns.mT + bias
    return torch.softmax(beta * score, -1) @ patterns


class ModernHopfieldNetwork(AssociativeMemory):
    """Modern Hopfield network whose N continuous units are the pixels, centred to [-1, 1].

    Args:
        beta: inverse temperature: large recalls single patterns, small their means. The paper's attention has 1 / sqrt(N).
        similarity: ``euclidean`` distance to the patterns or ``dot`` product with them.
        steps: updates in one recall.
        **kwargs: as in :class:`AssociativeMemory`.

    Raises:
        UsageError: a hyper-parameter is out of range.

    References:
        Ramsauer et al., Hopfield networks is all you need, ICLR 2021, arXiv:2008.02217.
    """

    def __init__(
        self,
        beta: float = 1.0,
        similarity: Literal["euclidean", "dot"] = "euclidean",
        steps: int = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require(beta > 0, "beta", beta, "beta > 0")
        require(similarity in ("euclidean", "dot"), "similarity", similarity, "euclidean, dot")
        require(steps >= 1, "steps", steps, "an integer of 1 or more")
        self.beta, self.similarity, self.steps = beta, similarity, steps

    def bias(self, known: Tensor | None = None) -> Tensor | None:
        """What is added to the dot products: ``[P]``, or ``[B, P]`` where some units ``[B, N]`` alone are known."""
        if self.similarity == "dot":
            return None
        squares = self.memories.square()
        return -0.5 * (squares.sum(-1) if known is None else known.to(squares.dtype) @ squares.mT)

    def recall(self, state: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if int(self.count):
            for _ in range(self.steps):
                state = modern_update(state, self.memories, self.beta, self.bias())
        return state

    def fill(self, state: Tensor, known: Tensor, generator: torch.Generator | None = None) -> Tensor:
        seen = torch.where(known, state, 0.0)
        if not int(self.count):
            return seen
        # The first step compares the known units alone; then the others have values to be compared as well.
        filled = torch.where(known, state, modern_update(seen, self.memories, self.beta, self.bias(known)))
        for _ in range(self.steps - 1):
            filled = torch.where(known, state, modern_update(filled, self.memories, self.beta, self.bias()))
        return filled

    def energy(self, image: Tensor) -> Tensor:
        """Energy of images ``[B, C, H, W]`` among the stored patterns, ``[B]``."""
        return modern_energy(self.encode(image), self.memories, self.beta, self.bias())

    def estimator(self) -> dict[str, Any]:
        return {**super().estimator(), "beta": self.beta, "similarity": self.similarity, "steps": self.steps}
