"""Normalising constants and weighted expectations against enumeration, closed forms and sums done by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from sampler_targets import ALPHA, Enumerated, TowardsOne, generator
from scipy import stats
from torch import Tensor

from lit_gen.energy.samplers import (
    Annealed,
    BitFlip,
    GaussianRandomWalk,
    GeometricPath,
    Metropolis,
    Path,
    SequentialGibbs,
    Weighted,
    ais,
    importance_sampling,
    linear_schedule,
    log_mean_exp,
    log_z,
    reverse_ais,
    reverse_log_z,
    schedule,
)

TARGET = Enumerated(6, strength=1.5, seed=8)
FIELD = torch.linspace(-1, 1, 6, dtype=torch.float64)
LOG_BASE = torch.nn.functional.softplus(FIELD).sum().item()


def log_base(x: Tensor) -> Tensor:
    """Independent bits."""
    return (x.double() * FIELD).sum(1)


def draw_base(n: int, noise: torch.Generator) -> Tensor:
    return (torch.rand(n, 6, generator=noise, dtype=torch.float64) < FIELD.sigmoid()).double()


PATH = GeometricPath(TARGET, log_base)


def flips(beta: float) -> Metropolis:
    return Metropolis(PATH.at(beta), BitFlip())


def both_sides(seed: int, kernel_at: Callable = flips, steps: int = 60, chains: int = 100) -> tuple[Annealed, Annealed]:
    noise, betas = generator(seed), linear_schedule(steps)
    up = ais(PATH, kernel_at, betas, draw_base(chains, noise), noise, LOG_BASE)
    down = reverse_ais(PATH, kernel_at, betas, TARGET.draw(chains, noise), noise, LOG_BASE)
    return up, down


# ---------------------------------------------------------------- annealing


def test_annealing_brackets_log_z() -> None:
    """In at least 18 of 20 seeds: log Z between the outer ends, and inside of either interval."""
    runs = [both_sides(seed) for seed in range(20)]
    exact = TARGET.log_z
    assert sum(up.log_z.lower <= exact <= down.log_z.upper for up, down in runs) >= 18
    assert sum(up.log_z.lower <= exact <= up.log_z.upper for up, _ in runs) >= 18
    assert sum(down.log_z.lower <= exact <= down.log_z.upper for _, down in runs) >= 18
    # intervals that are wide would bracket anything
    assert max(run.log_z.upper - run.log_z.lower for pair in runs for run in pair) < 1.5
    # the standard error is that of the estimates: chi-square test of the standardised errors
    for side in range(2):
        squares = sum(((pair[side].log_z.value - exact) / pair[side].log_z.stderr) ** 2 for pair in runs)
        assert ALPHA / 10 < stats.chi2.sf(squares, 20) < 1 - ALPHA / 10


def test_annealing_with_a_wrong_kernel_does_not_bracket() -> None:
    """A kernel that leaves another density invariant fails the test above."""
    wrong = lambda beta: Metropolis(PATH.at(beta), TowardsOne(False))  # noqa: E731
    runs = [both_sides(seed, wrong) for seed in range(10)]
    assert sum(up.log_z.lower <= TARGET.log_z <= up.log_z.upper for up, _ in runs) <= 3


def test_forward_is_a_lower_and_reverse_an_upper_bound_in_expectation() -> None:
    """Each single weight, on a path so short that the bounds are loose: one-sided t-tests."""
    up, down = both_sides(0, steps=3, chains=4000)
    assert stats.ttest_1samp(LOG_BASE + up.log_weight, TARGET.log_z, alternative="less").pvalue < ALPHA
    assert stats.ttest_1samp(LOG_BASE - down.log_weight, TARGET.log_z, alternative="greater").pvalue < ALPHA


@pytest.mark.parametrize("steps", [1, 2, 10])
@pytest.mark.parametrize("scan", ["systematic", "random"])
def test_weights_are_unbiased(steps: int, scan: str) -> None:
    """E[w] = Z / Z_0 upwards and Z_0 / Z downwards, for kernels with and without detailed balance."""
    kernel_at = lambda beta: SequentialGibbs(PATH.at(beta), scan=scan)  # noqa: E731
    up, down = both_sides(11, kernel_at, steps, chains=4000)
    ratio = TARGET.log_z - LOG_BASE
    assert stats.ttest_1samp(torch.exp(up.log_weight - ratio), 1.0).pvalue > ALPHA
    assert stats.ttest_1samp(torch.exp(down.log_weight + ratio), 1.0).pvalue > ALPHA


def test_transitions_are_made_at_the_inner_betas() -> None:
    """Once at each, in the order of the walk; none at the ends, where they would change no weight."""
    visited: list[float] = []

    def recorded(beta: float) -> Metropolis:
        visited.append(beta)
        return flips(beta)

    both_sides(0, recorded, steps=4)
    assert visited == [0.25, 0.5, 0.75, 0.75, 0.5, 0.25]


def test_annealed_states_stand_for_the_target() -> None:
    up, _ = both_sides(3, steps=30, chains=4000)
    mean, stderr = Weighted(up.x, up.log_weight).expectation(lambda x: x)
    assert ((mean - TARGET.p @ TARGET.states) / stderr).abs().max() < 4
    assert up.acceptance.shape == (4000,)
    assert 0.3 < up.acceptance.mean() < 1


def test_annealing_between_gaussians() -> None:
    """A path that is not geometric, by a plain function, in float32; Z = (2 pi)^(D/2) s^D e^3."""
    path = Path(lambda x, beta: -0.5 * ((x - 2 * beta) / (1 - 0.6 * beta)).square().sum(1) + 3 * beta)
    noise = generator(4)
    run = ais(
        path,
        lambda beta: Metropolis(path.at(beta), GaussianRandomWalk(0.8), steps=3),
        linear_schedule(150),
        torch.randn(400, 3, generator=noise),
        noise,
        1.5 * math.log(2 * math.pi),
    )
    exact = 1.5 * math.log(2 * math.pi) + 3 * math.log(0.4) + 3
    assert run.x.dtype == torch.float32
    assert run.log_weight.dtype == torch.float64
    assert run.log_z.lower < exact < run.log_z.upper
    assert run.log_z.stderr < 0.2


def test_schedules() -> None:
    betas = schedule()
    step = betas.diff()
    assert len(betas) == 500 + 4000 + 10000 + 1
    assert (betas[0], betas[500], betas[4500], betas[-1]) == (0, 0.5, 0.9, 1)
    for first, last, spacing in ((0, 500, 1e-3), (500, 4500, 1e-4), (4500, 14500, 1e-5)):
        torch.testing.assert_close(step[first:last], torch.full_like(step[first:last], spacing), rtol=1e-9, atol=0)
    assert schedule([(1.0, 0.25)]).tolist() == linear_schedule(4).tolist() == [0, 0.25, 0.5, 0.75, 1]


# ---------------------------------------------------------------- estimates


def test_log_z_by_hand() -> None:
    """Weights 1 and 3: mean 2, s = sqrt 2, standard error of the mean 1."""
    estimate = log_z(torch.tensor([1.0, 3.0]).log(), log_base=10.0)
    assert estimate.value == pytest.approx(10 + math.log(2))
    assert estimate.stderr == pytest.approx(0.5)
    assert estimate.lower == -math.inf  # 2 - 3 < 0
    assert estimate.upper == pytest.approx(10 + math.log(5))
    assert estimate.ess == pytest.approx(16 / 10)
    narrow = log_z(torch.tensor([1.0, 3.0]).log(), deviations=1.0)
    assert (narrow.lower, narrow.upper) == pytest.approx((0, math.log(3)))
    down = reverse_log_z(torch.tensor([1.0, 3.0]).log(), log_base=10.0)
    assert down.value == pytest.approx(10 - math.log(2))
    assert (down.lower, down.upper) == (pytest.approx(10 - math.log(5)), math.inf)


def test_estimates_do_not_overflow() -> None:
    log_weights = torch.tensor([1000.0, 1001.0, -float("inf"), 999.0])
    small, large = log_z(log_weights - 1000), log_z(log_weights)
    assert large.value == pytest.approx(small.value + 1000)
    assert large[3:] == pytest.approx(small[3:])
    w = torch.tensor([1.0, math.e, 0.0, 1 / math.e], dtype=torch.float64)
    assert small.value == pytest.approx(w.mean().log().item(), rel=1e-6)
    assert small.stderr == pytest.approx((w.std() / 2 / w.mean()).item(), rel=1e-6)
    grid = torch.randn(3, 5, generator=generator())
    torch.testing.assert_close(log_mean_exp(grid, 1), grid.double().exp().mean(1).log())


# ---------------------------------------------------------------- importance sampling


def gaussian_weights(n: int, seed: int) -> Weighted:
    """N(1, 0.5^2), unnormalised, by draws of N(0, 1.5^2)."""
    q = torch.distributions.Normal(0.0, 1.5)
    return importance_sampling(
        lambda x: -2 * (x[:, 0] - 1).square(),
        lambda n, noise: 1.5 * torch.randn(n, 1, generator=noise),
        lambda x: q.log_prob(x[:, 0]),
        n,
        generator(seed),
    )


def test_importance_sampling_of_a_gaussian() -> None:
    """log Z = log(0.5 sqrt(2 pi)), E x = 1, E x^2 = 1.25, within 4 standard errors, which are right themselves."""
    exact = torch.tensor([math.log(0.5 * math.sqrt(2 * math.pi)), 1.0, 1.25], dtype=torch.float64)
    values, errors = [], []
    for seed in range(300):
        weighted = gaussian_weights(400, seed)
        z, moments = weighted.log_z(), weighted.expectation(lambda x: torch.cat([x, x**2], 1))
        values.append(torch.cat([torch.tensor([z.value]).double(), moments.value]))
        errors.append(torch.cat([torch.tensor([z.stderr]).double(), moments.stderr]))
    value, error = torch.stack(values), torch.stack(errors)
    assert ((value.mean(0) - exact).abs() < 4 * value.std(0) / math.sqrt(300)).all()
    # the standard deviation of 300 Gaussians is known to 4 %
    torch.testing.assert_close(error.mean(0) / value.std(0), torch.ones(3, dtype=torch.float64), atol=0.16, rtol=0)


def test_effective_sample_size_by_hand() -> None:
    x = torch.zeros(3, 1)
    assert Weighted(x, torch.tensor([1.0, 1.0, 2.0]).log() - 50).ess() == pytest.approx(16 / 6)
    assert Weighted(x, torch.full((3,), 7.0)).ess() == pytest.approx(3)
    assert Weighted(x, torch.tensor([0.0, -900.0, -float("inf")])).ess() == pytest.approx(1)


def test_effective_sample_size_of_gaussians() -> None:
    """n (E w)^2 / E w^2 for N(0, 1) by draws of N(0, 2^2): n sqrt(7) / 4."""
    q, p = torch.distributions.Normal(0.0, 2.0), torch.distributions.Normal(0.0, 1.0)
    draw = lambda n, noise: 2 * torch.randn(n, 1, generator=noise, dtype=torch.float64)  # noqa: E731
    weighted = importance_sampling(
        lambda x: p.log_prob(x[:, 0]), draw, lambda x: q.log_prob(x[:, 0]), 20000, generator()
    )
    assert weighted.ess() / 20000 == pytest.approx(math.sqrt(7) / 4, rel=0.02)


# ---------------------------------------------------------------- wrong arguments


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ais(PATH, flips, [0.1, 1.0], TARGET.states, generator()),
            r"betas = \[0.1, 1.0\]; accepted: increasing",
        ),
        (lambda: reverse_ais(PATH, flips, [1.0, 0.0], TARGET.states, generator()), r"betas = \[1.0, 0.0\]; accepted"),
        (lambda: ais(PATH, flips, [0.0, 0.5, 0.5, 1], TARGET.states, generator()), "betas = .*; accepted: increasing"),
        (lambda: ais(PATH, flips, [0.0], TARGET.states, generator()), r"betas = \[0.0\]; accepted"),
        (lambda: schedule([(0.5, 0.1), (0.9, 0.1)]), r"ends of the pieces = \[0.5, 0.9\]; accepted"),
        (lambda: schedule([(1.0, 0.0)]), r"spacing = 0.0; accepted"),
        (lambda: schedule([(1.0, 2.0)]), r"spacing = 2.0; accepted"),
        (lambda: linear_schedule(0), r"steps = 0; accepted"),
        (lambda: log_z(torch.tensor([0.0, float("nan")])), "largest log weight = nan; accepted"),
        (lambda: log_z(torch.tensor([0.0, float("inf")])), "largest log weight = inf; accepted"),
        (lambda: log_z(torch.full((3,), -float("inf"))), "largest log weight = -inf; accepted"),
        (lambda: log_z(torch.zeros(1)), r"shape of log_weights = \[1\]; accepted"),
        (lambda: log_z(torch.zeros(2, 2)), r"shape of log_weights = \[2, 2\]; accepted"),
        (lambda: importance_sampling(TARGET, draw_base, log_base, 1, generator()), "n = 1; accepted"),
    ],
)
def test_wrong_arguments_are_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
