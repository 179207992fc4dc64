"""Time of one FID from 5,000 + 5,000 features of 2,048 dimensions, beside torchmetrics' arithmetic on the same features.

Both fold the features into running float64 sums, batch by batch, and then compute the distance; the two are timed in
turn, round by round, and the median of the rounds is printed.

    python benchmarks/fid.py [--samples 5000] [--dim 2048] [--rounds 3] [--record]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.record import write_record
from lit_gen.metrics import FeatureMoments, FrechetDistance

BATCH_SIZE = 250


class Pass(nn.Module):
    """Hands torchmetrics the features as they are, in place of Inception."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def ours(real: Tensor, fake: Tensor) -> tuple[float, float, float]:
    """Value, seconds to fold in the features, seconds to compute."""
    start = time.perf_counter()
    moments = FeatureMoments(real.shape[1])
    for part in real.split(BATCH_SIZE):
        moments.update(part)
    metric = FrechetDistance(moments.compute())
    for part in fake.split(BATCH_SIZE):
        metric.update(part)
    folded = time.perf_counter()
    value = float(metric.compute())
    return value, folded - start, time.perf_counter() - folded


def theirs(real: Tensor, fake: Tensor) -> tuple[float, float, float]:
    """The same of torchmetrics."""
    start = time.perf_counter()
    metric = FrechetInceptionDistance(feature=Pass(real.shape[1])).set_dtype(torch.float64)
    for part in real.split(BATCH_SIZE):
        metric.update(part, real=True)
    for part in fake.split(BATCH_SIZE):
        metric.update(part, real=False)
    folded = time.perf_counter()
    value = float(metric.compute())
    return value, folded - start, time.perf_counter() - folded


def features(n: int, dim: int) -> tuple[Tensor, Tensor]:
    """Non-negative, correlated features with a decaying spectrum, as a network's last pooling layer gives them."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(dim, dim, generator=generator) * torch.linspace(1, 0.05, dim) / dim**0.5
    real = torch.relu(torch.randn(n, dim, generator=generator) @ mixing + 0.1)
    fake = torch.relu(1.1 * torch.randn(n, dim, generator=generator) @ mixing.roll(3, 1) + 0.2)
    return real, fake


def main() -> None:
    parser = argparse.ArgumentParser(description="time of one FID beside torchmetrics'")
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="write results/benchmarks/fid.json")
    options = parser.parse_args()
    real, fake = features(options.samples, options.dim)

    contestants: dict[str, Callable[[Tensor, Tensor], tuple[float, float, float]]] = {"ours": ours, "theirs": theirs}
    rounds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, contestant in contestants.items():
            rounds[name].append(contestant(real, fake))

    def total(name: str) -> float:
        return statistics.median(fold + compute for _, fold, compute in rounds[name])

    def compute(name: str) -> float:
        return statistics.median(seconds for _, _, seconds in rounds[name])

    pairs = zip(rounds["ours"], rounds["theirs"])
    value, reference = rounds["ours"][0][0], rounds["theirs"][0][0]
    result = {
        "samples": options.samples,
        "dim": options.dim,
        "threads": torch.get_num_threads(),
        "seconds": total("ours"),
        "torchmetrics_seconds": total("theirs"),
        "ratio": statistics.median((a[1] + a[2]) / (b[1] + b[2]) for a, b in pairs),
        "compute_seconds": compute("ours"),
        "torchmetrics_compute_seconds": compute("theirs"),
        "compute_ratio": statistics.median(a[2] / b[2] for a, b in zip(rounds["ours"], rounds["theirs"])),
        "value": value,
        "relative_difference": abs(value - reference) / abs(reference),
    }
    print(f"one FID from {options.samples} + {options.samples} features x {options.dim}, {result['threads']} threads")
    print(f"  ours          {result['seconds']:.2f} s  (compute alone {result['compute_seconds']:.2f} s)")
    print(f"  torchmetrics  {result['torchmetrics_seconds']:.2f} s  ({result['torchmetrics_compute_seconds']:.2f} s)")
    print(f"  ours / torchmetrics  {result['ratio']:.2f}  (compute alone {result['compute_ratio']:.2f})")
    print(f"  values differ by {result['relative_difference']:.1e} of {value:.6g}")
    if options.record:
        row = {
            "what": f"one FID from {options.samples:,} + {options.samples:,} features x {options.dim:,}",
            "ours": f"{result['seconds']:.2f} s",
            "theirs": f"torchmetrics {result['torchmetrics_seconds']:.2f} s",
            "ratio": result["ratio"],
            "note": f"of the times, median of {options.rounds} rounds; values differ by {result['relative_difference']:.0e}",
        }
        write_record("fid", [row], rounds)


if __name__ == "__main__":
    main()
