"""Callbacks that know no model family."""

from typing import Any

from lit_gen.callbacks.checkpoint_averaging import CheckpointAveraging
from lit_gen.callbacks.completion import Completion
from lit_gen.callbacks.free_energy_gap import FreeEnergyGap
from lit_gen.callbacks.pictures import Pictures
from lit_gen.callbacks.progress import ProgressLines, progress_callback
from lit_gen.callbacks.random_block_loss import RandomBlockLoss
from lit_gen.callbacks.sample_grid import SampleGrid, to_grid
from lit_gen.callbacks.throughput import Throughput
from lit_gen.callbacks.translations import Translations

__all__ = [
    "CheckpointAveraging",
    "Completion",
    "FreeEnergyGap",
    "Pictures",
    "ProgressLines",
    "RandomBlockLoss",
    "SampleGrid",
    "SampleQuality",
    "Throughput",
    "Translations",
    "progress_callback",
    "to_grid",
]


def __getattr__(name: str) -> Any:
    # the metrics behind it take a second to import, and not every run measures its samples
    if name == "SampleQuality":
        from lit_gen.callbacks.sample_quality import SampleQuality

        return SampleQuality
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
