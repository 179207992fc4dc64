"""The progress bar: rich in a terminal, one plain line now and then in a log file."""

from __future__ import annotations

import sys
import time
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.callbacks.progress.rich_progress import RichProgressBarTheme
from pytorch_lightning.utilities import rank_zero_only


class ProgressLines(Callback):
    """Prints one line every few seconds: epoch, step and the metrics meant for the progress bar.

    Args:
        every_s: seconds between two lines.
    """

    def __init__(self, every_s: float = 15.0) -> None:
        self.every_s, self._last = every_s, 0.0

    @rank_zero_only
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if time.monotonic() - self._last > self.every_s:
            self._print(trainer)

    @rank_zero_only
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._print(trainer)

    def _print(self, trainer: Trainer) -> None:
        self._last = time.monotonic()
        values = {k: float(v) for k, v in trainer.progress_bar_metrics.items()}
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        print(f"epoch {trainer.current_epoch}  step {trainer.global_step}  {shown}", flush=True)


def progress_callback() -> Callback:
    """A rich bar where standard output is a terminal, else :class:`ProgressLines`."""
    if sys.stdout.isatty():
        return RichProgressBar(refresh_rate=5, theme=RichProgressBarTheme(metrics_format=".4g"))
    return ProgressLines()
