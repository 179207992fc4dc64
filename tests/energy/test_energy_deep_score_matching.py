"""Denoising score matching against closed forms: Gaussians, mixtures, quadrature in place of sampling."""

import math

import pytest
import torch
from torch import nn

from lit_gen.core.errors import UsageError
from lit_gen.energy.energy_networks import ConvEnergy, MLPEnergy
from lit_gen.energy.langevin_training import langevin
from lit_gen.energy.score_matching import DenoisingScoreMatching, denoising_score_matching, score_error, tweedie
from tests.energy.deep_energies import PLANE, GaussianEnergy, gauss_hermite, plane_data, plane_kl, row_noise

MEAN = torch.tensor([0.3, -1.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.5, 0.4], [0.4, 0.6]], dtype=torch.float64)
SIGMA = 0.7


def gaussian_pairs():
    """Clean images of N(MEAN, COVARIANCE), noise, and weights under which sums are exact expectations."""
    points, weight = gauss_hermite(4, 4)
    x = MEAN + points[:, :2] @ torch.linalg.cholesky(COVARIANCE).T
    return x.view(-1, 1, 1, 2), points[:, 2:].reshape(-1, 1, 1, 2), weight


def test_loss_is_that_of_a_loop_over_images():
    network = ConvEnergy((1, 6, 5), width=3)
    image, epsilon = torch.randn(2, 4, 1, 6, 5)
    sigma = torch.tensor([0.1, 0.5, 1.0, 2.0]).view(4, 1, 1, 1)
    expected = []
    for x, e, s in zip(image, epsilon, sigma.flatten()):
        noisy = (x + s * e).requires_grad_()
        score = -torch.autograd.grad(network(noisy[None])[0] / s, noisy)[0]
        expected.append(0.5 * s**2 * (score - (x - noisy) / s**2).square().sum())
    loss = denoising_score_matching(network, image, epsilon, sigma)
    torch.testing.assert_close(loss, torch.stack(expected))
    loss.mean().backward()
    assert all(p.grad is not None for p in network.parameters() if p.ndim > 1)


def test_the_optimum_for_gaussian_data_is_the_score_of_the_noised_data():
    image, epsilon, weight = gaussian_pairs()
    best = torch.linalg.inv(COVARIANCE + SIGMA**2 * torch.eye(2, dtype=torch.float64))

    def gradients(mean, precision):
        network = GaussianEnergy(mean, precision, scale=SIGMA)  # the density at level sigma is exp(-E / sigma)
        loss = (weight * denoising_score_matching(network, image, epsilon, SIGMA)).sum()
        return torch.autograd.grad(loss, [network.mean, network.precision])

    for gradient in gradients(MEAN, best):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)
    assert gradients(MEAN + 0.1, best)[0].abs().max() > 1e-3
    assert gradients(MEAN, torch.linalg.inv(COVARIANCE))[1].abs().max() > 1e-3  # the clean data's score is not it


def test_no_perturbation_of_a_mixtures_score_lowers_the_loss():
    data = torch.tensor([-1.0, 0.2, 0.9], dtype=torch.float64)
    points, weight = gauss_hermite(80, 1)
    image = data.repeat_interleave(80).view(-1, 1, 1, 1)
    epsilon = points.repeat(3, 1).view(-1, 1, 1, 1)

    class Perturbed(nn.Module):
        def __init__(self):
            super().__init__()
            self.t = nn.Parameter(torch.zeros(3, dtype=torch.float64))

        def forward(self, x):
            x = x.flatten()
            log_p = (-(x[:, None] - data).square() / (2 * SIGMA**2)).logsumexp(1)
            return -SIGMA * log_p + self.t @ torch.stack([x.sin(), (2 * x).cos(), torch.tanh(x)])

    network = Perturbed()
    loss = (weight.repeat(3) * denoising_score_matching(network, image, epsilon, SIGMA)).sum() / 3
    (gradient,) = torch.autograd.grad(loss, network.t, create_graph=True)
    torch.testing.assert_close(gradient, torch.zeros(3, dtype=torch.float64), atol=1e-8, rtol=0)
    hessian = torch.stack([torch.autograd.grad(g, network.t, retain_graph=True)[0] for g in gradient])
    assert torch.linalg.eigvalsh(hessian).min() > 0


def test_score_error_of_a_gaussian():
    image, epsilon, weight = gaussian_pairs()
    noised = COVARIANCE + SIGMA**2 * torch.eye(2, dtype=torch.float64)
    true = GaussianEnergy(MEAN, torch.linalg.inv(noised))
    value = (weight * score_error(true, image, epsilon, SIGMA)).sum()
    # E |eps + sigma s|^2 / D = 1 - sigma^2 tr(noised^-1) / D
    expected = 1 - SIGMA**2 * torch.linalg.inv(noised).trace() / 2
    torch.testing.assert_close(value, expected)
    flat = GaussianEnergy(MEAN, torch.zeros(2, 2, dtype=torch.float64))
    torch.testing.assert_close((weight * score_error(flat, image, epsilon, SIGMA)).sum(), value.new_ones(()))
    halved = GaussianEnergy(MEAN, 0.5 * torch.linalg.inv(noised))
    torch.testing.assert_close((weight * score_error(halved, image, epsilon, SIGMA, nats=2.0)).sum(), expected)


def test_tweedie_is_the_posterior_mean_of_a_gaussian():
    noised = torch.linalg.inv(COVARIANCE + SIGMA**2 * torch.eye(2, dtype=torch.float64))
    y = torch.randn(5, 2, dtype=torch.float64)
    posterior = MEAN + (y - MEAN) @ noised @ COVARIANCE
    clean = tweedie(GaussianEnergy(MEAN, noised), y.view(5, 1, 1, 2), SIGMA)
    torch.testing.assert_close(clean.view(5, 2), posterior)


def test_levels_and_schedule():
    objective = DenoisingScoreMatching(sigma_min=0.1, sigma_max=1.6, levels=5, step_ratio=0.3)
    torch.testing.assert_close(objective.sigmas, torch.tensor([1.6, 0.8, 0.4, 0.2, 0.1], dtype=torch.float64))
    schedule = objective.schedule(20)
    assert [step.sigma for step in schedule] == [s for s in objective.sigmas.tolist() for _ in range(4)]
    for size, noise, sigma in schedule:  # the step of size r sigma^2 on the score -grad E / sigma
        assert size / sigma == pytest.approx(0.3)
        assert noise == pytest.approx(math.sqrt(0.3) * sigma)
    assert [step.sigma for step in objective.schedule(3)] == pytest.approx([1.6, 0.8, 0.2])
    assert objective.nats * objective.sigma == pytest.approx(1.0)
    assert DenoisingScoreMatching(sigma_min=0.2, sigma_max=None).sigmas.tolist() == [0.2]


def test_dynamics_at_one_level_have_the_variance_of_the_noised_data():
    """ULA on N(0, v) with step a has variance v / (1 - a / 4v). 20,000 independent chains: 5 standard errors are 5 %."""
    sigma, spread, ratio = 0.5, 0.8, 0.5
    variance = spread**2 + sigma**2
    network = GaussianEnergy(torch.zeros(1), torch.eye(1) / variance, scale=sigma)
    objective = DenoisingScoreMatching(sigma_min=sigma, sigma_max=None, step_ratio=ratio)
    x = langevin(network, torch.zeros(20_000, 1, 1, 1), objective.schedule(150), row_noise(20_000))
    assert x.var().item() == pytest.approx(variance / (1 - ratio * sigma**2 / (4 * variance)), rel=0.05)


def test_levels_of_a_batch_do_not_depend_on_the_number_of_processes():
    network, image = MLPEnergy((1, 1, 2), hidden=[8]), plane_data(8, 0)
    objective = DenoisingScoreMatching(levels=4)
    whole = objective.terms(network, image, row_noise(8), None)["loss"]
    halves = [objective.terms(network, image[i : i + 4], row_noise(4, start=i, total=8), None)["loss"] for i in (0, 4)]
    torch.testing.assert_close(sum(halves) / 2, whole)


def test_learns_a_density_in_the_plane():
    torch.manual_seed(0)
    network = MLPEnergy(PLANE.shape, hidden=[32, 32])
    objective = DenoisingScoreMatching(sigma_min=0.2, sigma_max=1.0, levels=4)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    before = plane_kl(lambda x: objective.nats * network(x), 0.2)
    for step in range(250):
        loss = objective.terms(network, plane_data(256, step), row_noise(256, step), None)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = plane_kl(lambda x: objective.nats * network(x), 0.2)
    assert after < 0.3 < 1.0 < before, (before, after)


@pytest.mark.parametrize(
    ("option", "value"), [("sigma_min", 0.0), ("sigma_max", 0.01), ("levels", 0), ("step_ratio", -1.0)]
)
def test_mistakes_are_named(option, value):
    with pytest.raises(UsageError, match=f"{option} = "):
        DenoisingScoreMatching(**{option: value})
