r"""Sequential updates of binary units that are all coupled to each other: Gibbs sampling and mean field.

A sweep visits unit after unit, each of which sees the newest values of all others. Done literally that is one matrix-vector
product for each unit. Here the visiting order is cut into blocks: one matrix product gives the fields that a whole block
feels, in which units visited earlier in the block are left out; as each of them gets its value, a rank-one update adds it
to the fields of those that follow. This computes the same fields, with two small in-place operations for each unit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from lit_gen.core.random import RowNoise

Scan = Literal["systematic", "shuffled"]
BLOCK = 32
"""Units in a block: few enough for cheap rank-one updates, enough for a matrix product worth the call."""


class SequentialSweeps:
    r"""Chains over s in {0, 1}^K whose units have the log-odds :math:`\beta (W s + b)_i + f_i` given all others.

    Args:
        weight: W, symmetric with zero diagonal.
        bias: b.
        state: where the chains begin; copied.
        units: int64, the units that are visited, in systematic order; all where None. The others are clamped.
        clamped: True where a unit keeps its value, 0 or 1, although it is visited; no unit where None.
        beta: inverse temperature; may be changed between sweeps.
        field: f, added to the log-odds; may be changed between sweeps.
        scan: ``systematic`` visits the units as given, ``shuffled`` in a new random order in each sweep, the same in all
            chains.

    Shape:
        weight: ``[K, K]``; bias: ``[K]``; state, clamped: ``[N, K]``; units: ``[F]``; field: ``[K]`` or ``[N, K]``.

    References:
        Ackley, Hinton and Sejnowski, A learning algorithm for Boltzmann machines, Cognitive Science 1985, section 2.
        Geman and Geman, Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of images, PAMI 1984.
        Peterson and Anderson, A mean field theory learning algorithm for neural networks, Complex Systems 1987.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        state: Tensor,
        *,
        units: Tensor | None = None,
        clamped: Tensor | None = None,
        beta: float = 1.0,
        field: Tensor | None = None,
        scan: Scan = "systematic",
    ) -> None:
        self.weight, self.bias, self.beta, self.field, self.scan = weight, bias, beta, field, scan
        self.columns = state.to(weight).t().clone(memory_format=torch.contiguous_format)  # [K, N]: a unit is one row
        self.units = torch.arange(len(weight), device=weight.device) if units is None else units
        self.clamped = None if clamped is None else clamped.t()
        self._buffers: dict[int, tuple[Any, ...]] = {}
        self._arrange(self.units)

    @property
    def state(self) -> Tensor:
        """The chains as they are, ``[N, K]`` (a copy)."""
        return self.columns.t().clone(memory_format=torch.contiguous_format)

    @state.setter
    def state(self, state: Tensor) -> None:
        self.columns.copy_(state.t())

    def log_odds(self) -> Tensor:
        """Log-odds of every unit given all others, ``[N, K]``."""
        return self._log_odds(self.weight @ self.columns, slice(None)).t()

    def sweep(self, noise: RowNoise) -> None:
        """Draws every visited unit once from its distribution given all others."""
        if self.scan == "shuffled":
            shuffle = torch.randperm(len(self.units), generator=noise.generator, device=self.units.device)
            self._arrange(self.units[shuffle])
        # On where the log-odds exceed logit(u): solved for the field of the other units, that is one comparison.
        threshold = noise.uniform(len(self.order)).to(self.weight).t().logit()
        threshold = (threshold - self._log_odds(0.0, self.order)) / self.beta
        self._visit(self._hold(threshold, off=float("inf")), _draw)

    def mean_field_sweep(self) -> None:
        r"""Sets every visited unit once to its mean given those of all others: coordinate ascent on the bound of log p."""
        log_odds = self._log_odds(0.0, self.order).expand(-1, self.columns.shape[1])
        beta = self.beta

        def mean(field: Tensor, offset: Tensor, out: Tensor) -> None:
            torch.add(offset, field, alpha=beta, out=out).sigmoid_()

        self._visit(self._hold(log_odds, off=-float("inf")), mean)

    # ---------------------------------------------------------------- inside

    def _log_odds(self, field: Tensor | float, units: Tensor | slice) -> Tensor:
        """beta (field + b) + f for some units, ``[F, N]`` or ``[F, 1]``."""
        log_odds = self.beta * (field + self.bias[units, None])
        if self.field is None:
            return log_odds
        return log_odds + (self.field[:, None] if self.field.ndim == 1 else self.field.t())[units]

    def _hold(self, limit: Tensor, off: float) -> Tensor:
        """Limits that no field can pass for clamped units: they come out as they went in."""
        if self.clamped is None:
            return limit
        held = torch.where(self.columns[self.order] > 0.5, -off, off)
        return torch.where(self.clamped[self.order], held, limit)

    def _arrange(self, order: Tensor) -> None:
        """Cuts the order into blocks: weights of the product, and for each unit the views that its update works on."""
        self.order, self.blocks = order, []
        unit_rows = self.columns.unbind()
        for chosen in order.split(BLOCK):
            weight = self.weight[chosen]  # [m, K]
            within = weight[:, chosen]
            # Of the block itself the product takes only units that come later, with the values they still have.
            weight[:, chosen] = within.triu()
            fields, rows, following, (earlier, later), lengths = self._buffer(len(chosen))
            passed_on = within[later, earlier].unsqueeze(-1).split(lengths)  # unit j to those after it, [m - j - 1, 1]
            units = [unit_rows[unit] for unit in chosen.tolist()]
            self.blocks.append((weight, fields, list(zip(rows, units, following, passed_on))))

    def _buffer(self, size: int) -> tuple[Any, ...]:
        """Memory for the fields of a block of this size, its views, and which pairs in it follow each other."""
        if size not in self._buffers:
            fields = self.columns.new_empty(size, self.columns.shape[1])
            pairs = torch.triu_indices(size, size, 1, device=fields.device)
            following = [fields[j + 1 :] for j in range(size)]
            self._buffers[size] = fields, fields.unbind(), following, pairs, [len(part) for part in following]
        return self._buffers[size]

    def _visit(self, limit: Tensor, update: Callable[[Tensor, Tensor, Tensor], object]) -> None:
        limits = iter(limit.contiguous().unbind())
        with torch.autocast(self.columns.device.type, enabled=False):
            for weight, fields, updates in self.blocks:
                torch.mm(weight, self.columns, out=fields)
                for field, unit, following, weights in updates:
                    update(field, next(limits), unit)
                    following.addcmul_(weights, unit)


def _draw(field: Tensor, threshold: Tensor, out: Tensor) -> None:
    torch.gt(field, threshold, out=out)
