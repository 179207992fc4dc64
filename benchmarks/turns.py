"""Contenders that take turns in one process, a piece of work each, so that a slow minute of the machine meets them all."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from lit_gen.callbacks import SampleGrid, Throughput
from lit_gen.cli.run import quiet_lightning
from lit_gen.core.checkpoint import AtomicCheckpointIO, RunCheckpoint
from lit_gen.core.loggers import MetricsCSV
from lit_gen.core.module import GenerativeModule
from lit_gen.core.profiler import NoProfiler
from lit_gen.data.base import ImageDataModule
from lit_gen.data.module import SplitDataModule

Work = Callable[[], int | None]
"""An epoch, or any other piece of work. Returns how many images, tokens or sentences it went through; None: as many as ours."""

MakeOthers = Callable[[GenerativeModule, Any], dict[str, Work]]
"""(built model, its DataModule) -> an epoch of each of the others, by name."""

Round = dict[str, float]
"""Images, tokens or sentences per second of each contender, by name."""


def timed(work: Work) -> tuple[float, int | None]:
    """Seconds that a piece of work took, and what it returned."""
    begin = time.perf_counter()
    amount = work()
    return time.perf_counter() - begin, amount


def alternate(contenders: dict[str, Work], rounds: int) -> list[Round]:
    """Rounds in which each contender works once; one before the first warms up and is not counted."""
    results = []
    for _ in range(rounds + 1):
        measured = {name: timed(work) for name, work in contenders.items()}
        results.append({name: amount / seconds for name, (seconds, amount) in measured.items()})
    return results[1:]


class TakeTurns(pl.Callback):
    """Runs an epoch of every other contender before each epoch of the Trainer, and times them all.

    Args:
        make_others: called once, before the first epoch.
    """

    def __init__(self, make_others: MakeOthers) -> None:
        self.make_others, self.started, self.amount = make_others, None, 0
        self.rounds: list[Round] = []

    def on_fit_start(self, trainer: pl.Trainer, module: GenerativeModule) -> None:
        self.others = self.make_others(module, trainer.datamodule)

    def on_train_epoch_start(self, trainer: pl.Trainer, module: GenerativeModule) -> None:
        self.finish_round()
        # The others are free to use the global generator; the Trainer's batches are keyed and do not notice.
        self.measured = {name: timed(epoch) for name, epoch in self.others.items()}
        self.started, self.amount = time.perf_counter(), 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: GenerativeModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.amount += sum(part.amount for part in (batch if isinstance(batch, list) else (batch,)))

    def on_train_end(self, trainer: pl.Trainer, module: GenerativeModule) -> None:
        # first in the list of callbacks: before the last samples are drawn, which no other epoch does
        self.finish_round()

    def finish_round(self) -> None:
        if self.started is not None:
            measured = {**self.measured, "ours": (time.perf_counter() - self.started, self.amount)}
            self.rounds.append({name: (amount or self.amount) / taken for name, (taken, amount) in measured.items()})


def take_turns(
    model: GenerativeModule, data: SplitDataModule, make_others: MakeOthers, rounds: int, batches: int | None = None
) -> list[Round]:
    """Images, or tokens, per second of training of ``ours`` and of the others, by name, for each round.

    The Trainer is set up as ``lit-gen run`` does: it logs to metrics.csv, writes checkpoints and checks every gradient; its
    round lasts from the start of one epoch to the start of the next, so all of that is inside. A round before the first
    warms up and is not counted.

    Args:
        model: ours.
        data: what it is trained on.
        make_others: makes the other contenders.
        rounds: epochs of each that are counted.
        batches: of the Trainer's epoch; None: all there are.
    """
    quiet_lightning()
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    turns = TakeTurns(make_others)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=rounds + 1,
            accelerator="cpu",
            devices=1,
            default_root_dir=folder,
            logger=MetricsCSV(Path(folder) / "metrics.csv"),
            callbacks=[turns, Throughput(), SampleGrid(every_n_epochs=0), RunCheckpoint(every_n_steps=500)],
            plugins=[AtomicCheckpointIO()],
            profiler=NoProfiler(),
            log_every_n_steps=50,
            limit_train_batches=batches,
            limit_val_batches=0,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, data)
    return turns.rounds[1:]


def training_images(data: ImageDataModule) -> Tensor:
    """All training images, clean, uint8 ``[N, C, H, W]``."""
    return torch.cat([image for image, _ in data.clean_batches("train")])
