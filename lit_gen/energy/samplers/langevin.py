r"""Langevin dynamics: gradient ascent on the log density, with noise.

.. math::
    x' = x + \frac{\varepsilon}{2} \nabla \log f(x) + \sigma z, \qquad z \sim N(0, I), \qquad \sigma = \sqrt{\varepsilon}

is one Euler step of a diffusion whose stationary density is p. Gradients are taken with respect to the state alone; the
parameters of a network inside log f collect none.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lit_gen.energy.samplers.checks import require
from lit_gen.energy.samplers.transitions import LogDensity, Transition, accept, evaluate, per_chain, standard_normal


def log_density_and_score(log_density: LogDensity, x: Tensor) -> tuple[Tensor, Tensor]:
    r"""log f ``[C]`` and its gradient in x ``[C, ...]``, both without graph; also under ``no_grad`` and ``inference_mode``."""
    with torch.inference_mode(False), torch.enable_grad():
        # a clone made here is an ordinary tensor even where x comes from inference mode
        x = x.clone().detach().requires_grad_()
        value = evaluate(log_density, x)
        (score,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), score


class _Langevin:
    """Settings and drift that both algorithms share."""

    def __init__(
        self,
        log_density: LogDensity,
        step_size: float | Tensor,
        noise_scale: float | Tensor | None = None,
        steps: int = 1,
    ) -> None:
        require(bool(torch.as_tensor(step_size > 0).all()), "step_size", step_size, "positive numbers")
        if noise_scale is None:
            noise_scale = step_size**0.5
        require(bool(torch.as_tensor(noise_scale >= 0).all()), "noise_scale", noise_scale, "numbers of 0 or more")
        require(steps >= 1, "steps", steps, "an integer of 1 or more")
        self.log_density, self.step_size, self.noise_scale, self.steps = log_density, step_size, noise_scale, steps

    def mean(self, x: Tensor, score: Tensor) -> Tensor:
        """The next state without its noise."""
        return x + 0.5 * self.step_size * score


class ULA(_Langevin):
    r"""The unadjusted Langevin algorithm: the Euler step alone, never rejected, hence biased.

    On a Gaussian of variance :math:`s^2` the chain is linear, :math:`x' = (1 - \varepsilon / 2 s^2) x + \sqrt\varepsilon z`,
    and its stationary variance is :math:`s^2 / (1 - \varepsilon / 4 s^2)`, not :math:`s^2`; for
    :math:`\varepsilon \ge 4 s^2` it diverges. With a noise scale of its own it has approximately :math:`p^{1/\tau}` as its
    stationary density, :math:`\tau = \sigma^2 / \varepsilon` being a temperature: deep energy models are sampled at
    :math:`\tau \ll 1`.

    Args:
        log_density: log f, differentiable.
        step_size: :math:`\varepsilon`; a number, or a tensor that broadcasts against the states.
        noise_scale: :math:`\sigma`; :math:`\sqrt\varepsilon` where None, 0 for plain gradient ascent.
        steps: Euler steps in a call.

    Raises:
        ValueError: step_size <= 0, noise_scale < 0 or steps < 1.

    References:
        Roberts and Tweedie, Exponential convergence of Langevin distributions and their discrete approximations, Bernoulli
        1996. Welling and Teh, Bayesian learning via stochastic gradient Langevin dynamics, ICML 2011, equation 3. Nijkamp et
        al., Learning non-convergent non-persistent short-run MCMC toward energy-based model, NeurIPS 2019 (arXiv:1904.09770).
    """

    def __call__(self, x: Tensor, generator: torch.Generator) -> Transition:
        for _ in range(self.steps):
            _, score = log_density_and_score(self.log_density, x)
            x = self.mean(x, score) + self.noise_scale * standard_normal(x, generator)
        return Transition(x, torch.ones(len(x), device=x.device))


class _Point(NamedTuple):
    x: Tensor
    log_density: Tensor
    score: Tensor


class MALA(_Langevin):
    r"""The Metropolis-adjusted Langevin algorithm: the Euler step as a proposal, accepted or rejected.

    .. math::
        q(x' \mid x) = N\big(x';\; x + \tfrac{\varepsilon}{2} \nabla \log f(x),\; \sigma^2 I\big)

    The stationary density is p for any step size and any noise scale; the noise scale is no temperature here (for that,
    divide the log density). In high dimension the best step accepts about 0.574 of the proposals.

    Args:
        log_density: log f, differentiable.
        step_size: :math:`\varepsilon`; a number, or a tensor that broadcasts against the states.
        noise_scale: :math:`\sigma > 0`; :math:`\sqrt\varepsilon` where None.
        steps: proposals in a call, with one gradient for each and one more.

    Raises:
        ValueError: step_size <= 0, noise_scale <= 0 or steps < 1.

    References:
        Roberts and Tweedie, Bernoulli 1996. Roberts and Rosenthal, Optimal scaling of discrete approximations to Langevin
        diffusions, J. Royal Statistical Society B 1998.
    """

    def __init__(
        self,
        log_density: LogDensity,
        step_size: float | Tensor,
        noise_scale: float | Tensor | None = None,
        steps: int = 1,
    ) -> None:
        super().__init__(log_density, step_size, noise_scale, steps)
        require(bool(torch.as_tensor(self.noise_scale > 0).all()), "noise_scale", noise_scale, "positive numbers")

    def log_q(self, new: Tensor, old: _Point) -> Tensor:
        """log q(new | old) up to a constant, ``[C]``."""
        return -0.5 * ((new - self.mean(old.x, old.score)) / self.noise_scale).square().flatten(1).sum(1)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Transition:
        old = _Point(x, *log_density_and_score(self.log_density, x))
        share = torch.zeros_like(old.log_density)
        for _ in range(self.steps):
            proposed = self.mean(old.x, old.score) + self.noise_scale * standard_normal(x, generator)
            new = _Point(proposed, *log_density_and_score(self.log_density, proposed))
            log_ratio = new.log_density - old.log_density + self.log_q(old.x, new) - self.log_q(new.x, old)
            accepted = accept(log_ratio, generator)
            old = _Point(*(torch.where(per_chain(accepted, b), a, b) for a, b in zip(new, old)))
            share += accepted
        return Transition(old.x, share / self.steps)
