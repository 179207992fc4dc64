"""Callbacks that know no model family."""

from lit_gen.callbacks.progress import ProgressLines, progress_callback
from lit_gen.callbacks.sample_grid import SampleGrid, to_grid
from lit_gen.callbacks.throughput import Throughput

__all__ = ["ProgressLines", "SampleGrid", "Throughput", "progress_callback", "to_grid"]
