"""Checkpoints that survive a kill at any moment, and from which training continues bit for bit."""

from __future__ import annotations

import os
import zipfile
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from lit_gen.core.console import say, warn
from lit_gen.core.distributed import Vote, from_rank_zero
from lit_gen.core.errors import CheckpointError, DivergenceError, UsageError, first_line
from lit_gen.core.module import GenerativeModule
from lit_gen.core.stopping import Phase, Stopped, stop_request

LAST, PREVIOUS, BEST, DIVERGED = "last.ckpt", "previous.ckpt", "best.ckpt", "last_good.ckpt"
AVERAGED = "averaged.ckpt"
"""The mean of the last checkpoints, where ``CheckpointAveraging`` makes one."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary name, flushes it to the disk and renames it: a torn file never has the final name.

    Raises:
        CheckpointError: it cannot be written, as on a full disk; what was there before is as it was.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: list[CheckpointError] | None = None
    ) -> None:
        """Writes ``checkpoint``; an error goes into the list where there is one, for a caller whom other processes await."""
        target = Path(path)
        temporary = target.with_name(f".{target.name}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:  # torch's own writer turns a full disk into a RuntimeError
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            before = f"{LAST} before it is intact" if is_intact(target.with_name(LAST)) else "there is none before it"
            failure = CheckpointError(f"cannot write {target}: {_first_cause(error)}; {before}")
            if storage_options is None:
                raise failure from error
            storage_options.append(failure)
            return
        if target.name == LAST and target.exists():
            os.replace(target, target.with_name(PREVIOUS))
        os.replace(temporary, target)


def _first_cause(error: BaseException) -> str:
    while error.__context__ is not None:
        error = error.__context__
    return getattr(error, "strerror", None) or first_line(error)


def is_intact(path: Path) -> bool:
    """Whether the file is a complete checkpoint: a zip archive whose every member has its checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, NotImplementedError):
        return False


def newest_intact(folder: Path) -> Path | None:
    """The checkpoint to resume from: the last one, or the one before where that is torn (with a warning)."""
    for path in (folder / LAST, folder / PREVIOUS):
        if not path.exists():
            continue
        if is_intact(path):
            return path
        warn(f"{path} is torn or corrupt: skipped, falling back to the checkpoint before it")
    return None


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU.

    Raises:
        UsageError: the file is missing, torn, or no checkpoint of this framework.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"no checkpoint at {path}")
    if not is_intact(path):
        raise UsageError(f"{path} is not an intact checkpoint (torn, corrupt or another kind of file)")
    checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    if not isinstance(checkpoint, dict) or not {"state_dict", "spec", "model_class"} <= checkpoint.keys():
        raise UsageError(f"{path} is not a lit_gen checkpoint: it lacks state_dict, spec or model_class")
    return checkpoint


def load_model(path: str | Path) -> GenerativeModule:
    """The model of a checkpoint, on the CPU, in evaluation mode.

    Raises:
        UsageError: no checkpoint of this framework, or its class cannot be imported.
    """
    class_path = load_checkpoint(path)["model_class"]
    module, _, name = class_path.rpartition(".")
    try:
        model_class = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{path} holds a {class_path}, which cannot be imported: {error}") from error
    return model_class.load_from_checkpoint(path, map_location="cpu", weights_only=False).eval()


class RunCheckpoint(Checkpoint):
    """Keeps ``last.ckpt`` and ``previous.ckpt`` to resume from, and ``best.ckpt`` to test and to sample.

    ``last.ckpt`` is written between two updates, after everything the last one logged and before the next batch is used,
    so that a resumed run repeats nothing and misses nothing. Intervals count ``trainer.global_step``, which is generator
    updates in a GAN.

    Args:
        every_n_steps: updates between two checkpoints; 0: only at the end of training.
        monitor: validation metric that decides which model is best, e.g. ``val/fcd_lenet``; None: the last is the best.
        mode: "min" or "max".

    Raises:
        UsageError: a bad mode or interval, or (at the first validation) a metric that the run does not log.
    """

    def __init__(self, every_n_steps: int = 500, monitor: str | None = None, mode: str = "min") -> None:
        super().__init__()
        if mode not in ("min", "max"):
            raise UsageError(f"checkpoint.mode = {mode!r}; accepted: min, max")
        if every_n_steps < 0:
            raise UsageError(f"checkpoint.every_n_steps = {every_n_steps}; accepted: 0 or more")
        self.every_n_steps, self.monitor, self.mode = every_n_steps, monitor, mode
        self.best: float | None = None
        self.best_step: int | None = None
        self._saved_step = -1
        self._between_batches = False
        self._vote: Vote | None = None
        self._signum = 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_step = state_dict["best"], state_dict["best_step"]

    def folder(self, trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir) / "checkpoints"

    # ---------------------------------------------------------------- when

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_step = trainer.global_step
        self._vote = Vote()
        self._vote.put(stop_request.signum)
        stop_request.phase = Phase.TRAINING

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._signum = max(self._signum, self._vote.take())
        # gradients that are being accumulated are in no checkpoint
        stopping = self._signum and batch_idx % trainer.accumulate_grad_batches == 0
        if stopping:
            stop_request.phase = Phase.STOPPING
        if stopping or (self.every_n_steps and trainer.global_step - self._saved_step >= self.every_n_steps):
            self._between_batches = True
            self._save(trainer, LAST)
            self._between_batches = False
            self._saved_step = trainer.global_step
        if stopping:
            raise Stopped(self._signum, stop_request.run, trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self._vote.put(stop_request.signum)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit" or self.monitor is None:
            return
        if self.monitor not in trainer.callback_metrics:
            logged = ", ".join(sorted(k for k in trainer.callback_metrics if k.startswith("val/"))) or "nothing"
            raise UsageError(f"checkpoint.monitor = {self.monitor!r} is not logged in validation; logged: {logged}")
        value = float(trainer.callback_metrics[self.monitor])
        sign = 1.0 if self.mode == "min" else -1.0
        if value == value and (self.best is None or sign * value < sign * self.best):
            self.best, self.best_step = value, trainer.global_step
            self._save(trainer, BEST)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer, LAST)
        self._vote.take()
        self._vote.put(stop_request.signum)
        if signum := self._vote.take():
            stop_request.phase = Phase.STOPPING
            raise Stopped(signum, stop_request.run)
        stop_request.phase = Phase.FINISHING

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # All ranks raise it at the same step, and the optimizer has not stepped: the weights are the last good ones.
        if isinstance(exception, DivergenceError):
            self._save(trainer, DIVERGED)
            say(f"the last good state is in {self.folder(trainer) / DIVERGED}")

    # ---------------------------------------------------------------- what

    def _save(self, trainer: Trainer, name: str) -> None:
        """Saves on all processes alike.

        Raises:
            CheckpointError: on all of them, where the first cannot write.
        """
        failures: list[CheckpointError] = []

        def look() -> None:
            if failures:
                raise failures[0]

        atomic = isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO)
        trainer.save_checkpoint(self.folder(trainer) / name, storage_options=failures if atomic else None)
        from_rank_zero(look)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["log_rows"] = next((log.rows for log in trainer.loggers if hasattr(log, "rows")), None)
        if self._between_batches:
            rewind_fetched_batch(checkpoint["loops"]["fit_loop"])

    @staticmethod
    def to_test(folder: Path) -> Path:
        """The checkpoint to test and to sample from: the averaged one, else the best, or the last where nothing was monitored.

        Raises:
            UsageError: there is none.
        """
        for name in (AVERAGED, BEST, LAST, PREVIOUS):
            if is_intact(folder / name):
                return folder / name
        raise UsageError(f"no intact checkpoint in {folder}: expected {BEST} or {LAST}")


def rewind_fetched_batch(fit_loop: dict[str, Any]) -> None:
    """Takes the batch that is fetched but not yet trained on out of the loop's state: it is the first one of the resumed run.

    Lightning's own checkpoints are taken after a batch and before its metrics are logged and validation is run.
    """
    progress = fit_loop["epoch_loop.batch_progress"]
    for scope in ("total", "current"):
        progress[scope]["ready"] -= 1
    for loader in fit_loop["state_dict"].get("combined_loader", []):
        loader["batch"] -= 1
