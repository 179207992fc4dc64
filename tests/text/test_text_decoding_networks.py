"""Decoding with the project's own networks: exhaustive search, single sentences, decoding without a cache."""

from __future__ import annotations

import functools
from functools import partial
from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_gen.core.text import BOS, EOS, PAD
from lit_gen.text.attention_map import attention_map, draw
from lit_gen.text.convolutional_encoder import ConvolutionalEncoder
from lit_gen.text.decoding import Decoding, Hypothesis, beam_search, decode_stream, generate
from lit_gen.text.decoding.decode import padded
from lit_gen.text.language_model import LanguageModel
from lit_gen.text.recurrent_decoder import RecurrentDecoder
from lit_gen.text.recurrent_encoder import RecurrentEncoder
from lit_gen.text.recurrent_features import RecurrentFeatures
from lit_gen.text.scores import AdditiveScore, DotScore
from lit_gen.text.seq2seq import Seq2Seq
from lit_gen.text.transformer import CausalTransformer, TransformerDecoder, TransformerEncoder
from tests.text.decoding_models import exhaustive, spec_of

SIZES = {"layers": 2, "heads": 2, "feed_forward": 24}
PAIRS: dict[str, tuple[Any, Any]] = {
    "transformer": (partial(TransformerEncoder, **SIZES), partial(TransformerDecoder, **SIZES)),
    "rotary": (partial(TransformerEncoder, **SIZES), partial(TransformerDecoder, positions="rotary", norm="pre", **SIZES)),
    "gru": (partial(RecurrentEncoder, hidden=16), partial(RecurrentDecoder, hidden=16)),
    "additive": (
        partial(RecurrentEncoder, hidden=16),
        partial(RecurrentDecoder, hidden=16, score=AdditiveScore, style="bahdanau"),
    ),
    "feeding": (
        partial(ConvolutionalEncoder, hidden=16, layers=2),
        partial(RecurrentDecoder, hidden=16, cell="lstm", layers=2, score=DotScore, input_feeding=True),
    ),
}  # fmt: skip
LINES = ["abc", "h", "abcabcabcdefg", "bad", "a", "gag a", "bbbbbbbbb", "fad", "cab", "deaf", "head", "e e"]


def confident(model: nn.Module) -> nn.Module:
    """A new network says the same of everything; with larger weights it looks at what it is told, and decides."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(1.5 if name.startswith("encoder") else 3.0)
        model.output.weight.normal_(generator=generator)
        model.output.bias[EOS] += 3.0
    return model.eval()


@functools.cache
def translator(name: str, letters: str = "abcdefgh ") -> Seq2Seq:
    encoder, decoder = PAIRS[name]
    return confident(Seq2Seq(encoder, decoder, embedding_dim=16).build(spec_of(letters)))


def tokens_of(model: Seq2Seq, line: str) -> Tensor:
    return torch.tensor([[*model.spec.source.encode(line), EOS]])


@pytest.mark.parametrize("penalty", ["gnmt", "power"])
@pytest.mark.parametrize("name", PAIRS)
def test_a_wide_beam_is_exhaustive(name: str, penalty: str) -> None:
    """Vocabulary of two letters: all sequences of up to four tokens, scored one by one by teacher forcing."""
    model = translator(name, "ab")
    decoding = Decoding(beam=90, n_best=8, penalty=penalty, alpha=0.8, min_length=2, max_length=4)
    lines = ["ab", "a", "bbab"]
    found = list(decode_stream(model, lines, decoding))
    for line, hypotheses in zip(lines, found):
        source = tokens_of(model, line)

        @functools.cache
        def log_probabilities(prefix: tuple[int, ...], source: Tensor = source) -> Tensor:
            with torch.no_grad():
                return model.advance(torch.tensor([[BOS, *prefix]]), model.read(source), None)[0][0, -1].log_softmax(-1)

        everything = exhaustive(log_probabilities, 6, 2, 4)
        ranked = sorted(
            ((total / decoding.length_penalty(len(said) + ended), said) for said, total, ended in everything),
            reverse=True,
        )[:8]
        assert [each.tokens for each in hypotheses] == [said for _, said in ranked]
        assert [each.score for each in hypotheses] == pytest.approx([score for score, _ in ranked], abs=1e-4)


@pytest.mark.parametrize(
    "decoding", [Decoding(max_length=20), Decoding(beam=4, n_best=4, max_length=20)], ids=["greedy", "beam"]
)
@pytest.mark.parametrize("name", PAIRS)
def test_batches_with_padding_are_as_single_sentences(name: str, decoding: Decoding) -> None:
    model = translator(name)
    alone = [next(decode_stream(model, [line], decoding)) for line in LINES]
    assert len({each[0].tokens for each in alone}) > 3
    for batch, window in ((12, 1), (5, 1), (3, 4)):
        same(list(decode_stream(model, LINES, decoding, batch, window)), alone)


def same(a: list[list[Hypothesis]], b: list[list[Hypothesis]]) -> None:
    """Token for token; log-probabilities up to rounding."""
    assert [[each.tokens for each in found] for found in a] == [[each.tokens for each in found] for found in b]
    for one, other in zip(chain(*a), chain(*b)):
        assert one.log_probability == pytest.approx(other.log_probability, abs=1e-3)


@pytest.mark.parametrize("name", PAIRS)
def test_without_a_cache_the_same_is_found(name: str) -> None:
    """Every prefix read anew from its beginning, by one row for each hypothesis and with its own copy of the source."""
    model = translator(name)
    source = padded([[*model.spec.source.encode(line), EOS] for line in LINES])

    class Prefixes:
        def __init__(self, tokens: Tensor) -> None:
            self.tokens = tokens

        def select(self, rows: Tensor) -> "Prefixes":
            return Prefixes(self.tokens[rows])

    def advance(tokens: Tensor, sources: Prefixes, cache: Prefixes | None) -> tuple[Tensor, Prefixes]:
        tokens = tokens if cache is None else torch.cat([cache.tokens, tokens], 1)
        copies = sources.tokens.repeat_interleave(len(tokens) // len(sources.tokens), 0)
        return model.advance(tokens, model.read(copies), None)[0], Prefixes(tokens)

    options = {"beam": 3, "n_best": 3, "max_length": 14}
    with torch.no_grad():
        cached = beam_search(model.advance, model.read(source), len(source), **options)
    same(beam_search(advance, Prefixes(source), len(source), **options), cached)


@pytest.mark.parametrize("name", PAIRS)
def test_log_probabilities_are_those_of_teacher_forcing(name: str) -> None:
    model = translator(name)
    for decoding in (
        Decoding(max_length=15),
        Decoding(beam=3, n_best=2, max_length=15),
        Decoding(temperature=1.0, max_length=15),
    ):
        for line, hypotheses in zip(LINES, decode_stream(model, LINES, decoding)):
            for each in hypotheses:
                target = torch.tensor([[BOS, *each.tokens, *([EOS] if each.finished else [])]])
                expected = model.log_prob(tokens_of(model, line), target).item()
                assert each.log_probability == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("name", PAIRS)
def test_wider_beams_find_better_sentences_on_the_whole(name: str) -> None:
    """Without a penalty; a beam may lose one sentence, never the sum here, and with all hypotheses kept none at all."""
    model = translator(name)
    totals = [
        sum(
            found[0].log_probability
            for found in decode_stream(model, LINES, Decoding(beam=k, alpha=0.0, max_length=12))
        )
        for k in (1, 4, 16)
    ]
    assert totals[0] < totals[1] <= totals[2] + 1e-3


def language_model(features: Any) -> LanguageModel:
    return confident(LanguageModel(features, embedding_dim=16).build(spec_of("abcdefgh ", None)))


@pytest.mark.parametrize(
    "features",
    [
        partial(RecurrentFeatures, hidden=16),
        partial(CausalTransformer, layers=2, heads=2, feed_forward=24, max_length=16),
    ],
    ids=["lstm", "gpt"],
)
def test_generation(features: Any) -> None:
    """Beyond the context, in any batch, with the log-probabilities of the whole text where it fits the context."""
    model = language_model(features)
    prompt = model.spec.target.encode("abcab")
    texts = list(generate(model, prompt, 5, length=40, seed=1))
    again = list(generate(model, prompt, 5, length=40, seed=1, batch=2))
    assert [each.tokens for each in texts] == [each.tokens for each in again]
    assert all(len(each.tokens) == 40 and PAD not in each.tokens and BOS not in each.tokens for each in texts)
    for each in generate(model, prompt, 3, length=11, temperature=0.7, top_k=4):
        expected = model.log_prob(torch.tensor([[*prompt, *each.tokens]])) - model.log_prob(torch.tensor([prompt]))
        assert each.log_probability == pytest.approx(expected.item(), abs=1e-3)


@pytest.mark.parametrize("name", PAIRS)
def test_attention_map(name: str, tmp_path) -> None:
    model = translator(name)
    (best,) = next(decode_stream(model, ["bad head"], Decoding(max_length=9)))
    source, target = tokens_of(model, "bad head")[0].tolist(), [*best.tokens, EOS]
    if name == "gru":
        with pytest.raises(Exception, match="has no attention"):
            attention_map(model, source, target)
        return
    found = attention_map(model, source, target)
    assert found.source == [*"bad head", "<eos>"]
    assert found.target[-1] == "<eos>"
    assert found.weights.shape == (len(target), 9) == (len(found.target), len(found.source))
    torch.testing.assert_close(found.weights.sum(1), torch.ones(len(target)))
    draw(found, tmp_path / "new" / "map.png")
    assert (tmp_path / "new" / "map.png").read_bytes()[:4] == b"\x89PNG"
