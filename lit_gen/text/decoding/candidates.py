"""The best continuations of all hypotheses of a sentence, without sorting the vocabulary."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 64
"""Columns among which only the largest is looked at first."""


class Candidates(NamedTuple):
    """The k best continuations of each sentence, best first; what does not exist has the log-probability -inf.

    log_probability: ``[B, k]``, of the hypothesis with its new token.
    parent: ``[B, k]``, which of the sentence's hypotheses is continued.
    token: ``[B, k]``, by what.
    """

    log_probability: Tensor
    parent: Tensor
    token: Tensor


def best_candidates(logits: Tensor, log_probability: Tensor, k: int, first: int) -> Candidates:
    r"""The k largest of :math:`\log p(h) + \log p(v \mid h)` over the hypotheses h of a sentence and the tokens v.

    The largest k numbers lie in the k blocks with the largest maxima, so that sorting touches k blocks instead of K V
    numbers: a maximum over memory is ten times as fast as a selection. And the normaliser is one number a row, which
    need not be subtracted from V of them.

    Args:
        logits: ``[B * K, V]``.
        log_probability: ``[B, K]``, of the hypotheses so far.
        k: how many.
        first: the first token that is allowed (the special tokens are the first of a vocabulary).
    """
    sentences, width = log_probability.shape
    vocabulary = logits.shape[1]
    blocks = (vocabulary - first) // BLOCK
    split = first + blocks * BLOCK
    if width * blocks < 4 * k:  # too few numbers for blocks to pay
        offset = log_probability.unsqueeze(-1) - logits.logsumexp(-1).view(sentences, width, 1)
        scores = (logits[:, first:].unflatten(0, (sentences, width)) + offset).flatten(1)
        found, index = scores.topk(min(k, scores.shape[1]))
        missing = (0, k - found.shape[1])
        parent, token = index // (vocabulary - first), index % (vocabulary - first) + first
        return Candidates(F.pad(found, missing, value=-torch.inf), F.pad(parent, missing), F.pad(token, missing))

    body = logits[:, first:split].unflatten(1, (blocks, BLOCK))
    largest = body.amax(-1)
    # as logits.logsumexp(-1), in half of its time: the maxima are there already
    peak = torch.maximum(
        largest.amax(-1, keepdim=True), torch.cat([logits[:, :first], logits[:, split:]], 1).amax(-1, True)
    )
    log_z = torch.log((logits - peak).exp_().sum(-1, keepdim=True)).add_(peak)
    offset = log_probability.unsqueeze(-1) - log_z.view(sentences, width, 1)  # [B, K, 1]

    chosen = (largest.view(sentences, width, blocks) + offset).flatten(1).topk(k, sorted=False).indices  # [B, k]
    parent, start = chosen // blocks, first + chosen % blocks * BLOCK
    row = torch.arange(0, sentences * width, width, device=logits.device).unsqueeze(1) + parent
    columns = start.unsqueeze(-1) + torch.arange(BLOCK, device=logits.device)  # [B, k, BLOCK]
    inside = logits[row.unsqueeze(-1), columns] + offset.squeeze(-1).gather(1, parent).unsqueeze(-1)
    beyond = logits[:, split:].unflatten(0, (sentences, width)) + offset  # [B, K, what is left over]
    found, index = torch.cat([inside.flatten(1), beyond.flatten(1)], 1).topk(k)

    left_over, reached = vocabulary - split, k * BLOCK
    within = index < reached
    block = (index // BLOCK).clamp(max=k - 1)
    beyond_index = (index - reached).clamp(min=0)
    return Candidates(
        found,
        torch.where(within, parent.gather(1, block), beyond_index // max(left_over, 1)),
        torch.where(within, start.gather(1, block) + index % BLOCK, split + beyond_index % max(left_over, 1)),
    )
