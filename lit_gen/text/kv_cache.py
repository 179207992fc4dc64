"""The keys and values of what a causal Transformer has read."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gen.text.cache import Cache


class Storage:
    """Memory for the keys and values of all layers, filled from the front; several caches may look at it.

    Rows come in groups of K (the hypotheses of one sentence), and a position has a slot for each row of its group, so that
    all that a group has read is one block, ``[C K, d]`` for each head.

    buffers: one for each layer, ``[2, B, H, C, K, d]``: keys and values of B groups, with room for C positions.
    filled: positions written so far.
    """

    def __init__(self, buffers: list[Tensor], filled: int) -> None:
        self.buffers, self.filled = buffers, filled

    @classmethod
    def of(cls, pairs: list[tuple[Tensor, Tensor]], group: int, more: int) -> "Storage":
        """Storage of keys and values ``[R, T, H, d]`` with room for ``more`` positions at least."""
        rows, length, heads, dim = pairs[0][0].shape
        shape = (2, rows // group, heads, room(length + more), group, dim)
        buffers = [pair[0].new_empty(shape) for pair in pairs]
        for buffer, pair in zip(buffers, pairs):
            for part, values in zip(buffer, pair):
                part[:, :, :length] = grouped(values, group)
        return cls(buffers, length)

    def copy(self, length: int, more: int = 0, groups: Tensor | None = None) -> "Storage":
        """A copy of the first positions, of all groups or of the given ones, with room for more."""
        size = list(self.buffers[0].shape)
        size[1], size[3] = size[1] if groups is None else len(groups), max(size[3], room(length + more))
        buffers = []
        for old in self.buffers:
            new = old.new_empty(size)
            source, target = old[:, :, :, :length], new[:, :, :, :length]
            target.copy_(source) if groups is None else torch.index_select(source, 1, groups, out=target)
            buffers.append(new)
        return Storage(buffers, length)


def room(length: int) -> int:
    """Positions to allocate for a sequence of this length: it may double before its keys and values must be moved."""
    return max(32, 2 * length)


def grouped(values: Tensor, group: int) -> Tensor:
    """``[B K, T, H, d]`` as ``[B, H, T, K, d]``, the order of :class:`Storage`."""
    rows, length, heads, dim = values.shape
    return values.view(rows // group, group, length, heads, dim).permute(0, 3, 2, 1, 4)


class KVCache(Cache):
    """Keys and values of the positions read so far. Where no gradient is wanted, reading on writes into memory kept for it.

    A beam search exchanges the hypotheses of a sentence at every step. Their keys and values stay where they are: for each
    row and position the cache notes in which slot of the row's group its key and value lie (its ancestry). Attention of the
    K rows of a group is then K queries on the keys of all its slots, under a mask, which costs no more than reading
    K caches, and nothing is moved.

    Args:
        pairs: keys and values ``[R, length, H, d]`` of each layer, as they were computed; empty if they are in storage.
        length: positions read so far: where the next one stands.
    """

    def __init__(self, pairs: list[tuple[Tensor, Tensor]] | None = None, length: int = 0) -> None:
        self.pairs, self.length = pairs or [], length
        self.storage: Storage | None = None
        self.ancestry: Tensor | None = None  # int64 [R, length], slots; None where each row has its own
        self.mask: Tensor | None = None  # what the newest positions attend to; None: everything, or causal at the start
        self._past: list[tuple[Tensor, Tensor]] = []

    @property
    def group(self) -> int:
        """K, rows that share a block of storage."""
        return 1 if self.storage is None else self.storage.buffers[0].shape[4]

    # ---------------------------------------------------------------- reading on

    @classmethod
    def begin(cls, before: "KVCache | None", length: int, group: int = 1) -> "KVCache":
        """The cache after ``length`` more positions, to be filled by :meth:`append` layer by layer.

        Args:
            before: what was read before; None at the start.
            length: T.
            group: K, so that rows of one group (K consecutive ones) may be exchanged for each other at no cost.
        """
        if before is None or before.length == 0:
            return cls(length=length)
        after = cls(length=before.length + length)
        if torch.is_grad_enabled():
            after._past = before.resolved()  # concatenated: what autograd has seen is not written to
            after.mask = causal_mask(length, after.length, after._past[0][0]) if length > 1 else None
            return after
        if before.storage is None or before.group != group:
            after.storage, ancestry = Storage.of(before.resolved(), group, length), None
        else:
            after.storage, ancestry = before.storage, before.ancestry
            crowded = after.storage.buffers[0].shape[3] < after.length
            if crowded or after.storage.filled != before.length:  # the latter: somebody else has read on from there
                after.storage = after.storage.copy(before.length, length)
        after.storage.filled = after.length
        if group > 1:
            buffer = after.storage.buffers[0]
            own = torch.arange(group, device=buffer.device).repeat(buffer.shape[1]).unsqueeze(1)
            past = own.expand(-1, before.length) if ancestry is None else ancestry
            after.ancestry = torch.cat((past, own.expand(-1, length)), 1)
        after.mask = after._attention_mask(length)
        return after

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Takes a layer's keys and values of the new positions, and gives all there are.

        Shape:
            k, v ``[R, T, H, d]`` -> keys and values ``[B, H, N, d]``: N = length and B = R, or N = length K for groups.
        """
        if self.storage is None:
            if self._past:
                k, v = (torch.cat(pieces, 1) for pieces in zip(self._past[layer], (k, v)))
            self.pairs.append((k, v))
            return k.transpose(1, 2), v.transpose(1, 2)
        keys, values = self.storage.buffers[layer]
        start, end, group = self.length - k.shape[1], self.length, self.group
        keys[:, :, start:end] = grouped(k, group)
        values[:, :, start:end] = grouped(v, group)
        return keys[:, :, :end].flatten(2, 3), values[:, :, :end].flatten(2, 3)

    def _attention_mask(self, length: int) -> Tensor | None:
        """What the T newest positions may attend to in storage: ``[T, N]``, or ``[B, 1, K T, N K]`` for groups; additive."""
        like, group = self.storage.buffers[0], self.group
        causal = causal_mask(length, self.length, like) if length > 1 else None
        if group == 1:
            return causal
        slots = torch.arange(group, device=like.device)
        own = (self.ancestry.unsqueeze(-1) == slots).view(-1, group, 1, self.length, group)  # [B, K, 1, N, K]
        mask = like.new_zeros(own.shape).masked_fill_(~own, -torch.inf)
        if causal is not None:
            mask = mask + causal.unsqueeze(-1)
        return mask.view(-1, 1, group * length, self.length * group)

    # ---------------------------------------------------------------- Cache

    def select(self, rows: Tensor) -> "KVCache":
        cache = KVCache(length=self.length)
        if self.storage is not None and len(rows) % self.group == 0:
            groups = rows.view(-1, self.group) // self.group
            if bool((groups == groups[:, :1]).all()):  # whole groups, their rows exchanged for each other
                groups = groups[:, 0]
                everything = torch.arange(self.storage.buffers[0].shape[1], device=rows.device)
                stay = torch.equal(groups, everything)
                cache.storage = self.storage if stay else self.storage.copy(self.length, groups=groups)
                cache.ancestry = None if self.ancestry is None else self.ancestry.index_select(0, rows)
                return cache
        cache.pairs = [tuple(each.index_select(0, rows) for each in pair) for pair in self.resolved()]
        return cache

    def detach(self) -> "KVCache":
        if self.storage is not None:
            return self
        return KVCache([(k.detach(), v.detach()) for k, v in self.pairs], self.length)

    def resolved(self) -> list[tuple[Tensor, Tensor]]:
        """Keys and values ``[R, length, H, d]`` of each layer, every row with its own."""
        if self.storage is None:
            return self.pairs
        pairs = []
        for buffer in self.storage.buffers:
            read = buffer[:, :, :, : self.length].permute(0, 1, 4, 3, 2, 5)  # [2, B, K, T, H, d]
            if self.ancestry is not None:
                index = self.ancestry.view(*read.shape[1:4], 1, 1).expand(read.shape[1:])
                read = torch.stack([part.gather(1, index) for part in read])
            pairs.append(tuple(read.flatten(1, 2)))
        return pairs


def causal_mask(queries: int, keys: int, like: Tensor) -> Tensor:
    """Additive mask ``[queries, keys]``: the queries are the last of the keys, and none sees what comes after it."""
    return torch.full((queries, keys), -torch.inf, dtype=like.dtype, device=like.device).triu_(keys - queries + 1)
