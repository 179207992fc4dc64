"""Layers of units against sums over all their states, and their samplers against their means."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from lit_gen.core.errors import UsageError
from lit_gen.core.random import BatchKey, RowNoise
from lit_gen.energy.joined import Joined
from lit_gen.energy.units import Bernoulli, Gaussian, Softmax, Units
from tests.energy.enumerated_machine import ALPHA, SURE, chi_square, own_energy, row_noise, statistic, written_out

KINDS = {
    "bernoulli": lambda: Bernoulli(4),
    "softmax": lambda: Softmax(2, 3),
    "gaussian": lambda: Gaussian(2, sigma=0.7),
    "learned_gaussian": lambda: Gaussian(2, learn_sigma=True),
    "joined": lambda: Joined([Bernoulli(2), Softmax(1, 3), Bernoulli(1)]),
}
BETAS = [1.0, 0.6, 2.5]


def make(kind: str) -> Units:
    torch.manual_seed(1)
    units = KINDS[kind]().double()
    for parameter in units.parameters():
        parameter.data.normal_(std=0.5)
    return units


def distribution(units: Units, field: Tensor, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    """States, probabilities given the field, and the logarithm of the normaliser, by the definition."""
    x, log_volume = written_out(units)
    logs = -beta * (own_energy(units, x) - statistic(units, x) @ field)
    return x, logs.softmax(0), logs.logsumexp(0) + log_volume


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("kind", KINDS)
def test_energy_mean_and_normaliser_follow_from_the_definition(kind: str, beta: float) -> None:
    units = make(kind)
    x, _ = written_out(units)
    torch.testing.assert_close(units.energy(x), own_energy(units, x))
    torch.testing.assert_close(units.coupled(x), statistic(units, x))
    for field in torch.randn(3, units.dim, dtype=torch.float64):
        x, p, log_z = distribution(units, field, beta)
        torch.testing.assert_close(units.log_partition(field, beta), log_z)
        memory = field.clone()
        with torch.no_grad():
            mean = units.mean_(memory, beta)
        assert mean.data_ptr() == memory.data_ptr()
        torch.testing.assert_close(mean, p @ x)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_normaliser_generates_the_statistics(kind: str, beta: float) -> None:
    units = make(kind)
    field = torch.randn(5, units.dim, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(units.log_partition(field, beta).sum(), field)
    with torch.no_grad():
        mean = units.mean_(field.detach().clone(), beta)
        torch.testing.assert_close(gradient, beta * units.coupled(mean))


def p_value(units: Units, field: Tensor, draws: Tensor, beta: float) -> float:
    """Chi-square over the joint states; for Gaussian units Kolmogorov-Smirnov on each, times their number."""
    if isinstance(units, Gaussian):
        mean, deviation = units.mu + units.sigma * field, units.sigma / math.sqrt(beta)
        whitened = ((draws - mean) / deviation).detach().numpy()
        return units.n * min(stats.kstest(column, "norm").pvalue for column in whitened.T)
    x, p, _ = distribution(units, field, beta)
    counts = torch.cdist(draws, x, p=1).argmin(1).bincount(minlength=len(x)).double()
    return chi_square(counts, p.detach())


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_distribution(kind: str, beta: float) -> None:
    units = make(kind)
    field = torch.randn(units.dim, dtype=torch.float64)
    rows = field.expand(20_000, -1)
    with torch.no_grad():
        memory = rows.clone()
        draws = units.sample_(memory, row_noise(len(rows)), beta)
        assert draws.data_ptr() == memory.data_ptr()
        assert p_value(units, field, draws, beta) > ALPHA
        assert torch.equal(draws, units.draw_(units.mean_(rows.clone(), beta), row_noise(len(rows)), beta))
        assert p_value(units, field + 0.3 * torch.arange(units.dim), draws, beta) < SURE  # the test would notice


@pytest.mark.parametrize("shape", [(1, 4), (3, 4), (6, 2, 4)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_draws_the_same_alone(kind: str, shape: tuple[int, ...]) -> None:
    units, rows = make(kind), shape[0]
    field = torch.randn(*shape[:-1], units.dim, dtype=torch.float64)
    with torch.no_grad():
        together = units.sample_(field.clone(), RowNoise(BatchKey(5, 0, rows), rows, "x"))
        for row in range(rows):
            alone = units.sample_(field[row : row + 1].clone(), RowNoise(BatchKey(5, row, rows), 1, "x"))
            assert torch.equal(alone, together[row : row + 1])


@pytest.mark.parametrize("kind", KINDS)
def test_constant_fields(kind: str) -> None:
    units = make(kind)
    x, _ = written_out(units)
    with torch.no_grad():
        # without its constant field a discrete unit is uniform, a Gaussian one has mean zero
        free = units.mean_(-units.constant_field(), 1.0)
        torch.testing.assert_close(free, x.mean(0) if units.discrete else torch.zeros_like(free))
        field, more = torch.randn(2, units.dim, dtype=torch.float64)
        expected = units.mean_(field + more, 1.3)
        constant = units.constant_field() + more
        units.shift_bias(more)
        torch.testing.assert_close(units.mean_(field.clone(), 1.3), expected)
        torch.testing.assert_close(units.constant_field(), constant)


@pytest.mark.parametrize("kind", KINDS)
def test_fitted_units_have_the_mean_of_the_data(kind: str) -> None:
    units = make(kind)
    x, _ = written_out(units)
    data = x[torch.randint(len(x), (3,))].mean(0)
    uniform = x.mean(0) if units.discrete else data
    units.fit(data, 0.02)
    with torch.no_grad():
        alone = units.mean_(torch.zeros(units.dim, dtype=torch.float64))
    torch.testing.assert_close(alone, 0.98 * data + 0.02 * uniform)
    assert all(parameter.isfinite().all() for parameter in units.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_enumeration(kind: str) -> None:
    units = make(kind)
    if not units.discrete:
        with pytest.raises(UsageError, match="units to enumerate = Gaussian"):
            units.enumerate()
        return
    states, _ = written_out(units)
    assert {tuple(row) for row in units.enumerate().tolist()} == {tuple(row) for row in states.tolist()}
    assert len(units.enumerate()) == len(states) == round(2 ** units.log2_states())


def test_too_many_states_are_refused() -> None:
    with pytest.raises(UsageError, match=r"states to enumerate = 2\^21; accepted: at most 2\^20"):
        Bernoulli(21).enumerate()
    with pytest.raises(UsageError, match="units to enumerate"):
        Joined([Bernoulli(2), Gaussian(1)]).enumerate()


def test_categories_are_levels_of_grey() -> None:
    units = Softmax(3, 5)
    pixels = torch.tensor([[0.0, 0.25, 1.0], [0.1, 0.4, 0.9]])
    states = units.of_pixels(pixels)
    assert torch.equal(states.view(2, 3, 5).sum(-1), torch.ones(2, 3))
    torch.testing.assert_close(units.to_pixels(states), (pixels * 4).round() / 4)
    assert torch.equal(
        units.places(torch.tensor([True, False, True])).view(3, 5).all(1), torch.tensor([True, False, True])
    )


def test_places_of_joined_units() -> None:
    units = Joined([Bernoulli(2), Softmax(1, 3)])
    assert units.places(torch.tensor([[True, False, True]])).tolist() == [[True, False, True, True, True]]


@pytest.mark.parametrize(
    ("make_units", "message"),
    [
        (lambda: Bernoulli(0), "number of units = 0"),
        (lambda: Softmax(2, 1), "categories = 1"),
        (lambda: Gaussian(2, sigma=0.0), "sigma = 0.0"),
    ],
)
def test_bad_arguments_are_refused(make_units, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_units()
