"""Fidelity and diversity apart: precision and recall, density and coverage."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gen.metrics.features import FeatureStore

_CHUNK_ELEMENTS = 4_000_000


class PrecisionRecall(FeatureStore):
    """Precision, recall, density and coverage of generated features; keeps them, see :class:`FeatureStore`.

    Args:
        real: real features ``[M, D]``.
        n: number of generated samples.
        k: number of neighbours that make a neighbourhood.
    """

    def __init__(self, real: Tensor, n: int, k: int = 5) -> None:
        super().__init__(real.shape[1], n)
        self.real, self.k = real, k

    def compute(self) -> dict[str, Tensor]:
        """The four values by name."""
        return precision_recall(super().compute(), self.real, self.k)


def precision_recall(fake: Tensor, real: Tensor, k: int = 5) -> dict[str, Tensor]:
    r"""Precision, recall, density and coverage.

    With :math:`B(x_i)` the closed ball around a sample that reaches its k-th nearest neighbour in its own set (itself not
    counted): precision is the fraction of generated samples inside any real ball, recall that of real samples inside any
    generated ball, density :math:`\frac{1}{kN} \sum_j \sum_i 1[y_j \in B(x_i)]` the number of real balls a generated
    sample lies in, relative to k, and coverage the fraction of real balls with a generated sample inside.

    Distances are computed in chunks of bounded memory; the work grows with N M + N^2 + M^2.

    Args:
        fake: generated features ``[N, D]``.
        real: real features ``[M, D]``; values depend on N and M, compare them at equal numbers only.
        k: lowered to the number of other samples where there are fewer.

    Returns:
        float64 scalars by name: ``precision``, ``recall``, ``density``, ``coverage``.

    References:
        Kynkäänniemi et al., Improved precision and recall metric, NeurIPS 2019, arXiv:1904.06991, equations 1 and 2.
        Naeem et al., Reliable fidelity and diversity metrics, ICML 2020, arXiv:2002.09797, equations 3 and 4.
    """
    k = min(k, len(fake) - 1, len(real) - 1)
    # Distances come from inner products: centred, in float64, they keep their digits.
    centre = real.double().mean(0)
    x, y = real.double() - centre, fake.to(real.device).double() - centre
    real_radius, fake_radius = _radii(x, k), _radii(y, k)
    inside_any_real = torch.zeros(len(y), dtype=torch.bool, device=x.device)
    balls = torch.zeros(len(y), dtype=torch.int64, device=x.device)
    recalled, covered = 0, 0
    for part, radius in _chunks(x, len(y), real_radius):
        distance = _squared_distances(part, y)  # [real, fake]
        inside = distance <= radius[:, None]
        inside_any_real |= inside.any(0)
        balls += inside.sum(0)
        covered += int(inside.any(1).sum())
        recalled += int((distance <= fake_radius).any(1).sum())
    return {
        "precision": inside_any_real.double().mean(),
        "recall": x.new_tensor(recalled / len(x)),
        "density": balls.double().mean() / k,
        "coverage": x.new_tensor(covered / len(x)),
    }


def _chunks(rows: Tensor, columns: int, *more: Tensor) -> zip:
    size = max(1, _CHUNK_ELEMENTS // columns)
    return zip(*(tensor.split(size) for tensor in (rows, *more)))


def _radii(x: Tensor, k: int) -> Tensor:
    """Squared distance ``[N]`` of each sample to its k-th nearest other sample."""
    # The nearest of all is the sample itself.
    return torch.cat([_squared_distances(part, x).kthvalue(k + 1, dim=1).values for (part,) in _chunks(x, len(x))])


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    return torch.addmm(y.square().sum(1)[None], x, y.T, alpha=-2.0).add_(x.square().sum(1)[:, None])
