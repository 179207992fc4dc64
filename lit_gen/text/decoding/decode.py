"""How sentences are translated: the options of decoding in one place, for training, evaluation and the command line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from lit_gen.core.errors import require
from lit_gen.core.text import EOS, PAD, UNK, Vocabulary
from lit_gen.text.decoding.beam import beam_search
from lit_gen.text.decoding.hypothesis import Hypothesis
from lit_gen.text.decoding.one_path import most_probable, one_path
from lit_gen.text.decoding.penalties import PENALTIES
from lit_gen.text.decoding.sampling import Sampler


@dataclass(frozen=True)
class Decoding:
    r"""Decodes source sentences: greedy search (a beam of 1), beam search, or sampling where a temperature is given.

    The maximum length of a sentence of S source tokens is :math:`\min(\text{max\_length}, \lfloor a S \rfloor + b)`.
    The defaults are those of
    Vaswani et al. but for the beam, which was 4. All lengths count eos.

    Args:
        beam: live hypotheses; 1 is greedy search, which stops at its first eos.
        n_best: hypotheses to return for each sentence: at most ``beam``, or any number of samples.
        penalty: length penalty of the scores: "gnmt" or "power".
        alpha: its strength.
        min_length: fewest tokens.
        max_length: most tokens, whatever the source; None for no such limit.
        max_factor: a.
        max_extra: b.
        temperature: samples are drawn at this temperature; None searches.
        top_k, top_p: head of the distribution that is sampled from; see :class:`Sampler`.
        seed: of the samples.

    Raises:
        UsageError: options out of range, or that do not fit each other.

    References:
        Vaswani et al., Attention is all you need, NeurIPS 2017, https://arxiv.org/abs/1706.03762, section 6.1.
    """

    beam: int = 1
    n_best: int = 1
    penalty: str = "gnmt"
    alpha: float = 0.6
    min_length: int = 1
    max_length: int | None = None
    max_factor: float = 1.0
    max_extra: int = 50
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.beam >= 1, "beam", self.beam, "1 or more")
        require(self.n_best >= 1, "n_best", self.n_best, "1 or more")
        require(self.penalty in PENALTIES, "penalty", self.penalty, ", ".join(PENALTIES))
        require(self.min_length >= 1, "min_length", self.min_length, "1 or more (eos is counted)")
        longest = self.max_length
        require(
            longest is None or longest >= self.min_length,
            "max_length",
            longest,
            f"{self.min_length} (min_length) or more",
        )
        require(self.max_factor >= 0, "max_factor", self.max_factor, "0 or more")
        require(
            self.max_extra >= (self.max_factor == 0), "max_extra", self.max_extra, "0 or more (1 where max_factor is 0)"
        )
        object.__setattr__(self, "length_penalty", PENALTIES[self.penalty](self.alpha))
        if self.temperature is None:
            require(self.n_best <= self.beam, "n_best", self.n_best, f"1 to the beam ({self.beam})")
            for name in ("top_k", "top_p"):
                value = getattr(self, name)
                require(value is None, name, value, "a number together with a temperature alone")
        else:
            require(self.beam == 1, "beam", self.beam, "1 with a temperature: samples are drawn, not searched for")
            Sampler(0, (), self.temperature, self.top_k, self.top_p)

    def limits(self, source: Tensor, max_context: int | None = None) -> Tensor:
        """The maximum length of each sentence of ``source [B, S]``, int64 ``[B]``; no less than the minimum length."""
        limit = (self.max_factor * (source != PAD).sum(1)).long() + self.max_extra
        limit = limit.clamp(min=self.min_length)
        for most in (self.max_length, max_context):
            limit = limit if most is None else limit.clamp(max=most)
        return limit

    def __call__(self, model: Any, source: Tensor, number: Sequence[int] | None = None) -> list[list[Hypothesis]]:
        """Decodes a batch of sentences.

        Args:
            model: with ``read`` and ``advance``; see :class:`~lit_gen.text.Seq2Seq`.
            source: int64 ``[B, S]``: tokens, eos, padding.
            number: by which numbers the sentences are known, for samples; 0 to B - 1 where None.

        Returns:
            For each sentence its hypotheses, best first.
        """
        limit = self.limits(source, getattr(model, "max_context", None))
        common = {"min_length": self.min_length, "device": source.device}
        with model.evaluating():
            memory = model.read(source)
            if self.temperature is None and self.beam > 1:
                return beam_search(
                    model.advance, memory, len(source), beam=self.beam, n_best=self.n_best, max_length=limit,
                    penalty=self.length_penalty, **common,
                )  # fmt: skip
            if self.temperature is None:
                found = one_path(model.advance, memory, len(source), most_probable, max_length=limit, **common)
            else:
                number = range(len(source)) if number is None else number
                rows = [one * self.n_best + copy for one in number for copy in range(self.n_best)]
                sampler = Sampler(self.seed, rows, self.temperature, self.top_k, self.top_p)
                of = torch.arange(len(source), device=source.device).repeat_interleave(self.n_best)
                memory = memory if self.n_best == 1 else memory.select(of)
                found = one_path(model.advance, memory, len(of), sampler, max_length=limit[of], **common)
        n = self.n_best
        scored = [self.scored(each) for each in found]
        return [sorted(scored[start : start + n], key=lambda each: -each.score) for start in range(0, len(scored), n)]

    def scored(self, hypothesis: Hypothesis) -> Hypothesis:
        """The same with its log-probability over the length penalty as score."""
        score = hypothesis.log_probability / self.length_penalty(hypothesis.length)
        return Hypothesis(hypothesis.tokens, hypothesis.log_probability, score, hypothesis.finished)


def padded(sentences: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Tensor:
    """Sentences of token numbers as int64 ``[B, S]``, padded."""
    rows = [torch.tensor(list(sentence), dtype=torch.int64) for sentence in sentences]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD).to(device)


def encoded(vocabulary: Vocabulary, texts: Sequence[str]) -> list[list[int]]:
    """Token numbers of each text, white space around it removed; a special token spelled out in a text is ``UNK``."""
    tokens = vocabulary.encode_all([text.strip() for text in texts])
    return [[UNK if token <= EOS else token for token in one] for one in tokens]


def decode_stream(
    model: Any, lines: Iterable[str], decoding: Decoding, batch: int = 50, window: int = 20
) -> Iterator[list[Hypothesis]]:
    """Decodes any number of lines in memory bounded by the batch; results come in the order of the lines, as they are made.

    A window of lines is read, sorted by length so that sentences of one batch are equally long, decoded and given out
    before the next one is read. An empty line gives an empty list without asking the model.

    Args:
        model: see :class:`Decoding`, with a spec whose source vocabulary makes tokens of text.
        lines: text, one sentence each.
        decoding: the options.
        batch: sentences decoded at once.
        window: lines read at once, in batches; with a batch of 1 each line is answered before the next is read.

    Raises:
        UsageError: a batch or window below 1.
    """
    require(batch >= 1, "batch", batch, "1 or more")
    require(window >= 1, "window", window, "1 or more")
    lines, first = iter(lines), 0
    window = 1 if batch == 1 else window  # nothing to be sorted
    while texts := list(islice(lines, batch * window)):
        sources = [[*tokens, EOS] if tokens else [] for tokens in encoded(model.spec.source, texts)]
        found: list[list[Hypothesis]] = [[] for _ in texts]
        by_length = sorted((i for i, tokens in enumerate(sources) if tokens), key=lambda i: len(sources[i]))
        for start in range(0, len(by_length), batch):
            chosen = by_length[start : start + batch]
            source = padded([sources[i] for i in chosen], model.device)
            for i, hypotheses in zip(chosen, decoding(model, source, [first + i for i in chosen])):
                found[i] = hypotheses
        yield from found
        first += len(texts)
