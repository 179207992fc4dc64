"""Samples at fixed latent codes, so that the same picture, or text, is seen to grow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from torchvision.utils import make_grid, save_image

from lit_gen.callbacks.text_samples import write_texts
from lit_gen.core.errors import UsageError
from lit_gen.core.images import ImageSpec
from lit_gen.core.loggers import log_image
from lit_gen.core.random import run_seed, seeded_generator
from lit_gen.core.text import TextSpec


def tiled(
    images: Tensor, value_range: tuple[float, float], columns: int | None = None, min_side: int = 32, pad: float = 0.5
) -> Tensor:
    """Tiles images into one picture in [0, 1]; small ones are enlarged by whole pixels.

    Args:
        images: ``[N, C, H, W]``.
        value_range: what is drawn black and white.
        columns: images in a row; about a square where None.
        min_side: images smaller than this are enlarged to at least this many pixels.
        pad: brightness of the lines between the images.

    Returns:
        float32 ``[3, height, width]``.
    """
    low, high = value_range
    unit = ((images.detach().float().cpu() - low) / (high - low)).clamp(0, 1)
    scale = -(-min_side // min(unit.shape[-2:]))
    unit = unit.repeat_interleave(scale, -2).repeat_interleave(scale, -1)
    return make_grid(unit, nrow=columns or max(1, round(len(unit) ** 0.5)), padding=2, pad_value=pad)


def to_grid(images: Tensor, spec: ImageSpec, columns: int | None = None) -> Tensor:
    """:func:`tiled` for images in a spec's range."""
    return tiled(images, spec.value_range, columns)


class SampleGrid(Callback):
    """Writes ``samples/step-NNNNNN.png`` at fixed latent codes and shows it in the loggers.

    Conditional models show one class a column. Language models write texts, to ``samples/step-NNNNNN.txt``; what a model makes
    of source sentences is for :class:`~lit_gen.callbacks.Translations` to show.

    Args:
        every_n_epochs: epochs between two grids; 0: only at the end.
        every_n_steps: updates between two grids; 0: none but those by epoch.
        n: images in a grid; of texts at most eight are written.

    Raises:
        UsageError: a negative interval or no image.
    """

    def __init__(self, every_n_epochs: int = 1, every_n_steps: int = 0, n: int = 64) -> None:
        if min(every_n_epochs, every_n_steps) < 0 or n < 1:
            raise UsageError(
                f"sample_grid: every_n_epochs = {every_n_epochs}, every_n_steps = {every_n_steps}, n = {n}; "
                "accepted: intervals of 0 or more, n of 1 or more"
            )
        self.every_n_epochs, self.every_n_steps, self.n = every_n_epochs, every_n_steps, n
        self._shown_step = -1

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            self._show(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._show(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(trainer, pl_module)

    @rank_zero_only
    def _show(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == self._shown_step:
            return
        self._shown_step = trainer.global_step
        path = Path(trainer.default_root_dir) / "samples" / f"step-{trainer.global_step:06d}.png"
        if isinstance(pl_module.spec, TextSpec):
            if pl_module.spec.source is None:
                write_texts(trainer, pl_module, min(self.n, 8), path.with_suffix(".txt"))
            return
        generator = seeded_generator(run_seed(), "sample_grid", device=pl_module.device)
        columns, label = None, None
        if getattr(pl_module, "conditional", False):
            columns = pl_module.spec.num_classes
            label = torch.arange(self.n, device=pl_module.device) % columns
        images = pl_module.sample(self.n, label=label, generator=generator)
        grid = to_grid(images, pl_module.spec, columns)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image(grid, path)
        log_image(trainer, "samples", grid, path)
