"""The mean of the last checkpoints' weights, which is tested and sampled from in place of any one of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor

from lit_gen.core.checkpoint import AVERAGED, load_checkpoint
from lit_gen.core.distributed import from_rank_zero
from lit_gen.core.errors import require


class CheckpointAveraging(Callback):
    r"""Keeps the weights of the last N checkpoints and, at the end of training, writes their mean to ``averaged.ckpt``.

    .. math:: \bar\theta = \frac1N \sum_{i=1}^{N} \theta_i

    ``lit-gen run`` then validates and tests ``averaged.ckpt``, and ``lit-gen sample`` takes it; training itself never sees
    the mean. The weights lie in ``checkpoints/averaging/``, each a checkpoint that can be sampled from. When one is kept
    depends on the update's number alone, and a resumed run drops those of updates that it will repeat: a killed run ends
    with the mean of the uninterrupted one.

    Sums are in float64; what is no floating-point number (a counter) is taken from the last checkpoint.

    Attributes:
        record: after training: the updates that were averaged, and the mean's validation values.

    Args:
        last: N, at most; where training ends earlier, the mean is over as many as there are.
        every_n_steps: updates between two checkpoints; null: one at the end of each epoch.

    Raises:
        UsageError: no checkpoint to average, or an interval below one.

    References:
        Vaswani et al., Attention Is All You Need, NeurIPS 2017, arXiv:1706.03762, section 6.1. Izmailov et al., Averaging
        Weights Leads to Wider Optima and Better Generalization, UAI 2018, arXiv:1803.05407.
    """

    def __init__(self, last: int = 10, every_n_steps: int | None = None) -> None:
        require(last >= 1, "last", last, "1 or more")
        require(every_n_steps is None or every_n_steps >= 1, "every_n_steps", every_n_steps, "1 or more, or null")
        self.last, self.every_n_steps = last, every_n_steps
        self.steps: list[int] = []
        self.validation: dict[str, float] = {}

    @property
    def record(self) -> dict[str, dict[str, Any]]:
        about = {"last": self.last, "steps": self.steps, "validation": self.validation}
        return {"checkpoint_averaging": about} if self.steps else {}

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps = state_dict["steps"]

    # ---------------------------------------------------------------- while training

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.steps = []
        if trainer.is_global_zero:
            (folder_of(trainer).parent / AVERAGED).unlink(missing_ok=True)  # of a training that now goes on
            for step, path in kept(folder_of(trainer)).items():
                if step > trainer.global_step:
                    path.unlink()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            self._keep(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every_n_steps is None:
            self._keep(trainer)

    def _keep(self, trainer: Trainer) -> None:
        folder = folder_of(trainer)
        trainer.save_checkpoint(folder / f"step-{trainer.global_step:08d}.ckpt", weights_only=True)
        if trainer.is_global_zero:
            for path in list(kept(folder).values())[: -self.last]:
                path.unlink()

    # ---------------------------------------------------------------- at the end

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = folder_of(trainer)
        self.steps, average = from_rank_zero(lambda: (list(kept(folder)), mean_weights(kept(folder).values())))
        if not self.steps:
            return
        trained = {name: value.clone() for name, value in pl_module.state_dict().items()}
        pl_module.load_state_dict(average)
        trainer.save_checkpoint(folder.parent / AVERAGED)
        pl_module.load_state_dict(trained)


def folder_of(trainer: Trainer) -> Path:
    """Where the weights to average lie."""
    return Path(trainer.default_root_dir) / "checkpoints" / "averaging"


def kept(folder: Path) -> dict[int, Path]:
    """The checkpoints to average by update, in order."""
    return {int(path.stem.split("-")[1]): path for path in sorted(folder.glob("step-*.ckpt"))}


def mean_weights(paths: Iterable[Path]) -> dict[str, Tensor]:
    """The mean of the checkpoints' weights, in their own precision; one checkpoint is in memory at a time."""
    total: dict[str, Tensor] = {}
    weights: dict[str, Tensor] = {}
    count = 0
    for path in paths:
        weights = load_checkpoint(path)["state_dict"]
        count += 1
        for name, value in weights.items():
            if value.is_floating_point():
                total[name] = total[name].add_(value) if name in total else value.to(torch.float64, copy=True)
    return {name: (total[name] / count).to(value) if name in total else value for name, value in weights.items()}


def validate_average(
    trainer: Trainer, model: LightningModule, data: LightningDataModule, path: Path
) -> dict[str, float]:
    """Validates ``averaged.ckpt`` and logs its values as ``averaged/val/...``, apart from those of training.

    Returns:
        The values under their own names (``val/...``); they are in the record of :class:`CheckpointAveraging` too.
    """
    loggers, trainer.loggers = trainer.loggers, []  # the same names would add a last point to the curves of training
    try:
        values = (trainer.validate(model, datamodule=data, ckpt_path=str(path), verbose=False) or [{}])[0]
    finally:
        trainer.loggers = loggers
    values = {name: float(value) for name, value in values.items()}
    for logger in loggers:
        logger.log_metrics({f"averaged/{name}": value for name, value in values.items()}, trainer.global_step)
    for callback in trainer.callbacks:
        if isinstance(callback, CheckpointAveraging):
            callback.validation = values
    return values
