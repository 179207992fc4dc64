r"""Maximum likelihood by Langevin dynamics: the dynamics, the persistent chains and the loss, as functions of tensors.

For :math:`p_\theta(x) = e^{-E_\theta(x)} / Z_\theta` the gradient of the log-likelihood is

.. math:: \nabla_\theta \log p_\theta(x) = -\nabla_\theta E_\theta(x) + E_{x' \sim p_\theta} \nabla_\theta E_\theta(x')

and the images x' come from chains that follow :math:`-\nabla_x E_\theta` with noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from lit_gen.core.errors import require
from lit_gen.core.images import ImageSpec
from lit_gen.core.random import RowNoise


class LangevinStep(NamedTuple):
    r"""One step of a schedule, :math:`x \leftarrow x - \tfrac{s}{2} \nabla E(x) + n\,\xi` with :math:`\xi \sim N(0, I)`.

    size: s.
    noise: n.
    sigma: how much noise images have at this stage, the data's included.
    """

    size: float
    noise: float
    sigma: float


def float32(device: torch.device) -> torch.autocast:
    """Autocast off: energies of hundreds of nats, of which a tenth matters, do not fit into 16 bits."""
    return torch.autocast(device.type, enabled=False)


def energy_gradient(network: nn.Module, image: Tensor) -> Tensor:
    """The gradient of every row's energy in its own pixels, ``[B, C, H, W]``, without a graph and in any grad mode.

    The weights neither get nor need a gradient: only the path to the pixels is differentiated.
    """
    with torch.inference_mode(False), torch.enable_grad(), float32(image.device):
        image = image.detach().clone().requires_grad_()
        return torch.autograd.grad(network(image).sum(), image)[0]


def langevin(
    network: nn.Module,
    image: Tensor,
    schedule: Sequence[LangevinStep],
    noise: RowNoise,
    clamp: float | None = None,
    project: Callable[[Tensor, LangevinStep], Tensor] | None = None,
) -> Tensor:
    """The images after the steps of a schedule, ``[B, C, H, W]``; no graph is kept from one step to the next.

    Args:
        network: the energy, in evaluation mode if its layers know the difference.
        image: where the chains are, ``[B, C, H, W]``; left as it is.
        schedule: the steps.
        noise: its source, for these rows.
        clamp: largest absolute value of a component of the gradient.
        project: applied after each step, e.g. to put known pixels back.
    """
    with torch.no_grad():
        for step in schedule:
            gradient = energy_gradient(network, image)
            if clamp is not None:
                gradient.clamp_(-clamp, clamp)
            image = image.add(gradient, alpha=-0.5 * step.size).add_(noise.normal_like(image), alpha=step.noise)
            if project is not None:
                image = project(image, step)
    return image


class EnergyObjective:
    """How a network's energy is trained, and how to sample from it.

    Attributes:
        nats: what the network's output is multiplied by to give -log p(x) up to a constant.
        sigma: standard deviation of the noise that training images carry (the least of them): p is the noised data's.
        spread: standard deviation of the noise that is added to uniform noise where a sample's chain begins.
        clamp: see :func:`langevin`.
        chains: number of persistent chains over all processes; 0 for none.
        second_order: training differentiates the energy's gradient.
    """

    nats: float = 1.0
    sigma: float = 0.0
    spread: float = 0.0
    clamp: float | None = None
    chains: int = 0
    second_order: ClassVar[bool] = False

    def schedule(self, steps: int) -> list[LangevinStep]:
        """The dynamics from uniform noise to samples in that many steps."""
        raise NotImplementedError(f"{type(self).__name__} must implement schedule")

    def initial_chains(self, spec: ImageSpec, generator: torch.Generator) -> Tensor:
        """The first state of all persistent chains, one row for each."""
        raise NotImplementedError(f"{type(self).__name__} has no chains")

    def negatives(self, network: nn.Module, chains: Tensor, spec: ImageSpec, noise: RowNoise) -> Tensor:
        """Moves this process's chains on, in place, and returns the images that they arrive at."""
        raise NotImplementedError(f"{type(self).__name__} has no chains")

    def terms(self, network: nn.Module, image: Tensor, noise: RowNoise, negatives: Tensor | None) -> dict[str, Tensor]:
        """The ``loss``, a scalar, and what else is worth logging (averaged over its elements), all of one batch.

        Args:
            network: the energy.
            image: the data, ``[B, C, H, W]``.
            noise: the batch's source of randomness.
            negatives: images of the chains, ``[n, C, H, W]``.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement terms")


class PersistentLangevin(EnergyObjective):
    r"""Maximum likelihood with the model's images from persistent chains of Langevin dynamics.

    .. math::
        L = \frac1B \sum_b E(x_b) - \frac1n \sum_i E(x'_i) + \alpha \Big(\frac1B \sum_b E(x_b)^2 + \frac1n \sum_i E(x'_i)^2\Big)

    At every update each of the n chains takes up one of its last ``replay`` results at random, or, with probability
    ``reinit``, uniform noise, and makes ``steps`` steps. Data carry noise of standard deviation ``data_noise``, without
    which their density would be a spike on every flat background.

    Where ``noise`` is None it is the square root of the step size, the dynamics of p itself, and energies are in nats.
    Any other noise samples at temperature :math:`T = n^2 / s`: the density learnt is :math:`e^{-E(x)/T}`.

    Args:
        chains: n, over all processes; a multiple of their number.
        replay: results kept for each chain, from which it continues; 1 for plain persistent chains.
        steps: k.
        step_size: s of :class:`LangevinStep`.
        noise: n of :class:`LangevinStep`, or None.
        reinit: probability that a chain starts anew.
        data_noise: see above.
        alpha: weight of the squares of energies, which pulls them to 0.
        clamp: largest absolute value of a component of the gradient in the pixels; None for no limit.

    Raises:
        UsageError: a hyper-parameter is out of range.

    References:
        Tieleman, Training restricted Boltzmann machines using approximations to the likelihood gradient, ICML 2008.
        Du and Mordatch, Implicit generation and modeling with energy-based models, NeurIPS 2019 (arXiv:1903.08689),
        algorithm 1 (restarts of 5 %, alpha = 1). Nijkamp et al., On the anatomy of MCMC-based maximum likelihood
        learning of energy-based models, AAAI 2020 (arXiv:1903.12370), section 4 (noise on data, no other regulariser).
    """

    def __init__(
        self,
        chains: int = 64,
        replay: int = 1,
        steps: int = 20,
        step_size: float = 0.01,
        noise: float | None = None,
        reinit: float = 0.05,
        data_noise: float = 0.1,
        alpha: float = 0.0,
        clamp: float | None = None,
    ) -> None:
        for name, value in {"chains": chains, "replay": replay, "steps": steps}.items():
            require(value >= 1, name, value, "an integer of 1 or more")
        require(step_size > 0, "step_size", step_size, "step_size > 0")
        require(noise is None or noise > 0, "noise", noise, "noise > 0, or null for the square root of step_size")
        require(0 <= reinit <= 1, "reinit", reinit, "0 <= reinit <= 1")
        require(data_noise >= 0, "data_noise", data_noise, "data_noise >= 0")
        require(alpha >= 0, "alpha", alpha, "alpha >= 0")
        require(clamp is None or clamp > 0, "clamp", clamp, "clamp > 0, or null for no limit")
        self.chains, self.replay, self.steps, self.reinit = chains, replay, steps, reinit
        self.step = LangevinStep(step_size, step_size**0.5 if noise is None else noise, data_noise)
        self.nats, self.sigma = self.step.size / self.step.noise**2, data_noise
        self.alpha, self.clamp = alpha, clamp

    def schedule(self, steps: int) -> list[LangevinStep]:
        return [self.step] * steps

    def initial_chains(self, spec: ImageSpec, generator: torch.Generator) -> Tensor:
        """Uniform noise, ``[chains, replay, C, H, W]``."""
        return torch.empty(self.chains, self.replay, *spec.shape).uniform_(*spec.value_range, generator=generator)

    @torch.no_grad()
    def negatives(self, network: nn.Module, chains: Tensor, spec: ImageSpec, noise: RowNoise) -> Tensor:
        """Moves this process's chains on, in place, and returns the images that they arrive at.

        Args:
            network: the energy.
            chains: rows of this process of :meth:`initial_chains`, ``[n, replay, C, H, W]``.
            spec: the data's.
            noise: source for all chains of all processes, of which these are ``noise.rows``.

        Shape:
            result ``[n, C, H, W]``.
        """
        rows = torch.arange(chains.shape[0], device=chains.device)
        slot = noise.integers(self.replay)
        anew = noise.uniform(1, 1, 1) < self.reinit
        low, high = spec.value_range
        start = torch.where(anew, low + (high - low) * noise.uniform(*spec.shape), chains[rows, slot])
        image = langevin(network, start, self.schedule(self.steps), noise, self.clamp)
        chains[rows, slot] = image
        return image

    def terms(self, network: nn.Module, image: Tensor, noise: RowNoise, negatives: Tensor | None) -> dict[str, Tensor]:
        if self.sigma:
            image = image + self.sigma * noise.normal(*image.shape[1:])
        with float32(image.device):
            data, model = network(torch.cat([image, negatives])).split([len(image), len(negatives)])
            loss = data.mean() - model.mean()
            if self.alpha:
                loss = loss + self.alpha * (data.square().mean() + model.square().mean())
        return {
            "loss": loss,
            "energy": self.nats * data,
            "energy_chains": self.nats * model,
            "energy_gap": self.nats * (data.mean() - model.mean()),
        }
