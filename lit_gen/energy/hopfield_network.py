"""The classical Hopfield network as a model of images: each binarised pixel is a unit."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from lit_gen.core.errors import require
from lit_gen.core.images import ImageSpec
from lit_gen.energy.associative_memory import AssociativeMemory
from lit_gen.energy.hopfield import Recall, energy, hebbian, pseudo_inverse, recall_asynchronous, recall_synchronous


class HopfieldNetwork(AssociativeMemory):
    """Hopfield network whose N units are the pixels: +1 above the middle of the range, -1 else.

    Couplings are kept without the factor 1/N of the Hebbian rule, as Hopfield writes them: integers, so that storing in
    parts is storing at once to the last bit. Images are correlated patterns, of which the Hebbian rule holds few: the
    pseudo-inverse rule stores any N - 1 or fewer that are linearly independent.

    Args:
        rule: hebbian, or pseudo_inverse (the projection on the patterns).
        update: of one unit after the other (asynchronous) or of all at once (synchronous).
        order: of asynchronous updates; a random one is drawn anew for each sweep.
        sweeps: largest number of updates of the whole network in one recall.
        **kwargs: as in :class:`AssociativeMemory`.

    Raises:
        UsageError: a hyper-parameter is out of range, or more patterns than units with the pseudo-inverse rule.

    References:
        Hopfield, Neural networks and physical systems with emergent collective computational abilities, PNAS 79, 1982.
        Personnaz, Guyon and Dreyfus, Journal de Physique Lettres 46, 1985.
    """

    def __init__(
        self,
        rule: Literal["hebbian", "pseudo_inverse"] = "hebbian",
        update: Literal["asynchronous", "synchronous"] = "asynchronous",
        order: Literal["systematic", "random"] = "systematic",
        sweeps: int = 100,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require(rule in ("hebbian", "pseudo_inverse"), "rule", rule, "hebbian, pseudo_inverse")
        require(update in ("asynchronous", "synchronous"), "update", update, "asynchronous, synchronous")
        require(order in ("systematic", "random"), "order", order, "systematic, random")
        require(sweeps >= 1, "sweeps", sweeps, "an integer of 1 or more")
        self.rule, self.update, self.order, self.sweeps = rule, update, order, sweeps

    def build_networks(self, spec: ImageSpec) -> None:
        if self.rule == "pseudo_inverse":
            require(
                self.patterns < spec.dim, "patterns", self.patterns, f"fewer than the {spec.dim} units, for this rule"
            )
        super().build_networks(spec)
        self.register_buffer("weight", torch.zeros(spec.dim, spec.dim))

    def encode(self, image: Tensor) -> Tensor:
        return torch.where(super().encode(image) > 0, 1.0, -1.0)

    def learn(self, new: Tensor) -> None:
        if self.rule == "hebbian":
            self.weight += hebbian(new, normalise=False)
        else:
            self.weight.copy_(pseudo_inverse(self.memories.cpu()))  # in float64, which not every device has

    def recall(self, state: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.settle(state, None, generator).state

    def fill(self, state: Tensor, known: Tensor, generator: torch.Generator | None = None) -> Tensor:
        seen = torch.where(known, state, 0.0)
        field = seen @ self.weight  # hidden units start where the known ones want them
        start = torch.where(known, state, torch.where(field > 0, 1.0, -1.0))
        return self.settle(start, ~known, generator).state

    def settle(self, state: Tensor, free: Tensor | None = None, generator: torch.Generator | None = None) -> Recall:
        """Recall from states ``[B, N]``; units that are not free (bool ``[B, N]``) are clamped."""
        if self.update == "synchronous":
            return recall_synchronous(self.weight, state, None, free, self.sweeps)
        return recall_asynchronous(self.weight, state, None, free, self.sweeps, self.order, generator)

    def energy(self, image: Tensor) -> Tensor:
        """Energy of images ``[B, C, H, W]`` as ``[B]``, with the factor 1/N in the Hebbian couplings."""
        scale = self.spec.dim if self.rule == "hebbian" else 1
        return energy(self.encode(image), self.weight) / scale

    def estimator(self) -> dict[str, Any]:
        return {**super().estimator(), "rule": self.rule, "update": self.update, "order": self.order}
