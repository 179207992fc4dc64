"""Training in stages, one after the other in one run: the stage follows from the epoch, so that any run can be resumed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from lit_gen.core.averages import AveragedModule
from lit_gen.core.errors import require
from lit_gen.core.images import ImageBatch
from lit_gen.core.random import RowNoise


class StagedTraining(AveragedModule):
    """A model whose epochs are divided into stages, each with its own objective and optimizer.

    ``configure_optimizers`` returns one optimizer for each stage; only that of the current stage moves, and
    ``trainer.global_step`` counts all updates. How many stages were begun is part of the checkpoint. A subclass sets
    ``stage_epochs`` and implements :meth:`begin` and :meth:`objective`.

    Attributes:
        stage_epochs: epochs of each stage. ``trainer.max_epochs`` must be their sum, or -1, which means it.
    """

    stage_epochs: Sequence[int]
    stages_begun: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.register_buffer("stages_begun", torch.tensor(0))
        self._entered: int | None = None

    # ---------------------------------------------------------------- of the subclass

    def begin(self, stage: int) -> None:
        """Prepares the parameters before the first update of a stage."""
        raise NotImplementedError(f"{type(self).__name__} must implement begin")

    def take_up(self, stage: int) -> None:
        """Whatever a stage needs that is not in the state dict; called after :meth:`begin`, and after a resume without it."""

    def objective(self, stage: int, batch: ImageBatch, noise: RowNoise) -> dict[str, Tensor]:
        """The ``loss`` of a stage, a mean over the batch, with other values to log."""
        raise NotImplementedError(f"{type(self).__name__} must implement objective")

    def monitors(self, batch: ImageBatch) -> dict[str, Tensor]:
        """More values to log, which no gradient needs."""
        return {}

    # ---------------------------------------------------------------- stages

    @property
    def stage(self) -> int:
        """The stage of the current epoch, from 0."""
        return stage_of(self.current_epoch, self.stage_epochs)

    def setup(self, stage: str) -> None:
        if stage != "fit":
            return
        total, given = sum(self.stage_epochs), self.trainer.max_epochs
        if given == -1:
            self.trainer.fit_loop.max_epochs = total
        else:
            accepted = f"{total}, the sum of the stages' {list(self.stage_epochs)}, or -1 for it"
            require(given == total, "trainer.max_epochs", given, accepted)

    def on_fit_start(self) -> None:
        self._entered = None

    def on_train_batch_start(self, batch: ImageBatch, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        # not at the start of the epoch, which a run resumed within it does not see
        if self.stage != self._entered:
            if self.stages_begun <= self.stage:
                self.begin(self.stage)
                self.stages_begun.fill_(self.stage + 1)
            self.take_up(self.stage)
            self._entered = self.stage

    # ---------------------------------------------------------------- updates

    def training_step(self, batch: ImageBatch, batch_idx: int) -> None:
        optimizer = as_list(self.optimizers())[self.stage]
        values = self.objective(self.stage, batch, self.noise(batch))
        self.watch_loss("loss", values["loss"])
        if self.should_log():
            values = {**values, **self.monitors(batch)}
            self.log_dict(
                {f"train/{name}": value.detach() for name, value in values.items()}, batch_size=len(batch.image)
            )
        # processes average their gradients; rows may be dealt out unevenly
        share = self.trainer.world_size * len(batch.image) / batch.key.total
        optimizer.zero_grad()
        self.manual_backward(share * values["loss"])
        optimizer.step()

    def on_train_epoch_end(self) -> None:
        optimizer = as_list(self.optimizers())[self.stage].optimizer
        for scheduler in as_list(self.lr_schedulers()):
            if scheduler.optimizer is optimizer:
                scheduler.step()


def stage_of(epoch: int, lengths: Sequence[int]) -> int:
    """The stage that an epoch belongs to; the last one for epochs after the end.

    Args:
        epoch: from 0.
        lengths: epochs of each stage.
    """
    return min(bisect_right(list(accumulate(lengths)), epoch), len(lengths) - 1)


def as_list(value: Any) -> list[Any]:
    """What Lightning gives as one object, as a list of them, or as nothing."""
    return value if isinstance(value, list) else [] if value is None else [value]


def groups(named: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> list[dict[str, Any]]:
    """Weights, which decay, and all other parameters, as an optimizer takes them."""
    named = list(named)
    weights, others = ([p for name, p in named if (name == "weight") is wanted] for wanted in (True, False))
    return [{"params": weights, "weight_decay": weight_decay}, {"params": others}]
