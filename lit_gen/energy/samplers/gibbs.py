r"""Gibbs sampling: redraw a part of the state from its conditional given the rest; nothing is ever rejected."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lit_gen.energy.samplers.checks import require
from lit_gen.energy.samplers.transitions import LogDensity, Transition, evaluate


class BlockGibbs:
    r"""Conditional samplers applied one after the other, each to what the one before returned.

    Each may redraw a block of one state, :math:`x_A \sim p(x_A \mid x_{-A})`, or turn one layer into the next as the half
    steps of a restricted Boltzmann machine do: with ``BlockGibbs(draw_hidden, draw_visible)`` the state is v, and
    :math:`v \to h \sim p(h \mid v) \to v' \sim p(v \mid h)` leaves p(v) invariant.

    Args:
        *conditionals: (state, generator) -> state; the last returns what the first takes.

    Raises:
        ValueError: no conditional was given.

    References:
        Geman and Geman, Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of images, IEEE PAMI 1984.
        Goodfellow et al., Deep learning, MIT Press 2016, section 17.4.
    """

    def __init__(self, *conditionals: Callable[[Tensor, torch.Generator], Tensor]) -> None:
        require(len(conditionals) > 0, "conditionals", "()", "one sampler or more")
        self.conditionals = conditionals

    def __call__(self, x: Tensor, generator: torch.Generator) -> Transition:
        for draw in self.conditionals:
            x = draw(x, generator)
        return Transition(x, torch.ones(len(x), device=x.device))


class SequentialGibbs:
    r"""One coordinate at a time, for coordinates with few values (bits, spins, categories).

    .. math::
        p(x_i = a \mid x_{-i}) = \frac{f(x_1, \dots, x_i = a, \dots, x_D)}{\sum_b f(x_1, \dots, x_i = b, \dots, x_D)}

    A systematic sweep visits coordinates 0 .. D-1; it leaves p invariant but is not reversible. A random scan makes D
    updates of coordinates drawn with replacement, by each chain for itself; it satisfies detailed balance.

    Args:
        log_density: log f, of any kind; evaluated once for each value and coordinate.
        values: the values that every coordinate may take.
        scan: ``systematic`` or ``random``.
        conditional_logits: (states, index of a coordinate for each chain, int64 ``[C]``) -> log p(x_i = values | x_-i) up to
            a constant, ``[C, K]``, where that is cheaper than K evaluations of the log density.

    Shape:
        x: ``[C, ...]``; all dimensions after the first together are the D coordinates, in row-major order.

    Raises:
        ValueError: fewer than two values, or another scan.

    References:
        Geman and Geman, IEEE PAMI 1984; Robert and Casella, Monte Carlo statistical methods, Springer 2004, chapter 10.
    """

    def __init__(
        self,
        log_density: LogDensity | None,
        values: Sequence[float] | Tensor = (0.0, 1.0),
        scan: str = "systematic",
        conditional_logits: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        require(len(values) >= 2, "values", list(values), "two values or more")
        require(scan in ("systematic", "random"), "scan", scan, "systematic, random")
        given = log_density is not None or conditional_logits is not None
        require(given, "log_density", None, "a log density, or None beside conditional_logits")
        self.log_density, self.scan = log_density, scan
        self.values = torch.as_tensor(values)
        self.conditional_logits = conditional_logits or self.enumerated_logits

    def enumerated_logits(self, x: Tensor, index: Tensor) -> Tensor:
        """The conditional's logits by putting each value into the coordinate.

        Shape:
            x: ``[C, ...]``.
            index: int64 ``[C]``.

        Returns:
            ``[C, K]``.
        """
        # one call for each value rather than one of K * C rows: the density may belong to the rows (tempering)
        return torch.stack([evaluate(self.log_density, self.put(x, index, value)) for value in self.values], 1)

    def put(self, x: Tensor, index: Tensor, value: Tensor) -> Tensor:
        """The states with one coordinate of each chain set to a value, a scalar or ``[C]``."""
        column = value.to(x).expand(len(x)).unsqueeze(1)
        return x.flatten(1).scatter(1, index.unsqueeze(1), column).view_as(x)

    def update(self, x: Tensor, index: Tensor, generator: torch.Generator) -> Tensor:
        """Redraws one coordinate of each chain from its conditional."""
        logits = self.conditional_logits(x, index)
        # argmax of logits + Gumbel noise is a draw of the softmax; minus the log of Exp(1) is Gumbel noise
        noise = -torch.empty_like(logits).exponential_(generator=generator).log()
        return self.put(x, index, self.values.to(x)[(logits + noise).argmax(1)])

    def __call__(self, x: Tensor, generator: torch.Generator) -> Transition:
        chains, coordinates = len(x), x[0].numel()
        for i in range(coordinates):
            if self.scan == "random":
                index = torch.randint(coordinates, (chains,), generator=generator, device=x.device)
            else:
                index = torch.full((chains,), i, device=x.device)
            x = self.update(x, index, generator)
        return Transition(x, torch.ones(chains, device=x.device))
