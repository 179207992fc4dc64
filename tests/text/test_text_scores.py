"""Attention scores against their formulas in explicit loops; soft attention over padded sentences and K hypotheses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lit_gen.core.errors import UsageError
from lit_gen.text.scores import AdditiveScore, BilinearScore, DotScore, ScaledDotScore, Score, attend

SENTENCES, QUERIES, KEYS, WIDTH = 2, 3, 4, 5


def formula(score: Score, h: Tensor, s: Tensor) -> float:
    """The score of one query and one key, from the papers."""
    if isinstance(score, AdditiveScore):
        v, w, u, b = score.output.weight[0], score.query.weight, score.key.weight, score.key.bias
        units = range(len(v))
        return sum(v[a].item() * math.tanh((w[a] @ h + u[a] @ s + b[a]).item()) for a in units)
    if isinstance(score, BilinearScore):
        w = score.weight
        return sum((h[i] * w[i, j] * s[j]).item() for i in range(len(h)) for j in range(len(s)))
    dot = sum((a * b).item() for a, b in zip(h, s))
    return dot / math.sqrt(WIDTH) if isinstance(score, ScaledDotScore) else dot


@pytest.mark.parametrize(
    ("kind", "key_width", "options"),
    [
        (DotScore, WIDTH, {}),
        (ScaledDotScore, WIDTH, {}),
        (BilinearScore, WIDTH + 2, {}),
        (AdditiveScore, WIDTH + 2, {}),
        (AdditiveScore, WIDTH + 2, {"hidden": 3}),
    ],
)
def test_scores_equal_their_formulas(kind: type[Score], key_width: int, options: dict) -> None:
    score = kind(WIDTH, key_width, **options)
    queries, keys = torch.randn(SENTENCES, QUERIES, WIDTH), torch.randn(SENTENCES, KEYS, key_width)
    values = score(queries, score.prepare(keys))
    assert values.shape == (SENTENCES, QUERIES, KEYS)
    for b in range(SENTENCES):
        for q in range(QUERIES):
            for k in range(KEYS):
                assert values[b, q, k].item() == pytest.approx(formula(score, queries[b, q], keys[b, k]), abs=1e-5)
    for parameter in score.parameters():
        (gradient,) = torch.autograd.grad(values.square().sum(), parameter, retain_graph=True)
        assert gradient.any()


@pytest.mark.parametrize("kind", [DotScore, ScaledDotScore])
def test_dot_scores_need_equal_widths(kind: type[Score]) -> None:
    with pytest.raises(UsageError, match=f"decoder width for {kind.__name__} = 3; accepted: 6, the encoder's width"):
        kind(3, 6)


def test_attention_over_hypotheses_and_padding() -> None:
    """K hypotheses on one copy of the keys equal one sentence at a time, cut to its real length."""
    score, lengths, hypotheses = AdditiveScore(WIDTH, WIDTH), [4, 2], 3
    states = torch.randn(SENTENCES, KEYS, WIDTH)
    queries = torch.randn(SENTENCES * hypotheses, QUERIES, WIDTH)
    mask = torch.arange(KEYS) < torch.tensor(lengths)[:, None]
    context, weights = attend(score, queries, score.prepare(states), states, mask)
    for row in range(len(queries)):
        sentence = row // hypotheses
        real = states[sentence, : lengths[sentence]]
        expected = score(queries[row][None], score.prepare(real[None]))[0].softmax(-1)
        torch.testing.assert_close(weights[row, :, : len(real)], expected)
        assert torch.equal(weights[row, :, len(real) :], torch.zeros(QUERIES, KEYS - len(real)))
        torch.testing.assert_close(context[row], expected @ real)
