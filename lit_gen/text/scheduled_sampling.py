"""Scheduled sampling: the decoder learns on its own predictions, so that it can go on after a mistake of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lit_gen.core.random import RowNoise
from lit_gen.core.text import BOS, PAD

if TYPE_CHECKING:
    from lit_gen.text.seq2seq import Seq2Seq


def mixed_input(
    model: "Seq2Seq", truth: Tensor, memory: Any, probability: float, noise: RowNoise, feed: str = "sample"
) -> Tensor:
    r"""What the decoder is fed: at each position the true token with the given probability, else one of its own.

    .. math:: \tilde y_t = \begin{cases} y_t & \text{with probability } \epsilon \\
        \hat y_t \sim p(\cdot \mid \tilde y_{<t}, x) & \text{otherwise} \end{cases}

    The decoder runs step by step, with its cache and without dropout, over what it is fed; the loss is then taken in one
    pass over the mixture, exactly as over the true tokens. So every decoder has scheduled sampling, the Transformer too, and
    no gradient goes through the choice of a token (Bengio et al. 2015, section 2.4).

    Args:
        model: offers ``advance``.
        truth: int64 ``[B, T]``: bos and the true tokens.
        memory: of the source sentences.
        probability: epsilon of the true token; a coin is thrown for each token.
        noise: source of the coins and the samples.
        feed: the model's own token is a "sample" of its distribution or its "argmax".

    Returns:
        int64 ``[B, T]``; bos stays, and so does padding.

    References:
        Bengio et al., Scheduled sampling for sequence prediction with recurrent neural networks, NeurIPS 2015
        (arXiv:1506.03099).
    """
    tokens, cache = truth.clone(), None
    with model.evaluating():
        for t in range(1, truth.shape[1]):
            # column by column: another process may pad its rows to another length
            keep, point = noise.uniform() < probability, noise.uniform()
            logits, cache = model.advance(tokens[:, t - 1 : t], memory, cache)
            logits = logits[:, -1]
            logits[:, [PAD, BOS]] = -torch.inf
            own = logits.argmax(-1) if feed == "argmax" else _inverse_cdf(logits, point)
            tokens[:, t] = torch.where(keep | (truth[:, t] == PAD), truth[:, t], own)
    return tokens


def _inverse_cdf(logits: Tensor, points: Tensor) -> Tensor:
    """Samples of softmax(logits ``[B, V]``) at uniform points ``[B]``."""
    cumulative = logits.softmax(-1).cumsum(-1)
    points = points[:, None] * cumulative[:, -1:]  # the last sum may fall short of one by rounding
    return torch.searchsorted(cumulative, points, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
