"""All that decoding knows of a model: a function that reads on and says the logits of what comes next."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from lit_gen.text.cache import Cache


class Selectable(Protocol):
    """What a source was read into, one row for each sentence."""

    def select(self, rows: Tensor) -> "Selectable": ...


class Advance(Protocol):
    """``advance(tokens [R, T], memory, cache) -> (logits [R, T, V] float32, cache)``; the first call has no cache.

    R = B K rows: K hypotheses of each of the memory's B sentences, those of one sentence side by side.
    """

    def __call__(self, tokens: Tensor, memory: Any, cache: Any) -> tuple[Tensor, Any]: ...


class WindowCache(Cache):
    """A cache together with the tokens that it has read ``[R, t]``."""

    def __init__(self, cache: Any, tokens: Tensor) -> None:
        self.cache, self.tokens = cache, tokens

    def select(self, rows: Tensor) -> "WindowCache":
        return WindowCache(self.cache.select(rows), self.tokens.index_select(0, rows))

    def detach(self) -> "WindowCache":
        return WindowCache(self.cache.detach(), self.tokens)


def windowed(advance: Advance, max_context: int | None) -> Advance:
    """An ``advance`` that can be called for ever although the model reads at most ``max_context`` tokens.

    When the context is full, its last half (the new tokens included) is read again from scratch and reading goes on
    from there: half a context at least is always seen, and the cost of reading again is shared by the steps until the
    context is full once more. A first call with more tokens than fit reads the last ``max_context`` of them.

    Args:
        advance: the model's.
        max_context: most tokens that it can read; None where there is no limit, and ``advance`` is returned as it is.
    """
    if max_context is None:
        return advance

    def advance_in_window(tokens: Tensor, memory: Any, cache: WindowCache | None) -> tuple[Tensor, WindowCache]:
        if cache is None:
            tokens = seen = tokens[:, -max_context:]
            inner = None
        else:
            seen, inner = torch.cat([cache.tokens, tokens], 1), cache.cache
        if seen.shape[1] > max_context:
            tokens = seen = seen[:, -max(1, max_context // 2) :]
            inner = None
        logits, inner = advance(tokens, memory, inner)
        return logits, WindowCache(inner, seen)

    return advance_in_window
