"""Measures the model's samples while it trains and after, beside two anchors that give the numbers a meaning."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lit_gen.core.distributed import from_rank_zero, rank, world_size
from lit_gen.core.errors import UsageError
from lit_gen.core.random import run_seed, seeded_generator
from lit_gen.metrics import InceptionExtractor, LeNetExtractor, QualityMetrics, cache, quantize, real_statistics
from lit_gen.metrics.classifier import classifier_weights
from lit_gen.metrics.extractors import Extractor, load_inception_weights
from lit_gen.metrics.quality import METRICS, PAIRWISE, noise_images
from lit_gen.metrics.real import ImageSource, RealStatistics, clean_part

IMAGE_METRICS = tuple(metric for metric in METRICS if metric != "modes")
Chunks = Iterator[tuple[Tensor, Tensor]]


class SampleQuality(Callback):
    """Draws samples at the end of validation and of testing and logs their quality as ``val/...`` and ``test/...``.

    Names with the domain classifier: ``fcd_lenet``, ``is_lenet``, ``kid_lenet``, ``precision_lenet``, ``recall_lenet``,
    ``density_lenet``, ``coverage_lenet``, ``modes``, ``modes_kl``; with Inception ``fid``, ``is``, ``kid``,
    ``precision``, ``recall``, ``density``, ``coverage``. They can be monitored: ``monitor: val/fcd_lenet``. Where an
    evaluation was skipped, the last values stay in ``trainer.callback_metrics``.

    Sample chunk i is drawn from a generator of (run seed, stage, i) and chunks are dealt to the processes in turn, so the
    values do not depend on the number of processes, nor training on the evaluation. All but ``kid`` and ``prdc`` work in
    memory that does not depend on the number of samples; these two keep 4 x samples x dimensions bytes on each process.

    At test each value gets two anchors: as many real training images in place of the samples, and uniform noise.

    Attributes:
        record: after a test, by logged name (``test/fcd_lenet``): value (and std), n_real, n_fake, split, extractor,
            weights_hash, classifier_accuracy (LeNet only), anchors {real, noise, real_n, noise_n}.
        validation_record: the same of the last validation (``val/fcd_lenet``), without anchors.
        seconds: wall time spent here so far, the classifier's training included.

    Args:
        every_n_epochs: epochs between two evaluations during fit (the last epoch is always one); 0: only at test.
        every_n_updates: evaluate at the first end of validation after so many more updates instead.
        n_samples: samples drawn at validation.
        n_test_samples: samples drawn at test.
        extractor: "lenet" (a classifier trained on the data set, cached) or "inception".
        feature_extractor_weights_path: file of Inception weights; None: torch-fidelity's own download.
        metrics: some of fid, is, kid, prdc, modes; None: all that the extractor allows (modes needs lenet).
        val_metrics: the same at validation; None: as ``metrics``.
        n_real: real images to measure against, at most; None: the whole split.
        batch_size: samples in a chunk.
        classifier_seed: of the domain classifier's training, not of the run.

    Raises:
        UsageError: an argument is out of range, or (in ``setup``) the model does not sample, the data has no labels, or
            the Inception weights cannot be had.
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        every_n_updates: int | None = None,
        n_samples: int = 1000,
        n_test_samples: int = 10_000,
        extractor: Literal["lenet", "inception"] = "lenet",
        feature_extractor_weights_path: str | None = None,
        metrics: list[str] | None = None,
        val_metrics: list[str] | None = None,
        n_real: int | None = None,
        batch_size: int = 250,
        classifier_seed: int = 0,
    ) -> None:
        _check("every_n_epochs", every_n_epochs, 0)
        _check("every_n_updates", every_n_updates, 1)
        _check("n_samples", n_samples, 10)
        _check("n_test_samples", n_test_samples, 10)
        _check("n_real", n_real, 2)
        _check("batch_size", batch_size, 1)
        if extractor not in ("lenet", "inception"):
            raise UsageError(f"extractor = {extractor!r}; accepted: lenet, inception")
        allowed = METRICS if extractor == "lenet" else IMAGE_METRICS
        for metric in (*(metrics or ()), *(val_metrics or ())):
            if metric not in allowed:
                raise UsageError(f"metric {metric!r} with extractor {extractor}; accepted: {', '.join(allowed)}")
        self.every_n_epochs, self.every_n_updates = every_n_epochs, every_n_updates
        self.n_samples = {"val": n_samples, "test": n_test_samples}
        self.metrics = {"test": tuple(metrics or allowed), "val": tuple(val_metrics or metrics or allowed)}
        self.extractor_name, self.weights_path = extractor, feature_extractor_weights_path
        self.n_real, self.batch_size, self.classifier_seed = n_real, batch_size, classifier_seed
        self.extractor: Extractor | None = None
        self.record: dict[str, dict[str, Any]] = {}
        self.validation_record: dict[str, dict[str, Any]] = {}
        self.seconds = 0.0
        self._last_update = 0
        self._extractor_of: str | None = None
        self._real: dict[str, RealStatistics] = {}

    # ---------------------------------------------------------------- hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "predict" or trainer.fast_dev_run:
            return
        if trainer.datamodule is None:
            raise UsageError("SampleQuality needs a DataModule of lit_gen.data; the Trainer was given none")
        with self._timed():
            if self._extractor_of != trainer.datamodule.fingerprint:
                self.extractor = self._load_extractor(trainer.datamodule, trainer.strategy.root_device)
                self._extractor_of, self._real = trainer.datamodule.fingerprint, {}

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._due(trainer):
            self._last_update = trainer.global_step
            self.validation_record = self._evaluate(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.fast_dev_run:
            self.record = self._evaluate(trainer, pl_module, "test")

    def state_dict(self) -> dict[str, Any]:
        return {"last_update": self._last_update}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._last_update = state_dict["last_update"]

    def _due(self, trainer: Trainer) -> bool:
        if trainer.sanity_checking or trainer.fast_dev_run:
            return False
        if trainer.state.fn != "fit":
            return True
        if self.every_n_updates is not None:
            return trainer.global_step // self.every_n_updates > self._last_update // self.every_n_updates
        epoch = trainer.current_epoch + 1
        return self.every_n_epochs > 0 and (epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs)

    # ---------------------------------------------------------------- measuring

    def _load_extractor(self, data: ImageSource, device: torch.device) -> Extractor:
        # Rank zero reads, downloads or trains; the others wait for the weights, or for its error.
        if self.extractor_name == "inception":
            weights = from_rank_zero(lambda: load_inception_weights(self.weights_path))
            extractor: Extractor = InceptionExtractor.from_state(weights)
        else:
            weights = from_rank_zero(lambda: classifier_weights(data, self.classifier_seed, device))
            extractor = LeNetExtractor.from_weights(data, weights)
        # Apple's GPU has no float64, in which the sums are kept.
        return extractor.to("cpu" if device.type == "mps" else device)

    def _evaluate(self, trainer: Trainer, model: LightningModule, stage: str) -> dict[str, dict[str, Any]]:
        with self._timed(), torch.no_grad():
            data, n = trainer.datamodule, self.n_samples[stage]
            real = self._real_statistics(data, stage, n)
            results = self._measure(real, stage, n, self._sample_chunks(model, stage, n))
            if stage == "test":
                self._add_anchors(results, data, real, n)
            about = {"split": stage, "extractor": self.extractor.name, "weights_hash": self.extractor.weights_hash}
            if isinstance(self.extractor, LeNetExtractor):
                about["classifier_accuracy"] = self.extractor.accuracy
            for result in results.values():
                result.update(about)
            results = {f"{stage}/{name}": result for name, result in results.items()}
            values = {name: result["value"] for name, result in results.items()}
            if isinstance(self.extractor, LeNetExtractor):
                values[f"{stage}/lenet_accuracy"] = self.extractor.accuracy
        # Equal on all ranks already.
        model.log_dict(values, on_step=False, on_epoch=True, sync_dist=False, batch_size=1)
        return results

    def _real_statistics(self, data: ImageSource, split: str, n: int) -> RealStatistics:
        if split not in self._real:
            pairwise = n if any(metric in PAIRWISE for metric in self.metrics[split]) else 0
            self._real[split] = real_statistics(data, split, self.extractor, self.n_real, pairwise, self.batch_size)
        return self._real[split]

    def _measure(self, real: RealStatistics, stage: str, n: int, chunks: Chunks) -> dict[str, dict[str, Any]]:
        quality = QualityMetrics(self.extractor, real, n, self.metrics[stage])
        for index, images in chunks:
            quality.update(images, index)
        return quality.compute()

    def _sample_chunks(self, model: LightningModule, stage: str, n: int) -> Chunks:
        def draw(chunk: int, size: int) -> Tensor:
            generator = seeded_generator(run_seed(), "sample_quality", stage, chunk, device=model.device)
            return quantize(model.sample(size, generator=generator), model.spec.value_range)

        return self._deal(n, draw)

    def _deal(self, n: int, draw: Callable[[int, int], Tensor]) -> Chunks:
        """This rank's share of n samples: every world-size-th chunk."""
        starts = range(0, n, self.batch_size)
        for chunk in range(rank(), len(starts), world_size()):
            index = torch.arange(starts[chunk], min(n, starts[chunk] + self.batch_size))
            yield index, draw(chunk, len(index))

    # ---------------------------------------------------------------- anchors

    def _add_anchors(self, results: dict[str, dict[str, Any]], data: ImageSource, real: RealStatistics, n: int) -> None:
        metrics = self.metrics["test"]
        hash_ = self.extractor.weights_hash
        key = (data.name, data.fingerprint, self.extractor.name, hash_, n, self.n_real, metrics, self.batch_size)
        anchors = from_rank_zero(lambda: cache.load("anchors", key))
        if anchors is None:
            anchors = self._compute_anchors(data, real, n)
            if rank() == 0:
                cache.store("anchors", key, anchors)
        for name, result in results.items():
            result["anchors"] = {
                "real": anchors["real"][name],
                "noise": anchors["noise"][name],
                "real_n": anchors["real_n"],
                "noise_n": anchors["noise_n"],
            }

    def _compute_anchors(self, data: ImageSource, real: RealStatistics, n: int) -> dict[str, Any]:
        shape, train = data.spec.shape, min(n, data.num_examples("train"))
        images = (
            (index, images)
            for chunk, (index, images, _) in enumerate(clean_part(data, "train", train, self.batch_size))
            if chunk % world_size() == rank()
        )
        noise = self._deal(n, lambda chunk, size: noise_images(chunk, size, shape))
        measured = {
            "real": self._measure(real, "test", train, images),
            "noise": self._measure(real, "test", n, noise),
        }
        values = {kind: {name: entry["value"] for name, entry in found.items()} for kind, found in measured.items()}
        return {**values, "real_n": train, "noise_n": n}

    @contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start


def _check(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise UsageError(f"{name} = {value}; accepted: {least} or more")
