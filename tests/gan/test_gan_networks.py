"""Networks: shapes at every size, labels, gradients to every parameter, the papers' rules."""

import itertools

import pytest
import torch
from torch import nn

from lit_gen.core.errors import UsageError
from lit_gen.gan import (
    DCGANDiscriminator,
    DCGANGenerator,
    MLPDiscriminator,
    MLPGenerator,
    ResNetDiscriminator,
    ResNetGenerator,
)

PAIRS = {
    "mlp": (MLPGenerator, MLPDiscriminator, {"hidden": (8, 6)}),
    "dcgan": (DCGANGenerator, DCGANDiscriminator, {"width": 3}),
    "resnet": (ResNetGenerator, ResNetDiscriminator, {"width": 4}),
}
LABEL = torch.tensor([0, 2, 1, 4])


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", PAIRS)
def test_shapes_and_range_at_every_size(kind, channels, size):
    make_generator, make_discriminator, options = PAIRS[kind]
    image = make_generator((channels, size, size), 7, **options)(torch.randn(4, 7))
    assert image.shape == (4, channels, size, size)
    assert image.abs().max() <= 1.0
    discriminator = make_discriminator((channels, size, size), **options)
    assert discriminator(image).shape == (4,)
    assert discriminator.features(image).shape[0] == 4


@pytest.mark.parametrize(
    ("kind", "normalisation", "classes"), list(itertools.product(PAIRS, ["none", "batch", "layer", "virtual"], [0, 5]))
)
def test_every_parameter_of_a_generator_gets_a_gradient(kind, normalisation, classes):
    make, _, options = PAIRS[kind]
    generator = make((1, 16, 16), 7, classes, normalisation=normalisation, reference_size=5, **options)
    image = generator(torch.randn(4, 7), LABEL)
    (image * torch.randn_like(image)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in generator.parameters())


@pytest.mark.parametrize(
    ("kind", "classes", "condition", "kernels", "spectral"),
    list(itertools.product(PAIRS, [0, 5], ["concat", "projection"], [0, 3], [False, True])),
)
def test_every_parameter_of_a_discriminator_gets_a_gradient(kind, classes, condition, kernels, spectral):
    _, make, options = PAIRS[kind]
    extra = {"condition": condition, "minibatch_kernels": kernels, "spectral_norm": spectral}
    discriminator = make((1, 16, 16), classes, **extra, **options)
    image = torch.randn(4, 1, 16, 16)
    (discriminator(image, LABEL) * torch.randn(4)).sum().backward()
    missing = [n for n, p in discriminator.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not missing
    if classes:
        discriminator.eval()
        assert not torch.equal(discriminator(image, LABEL), discriminator(image, (LABEL + 1) % 5))


@pytest.mark.parametrize("kind", PAIRS)
def test_the_label_changes_the_image(kind):
    make, _, options = PAIRS[kind]
    generator, z = make((1, 16, 16), 7, 5, **options).eval(), torch.randn(4, 7)
    assert not torch.equal(generator(z, LABEL), generator(z, (LABEL + 1) % 5))


def test_dcgan_has_batch_norm_everywhere_but_at_the_output_of_g_and_the_input_of_d():
    generator, discriminator = DCGANGenerator((3, 64, 64), 100), DCGANDiscriminator((3, 64, 64))
    convolutions = [m for m in generator.network if isinstance(m, nn.ConvTranspose2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [(512, 256), (256, 128), (128, 64), (64, 3)]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in generator.network) == 4  # projection and all but the last
    assert isinstance(generator.network[-1], nn.Tanh)
    assert isinstance(generator.network[-2], nn.ConvTranspose2d)
    layers = list(discriminator.trunk)
    assert [type(m) for m in layers[:3]] == [nn.Conv2d, nn.LeakyReLU, nn.Conv2d]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in layers) == 3
    assert all(m.negative_slope == 0.2 for m in layers if isinstance(m, nn.LeakyReLU))


def test_dcgan_weights_start_from_the_papers_normal_distribution():
    for network in (DCGANGenerator((3, 64, 64), 100), DCGANDiscriminator((3, 64, 64))):
        weights = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        flat = torch.cat([w.detach().flatten() for w in weights])
        assert flat.std().item() == pytest.approx(0.02, rel=0.01)
        assert flat.mean().item() == pytest.approx(0.0, abs=1e-4)
        assert all((m.bias == 0).all() for m in network.modules() if getattr(m, "bias", None) is not None)


@pytest.mark.parametrize("kind", PAIRS)
def test_spectral_norm_brings_every_layer_to_a_largest_singular_value_of_one(kind):
    _, make, options = PAIRS[kind]
    discriminator = make((1, 16, 16), spectral_norm=True, **options)
    for _ in range(50):  # one power iteration each
        discriminator(torch.randn(2, 1, 16, 16))
    layers = [m for m in discriminator.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert len(layers) >= 3
    for layer in layers:
        assert torch.linalg.svdvals(layer.weight.flatten(1))[0].item() == pytest.approx(1.0, abs=1e-2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: DCGANGenerator((1, 28, 28), 10),
        lambda: DCGANDiscriminator((1, 256, 256)),
        lambda: ResNetGenerator((3, 32, 16), 10),
        lambda: DCGANGenerator((1, 16, 16), 10, width=0),
        lambda: DCGANGenerator((1, 16, 16), 10, normalisation="group"),
        lambda: DCGANDiscriminator((1, 16, 16), normalisation="virtual"),
        lambda: MLPDiscriminator((1, 8, 8), condition="sum"),
        lambda: MLPDiscriminator((1, 8, 8), dropout=1.0),
        lambda: MLPDiscriminator((1, 8, 8), minibatch_kernels=-1),
    ],
    ids=range(9),
)
def test_bad_values_are_named(make):
    with pytest.raises(UsageError, match="accepted"):
        make()
