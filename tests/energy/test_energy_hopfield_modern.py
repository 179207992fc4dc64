"""The modern Hopfield network: attention, energy descent, and far more patterns than units."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gen.energy.hopfield import hebbian, recall_asynchronous
from lit_gen.energy.modern_hopfield import modern_energy, modern_update


def random_patterns(count: int, units: int, seed: int = 0) -> Tensor:
    return torch.randint(2, (count, units), generator=torch.Generator().manual_seed(seed)).double() * 2 - 1


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def test_update_is_attention_with_the_patterns_as_keys_and_values() -> None:
    patterns, state = gaussian(7, 16), gaussian(5, 16, seed=1)
    attention = F.scaled_dot_product_attention(state[None], patterns[None], patterns[None])[0]
    torch.testing.assert_close(modern_update(state, patterns, beta=1 / math.sqrt(16)), attention)
    bias = gaussian(5, 7, seed=2)
    attention = F.scaled_dot_product_attention(state[None], patterns[None], patterns[None], attn_mask=bias[None])[0]
    torch.testing.assert_close(modern_update(state, patterns, 0.25, 4 * bias), attention)


@pytest.mark.parametrize("euclidean", [False, True])
def test_energy_falls_by_the_update_and_bounds_its_step(euclidean: bool) -> None:
    patterns, state = gaussian(9, 6), 3 * gaussian(40, 6, seed=1)
    bias = -0.5 * patterns.square().sum(1) if euclidean else None
    for _ in range(30):
        after = modern_update(state, patterns, 2.0, bias)
        drop = modern_energy(state, patterns, 2.0, bias) - modern_energy(after, patterns, 2.0, bias)
        # The concave-convex procedure lowers the energy by half the squared step at least.
        assert (drop >= 0.5 * (after - state).square().sum(1) - 1e-12).all()
        state = after
    assert (after - modern_update(after, patterns, 2.0, bias)).abs().max() < 1e-4


def test_update_is_minus_the_gradient_of_the_concave_part() -> None:
    patterns, state = gaussian(9, 6), gaussian(4, 6, seed=1).requires_grad_()
    (gradient,) = torch.autograd.grad(modern_energy(state, patterns, 1.5).sum(), state)
    torch.testing.assert_close(gradient, state - modern_update(state, patterns, 1.5))


def test_energy_is_not_negative_with_the_paper_s_constants() -> None:
    patterns = gaussian(9, 6)
    assert (modern_energy(gaussian(200, 6, seed=1), patterns, 1.0) >= 0).all()  # Ramsauer et al., appendix A.1.2


def test_one_step_recalls_far_more_patterns_than_units() -> None:
    patterns = random_patterns(4096, 64)  # load 64; the Hebbian rule holds 9
    places = torch.rand(patterns.shape, generator=torch.Generator().manual_seed(1)).topk(6).indices
    noisy = patterns.scatter(1, places, -patterns.gather(1, places))
    recalled = modern_update(noisy, patterns, beta=1.0)
    close = (recalled - patterns).abs().amax(1) < 1e-3
    assert close.double().mean() > 0.99
    few = recall_asynchronous(hebbian(patterns), noisy[:50]).state
    assert not (few == patterns[:50]).all(1).any()


def test_a_small_beta_recalls_the_mean_and_a_large_one_the_nearest_pattern() -> None:
    patterns, state = random_patterns(6, 30), gaussian(3, 30)
    torch.testing.assert_close(modern_update(state, patterns, 1e-9), patterns.mean(0).expand(3, -1))
    nearest = torch.cdist(state, patterns).argmin(1)
    torch.testing.assert_close(modern_update(state, patterns, 1e3), patterns[nearest])
