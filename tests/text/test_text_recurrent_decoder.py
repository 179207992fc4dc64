"""Recurrent decoders: stepwise against whole, causality, hypotheses on one memory, and each style's equations by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_gen.core.errors import UsageError
from lit_gen.text.encoded import Encoded
from lit_gen.text.recurrent import LayerMasks
from lit_gen.text.recurrent_decoder import RecurrentDecoder
from lit_gen.text.scores import AdditiveScore, BilinearScore, DotScore, ScaledDotScore

DIM, WIDTH, HIDDEN = 3, 4, 4
SENTENCES, SOURCE, TIME = 3, 5, 6
CLOSE = {"atol": 1e-5, "rtol": 0}
STYLES: dict[str, dict[str, Any]] = {
    "plain": {"layers": 2, "cell": "lstm"},
    "summary": {"layers": 2, "cell": "gru", "summary_input": True},
    "luong": {"layers": 2, "cell": "lstm", "score": DotScore},
    "luong-summary": {"cell": "gru", "score": ScaledDotScore, "summary_input": True},
    "feeding": {"layers": 2, "cell": "lstm", "score": BilinearScore, "input_feeding": True},
    "feeding-gru": {"cell": "gru", "score": AdditiveScore, "input_feeding": True, "summary_input": True},
    "bahdanau": {"cell": "gru", "score": AdditiveScore, "style": "bahdanau"},
    "bahdanau-peephole": {"layers": 2, "cell": "peephole_lstm", "score": AdditiveScore, "style": "bahdanau"},
    "bahdanau-relu": {"cell": "rnn_relu", "score": DotScore, "style": "bahdanau", "summary_input": True},
}


@pytest.fixture(params=STYLES)
def style(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def decoder(style: str) -> RecurrentDecoder:
    return RecurrentDecoder(DIM, WIDTH, HIDDEN, **STYLES[style])


@pytest.fixture
def encoded() -> Encoded:
    mask = torch.arange(SOURCE) < torch.tensor([5, 2, 3])[:, None]
    return Encoded(torch.randn(SENTENCES, SOURCE, WIDTH) * mask.unsqueeze(-1), mask, torch.randn(SENTENCES, WIDTH))


def test_cached_equals_uncached(decoder: RecurrentDecoder, encoded: Encoded) -> None:
    x, memory = torch.randn(SENTENCES, TIME, DIM), decoder.memory(encoded)
    whole, last = decoder(x, memory)
    assert whole.shape == (SENTENCES, TIME, decoder.width)
    for lengths in ([1] * TIME, [2, 1, 3]):
        cache, parts = None, []
        for part in x.split(lengths, 1):
            part, cache = decoder(part, memory, cache)
            parts.append(part)
        torch.testing.assert_close(torch.cat(parts, 1), whole, **CLOSE)
        for one, other in zip(cache, last, strict=True):
            torch.testing.assert_close(one, other, **CLOSE)


def test_future_changes_nothing_before_it(decoder: RecurrentDecoder, encoded: Encoded) -> None:
    x, memory = torch.randn(SENTENCES, TIME, DIM), decoder.memory(encoded)
    changed = x.clone()
    changed[:, 4] += 1
    before, after = decoder(x, memory)[0], decoder(changed, memory)[0]
    torch.testing.assert_close(before[:, :4], after[:, :4], atol=1e-6, rtol=0)
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_hypotheses_share_one_memory(decoder: RecurrentDecoder, encoded: Encoded) -> None:
    """K rows a sentence on one memory equal as many rows on a memory expanded to them, caches reordered in between."""
    hypotheses = 3
    x, memory = torch.randn(SENTENCES * hypotheses, TIME, DIM), decoder.memory(encoded)
    expanded = decoder.memory(encoded.select(torch.arange(SENTENCES).repeat_interleave(hypotheses)))
    rows = torch.tensor([2, 0, 0, 3, 5, 4, 8, 8, 8])  # within each sentence
    first, cache = decoder(x[:, :3], memory)
    expected, expected_cache = decoder(x[:, :3], expanded)
    torch.testing.assert_close(first, expected, **CLOSE)
    second, _ = decoder(x[:, 3:], memory, cache.select(rows))
    expected, _ = decoder(x[:, 3:], expanded, expected_cache.select(rows))
    torch.testing.assert_close(second, expected, **CLOSE)
    weights = decoder.attention_weights(x, memory)
    if weights is not None:
        torch.testing.assert_close(weights, decoder.attention_weights(x, expanded), **CLOSE)


def test_memory_selects_sentences(decoder: RecurrentDecoder, encoded: Encoded) -> None:
    x, rows = torch.randn(SENTENCES, TIME, DIM), torch.tensor([2, 0])
    whole, _ = decoder(x, decoder.memory(encoded))
    some, _ = decoder(x[rows], decoder.memory(encoded).select(rows))
    torch.testing.assert_close(some, whole[rows], **CLOSE)


def test_independent_of_source_padding(decoder: RecurrentDecoder, encoded: Encoded) -> None:
    x = torch.randn(SENTENCES, TIME, DIM)
    junk = torch.where(encoded.mask.unsqueeze(-1), encoded.states, 50.0)
    more = Encoded(
        torch.cat([junk, torch.full((SENTENCES, 2, WIDTH), -70.0)], 1),
        torch.cat([encoded.mask, torch.zeros(SENTENCES, 2, dtype=torch.bool)], 1),
        encoded.summary,
    )
    torch.testing.assert_close(decoder(x, decoder.memory(more))[0], decoder(x, decoder.memory(encoded))[0], **CLOSE)


def test_attention_weights(decoder: RecurrentDecoder, encoded: Encoded) -> None:
    weights = decoder.attention_weights(torch.randn(SENTENCES, TIME, DIM), decoder.memory(encoded))
    if decoder.score is None:
        assert weights is None
        return
    assert weights.shape == (SENTENCES, TIME, SOURCE)
    torch.testing.assert_close(weights.sum(-1), torch.ones(SENTENCES, TIME))
    real = encoded.mask.unsqueeze(1).expand_as(weights)
    assert not weights[~real].any()
    assert (weights[real] > 0).all()


def test_gradients_reach_every_parameter(decoder: RecurrentDecoder, encoded: Encoded) -> None:
    encoded = Encoded(encoded.states.requires_grad_(), encoded.mask, encoded.summary.requires_grad_())
    decoder(torch.randn(SENTENCES, TIME, DIM), decoder.memory(encoded))[0].square().sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    assert (encoded.summary.grad != 0).any()
    assert decoder.score is None or (encoded.states.grad[encoded.mask] != 0).any()


# ---------------------------------------------------------------- the equations


def context_of(decoder: RecurrentDecoder, query: Tensor, states: Tensor) -> Tensor:
    """The context of one sentence without padding."""
    scores = decoder.score(query[None, None], decoder.score.prepare(states[None]))[0, 0]
    return scores.softmax(0) @ states


def torch_cell(decoder: RecurrentDecoder, kind: type[nn.RNNCellBase]) -> nn.RNNCellBase:
    plain = decoder.recurrent.cells[0].rnn
    cell = kind(plain.input_size, plain.hidden_size)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in plain.state_dict().items()})
    return cell


def test_bahdanau_by_hand(encoded: Encoded) -> None:
    decoder = RecurrentDecoder(DIM, WIDTH, 6, 1, "gru", AdditiveScore, "bahdanau")
    cell, x = torch_cell(decoder, nn.GRUCell), torch.randn(SENTENCES, TIME, DIM)
    features, _ = decoder(x, decoder.memory(encoded))
    for row in range(SENTENCES):
        states = encoded.states[row][encoded.mask[row]]
        s = torch.tanh(decoder.initial(encoded.summary[row]))
        for t in range(TIME):
            context = context_of(decoder, s, states)
            s = cell(torch.cat([x[row, t], context])[None], s[None])[0]
            pairs = nn.functional.linear(
                torch.cat([s, x[row, t], context]), decoder.readout.weight, decoder.readout.bias
            )
            torch.testing.assert_close(features[row, t], torch.maximum(pairs[:6], pairs[6:]), **CLOSE)


@pytest.mark.parametrize("feeding", [False, True])
def test_luong_by_hand(encoded: Encoded, feeding: bool) -> None:
    decoder = RecurrentDecoder(DIM, WIDTH, 6, 1, "lstm", BilinearScore, input_feeding=feeding)
    cell, x = torch_cell(decoder, nn.LSTMCell), torch.randn(SENTENCES, TIME, DIM)
    features, _ = decoder(x, decoder.memory(encoded))
    for row in range(SENTENCES):
        states = encoded.states[row][encoded.mask[row]]
        start = decoder.initial(encoded.summary[row])
        h, c, attentional = torch.tanh(start[:6]), start[6:], torch.zeros(6)
        for t in range(TIME):
            read = torch.cat([x[row, t], attentional]) if feeding else x[row, t]
            h, c = (each[0] for each in cell(read[None], (h[None], c[None])))
            context = context_of(decoder, h, states)
            attentional = torch.tanh(decoder.attentional.weight @ torch.cat([context, h]))
            torch.testing.assert_close(features[row, t], attentional, **CLOSE)


def test_cho_by_hand(encoded: Encoded) -> None:
    decoder = RecurrentDecoder(DIM, WIDTH, 6, 1, "gru", summary_input=True)
    cell, x = torch_cell(decoder, nn.GRUCell), torch.randn(SENTENCES, TIME, DIM)
    features, _ = decoder(x, decoder.memory(encoded))
    h, summary = torch.tanh(decoder.initial(encoded.summary)), encoded.summary
    for t in range(TIME):
        h = cell(torch.cat([x[:, t], summary], -1), h)
        read = torch.cat([h, x[:, t], summary], -1)
        pairs = nn.functional.linear(read, decoder.readout.weight, decoder.readout.bias)
        torch.testing.assert_close(features[:, t], torch.maximum(pairs[:, :6], pairs[:, 6:]), **CLOSE)


@pytest.mark.parametrize("name", ["feeding", "bahdanau"])
def test_variational_masks_hold_for_what_is_fed_too(
    encoded: Encoded, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One mask of the input and one of the recurrent connection, at all times: as if columns of the weights were scaled."""
    options = STYLES[name] | {"layers": 1, "dropout": 0.5, "variational": True}
    decoder = RecurrentDecoder(DIM, WIDTH, HIDDEN, **options)
    x, memory = torch.randn(SENTENCES, TIME, DIM), decoder.memory(encoded)
    (drawn,) = decoder.recurrent.masks(x)
    columns, recurrent = drawn.input[:1], drawn.recurrent[0][:1]  # the first row's, for all rows
    with monkeypatch.context() as patch:
        patch.setattr(decoder.recurrent, "masks", lambda x: [LayerMasks(columns, (recurrent,))])
        patch.setattr(decoder.recurrent, "drop_output", lambda x: x)
        dropped, _ = decoder(x, memory)
    with torch.no_grad():
        decoder.recurrent.cells[0].input_weight.mul_(columns)
        decoder.recurrent.cells[0].recurrent_weight.mul_(recurrent)
    torch.testing.assert_close(dropped, decoder.eval()(x, memory)[0], **CLOSE)


def test_dropout_falls_on_the_features(encoded: Encoded) -> None:
    decoder = RecurrentDecoder(DIM, WIDTH, 40, 1, "gru", AdditiveScore, dropout=0.5)
    x, memory = torch.randn(SENTENCES, TIME, DIM), decoder.memory(encoded)
    dropped, kept = decoder(x, memory)[0], decoder.eval()(x, memory)[0]
    zero = dropped == 0
    assert 0.3 < zero.float().mean() < 0.7
    torch.testing.assert_close(dropped[~zero], 2 * kept[~zero])


@pytest.mark.parametrize("name", ["luong", "feeding", "bahdanau"])
def test_bfloat16_autocast(encoded: Encoded, name: str) -> None:
    decoder, x = RecurrentDecoder(DIM, WIDTH, HIDDEN, **STYLES[name]), torch.randn(SENTENCES, TIME, DIM)
    exact, _ = decoder(x, decoder.memory(encoded))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        memory = decoder.memory(encoded)
        features, cache = decoder(x, memory)
        features.float().sum().backward()
        decoder(x[:, :1], memory, cache)
    torch.testing.assert_close(features.float(), exact, atol=0.1, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style": "vaswani"}, "style = vaswani; accepted: luong, bahdanau"),
        ({"style": "bahdanau"}, "style = bahdanau; accepted: luong where score is null"),
        ({"input_feeding": True}, "input_feeding = True"),
        ({"style": "bahdanau", "score": DotScore, "input_feeding": True}, "input_feeding = True"),
        ({"hidden": 0}, "hidden = 0"),
    ],
)
def test_bad_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RecurrentDecoder(DIM, WIDTH, **options)
