"""Values of single test examples, for comparing two models on the same examples."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from lit_gen.core.distributed import rank, world_size


class PerExample:
    """Collects values per example over batches and processes, and gives them in the order of the split.

    Evaluation deals batches to the processes in turn, so batch i of process r is batch i * world size + r of the split.
    """

    def __init__(self) -> None:
        self._parts: dict[tuple[str, int], Tensor] = {}

    def reset(self) -> None:
        self._parts = {}

    def add(self, batch_idx: int, **values: Tensor) -> None:
        """Adds the values ``[B]`` of one batch of this process, by name."""
        batch = batch_idx * world_size() + rank()
        self._parts |= {(name, batch): value.detach().double().cpu() for name, value in values.items()}

    def whole(self) -> dict[str, Tensor]:
        """The values of all processes, float64 ``[N]`` by name; every process must call it."""
        parts = [self._parts]
        if world_size() > 1:
            parts = [{}] * world_size()
            dist.all_gather_object(parts, self._parts)
        together = {key: value for part in parts for key, value in part.items()}
        names = sorted({name for name, _ in together})
        return {name: torch.cat([together[key] for key in sorted(together) if key[0] == name]) for name in names}
