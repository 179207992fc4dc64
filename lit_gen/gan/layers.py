"""Layers of the adversarial networks: a choice of normalisation, virtual batch norm, minibatch discrimination."""

from __future__ import annotations

from typing import Literal

import torch
from einops import einsum, rearrange
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from lit_gen.core.errors import UsageError

Normalisation = Literal["none", "batch", "layer", "virtual"]


class VirtualBatchNorm(nn.Module):
    r"""Normalises each row by the statistics of a fixed reference batch and of that row itself.

    With the reference batch of R rows, and :math:`\mu_i, s_i` the mean and mean square of row i over its positions,

    .. math::
        \hat\mu_i = \tfrac{1}{R+1} \mu_i + \tfrac{R}{R+1} \mu_\mathrm{ref}, \quad
        \hat s_i = \tfrac{1}{R+1} s_i + \tfrac{R}{R+1} s_\mathrm{ref}, \quad
        y_i = \gamma \frac{x_i - \hat\mu_i}{\sqrt{\hat s_i - \hat\mu_i^2 + \varepsilon}} + \beta

    so that a row's output no longer depends on the other rows of its batch. The reference rows are normalised by their
    own statistics. They travel through the network in front of the batch: the first R rows of the input are they.

    Args:
        channels: C.
        reference_size: R.
        eps: the epsilon.

    Shape:
        input and output: ``[R + B, C, *]``.

    References:
        Salimans et al., Improved techniques for training GANs, NeurIPS 2016 (arXiv:1606.03498), section 3.5.
    """

    def __init__(self, channels: int, reference_size: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.reference_size, self.eps = reference_size, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        rows = rearrange(x, "n c ... -> n c (...)")
        mean, square = rows.mean(dim=2), rows.square().mean(dim=2)  # [R + B, C]
        mean, square = self._mix(mean), self._mix(square)
        scale = self.weight * torch.rsqrt(square - mean.square() + self.eps)
        rows = (rows - mean[..., None]) * scale[..., None] + self.bias[:, None]
        return rows.view_as(x)

    def _mix(self, statistic: Tensor) -> Tensor:
        size = self.reference_size
        reference = statistic[:size].mean(dim=0, keepdim=True)
        own = torch.lerp(reference, statistic[size:], 1.0 / (size + 1))
        return torch.cat([reference.expand(size, -1), own])


class MinibatchDiscrimination(nn.Module):
    r"""Lets the discriminator see how close the rows of a batch are to each other, so that a collapsed generator shows.

    Features :math:`f(x_i) \in R^A` are multiplied by a tensor :math:`T \in R^{A \times B \times C}` to matrices
    :math:`M_i \in R^{B \times C}`, and

    .. math::
        c_b(x_i, x_j) = \exp(-\lVert M_{i,b} - M_{j,b} \rVert_{L_1}), \qquad
        o(x_i)_b = \sum_{j=1}^n c_b(x_i, x_j), \qquad
        \text{output} = [f(x_i), o(x_i)]

    The sum contains :math:`c_b(x_i, x_i) = 1`, as in the paper. Data and generated images come in separate batches.

    Args:
        features: A.
        kernels: B, the number of similarities.
        kernel_dim: C.

    Shape:
        input: ``[n, A]``; output: ``[n, A + B]``.

    References:
        Salimans et al., Improved techniques for training GANs, NeurIPS 2016 (arXiv:1606.03498), section 3.2.
    """

    def __init__(self, features: int, kernels: int, kernel_dim: int = 5) -> None:
        super().__init__()
        self.tensor = nn.Parameter(0.05 * torch.randn(features, kernels, kernel_dim))

    def forward(self, features: Tensor) -> Tensor:
        matrices = einsum(features, self.tensor, "n a, a b c -> n b c")
        distance = (matrices[:, None] - matrices[None]).abs().sum(dim=3)  # [n, n, B]
        similarity = torch.exp(-distance).sum(dim=1)  # [n, B]
        return torch.cat([features, similarity.to(features.dtype)], dim=1)


def normalise(kind: Normalisation, channels: int, spatial: bool = True, reference_size: int = 0) -> nn.Module:
    """The normalisation layer of that name.

    Args:
        kind: ``none``; ``batch``; ``layer`` (over channels and positions of one row, gain and bias for each channel,
            as in WGAN-GP); ``virtual`` (generators only).
        channels: C.
        spatial: the input is ``[B, C, H, W]`` rather than ``[B, C]``.
        reference_size: rows of the reference batch, for ``virtual``.

    Raises:
        UsageError: no such normalisation.
    """
    if kind == "none":
        return nn.Identity()
    if kind == "batch":
        return nn.BatchNorm2d(channels) if spatial else nn.BatchNorm1d(channels)
    if kind == "layer":
        return nn.GroupNorm(1, channels)
    if kind == "virtual" and reference_size > 0:
        return VirtualBatchNorm(channels, reference_size)
    raise UsageError(f"normalisation = {kind!r}; accepted: none, batch, layer, and virtual in a generator")


def constrain_spectrum(network: nn.Module) -> None:
    r"""Divides the weight of every linear, convolutional and embedding layer by its largest singular value, in place.

    One power iteration for each forward pass in training mode.

    References:
        Miyato et al., Spectral normalization for generative adversarial networks, ICLR 2018 (arXiv:1802.05957).
    """
    for module in list(network.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            parametrizations.spectral_norm(module)
