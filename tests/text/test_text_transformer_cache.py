"""Reading on with a cache of keys and values against reading everything at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lit_gen.text.kv_cache import KVCache
from lit_gen.text.transformer import CausalTransformer, TransformerDecoder, TransformerEncoder

D, B, S, T = 16, 3, 6, 9
SMALL = {"layers": 2, "heads": 4, "feed_forward": 24, "initialisation": "xavier"}
POSITIONS = ("sinusoidal", "learned", "rotary")
PIECES = ((0, 2), (2, 3), (3, 6), (6, 7), (7, 9))
Network = Callable[[Tensor, KVCache | None], tuple[Tensor, KVCache]]


def networks(positions: str) -> list[Network]:
    causal = CausalTransformer(D, positions=positions, **SMALL).eval()
    decoder = TransformerDecoder(D, D, positions=positions, **SMALL).eval()
    mask = torch.arange(S) < torch.tensor([S, 4, 2]).unsqueeze(1)
    memory = decoder.memory(TransformerEncoder(D, **SMALL).eval()(torch.randn(B, S, D), mask))
    return [causal, lambda x, cache=None: decoder(x, memory, cache)]


def in_pieces(network: Network, x: Tensor, pieces: tuple[tuple[int, int], ...] = PIECES) -> Tensor:
    cache, features = None, []
    for start, end in pieces:
        y, cache = network(x[:, start:end], cache)
        features.append(y)
    return torch.cat(features, 1)


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("hypotheses", [1, 4])
@pytest.mark.parametrize("positions", POSITIONS)
def test_cached_is_uncached(positions: str, hypotheses: int, gradients: bool) -> None:
    with torch.set_grad_enabled(gradients):
        for network in networks(positions):
            x = torch.randn(B * hypotheses, T, D)
            whole, _ = network(x, None)
            torch.testing.assert_close(in_pieces(network, x), whole, atol=1e-5, rtol=0)
            single = tuple((t, t + 1) for t in range(T))
            torch.testing.assert_close(in_pieces(network, x, single), whole, atol=1e-5, rtol=0)


def test_gradients_flow_through_a_cache_and_end_where_it_is_detached() -> None:
    for network in networks("rotary"):
        x = torch.randn(B, T, D, requires_grad=True)
        weight = torch.randn(B, T, D)
        (whole,) = torch.autograd.grad((network(x, None)[0] * weight).sum(), x)
        (pieces,) = torch.autograd.grad((in_pieces(network, x) * weight).sum(), x)
        torch.testing.assert_close(pieces, whole, atol=1e-4, rtol=1e-4)
        _, cache = network(x[:, :4], None)
        y, _ = network(x[:, 4:], cache.detach())
        (truncated,) = torch.autograd.grad(y.sum(), x)
        assert (truncated[:, :4] == 0).all()
        assert (truncated[:, 4:] != 0).any()


@torch.no_grad()
def test_memory_grows() -> None:
    network, length = networks("sinusoidal")[1], 70
    x = torch.randn(B * 2, length, D)
    whole, _ = network(x, None)
    single = tuple((t, t + 1) for t in range(length))
    torch.testing.assert_close(in_pieces(network, x, single), whole, atol=1e-5, rtol=0)


def choices(hypotheses: int) -> list[Tensor]:
    """Rows as a beam search chooses them, and worse."""
    rows = torch.arange(B * hypotheses).view(B, hypotheses)
    exchanged = torch.stack([row[torch.randint(hypotheses, (hypotheses,))] for row in rows])
    return [
        exchanged.flatten(),  # each sentence's hypotheses exchanged for each other
        exchanged[[2, 0]].flatten(),  # a sentence dropped, two in another order
        exchanged[[1, 1, 0]].flatten(),
        torch.randint(B * hypotheses, (2 * hypotheses,)),  # across sentences
        torch.tensor([1]),
        rows[:, :1].flatten(),  # one hypothesis each
        rows.repeat_interleave(2, 1).flatten(),  # twice as many
    ]


@torch.no_grad()
@pytest.mark.parametrize("hypotheses", [1, 4])
@pytest.mark.parametrize("read", [1, 4])
def test_select_gives_the_cache_of_those_rows(hypotheses: int, read: int) -> None:
    causal = CausalTransformer(D, positions="rotary", **SMALL).eval()
    before = torch.randn(B * hypotheses, T, D)
    for rows in choices(hypotheses):
        for group in {1, hypotheses}:
            # grouped as a decoder groups the hypotheses of a sentence
            cache = read_in_groups(causal, before, read, group)
            chosen = cache.select(rows)
            after = torch.randn(len(rows), 2, D)
            expected, _ = causal(torch.cat((before[rows], after), 1))
            cache_after = chosen
            for t in range(2):
                y, cache_after = causal(after[:, t : t + 1], cache_after)
                torch.testing.assert_close(y[:, 0], expected[:, T + t], atol=1e-5, rtol=0)
            # what was selected from reads on as if nothing had happened, though both looked at the same memory
            more = torch.randn(B * hypotheses, 3, D)
            y, _ = causal(more, cache)
            torch.testing.assert_close(y, causal(torch.cat((before, more), 1))[0][:, T:], atol=1e-5, rtol=0)


def read_in_groups(causal: CausalTransformer, x: Tensor, read: int, group: int) -> KVCache:
    """The cache of x, read ``read`` tokens at a time into storage of groups."""
    cache = None
    for start in range(0, T, read):
        piece = x[:, start : start + read]
        after = KVCache.begin(cache, piece.shape[1], group)
        y, rotation = causal.embed(piece, start)
        for i, layer in enumerate(causal.layers):
            y = layer.feed_forward(layer.self_attention(y, cache=after, layer=i, rotation=rotation))
        cache = after
    return cache


@torch.no_grad()
@pytest.mark.parametrize("positions", POSITIONS)
def test_a_beam_search_reads_what_each_hypothesis_says(positions: str) -> None:
    """Hypotheses are exchanged at every step, sentences are dropped: as if each had been read anew."""
    encoder = TransformerEncoder(D, **SMALL).eval()
    decoder = TransformerDecoder(D, D, positions=positions, **SMALL).eval()
    mask = torch.arange(S) < torch.tensor([S, 4, 2]).unsqueeze(1)
    memory, hypotheses = decoder.memory(encoder(torch.randn(B, S, D), mask)), 4
    x, cache = torch.randn(B, 1, D), None
    for step in range(10):
        y, cache = decoder(x[:, -1:], memory, cache)
        sentences = memory.mask.shape[0]
        expected, _ = decoder(x, memory)
        torch.testing.assert_close(y, expected[:, -1:], atol=1e-5, rtol=0)
        width = x.shape[0] // sentences
        rows = torch.arange(sentences).unsqueeze(1) * width + torch.randint(width, (sentences, hypotheses))
        if step == 7:
            kept = torch.tensor([2, 0])
            rows, memory = rows[kept], memory.select(kept)
        x = torch.cat((x[rows.flatten()], torch.randn(rows.numel(), 1, D)), 1)
        cache = cache.select(rows.flatten())
        if step > 0 and step != 7:
            assert cache.storage is not None  # nothing was moved


@torch.no_grad()
def test_two_may_read_on_from_one_cache() -> None:
    causal = CausalTransformer(D, positions="rotary", **SMALL).eval()
    before, ways = torch.randn(B, T, D), torch.randn(2, B, 3, D)
    caches = [read_in_groups(causal, before, 4, 1)] * 2
    expected = [causal(torch.cat((before, way), 1))[0][:, T:] for way in ways]
    for t in range(3):
        for i in range(2):  # in turn, so that each would find what the other has written
            y, caches[i] = causal(ways[i, :, t : t + 1], caches[i])
            torch.testing.assert_close(y[:, 0], expected[i][:, t], atol=1e-5, rtol=0)


@torch.no_grad()
def test_hypotheses_share_a_memory() -> None:
    encoder, decoder = TransformerEncoder(D, **SMALL).eval(), TransformerDecoder(D, D, **SMALL).eval()
    memory, hypotheses = decoder.memory(encoder(torch.randn(B, S, D), torch.ones(B, S, dtype=torch.bool))), 3
    x = torch.randn(B * hypotheses, T, D)
    expanded = memory.select(torch.arange(B).repeat_interleave(hypotheses))
    torch.testing.assert_close(decoder(x, memory)[0], decoder(x, expanded)[0])
    weights = decoder.attention_weights(x, memory), decoder.attention_weights(x, expanded)
    torch.testing.assert_close(*weights)


@torch.no_grad()
def test_a_future_token_changes_no_cached_feature() -> None:
    for network in networks("learned"):
        x = torch.randn(B, T, D)
        changed = x.clone()
        changed[:, 5] = torch.randn(B, D)
        before, after = in_pieces(network, x), in_pieces(network, changed)
        torch.testing.assert_close(before[:, :5], after[:, :5], atol=1e-6, rtol=0)
        assert not torch.allclose(before[:, 5:], after[:, 5:])
