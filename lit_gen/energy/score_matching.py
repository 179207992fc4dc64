r"""Denoising score matching: an energy learns the gradient of the log density of noised data, with no chain at all.

For data x and :math:`\tilde x = x + \sigma \epsilon`, the minimum over functions s of
:math:`E \tfrac12 \lVert s(\tilde x) + \epsilon / \sigma \rVert^2` is the score of the noised data,
:math:`\nabla \log p_\sigma(\tilde x)`. Here :math:`s = -\nabla_x E`, which is a gradient by construction.
"""

from __future__ import annotations

import torch
from einops import reduce
from torch import Tensor, nn

from lit_gen.core.errors import require
from lit_gen.core.random import RowNoise
from lit_gen.energy.langevin_training import EnergyObjective, LangevinStep, energy_gradient, float32


def denoising_score_matching(network: nn.Module, image: Tensor, epsilon: Tensor, sigma: Tensor | float) -> Tensor:
    r"""The loss of every image, a function of the weights.

    .. math:: \tfrac12 \lVert \epsilon - \nabla E(x + \sigma \epsilon) \rVert^2
        = \tfrac{\sigma^2}{2} \Big\lVert s_\sigma(\tilde x) - \frac{x - \tilde x}{\sigma^2} \Big\rVert^2,
        \qquad s_\sigma = -\nabla E / \sigma

    summed over pixels. The density at noise level sigma is :math:`p_\sigma \propto e^{-E(x)/\sigma}`, one network for all
    levels.

    Args:
        network: E.
        image: x.
        epsilon: standard normal noise.
        sigma: one number, or one for each image ``[B, 1, 1, 1]``.

    Shape:
        image, epsilon ``[B, C, H, W]``; result ``[B]``.

    References:
        Vincent, A connection between score matching and denoising autoencoders, Neural Computation 2011, equation 10.
        Song and Ermon, Generative modeling by estimating gradients of the data distribution, NeurIPS 2019
        (arXiv:1907.05600), equations 5 and 6 with weights :math:`\lambda(\sigma) = \sigma^2`; the division of one
        network's output by sigma is from their Improved techniques, NeurIPS 2020 (arXiv:2006.09011), section 3.3.
    """
    # Second derivatives in 16 bits are worthless, and autocast would cast inside the network.
    with torch.inference_mode(False), torch.enable_grad(), float32(image.device):
        noisy = (image + sigma * epsilon).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(network(noisy).sum(), noisy, create_graph=True)
        return 0.5 * reduce((epsilon - gradient).square(), "b c h w -> b", "sum")


@torch.no_grad()
def score_error(network: nn.Module, image: Tensor, epsilon: Tensor, sigma: float, nats: float = 1.0) -> Tensor:
    r"""How far an energy is from the score of data with noise sigma: :math:`\lVert \epsilon + \sigma s \rVert^2 / D`.

    It is 1 where s = 0, and smallest for the true score. The monitor of every training: it needs neither log Z nor chains.

    Args:
        network: E.
        image: x.
        epsilon: standard normal noise.
        sigma: the noise level.
        nats: :math:`s = -\mathrm{nats} \cdot \nabla E`.

    Shape:
        image, epsilon ``[B, C, H, W]``; result ``[B]``.
    """
    gradient = energy_gradient(network, image + sigma * epsilon)
    return reduce((epsilon - sigma * nats * gradient).square(), "b c h w -> b", "mean")


def tweedie(network: nn.Module, image: Tensor, sigma: float, nats: float = 1.0) -> Tensor:
    r"""The mean of the clean image given a noised one, :math:`E[x | \tilde x] = \tilde x + \sigma^2 s(\tilde x)`.

    Exact where s is the score of the data with noise of that sigma.

    References:
        Robbins, An empirical Bayes approach to statistics, 1956. Efron, Tweedie's formula and selection bias, JASA 2011.
    """
    return image - sigma**2 * nats * energy_gradient(network, image) if sigma else image


class DenoisingScoreMatching(EnergyObjective):
    r"""Denoising score matching at one noise level or at a ladder of them; samples by annealed Langevin dynamics.

    The levels are :math:`\sigma_1 > \dots > \sigma_L` in geometric progression, one drawn for every image. Sampling spends
    the same number of steps at every level, from the largest to the smallest, with steps of size
    :math:`\alpha_i = r \sigma_i^2`.

    Args:
        sigma_min: the smallest level.
        sigma_max: the largest level, None for ``sigma_min`` alone. Chains begin with so much noise on uniform noise, which must
            look like so much noise on data: where it is too small they never find the data.
        levels: L.
        step_ratio: r; Song and Ermon's epsilon over the square of their smallest level is 0.2.

    Raises:
        UsageError: a hyper-parameter is out of range.

    References:
        As in :func:`denoising_score_matching`; algorithm 1 of Song and Ermon 2019. Several levels for an energy: Li, Chen and
        Sommer, Learning energy-based models in high-dimensional spaces with multi-scale denoising score matching, 2019
        (arXiv:1910.07762).
    """

    second_order = True

    def __init__(
        self,
        sigma_min: float = 0.1,
        sigma_max: float | None = 1.0,
        levels: int = 10,
        step_ratio: float = 0.2,
    ) -> None:
        require(sigma_min > 0, "sigma_min", sigma_min, "sigma_min > 0")
        require(sigma_max is None or sigma_max >= sigma_min, "sigma_max", sigma_max, "null or sigma_max >= sigma_min")
        require(levels >= 1, "levels", levels, "an integer of 1 or more")
        require(step_ratio > 0, "step_ratio", step_ratio, "step_ratio > 0")
        self.sigmas = torch.tensor([sigma_min], dtype=torch.float64)
        if sigma_max is not None and levels > 1:
            self.sigmas = torch.logspace(0, 1, levels, base=sigma_min / sigma_max, dtype=torch.float64) * sigma_max
        self.step_ratio, self.sigma, self.nats = step_ratio, sigma_min, 1 / sigma_min
        self.spread = self.sigmas[0].item()  # the network has seen nothing but data with noise

    def schedule(self, steps: int) -> list[LangevinStep]:
        levels = [self.sigmas[i * len(self.sigmas) // steps].item() for i in range(steps)]
        # the gradient of E / sigma: sigma in the step's size is the square over sigma
        return [LangevinStep(self.step_ratio * s, self.step_ratio**0.5 * s, s) for s in levels]

    def terms(self, network: nn.Module, image: Tensor, noise: RowNoise, negatives: Tensor | None) -> dict[str, Tensor]:
        level = noise.integers(len(self.sigmas), 1, 1, 1)
        sigma = self.sigmas.to(image.device, torch.float32)[level]
        epsilon = noise.normal(*image.shape[1:])
        return {"loss": denoising_score_matching(network, image, epsilon, sigma).mean()}
