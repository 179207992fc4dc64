"""The mathematics against torch.distributions, autograd and statistics."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from lit_gen.vae.gaussian import DiagonalGaussian, standard_normal_log_prob
from lit_gen.vae.objectives import (
    doubly_reparameterized,
    elbo,
    importance_weighted,
    kl_between,
    kl_to_standard_normal,
    warmup,
)


@pytest.fixture(params=["log_variance", "softplus"])
def q(request: pytest.FixtureRequest) -> DiagonalGaussian:
    features = torch.randn(7, 10, generator=torch.Generator().manual_seed(0))
    return DiagonalGaussian.from_features(features, request.param)


def test_parametrisations() -> None:
    mean, raw = torch.tensor([[0.3]]), torch.tensor([[-1.2]])
    features = torch.cat([mean, raw], -1)
    assert DiagonalGaussian.from_features(features, "log_variance").std.item() == pytest.approx(math.exp(-0.6))
    softplus = DiagonalGaussian.from_features(features, "softplus")
    assert softplus.std.item() == pytest.approx(math.log1p(math.exp(-1.2)), rel=1e-4)
    assert softplus.log_std.item() == pytest.approx(math.log(softplus.std.item()))
    assert DiagonalGaussian.from_features(torch.tensor([[0.0, 1e4]]), "softplus").std.isfinite()


def test_densities_match_torch(q: DiagonalGaussian) -> None:
    z = torch.randn(3, 7, 5)
    torch.testing.assert_close(q.log_prob(z), Normal(q.mean, q.std).log_prob(z).sum(-1))
    torch.testing.assert_close(standard_normal_log_prob(z), Normal(0.0, 1.0).log_prob(z).sum(-1))


def test_kl_matches_torch(q: DiagonalGaussian) -> None:
    expected = kl_divergence(Normal(q.mean, q.std), Normal(torch.zeros(5), torch.ones(5))).sum(-1)
    torch.testing.assert_close(kl_to_standard_normal(q), expected)
    p = DiagonalGaussian.from_features(torch.randn(7, 10))
    expected = kl_divergence(Normal(q.mean, q.std), Normal(p.mean, p.std)).sum(-1)
    torch.testing.assert_close(kl_between(q, p), expected)


def test_elbo_and_warmup() -> None:
    reconstruction, kl = torch.tensor([[-4.0, -2.0], [-6.0, -4.0]]), torch.tensor([1.0, 3.0])
    torch.testing.assert_close(elbo(reconstruction, kl), torch.tensor([-6.0, -6.0]))
    torch.testing.assert_close(elbo(reconstruction, kl, beta=4.0), torch.tensor([-9.0, -15.0]))
    assert [warmup(step, 4) for step in (0, 1, 4, 9)] == [0.0, 0.25, 1.0, 1.0]
    assert warmup(0, 0) == 1.0


def test_importance_weighted_is_the_log_of_the_mean_weight() -> None:
    weights = torch.rand(9, 4, dtype=torch.float64)
    torch.testing.assert_close(importance_weighted(weights.log()), weights.mean(0).log())


class Toy:
    """p(z) = N(0, 1), p(x | z) = N(theta z, 1), q(z | x) = N(a, s^2), x = 1.5; everything in float64."""

    def __init__(self) -> None:
        self.theta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        self.features = torch.tensor([[0.2, -0.4]], dtype=torch.float64, requires_grad=True)

    def log_weights(self, noise: torch.Tensor, detach: bool) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_std = self.features.chunk(2, -1)
        q = DiagonalGaussian(mean, log_std.exp(), log_std)
        z = q.rsample(noise)
        likelihood = Normal(self.theta * z, 1.0).log_prob(torch.tensor(1.5, dtype=torch.float64)).sum(-1)
        return likelihood + standard_normal_log_prob(z) - (q.detach() if detach else q).log_prob(z), z

    def gradients(self, noise: torch.Tensor, doubly: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The bound's mean and the gradients in theta and in the encoder's outputs."""
        log_weights, z = self.log_weights(noise, doubly)
        bound = (doubly_reparameterized(log_weights, z) if doubly else importance_weighted(log_weights)).mean()
        return (bound.detach(), *torch.autograd.grad(bound, [self.theta, self.features]))


def test_dreg_is_the_explicit_formula() -> None:
    toy, noise = Toy(), torch.randn(5, 1, 1, dtype=torch.float64)
    bound, theta, features = toy.gradients(noise, doubly=True)
    plain_bound, plain_theta, _ = toy.gradients(noise, doubly=False)
    torch.testing.assert_close(bound, plain_bound)
    torch.testing.assert_close(theta, plain_theta)  # the decoder's estimator is the same

    log_weights, z = toy.log_weights(noise, detach=True)
    weights = log_weights.detach().softmax(0)
    (slope,) = torch.autograd.grad(log_weights.sum(), z, retain_graph=True)  # d log w_i / d z_i
    expected = torch.zeros(1, 2, dtype=torch.float64)
    for i in range(5):
        (path,) = torch.autograd.grad(z[i].sum(), toy.features, retain_graph=True)  # d z_i / d phi
        expected += weights[i] ** 2 * slope[i] * path
    torch.testing.assert_close(features, expected)
    assert not torch.allclose(features, toy.gradients(noise, doubly=False)[2])  # the hook did something


def test_dreg_has_the_expectation_of_the_plain_gradient() -> None:
    toy, k, repeats = Toy(), 8, 4000
    estimates = {}
    for doubly in (True, False):
        rows = []
        generator = torch.Generator().manual_seed(3)
        for _ in range(repeats):
            noise = torch.randn(k, 1, 1, dtype=torch.float64, generator=generator)
            rows.append(toy.gradients(noise, doubly)[2][0])
        estimates[doubly] = torch.stack(rows)
    difference = estimates[True] - estimates[False]
    error = difference.std(0) / math.sqrt(repeats)
    assert (difference.mean(0).abs() < 4 * error).all()
    assert (estimates[True].mean(0).abs() > 5 * estimates[True].std(0) / math.sqrt(repeats)).all()  # not merely zero
    assert (estimates[True].std(0) < estimates[False].std(0)).all()  # the reason to use it
