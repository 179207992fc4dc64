"""Decoding one sequence for each row: what greedy search and sampling share."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from lit_gen.core.text import BOS, EOS, PAD, UNK
from lit_gen.text.decoding.beam import length_limits, longest
from lit_gen.text.decoding.hypothesis import Hypothesis
from lit_gen.text.decoding.interface import Advance, Selectable


class Choice(Protocol):
    """How the next token is chosen: ``choose(logits [R, V], first, rows [R], step) -> int64 [R]``.

    Only tokens from number ``first`` on are allowed; ``rows`` are the numbers of the sequences, ``step`` counts from 0.
    """

    def __call__(self, logits: Tensor, first: int, rows: Tensor, step: int) -> Tensor: ...


def most_probable(logits: Tensor, first: int, rows: Tensor, step: int) -> Tensor:
    """The choice of greedy search."""
    return logits[:, first:].argmax(-1) + first


@torch.no_grad()
def one_path(
    advance: Advance,
    memory: Selectable | None,
    rows: int,
    choose: Choice,
    *,
    max_length: int | Tensor,
    min_length: int = 1,
    prompt: Tensor | None = None,
    stop_at_eos: bool = True,
    device: torch.device | str = "cpu",
) -> list[Hypothesis]:
    """One sequence for each row, token by token, until eos or the maximum length.

    Rows that have ended are taken out as soon as they are a quarter of all.

    Args:
        advance: the model, see :class:`Advance`.
        memory: what the source sentences were read into, one for each row; None for a language model.
        rows: number of sequences.
        choose: how the next token is chosen.
        max_length: most new tokens, eos counted, of all rows or of each (int64 ``[rows]``).
        min_length: fewest new tokens, eos counted.
        prompt: int64 ``[P]``, read by all rows at the beginning (in one call, and once for all of them); bos where
            None.
        stop_at_eos: a sequence ends with its first eos; otherwise eos is a token like the others, and belongs to what
            was said.
        device: of the model.

    Returns:
        A hypothesis for each row, without the prompt; its score is its log-probability.

    Raises:
        UsageError: lengths out of range.
    """
    limit = length_limits(max_length, min_length, rows, device)
    number = torch.arange(rows, device=device)
    log_probability, done = torch.zeros(rows, device=device), torch.zeros(rows, dtype=torch.bool, device=device)
    total = torch.zeros(rows, device=device)  # the log-probabilities of all rows, also of those taken out
    said: list[tuple[Tensor, Tensor]] = []  # for each step: numbers of the rows, their tokens
    cache, token, shared = None, torch.full((rows, 1), BOS, device=device), False
    if prompt is not None and rows:
        token, shared = prompt.to(device).unsqueeze(0), True
    for step in range(longest(limit)):
        logits, cache = advance(token, memory, cache)
        logits = logits[:, -1]
        if shared:  # from one row to all
            logits, cache, shared = logits.expand(rows, -1), cache.select(torch.zeros_like(number)), False
        first = EOS if step + 1 >= min_length else UNK  # neither pad nor bos nor an early eos is ever said
        chosen = choose(logits, first, number, step)
        gained = logits.gather(1, chosen.unsqueeze(1)).squeeze(1) - logits.logsumexp(-1)
        log_probability = log_probability + gained.masked_fill(done, 0.0)
        chosen = chosen.masked_fill(done, PAD)
        said.append((number, chosen))
        done = done | (limit == step + 1)
        if stop_at_eos:
            done = done | (chosen == EOS)
        number_done = int(done.sum())
        if number_done == len(done):
            break
        if 4 * number_done >= len(done):
            total[number] = log_probability
            kept = (~done).nonzero().squeeze(1)
            number, chosen, limit, log_probability, done = (
                each.index_select(0, kept) for each in (number, chosen, limit, log_probability, done)
            )
            cache, memory = cache.select(kept), None if memory is None else memory.select(kept)
        token = chosen.unsqueeze(1)
    total[number] = log_probability
    return _hypotheses(said, total, stop_at_eos)


def _hypotheses(said: list[tuple[Tensor, Tensor]], total: Tensor, stop_at_eos: bool) -> list[Hypothesis]:
    written = torch.full((len(total), len(said)), PAD, device=total.device)
    for step, (number, token) in enumerate(said):
        written[number, step] = token
    lengths = (written != PAD).sum(1).tolist()
    found = []
    for tokens, length, log_probability in zip(written.tolist(), lengths, total.tolist()):
        finished = stop_at_eos and length > 0 and tokens[length - 1] == EOS
        found.append(Hypothesis(tuple(tokens[: length - finished]), log_probability, log_probability, finished))
    return found
