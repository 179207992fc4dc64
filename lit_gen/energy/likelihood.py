r"""The likelihood of a bipartite machine: exact by enumeration, or estimated by annealing from above and from below.

:math:`\log p(v) = -F(v) - \log Z` needs the one number log Z. It is a sum over the states of the smaller layer where these
can be counted, and otherwise the end of a walk along a :class:`TemperedPath`, from base rates whose :math:`Z_0` is known:

.. math::
    \log w = \sum_{k=1}^{K} \log f_{\beta_k}(v_{k-1}) - \log f_{\beta_{k-1}}(v_{k-1}), \qquad
    v_k \sim T_{\beta_k}(\cdot \mid v_{k-1})

with :math:`f_\beta` summed over the hidden states. :math:`E[w] = Z / Z_0`, so that :math:`\log Z_0 + \log \bar w` is a
stochastic lower bound of log Z; the way back from exact samples gives an upper one.

All functions work without autograd and draw from the generator or the noise that they are given.

References:
    Salakhutdinov and Murray, On the Quantitative Analysis of Deep Belief Networks, ICML 2008.
    Burda, Grosse and Salakhutdinov, Accurate and conservative estimates of MRF log-likelihood using reverse annealing,
    AISTATS 2015 (arXiv:1412.8566).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from lit_gen.core.errors import require
from lit_gen.core.random import RowNoise
from lit_gen.energy.joined import Joined
from lit_gen.energy.machine import BipartiteMachine
from lit_gen.energy.path import TemperedPath
from lit_gen.energy.samplers import LogZ, log_mean_exp, log_z, reverse_log_z, schedule
from lit_gen.energy.units import ENUMERABLE, Bernoulli, Softmax, Units

CHUNK = 1 << 18
"""Most numbers in one tensor of an enumeration: 2 MB, which stay in the cache."""

SMALL_STEP = 0.01
"""Longest step in beta at which exp(step * activation) cannot overflow (for activations up to 8,000)."""

Betas = Sequence[float] | Tensor


def float64_device(device: torch.device) -> torch.device:
    """Where float64 exists: here, or on the CPU (Apple's GPUs have none)."""
    return torch.device("cpu") if device.type == "mps" else device


# ---------------------------------------------------------------- enumeration


def enumerable(machine: BipartiteMachine) -> bool:
    """Whether one layer has at most 2^20 states."""
    return min(machine.visible.log2_states(), machine.hidden.log2_states()) <= ENUMERABLE


@torch.no_grad()
def exact_log_z(machine: BipartiteMachine) -> float:
    """log Z in nats by summing over all states of the layer that has fewer; the other one may be of any kind. In float64.

    Raises:
        UsageError: both layers have more than 2^20 states, or none is discrete.
    """
    machine = copy.deepcopy(machine).to(float64_device(machine.weight.device)).double()
    if machine.hidden.log2_states() <= machine.visible.log2_states():
        states, free_energy, width = machine.hidden.enumerate(), machine.visible_free_energy, machine.visible.dim
    else:
        states, free_energy, width = machine.visible.enumerate(), machine.free_energy, machine.hidden.dim
    chunks = states.split(max(1, CHUNK // width))
    return torch.stack([torch.logsumexp(-free_energy(chunk), 0) for chunk in chunks]).logsumexp(0).item()


# ---------------------------------------------------------------- annealing


@torch.no_grad()
def ais(
    path: TemperedPath, betas: Betas | None = None, chains: int = 100, generator: torch.Generator | None = None
) -> LogZ:
    """log Z of the path's machine by annealed importance sampling from the base rates: a stochastic lower bound.

    Args:
        path: from the base rates to the machine.
        betas: increasing from 0 to 1; the authors' 14,501 where None.
        chains: number of importance weights, 2 or more.
        generator: source of randomness on the machine's device; the global one where None.

    References:
        Salakhutdinov and Murray, On the Quantitative Analysis of Deep Belief Networks, ICML 2008, section 3.1.
    """
    v = path.start(RowNoise.of(generator, chains, path.machine.weight.device))
    return log_z(anneal(path, _checked(betas), v, generator), path.log_z0().item())


@torch.no_grad()
def reverse_ais(
    path: TemperedPath, betas: Betas | None, states: Tensor, generator: torch.Generator | None = None
) -> LogZ:
    """log Z by the same weights, walked from the model's own states down to the base rates.

    From **exact** samples of the model this is a stochastic upper bound. From approximate ones, such as the ends of long Gibbs
    chains that began at data, it is only as good as they are: states more probable than the model's own push the estimate up,
    less probable ones push it down, possibly below log Z.

    Args:
        path: from the base rates to the machine.
        betas: increasing from 0 to 1, as for :func:`ais`.
        states: visible states taken as samples of the machine; they are not changed.
        generator: source of randomness on the machine's device; the global one where None.

    Shape:
        states: ``[C, visible.dim]``, C >= 2.

    References:
        Grosse, Ghahramani and Adams, Sandwiching the marginal likelihood using bidirectional Monte Carlo, 2015
        (arXiv:1511.02543).
    """
    log_weights = anneal(path, _checked(betas)[::-1], states, generator)
    return reverse_log_z(log_weights, path.log_z0().item())


@torch.no_grad()
def raise_log_prob(
    path: TemperedPath,
    v: Tensor,
    betas: Betas | None = None,
    chains: int = 10,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Log-probability of each v under the annealing model, from below: reverse AIS estimator (RAISE).

    The annealing model is what an AIS chain makes when its last state is called a sample: :math:`v_0 \sim p_{\beta_0}`,
    :math:`v_k \sim T_{\beta_k}(\cdot \mid v_{k-1})` up to k = K. With many temperatures it is close to the machine, and its
    likelihood, unlike the machine's, can be estimated conservatively: a chain from the given :math:`v_K = v` down,
    :math:`v_{k-1} \sim T_{\beta_k}(\cdot \mid v_k)`, has, since Gibbs steps v -> h -> v are reversible
    (:math:`f_k(v)\,T_k(v' \mid v) = f_k(v')\,T_k(v \mid v')`), the importance weight

    .. math::
        w = p_{\beta_0}(v_0) \prod_{k=1}^{K} \frac{T_k(v_k \mid v_{k-1})}{T_k(v_{k-1} \mid v_k)}
          = \frac{f_0(v_0)}{Z_0} \prod_{k=1}^{K} \frac{f_k(v_k)}{f_k(v_{k-1})}
          = \frac{f_K(v)}{Z_0} \prod_{k=1}^{K} \frac{f_{k-1}(v_{k-1})}{f_k(v_{k-1})}

    of mean :math:`p_\mathrm{ann}(v)`: the logarithm of the mean weight is, in expectation, a lower bound of
    :math:`\log p_\mathrm{ann}(v)`. The product is the weight of :func:`reverse_ais` begun one Gibbs step from v.

    Args:
        path: from the base rates to the machine.
        v: visible states.
        betas: increasing from 0 to 1, as for :func:`ais`.
        chains: M, reverse chains for each v.
        generator: source of randomness on the machine's device; the global one where None.

    Shape:
        v: ``[B, visible.dim]``; result: ``[B]``, float64, in nats. B * M chains run at once.

    References:
        Burda, Grosse and Salakhutdinov, AISTATS 2015 (arXiv:1412.8566).
    """
    betas = _checked(betas)[::-1]
    start = path.step(v.repeat_interleave(chains, 0), 1.0, RowNoise.of(generator, len(v) * chains, v.device))
    log_weights = anneal(path, betas, start, generator).view(len(v), chains)
    return path.log_density(v, 1.0).double().cpu() - path.log_z0().double().cpu() + log_mean_exp(log_weights, 1)


@torch.no_grad()
def anneal(path: TemperedPath, betas: Sequence[float], v: Tensor, generator: torch.Generator | None) -> Tensor:
    r"""Walks chains along the path and returns their log weights, ``[C]``, float64.

    Two matrix products for each inverse temperature: the hidden field at v serves the weight and the transition that follows.
    For Bernoulli hidden units with activations a the weight changes by

    .. math::
        \sum_j \mathrm{softplus}(\beta' a_j) - \mathrm{softplus}(\beta a_j)
        = -\sum_j \log(1 + \sigma(\beta' a_j) [e^{-(\beta' - \beta) a_j} - 1])

    whose :math:`\sigma(\beta' a_j)` is the probability from which the transition draws; unlike the difference of two long
    sums it loses no digits when the step is short.

    Args:
        path: the path.
        betas: inverse temperatures in the order of the walk, up or down.
        v: where the chains begin, ``[C, visible.dim]``; not changed.
        generator: source of randomness; the global one where None.
    """
    machine, noise = path.machine, RowNoise.of(generator, len(v), v.device)
    visible, hidden, weight, scale = machine.visible, machine.hidden, machine.weight, machine.beta
    binary = isinstance(hidden, Bernoulli)
    base, back = path.base_field(), weight @ machine.hidden_offset
    # what the hidden units receive besides s(v) W; log f falls with beta by s(v) slope - constant
    bias = (hidden.bias if binary else 0.0) - machine.visible_offset @ weight
    slope, constant = base + back, machine.visible_offset @ back
    field = v.new_empty(len(v), hidden.dim)
    work, h, v = torch.empty_like(field), torch.empty_like(field), v.clone()
    log_weight = torch.zeros(len(v), device=v.device, dtype=torch.float32 if v.device.type == "mps" else torch.float64)
    for k, (old, new) in enumerate(pairwise(betas), 1):
        s, step = visible.coupled(v), scale * (new - old)
        torch.addmm(bias, s, weight, out=field)
        log_weight -= (s @ slope).sub_(constant).mul_(step)
        if binary and abs(step) <= SMALL_STEP:
            torch.mul(field, scale * new, out=h).sigmoid_()
            log_weight -= torch.mul(field, -step, out=work).expm1_().mul_(h).log1p_().sum(-1)
            torch.lt(noise.uniform_like(h), h, out=h)
        else:
            feels = field - hidden.bias if binary else field
            before, after = path.hidden_field(feels, old), path.hidden_field(feels, new)
            log_weight += hidden.log_partition(after, scale) - hidden.log_partition(before, scale)
            h = hidden.sample_(after, noise, scale)
        if k == len(betas) - 1:  # a last transition would change no weight
            break
        torch.addmm(base * (1 - new) - back * new, hidden.coupled(h), weight.T, alpha=new, out=v)
        v = visible.sample_(v, noise, scale)
    return log_weight


def _checked(betas: Betas | None) -> list[float]:
    values = (schedule() if betas is None else torch.as_tensor(betas, dtype=torch.float64)).tolist()
    increasing = all(a < b for a, b in pairwise(values))
    require(len(values) >= 2 and values[0] == 0 and values[-1] == 1 and increasing, "betas", values[:3],
            "increasing, from 0 to 1")  # fmt: skip
    return values


# ---------------------------------------------------------------- pseudo-likelihood


@torch.no_grad()
def pseudo_log_likelihood(machine: BipartiteMachine, v: Tensor, noise: RowNoise) -> Tensor:
    r"""Estimates the pseudo-log-likelihood from one unit of each row.

    .. math:: \sum_{i=1}^{n} \log p(v_i \mid v_{-i}) = E_i\, n \log p(v_i \mid v_{-i}), \quad i \sim U\{1, \dots, n\}

    Free energies of the states that differ from v in unit i alone give the conditional probability: one more for a binary
    unit, K - 1 more for a categorical one.

    Args:
        machine: of discrete visible units.
        v: visible states.
        noise: of the rows of v, for the choice of i.

    Shape:
        v: ``[B, visible.dim]``; result: ``[B]``, in nats.

    Raises:
        UsageError: visible units that are not discrete.

    References:
        Besag, Statistical analysis of non-lattice data, The Statistician 1975.
    """
    unit = noise.integers(machine.visible.n)
    free_energy = machine.free_energy(v)
    first, parts = 0, list(_parts(machine.visible))
    most = max(_categories(part) for _, part in parts)
    # log p(other value) - log p(value), for the value itself and the others of its unit
    odds = v.new_full((len(v), most), -math.inf)
    odds[:, 0] = 0.0
    for place, part in parts:
        rows = ((unit >= first) & (unit < first + part.n)).nonzero().flatten()
        for category in range(1, _categories(part) if len(rows) else 1):
            other = v[rows]
            _move(other[:, place : place + part.dim], part, unit[rows] - first, category)
            odds[rows, category] = free_energy[rows] - machine.free_energy(other)
        first += part.n
    return -machine.visible.n * torch.logsumexp(odds, -1)


def _parts(units: Units, place: int = 0) -> Iterator[tuple[int, Units]]:
    """Layers and where their states begin."""
    if not isinstance(units, Joined):
        yield place, units
        return
    for part in units.parts:
        yield from _parts(part, place)
        place += part.dim


def _categories(units: Units) -> int:
    require(isinstance(units, Bernoulli | Softmax), "visible units", type(units).__name__,
            "Bernoulli or Softmax, for the pseudo-likelihood")  # fmt: skip
    return units.categories if isinstance(units, Softmax) else 2


def _move(x: Tensor, units: Units, unit: Tensor, places: int) -> None:
    """Moves one unit of each row by so many categories, cyclically and in place."""
    if isinstance(units, Softmax):
        x = x.unflatten(-1, (units.n, units.categories))
    rows = torch.arange(len(x), device=x.device)
    x[rows, unit] = x[rows, unit].roll(places, -1) if isinstance(units, Softmax) else 1 - x[rows, unit]
