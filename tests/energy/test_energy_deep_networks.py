"""Energy networks: their shapes, their derivatives, the constraint on their weights."""

import pytest
import torch

from lit_gen.core.errors import UsageError
from lit_gen.energy.energy_networks import ConvEnergy, MLPEnergy

SMALL = {MLPEnergy: {"hidden": [7, 5]}, ConvEnergy: {"width": 3}}
networks = pytest.mark.parametrize("network", SMALL)


@networks
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 9), (1, 1, 2), (2, 28, 28)])
def test_one_number_for_each_image_and_every_pixel_counts(network, shape):
    energy = network(shape, **SMALL[network])
    image = torch.randn(4, *shape, requires_grad=True)
    out = energy(image)
    assert out.shape == (4,)
    torch.testing.assert_close(out[2:3], energy(image[2:3]))  # rows do not see each other
    (gradient,) = torch.autograd.grad(out.sum(), image)
    assert (gradient != 0).all()


@networks
@pytest.mark.parametrize("activation", ["swish", "softplus", "elu", "gelu", "tanh"])
def test_second_derivatives_are_those_of_finite_differences(network, activation):
    energy = network((1, 6, 5), activation=activation, **SMALL[network]).double()
    image = torch.randn(2, 1, 6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(energy, (image,))
    assert torch.autograd.gradgradcheck(energy, (image,))


@networks
def test_spectral_norm_bounds_every_layer_and_rests_in_evaluation(network):
    energy = network((1, 8, 8), spectral_norm=True, **SMALL[network])
    image = torch.randn(2, 1, 8, 8)
    for _ in range(200):
        energy(image)
    weights = [layer.weight.flatten(1) for layer in energy.layers if hasattr(layer, "parametrizations")]
    assert len(weights) == 3
    for weight in weights:
        torch.testing.assert_close(torch.linalg.matrix_norm(weight, 2), torch.tensor(1.0), atol=1e-3, rtol=0)
    state = {name: value.clone() for name, value in energy.state_dict().items()}
    energy.eval()(image)
    assert all(torch.equal(value, state[name]) for name, value in energy.state_dict().items())


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="activation = relu"):
        MLPEnergy((1, 4, 4), activation="relu")
    with pytest.raises(UsageError, match=r"hidden = \[0\]"):
        MLPEnergy((1, 4, 4), hidden=[0])
    with pytest.raises(UsageError, match="width"):
        ConvEnergy((1, 4, 4), width=0)
