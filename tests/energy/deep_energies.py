"""Energies whose density, score and normaliser are known, and a density in the plane to learn."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from lit_gen.core.images import ImageSpec
from lit_gen.core.random import BatchKey, RowNoise, derive_seed

PLANE = ImageSpec((1, 1, 2), 0, (-1.0, 1.0))


class GaussianEnergy(nn.Module):
    """E(x) = scale / 2 (x - mean)^T precision (x - mean), for images of any shape."""

    def __init__(self, mean: Tensor, precision: Tensor, scale: float = 1.0) -> None:
        super().__init__()
        self.mean, self.precision, self.scale = nn.Parameter(mean.clone()), nn.Parameter(precision.clone()), scale

    def forward(self, image: Tensor) -> Tensor:
        x = image.flatten(1) - self.mean
        return 0.5 * self.scale * ((x @ self.precision) * x).sum(1)


def gauss_hermite(nodes: int, dims: int) -> tuple[Tensor, Tensor]:
    """Points ``[nodes^dims, dims]`` and weights of the standard normal; exact for polynomials of degree 2 nodes - 1."""
    point, weight = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(nodes))
    weight = weight / weight.sum()
    points = torch.cartesian_prod(*[point] * dims).view(-1, dims)
    return points, torch.cartesian_prod(*[weight] * dims).view(-1, dims).prod(1)


def row_noise(rows: int, seed: int = 1, name: str = "model", start: int = 0, total: int | None = None) -> RowNoise:
    return RowNoise(BatchKey(derive_seed(seed), start, total or rows), rows, name)


CENTRES = torch.tensor([[-0.6, -0.3], [0.5, 0.5], [0.3, -0.6]])
SPREAD = 0.15


def plane_data(rows: int, seed: int) -> Tensor:
    """Draws from a mixture of three Gaussians, as images ``[rows, 1, 1, 2]``."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(3, (rows,), generator=generator)
    return (CENTRES[which] + SPREAD * torch.randn(rows, 2, generator=generator)).view(rows, 1, 1, 2)


def plane_kl(energy, sigma: float) -> float:
    """KL(p || q) in nats by sums over a grid: p is the mixture with noise sigma added, q = exp(-energy) / Z."""
    axis = torch.linspace(-2.5, 2.5, 201, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    variance = SPREAD**2 + sigma**2
    square = (x[:, None] - CENTRES.double()).square().sum(-1)
    log_p = (-square / (2 * variance)).logsumexp(1) - math.log(3 * 2 * math.pi * variance)
    with torch.no_grad():
        log_q = -energy(x.float().view(-1, 1, 1, 2)).double()
    log_q = log_q - log_q.logsumexp(0) - 2 * math.log(axis[1] - axis[0])
    return ((log_p - log_q) * log_p.exp()).sum().item() * (axis[1] - axis[0]).item() ** 2
