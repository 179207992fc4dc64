"""The tricks of Salimans et al. 2016, each against its equation written out."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lit_gen.core.errors import UsageError
from lit_gen.gan import (
    DCGANGenerator,
    FeatureMatching,
    Hinge,
    HistoricalAveraging,
    MinibatchDiscrimination,
    MLPGenerator,
    NonSaturating,
    OneSidedLabelSmoothing,
    VirtualBatchNorm,
)
from lit_gen.gan.tricks import Pass


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_feature_matching_is_the_squared_distance_of_the_mean_features():
    real, fake = random(6, 3).requires_grad_(), random(4, 3, seed=1).requires_grad_()
    step = Pass(nn.Module(), torch.zeros(4), real_features=real, fake_features=fake)
    loss = FeatureMatching(weight=2.0).generator_loss(step, nn.Module())
    expected = 2.0 * sum((real[:, k].mean() - fake[:, k].mean()) ** 2 for k in range(3))
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert real.grad is None  # the data's features are a target
    assert fake.grad is not None


def test_minibatch_discrimination_equals_its_double_sum():
    layer = MinibatchDiscrimination(features=4, kernels=3, kernel_dim=2)
    features = random(5, 4)
    output = layer(features)
    assert torch.equal(output[:, :4], features)
    for i in range(5):
        for b in range(3):
            rows = [features[j] @ layer.tensor[:, b] for j in range(5)]
            closeness = sum(torch.exp(-(rows[i] - rows[j]).abs().sum()) for j in range(5))
            torch.testing.assert_close(output[i, 4 + b], closeness)


def test_minibatch_discrimination_sees_a_collapsed_batch():
    layer = MinibatchDiscrimination(features=4, kernels=3)
    collapsed = layer(random(1, 4).expand(6, 4))[:, 4:]
    torch.testing.assert_close(collapsed, torch.full((6, 3), 6.0))
    assert (layer(100 * random(6, 4))[:, 4:] < 2.0).all()


def test_historical_averaging_is_the_distance_to_the_mean_of_past_parameters():
    network, trick = nn.Linear(2, 1), HistoricalAveraging(weight=0.5)
    memory = trick.build(network)
    step = Pass(network, torch.zeros(1))
    assert trick.generator_loss(step, memory) == 0.0  # no past yet
    past = []
    for seed in range(4):
        network.weight.data, network.bias.data = random(1, 2, seed=seed), random(1, seed=seed + 10)
        trick.after_step(network, memory)
        past.append(torch.cat([network.weight.detach().flatten(), network.bias.detach()]))
    network.weight.data += 1.0
    present = torch.cat([network.weight.flatten(), network.bias])
    expected = 0.5 * (present - torch.stack(past).mean(dim=0)).square().sum()
    torch.testing.assert_close(trick.discriminator_loss(step, memory), expected)
    restored = trick.build(network)
    restored.load_state_dict(memory.state_dict())  # the past is in the checkpoint
    torch.testing.assert_close(trick.generator_loss(step, restored), expected)


def test_label_smoothing_is_cross_entropy_with_target_alpha_for_data_alone():
    real, fake = random(8), random(8, seed=1)
    step = Pass(nn.Module(), fake, real_logits=real)
    loss = NonSaturating().discriminator_loss(real, fake) + OneSidedLabelSmoothing(0.9).discriminator_loss(step, None)
    cross_entropy = F.binary_cross_entropy_with_logits
    expected = cross_entropy(real, torch.full((8,), 0.9)) + cross_entropy(fake, torch.zeros(8))
    torch.testing.assert_close(loss, expected)


def test_label_smoothing_has_its_optimum_at_alpha_p_over_p_plus_q():
    """On a space of one point, so that p : q is the ratio of the numbers of rows."""
    p, q, alpha = 0.6, 0.4, 0.9
    logit = torch.logit(torch.tensor(alpha * p / (p + q))).requires_grad_()
    trick = OneSidedLabelSmoothing(alpha)
    objective, step = NonSaturating(), Pass(nn.Module(), logit.view(1), real_logits=logit.view(1))
    far = torch.full((1,), -1e4)  # a constant
    on_data = objective.discriminator_loss(logit.view(1), far) + trick.discriminator_loss(step, None)
    on_fake = objective.discriminator_loss(-far, logit.view(1))
    (slope,) = torch.autograd.grad(p * on_data + q * on_fake, logit)
    assert slope.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: OneSidedLabelSmoothing().check(Hinge()),
        lambda: OneSidedLabelSmoothing(1.5),
        lambda: FeatureMatching(0.0),
        lambda: HistoricalAveraging(-1.0),
    ],
    ids=range(4),
)
def test_bad_values_are_named(make):
    with pytest.raises(UsageError, match="accepted"):
        make()


@pytest.mark.parametrize("shape", [(7, 3), (7, 3, 4, 5)], ids=["flat", "spatial"])
def test_virtual_batch_norm_equals_its_equation(shape):
    layer, reference = VirtualBatchNorm(3, reference_size=4), 4
    layer.weight.data, layer.bias.data = random(3, seed=1), random(3, seed=2)
    x = 2.0 + random(*shape)
    output = layer(x)
    rows = x.reshape(7, 3, -1)
    mean, square = rows.mean(dim=2), rows.square().mean(dim=2)
    for i in range(reference, 7):
        for c in range(3):
            mu = mean[i, c] / (reference + 1) + mean[:reference, c].mean() * reference / (reference + 1)
            s = square[i, c] / (reference + 1) + square[:reference, c].mean() * reference / (reference + 1)
            expected = (x[i, c] - mu) / (s - mu**2 + 1e-5).sqrt() * layer.weight[c] + layer.bias[c]
            torch.testing.assert_close(output[i, c], expected, rtol=1e-4, atol=1e-5)
    usual = F.batch_norm(x[:reference], None, None, layer.weight, layer.bias, training=True)
    torch.testing.assert_close(output[:reference], usual, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", [DCGANGenerator, MLPGenerator])
def test_with_virtual_batch_norm_an_image_does_not_depend_on_its_batch(network):
    virtual = network((1, 16, 16), 5, normalisation="virtual", reference_size=8).train()
    z = random(6, 5)
    torch.testing.assert_close(virtual(z)[:2], virtual(z[:2]), rtol=1e-4, atol=1e-5)
    usual = network((1, 16, 16), 5, normalisation="batch").train()
    assert (usual(z)[:2] - usual(z[:2])).abs().max() > 1e-3
