"""Runs a function in two gloo processes; the functions that the tests run there are here too, to be importable."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from lit_gen.callbacks.sample_quality import SampleQuality
from lit_gen.core.distributed import from_rank_zero, rank, world_size
from lit_gen.core.errors import UsageError
from lit_gen.core.images import ImageSpec
from lit_gen.core.module import GenerativeModule
from lit_gen.data import Digits
from lit_gen.metrics import InceptionExtractor, QualityMetrics, RealStatistics, real_statistics
from lit_gen.metrics.extractors import Extractor


def in_two_processes(function: Callable[..., Any], folder: Path, *args: Any) -> list[Any]:
    """What the function returned on rank 0 and on rank 1."""
    folder.mkdir(exist_ok=True)
    mp.spawn(_process, args=(str(folder), function, args), nprocs=2)
    return [torch.load(folder / f"result-{i}.pt", weights_only=False) for i in range(2)]


def _process(index: int, folder: str, function: Callable[..., Any], args: tuple) -> None:
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(index)  # for Lightning, the sign that it was launched
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=index, world_size=2)
    torch.save(function(*args), Path(folder) / f"result-{index}.pt")
    dist.destroy_process_group()


class Tensors:
    """An image source that holds one tensor of images for each split."""

    def __init__(self, splits: dict[str, Tensor], num_classes: int = 0, name: str = "tensors") -> None:
        self.splits, self.name, self.fingerprint = splits, name, f"{name}-fingerprint"
        self.labels = {split: torch.arange(len(x)) % max(1, num_classes) for split, x in splits.items()}
        self.spec = ImageSpec(tuple(next(iter(splits.values())).shape[1:]), num_classes, (0.0, 1.0))
        self.reads = 0

    def num_examples(self, split: str) -> int:
        return len(self.splits[split])

    def clean_batches(self, split: str, batch_size: int = 256) -> Any:
        self.reads += 1
        return zip(self.splits[split].split(batch_size), self.labels[split].split(batch_size))


class Projection(Extractor):
    """Random but fixed features of small images, as a network that needs no weights file."""

    name = "projection"

    def __init__(self, pixels: int, feature_dim: int = 12, num_classes: int = 5, seed: int = 0) -> None:
        layer = torch.nn.Linear(pixels, feature_dim + num_classes, bias=False)
        generator = torch.Generator().manual_seed(seed)
        layer.weight.data = torch.randn(layer.weight.shape, generator=generator) / pixels**0.5
        super().__init__(layer, feature_dim, num_classes)

    def extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        both = self.network(images.flatten(1).float() / 32.0)
        return both[:, : self.feature_dim].relu(), both[:, self.feature_dim :]


def measure(extractor: Extractor, real: RealStatistics, images: Tensor, chunk_size: int) -> dict[str, float]:
    """All metrics of the images, chunks dealt to the processes in turn."""
    quality = QualityMetrics(extractor, real, len(images))
    for chunk, index in enumerate(torch.arange(len(images)).split(chunk_size)):
        if chunk % world_size() == rank():
            quality.update(images[index], index)
    results = quality.compute()
    return {name: entry["value"] for name, entry in results.items()}


def measure_projection(real: Tensor, fake: Tensor, chunk_size: int) -> dict[str, float]:
    extractor = Projection(real[0].numel())
    statistics = real_statistics(Tensors({"test": real}), "test", extractor, None, len(fake), batch_size=chunk_size)
    return measure(extractor, statistics, fake, chunk_size)


def measure_inception(weights: str, real: Tensor, fake: Tensor, chunk_size: int) -> dict[str, float]:
    extractor = InceptionExtractor(weights)
    statistics = real_statistics(Tensors({"test": real}), "test", extractor, None, len(fake), batch_size=chunk_size)
    return measure(extractor, statistics, fake, chunk_size)


def all_of(cache: str, real: Tensor, fake: Tensor) -> dict[str, Any]:
    """What two processes are tested for, at once: they take seconds to start."""
    os.environ["LIT_GEN_CACHE"] = cache
    return {
        "error": failing(),
        "many chunks": measure_projection(real, fake, 9),
        "one chunk": measure_projection(real[:60], fake, 100),
        "files": len(os.listdir(cache)),
        "callback": train_and_test("ddp", 2),
    }


def failing() -> str:
    """The error that this rank sees when rank zero finds a mistake of the user's."""

    def compute() -> None:
        raise UsageError("the value 3 is wrong")

    try:
        from_rank_zero(compute)
    except UsageError as error:
        return str(error)
    return "no error"


class Noisy(GenerativeModule):
    """The smallest model that trains and samples: the mean image, plus noise."""

    conditional = False

    def build_networks(self, spec: ImageSpec) -> None:
        self.mean = torch.nn.Parameter(torch.zeros(spec.shape))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return (self.mean - batch.image).square().mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        return None

    def test_step(self, batch: Any, batch_idx: int) -> None:
        return None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.5)

    def sample(self, n: int, *, label: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        noise = torch.randn(n, *self.spec.shape, generator=generator, device=self.device)
        return self.mean.detach() + 0.3 * noise


def trainer(*callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    """A Trainer that leaves nothing behind."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    options = {"max_epochs": 1, "accelerator": "cpu", "devices": 1, "enable_model_summary": False, **quiet, **options}
    return pl.Trainer(callbacks=list(callbacks), **options)


def train_and_test(strategy: str, devices: int) -> dict[str, float]:
    """Validation and test values of the small model on digits, by the callback, under a strategy."""
    quality = SampleQuality(n_samples=64, n_test_samples=130, batch_size=40)
    worker = trainer(quality, strategy=strategy, devices=devices, limit_train_batches=2)
    model, data = Noisy(), Digits(batch_size=32 // devices, eval_batch_size=64)
    worker.fit(model, datamodule=data)
    validated = {name: float(value) for name, value in worker.callback_metrics.items()}
    tested = worker.test(model, datamodule=data, verbose=False)[0]
    return {**validated, **tested}
