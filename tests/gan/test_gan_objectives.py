"""Objectives against closed forms on two known Gaussians, by quadrature with one point for each quantile."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal

from lit_gen.gan import Hinge, LeastSquares, Minimax, NonSaturating, Wasserstein

P, Q = Normal(torch.tensor(0.0).double(), torch.tensor(1.0).double()), Normal(torch.tensor(1.2).double(), 0.8)
QUANTILES = (torch.arange(200_000).double() + 0.5) / 200_000
REAL, FAKE = P.icdf(QUANTILES), Q.icdf(QUANTILES)
GRID = torch.linspace(-12, 12, 400_001).double()
OBJECTIVES = [Minimax(), NonSaturating(), LeastSquares(), Hinge(), Wasserstein()]


def integral(values):
    return torch.trapezoid(values, GRID)


def density(distribution):
    return distribution.log_prob(GRID).exp()


def log_ratio(x):
    return P.log_prob(x) - Q.log_prob(x)


@pytest.mark.parametrize("objective", [Minimax(), NonSaturating()])
def test_value_at_the_optimal_discriminator_is_the_jensen_shannon_divergence(objective):
    p, q = density(P), density(Q)
    mixture = ((p + q) / 2).log()
    jsd = 0.5 * integral(p * (P.log_prob(GRID) - mixture)) + 0.5 * integral(q * (Q.log_prob(GRID) - mixture))
    value = -objective.discriminator_loss(log_ratio(REAL), log_ratio(FAKE))
    assert 0.05 < jsd < math.log(2)
    assert value.item() == pytest.approx((2 * jsd - 2 * math.log(2)).item(), abs=2e-5)


def optimal_output(objective, x):
    """The discriminator that minimises the loss, known in closed form for each objective."""
    p, q = P.log_prob(x).exp(), Q.log_prob(x).exp()
    if isinstance(objective, Minimax):
        return log_ratio(x)
    if isinstance(objective, LeastSquares):
        return (objective.real_target * p + objective.fake_target * q) / (p + q)
    return torch.sign(p - q)


@pytest.mark.parametrize("objective", OBJECTIVES[:4], ids=lambda o: type(o).__name__)
def test_no_discriminator_near_the_optimal_one_has_a_smaller_loss(objective):
    best = objective.discriminator_loss(optimal_output(objective, REAL), optimal_output(objective, FAKE))
    for shift in (lambda x: 0.1 * torch.ones_like(x), lambda x: -0.1 * x, lambda x: 0.1 * torch.sin(3 * x)):
        real, fake = optimal_output(objective, REAL) + shift(REAL), optimal_output(objective, FAKE) + shift(FAKE)
        assert objective.discriminator_loss(real, fake) > best + 1e-5


def test_hinge_at_its_optimum_is_two_minus_twice_the_total_variation():
    total_variation = 0.5 * integral((density(P) - density(Q)).abs())
    loss = Hinge().discriminator_loss(optimal_output(Hinge(), REAL), optimal_output(Hinge(), FAKE))
    assert loss.item() == pytest.approx((2 - 2 * total_variation).item(), abs=2e-5)


def test_least_squares_game_is_pearsons_chi_squared():
    """2 C(G) = chi2(p + q || 2 q) for b - c = 1 and b - a = 2 (LSGAN, equation 8, with the real term added)."""
    objective = LeastSquares(fake_target=-1.0, real_target=1.0, generator_target=0.0)
    p, q = density(P), density(Q)
    chi_squared = integral((2 * q - (p + q)) ** 2 / (p + q))
    on_fake, on_real = (optimal_output(objective, x) for x in (FAKE, REAL))
    value = objective.generator_loss(on_fake) + objective.generator_loss(on_real)
    assert (2 * value).item() == pytest.approx(chi_squared.item(), abs=2e-5)


def test_wasserstein_with_the_optimal_critic_is_the_distance_between_shifted_gaussians():
    shifted = REAL + 1.7
    assert -Wasserstein().discriminator_loss(-REAL, -shifted).item() == pytest.approx(1.7, abs=1e-9)


def test_logistic_losses_equal_binary_cross_entropy():
    real, fake = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    ones, zeros = torch.ones(50), torch.zeros(50)
    cross_entropy = F.binary_cross_entropy_with_logits
    expected = cross_entropy(real, ones) + cross_entropy(fake, zeros)
    torch.testing.assert_close(Minimax().discriminator_loss(real, fake), expected)
    torch.testing.assert_close(NonSaturating().generator_loss(fake), cross_entropy(fake, ones))
    torch.testing.assert_close(Minimax().generator_loss(fake), -cross_entropy(fake, zeros))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_losses_and_gradients_stay_finite_for_huge_logits(objective):
    real, fake = torch.tensor([-1e4, 1e4], requires_grad=True), torch.tensor([1e4, -1e4], requires_grad=True)
    loss = objective.discriminator_loss(real, fake) + objective.generator_loss(fake)
    gradients = torch.autograd.grad(loss, (real, fake))
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_the_generator_wants_a_higher_output(objective):
    fake = torch.tensor([-0.5, 0.3], requires_grad=True)
    (gradient,) = torch.autograd.grad(objective.generator_loss(fake), fake)
    assert (gradient < 0).all()
