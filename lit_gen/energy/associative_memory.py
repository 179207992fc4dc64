"""What the Hopfield networks share: storing patterns in one pass over the data, recall of corrupted images, its measures."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.distributed as dist
from einops import rearrange
from torch import Tensor
from torchmetrics import MeanMetric, MetricCollection

from lit_gen.core.errors import require
from lit_gen.core.images import ImageBatch, ImageSpec
from lit_gen.core.module import GenerativeModule
from lit_gen.core.random import BatchKey, run_seed, seeded_generator
from lit_gen.energy.hopfield import overlap

MEASURED = 1000  # stored patterns that an evaluation recalls, at most
CORRUPTIONS = ("", "_occluded")
MEASURES = ("recall_rate", "overlap", "pixel_error")


class AssociativeMemory(GenerativeModule):
    """Stores images in one pass over the training data, without gradients, and completes what resembles them.

    One ``training_step`` stores what it selects of one global batch and counts as one update. Every process stores the rows
    of all processes, so that the memory is the same everywhere, and the same for any number of processes. Epochs after
    the first store nothing.

    Logged as ``val/`` and ``test/``: ``recall_rate`` (overlap of at least ``recalled`` with the clean image), ``overlap``
    (cosine in centred pixels) and ``pixel_error`` (mean absolute error in units of the range: of binary pixels the
    fraction that is wrong); of images of the split with ``flip`` of their pixels inverted, with ``_occluded`` of images
    whose lower half is hidden, and with ``stored_`` before it of the (first 1,000) stored patterns.

    Args:
        patterns: number of images to store, at most: the first ones of the first epoch.
        balanced: store as many of each class.
        flip: fraction of pixels that are inverted (mirrored at the middle of the range) in evaluation.
        recalled: overlap from which on an image counts as recalled.

    Raises:
        UsageError: a hyper-parameter is out of range, or (in ``build``) does not fit the data.
    """

    falls_in_training: ClassVar[str | None] = None
    """No loss falls: storing is done in one pass."""

    def __init__(self, patterns: int = 10, balanced: bool = False, flip: float = 0.1, recalled: float = 0.95) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        require(patterns >= 1, "patterns", patterns, "an integer of 1 or more")
        require(0 <= flip <= 1, "flip", flip, "0 <= flip <= 1")
        require(0 < recalled <= 1, "recalled", recalled, "0 < recalled <= 1")
        self.patterns, self.balanced, self.flip, self.recalled = patterns, balanced, flip, recalled
        names = [s + m + c for s in ("", "stored_") for c in CORRUPTIONS for m in MEASURES]
        self.means = MetricCollection({n: MeanMetric() for n in names}, compute_groups=False).set_dtype(torch.float64)

    # ---------------------------------------------------------------- what a kind of memory is

    def encode(self, image: Tensor) -> Tensor:
        """Units ``[B, N]`` that stand for images ``[B, C, H, W]``: pixels centred to [-1, 1]."""
        low, high = self.spec.value_range
        return rearrange((image.float() - low) * (2 / (high - low)) - 1, "b c h w -> b (c h w)")

    def decode(self, state: Tensor) -> Tensor:
        """Images ``[B, C, H, W]`` in the spec's range of units ``[B, N]``."""
        low, high = self.spec.value_range
        image = (low + (state + 1) * ((high - low) / 2)).clamp(low, high)
        return image.unflatten(1, self.spec.shape)

    def learn(self, new: Tensor) -> None:
        """Called after the patterns ``[n, N]`` have been appended to the memory."""

    def recall(self, state: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The memory that states ``[B, N]`` lead to, ``[B, N]``."""
        raise NotImplementedError(f"{type(self).__name__} must implement recall")

    def fill(self, state: Tensor, known: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Recall with the known units clamped; both ``[B, N]``, the values of the others mean nothing."""
        raise NotImplementedError(f"{type(self).__name__} must implement fill")

    # ---------------------------------------------------------------- storing

    def build_networks(self, spec: ImageSpec) -> None:
        if self.balanced:
            fits = spec.num_classes and self.patterns % spec.num_classes == 0
            require(fits, "patterns", self.patterns, f"a multiple of the number of classes, {spec.num_classes}")
        self.register_buffer("stored", torch.zeros(self.patterns, spec.dim))
        self.register_buffer("stored_label", torch.full((self.patterns,), -1))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @property
    def memories(self) -> Tensor:
        """The stored patterns ``[P, N]``, in the order in which they came."""
        return self.stored[: int(self.count)]

    def configure_optimizers(self) -> list:
        return []

    @torch.no_grad()
    def training_step(self, batch: ImageBatch, batch_idx: int) -> None:
        if self.trainer.current_epoch == 0 and int(self.count) < self.patterns:
            self.store(global_rows(batch.image, batch.key), global_rows(batch.label, batch.key))
        if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:
            self.log("train/patterns", float(self.count), prog_bar=True, batch_size=batch.image.shape[0])
        # What Lightning does after each step of an optimizer: limits, checkpoints and loggers count stored batches.
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        progress.increment_ready()
        progress.increment_completed()

    def store(self, image: Tensor, label: Tensor | None = None) -> int:
        """Appends images ``[B, C, H, W]`` to the memory while there is room (and need, if balanced); returns how many.

        Args:
            image: in the spec's range.
            label: int64 ``[B]``; of no class where None.
        """
        label = torch.full_like(image[:, 0, 0, 0], -1, dtype=torch.int64) if label is None else label
        start = int(self.count)
        chosen = self.select(label)[: self.patterns - start]
        if len(chosen):
            new = self.encode(image[chosen])
            self.stored[start : start + len(new)] = new
            self.stored_label[start : start + len(new)] = label[chosen]
            self.count += len(new)
            self.learn(new)
        return len(chosen)

    def select(self, label: Tensor) -> Tensor:
        """Rows of a batch to store, int64: all, or those whose class still lacks patterns."""
        if not self.balanced:
            return torch.arange(len(label), device=label.device)
        classes = torch.arange(self.spec.num_classes, device=label.device)
        held = (self.stored_label[: int(self.count), None] == classes).sum(0)
        of_class = label[:, None] == classes  # [B, K]
        place = held + of_class.cumsum(0)  # the row would be the place-th of its class
        return (of_class & (place <= self.patterns // self.spec.num_classes)).any(1).nonzero().flatten()

    # ---------------------------------------------------------------- recall of images

    @torch.no_grad()
    def reconstruct(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        """The memory that each image leads to, ``[B, C, H, W]``."""
        return self.decode(self.recall(self.encode(image)))

    @torch.no_grad()
    def denoise(self, image: Tensor, flip: float, generator: torch.Generator | None = None) -> Tensor:
        """The memory that each noisy image leads to, ``[B, C, H, W]``.

        Recall is at temperature zero, where the likelihood of the noisy pixels, whose field is log((1 - flip) / flip) times
        the temperature, has no weight: they are the state to start from.
        """
        require(0 <= flip <= 1, "flip", flip, "0 <= flip <= 1")
        return self.decode(self.recall(self.encode(image), generator))

    @torch.no_grad()
    def complete(self, image: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Recalls the hidden pixels with the known ones clamped, which are returned as given.

        Shape:
            image: ``[B, C, H, W]``; mask: ``[B, 1, H, W]``, 1 = hidden; result ``[B, C, H, W]``.

        Raises:
            UsageError: the mask's shape does not fit the image.
        """
        expected = (image.shape[0], 1, *image.shape[-2:])
        accepted = f"shape {list(expected)}, 1 where a pixel is hidden"
        require(tuple(mask.shape) == expected, "mask", f"a tensor of shape {list(mask.shape)}", accepted)
        hidden = mask.bool().expand_as(image)
        filled = self.decode(self.fill(self.encode(image), ~hidden.flatten(1), generator))
        return torch.where(hidden, filled, image)

    @torch.no_grad()
    def sample(self, n: int, *, label: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Recall from n random states of +1 and -1: memories, and whatever else the dynamics ends in."""
        state = torch.randint(2, (n, self.spec.dim), generator=generator, device=self.device)
        return self.decode(self.recall(2.0 * state - 1, generator))

    def filters(self) -> Tensor:
        """The stored patterns as images ``[P, C, H, W]``."""
        return self.decode(self.memories)

    # ---------------------------------------------------------------- evaluation

    @torch.no_grad()
    def measure(self, clean: Tensor, uniform: Tensor, generator: torch.Generator, prefix: str = "") -> None:
        """Corrupts states ``[B, N]`` (where uniform numbers ``[B, N]`` are below ``flip``), recalls and averages."""
        known = torch.ones(self.spec.shape, dtype=torch.bool, device=clean.device)
        known[:, self.spec.shape[1] // 2 :] = False
        noisy = torch.where(uniform < self.flip, -clean, clean)
        recalled = self.recall(noisy, generator), self.fill(clean, known.flatten().expand_as(clean), generator)
        for corruption, state in zip(CORRUPTIONS, recalled):
            m = overlap(state, clean)
            error = (self.decode(state) - self.decode(clean)).abs().flatten(1).mean(1)
            span = self.spec.value_range[1] - self.spec.value_range[0]
            for name, value in zip(MEASURES, ((m >= self.recalled - 1e-6).double(), m.double(), error.double() / span)):
                self.means[prefix + name + corruption].update(value)

    def on_validation_epoch_start(self) -> None:
        self.means.reset()

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        noise = self.noise(batch)
        clean = self.encode(batch.image)
        self.measure(clean, noise.uniform(self.spec.dim), noise.generator)

    def on_validation_epoch_end(self) -> None:
        self.log_means("val")

    def on_test_epoch_start(self) -> None:
        self.means.reset()

    def test_step(self, batch: ImageBatch, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        self.log_means("test")
        self.estimators = {"test/stored_recall_rate": self.estimator()}

    def estimator(self) -> dict[str, Any]:
        """How the recall rates were measured, for result.json."""
        return {"patterns": int(self.count), "flip": self.flip, "recalled_from_overlap": self.recalled}

    def log_means(self, stage: str) -> None:
        """Adds the stored patterns, held by all processes and measured by the first, and logs all means."""
        if int(self.count) and self.global_rank == 0:
            generator = seeded_generator(run_seed(), "stored", device=self.device)
            clean = self.memories[:MEASURED]
            uniform = torch.rand(clean.shape, generator=generator, device=self.device)
            self.measure(clean, uniform, generator, "stored_")
        values = {name: mean.compute() for name, mean in self.means.items()}
        shown = values if int(self.count) else {k: v for k, v in values.items() if not k.startswith("stored_")}
        self.log_dict({f"{stage}/{name}": float(value) for name, value in shown.items()}, sync_dist=True)

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> dict[str, Tensor]:
        """``recalled``: the memory of each image ``[B, C, H, W]``; ``label``: as given."""
        return {"recalled": self.reconstruct(batch.image), "label": batch.label}


def global_rows(rows: Tensor, key: BatchKey) -> Tensor:
    """The rows of all processes ``[total, ...]``, in the order of the global batch, from those of this one ``[B, ...]``."""
    if key.total == rows.shape[0]:
        return rows
    whole = rows.new_zeros(key.total, *rows.shape[1:])
    whole[key.start : key.start + rows.shape[0]] = rows
    dist.all_reduce(whole)
    return whole
