"""Images per second into a training step: lit_gen's pipeline beside torchvision's, on MNIST at 32x32.

Both deliver shuffled float32 batches [B, 1, 32, 32] in [-1, 1] with labels. The rounds are interleaved and every ratio is
that of one round, so that a machine which slows down for a while slows down both.

    python benchmarks/data_pipeline.py --root ../shared/data
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.record import write_record
from lit_gen.core.errors import UsageError
from lit_gen.data import MNIST


def images_per_second(batches: Iterable, pixels_and_labels: Callable, limit: int, size: int) -> float:
    """Rate over the first ``limit`` images, the start of an epoch (and of its workers) included."""
    seen, start = 0, time.perf_counter()
    for batch in batches:
        pixels, labels = pixels_and_labels(batch)
        assert pixels.dtype == torch.float32
        assert pixels.shape[1:] == (1, size, size)
        seen += len(labels)
        if seen >= limit:
            break
    return seen / (time.perf_counter() - start)


def torchvision_loader(root: str, size: int, batch: int, workers: int) -> DataLoader:
    """The pipeline of torchvision's own examples: Dataset, transforms of one image, DataLoader."""
    steps = [transforms.Resize(size), transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))]
    data = datasets.MNIST(root, train=True, transform=transforms.Compose(steps))
    return DataLoader(data, batch, shuffle=True, num_workers=workers)


def measure(root: str, size: int, batch: int, rounds: int, limit: int) -> dict[str, list[float]]:
    """Images per second of every contender, one value a round."""
    data = MNIST(root, val_size=0, image_size=size, value_range="symmetric", batch_size=batch)
    data.prepare_data()
    start = time.perf_counter()
    data.setup()
    print(f"lit_gen reads and resizes the whole data set once: {time.perf_counter() - start:.2f} s")
    ours = data.train_dataloader()
    theirs = {workers: torchvision_loader(root, size, batch, workers) for workers in (0, 2)}
    rates: dict[str, list[float]] = {"lit_gen": [], "torchvision, 0 workers": [], "torchvision, 2 workers": []}
    for each in range(rounds):
        rates["lit_gen"].append(images_per_second(ours, lambda b: (b.image, b.label), 60_000, size))
        for workers, loader in theirs.items():
            rates[f"torchvision, {workers} workers"].append(images_per_second(loader, lambda b: b, limit, size))
        print(f"round {each + 1}/{rounds}: " + ", ".join(f"{name} {rate[-1]:,.0f}/s" for name, rate in rates.items()))
    return rates


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="data", help="folder that holds MNIST/raw (default: %(default)s)")
    parser.add_argument("--size", type=int, default=32, help="side of the images")
    parser.add_argument("--batch", type=int, default=128, help="batch size")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    parser.add_argument("--limit", type=int, default=20_000, help="images of torchvision's epoch to time in a round")
    parser.add_argument("--record", action="store_true", help="write results/benchmarks/data_pipeline.json")
    args = parser.parse_args()
    try:
        rates = measure(args.root, args.size, args.batch, args.rounds, args.limit)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"\nMNIST at {args.size}x{args.size}, batch {args.batch}, {torch.get_num_threads()} threads, medians")
    print(f"{'pipeline':<24}{'images/s':>12}{'lit_gen is faster by':>24}")
    result = {}
    for name, rate in rates.items():
        ratios = [mine / other for mine, other in zip(rates["lit_gen"], rate)]
        result[name] = {"images_per_second": statistics.median(rate), "ratio": statistics.median(ratios)}
        spread = f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
        print(f"{name:<24}{statistics.median(rate):>12,.0f}{spread if name != 'lit_gen' else '':>24}")
    if args.record:
        row = {
            "what": f"data pipeline: MNIST at {args.size}x{args.size}, batch {args.batch}",
            "ours": f"{result['lit_gen']['images_per_second']:,.0f} images/s",
            "theirs": f"torchvision, 0 workers {result['torchvision, 0 workers']['images_per_second']:,.0f} images/s",
            "ratio": result["torchvision, 0 workers"]["ratio"],
            "note": f"median of {args.rounds} interleaved rounds; target 20; "
            f"against 2 workers {result['torchvision, 2 workers']['ratio']:.0f}",
        }
        write_record("data_pipeline", [row], rates)
    return 0


if __name__ == "__main__":
    sys.exit(main())
