"""All measures of sample quality on one extractor's features, updated chunk by chunk on any number of processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_gen.core.random import seeded_generator
from lit_gen.metrics.extractors import Extractor
from lit_gen.metrics.features import FeatureStore
from lit_gen.metrics.frechet import FrechetDistance
from lit_gen.metrics.inception_score import InceptionScore
from lit_gen.metrics.kernel import kernel_distance
from lit_gen.metrics.modes import ModeCount
from lit_gen.metrics.prdc import precision_recall
from lit_gen.metrics.real import RealStatistics

METRICS = ("fid", "is", "kid", "prdc", "modes")
"""What can be asked for."""

PAIRWISE = ("kid", "prdc")
"""Those that keep the features of all samples in memory (4 bytes x samples x dimensions, on each process)."""


def metric_name(metric: str, extractor: str) -> str:
    """Name under which a value is reported: ``fid``, ``is`` and ``kid`` are Inception's alone.

    A domain classifier's are called after it: ``fcd_lenet``, ``is_lenet``, ``kid_lenet``, ``precision_lenet`` ...
    """
    if extractor == "inception" or metric.startswith("modes"):
        return metric
    return f"{'fcd' if metric == 'fid' else metric}_{extractor}"


class QualityMetrics:
    """Measures n samples against the statistics of real images.

    All processes build it alike and share the samples; :meth:`compute` is called by all together and gives the same on
    all, whatever the number of processes.

    Args:
        extractor: gives features and class scores.
        real: statistics of the real images on the same extractor; with features where ``kid`` or ``prdc`` is asked for.
        n: number of samples in all.
        metrics: some of ``fid``, ``is``, ``kid``, ``prdc``, ``modes``.
    """

    def __init__(self, extractor: Extractor, real: RealStatistics, n: int, metrics: tuple[str, ...] = METRICS) -> None:
        device = extractor.device
        self.extractor, self.real, self.n, self.metrics = extractor, real, n, tuple(metrics)
        self.fid = FrechetDistance(real.moments).to(device) if "fid" in metrics else None
        self.inception_score = (
            InceptionScore(extractor.num_classes, n, min(10, n)).to(device) if "is" in metrics else None
        )
        self.modes = ModeCount(real.class_counts).to(device) if "modes" in metrics else None
        pairwise = any(metric in PAIRWISE for metric in metrics)
        self.store = FeatureStore(extractor.feature_dim, n).to(device) if pairwise else None

    def update(self, images: Tensor, index: Tensor) -> None:
        """Adds samples.

        Args:
            images: uint8 ``[N, C, H, W]``.
            index: int64 ``[N]``, which of the n samples they are; each exactly once over all processes.
        """
        features, logits = self.extractor(images)
        if self.fid is not None:
            self.fid.update(features)
        if self.inception_score is not None:
            self.inception_score.update(logits, index)
        if self.modes is not None:
            self.modes.update(logits)
        if self.store is not None:
            self.store.update(features, index)

    def compute(self) -> dict[str, dict[str, Any]]:
        """Reported name -> ``{"value", "n_real", "n_fake"}``, and ``"std"`` where the value is a mean over subsets."""
        n = self.real.moments.n
        results: dict[str, dict[str, Any]] = {}

        def add(name: str, value: Tensor, n_real: int | None = n, **more: float) -> None:
            reported = {"value": float(value), **more, "n_real": n_real, "n_fake": self.n}
            results[metric_name(name, self.extractor.name)] = reported

        if self.fid is not None:
            add("fid", self.fid.compute())
        if self.inception_score is not None:
            score = self.inception_score.compute()
            add("is", score.mean, None, std=float(score.std))
        if self.store is not None:
            fake, real = self.store.compute(), self.real.features.to(self.extractor.device)
            if "kid" in self.metrics:
                distance = kernel_distance(fake, real)
                add("kid", distance.mean, len(real), std=float(distance.std))
            if "prdc" in self.metrics:
                for name, value in precision_recall(fake, real).items():
                    add(name, value, len(real))
        if self.modes is not None:
            for name, value in self.modes.compute().items():
                add(name, value, n if name == "modes_kl" else None)
        return results


def noise_images(chunk: int, n: int, shape: tuple[int, int, int]) -> Tensor:
    """Uniform noise, uint8 ``[n, C, H, W]``: the anchor of a generator that has learnt nothing."""
    return torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=seeded_generator("noise_anchor", chunk))
