"""Real images as the metrics see them: a bounded, evenly spread part of a split, and its statistics, computed once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lit_gen.core.distributed import from_rank_zero, rank, world_size
from lit_gen.core.errors import UsageError
from lit_gen.core.images import ImageSpec
from lit_gen.metrics import cache
from lit_gen.metrics.extractors import Extractor
from lit_gen.metrics.features import FeatureStore
from lit_gen.metrics.frechet import FeatureMoments, Moments
from lit_gen.metrics.modes import ClassCounts


class ImageSource(Protocol):
    """What the metrics ask of a DataModule; see ``lit_gen.data``."""

    name: str
    fingerprint: str

    @property
    def spec(self) -> ImageSpec: ...

    def num_examples(self, split: str) -> int: ...

    def clean_batches(self, split: str, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]: ...


def clean_part(
    data: ImageSource, split: str, n: int | None, batch_size: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """At most n images of a split, evenly spread over it (a split may be sorted by class), in fixed chunks.

    Yields:
        Numbers 0 .. n-1 of the images (int64 ``[m]``), images (uint8 ``[m, C, H, W]``) and labels (int64 ``[m]``).
    """
    total = data.num_examples(split)
    n = total if n is None else min(n, total)
    wanted = torch.arange(n) * total // n if n else torch.arange(0)
    start = 0
    for images, labels in data.clean_batches(split, batch_size):
        stop = start + len(images)
        first, last = torch.searchsorted(wanted, torch.tensor([start, stop])).tolist()
        if last > first:
            rows = wanted[first:last] - start
            yield torch.arange(first, last), images[rows], labels[rows]
        start = stop


@dataclass(frozen=True)
class RealStatistics:
    """What is kept of the real images of one split.

    Args:
        moments: of the features of n images.
        class_counts: int64 ``[K]``, how often the extractor sees each class in them.
        features: float32 ``[M, D]`` of M <= n of them, evenly spread, for the pairwise metrics; M = 0 where not needed.
    """

    moments: Moments
    class_counts: Tensor
    features: Tensor


def real_statistics(
    data: ImageSource,
    split: str,
    extractor: Extractor,
    n: int | None = None,
    n_features: int = 0,
    batch_size: int = 250,
) -> RealStatistics:
    """Statistics of the real images; read from the cache where they were computed before, shared between processes.

    All processes must call this together: each extracts its share of the chunks.

    Args:
        data: where the images come from.
        split: "train", "val" or "test".
        extractor: its name and the hash of its weights are part of the cache's key.
        n: number of images at most; None: the whole split.
        n_features: number of images at most whose features are kept.
        batch_size: images in a chunk.

    Raises:
        UsageError: the split has fewer than two images.
    """
    total = data.num_examples(split)
    if total < 2:
        raise UsageError(
            f"the {split} split of {data.name} has {total} images; accepted: at least 2 to measure against"
        )
    n = min(n or total, total)
    n_features = min(n_features, n)
    key = (data.name, data.fingerprint, split, extractor.name, extractor.weights_hash, n, n_features)
    kept = from_rank_zero(lambda: cache.load("real", key))
    if kept is None:
        kept = _compute(data, split, extractor, n, n_features, batch_size)
        if rank() == 0:
            cache.store("real", key, kept)
    moments = Moments(n, kept["mean"], kept["covariance"])
    return RealStatistics(moments, kept["class_counts"], kept["features"])


def _compute(
    data: ImageSource, split: str, extractor: Extractor, n: int, n_features: int, batch_size: int
) -> dict[str, Tensor]:
    device = extractor.device
    moments = FeatureMoments(extractor.feature_dim).to(device)
    classes = ClassCounts(extractor.num_classes).to(device)
    store = FeatureStore(extractor.feature_dim, n_features).to(device)
    pairwise = torch.full((n,), -1)
    if n_features:
        pairwise[torch.arange(n_features) * n // n_features] = torch.arange(n_features)
    for chunk, (index, images, _) in enumerate(clean_part(data, split, n, batch_size)):
        if chunk % world_size() == rank():
            features, logits = extractor(images)
            moments.update(features)
            classes.update(logits)
            row = pairwise[index]
            store.update(features[(row >= 0).to(device)], row[row >= 0])
    _, mean, covariance = moments.compute()
    return {
        "mean": mean,
        "covariance": covariance,
        "class_counts": classes.compute().cpu(),
        "features": store.compute().cpu(),
    }
