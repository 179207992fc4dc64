r"""Metropolis-Hastings with any proposal :math:`q(x' \mid x)`, and three proposals ready made."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lit_gen.energy.samplers.checks import require
from lit_gen.energy.samplers.transitions import LogDensity, Transition, accept, evaluate, per_chain, standard_normal


class Proposal:
    """How new states are proposed. Write a new one as a subclass, or as any object with these two methods."""

    def sample(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """New states ``[C, ...]`` from q(. | x)."""
        raise NotImplementedError(f"{type(self).__name__} must implement sample")

    def log_prob(self, new: Tensor, old: Tensor) -> Tensor | None:
        """log q(new | old) up to a constant, ``[C]``; None says that q(new | old) = q(old | new)."""
        return None


class Metropolis:
    r"""Proposes from q and accepts with a probability that makes p reversible, hence invariant.

    .. math::
        \alpha(x' \mid x) = \min\left(1, \frac{f(x')\, q(x \mid x')}{f(x)\, q(x' \mid x)}\right)

    The normalising constant of f cancels. A rejected proposal repeats the old state, which counts as a draw.

    Args:
        log_density: log f; minus infinity outside of its support.
        proposal: q.
        steps: proposals in a call. The current log density is carried from one to the next, so that k steps cost k + 1
            evaluations; ``accepted`` is the share of the k that were accepted.

    Raises:
        ValueError: steps < 1.

    References:
        Metropolis et al., Equation of state calculations by fast computing machines, J. Chemical Physics 1953.
        Hastings, Monte Carlo sampling methods using Markov chains and their applications, Biometrika 1970.
        MacKay, Information theory, inference, and learning algorithms, CUP 2003, section 29.4.
    """

    def __init__(self, log_density: LogDensity, proposal: Proposal, steps: int = 1) -> None:
        require(steps >= 1, "steps", steps, "an integer of 1 or more")
        self.log_density, self.proposal, self.steps = log_density, proposal, steps

    def log_acceptance(self, new: Tensor, old: Tensor) -> Tensor:
        """log of the ratio whose minimum with 1 is the probability of going from old to new, ``[C]``."""
        return self._log_ratio(new, old, evaluate(self.log_density, new), evaluate(self.log_density, old))

    def _log_ratio(self, new: Tensor, old: Tensor, new_log_density: Tensor, old_log_density: Tensor) -> Tensor:
        log_ratio = new_log_density - old_log_density
        forth = self.proposal.log_prob(new, old)
        return log_ratio if forth is None else log_ratio + self.proposal.log_prob(old, new) - forth

    def __call__(self, x: Tensor, generator: torch.Generator) -> Transition:
        log_density = evaluate(self.log_density, x)
        share = torch.zeros_like(log_density)
        for _ in range(self.steps):
            new = self.proposal.sample(x, generator)
            new_log_density = evaluate(self.log_density, new)
            accepted = accept(self._log_ratio(new, x, new_log_density, log_density), generator)
            x = torch.where(per_chain(accepted, x), new, x)
            log_density = torch.where(accepted, new_log_density, log_density)
            share += accepted
        return Transition(x, share / self.steps)


class GaussianRandomWalk(Proposal):
    r""":math:`x' = x + s\,\epsilon` with standard normal noise: symmetric.

    In high dimension the best scale accepts about 0.234 of the proposals.

    Args:
        scale: s > 0: a number, or a tensor that broadcasts against the states.

    Raises:
        ValueError: the scale is not positive.

    References:
        Roberts, Gelman and Gilks, Weak convergence and optimal scaling of random walk Metropolis algorithms, Annals of
        Applied Probability 1997.
    """

    def __init__(self, scale: float | Tensor) -> None:
        require(bool(torch.as_tensor(scale > 0).all()), "scale", scale, "positive numbers")
        self.scale = scale

    def sample(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return x + self.scale * standard_normal(x, generator)


class BitFlip(Proposal):
    """Flips coordinates chosen uniformly at random, by each chain for itself: symmetric.

    Args:
        flips: how many different coordinates change at once.
        values: the two values of a coordinate, (0, 1) for bits, (-1, 1) for spins.

    Raises:
        ValueError: flips < 1 or more than there are coordinates, or not two values.
    """

    def __init__(self, flips: int = 1, values: tuple[float, float] = (0.0, 1.0)) -> None:
        require(flips >= 1, "flips", flips, "an integer of 1 or more")
        require(len(values) == 2 and values[0] != values[1], "values", values, "two different values")
        self.flips, self.total = flips, values[0] + values[1]

    def sample(self, x: Tensor, generator: torch.Generator) -> Tensor:
        flat = x.flatten(1)
        chains, coordinates = flat.shape
        require(self.flips <= coordinates, "flips", self.flips, f"1 .. {coordinates}, the number of coordinates")
        if self.flips == 1:
            index = torch.randint(coordinates, (chains, 1), generator=generator, device=x.device)
        else:
            index = torch.rand(chains, coordinates, generator=generator, device=x.device).topk(self.flips).indices
        # a + b - x is b where x = a, and a where x = b
        return flat.scatter(1, index, (self.total - flat.gather(1, index)).to(x.dtype)).view_as(x)


class Independence(Proposal):
    r"""Proposes from one fixed distribution, whatever the current state: :math:`q(x' \mid x) = g(x')`.

    Geometrically ergodic only where f / g is bounded: g must have the heavier tails.

    Args:
        draw: (n, generator) -> n states ``[n, ...]`` from g.
        log_density: log g up to a constant.

    References:
        Robert and Casella, Monte Carlo statistical methods, Springer 2004, section 7.4, theorem 7.8.
    """

    def __init__(self, draw: Callable[[int, torch.Generator], Tensor], log_density: LogDensity) -> None:
        self.draw, self.log_density = draw, log_density

    def sample(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return self.draw(len(x), generator).to(x.dtype)

    def log_prob(self, new: Tensor, old: Tensor) -> Tensor:
        return evaluate(self.log_density, new)
