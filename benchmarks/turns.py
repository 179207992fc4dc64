"""A bare PyTorch loop and the Trainer taking turns, one epoch each, in one process: a slow minute meets both."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

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

Epoch = Callable[[], None]
MakeBare = Callable[[GenerativeModule, Tensor], dict[str, Epoch]]
"""(built model, clean training images uint8) -> an epoch of each of the others, by name."""


class TakeTurns(pl.Callback):
    """Runs an epoch of every other contender before each epoch of the Trainer, and times them all.

    Args:
        make_others: called once, before the first epoch.
    """

    def __init__(self, make_others: MakeBare) -> None:
        self.make_others, self.started = make_others, None
        self.rounds: list[dict[str, float]] = []

    def on_fit_start(self, trainer: pl.Trainer, module: GenerativeModule) -> None:
        images = torch.cat([image for image, _ in trainer.datamodule.clean_batches("train")])
        self.images, self.others = len(images), self.make_others(module, images)

    def on_train_epoch_start(self, trainer: pl.Trainer, module: GenerativeModule) -> None:
        self.finish_round()
        self.seconds = {}
        # The others are free to use the global generator; the Trainer's batches are keyed and do not notice.
        for name, epoch in self.others.items():
            begin = time.perf_counter()
            epoch()
            self.seconds[name] = time.perf_counter() - begin
        self.started = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, module: GenerativeModule) -> None:
        # first in the list of callbacks: before the last images are drawn, which no other epoch does
        self.finish_round()

    def finish_round(self) -> None:
        if self.started is not None:
            seconds = {**self.seconds, "ours": time.perf_counter() - self.started}
            self.rounds.append({name: self.images / value for name, value in seconds.items()})


def take_turns(
    model: GenerativeModule, data: ImageDataModule, make_others: MakeBare, rounds: int
) -> list[dict[str, float]]:
    """Images per second of ``ours`` and of the others, by name, for each round.

    The Trainer is set up as ``lit-gen run`` does: it logs to metrics.csv, writes checkpoints and checks every gradient; its
    round lasts from the start of one epoch to the start of the next, so all of that is inside. A round before the first
    warms up and is not counted.

    Args:
        model: ours.
        data: what it is trained on.
        make_others: makes the other contenders.
        rounds: epochs of each that are counted.
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
            limit_val_batches=0,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, data)
    return turns.rounds[1:]
