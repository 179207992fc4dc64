"""Multi-head attention and positions against torch.nn.MultiheadAttention and their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lit_gen.core.errors import UsageError
from lit_gen.text.multi_head_attention import CrossAttention, SelfAttention, attend, key_mask
from lit_gen.text.positions import LearnedPositions, RotaryPositions, SinusoidalPositions, rotate

D, H, B, S, T = 24, 4, 3, 7, 5
LENGTHS = torch.tensor([S, 4, 1])
MASK = torch.arange(S) < LENGTHS.unsqueeze(1)


def torch_attention(ours: SelfAttention | CrossAttention) -> nn.MultiheadAttention:
    theirs = nn.MultiheadAttention(D, H, batch_first=True)
    packed = [ours.qkv] if isinstance(ours, SelfAttention) else [ours.query, ours.key_value]
    theirs.in_proj_weight.data = torch.cat([layer.weight.data for layer in packed])
    theirs.in_proj_bias.data = torch.cat([layer.bias.data for layer in packed])
    theirs.out_proj.load_state_dict(ours.output.state_dict())
    return theirs


def gradients(y: torch.Tensor, weight: torch.Tensor, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad((y * weight).sum(), inputs, retain_graph=True)


def test_self_attention_is_torch_attention() -> None:
    ours = SelfAttention(D, H)
    theirs = torch_attention(ours)
    x = torch.randn(B, S, D, requires_grad=True)
    y = ours(x, key_mask(MASK))
    expected, _ = theirs(x, x, x, key_padding_mask=~MASK)
    torch.testing.assert_close(y, expected)
    weight = torch.randn(B, S, D)
    inputs = [ours.qkv.weight, ours.qkv.bias, ours.output.weight, ours.output.bias, x]
    reference = [theirs.in_proj_weight, theirs.in_proj_bias, theirs.out_proj.weight, theirs.out_proj.bias, x]
    for ours_, theirs_ in zip(gradients(y, weight, inputs), gradients(expected, weight, reference)):
        torch.testing.assert_close(ours_, theirs_, atol=1e-5, rtol=1e-4)


def test_cross_attention_is_torch_attention() -> None:
    ours = CrossAttention(D, D, H)
    theirs = torch_attention(ours)
    x, states = torch.randn(B, T, D, requires_grad=True), torch.randn(B, S, D, requires_grad=True)
    k, v = ours.project(states)
    y = ours(x, k, v, key_mask(MASK))
    expected, weights = theirs(x, states, states, key_padding_mask=~MASK)
    torch.testing.assert_close(y, expected)
    ours_weights = ours.weights(x, k, key_mask(MASK))
    torch.testing.assert_close(ours_weights, weights)
    torch.testing.assert_close(ours_weights.sum(-1), torch.ones(B, T))
    assert (ours_weights[~MASK.unsqueeze(1).expand(B, T, S)] == 0).all()
    weight = torch.randn(B, T, D)
    for ours_, theirs_ in zip(gradients(y, weight, [x, states]), gradients(expected, weight, [x, states])):
        torch.testing.assert_close(ours_, theirs_, atol=1e-5, rtol=1e-4)


def test_hypotheses_of_a_sentence_share_its_keys() -> None:
    ours, hypotheses = CrossAttention(D, 10, H), 3
    k, v = ours.project(torch.randn(B, S, 10))
    x = torch.randn(B * hypotheses, T, D)
    k_each, v_each, mask_each = (each.repeat_interleave(hypotheses, 0) for each in (k, v, key_mask(MASK)))
    torch.testing.assert_close(ours(x, k, v, key_mask(MASK)), ours(x, k_each, v_each, mask_each))
    torch.testing.assert_close(ours.weights(x, k, key_mask(MASK)), ours.weights(x, k_each, mask_each))


def test_attention_dropout_leaves_out_weights_in_training_only() -> None:
    ours = SelfAttention(D, H, dropout=0.5)
    x = torch.randn(B, S, D)
    assert not torch.equal(ours(x), ours(x))
    ours.eval()
    torch.testing.assert_close(ours(x), torch_attention(ours)(x, x, x)[0])
    q, k = torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, 10_000, 4)
    total = attend(q, k, torch.ones_like(k), dropout=0.25)
    assert torch.allclose(total, torch.ones(1), atol=4 * math.sqrt(0.25 / 0.75 / 10_000))


def test_a_source_of_padding_alone_gives_no_nan() -> None:
    mask = torch.zeros(2, S, dtype=torch.bool)
    mask[0, :3] = True
    x = torch.randn(2, S, D, requires_grad=True)
    y = SelfAttention(D, H)(x, key_mask(mask))
    y.sum().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(UsageError, match=r"heads = 5; accepted: a divisor of embedding_dim = 24"):
        SelfAttention(D, 5)
    with pytest.raises(UsageError, match="heads = 0"):
        CrossAttention(D, D, 0)


# ---------------------------------------------------------------- positions


def test_sinusoidal_positions_are_the_formula() -> None:
    layer, x = SinusoidalPositions(6, scale=2.0), torch.randn(2, 3, 6)
    y = layer(x, offset=400)  # past the table that is made at first
    for t in range(3):
        for i in range(3):
            angle = (400 + t) / 10_000 ** (2 * i / 6)
            torch.testing.assert_close(y[:, t, 2 * i], 2 * x[:, t, 2 * i] + math.sin(angle))
            torch.testing.assert_close(y[:, t, 2 * i + 1], 2 * x[:, t, 2 * i + 1] + math.cos(angle))
    assert SinusoidalPositions(5)(torch.zeros(1, 2, 5)).shape == (1, 2, 5)


def test_learned_positions_end_at_max_length() -> None:
    layer, x = LearnedPositions(6, max_length=8), torch.randn(2, 3, 6)
    torch.testing.assert_close(layer(x, 5) - x, layer.table[5:8].expand(2, 3, 6))
    with pytest.raises(UsageError, match=r"9 tokens; accepted: up to max_length = 8"):
        layer(x, 6)


def test_rotary_positions_are_rotations() -> None:
    dim = 6
    layer, x = RotaryPositions(dim), torch.randn(2, 3, 1, dim)
    y = rotate(x, layer.rotation(3, offset=400))
    for t in range(3):
        matrix = torch.zeros(dim, dim)
        for i in range(dim // 2):
            angle = torch.tensor((400 + t) / 10_000 ** (2 * i / dim))
            pair = torch.tensor([i, i + dim // 2])
            matrix[pair[0], pair[0]] = matrix[pair[1], pair[1]] = angle.cos()
            matrix[pair[1], pair[0]], matrix[pair[0], pair[1]] = angle.sin(), -angle.sin()
        torch.testing.assert_close(y[:, t, 0], x[:, t, 0] @ matrix.T)
    with pytest.raises(UsageError, match="an even number"):
        RotaryPositions(5)


def test_rotary_attention_depends_on_distances_alone() -> None:
    layer, q, k = RotaryPositions(8), torch.randn(1, 8), torch.randn(1, 8)

    def score(m: int, n: int) -> torch.Tensor:
        turned = [rotate(x.view(1, 1, 1, 8), layer.rotation(1, at)) for x, at in ((q, m), (k, n))]
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(score(2, 9), score(102, 109), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(score(2, 9), score(2, 10))
