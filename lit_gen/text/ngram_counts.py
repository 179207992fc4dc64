"""Counts of all n-grams of a text up to order N, in a tree of tensors that is filled in one vectorised pass.

A k-gram is a node at depth k, a child of the (k-1)-gram that it begins with. Nodes of one depth are numbered in the order of
(number of the parent, last token): children of a node are neighbours, and a node is found by bisection. The number of the
k-gram that ends at position t of a text follows from that of the (k-1)-gram that ends at t - 1, so that one pass over all
positions for each order finds all n-grams of a text, in training as in scoring.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lit_gen.core.errors import require
from lit_gen.core.text import BOS, PAD


class Level(NamedTuple):
    """The nodes of one depth k: n k-grams, children of m (k-1)-grams.

    key: int64 ``[n]``, ascending: parent * V + token.
    parent: int64 ``[n]``, the (k-1)-gram that the k-gram begins with, a node of the depth above.
    token: int64 ``[n]``, its last token.
    suffix: int64 ``[n]``, the (k-1)-gram that it ends with, a node of the depth above.
    count: int64 ``[n]``, how often it occurs; zero where its last token is the padding before the text.
    first: int64 ``[m + 1]``: the children of node i are ``first[i]`` to ``first[i + 1] - 1``.
    """

    key: Tensor
    parent: Tensor
    token: Tensor
    suffix: Tensor
    count: Tensor
    first: Tensor

    def find(self, parent: Tensor, token: Tensor, size: int) -> Tensor:
        """Numbers of the nodes of these parents (-1: none) and last tokens of V = size; -1 where there is none."""
        if len(self.key) == 0:
            return torch.full_like(parent, -1)
        key = parent * size + token
        place = torch.searchsorted(self.key, key).clamp_(max=len(self.key) - 1)
        return torch.where(self.key[place] == key, place, -1)

    def total(self, values: Tensor) -> Tensor:
        """Sums of values ``[n]`` over the children of each parent, float64 ``[m]``."""
        zeros = torch.zeros(len(self.first) - 1, dtype=torch.float64, device=values.device)
        return zeros.index_add_(0, self.parent, values.double())


class NGramCounts(nn.Module):
    """How often every k-gram occurs, k = 1 .. N. The text begins after N - 1 times ``BOS``.

    The checkpoint holds, for each depth, last tokens and numbers of children, and the counts of the N-grams; all else
    follows. Depth 1 holds every token, whether it occurs or not.

    Args:
        order: N.
        size: V, tokens in the vocabulary.

    Raises:
        UsageError: an order below 1.
    """

    def __init__(self, order: int, size: int) -> None:
        super().__init__()
        require(order >= 1, "order", order, "an integer of 1 or more")
        self.order, self.size = order, size
        nodes = size  # of the depth above: no token has a child yet
        for depth in range(2, order + 1):
            self.register_buffer(f"tokens_{depth}", torch.zeros(0, dtype=torch.uint8))
            self.register_buffer(f"children_{depth}", torch.zeros(nodes, dtype=torch.uint8))
            nodes = 0
        self.register_buffer("count", torch.zeros(nodes, dtype=torch.uint8))
        self._levels: list[Level] = []

    @property
    def counted(self) -> bool:
        """Whether a text has been counted."""
        return bool(self.count.any())

    @property
    def levels(self) -> list[Level]:
        """The levels of depth 1 .. N, on the module's device."""
        if not self._levels or self._levels[0].count.device != self.count.device:
            self._levels = self._unpack()
        return self._levels

    # ---------------------------------------------------------------- counting

    def fit(self, tokens: Tensor) -> None:
        """Counts the n-grams of one text, int64 ``[T]``; what was counted before is forgotten.

        Raises:
            UsageError: the text is empty.
        """
        require(tokens.numel() > 0, "text", "one of no tokens", "1 token or more")
        padded = torch.cat((tokens.new_full((self.order - 1,), BOS), tokens))
        predicted = ((padded != BOS) & (padded != PAD)).long()
        unigrams = torch.arange(self.size, device=tokens.device)
        count = torch.zeros_like(unigrams).index_add_(0, padded, predicted)
        nodes, levels = padded, [self._level(unigrams, torch.zeros_like(unigrams), count, 1)]
        for depth in range(2, self.order + 1):
            before, last = (
                nodes[:-1],
                padded[depth - 1 :],
            )  # of every depth-gram: all but its last token, its last token
            key, inverse = torch.unique(before * self.size + last, return_inverse=True)
            suffix = torch.zeros_like(key).scatter_(0, inverse, nodes[1:])
            count = torch.zeros_like(key).index_add_(0, inverse, predicted[depth - 1 :])
            levels.append(self._level(key, suffix, count, len(levels[-1].key)))
            nodes = inverse
        self._levels = levels
        self._pack()

    def _level(self, key: Tensor, suffix: Tensor, count: Tensor, parents: int) -> Level:
        parent, token = key // self.size, key % self.size
        first = torch.zeros(parents + 1, dtype=torch.int64, device=key.device)
        first[1:] = torch.bincount(parent, minlength=parents).cumsum(0)
        return Level(key, parent, token, suffix, count, first)

    # ---------------------------------------------------------------- looking up

    def start(self, rows: int) -> Tensor:
        """Where texts begin: the state after N - 1 times ``BOS``, int64 ``[rows, N - 1]``."""
        nodes = torch.full((1,), BOS, device=self.count.device)
        state = [nodes]
        for level in self.levels[1:-1]:
            nodes = level.find(nodes, torch.full_like(nodes, BOS), self.size)
            state.append(nodes)
        return torch.stack(state[: self.order - 1], 1).expand(rows, -1) if self.order > 1 else nodes.new_zeros(rows, 0)

    def read(self, tokens: Tensor, state: Tensor) -> Tensor:
        """The nodes of the last 0 .. N - 1 tokens at every position, those before the first in the state.

        Args:
            tokens: int64 ``[R, T]``.
            state: int64 ``[R, N - 1]``: nodes of the last 1 .. N - 1 tokens before.

        Returns:
            int64 ``[N, R, T]``, -1 where a history does not occur in the text; ``[1:, :, -1].T`` is the next state.
        """
        nodes = [torch.zeros_like(tokens), tokens][: self.order]
        for depth in range(2, self.order):
            before = torch.cat((state[:, depth - 2, None], nodes[-1][:, :-1]), dim=1)
            nodes.append(self.levels[depth - 1].find(before, tokens, self.size))
        return torch.stack(nodes)

    def continuations(self, depth: int) -> Tensor:
        """In how many ways each k-gram of a depth k < N continues a token: the different tokens before it, int64 ``[n]``."""
        above = self.levels[depth]
        return torch.bincount(above.suffix[above.count > 0], minlength=len(self.levels[depth - 1].key))

    # ---------------------------------------------------------------- checkpoint

    def _pack(self) -> None:
        for depth, level in enumerate(self._levels[1:], start=2):
            setattr(self, f"tokens_{depth}", smallest(level.token))
            setattr(self, f"children_{depth}", smallest(level.first.diff()))
        self.count = smallest(self._levels[-1].count)

    def _unpack(self) -> list[Level]:
        unigrams = torch.arange(self.size, device=self.count.device)
        levels = [self._level(unigrams, *[torch.zeros_like(unigrams)] * 2, 1)]  # counts follow, from the last depth up
        for depth in range(2, self.order + 1):
            token, children = (getattr(self, f"{name}_{depth}").long() for name in ("tokens", "children"))
            parent = torch.arange(len(children), device=token.device).repeat_interleave(children)
            above = levels[-1]
            # the suffix of a node is that of its parent, followed by its own token
            suffix = above.find(above.suffix[parent], token, self.size)
            levels.append(self._level(parent * self.size + token, suffix, torch.zeros_like(token), len(children)))
        count = self.count.long()
        for depth in range(self.order, 0, -1):
            level = levels[depth - 1] = levels[depth - 1]._replace(count=count)
            if depth > 1:
                count = torch.zeros_like(levels[depth - 2].count).index_add_(0, level.suffix, count)
        return levels

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # The text decides how large the buffers are.
        for name, buffer in self.named_buffers():
            if (saved := state_dict.get(prefix + name)) is not None:
                setattr(self, name, torch.empty_like(saved, device=buffer.device))
        self._levels = []
        super()._load_from_state_dict(state_dict, prefix, *args)


def smallest(values: Tensor) -> Tensor:
    """Non-negative integers in the smallest type that holds them (of those that processes can send each other)."""
    largest = int(values.max()) if len(values) else 0
    return values.to(torch.uint8 if largest < 2**8 else torch.int32 if largest < 2**31 else torch.int64)
