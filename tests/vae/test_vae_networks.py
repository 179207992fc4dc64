"""Encoders and decoders for any image size, with and without labels."""

from __future__ import annotations

import pytest
import torch

from lit_gen.vae import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 17, 31), (1, 3, 3), (1, 1, 9), (3, 37, 64)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("classes", [0, 4])
@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_shapes_and_gradients(shape: tuple[int, int, int], classes: int, kind: str) -> None:
    if kind == "mlp":
        encoder, decoder = MLPEncoder(shape, 6, classes, [9]), MLPDecoder(shape, 3, classes, [9])
    else:
        encoder, decoder = ConvEncoder(shape, 6, classes, 2, 8), ConvDecoder(shape, 3, classes, 2, 8)
    label = torch.eye(4)[torch.tensor([0, 2])].requires_grad_() if classes else None
    features = encoder(torch.rand(2, *shape), label)
    assert features.shape == (2, 6)
    z = torch.randn(5, 2, 3)
    output = decoder(z, label)
    assert output.shape == (5, 2, *shape)
    torch.testing.assert_close(output[3], decoder(z[3], label))  # leading dimensions are only a batch
    (features.square().sum() + output.square().sum()).backward()
    for parameter in [*encoder.parameters(), *decoder.parameters()]:
        assert parameter.grad.abs().sum() > 0
    if classes:
        assert (label.grad.abs().sum(0) > 0).all()


def test_burda_architecture() -> None:
    encoder, decoder = MLPEncoder((1, 28, 28), 100), MLPDecoder((1, 28, 28), 50)
    sizes = [tuple(m.weight.shape) for m in (*encoder.layers, *decoder.layers) if isinstance(m, torch.nn.Linear)]
    assert sizes == [(200, 784), (200, 200), (100, 200), (200, 50), (200, 200), (784, 200)]
