"""The bipartite machine against the joint distribution with all its states written out."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from lit_gen.core.errors import UsageError
from lit_gen.energy.likelihood import exact_log_z
from lit_gen.energy.machine import BipartiteMachine
from lit_gen.energy.path import SMOOTHING, TemperedPath
from lit_gen.energy.units import Bernoulli, Gaussian
from tests.energy.enumerated_machine import (
    ALPHA,
    DISCRETE,
    LAYERS,
    SETTINGS,
    SURE,
    Enumeration,
    chi_square,
    make_machine,
    own_energy,
    randomised,
    reduced_energy,
    row_noise,
    statistic,
    written_out,
)

every_machine = pytest.mark.parametrize("name", LAYERS)
discrete_machines = pytest.mark.parametrize("name", DISCRETE)
CHAINS = 5000

every_setting = pytest.mark.parametrize("setting", SETTINGS)


@every_setting
@every_machine
def test_energies_are_those_of_the_definition(name: str, setting: str) -> None:
    machine = make_machine(name, setting)
    exact = Enumeration(machine)
    v, h = exact.v[:: max(1, len(exact.v) // 50)], exact.h[:: max(1, len(exact.h) // 50)]
    pairs = reduced_energy(machine, v, h)
    torch.testing.assert_close(machine.energy(v.unsqueeze(1), h.unsqueeze(0)), pairs)
    torch.testing.assert_close(machine.free_energy(v), exact.free_energy(v))
    from_above = -torch.logsumexp(exact.log_dv - reduced_energy(machine, exact.v, h), 0)
    torch.testing.assert_close(machine.visible_free_energy(h), from_above)
    assert exact_log_z(machine) == pytest.approx(exact.log_z().item(), abs=1e-9)


@every_setting
@every_machine
def test_conditionals_are_those_of_the_joint(name: str, setting: str) -> None:
    machine = make_machine(name, setting)
    exact = Enumeration(machine)
    with torch.no_grad():
        v = exact.v[torch.randint(len(exact.v), (20,))]
        torch.testing.assert_close(machine.hidden_mean(v), exact.hidden_given_visible(v) @ exact.h)
        h = exact.h[torch.randint(len(exact.h), (20,))]
        given = (-reduced_energy(machine, exact.v, h)).softmax(0).T
        torch.testing.assert_close(machine.visible_mean(h), given @ exact.v)


def test_twelve_and_twelve_units() -> None:
    machine = randomised(BipartiteMachine(Bernoulli(12), Bernoulli(12), 0.0, centred=True), scale=0.5)
    exact = Enumeration(machine)
    with torch.no_grad():
        assert exact_log_z(machine) == pytest.approx(exact.log_z().item(), abs=1e-9)
        v = exact.v[::97]
        torch.testing.assert_close(machine.free_energy(v), exact.free_energy(v))
        torch.testing.assert_close(machine.hidden_mean(v), exact.hidden_given_visible(v) @ exact.h)


# ---------------------------------------------------------------- Gibbs sampling


@every_setting
@discrete_machines
def test_gibbs_steps_have_the_transition_matrix_that_leaves_the_joint_invariant(name: str, setting: str) -> None:
    machine = make_machine(name, setting)
    exact = Enumeration(machine)
    transitions, p = exact.transitions(), exact.joint().sum(1)
    torch.testing.assert_close(p @ transitions, p)
    starts, ends = (0, len(p) - 1), {}
    for k in (1, 3):
        expected = torch.linalg.matrix_power(transitions, k)
        for start in starts:
            v = exact.v[start].expand(CHAINS, -1)
            ends[k, start] = exact.counts(machine.gibbs(v, k, row_noise(CHAINS, seed=k)))
            assert chi_square(ends[k, start], expected[start]) > ALPHA / 4
    assert chi_square(ends[1, starts[1]], transitions[starts[0]]) < SURE  # the test would notice


@every_setting
@pytest.mark.parametrize("name", [name for name in LAYERS if name not in DISCRETE])
def test_long_chains_of_gaussian_units_follow_the_mixture(name: str, setting: str) -> None:
    machine = make_machine(name, setting, scale=0.6)
    exact = Enumeration(machine)
    v = machine.gibbs(torch.zeros(5000, 2, dtype=torch.float64), 100, row_noise(5000))
    weights = exact.joint().sum(0).numpy()
    with torch.no_grad():
        field = (statistic(machine.hidden, exact.h) - machine.hidden_offset) @ machine.weight.T
        means = (machine.visible.mu + machine.visible.sigma * field).numpy()
        deviations = (machine.visible.sigma / math.sqrt(machine.beta)).numpy()
    for unit in range(2):

        def cdf(x, unit=unit, shift=0.0):
            return stats.norm.cdf(x[:, None] - shift, means[:, unit], deviations[unit]) @ weights

        assert stats.kstest(v[:, unit].numpy(), cdf).pvalue > ALPHA / 2
        assert stats.kstest(v[:, unit].numpy(), lambda x: cdf(x, shift=0.3)).pvalue < SURE
    h = machine.sample_hidden(v, row_noise(len(v), 1))
    counts = torch.cdist(h, exact.h, p=1).argmin(1).bincount(minlength=len(exact.h)).double()
    assert chi_square(counts, exact.joint().sum(0)) > ALPHA


@every_setting
@discrete_machines
def test_clamped_units_stay_and_the_others_follow_the_conditional(name: str, setting: str) -> None:
    machine = make_machine(name, setting)
    exact = Enumeration(machine)
    known = torch.zeros(machine.visible.dim, dtype=torch.bool)
    known[: 3 if name == "softmax_bernoulli" else 2] = True
    p = exact.joint().sum(1)
    for start in (0, len(p) - 1):
        agrees = (exact.v[:, known] == exact.v[start, known]).all(1)
        v = exact.v[start].expand(CHAINS, -1).contiguous()
        end = machine.gibbs(v, 30, row_noise(CHAINS), known=known.expand_as(v))
        assert torch.equal(end[:, known], v[:, known])
        assert chi_square(exact.counts(end)[agrees], p[agrees] / p[agrees].sum()) > ALPHA / 2


@every_setting
@discrete_machines
def test_a_field_on_the_visible_units_tilts_the_distribution(name: str, setting: str) -> None:
    machine = make_machine(name, setting)
    exact = Enumeration(machine)
    bias = torch.randn(machine.visible.dim, dtype=torch.float64)
    plain = exact.joint().sum(1)
    tilted = plain * (machine.beta * exact.v @ bias).exp()
    v = torch.zeros(CHAINS, machine.visible.dim, dtype=torch.float64)
    counts = exact.counts(machine.gibbs(v, 30, row_noise(CHAINS), bias=bias.expand_as(v)))
    assert chi_square(counts, tilted / tilted.sum()) > ALPHA
    assert chi_square(counts, plain) < SURE


@every_machine
def test_gibbs_keeps_its_arguments_and_shows_the_means(name: str) -> None:
    machine = make_machine(name, "centred_cold")
    v = Enumeration(machine).v[torch.randint(7, (6,))]
    field = machine.hidden_field(v).detach()
    before, field_before, means, hidden = v.clone(), field.clone(), [], []
    sample_hidden = machine.hidden.sample_

    def seen(*args):
        hidden.append(sample_hidden(*args).clone())  # a copy: the next step writes over the state
        return args[0]

    machine.hidden.sample_ = seen
    end = machine.gibbs(v, 4, row_noise(6), field=field, visit=lambda mean: means.append(mean.clone()))
    assert torch.equal(v, before)
    assert torch.equal(field, field_before)
    assert end.data_ptr() != v.data_ptr()
    assert len(means) == 4
    for h, mean in zip(hidden, means):
        torch.testing.assert_close(mean, machine.visible_mean(h).detach())
    assert torch.equal(end, machine.gibbs(v, 4, row_noise(6)))  # without the field: computed, with the same result


# ---------------------------------------------------------------- centring and temperature


@pytest.mark.parametrize("rate", [0.1, 1.0])
@pytest.mark.parametrize("setting", ["centred", "centred_cold"])
@every_machine
def test_moving_the_offsets_keeps_the_distribution(name: str, setting: str, rate: float) -> None:
    machine = make_machine(name, setting)
    exact = Enumeration(machine)
    v = exact.v[torch.randint(len(exact.v), (20,))]
    with torch.no_grad():
        before, weight = exact.log_prob(v), machine.weight.clone()
        target_v, target_h = torch.rand(machine.visible.dim).double(), torch.rand(machine.hidden.dim).double()
        expected = machine.visible_offset + rate * (target_v - machine.visible_offset)
        machine.move_offsets(target_v, target_h, rate)
        torch.testing.assert_close(exact.log_prob(v), before)
        torch.testing.assert_close(machine.visible_offset, expected)
        assert torch.equal(machine.weight, weight)


@every_setting
@every_machine
def test_the_plain_machine_has_the_same_distribution(name: str, setting: str) -> None:
    machine = make_machine(name, setting)
    if machine.beta != 1.0 and "gaussian" in name:
        with pytest.raises(UsageError, match="temperature"):
            machine.plain()
        return
    plain = machine.plain()
    assert plain.beta == 1.0
    assert not plain.centred
    assert plain.visible_offset.abs().max() == 0
    assert plain.hidden_offset.abs().max() == 0
    v = Enumeration(machine).v[:20]
    with torch.no_grad():
        torch.testing.assert_close(Enumeration(plain).log_prob(v), Enumeration(machine).log_prob(v))
        free_energies = plain.free_energy(v) - machine.free_energy(v)
    torch.testing.assert_close(free_energies, free_energies[:1].expand(len(v)))
    plain.weight.zero_()
    assert machine.weight.abs().max() > 0  # apart from this one


@pytest.mark.parametrize("bad", [{"temperature": 0.0}, {"temperature": -1.0}, {"weight_std": -0.1}])
def test_bad_arguments_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(bad))} = {next(iter(bad.values()))}"):
        BipartiteMachine(Bernoulli(2), Bernoulli(2), **bad)


# ---------------------------------------------------------------- the path to the base rates


def density(machine: BipartiteMachine, base: torch.Tensor, beta: float) -> torch.Tensor:
    """log of the unnormalised density ``[V, H]`` at a point of the path, by its definition."""
    v, log_dv = written_out(machine.visible)
    h, log_dh = written_out(machine.hidden)
    s, t = statistic(machine.visible, v), statistic(machine.hidden, h)
    interaction = (s - machine.visible_offset) @ machine.weight @ (t - machine.hidden_offset).T
    fields = (s @ (base - machine.visible.constant_field())).unsqueeze(1) - t @ machine.hidden.constant_field()
    energy = own_energy(machine.visible, v).unsqueeze(1) + own_energy(machine.hidden, h)
    return machine.beta * (beta * interaction + (1 - beta) * fields - energy) + log_dv + log_dh


@every_setting
@every_machine
def test_the_path_runs_from_the_base_rates_to_the_machine(name: str, setting: str) -> None:
    machine = make_machine(name, setting)
    exact = Enumeration(machine)
    mean = exact.v[torch.randint(len(exact.v), (5,))].mean(0).clamp(-2, 2)
    path = TemperedPath(machine, mean)
    with torch.no_grad():
        base = path.base.constant_field()
        assert path.log_z0().item() == pytest.approx(density(machine, base, 0.0).flatten().logsumexp(0).item())
        for beta in (0.0, 0.3, 1.0):
            expected = density(machine, base, beta).logsumexp(1) - exact.log_dv
            torch.testing.assert_close(path.log_density(exact.v, beta), expected)
        torch.testing.assert_close(path.log_density(exact.v, 1.0), -machine.free_energy(exact.v))
        draws = path.start(row_noise(20_000))
        smoothed = mean
        if machine.visible.discrete:
            uniform = exact.v.mean(0)
            smoothed = (1 - SMOOTHING) * mean + SMOOTHING * uniform
            if machine.beta != 1.0:  # the base rates are those at T = 1
                smoothed = path.machine.visible.mean_(path.base_field().clone(), machine.beta)
        error = draws.std(0) / math.sqrt(len(draws))
        assert ((draws.mean(0) - smoothed).abs() < 5 * error).all()


@pytest.mark.parametrize("setting", ["plain", "centred_cold"])
@discrete_machines
def test_a_step_leaves_every_point_of_the_path_invariant(name: str, setting: str) -> None:
    machine = make_machine(name, setting)
    exact = Enumeration(machine)
    path = TemperedPath(machine, exact.v[:3].mean(0))
    for beta in (0.0, 0.5, 1.0):
        p = (
            density(machine, path.base.constant_field(), beta)
            .detach()
            .flatten()
            .softmax(0)
            .view(len(exact.v), -1)
            .sum(1)
        )
        start = torch.multinomial(p, CHAINS, replacement=True, generator=torch.Generator().manual_seed(3))
        assert chi_square(exact.counts(path.step(exact.v[start], beta, row_noise(CHAINS))), p) > ALPHA / 6
        # and forgets where it began
        v, noise = exact.v[:1].expand(CHAINS, -1), row_noise(CHAINS, 9)
        for _ in range(25):
            v = path.step(v, beta, noise)
        assert chi_square(exact.counts(v), p) > ALPHA / 6


def test_the_path_of_several_temperatures_at_once() -> None:
    machine = make_machine("labelled_bernoulli", "centred")
    exact = Enumeration(machine)
    path = TemperedPath(machine, exact.v.mean(0))
    beta = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64).unsqueeze(-1)
    v = exact.v[:8].unsqueeze(1).expand(-1, 3, -1)
    for i, value in enumerate((0.0, 0.4, 1.0)):
        torch.testing.assert_close(path.log_density(v, beta)[:, i], path.log_density(v[:, i], value))


def test_the_path_at_a_gaussian_layer_is_proper_everywhere() -> None:
    machine = randomised(BipartiteMachine(Gaussian(2), Bernoulli(3), 0.0))
    path = TemperedPath(machine, torch.tensor([0.3, -0.4]).double())
    torch.testing.assert_close(
        path.start(row_noise(40_000)).mean(0), torch.tensor([0.3, -0.4]).double(), atol=0.03, rtol=0
    )
