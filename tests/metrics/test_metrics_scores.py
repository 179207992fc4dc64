"""Inception Score, kernel distance, precision, recall, density and coverage against slow references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from lit_gen.metrics import InceptionScore, KernelDistance, PrecisionRecall, kernel_distance, precision_recall


@pytest.mark.parametrize("n", [10, 64, 97])
def test_inception_score_against_torch_fidelity(n: int) -> None:
    logits = 3 * torch.randn(n, 7)
    metric = InceptionScore(7, n)
    for index in reversed(torch.arange(n).split(9)):  # in any order
        metric.update(logits[index], index)
    found, expected = metric.compute(), isc_features_to_metric(logits)
    assert float(found.mean) == pytest.approx(expected["inception_score_mean"], rel=1e-9)
    assert float(found.std) == pytest.approx(expected["inception_score_std"], rel=1e-6)


def test_inception_score_of_certain_and_even_predictions() -> None:
    metric = InceptionScore(4, 40, splits=1)
    metric.update(1000 * torch.eye(4).repeat(10, 1), torch.arange(40))
    assert float(metric.compute().mean) == pytest.approx(4.0)


def test_inception_score_needs_a_sample_for_each_split() -> None:
    with pytest.raises(ValueError, match="n = 9"):
        InceptionScore(4, 9)


def kernel_distance_of_subsets(fake: Tensor, real: Tensor, subsets: int, m: int) -> list[float]:
    """The unbiased estimate, pair by pair."""
    random = np.random.RandomState(2020)
    values = []
    for _ in range(subsets):
        x = fake[random.choice(len(fake), m, replace=False)].double()
        y = real[random.choice(len(real), m, replace=False)].double()

        def k(a: Tensor, b: Tensor) -> float:
            return float((a @ b / len(a) + 1) ** 3)

        within = sum(k(z[i], z[j]) for z in (x, y) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
        values.append(within - 2 * sum(k(a, b) for a in x for b in y) / m**2)
    return values


@pytest.mark.parametrize("subsets", [2, 40])  # subset by subset, and all in one pass
def test_kernel_distance_pair_by_pair(subsets: int) -> None:
    fake, real = torch.randn(31, 5) + 1, torch.randn(24, 5)
    found = kernel_distance(fake, real, subsets=subsets, subset_size=6)
    expected = kernel_distance_of_subsets(fake, real, subsets, 6)
    assert float(found.mean) == pytest.approx(np.mean(expected), rel=1e-9)
    assert float(found.std) == pytest.approx(np.std(expected), rel=1e-9)


def test_kernel_distance_against_torch_fidelity() -> None:
    fake, real = torch.rand(300, 20), torch.randn(300, 20)
    metric = KernelDistance(real, 300, subset_size=100)
    for index in reversed(torch.arange(300).split(77)):
        metric.update(fake[index], index)
    expected = kid_features_to_metric(fake, real, kid_subset_size=100, verbose=False)
    assert float(metric.compute().mean) == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-5)


def slow_precision_recall(fake: Tensor, real: Tensor, k: int) -> dict[str, float]:
    def radius(x: Tensor, i: int) -> float:
        return sorted(float((x[i] - x[j]).norm()) for j in range(len(x)) if j != i)[k - 1]

    def inside(x: Tensor, y: Tensor) -> list[list[bool]]:
        radii = [radius(x, i) for i in range(len(x))]
        return [[float((x[i] - point).norm()) <= radii[i] for point in y] for i in range(len(x))]

    in_real, in_fake = inside(real, fake), inside(fake, real)
    n, m = len(fake), len(real)
    return {
        "precision": sum(any(in_real[i][j] for i in range(m)) for j in range(n)) / n,
        "recall": sum(any(in_fake[j][i] for j in range(n)) for i in range(m)) / m,
        "density": sum(map(sum, in_real)) / (k * n),
        "coverage": sum(map(any, in_real)) / m,
    }


@pytest.mark.parametrize("chunk", [7, 10_000])
def test_precision_recall_point_by_point(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_gen.metrics.prdc._CHUNK_ELEMENTS", chunk * 30)
    fake, real = 0.7 * torch.randn(30, 3) + 0.3 + 50, torch.randn(41, 3) + 50
    metric = PrecisionRecall(real, 30, k=5)
    metric.update(fake, torch.arange(30))
    assert {name: float(value) for name, value in metric.compute().items()} == pytest.approx(
        slow_precision_recall(fake, real, 5)
    )


def test_precision_recall_of_a_collapsed_generator() -> None:
    real = torch.randn(200, 2)
    found = precision_recall(real[:1] + 1e-4 * torch.randn(200, 2), real)
    assert found["precision"] == 1.0
    assert found["recall"] < 0.05
    assert found["coverage"] < 0.3


def test_precision_recall_of_the_same_set() -> None:
    real = torch.randn(100, 4)
    assert {float(v) for n, v in precision_recall(real, real).items() if n != "density"} == {1.0}
