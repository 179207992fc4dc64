"""Likelihoods against torch.distributions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import distributions

from lit_gen.core.errors import UsageError
from lit_gen.core.images import ImageSpec
from lit_gen.vae import Bernoulli, Categorical, Gaussian, LearnedGaussian, Likelihood

UNIT = ImageSpec((3, 4, 5), 0, (0.0, 1.0))
SYMMETRIC = ImageSpec((3, 4, 5), 0, (-1.0, 1.0))
BINARY = ImageSpec((3, 4, 5), 0, (0.0, 1.0), binary=True)


def params_of(likelihood: Likelihood) -> torch.Tensor:
    return 2 * torch.randn(2, 6, 3 * likelihood.params_per_pixel, 4, 5)


def test_bernoulli() -> None:
    likelihood = Bernoulli().bind(BINARY)
    x, params = torch.bernoulli(torch.full((6, 3, 4, 5), 0.4)), params_of(Bernoulli()).requires_grad_()
    params.data[0, 0, 0, 0] = torch.tensor([-100.0, 100.0, -20.0, 20.0, 0.0])
    expected = distributions.Bernoulli(logits=params).log_prob(x)
    torch.testing.assert_close(likelihood.log_prob(x, params), expected.sum((-3, -2, -1)))
    weight = torch.randn(2, 6)
    (ours,) = torch.autograd.grad((weight * likelihood.log_prob(x, params)).sum(), params)
    (theirs,) = torch.autograd.grad((weight * expected.sum((-3, -2, -1))).sum(), params)
    torch.testing.assert_close(ours, theirs)


def test_bernoulli_is_a_cross_entropy_on_grey_pixels() -> None:
    with pytest.warns(UserWarning, match="cross entropy"):
        likelihood = Bernoulli().bind(UNIT)
    x, params = torch.rand(6, 3, 4, 5), params_of(Bernoulli())
    expected = -torch.nn.functional.binary_cross_entropy_with_logits(params, x.expand_as(params), reduction="none")
    torch.testing.assert_close(likelihood.log_prob(x, params), expected.sum((-3, -2, -1)))


def test_gaussians() -> None:
    x = torch.rand(6, 3, 4, 5)
    params = params_of(Gaussian())
    expected = distributions.Normal(params, 0.3).log_prob(x).sum((-3, -2, -1))
    torch.testing.assert_close(Gaussian(0.3).bind(UNIT).log_prob(x, params), expected)
    params = params_of(LearnedGaussian())
    mean, raw = params[:, :, :3], params[:, :, 3:]
    std = torch.log1p(raw.exp()) + 0.01
    expected = distributions.Normal(mean, std).log_prob(x).sum((-3, -2, -1))
    torch.testing.assert_close(LearnedGaussian(0.01).bind(UNIT).log_prob(x, params), expected)


@pytest.mark.parametrize("spec", [UNIT, SYMMETRIC])
def test_categorical(spec: ImageSpec) -> None:
    likelihood = Categorical().bind(spec)
    level = torch.randint(256, (6, 3, 4, 5))
    low, high = spec.value_range
    x = low + (high - low) * level / 255
    params = params_of(likelihood)
    logits = params.view(2, 6, 256, 3, 4, 5).movedim(2, -1)
    expected = distributions.Categorical(logits=logits).log_prob(level).sum((-3, -2, -1))
    torch.testing.assert_close(likelihood.log_prob(x, params), expected)
    levels = torch.linspace(low, high, 256)
    torch.testing.assert_close(likelihood.mean(params), (logits.softmax(-1) * levels).sum(-1))


@pytest.mark.parametrize("likelihood", [Bernoulli(), Gaussian(0.1), LearnedGaussian(), Categorical()])
def test_sample_and_mean(likelihood: Likelihood) -> None:
    spec = BINARY if isinstance(likelihood, Bernoulli) else SYMMETRIC
    if not isinstance(likelihood, Bernoulli):
        assert likelihood.bind(UNIT).sample(params_of(likelihood)).min() >= 0
    bound = likelihood.bind(spec)
    params = params_of(likelihood) / 4
    draws = torch.stack([bound.sample(params, torch.Generator().manual_seed(i)) for i in range(400)])
    assert draws.shape == (400, 2, 6, 3, 4, 5)
    assert draws.min() >= spec.value_range[0]
    assert draws.max() <= spec.value_range[1]
    assert torch.equal(draws[3], bound.sample(params, torch.Generator().manual_seed(3)))
    if isinstance(likelihood, Bernoulli | Categorical):  # the others' means are those before clamping
        error = draws.std(0) / math.sqrt(400)
        assert ((draws.mean(0) - bound.mean(params)).abs() < 6 * error + 1e-3).all()


def test_mask_selects_pixels() -> None:
    likelihood = Gaussian(0.5).bind(UNIT)
    x, params, mask = torch.rand(6, 3, 4, 5), params_of(Gaussian()), torch.zeros(6, 1, 4, 5)
    mask[:, :, 1, 2] = 1
    expected = likelihood.pixel_log_prob(x, params)[..., 1, 2].sum(-1)
    torch.testing.assert_close(likelihood.log_prob(x, params, mask), expected)


def test_density_counts_levels() -> None:
    # A uniform density on [-1, 1] is one level of 256 with probability 1/256: 8 bits.
    nll_per_dim = math.log(2.0)
    assert (nll_per_dim + Gaussian().bind(SYMMETRIC).levels_nats) / math.log(2) == pytest.approx(8.0)
    assert Categorical().bind(SYMMETRIC).levels_nats == 0.0


def test_mistakes() -> None:
    with pytest.raises(UsageError, match=r"\[0, 1\]"):
        Bernoulli().bind(SYMMETRIC)
    with pytest.raises(UsageError, match=r"std = 0\.0"):
        Gaussian(0.0)
    with pytest.raises(UsageError, match="min_std = -1"):
        LearnedGaussian(-1)
