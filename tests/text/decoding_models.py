"""Models for tests of decoding: any function of source and prefix, the same in any batch; and searches written plainly."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from types import SimpleNamespace

import torch
from torch import Tensor

from lit_gen.core.text import BOS, EOS, PAD, SPECIAL_TOKENS, UNK, TextSpec, Vocabulary
from lit_gen.text.cache import TensorCache


class Sentences(SimpleNamespace):
    """A memory that is the number of each sentence, and counts how often it is selected from."""

    def select(self, rows: Tensor) -> "Sentences":
        return Sentences(number=self.number[rows])


class TableModel:
    """p(v | source, prefix) looked up in a random table at a hash of source and prefix.

    Args:
        vocabulary: V.
        scale: of the logits: large ones make confident models.
        end: added to the logit of eos.
    """

    PRIME = 1009
    device = torch.device("cpu")
    max_context: int | None = None

    def __init__(self, vocabulary: int, seed: int = 0, scale: float = 2.0, end: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.randn(self.PRIME, vocabulary, generator=generator) * scale
        self.table[:, EOS] += end
        self.calls: list[int] = []

    def read(self, source: Tensor) -> Sentences:
        weights = torch.arange(source.shape[1]) + 7
        return Sentences(number=(source * weights).sum(1))

    def evaluating(self) -> nullcontext:
        return nullcontext()

    def advance(
        self, tokens: Tensor, memory: Sentences | None, cache: TensorCache | None
    ) -> tuple[Tensor, TensorCache]:
        self.calls.append(len(tokens))
        if cache is not None:
            (code,) = cache
        elif memory is None:
            code = torch.zeros(len(tokens), dtype=torch.int64)
        else:
            code = memory.number.clone()
        if memory is not None:
            assert len(tokens) % len(memory.number) == 0
        logits = []
        for token in tokens.unbind(1):
            code = (code * 31 + token * 101 + 5) % self.PRIME
            logits.append(self.table[code])
        return torch.stack(logits, 1), TensorCache(code)

    def log_probabilities(self, number: int, prefix: Sequence[int]) -> Tensor:
        """log p of each token after a prefix (bos not written), for the sentence of this number."""
        memory = Sentences(number=torch.tensor([number]))
        return self.advance(torch.tensor([[BOS, *prefix]]), memory, None)[0][0, -1].log_softmax(-1)


class LanguageTable(TableModel):
    """The same without a source."""

    def read(self, source: None = None) -> None:
        return None


def exhaustive(
    log_probabilities: Callable[[Sequence[int]], Tensor], vocabulary: int, min_length: int, max_length: int
) -> list[tuple[tuple[int, ...], float, bool]]:
    """All sequences that decoding could return, with their log-probabilities and whether they end in eos."""
    found = []
    for length in range(max_length + 1):
        for said in itertools.product(range(UNK, vocabulary), repeat=length):
            total = sum(float(log_probabilities(said[:i])[word]) for i, word in enumerate(said))
            if min_length <= length + 1 <= max_length:
                found.append((said, total + float(log_probabilities(said)[EOS]), True))
            if length == max_length:
                found.append((said, total, False))
    return found


def plain_beam_search(
    log_probabilities: Callable[[Sequence[int]], Tensor],
    beam: int,
    n_best: int,
    min_length: int,
    max_length: int,
    penalty: Callable[[float], float],
) -> list[tuple[tuple[int, ...], float]]:
    """One sentence, one list, no early stop: the n best (tokens, score)."""
    live, finished = [((), 0.0)], []
    for step in range(1, max_length + 1):
        candidates = []
        for said, total in live:
            scores = log_probabilities(said)
            first = EOS if step >= min_length else UNK
            candidates += [((*said, v), total + float(scores[v])) for v in range(first, len(scores))]
        candidates.sort(key=lambda each: -each[1])
        candidates = candidates[: 2 * beam]
        finished += [(said[:-1], total / penalty(step)) for said, total in candidates[:beam] if said[-1] == EOS]
        live = [each for each in candidates if each[0][-1] != EOS][:beam]
    finished += [(said, total / penalty(max_length)) for said, total in live]
    return sorted(finished, key=lambda each: -each[1])[:n_best]


def letters_vocabulary(letters: str) -> Vocabulary:
    """A character vocabulary in the tokenizers' format."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    tokens = {token: i for i, token in enumerate([*SPECIAL_TOKENS, *letters])}
    tokenizer = Tokenizer(models.WordLevel(tokens, unk_token=SPECIAL_TOKENS[UNK]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    assert json.loads(tokenizer.to_str())["model"]["vocab"]["<pad>"] == PAD
    return Vocabulary(len(tokens), tokenizer.to_str(), "character")


def spec_of(target: str, source: str | None = "") -> TextSpec:
    """Text of the given letters; the source's are the target's unless they are given, and None is a language model's data."""
    vocabulary = letters_vocabulary(target)
    return TextSpec(vocabulary, None if source is None else letters_vocabulary(source) if source else vocabulary)
