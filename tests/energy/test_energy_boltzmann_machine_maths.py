"""Energy, likelihood and sequential updates of the general Boltzmann machine against all states written out."""

from __future__ import annotations

import pytest
import torch
from small_boltzmann_machine import make_machine, number_of, written_out
from torch import Tensor

from lit_gen.core.errors import UsageError
from lit_gen.core.random import RowNoise
from lit_gen.energy import fully_connected_likelihood as likelihood
from lit_gen.energy import sequential_sweeps
from lit_gen.energy.fully_connected import FullyConnected, Moments
from lit_gen.energy.sequential_sweeps import SequentialSweeps

SIZES = [(3, 2), (5, 0), (2, 4)]


class Given:
    """Noise whose next draws are given; ``generator`` for the order."""

    def __init__(self, *draws: Tensor) -> None:
        self.draws, self.generator = list(draws), torch.Generator().manual_seed(5)

    def uniform(self, *event: int) -> Tensor:
        draw = self.draws.pop(0)
        assert draw.shape[1:] == event
        return draw


def sweeps_of(machine: FullyConnected, state: Tensor, **options: object) -> SequentialSweeps:
    options = {"beta": 1 / machine.temperature} | options
    return SequentialSweeps(machine.weight.detach(), machine.bias.detach(), state, **options)


# -------------------------------------------------------------------- energy and likelihood


@pytest.mark.parametrize("size", SIZES)
def test_energies_and_likelihoods_are_those_written_out(size: tuple[int, int], monkeypatch) -> None:
    monkeypatch.setattr(likelihood, "CHUNK", 4)  # several chunks
    machine = make_machine(*size, temperature=1.7)
    states, p = written_out(machine)
    logs = -machine.energy(states) / machine.temperature
    log_z = likelihood.log_partition(machine)
    torch.testing.assert_close(logs - log_z, p.log())
    torch.testing.assert_close(log_z, logs.logsumexp(0))

    visible = likelihood.all_states(size[0], p)
    marginal = torch.stack([p[(states[:, : size[0]] == v).all(1)].sum() for v in visible])
    torch.testing.assert_close(likelihood.log_likelihood(machine, visible), marginal.log())
    assert marginal.sum().item() == pytest.approx(1.0)


@pytest.mark.parametrize("size", SIZES)
def test_conditionals_are_those_of_the_joint(size: tuple[int, int]) -> None:
    machine = make_machine(*size, temperature=0.6)
    states, p = written_out(machine)
    for i in range(machine.units):
        on, off = states.clone(), states.clone()
        on[:, i], off[:, i] = 1, 0
        expected = p[number_of(on)] / (p[number_of(on)] + p[number_of(off)])
        torch.testing.assert_close(machine.log_odds(states)[:, i].sigmoid(), expected)
        sweeps = sweeps_of(machine, states)
        torch.testing.assert_close(sweeps.log_odds()[:, i].sigmoid(), expected)
    nll = torch.zeros(len(p), dtype=torch.float64)
    for i in range(size[0]):
        other = states.clone()
        other[:, i] = 1 - other[:, i]
        nll -= (p / (p + p[number_of(other)])).log()
    torch.testing.assert_close(machine.conditional_nll(states), nll)


@pytest.mark.parametrize("size", SIZES)
def test_moments_are_those_written_out(size: tuple[int, int], monkeypatch) -> None:
    monkeypatch.setattr(likelihood, "CHUNK", 8)
    machine = make_machine(*size)
    states, p = written_out(machine)
    model = likelihood.model_moments(machine)
    torch.testing.assert_close(model.first, p @ states)
    torch.testing.assert_close(model.second, states.t() * p @ states)

    visible = (torch.rand(5, size[0]) < 0.5).double()
    data = likelihood.data_moments(machine, visible)
    first, second = torch.zeros_like(data.first), torch.zeros_like(data.second)
    for v in visible:
        given = p * (states[:, : size[0]] == v).all(1)
        given = given / given.sum() / len(visible)
        first, second = first + given @ states, second + states.t() * given @ states
    torch.testing.assert_close(data.first, first)
    torch.testing.assert_close(data.second, second)
    energy = machine.energy(states)
    torch.testing.assert_close(machine.expected_energy(model), p @ energy)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("size", SIZES)
def test_exact_gradient(size: tuple[int, int], temperature: float) -> None:
    """Energy differences, autograd through the sums, and Ackley et al.'s formula are the same gradient."""
    machine = make_machine(*size, temperature=temperature)
    visible = (torch.rand(7, size[0]) < 0.5).double()
    loss = -likelihood.log_likelihood(machine, visible).mean()
    by_autograd = torch.autograd.grad(loss, list(machine.parameters()))
    with torch.no_grad():
        data, model = likelihood.data_moments(machine, visible), likelihood.model_moments(machine)
    difference = (machine.expected_energy(data) - machine.expected_energy(model)) / temperature
    by_energies = torch.autograd.grad(difference, list(machine.parameters()))
    for a, b in zip(by_autograd, by_energies):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)

    machine.offset.zero_()
    with torch.no_grad():
        data, model = likelihood.data_moments(machine, visible), likelihood.model_moments(machine)
    loss = -likelihood.log_likelihood(machine, visible).mean()
    couplings, bias = torch.autograd.grad(loss, [machine.couplings, machine.centred_bias])
    pairs = [(i, j) for i in range(machine.units) for j in range(i + 1, machine.units)]
    formula = torch.stack([model.second[i, j] - data.second[i, j] for i, j in pairs]) / temperature
    torch.testing.assert_close(couplings, formula, atol=1e-6, rtol=0)
    torch.testing.assert_close(bias, (model.first - data.first) / temperature, atol=1e-6, rtol=0)


def test_centring_changes_the_coordinates_alone() -> None:
    machine = make_machine(3, 2)
    weight, bias, c = machine.weight, machine.centred_bias, machine.offset
    states, _ = written_out(machine)
    centred = -0.5 * ((states - c) @ weight * (states - c)).sum(-1) - (states - c) @ bias
    difference = centred - machine.energy(states)
    torch.testing.assert_close(difference, difference[:1].expand_as(difference))


def test_variational_bound() -> None:
    machine = make_machine(4, 3, temperature=1.3)
    visible = likelihood.all_states(4, machine.couplings)
    exact = likelihood.log_likelihood(machine, visible) + likelihood.log_partition(machine)
    sweeps = sweeps_of(machine, torch.cat([visible, torch.full((16, 3), 0.5)], 1), units=torch.arange(4, 7))
    bounds = [machine.variational_bound(sweeps.state)]
    for _ in range(30):
        sweeps.mean_field_sweep()
        bounds.append(machine.variational_bound(sweeps.state))
        assert (bounds[-1] >= bounds[-2] - 1e-12).all()  # coordinate ascent
    assert (bounds[-1] <= exact).all()
    assert (exact - bounds[-1]).max() < 0.5 * (exact - bounds[0]).max()
    mean = sweeps.state
    torch.testing.assert_close(machine.log_odds(mean).sigmoid()[:, 4:], mean[:, 4:], atol=1e-6, rtol=0)  # stationary
    # by its definition: the mean of -E/T over q, written out, and the entropy of q
    hidden = likelihood.all_states(3, visible)
    row, q = visible[5].expand(8, -1), mean[5, 4:]
    weight = (q * hidden + (1 - q) * (1 - hidden)).prod(1)
    definition = (weight * (-machine.energy(torch.cat([row, hidden], 1)) / 1.3 - weight.log())).sum()
    torch.testing.assert_close(bounds[-1][5], definition)

    alone = make_machine(4, 0)
    tight = alone.variational_bound(visible) - likelihood.log_partition(alone)
    torch.testing.assert_close(tight, likelihood.log_likelihood(alone, visible))


def test_twenty_units_are_the_most(monkeypatch) -> None:
    with pytest.raises(UsageError, match=r"log Z needs a sum over the states of K = 21 units; accepted: at most 20"):
        likelihood.log_partition(FullyConnected(10, 11))
    # independent units: log Z is a sum of softplus
    machine = FullyConnected(12, 8, weight_std=0.0)
    torch.nn.init.normal_(machine.centred_bias)
    expected = torch.nn.functional.softplus(machine.centred_bias).sum()
    torch.testing.assert_close(likelihood.log_partition(machine), expected)


def test_ais_is_within_three_sigma() -> None:
    machine = make_machine(8, 4, scale=1.0, temperature=1.2)
    exact = likelihood.log_partition(machine).item()
    rate = torch.rand(12, dtype=torch.float64) * 0.8 + 0.1
    inside, ends = 0, []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        estimate = likelihood.annealed_log_partition(machine, rate, 100, 100, generator)
        inside += estimate.lower <= exact <= estimate.upper
        ends.append(estimate.value)
    assert inside >= 18
    assert abs(sum(ends) / 20 - exact) < 0.1
    assert len(set(ends)) == 20


# -------------------------------------------------------------------- sequential updates


def naive_sweep(
    machine: FullyConnected, state: Tensor, uniform: Tensor, order: Tensor, field: Tensor, held: Tensor
) -> Tensor:
    """One unit of one chain after the other, each with its whole sum."""
    weight, bias, state = machine.weight.detach(), machine.bias.detach(), state.clone()
    for n in range(len(state)):
        for position, i in enumerate(order.tolist()):
            if not held[n, i]:
                total = bias[i] + sum(weight[i, j] * state[n, j] for j in range(machine.units))
                state[n, i] = float(uniform[n, position] < torch.sigmoid(total / machine.temperature + field[n, i]))
    return state


@pytest.mark.parametrize("scan", ["systematic", "shuffled"])
@pytest.mark.parametrize("block", [1, 3, 32])
def test_blocks_do_what_one_unit_after_the_other_does(block: int, scan: str, monkeypatch) -> None:
    monkeypatch.setattr(sequential_sweeps, "BLOCK", block)
    machine = make_machine(6, 5, temperature=1.4)
    state = (torch.rand(4, 11) < 0.5).double()
    units = torch.tensor([9, 0, 3, 4, 10, 1, 7, 2])
    held = torch.rand(4, 11) < 0.3
    field = torch.randn(4, 11, dtype=torch.float64)
    draws = torch.rand(3, 4, 8, dtype=torch.float64)
    sweeps = sweeps_of(machine, state, units=units, clamped=held, field=field, scan=scan)
    orders, noise = torch.Generator().manual_seed(5), Given(*draws)
    expected = state
    for draw in draws:
        order = units if scan == "systematic" else units[torch.randperm(8, generator=orders)]
        expected = naive_sweep(machine, expected, draw, order, field, held)
        sweeps.sweep(noise)
        assert torch.equal(sweeps.state, expected)
    assert torch.equal(expected[held], state[held])
    assert torch.equal(expected[:, [5, 6, 8]], state[:, [5, 6, 8]])
    assert not torch.equal(expected, state)


@pytest.mark.parametrize("block", [2, 32])
def test_mean_field_does_what_one_unit_after_the_other_does(block: int, monkeypatch) -> None:
    monkeypatch.setattr(sequential_sweeps, "BLOCK", block)
    machine = make_machine(4, 3, temperature=0.8)
    state, held = torch.rand(5, 7, dtype=torch.float64).round(), torch.rand(5, 7) < 0.3
    field = torch.randn(7, dtype=torch.float64)
    sweeps = sweeps_of(machine, state, clamped=held, field=field)
    expected = state.clone()
    for _ in range(2):
        sweeps.mean_field_sweep()
        for i in range(7):
            mean = (machine.log_odds(expected)[:, i] + field[i]).sigmoid().detach()
            expected[:, i] = torch.where(held[:, i], expected[:, i], mean)
    torch.testing.assert_close(sweeps.state, expected)


def transition_matrix(machine: FullyConnected, order: list[int]) -> Tensor:
    """The probabilities of all moves of one sweep, ``[from, to]``, as a product over its units."""
    states = likelihood.all_states(machine.units, machine.couplings)
    matrix = torch.eye(len(states), dtype=torch.float64)
    for i in order:
        on, off = states.clone(), states.clone()
        on[:, i], off[:, i] = 1, 0
        p = machine.log_odds(states)[:, i].sigmoid().detach()
        step = torch.zeros_like(matrix)
        rows = torch.arange(len(states))
        step[rows, number_of(on)], step[rows, number_of(off)] = p, 1 - p
        matrix = matrix @ step
    return matrix


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [3, 0, 4, 2, 1], [4, 3, 2, 1, 0]])
def test_a_sweep_leaves_the_distribution_as_it_is(order: list[int]) -> None:
    """The matrix of exact moves keeps p, and the moves that the sampler makes are distributed like its rows."""
    machine = make_machine(3, 2, temperature=1.5)
    states, p = written_out(machine)
    matrix = transition_matrix(machine, order)
    torch.testing.assert_close(p @ matrix, p)
    torch.testing.assert_close(matrix.sum(1), torch.ones(32, dtype=torch.float64))
    chains = 2000
    sweeps = sweeps_of(machine, states.repeat_interleave(chains, 0), units=torch.tensor(order))
    sweeps.sweep(RowNoise.of(torch.Generator().manual_seed(1), 32 * chains))
    counts = torch.zeros(32, 32, dtype=torch.float64)
    counts.index_put_(
        (torch.arange(32).repeat_interleave(chains), number_of(sweeps.state)), torch.ones(()).double(), True
    )
    assert chi_square_is_likely(counts, matrix * chains)


@pytest.mark.parametrize("scan", ["systematic", "shuffled"])
def test_long_chains_have_the_enumerated_distribution(scan: str) -> None:
    machine = make_machine(4, 2)
    _, p = written_out(machine)
    sweeps = sweeps_of(machine, torch.zeros(20_000, 6), scan=scan)
    noise = RowNoise.of(torch.Generator().manual_seed(2), 20_000)
    for _ in range(50):
        sweeps.sweep(noise)
    counts = torch.bincount(number_of(sweeps.state), minlength=64).double()
    assert chi_square_is_likely(counts[None], p[None] * 20_000)


def chi_square_is_likely(counts: Tensor, expected: Tensor, confidence: float = 0.999) -> bool:
    """Pearson's test of independent rows of counts; cells that expect less than 5 are joined."""
    statistic, freedom = 0.0, 0
    for seen, hoped in zip(counts, expected):
        rare = hoped < 5
        cells = torch.cat([hoped[~rare], hoped[rare].sum()[None]])
        values = torch.cat([seen[~rare], seen[rare].sum()[None]])
        cells, values = cells[cells > 0], values[cells > 0]
        statistic += ((values - cells).square() / cells).sum().item()
        freedom += len(cells) - 1
    return torch.special.gammainc(torch.tensor(freedom / 2.0), torch.tensor(statistic / 2)).item() < confidence


@pytest.mark.parametrize("phase", ["positive", "negative"])
def test_gibbs_gradient_is_exact_in_the_limit_of_long_chains(phase: str) -> None:
    """Hotelling's T^2 of independent chains' moments from the exact ones, at 99.9 %: their difference is the gradient."""
    machine = make_machine(4, 2, scale=0.7)
    visible = torch.tensor([[1, 0, 1, 0], [1, 1, 1, 0], [0, 0, 1, 1]], dtype=torch.float64)
    chains = 6000
    noise = RowNoise.of(torch.Generator().manual_seed(7), chains)
    data = torch.cat([visible.repeat(chains // 3, 1), torch.zeros(chains, 2).double()], 1)
    clamped, free = sweeps_of(machine, data, units=torch.tensor([4, 5])), sweeps_of(machine, data)
    for _ in range(60):
        clamped.sweep(noise)
        free.sweep(noise)
    exact_data, exact_model = likelihood.data_moments(machine, visible), likelihood.model_moments(machine)
    rows, columns = machine.rows, machine.columns

    def features(state: Tensor) -> Tensor:
        return torch.cat([state[:, rows] * state[:, columns], state], 1)

    def flat(moments: Moments) -> Tensor:
        return torch.cat([moments.second[rows, columns], moments.first]).detach()

    if phase == "positive":  # one sample is a mean over the three images
        sample, exact = features(clamped.state).view(-1, 3, len(rows) + 6).mean(1), flat(exact_data)
    else:
        sample, exact = features(free.state), flat(exact_model)
    covariance = sample.t().cov()
    rank = int(torch.linalg.matrix_rank(covariance, hermitian=True, rtol=1e-9))  # what images fix does not vary
    assert rank == (7 if phase == "positive" else 21)

    def confidence(difference: Tensor) -> float:
        t2 = len(sample) * difference @ torch.linalg.pinv(covariance, hermitian=True, rtol=1e-9) @ difference
        return torch.special.gammainc(torch.tensor(rank / 2.0), t2.float() / 2).item()

    assert confidence(sample.mean(0) - exact) < 0.999
    assert confidence(sample.mean(0) - 0.95 * exact) > 0.999  # and an error of 5 % would be found


def test_a_field_tilts_the_distribution() -> None:
    """Units with a field f have the distribution p(s) exp(f s), here by enumeration."""
    machine = make_machine(3, 2)
    states, p = written_out(machine)
    field = torch.tensor([2.0, -1.0, 0.5, 0.0, 0.0]).double()
    tilted = p * (states @ field).exp()
    tilted = tilted / tilted.sum()
    sweeps = sweeps_of(machine, torch.zeros(20_000, 5), field=field)
    noise = RowNoise.of(torch.Generator().manual_seed(2), 20_000)
    for _ in range(30):
        sweeps.sweep(noise)
    counts = torch.bincount(number_of(sweeps.state), minlength=32).double()
    assert chi_square_is_likely(counts[None], tilted[None] * 20_000)
    assert not chi_square_is_likely(counts[None], p[None] * 20_000)
