r"""The Hopfield network: patterns as fixed points of N threshold units with symmetric couplings.

Units take the values +1 and -1. Each follows its local field :math:`h_i = \sum_j W_{ij} s_j + \theta_i` and stays where the
field is zero. As W is symmetric with a zero diagonal, no single update ever raises the energy

.. math:: E(s) = -\tfrac12\, s^T W s - \theta^T s

so that updates one after the other end in a fixed point. Updates of all units at once may also end in a cycle of two states.

References:
    Hopfield, Neural networks and physical systems with emergent collective computational abilities, PNAS 79, 1982.
    Personnaz, Guyon and Dreyfus, Information storage and retrieval in spin-glass like neural networks, Journal de Physique
    Lettres 46, 1985 (pseudo-inverse rule). Goles, Fogelman and Pellegrin, Decreasing energy functions as a tool for
    studying threshold networks, Discrete Applied Mathematics 12, 1985 (cycles of two).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

BLOCK = 32  # units updated between two matrix products; changes no result


class Recall(NamedTuple):
    """What recall ended with.

    state: ``[..., P, N]``, +1 or -1.
    fixed: bool ``[..., P]``, the state is a fixed point.
    cycle: bool ``[..., P]``, the state is one of a cycle of two (synchronous updates only).
    sweeps: updates of the whole network that were made, the one that changed nothing included.
    """

    state: Tensor
    fixed: Tensor
    cycle: Tensor
    sweeps: int


# ---------------------------------------------------------------- storage


def hebbian(patterns: Tensor, normalise: bool = True) -> Tensor:
    r"""Couplings :math:`W = \frac1N \sum_\mu \xi^\mu \xi^{\mu T}` with the diagonal set to zero.

    Args:
        patterns: +1 or -1.
        normalise: divide by N. Without it (as Hopfield writes it) W is made of integers, and so are local fields: exact in
            floating point, and so are sums of the couplings of several sets of patterns.

    Shape:
        patterns ``[..., P, N]``; result ``[..., N, N]``.

    References:
        Hopfield 1982, eq. 2. Amit, Gutfreund and Sompolinsky, Physical Review Letters 55, 1985, eq. 2 (with 1/N).
    """
    weight = patterns.mT @ patterns
    weight.diagonal(dim1=-2, dim2=-1).zero_()
    return weight / patterns.shape[-1] if normalise else weight


def pseudo_inverse(patterns: Tensor) -> Tensor:
    r"""Couplings of the orthogonal projection on the span of the patterns, with the diagonal set to zero.

    The projection :math:`\Pi = X^+ X` leaves every pattern as it is, :math:`\Pi \xi = \xi`, however correlated the patterns
    are. Without the diagonal the local fields are :math:`h_i = (1 - \Pi_{ii}) \xi_i`: of the right sign as long as
    :math:`\Pi_{ii} < 1`, so the patterns stay fixed points; and no unit is held by its own past, which widens the basins of
    attraction. Where the patterns span the whole space, :math:`\Pi` is the identity and nothing is left: W = 0.

    Args:
        patterns: +1 or -1 (any real numbers will do), independent or not.

    Shape:
        patterns ``[..., P, N]``; result ``[..., N, N]``, of the patterns' dtype, computed in float64.

    References:
        Personnaz, Guyon and Dreyfus 1985, eq. 6. Kanter and Sompolinsky, Associative recall of memory without errors,
        Physical Review A 35, 1987 (zero diagonal).
    """
    x = patterns.double()
    gram = x @ x.mT
    weight = x.mT @ torch.linalg.pinv(gram, hermitian=True, rtol=1e-10) @ x
    spans_all = weight.diagonal(dim1=-2, dim2=-1).sum(-1) > patterns.shape[-1] - 0.5  # trace = rank
    weight.diagonal(dim1=-2, dim2=-1).zero_()
    return torch.where(spans_all[..., None, None], 0.0, (weight + weight.mT) / 2).to(patterns.dtype)


# ---------------------------------------------------------------- quantities


def energy(state: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Energy of states ``[..., P, N]`` under ``[..., N, N]`` and a bias ``[N]`` (theta): ``[..., P]``."""
    value = -0.5 * ((state @ weight) * state).sum(-1)
    return value if bias is None else value - state @ bias


def overlap(state: Tensor, pattern: Tensor) -> Tensor:
    """Cosine of the angle between states and patterns ``[..., N]``; of +-1 units the mean of their products, m."""
    return torch.cosine_similarity(state, pattern, dim=-1)


# ---------------------------------------------------------------- recall


def recall_asynchronous(
    weight: Tensor,
    start: Tensor,
    bias: Tensor | None = None,
    free: Tensor | None = None,
    sweeps: int = 100,
    order: Literal["systematic", "random"] = "systematic",
    generator: torch.Generator | None = None,
) -> Recall:
    """Updates one unit after the other until a whole sweep changes nothing.

    All states are recalled together; in a random order it is the same order for all of them, drawn anew for each sweep.

    Args:
        weight: couplings, symmetric.
        start: first states, +1 or -1.
        bias: theta, 0 where None.
        free: bool, False where a unit is clamped to its first value; all are free where None.
        sweeps: stop after so many.
        order: units as they are numbered, or in random order.
        generator: of the random order, on the states' device.

    Shape:
        weight ``[..., N, N]``, start and free ``[..., P, N]``, bias ``[N]``.
    """
    units, device = weight.shape[-1], start.device
    result = start.mT.clone(memory_format=torch.contiguous_format)  # [..., N, P]: a unit's values lie together
    free = None if free is None else free.mT.to(result.dtype)
    state, clamp = result.clone(), free
    column = torch.arange(start.shape[-2], device=device).expand(start.shape[:-1])  # of each state still moving
    changed = torch.ones_like(column, dtype=torch.bool)
    done, numbered = 0, torch.arange(units, device=device)
    while done < sweeps and changed.any():
        moving = int(changed.sum(-1).max())
        if 2 * moving <= changed.shape[-1]:  # a state that a sweep did not change will never change: go on without it
            column = column.gather(-1, changed.byte().argsort(dim=-1, descending=True, stable=True)[..., :moving])
            where = column.unsqueeze(-2).expand(*column.shape[:-1], units, moving)
            state, clamp = result.gather(-1, where), None if free is None else free.gather(-1, where)
        sequence = torch.randperm(units, generator=generator, device=device) if order == "random" else numbered
        changed = update_in_turn(weight, state, sequence, bias, clamp)
        result.scatter_(-1, column.unsqueeze(-2).expand_as(state), state)
        done += 1
    fixed = torch.ones_like(start[..., 0], dtype=torch.bool).scatter_(-1, column, ~changed)
    return Recall(result.mT.contiguous(), fixed, torch.zeros_like(fixed), done)


def update_in_turn(
    weight: Tensor, state: Tensor, sequence: Tensor, bias: Tensor | None = None, free: Tensor | None = None
) -> Tensor:
    """Updates units in the given sequence, in place; exactly as if each local field were computed when its turn comes.

    Fields are computed for a block of units at once, by one matrix product, and corrected inside the block after each
    update.

    Shape:
        weight ``[..., N, N]``; state ``[..., N, P]``; sequence int64 ``[n]``; bias ``[N]``; free ``[..., N, P]``, 1 or 0.

    Returns:
        bool ``[..., P]``: which states changed.
    """
    changed = torch.zeros_like(state[..., 0, :], dtype=torch.bool)
    for block in sequence.split(BLOCK):
        now, rows = state[..., block, :], weight[..., block, :]
        field = rows @ state if bias is None else rows @ state + bias[block, None]
        turn = -2 * now if free is None else -2 * now * free[..., block, :]  # what turning a unit round adds to it
        if not ((field * now < 0) & (turn != 0)).any():
            continue  # nobody moves before the first one does
        inner, change = rows[..., block], torch.zeros_like(now)
        views = zip(field.unbind(-2), now.unbind(-2), turn.unbind(-2), change.unbind(-2))
        for k, (h, s, whole, part) in enumerate(views):
            torch.mul(whole, h * s < 0, out=part)
            field[..., k + 1 :, :].addcmul_(inner[..., k + 1 :, k, None], part.unsqueeze(-2))
        state[..., block, :] = now + change
        changed |= change.any(-2)
    return changed


def recall_synchronous(
    weight: Tensor,
    start: Tensor,
    bias: Tensor | None = None,
    free: Tensor | None = None,
    sweeps: int = 100,
) -> Recall:
    """Updates all units at once until every state is a fixed point or in a cycle of two.

    With symmetric couplings there are no longer cycles.

    Args:
        weight, start, bias, free, sweeps: as in :func:`recall_asynchronous`.
    """
    state, before = start, torch.zeros_like(start)
    fixed = cycle = torch.zeros_like(start[..., 0], dtype=torch.bool)
    done = 0
    while done < sweeps and not (fixed | cycle).all():
        field = state @ weight if bias is None else state @ weight + bias
        after = torch.where(field == 0, state, field.sign())
        if free is not None:
            after = torch.where(free, after, state)
        fixed, cycle = (after == state).all(-1), (after == before).all(-1)
        cycle = cycle & ~fixed
        before, state, done = state, after, done + 1
    return Recall(state, fixed, cycle, done)
