"""Several layers side by side as one, such as the pixels of an image and its label."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_gen.core.random import RowNoise
from lit_gen.energy.units import Units


class Joined(Units):
    """Layers side by side; given the field they are independent.

    Args:
        parts: the layers; states are concatenated in this order.
    """

    def __init__(self, parts: list[Units]) -> None:
        super().__init__(sum(part.n for part in parts))
        self.parts = nn.ModuleList(parts)
        self.dim = sum(part.dim for part in parts)
        self.discrete = all(part.discrete for part in parts)

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """The parts' states ``[..., part.dim]``, as views."""
        return x.split([part.dim for part in self.parts], -1)

    def energy(self, x: Tensor) -> Tensor:
        return sum(part.energy(piece) for part, piece in zip(self.parts, self.split(x)))

    def coupled(self, x: Tensor) -> Tensor:
        return torch.cat([part.coupled(piece) for part, piece in zip(self.parts, self.split(x))], -1)

    def log_partition(self, field: Tensor, beta: float = 1.0) -> Tensor:
        return sum(part.log_partition(piece, beta) for part, piece in zip(self.parts, self.split(field)))

    def mean_(self, field: Tensor, beta: float = 1.0) -> Tensor:
        for part, piece in zip(self.parts, self.split(field)):
            part.mean_(piece, beta)
        return field

    def draw_(self, mean: Tensor, noise: RowNoise, beta: float = 1.0) -> Tensor:
        for part, piece in zip(self.parts, self.split(mean)):
            part.draw_(piece, noise, beta)
        return mean

    def places(self, x: Tensor) -> Tensor:
        pieces = x.split([part.n for part in self.parts], -1)
        return torch.cat([part.places(piece) for part, piece in zip(self.parts, pieces)], -1)

    def shift_bias(self, field: Tensor) -> None:
        for part, piece in zip(self.parts, self.split(field)):
            part.shift_bias(piece)

    def constant_field(self) -> Tensor:
        return torch.cat([part.constant_field() for part in self.parts])

    def fit(self, mean: Tensor, smoothing: float) -> None:
        for part, piece in zip(self.parts, self.split(mean)):
            part.fit(piece, smoothing)

    def log2_states(self) -> float:
        return sum(part.log2_states() for part in self.parts)

    def _enumerate(self) -> Tensor:
        states = self.parts[0]._enumerate()
        for part in self.parts[1:]:
            more = part._enumerate()
            states = torch.cat([states.repeat_interleave(len(more), 0), more.repeat(len(states), 1)], -1)
        return states
