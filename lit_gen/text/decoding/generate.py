"""Running text from a language model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from lit_gen.core.errors import require
from lit_gen.core.text import BOS
from lit_gen.text.decoding.hypothesis import Hypothesis
from lit_gen.text.decoding.interface import windowed
from lit_gen.text.decoding.one_path import one_path
from lit_gen.text.decoding.sampling import Sampler


def generate(
    model: Any,
    prompt: Sequence[int] = (),
    n: int = 1,
    *,
    length: int = 200,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    stop_at_eos: bool = False,
    batch: int = 64,
) -> Iterator[Hypothesis]:
    """n continuations of a prompt, each of its length.

    The prompt is read in one call, once for a batch. A model of limited context (``max_context``) forgets the first
    half of what it has read whenever its context is full; see :func:`windowed`.

    Args:
        model: with ``advance``; see :class:`~lit_gen.text.LanguageModel`.
        prompt: token numbers; bos alone where empty.
        n: number of texts; text i depends on (seed, i) alone.
        length: most new tokens.
        temperature, top_k, top_p: see :class:`Sampler`.
        seed: of the uniform numbers.
        stop_at_eos: a text ends with its first eos; otherwise eos, the end of a line of running text, is a token like
            the others.
        batch: texts that are generated at once.

    Raises:
        UsageError: an option out of range.
    """
    require(n >= 1, "n", n, "1 or more")
    require(length >= 1, "length", length, "1 or more")
    require(batch >= 1, "batch", batch, "1 or more")
    read = torch.tensor(list(prompt) or [BOS])
    advance = windowed(model.advance, getattr(model, "max_context", None))
    for start in range(0, n, batch):
        rows = range(start, min(start + batch, n))
        sampler = Sampler(seed, rows, temperature, top_k, top_p)
        with model.evaluating():
            found = one_path(
                advance,
                None,
                len(rows),
                sampler,
                max_length=length,
                prompt=read,
                stop_at_eos=stop_at_eos,
                device=model.device,
            )
        yield from found
