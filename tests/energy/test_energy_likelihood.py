"""log Z, annealing weights and pseudo-likelihoods of small machines against sums over all their states."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from scipy import stats
from torch import Tensor

from lit_gen.core.errors import UsageError
from lit_gen.core.random import RowNoise
from lit_gen.energy.joined import Joined
from lit_gen.energy.likelihood import (
    ais,
    anneal,
    enumerable,
    exact_log_z,
    pseudo_log_likelihood,
    raise_log_prob,
    reverse_ais,
)
from lit_gen.energy.machine import BipartiteMachine
from lit_gen.energy.path import TemperedPath
from lit_gen.energy.units import Bernoulli, Gaussian, Softmax
from tests.energy.enumerated_machine import (
    DISCRETE,
    LAYERS,
    SETTINGS,
    Enumeration,
    make_machine,
    randomised,
    row_noise,
    written_out,
)
from tests.energy.sampler_targets import ALPHA, generator

COARSE = [0.0, 0.2, 0.5, 0.505, 0.51, 0.9, 1.0]
"""Long steps and short ones, for which the weights are computed in another way."""


def make_path(machine: BipartiteMachine, seed: int = 1) -> TemperedPath:
    """From base rates that are not those of the machine."""
    noise = generator(seed)
    if not machine.visible.discrete:
        return TemperedPath(machine, torch.rand(machine.visible.dim, generator=noise, dtype=torch.float64))
    states, _ = written_out(machine.visible)
    weights = torch.randn(len(states), generator=noise, dtype=torch.float64).softmax(0)
    return TemperedPath(machine, weights @ states)


@torch.no_grad()
def exact_draws(machine: BipartiteMachine, n: int, noise: torch.Generator) -> Tensor:
    """Draws from p(v): of the enumerated visible states, or given draws of the enumerated hidden ones."""
    on_visible = machine.visible.discrete
    states, _ = written_out(machine.visible if on_visible else machine.hidden)
    free_energy = machine.free_energy(states) if on_visible else machine.visible_free_energy(states)
    draws = states[torch.multinomial((-free_energy).softmax(0), n, True, generator=noise)]
    return draws if on_visible else machine.sample_visible(draws, RowNoise.of(noise, n))


# ---------------------------------------------------------------- exact


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", LAYERS)
def test_exact_log_z_is_the_sum_over_all_joint_states(name: str, setting: str) -> None:
    machine = make_machine(name, setting)
    exact = Enumeration(machine).log_z().item()
    assert exact_log_z(machine) == pytest.approx(exact, abs=1e-9)
    assert exact_log_z(machine.float()) == pytest.approx(exact, abs=1e-5)
    assert machine.weight.dtype == torch.float32  # the machine itself is not converted
    assert enumerable(machine)


PAIRS = {
    "12 + 12": (lambda: Bernoulli(12), lambda: Bernoulli(12)),
    "12 + 5": (lambda: Bernoulli(12), lambda: Bernoulli(5)),
    "5 + 12": (lambda: Bernoulli(5), lambda: Bernoulli(12)),
    "softmax, softmax": (lambda: Softmax(4, 4), lambda: Softmax(3, 5)),
    "labelled, softmax": (lambda: Joined([Softmax(1, 3), Bernoulli(5)]), lambda: Softmax(4, 3)),
    "bernoulli, joined": (lambda: Bernoulli(6), lambda: Joined([Bernoulli(3), Softmax(2, 3)])),
    "gaussian and bernoulli, bernoulli": (lambda: Joined([Gaussian(1), Bernoulli(4)]), lambda: Bernoulli(6)),
}


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("name", PAIRS)
def test_exact_log_z_of_larger_machines(name: str, centred: bool) -> None:
    visible, hidden = PAIRS[name]
    machine = randomised(BipartiteMachine(visible(), hidden(), centred=centred), scale=0.5)
    everything = Enumeration(machine)
    with torch.no_grad():
        chunks = everything.v.split(256)
        free_energies = torch.cat([everything.free_energy(chunk) for chunk in chunks])
    exact = torch.logsumexp(everything.log_dv - free_energies, 0).item()
    assert exact_log_z(machine) == pytest.approx(exact, abs=1e-9)


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = make_machine("bernoulli_bernoulli")
    whole = exact_log_z(machine)
    monkeypatch.setattr("lit_gen.energy.likelihood.CHUNK", 10)  # fewer than a layer's states
    assert exact_log_z(machine) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize(("sigma", "n"), [(0.5, 1), (1.3, 1), (0.8, 2)])
def test_exact_log_z_of_gaussian_visibles_is_the_integral_of_the_free_energy(sigma: float, n: int) -> None:
    machine = randomised(BipartiteMachine(Gaussian(n, sigma), Bernoulli(7), temperature=1.4), scale=0.6)
    axis = torch.arange(-25, 25, 0.2, dtype=torch.float64) * sigma
    grid = torch.cartesian_prod(*[axis] * n).view(-1, n)
    with torch.no_grad():
        integral = torch.logsumexp(-machine.free_energy(grid), 0) + n * math.log(0.2 * sigma)
    assert exact_log_z(machine) == pytest.approx(integral.item(), abs=1e-9)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", DISCRETE)
def test_probabilities_sum_to_one(name: str, setting: str) -> None:
    machine = make_machine(name, setting)
    states = machine.visible.enumerate()
    with torch.no_grad():
        log_prob = -machine.free_energy(states) - exact_log_z(machine)
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_what_cannot_be_enumerated() -> None:
    large = BipartiteMachine(Bernoulli(30), Bernoulli(21))
    assert not enumerable(large)
    with pytest.raises(UsageError, match=r"2\^21"):
        exact_log_z(large)
    continuous = BipartiteMachine(Gaussian(2), Gaussian(2))
    assert not enumerable(continuous)
    with pytest.raises(UsageError, match="Gaussian"):
        exact_log_z(continuous)


# ---------------------------------------------------------------- annealing weights


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("down", [False, True])
def test_weights_are_the_ratios_of_the_path_densities(name: str, setting: str, down: bool) -> None:
    """The walk with shared fields and fused weights against one that calls the path for everything."""
    path = make_path(make_machine(name, setting))
    betas = COARSE[::-1] if down else COARSE
    begin = path.start(row_noise(50))
    v, expected, noise = begin.clone(), torch.zeros(50, dtype=torch.float64), row_noise(50, 3)
    fresh = row_noise(50, 3).generator
    for old, new in pairwise(betas):
        expected += path.log_density(v, new) - path.log_density(v, old)
        v = path.step(v, new, noise)
    log_weights = anneal(path, betas, begin, fresh)
    torch.testing.assert_close(log_weights, expected, rtol=0, atol=1e-10)
    assert log_weights.std() > 0.1  # there is something to compare
    torch.testing.assert_close(begin, path.start(row_noise(50)))  # the states that were given are untouched


def test_short_steps_lose_no_digits_in_float32() -> None:
    machine = randomised(BipartiteMachine(Bernoulli(50), Bernoulli(400)))
    path, step = TemperedPath(machine, torch.full((50,), 0.3, dtype=torch.float64)), [0.9, 0.9 + 1e-5]
    v = path.start(row_noise(20))
    exact = path.log_density(v, step[1]) - path.log_density(v, step[0])
    machine.float(), path.base.float()
    naive = path.log_density(v.float(), step[1]) - path.log_density(v.float(), step[0])
    error, naive_error = ((log_w - exact).abs().max() for log_w in (anneal(path, step, v.float(), generator()), naive))
    assert error < 1e-5 * exact.abs().max()
    assert naive_error > 100 * error


def test_one_step_is_importance_sampling_from_the_base_rates() -> None:
    machine = make_machine("bernoulli_bernoulli", "centred")
    mean = torch.tensor([0.1, 0.9, 0.5, 0.3], dtype=torch.float64)
    path = TemperedPath(machine, mean)
    rates = 0.95 * mean + 0.025
    v = path.start(row_noise(200, 5))
    with torch.no_grad():
        log_ratio = -machine.free_energy(v) - torch.distributions.Bernoulli(probs=rates).log_prob(v).sum(1)
    estimate = ais(path, [0, 1], 200, row_noise(200, 5).generator)
    assert estimate.value == pytest.approx((torch.logsumexp(log_ratio, 0) - math.log(200)).item(), abs=1e-10)
    ratio = log_ratio.exp()
    assert estimate.stderr == pytest.approx((ratio.std() / ratio.mean() / 200**0.5).item(), abs=1e-10)


@pytest.mark.parametrize("name", LAYERS)
def test_mean_weights_are_exact_at_any_number_of_temperatures(name: str) -> None:
    """E[w] = Z / Z_0 upwards and Z_0 / Z downwards, with few and long steps: a t-test."""
    machine = make_machine(name, "centred_cold" if machine_is_discrete(name) else "centred", scale=0.5)
    path, n = make_path(machine), 40_000
    log_ratio = exact_log_z(machine) - path.log_z0().item()
    up = anneal(path, [0, 0.4, 0.8, 1], path.start(row_noise(n)), generator(1))
    down = anneal(path, [1, 0.8, 0.4, 0], exact_draws(machine, n, generator(2)), generator(3))
    assert stats.ttest_1samp((up - log_ratio).exp().numpy(), 1.0).pvalue > ALPHA
    assert stats.ttest_1samp((down + log_ratio).exp().numpy(), 1.0).pvalue > ALPHA
    # both tests see an error of 5 %
    assert stats.ttest_1samp((up - log_ratio + 0.05).exp().numpy(), 1.0).pvalue < ALPHA
    assert stats.ttest_1samp((down + log_ratio + 0.05).exp().numpy(), 1.0).pvalue < ALPHA


def machine_is_discrete(name: str) -> bool:
    return "gaussian" not in name


# ---------------------------------------------------------------- AIS between its bounds

BRACKETED = {
    "bernoulli, bernoulli": (lambda: Bernoulli(12), lambda: Bernoulli(10), False, 1.0, 1.0),
    "centred and cold": (lambda: Bernoulli(12), lambda: Bernoulli(10), True, 0.8, 0.8),
    "gaussian, bernoulli": (lambda: Gaussian(6, 0.8), lambda: Bernoulli(8), False, 1.0, 0.6),
    "bernoulli, gaussian": (lambda: Bernoulli(10), lambda: Gaussian(4), True, 1.0, 0.5),
    "softmax, bernoulli": (lambda: Softmax(4, 4), lambda: Bernoulli(8), False, 1.0, 1.0),
    "labelled, bernoulli": (lambda: Joined([Bernoulli(7), Softmax(1, 4)]), lambda: Bernoulli(8), False, 1.0, 1.0),
}


@pytest.mark.parametrize("name", BRACKETED)
def test_ais_and_reverse_ais_bracket_log_z(name: str) -> None:
    """Each in at least 18 of 20 seeds, and on average one is not above it and the other not below it."""
    visible, hidden, centred, temperature, scale = BRACKETED[name]
    machine = randomised(BipartiteMachine(visible(), hidden(), 0.0, centred, temperature), scale=scale)
    path, exact = make_path(machine), exact_log_z(machine)
    assert abs(exact - path.log_z0().item()) > 1  # forgetting a term would be seen
    draws = exact_draws(machine, 2000, generator(100)).float().split(100)
    machine.float(), path.base.float()
    betas = torch.linspace(0, 1, 101)
    up = [ais(path, betas, 100, generator(seed)) for seed in range(20)]
    down = [reverse_ais(path, betas, states, generator(seed)) for seed, states in enumerate(draws)]
    for estimates in (up, down):
        assert sum(e.lower <= exact <= e.upper for e in estimates) >= 18
        assert all(0 < e.stderr < 0.3 for e in estimates)  # the intervals say something
    mean_up, mean_down = (torch.tensor([e.value for e in estimates]).mean().item() for estimates in (up, down))
    slack = 4 * max(e.stderr for e in up + down) / 20**0.5
    assert exact - 0.3 < mean_up < exact + slack
    assert exact - slack < mean_down < exact + 0.3


def test_few_temperatures_leave_log_z_between_the_two() -> None:
    machine = randomised(BipartiteMachine(Bernoulli(12), Bernoulli(10)), scale=2.0)
    path, exact = make_path(machine), exact_log_z(machine)
    betas, draws = [0, 0.2, 0.4, 0.6, 0.8, 1], exact_draws(machine, 800, generator(1)).split(10)
    up = [ais(path, betas, 10, generator(seed)).value for seed in range(80)]
    down = [reverse_ais(path, betas, states, generator(seed)).value for seed, states in enumerate(draws)]
    assert stats.ttest_1samp(up, exact, alternative="less").pvalue < ALPHA
    assert stats.ttest_1samp(down, exact, alternative="greater").pvalue < ALPHA


def test_annealing_is_reproducible_and_ends_where_it_should() -> None:
    path = make_path(make_machine("bernoulli_bernoulli").float())
    state = torch.get_rng_state()
    assert ais(path, COARSE, 10, generator(3)) == ais(path, COARSE, 10, generator(3))
    assert ais(path, COARSE, 10, generator(3)) != ais(path, COARSE, 10, generator(4))
    assert torch.equal(state, torch.get_rng_state())
    for wrong in ([0.1, 1.0], [0.0, 0.9], [0.0, 0.5, 0.5, 1.0], [1.0, 0.0], [0.0]):
        with pytest.raises(UsageError, match="betas"):
            ais(path, wrong, 10)


# ---------------------------------------------------------------- RAISE


def annealing_model(path: TemperedPath, betas: list[float]) -> Tensor:
    """p_ann(v) of all visible states: the base times the transition matrix at every inverse temperature."""
    visible, hidden = (written_out(units)[0] for units in (path.machine.visible, path.machine.hidden))
    p = path.log_density(visible, 0.0).softmax(0)
    for beta in betas[1:]:
        # the joint energy of the path, as path.py states it
        machine = path.machine
        left = visible - machine.visible_offset
        right = hidden - machine.hidden_offset
        interaction = beta * left @ machine.weight @ right.T
        base = (1 - beta) * (visible @ path.base_field()).unsqueeze(1)
        constant = (1 - beta) * hidden @ machine.hidden.constant_field()
        own = machine.visible.energy(visible).unsqueeze(1) + machine.hidden.energy(hidden)
        joint = machine.beta * (interaction + base - constant - own)
        p = p @ (joint.softmax(1) @ joint.softmax(0).T)
    return p.detach()


@pytest.mark.parametrize(("name", "setting"), [("bernoulli_bernoulli", "centred_cold"), ("softmax_bernoulli", "hot")])
def test_raise_is_unbiased_for_the_annealing_model(name: str, setting: str) -> None:
    """The mean weight of every visible state is its probability at the end of an annealing run: t-tests."""
    path, betas = make_path(make_machine(name, setting)), [0.0, 0.3, 0.6, 1.0]
    states, _ = written_out(path.machine.visible)
    p = annealing_model(path, betas)
    assert p.sum().item() == pytest.approx(1)
    n = 4000
    log_prob = raise_log_prob(path, states.repeat_interleave(n, 0), betas, 1, generator()).view(-1, n)
    ratios = (log_prob - p.log().unsqueeze(1)).exp().numpy()
    p_values = stats.ttest_1samp(ratios, 1.0, axis=1).pvalue
    assert p_values.min() * len(states) > ALPHA
    assert ratios.std(1).max() < 2
    # its distribution is another than the machine's, and the test tells them apart
    model = Enumeration(path.machine).log_prob(states).detach()
    others = stats.ttest_1samp((log_prob - model.unsqueeze(1)).exp().numpy(), 1.0, axis=1).pvalue
    assert others.min() < 1e-6
    # and the logarithm of a mean is below it
    few = raise_log_prob(path, states.repeat_interleave(400, 0), betas, 5, generator(1)).view(-1, 400)
    assert (few.mean(1) < p.log() + 4 * few.std(1) / 20).all()


@pytest.mark.parametrize("name", ["bernoulli_bernoulli", "gaussian_bernoulli", "labelled_bernoulli"])
def test_raise_approaches_the_likelihood_from_below(name: str) -> None:
    machine = make_machine(name, scale=1.5)
    path = make_path(machine)
    v = exact_draws(machine, 100, generator())
    with torch.no_grad():
        exact = Enumeration(machine).log_prob(v).mean().item()
    long, short = (
        raise_log_prob(path, v, torch.linspace(0, 1, steps + 1), 20, generator(1)).mean().item() for steps in (400, 4)
    )
    assert long == pytest.approx(exact, abs=0.03)
    assert short < exact + 0.03
    assert exact - short > 3 * abs(exact - long)


# ---------------------------------------------------------------- pseudo-likelihood


def all_conditionals(everything: Enumeration, v: Tensor) -> Tensor:
    """log p(v_i | v_-i) of every visible unit, ``[B, n]``, from the probabilities of all states."""
    log_prob = -everything.free_energy(everything.v)
    columns, place, visible = [], 0, everything.machine.visible
    for part in visible.parts if isinstance(visible, Joined) else [visible]:
        width = part.categories if isinstance(part, Softmax) else 1
        for first in range(place, place + part.dim, width):
            others = [i for i in range(visible.dim) if not first <= i < first + width]
            same = (v[:, None, others] == everything.v[:, others]).all(-1)
            total = torch.where(same, log_prob, -math.inf).logsumexp(1)
            columns.append(log_prob[everything.code(v)] - total)
        place += part.dim
    return torch.stack(columns, 1).detach()


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", DISCRETE)
def test_pseudo_likelihood_is_one_conditional_times_the_number_of_units(name: str, setting: str) -> None:
    everything = Enumeration(make_machine(name, setting))
    n, v = everything.machine.visible.n, everything.v
    exact = all_conditionals(everything, v)
    assert exact.shape[1] == n
    seen = torch.zeros_like(exact)
    for seed in range(60):
        noise = row_noise(len(v), seed)
        unit = row_noise(len(v), seed).integers(n)
        value = pseudo_log_likelihood(everything.machine, v, noise)
        torch.testing.assert_close(value, n * exact.gather(1, unit.unsqueeze(1)).squeeze(1), rtol=0, atol=1e-9)
        seen.scatter_(1, unit.unsqueeze(1), value.unsqueeze(1) / n)
    # every unit was chosen in every row, so that the mean over the choice is the pseudo-log-likelihood itself
    torch.testing.assert_close(seen.sum(1), exact.sum(1), rtol=0, atol=1e-9)


def test_pseudo_likelihood_of_independent_units_is_the_likelihood() -> None:
    """Without weights each of the n conditionals is a marginal: their mean over the choice is log p(v)."""
    machine = BipartiteMachine(Bernoulli(20), Bernoulli(5), weight_std=0.0)
    machine.visible.bias.data.normal_()
    v = (torch.rand(1, 20) < 0.5).float().expand(20_000, -1)
    values = pseudo_log_likelihood(machine, v, row_noise(20_000))
    exact = torch.distributions.Bernoulli(logits=machine.visible.bias).log_prob(v[0]).sum().item()
    assert stats.ttest_1samp(values.numpy(), exact).pvalue > ALPHA


def test_pseudo_likelihood_needs_discrete_units() -> None:
    for visible in (Gaussian(3), Joined([Bernoulli(2), Gaussian(2)])):
        with pytest.raises(UsageError, match="Gaussian"):
            pseudo_log_likelihood(BipartiteMachine(visible, Bernoulli(2)), torch.zeros(4, visible.dim), row_noise(4))
