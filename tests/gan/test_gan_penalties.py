"""Penalties against closed forms for linear and quadratic critics, and against finite differences."""

import pytest
import torch
from torch import nn

from lit_gen.core.errors import UsageError
from lit_gen.core.random import BatchKey, RowNoise
from lit_gen.gan import R1, DCGANDiscriminator, GradientPenalty, WeightClipping
from lit_gen.gan.penalties import input_gradient

SHAPE = (5, 3, 4, 4)


def noise(rows=5, seed=3):
    return RowNoise(BatchKey(seed, 0, rows), rows, "discriminator")


def images(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SHAPE, generator=generator), torch.randn(SHAPE, generator=generator)


class DoubleNoise(RowNoise):
    def uniform(self, *event):
        return super().uniform(*event).double()


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(SHAPE[1:], generator=torch.Generator().manual_seed(1)))

    def forward(self, image, label=None):
        return (image * self.weight).sum(dim=(1, 2, 3))


class Quadratic(nn.Module):
    """d(x) = |x|^2 / 2, whose gradient is x."""

    def forward(self, image, label=None):
        return 0.5 * image.square().sum(dim=(1, 2, 3))


def test_gradient_penalty_of_a_linear_critic():
    """The gradient is w everywhere: the penalty is (|w| - 1)^2 and its derivative 2 (|w| - 1) w / |w|."""
    critic = Linear()
    value = GradientPenalty()(critic, *images(), None, noise())
    norm = critic.weight.detach().norm()
    torch.testing.assert_close(value.detach(), (norm - 1) ** 2)
    (derivative,) = torch.autograd.grad(value, critic.weight)
    torch.testing.assert_close(derivative, 2 * (norm - 1) * critic.weight.detach() / norm)


def test_gradient_penalty_interpolates_with_one_epsilon_for_each_sample():
    real, fake = images()
    epsilon = noise().uniform(1, 1, 1)
    between = epsilon * real + (1 - epsilon) * fake
    expected = (between.flatten(1).norm(dim=1) - 1).square().mean()
    torch.testing.assert_close(GradientPenalty()(Quadratic(), real, fake, None, noise()), expected)


def test_r1_is_half_the_squared_gradient_on_data():
    real, fake = images()
    critic = Linear()
    torch.testing.assert_close(R1()(critic, real, fake, None, noise()), 0.5 * critic.weight.square().sum())
    expected = 0.5 * real.flatten(1).square().sum(dim=1).mean()
    torch.testing.assert_close(R1()(Quadratic(), real, fake, None, noise()), expected)


def test_a_flat_critic_has_a_finite_derivative():
    critic = Linear()
    nn.init.zeros_(critic.weight)
    value = GradientPenalty()(critic, *images(), None, noise())
    (derivative,) = torch.autograd.grad(value, critic.weight)
    assert value.item() == pytest.approx(1.0, abs=1e-5)
    assert derivative.isfinite().all()


@pytest.mark.parametrize("penalty", [GradientPenalty(), R1()], ids=lambda p: p.name)
@pytest.mark.parametrize("normalisation", ["none", "layer"])
def test_derivative_in_the_weights_equals_finite_differences(penalty, normalisation):
    generator = torch.Generator().manual_seed(0)
    critic = DCGANDiscriminator((1, 16, 16), width=3, normalisation=normalisation).double()
    for parameter in critic.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator).double()
    real, fake = torch.randn(2, 4, 1, 16, 16, generator=generator).double()
    direction = [torch.randn(p.shape, generator=generator).double() for p in critic.parameters()]

    def value():
        return penalty.value(critic, real.clone(), fake, None, DoubleNoise(BatchKey(3, 0, 4), 4, "discriminator"))

    # unused: the last bias, whose derivative is 0
    gradients = torch.autograd.grad(value(), list(critic.parameters()), materialize_grads=True)
    slope = sum((g * d).sum() for g, d in zip(gradients, direction)).item()

    def moved(step):
        for parameter, d in zip(critic.parameters(), direction):
            parameter.data += step * d
        result = value().item()
        for parameter, d in zip(critic.parameters(), direction):
            parameter.data -= step * d
        return result

    step = 1e-8  # small: LeakyReLU makes the penalty jump where a unit changes sign
    assert slope == pytest.approx((moved(step) - moved(-step)) / (2 * step), rel=1e-4)


def test_autocast_does_not_reach_the_penalty():
    critic = DCGANDiscriminator((3, 16, 16), width=4, normalisation="none")
    real, fake = torch.randn(2, 5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    outside = GradientPenalty()(critic, real, fake, None, noise())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert critic(real).dtype == torch.bfloat16  # autocast is on
        inside = GradientPenalty()(critic, real, fake.bfloat16().float(), None, noise())
        reference = GradientPenalty()(critic, real, fake.bfloat16(), None, noise())
    assert inside.dtype == torch.float32
    assert torch.equal(inside, reference)
    torch.testing.assert_close(inside, outside, rtol=1e-2, atol=0)


def test_input_gradient_of_a_row_depends_on_that_row_alone():
    critic = DCGANDiscriminator((3, 16, 16), width=4, normalisation="layer")
    real = torch.randn(5, 3, 16, 16)
    whole = input_gradient(critic, real.clone(), None)
    rows = [input_gradient(critic, real[i : i + 1].clone(), None) for i in range(5)]
    torch.testing.assert_close(whole, torch.cat(rows), rtol=1e-4, atol=1e-7)


def test_weight_clipping_projects_every_parameter_onto_the_box():
    critic = DCGANDiscriminator((1, 16, 16), width=4)
    before = [p.detach().clone() for p in critic.parameters()]
    WeightClipping(0.01).apply(critic)
    for old, new in zip(before, critic.parameters()):
        assert torch.equal(new, old.clamp(-0.01, 0.01))
    assert max(p.abs().max() for p in critic.parameters()) <= 0.01 < max(p.abs().max() for p in before)


@pytest.mark.parametrize(
    "make", [lambda: GradientPenalty(-1.0), lambda: R1(interval=0), lambda: WeightClipping(0.0)], ids=range(3)
)
def test_bad_values_are_named(make):
    with pytest.raises(UsageError, match=r"= -?\d.*accepted"):
        make()
