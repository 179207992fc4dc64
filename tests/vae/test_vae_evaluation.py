"""Estimators against closed forms: the linear-Gaussian VAE, whose log p(x) is known exactly."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from lit_gen.core.averages import Averages
from lit_gen.core.images import ImageSpec
from lit_gen.core.random import BatchKey, RowNoise
from lit_gen.vae import IWAE, VAE, Gaussian
from lit_gen.vae.evaluation import chunk_size, importance_bound

SHAPE, LATENT, STD = (1, 2, 3), 2, 0.6
# Orthogonal columns: the posterior's covariance is then diagonal, so that an encoder can be exact.
LOADING = torch.linalg.qr(torch.randn(6, LATENT, generator=torch.Generator().manual_seed(5)))[0] * torch.tensor(
    [1.5, 0.8]
)
OFFSET = torch.linspace(-0.5, 0.5, 6)


class LinearDecoder(nn.Module):
    def __init__(self, shape: tuple[int, int, int], latent_dim: int, num_classes: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return (z @ (self.scale * LOADING).T + OFFSET).view(*z.shape[:-1], *SHAPE)


class ExactEncoder(nn.Module):
    """p(z | x) of the linear-Gaussian model; ``error`` widens it and shifts its mean."""

    def __init__(self, shape: tuple[int, int, int], outputs: int, num_classes: int, error: float = 0.0) -> None:
        super().__init__()
        self.error = nn.Parameter(torch.tensor(error))

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        precision = 1 + LOADING.square().sum(0) / STD**2
        mean = (image.flatten(1) - OFFSET) @ LOADING / STD**2 / precision
        log_variance = (-precision.log()).expand_as(mean)
        return torch.cat([mean + self.error / 2, log_variance + self.error], -1)


def linear_vae(error: float = 0.0, model: type[VAE] = VAE, **options: object) -> VAE:
    vae = model(
        encoder=lambda *args: ExactEncoder(*args, error=error),
        decoder=LinearDecoder,
        likelihood=Gaussian(STD),
        latent_dim=LATENT,
        **options,
    )
    return vae.build(ImageSpec(SHAPE, 0, (-1.0, 1.0)))


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    z, noise = torch.randn(40, LATENT, generator=generator), torch.randn(40, 6, generator=generator)
    return (z @ LOADING.T + OFFSET + STD * noise).view(-1, *SHAPE)


def exact_log_prob(images: Tensor) -> Tensor:
    covariance = LOADING.double() @ LOADING.double().T + STD**2 * torch.eye(6, dtype=torch.float64)
    return MultivariateNormal(OFFSET.double(), covariance).log_prob(images.flatten(1).double())


@pytest.mark.parametrize("samples", [1, 7])
def test_bound_is_exact_at_the_true_posterior(images: Tensor, samples: int) -> None:
    torch.testing.assert_close(
        linear_vae().log_prob(images, samples=samples), exact_log_prob(images), atol=2e-5, rtol=0
    )


def test_elbo_is_exact_at_the_true_posterior_in_expectation(images: Tensor) -> None:
    vae = linear_vae(samples=4000)
    noise = RowNoise(BatchKey(1, 0, 40), 40, "test")
    terms = vae.measure(vae.terms(images, torch.full((40,), -1), noise))
    torch.testing.assert_close(terms["elbo"].double(), exact_log_prob(images), atol=0.15, rtol=0)
    assert terms["elbo"].mean().item() == pytest.approx(exact_log_prob(images).mean().item(), abs=0.02)


def test_bound_tightens_with_k_and_stays_below(images: Tensor) -> None:
    vae, exact = linear_vae(error=1.2), exact_log_prob(images)
    gaps = [(exact - vae.log_prob(images, samples=k)).mean().item() for k in (1, 10, 5000)]
    assert gaps[0] > gaps[1] > gaps[2] > -0.01
    assert gaps[0] > 0.3
    assert gaps[2] < 0.01


def test_chunks_change_nothing(images: Tensor) -> None:
    log_weights = torch.randn(101, 6, dtype=torch.float64) * 30
    expected = log_weights.logsumexp(0) - math.log(101)
    for chunk in (1, 10, 101, 500):
        torch.testing.assert_close(importance_bound(lambda a, b: log_weights[a:b], 101, chunk), expected)
    vae = linear_vae(error=0.5)
    whole = vae.log_prob(images, samples=50)
    vae.chunk = lambda batch_size, samples: 7
    torch.testing.assert_close(vae.log_prob(images, samples=50), whole)
    assert not torch.allclose(vae.log_prob(images, samples=49), whole)


def test_memory_is_bounded_and_the_encoder_runs_once(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 < chunk_size(100, 784, 5000) < chunk_size(100, 784, 5000, "cuda")
    assert chunk_size(100, 784, 5000) * 100 * 784 <= 1 << 19
    assert chunk_size(10**6, 784, 5000) == 1
    assert chunk_size(1, 1, 50) == 50
    monkeypatch.setattr("lit_gen.vae.evaluation.CHUNK_ELEMENTS", {"cpu": 40 * 6 * 8})
    vae, rows, encoded = linear_vae(), [], []
    vae.net("decoder").register_forward_hook(lambda module, args, output: rows.append(output.shape[0]))
    vae.net("encoder").register_forward_hook(lambda module, args, output: encoded.append(1))
    vae.log_prob(images, samples=20)
    assert rows == [8, 8, 4]
    assert len(encoded) == 1


@pytest.mark.parametrize("gradient", ["reparameterized", "doubly_reparameterized"])
def test_iwae_with_one_sample_is_the_elbo(images: Tensor, gradient: str) -> None:
    label = torch.full((40,), -1)
    iwae = linear_vae(0.7, IWAE, samples=1, gradient=gradient)
    terms = iwae.terms(images, label, RowNoise(BatchKey(1, 0, 40), 40, "test"))
    torch.testing.assert_close(-terms["loss"], (terms["reconstruction"] + terms["log_ratio"])[0])
    # With the KL term sampled instead of exact, the two agree in expectation: average over many draws.
    many = linear_vae(0.7, IWAE, samples=4000)
    terms = many.terms(images, label, RowNoise(BatchKey(2, 0, 40), 40, "test"))
    single = (terms["reconstruction"] + terms["log_ratio"]).mean(0)
    torch.testing.assert_close(single, many.measure(terms)["elbo"], atol=0.1, rtol=0)
    assert (many.measure(terms)["iwae"] >= single).all()


def test_averages_do_not_depend_on_the_division() -> None:
    values = torch.randn(1003, dtype=torch.float64) * 30 - 90
    whole = Averages(["nll", "kl", "absent"])
    whole.update(nll=values, kl=values[:10])
    parts = [Averages(["nll", "kl", "absent"]) for _ in range(2)]
    for i, chunk in enumerate(values.split(17)):
        parts[i % 2].update(nll=chunk)
    parts[1].update(kl=values[:10])
    assert parts[0].sums[0] + parts[1].sums[0] == whole.sums[0]
    assert parts[0].squares[0] + parts[1].squares[0] == whole.squares[0]
    result = whole.compute()
    assert set(result) == {"nll", "kl"}
    assert result["nll"][0] == pytest.approx(values.mean().item(), abs=1e-6)
    assert result["nll"][1] == pytest.approx(values.std().item() / math.sqrt(1003), rel=1e-5)
    assert not whole.state_dict()
