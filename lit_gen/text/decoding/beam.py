r"""Beam search.

Of all sequences that end in eos within the maximum length, and all of exactly the maximum length without eos, find
those of the largest score :math:`\log p(y \mid x) / lp(|y|)`. At every step each of a sentence's K live hypotheses is
continued by every token, and

- the 2 K best continuations are looked at: at most K of them end in eos (one for each parent), so that K live ones are
  left;
- those among the first K that end in eos are finished: they are weighed against the sentence's n best finished ones;
- the first K of the others live on.

**When a sentence is done.** A live hypothesis h of log-probability s, in a sentence of maximum length M, can only
become some y with :math:`\log p(y) \le s \le 0` (further tokens add log-probabilities) and :math:`|y| \le M`. The
penalty is positive and does not fall with the length, so

.. math:: \frac{\log p(y)}{lp(|y|)} \le \frac{s}{lp(|y|)} \le \frac{s}{lp(M)},

the second step since s is not positive. Once the largest of these bounds over the live hypotheses is not above the
worst of n kept scores, nothing that could still be found would enter the list, and the sentence is done: what is
returned is what would be returned at the maximum length. The proof uses no more than that lp is positive and does not
fall, which holds of both penalties for every alpha of 0 or more. (Comparing with the CURRENT length, as is often done,
stops too early for alpha > 0.)

References:
    Wu et al., Google's neural machine translation system, 2016, https://arxiv.org/abs/1609.08144, section 7. Huang et
    al., When to finish? Optimal beam search for neural text generation, EMNLP 2017, https://aclanthology.org/D17-1227.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_gen.core.errors import require
from lit_gen.core.text import BOS, EOS, UNK
from lit_gen.text.decoding.candidates import best_candidates
from lit_gen.text.decoding.hypothesis import Hypothesis
from lit_gen.text.decoding.interface import Advance, Selectable
from lit_gen.text.decoding.penalties import LengthPenalty, PowerPenalty
from lit_gen.text.decoding.trace import Trace


@torch.no_grad()
def beam_search(
    advance: Advance,
    memory: Selectable | None,
    sentences: int,
    *,
    beam: int,
    max_length: int | Tensor,
    min_length: int = 1,
    n_best: int = 1,
    penalty: LengthPenalty | None = None,
    device: torch.device | str = "cpu",
) -> list[list[Hypothesis]]:
    """The best sequences that a beam of this width finds for each sentence; see the module's docstring.

    Args:
        advance: the model, see :class:`Advance`.
        memory: what the source sentences were read into; None for a language model.
        sentences: number of sentences.
        beam: live hypotheses of a sentence.
        max_length: most tokens, eos counted, of all sentences or of each (int64 ``[sentences]``).
        min_length: fewest tokens, eos counted.
        n_best: hypotheses to return for each sentence, at most ``beam``.
        penalty: divides log-probabilities; none where None.
        device: of the model.

    Returns:
        For each sentence up to ``n_best`` hypotheses, best first (fewer where fewer exist).

    Raises:
        UsageError: an option out of range.
    """
    require(beam >= 1, "beam", beam, "1 or more")
    require(1 <= n_best <= beam, "n_best", n_best, f"1 to the beam ({beam})")
    limit = length_limits(max_length, min_length, sentences, device)
    return _BeamSearch(advance, memory, limit, beam, min_length, n_best, penalty or PowerPenalty(0.0)).run()


def length_limits(max_length: int | Tensor, min_length: int, sentences: int, device: torch.device | str) -> Tensor:
    """The maximum length of each sentence, int64 ``[sentences]``.

    Raises:
        UsageError: a minimum below 1 or above a maximum.
    """
    limit = torch.as_tensor(max_length, device=device).expand(sentences)
    shortest = int(limit.min()) if sentences else min_length
    require(min_length >= 1, "min_length", min_length, "1 or more (eos is counted)")
    require(shortest >= min_length, "max_length", shortest, f"at least min_length ({min_length})")
    return limit


class _BeamSearch:
    """The state of the search over those sentences that are not done; ``number`` says which they are."""

    def __init__(
        self,
        advance: Advance,
        memory: Any,
        limit: Tensor,
        beam: int,
        min_length: int,
        n_best: int,
        penalty: LengthPenalty,
    ) -> None:
        self.advance, self.memory, self.limit = advance, memory, limit
        self.beam, self.min_length, self.n_best, self.penalty = beam, min_length, n_best, penalty
        sentences, device = len(limit), limit.device
        self.results: list[list[Hypothesis]] = [[] for _ in range(sentences)]
        self.number = torch.arange(sentences, device=device)
        self.live = torch.zeros(sentences, 1, device=device)  # log-probabilities [B, K]
        self.final_penalty = penalty(limit.float())
        self.trace = Trace()
        # The finished hypotheses, best first: score and log-probability; length without eos, place in the trace,
        # whether with eos.
        self.kept = torch.full((sentences, n_best, 2), -torch.inf, device=device)
        self.kept_place = torch.zeros(sentences, n_best, 3, dtype=torch.int64, device=device)

    def run(self) -> list[list[Hypothesis]]:
        cache, token = None, torch.full((len(self.number), 1), BOS, device=self.limit.device)
        for step in range(1, longest(self.limit) + 1):
            logits, cache = self.advance(token, self.memory, cache)
            width = self.live.shape[1]
            parent, token = self.step(logits[:, -1], step)
            rows = torch.arange(0, len(parent) * width, width, device=parent.device).unsqueeze(1) + parent
            done = self.kept[:, -1, 0] >= self.live.amax(1) / self.final_penalty
            number_done = int(done.sum())
            if number_done == len(done):
                break
            if 4 * number_done >= len(done):
                going_on = (~done).nonzero().squeeze(1)
                self.read_out(done.nonzero().squeeze(1))
                self.keep_sentences(going_on)
                rows, token = rows[going_on], token[going_on]
            elif number_done:  # they wait, since choosing sentences of the memory has its price, and find nothing more
                self.live.masked_fill_(done.unsqueeze(1), -torch.inf)
            cache, token = cache.select(rows.flatten()), token.reshape(-1, 1)
        self.read_out(torch.arange(len(self.number), device=self.limit.device))
        return self.results

    def step(self, logits: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Continues the live hypotheses and keeps those that are finished; returns parents and tokens ``[B, K]``."""
        first = EOS if step >= self.min_length else UNK  # neither pad nor bos nor an early eos is ever said
        found = best_candidates(logits, self.live, 2 * self.beam, first)
        ends = found.token == EOS
        self.live, order = found.log_probability.masked_fill(ends, -torch.inf).topk(self.beam)
        parent, token = found.parent.gather(1, order), found.token.gather(1, order)
        self.trace.add(parent, token)
        among_first = ends[:, : self.beam]
        if first == EOS and bool(among_first.any()):
            ended = found.log_probability[:, : self.beam].masked_fill(~among_first, -torch.inf)
            self.keep(ended, step, step - 1, found.parent[:, : self.beam], True)
        cut_off = self.limit == step
        if bool(cut_off.any()):
            cut = self.live.masked_fill(~cut_off.unsqueeze(1), -torch.inf)
            self.keep(cut, step, step, torch.arange(self.beam, device=cut.device).expand_as(cut), False)
            self.live.masked_fill_(cut_off.unsqueeze(1), -torch.inf)
        return parent, token

    def keep(self, log_probability: Tensor, length: int, said: int, slot: Tensor, finished: bool) -> None:
        """Weighs hypotheses ``[B, K]`` of one length against those that are kept; -inf marks what is not there.

        Args:
            log_probability: of the hypotheses.
            length: with eos.
            said: without.
            slot: their places in the trace after ``said`` steps.
            finished: whether they end in eos.
        """
        both = torch.stack([log_probability / self.penalty(float(length)), log_probability], -1)
        end = torch.tensor([said, finished], device=slot.device).expand(*slot.shape, 2)
        kept = torch.cat([self.kept, both], 1)
        place = torch.cat([self.kept_place, torch.cat([end, slot.unsqueeze(-1)], -1)], 1)
        order = kept[..., 0].topk(self.n_best).indices.unsqueeze(-1)
        self.kept, self.kept_place = kept.take_along_dim(order, 1), place.take_along_dim(order, 1)

    def read_out(self, rows: Tensor) -> None:
        """Writes the hypotheses of the sentences in these rows to the results."""
        said, finished, slot = self.kept_place[rows].unbind(-1)
        tokens = self.trace.read(rows, said, slot).tolist()
        for number, *found in zip(
            self.number[rows].tolist(), tokens, said.tolist(), finished.tolist(), self.kept[rows].tolist()
        ):
            self.results[number] = [
                Hypothesis(tuple(words[:n]), log_probability, score, bool(with_eos))
                for words, n, with_eos, (score, log_probability) in zip(*found)
                if score > -torch.inf
            ]

    def keep_sentences(self, rows: Tensor) -> None:
        """Goes on with the sentences in these rows alone."""
        for name in ("live", "number", "limit", "final_penalty", "kept", "kept_place"):
            setattr(self, name, getattr(self, name).index_select(0, rows))
        self.trace.select(rows)
        if self.memory is not None:
            self.memory = self.memory.select(rows)


def longest(limit: Tensor) -> int:
    """The largest of the limits; 0 where there is no sentence."""
    return int(limit.max()) if limit.numel() else 0
