r"""How many random patterns a Hopfield network holds: recall rate against the load alpha = P / N, and where it breaks down.

For N to infinity the Hebbian rule has states near its patterns, of overlap 0.967 or more, up to the load
:math:`\alpha_c = 0.138`; above, recall ends at an overlap of about 0.35. The transition is discontinuous. In a network of N
units it is rounded: patterns fail one by one over a range of loads that shrinks as N grows. A pattern counts as recalled where
the final overlap is at least 0.9, between the two values. Two estimates of the transition:

* the *capacity* of one N: the load up to which 90 % of the patterns are recalled. The load at which half of them are, the
  obvious choice, depends much more on N: it is 0.20 for N = 200, 0.17 for N = 1,000, and falls slowly to 0.138.
* the *crossing* of the recall rates of two N: below :math:`\alpha_c` the larger network recalls more, above it less. It
  chooses no level, and finite size moves it least.

References:
    Amit, Gutfreund and Sompolinsky, Storing infinite numbers of patterns in a spin-glass model of neural networks, Physical
    Review Letters 55, 1985 (0.138); Statistical mechanics of neural networks near saturation, Annals of Physics 173, 1987
    (section 5: simulations at finite N). Kanter and Sompolinsky, Physical Review A 35, 1987 (pseudo-inverse rule: 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from lit_gen.core.random import seeded_generator
from lit_gen.energy.hopfield import hebbian, overlap, pseudo_inverse, recall_asynchronous

ALPHA_C = 0.138
"""Largest load of the Hebbian rule for N to infinity (replica-symmetric theory)."""
RECALLED = 0.9
"""Final overlap from which on a pattern counts as recalled."""

Rule = Literal["hebbian", "pseudo_inverse"]
CHUNK_ELEMENTS = 1 << 22  # couplings of all networks that are simulated together


@dataclass(frozen=True)
class RecallCurve:
    """Recall of random patterns by networks of one size.

    Args:
        rule: of storage.
        units: N.
        flip: fraction of units that are inverted in the state from which recall starts.
        loads: P / N, ascending, ``[L]``.
        rates: fraction of the patterns of each network that is recalled, float64 ``[L, trials]``.
        overlaps: mean final overlap in each network, float64 ``[L, trials]``.
    """

    rule: Rule
    units: int
    flip: float
    loads: Tensor
    rates: Tensor
    overlaps: Tensor

    def load_at(self, level: float) -> tuple[float, float]:
        """The load up to which the mean recall rate is at least ``level``, with its standard error (jackknife over networks).

        Interpolated linearly at the first load with a lower rate; nan where there is none, or where it is the first of all.
        """
        return jackknife(lambda rates: first_below(self.loads, rates, level), self.rates)


def recall_curves(
    rule: Rule,
    units: int,
    loads: Sequence[float],
    trials: int,
    flips: Sequence[float] = (0.0,),
    recalled: float = RECALLED,
    sweeps: int = 100,
    seed: int = 0,
) -> list[RecallCurve]:
    """Stores round(load N) random patterns in each of so many networks and recalls every one, asynchronously.

    Units are updated in the order of their numbers: for random patterns any fixed order is as good as a random one.
    Hebbian couplings are integers, so that local fields are exact in float32.

    Args:
        rule: hebbian or pseudo_inverse.
        units: N.
        loads: P / N; loads that give the same P, or none, are left out.
        trials: networks for each load.
        flips: fractions of units inverted at the start, round(flip N) of them at random places; 0: the pattern itself.
        recalled: final overlap from which on a pattern counts as recalled.
        sweeps: largest number of sweeps.
        seed: of patterns and flips.

    Returns:
        One curve for each of ``flips``, of the same networks.
    """
    counts = sorted({round(load * units) for load in loads} - {0})
    step = max(1, CHUNK_ELEMENTS // units**2)
    m = []  # for each load [flips, trials, P]
    for patterns in counts:
        generator = seeded_generator(seed, rule, units, patterns)
        chunks = [min(step, trials - start) for start in range(0, trials, step)]
        m.append(torch.cat([final_overlaps(rule, n, patterns, units, flips, sweeps, generator) for n in chunks], 1))
    rates = torch.stack([(each >= recalled - 1e-6).double().mean(-1) for each in m], 1)  # [flips, L, trials]
    means = torch.stack([each.double().mean(-1) for each in m], 1)
    at = torch.tensor(counts, dtype=torch.float64) / units
    return [RecallCurve(rule, units, flip, at, rates[i], means[i]) for i, flip in enumerate(flips)]


def final_overlaps(
    rule: Rule,
    trials: int,
    patterns: int,
    units: int,
    flips: Sequence[float],
    sweeps: int,
    generator: torch.Generator,
) -> Tensor:
    """Overlap of each pattern with the state that recall ends in, ``[flips, trials, patterns]``."""
    x = torch.randint(2, (trials, patterns, units), generator=generator).mul_(2).sub_(1).float()
    weight = hebbian(x, normalise=False) if rule == "hebbian" else pseudo_inverse(x)
    starts = []
    for flip in flips:
        places = torch.rand(x.shape, generator=generator).topk(round(flip * units), sorted=False).indices
        starts.append(x.scatter(-1, places, -x.gather(-1, places)))
    state = recall_asynchronous(weight, torch.cat(starts, 1), sweeps=sweeps).state
    return overlap(rearrange(state, "t (f p) n -> f t p n", f=len(flips)), x)


# ---------------------------------------------------------------- estimates


def first_below(loads: Tensor, rates: Tensor, level: float) -> float:
    """The load at which the mean over networks of rates ``[L, trials]`` first falls below the level, interpolated."""
    height = rates.mean(1) - level
    below = (height < 0).nonzero().flatten()
    return interpolate(loads, height, int(below[0])) if len(below) and below[0] > 0 else float("nan")


def size_crossing(small: RecallCurve, large: RecallCurve) -> tuple[float, float]:
    """The load above which the larger network recalls less than the smaller one, with its standard error.

    Curves meet at either end, where both are one or zero; the crossing in between is where the sum of (large - small) over
    loads is largest. nan where the larger network is never ahead and then behind.

    Raises:
        ValueError: the curves are not at the same loads.
    """
    if small.loads.shape != large.loads.shape or not torch.allclose(small.loads, large.loads):
        raise ValueError("the two curves must be at the same loads")

    def crossing(small_rates: Tensor, large_rates: Tensor) -> float:
        lead = large_rates.mean(1) - small_rates.mean(1)
        behind = int(lead.cumsum(0).argmax()) + 1
        if behind == len(lead) or lead[behind - 1] <= 0:
            return float("nan")
        return interpolate(small.loads, lead, behind)

    value, of_small = jackknife(lambda rates: crossing(rates, large.rates), small.rates)
    of_large = jackknife(lambda rates: crossing(small.rates, rates), large.rates)[1]
    return value, math.hypot(of_small, of_large)


def interpolate(loads: Tensor, height: Tensor, index: int) -> float:
    """The zero of ``height`` between ``index - 1``, where it is not negative, and ``index``, where it is."""
    before, after = float(height[index - 1]), float(height[index])
    share = before / (before - after) if before > after else 0.5
    return float(loads[index - 1] + share * (loads[index] - loads[index - 1]))


def jackknife(estimate: Callable[[Tensor], float], rates: Tensor) -> tuple[float, float]:
    """An estimate from all networks (second dimension), and its standard error from leaving out each in turn."""
    value, n = estimate(rates), rates.shape[1]
    if n < 2:
        return value, float("nan")
    kept = ~torch.eye(n, dtype=torch.bool)
    left_out = torch.tensor([estimate(rates[:, keep]) for keep in kept], dtype=torch.float64)
    return value, float(((n - 1) * left_out.var(correction=0)).sqrt())
