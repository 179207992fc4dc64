"""The fused output layer and cross-entropy against torch's two operations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lit_gen.text import cross_entropy
from lit_gen.text.cross_entropy import linear_cross_entropy, token_nats


@pytest.mark.parametrize("chunk", [1, 70, 2**20])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("with_bias", [True, False])
def test_value_and_gradients_equal_torch(chunk: int, smoothing: float, with_bias: bool, monkeypatch) -> None:
    monkeypatch.setitem(cross_entropy.CHUNK, "cpu", chunk)
    target = torch.randint(23, (37,))
    inputs = [torch.randn(37, 8), torch.randn(23, 8), *([torch.randn(23)] if with_bias else [])]
    ours, theirs = ([x.clone().requires_grad_() for x in inputs] for _ in range(2))
    loss = linear_cross_entropy(ours[0], ours[1], ours[2] if with_bias else None, target, smoothing)
    logits = F.linear(theirs[0], theirs[1], theirs[2] if with_bias else None)
    expected = F.cross_entropy(logits, target, reduction="sum", label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected)
    (3 * loss).backward()
    (3 * expected).backward()
    for mine, their in zip(ours, theirs):
        torch.testing.assert_close(mine.grad, their.grad, rtol=1e-5, atol=1e-5)


def test_nothing_overflows_at_a_gap_of_a_thousand_nats() -> None:
    features, weight = torch.tensor([[1.0]]), torch.tensor([[0.0], [1000.0]])
    assert linear_cross_entropy(features, weight, None, torch.tensor([0])).item() == 1000.0
    nats, correct = token_nats(features, weight, None, torch.tensor([0]))
    assert (nats.item(), correct.item()) == (1000.0, False)


def test_gradients_are_made_only_where_they_are_asked_for() -> None:
    features, weight = torch.randn(5, 3), torch.randn(4, 3, requires_grad=True)
    linear_cross_entropy(features, weight, None, torch.randint(4, (5,))).backward()
    assert weight.grad is not None
    assert features.grad is None


def test_token_nats_equal_torch_and_take_no_tokens_at_all(monkeypatch) -> None:
    monkeypatch.setitem(cross_entropy.CHUNK, "cpu", 50)
    features, weight, bias, target = torch.randn(31, 6), torch.randn(19, 6), torch.randn(19), torch.randint(19, (31,))
    nats, correct = token_nats(features, weight, bias, target)
    logits = F.linear(features, weight, bias)
    torch.testing.assert_close(nats, F.cross_entropy(logits, target, reduction="none"))
    assert torch.equal(correct, logits.argmax(-1) == target)
    nats, correct = token_nats(features[:0], weight, bias, target[:0])
    assert (nats.shape, correct.shape) == ((0,), (0,))


def test_half_precision_under_autocast() -> None:
    features, weight = torch.randn(9, 8, requires_grad=True), torch.randn(11, 8, requires_grad=True)
    target = torch.randint(11, (9,))
    exact = F.cross_entropy(F.linear(features, weight), target, reduction="sum")
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(features, weight, None, target, 0.1)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=0.2)
    assert features.grad.dtype == torch.float32
