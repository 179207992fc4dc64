"""Feature layers of a language model against loops over the words they look back on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lit_gen.core.errors import UsageError
from lit_gen.text.feed_forward_features import FeedForwardFeatures
from lit_gen.text.prefix_average import PrefixAverage

ROWS, TIME, DIM = 3, 9, 5
LAYERS = {
    "uniform": lambda: PrefixAverage(DIM),
    "attention": lambda: PrefixAverage(DIM, weighting="attention", hidden=4),
    "bigram": lambda: FeedForwardFeatures(DIM, order=2, hidden=6),
    "feed_forward": lambda: FeedForwardFeatures(DIM, order=4, hidden=6, skip=False),
    "skip": lambda: FeedForwardFeatures(DIM, order=4, hidden=6, layers=2),
    "long": lambda: FeedForwardFeatures(DIM, order=2 * TIME, hidden=6),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


def words(time: int = TIME, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(ROWS, time, DIM)


@every_layer
def test_width_is_that_of_the_features(name: str) -> None:
    layer = LAYERS[name]()
    assert layer(words())[0].shape == (ROWS, TIME, layer.width)


@every_layer
@pytest.mark.parametrize("cuts", [[1] * TIME, [4, 5], [1, 6, 2]])
def test_reading_in_pieces_is_reading_at_once(name: str, cuts: list[int]) -> None:
    layer, x = LAYERS[name](), words(scale=10.0)
    expected, at_once = layer(x)
    cache, pieces = None, []
    for piece in x.split(cuts, dim=1):
        features, cache = layer(piece, cache)
        pieces.append(features)
    torch.testing.assert_close(torch.cat(pieces, 1), expected, atol=1e-5, rtol=1e-5)
    for mine, whole in zip(cache, at_once, strict=True):
        torch.testing.assert_close(mine, whole, atol=1e-4, rtol=1e-5)


@every_layer
def test_a_future_word_changes_nothing_before_it(name: str) -> None:
    layer, x = LAYERS[name](), words()
    other = x.clone()
    other[:, 5] += 3.0
    before, after = layer(x)[0], layer(other)[0]
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5], after[:, 5])


@every_layer
def test_a_cache_belongs_to_its_rows(name: str) -> None:
    layer, x, more = LAYERS[name](), words(), words(2)
    _, cache = layer(x)
    rows = torch.tensor([2, 0, 0, 1])
    expected = layer(torch.cat((x, more), 1)[rows])[0][:, TIME:]
    torch.testing.assert_close(layer(more[rows], cache.select(rows))[0], expected, atol=1e-5, rtol=1e-5)


@every_layer
def test_gradients_pass_through_a_cache_unless_detached(name: str) -> None:
    layer, x, more = LAYERS[name](), words().requires_grad_(), words(2)
    expected = torch.autograd.grad(layer(torch.cat((x, more), 1))[0][:, TIME:].square().sum(), x)[0]
    cache = layer(x)[1]
    if name != "bigram":  # which remembers no word but the last read
        found = torch.autograd.grad(layer(more, cache)[0].square().sum(), x)[0]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert all(not tensor.requires_grad for tensor in cache.detach())


# ---------------------------------------------------------------- averages


def test_uniform_average_is_the_cumulative_mean() -> None:
    x = words()
    expected = torch.stack([x[:, : t + 1].mean(1) for t in range(TIME)], 1)
    torch.testing.assert_close(PrefixAverage(DIM)(x)[0], expected)


def test_attention_is_a_softmax_over_every_prefix() -> None:
    layer, x = PrefixAverage(DIM, weighting="attention", hidden=4), words()
    first, last = layer.score[0], layer.score[2]
    for t in range(TIME):
        prefix = x[:, : t + 1]
        score = torch.einsum("rth,h->rt", torch.tanh(prefix @ first.weight.T + first.bias), last.weight[0])
        expected = torch.einsum("rt,rtd->rd", score.softmax(1), prefix)
        torch.testing.assert_close(layer(x)[0][:, t], expected)


def test_attention_learns_from_its_weights() -> None:
    """Gradients of the scores, too, are those of the explicit softmax."""
    layer, x = PrefixAverage(DIM, weighting="attention", hidden=4).double(), words().double()
    mine = torch.autograd.grad(layer.float()(x.float())[0].square().sum(), list(layer.parameters()))
    score = layer.score(x.float()).squeeze(-1)
    explicit = torch.stack(
        [(score[:, : t + 1].softmax(1).unsqueeze(2) * x[:, : t + 1].float()).sum(1) for t in range(TIME)]
    )
    expected = torch.autograd.grad(explicit.square().sum(), list(layer.parameters()))
    torch.testing.assert_close(mine, expected)


def test_large_scores_neither_overflow_nor_vanish() -> None:
    layer, x = PrefixAverage(DIM, weighting="attention", hidden=4), words()
    layer.score = Score(torch.tensor([0.0, 500.0, -500.0, 499.0, 1000.0, -1000.0, 0.0, 1000.0, 3.0]))
    expected = torch.stack(
        [(layer.score.values[: t + 1].softmax(0)[:, None] * x[:, : t + 1]).sum(1) for t in range(TIME)], 1
    )
    torch.testing.assert_close(layer(x)[0], expected)
    layer.score.step_by_step = True
    cache, pieces = None, []
    for t in range(TIME):
        features, cache = layer(x[:, t : t + 1], cache)
        pieces.append(features)
    torch.testing.assert_close(torch.cat(pieces, 1), expected)


class Score(nn.Module):
    """Given scores, whatever the words are."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values, self.step_by_step, self.seen = values, False, 0

    def forward(self, x: Tensor) -> Tensor:
        values = self.values[self.seen : self.seen + x.shape[1]]
        self.seen += x.shape[1] if self.step_by_step else 0
        return values.expand(len(x), -1).unsqueeze(2)


# ---------------------------------------------------------------- perceptron


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("order", [2, 3, 6])
def test_feed_forward_is_the_perceptron_of_the_paper(order: int, skip: bool) -> None:
    """y = b + W x + U tanh(d + H x), word by word."""
    layer, x = FeedForwardFeatures(DIM, order=order, hidden=6, skip=skip), words()
    output = nn.Linear(layer.width, 11)
    u, w = output.weight[:, :6], output.weight[:, 6:]
    h = layer.perceptron[0]
    logits = output(layer(x)[0])
    for t in range(TIME):
        past = [x[:, k] if k >= 0 else torch.zeros(ROWS, DIM) for k in range(t - order + 2, t + 1)]
        context = torch.cat(past, 1)
        expected = output.bias + torch.tanh(context @ h.weight.T + h.bias) @ u.T
        if skip:
            expected = expected + context @ w.T
        torch.testing.assert_close(logits[:, t], expected, atol=1e-5, rtol=1e-5)


def test_feed_forward_forgets_what_is_too_long_ago() -> None:
    layer, x = LAYERS["skip"](), words()
    other = x.clone()
    other[:, 2] += 1.0
    assert torch.equal(layer(x)[0][:, 5:], layer(other)[0][:, 5:])
    assert not torch.allclose(layer(x)[0][:, 4], layer(other)[0][:, 4])


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: PrefixAverage(DIM, weighting="best"), "weighting = best"),
        (lambda: PrefixAverage(DIM, hidden=0), "hidden = 0"),
        (lambda: FeedForwardFeatures(DIM, order=1), "order = 1"),
        (lambda: FeedForwardFeatures(DIM, hidden=0), "hidden = 0"),
        (lambda: FeedForwardFeatures(DIM, layers=0), "layers = 0"),
        (lambda: FeedForwardFeatures(DIM, dropout=1.0), "dropout = 1.0"),
    ],
)
def test_mistakes_are_named(make, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        make()
