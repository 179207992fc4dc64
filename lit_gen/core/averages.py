"""Evaluation as means over examples, which do not depend on how the data was divided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_gen.core.images import ImageBatch
from lit_gen.core.module import GenerativeModule
from lit_gen.core.per_example import PerExample


class Averages(Metric):
    """Means over examples with their standard errors, equal to the last bit for any number of processes.

    Values are rounded to multiples of 2^-20 and squares to 2^-10, far below their sampling error, so that float64 sums are
    exact (up to 8e9 nats) and do not depend on their order.

    Args:
        names: what may be averaged; a name that nobody updated is absent from the result.
    """

    full_state_update = False

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        for state in ("sums", "squares", "counts"):
            self.add_state(state, torch.zeros(len(self.names), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, **values: Tensor) -> None:
        """Adds values, each ``[n]``, of n examples."""
        for name, value in values.items():
            index, value = self.names.index(name), value.detach().double()
            self.sums[index] += (value * 2**20).round().sum() / 2**20
            self.squares[index] += (value.square() * 2**10).round().sum() / 2**10
            self.counts[index] += value.numel()

    def compute(self) -> dict[str, tuple[float, float]]:
        """Mean and standard error (ddof = 1; nan for one example) of every name that was updated."""
        result = {}
        for name, total, square, count in zip(
            self.names, self.sums.tolist(), self.squares.tolist(), self.counts.tolist()
        ):
            if count:
                variance = max(square - total**2 / count, 0.0) / (count - 1) if count > 1 else math.nan
                result[name] = (total / count, math.sqrt(variance / count))
        return result


class AveragedModule(GenerativeModule):
    """A model whose validation and test values are means of :meth:`evaluate` over examples."""

    measures: ClassVar[tuple[str, ...]] = ("loss",)
    """Names that :meth:`evaluate` and ``test_step`` may average over examples."""

    compared: ClassVar[tuple[str, ...]] = ("nll", "nll_bound")
    """Those of them that are also kept for each test example, so that two models can be compared example by example."""

    def __init__(self) -> None:
        super().__init__()
        self.averages = Averages(self.measures)
        self.per_example = PerExample()

    def evaluate(self, batch: ImageBatch) -> dict[str, Tensor]:
        """Values per example ``[B]``, by name."""
        raise NotImplementedError(f"{type(self).__name__} must implement evaluate")

    def on_validation_epoch_start(self) -> None:
        self.averages.reset()

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        self.averages.update(**self.evaluate(batch))

    def on_validation_epoch_end(self) -> None:
        self.log_averages("val")

    def on_test_epoch_start(self) -> None:
        self.averages.reset()
        self.per_example.reset()

    def test_step(self, batch: ImageBatch, batch_idx: int) -> None:
        self.add_tested(batch_idx, **self.evaluate(batch))

    def add_tested(self, batch_idx: int, **values: Tensor) -> None:
        """Adds values ``[B]`` of a test batch to the averages, and those of :attr:`compared` to the values per example."""
        self.averages.update(**values)
        self.per_example.add(batch_idx, **{name: value for name, value in values.items() if name in self.compared})

    def tested_examples(self) -> dict[str, Tensor]:
        return {f"test/{name}": values for name, values in self.per_example.whole().items()}

    def on_test_epoch_end(self) -> None:
        self.log_averages("test")

    def log_averages(self, stage: str) -> dict[str, tuple[float, float]]:
        """Logs the means under ``stage/name``; returns means and standard errors."""
        values: dict[str, Any] = self.averages.compute()
        self.log_dict({f"{stage}/{name}": mean for name, (mean, _) in values.items()}, sync_dist=True)
        return values
