"""Images, or tokens, per second and, at the end, where the wall time went."""

from __future__ import annotations

import time
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class Throughput(Callback):
    """Logs ``train/images_per_s``, or ``tokens_per_s``, over all processes; keeps the time of training and validation apart.

    A resumed run adds to the time of its checkpoint; what was trained after that and lost is not counted.

    Attributes:
        train_seconds: wall time from the start to the end of fitting, evaluation included.
        evaluation_seconds: the part of it spent in validation loops and their callbacks.
    """

    def __init__(self) -> None:
        self.train_seconds = self.evaluation_seconds = 0.0
        self._amount, self._since, self._started = 0, 0.0, 0.0

    def state_dict(self) -> dict[str, float]:
        running = time.perf_counter() - self._started if self._started else 0.0
        return {"train_seconds": self.train_seconds + running, "evaluation_seconds": self.evaluation_seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.train_seconds, self.evaluation_seconds = state_dict["train_seconds"], state_dict["evaluation_seconds"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = self._since = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.train_seconds += time.perf_counter() - self._started
        self._started = 0.0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation_started = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit":
            spent = time.perf_counter() - self._validation_started
            self.evaluation_seconds += spent
            self._since += spent

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        parts = batch if isinstance(batch, list) else (batch,)
        self._amount += sum(part.amount for part in parts)
        if trainer.global_step % trainer.log_every_n_steps == 0:
            now = time.perf_counter()
            rate = self._amount * trainer.world_size / (now - self._since)
            name = f"train/{parts[0].unit}_per_s"
            pl_module.log(name, rate, on_step=True, prog_bar=True, rank_zero_only=True, batch_size=1)
            self._amount, self._since = 0, now
