"""The contract between text data and text models: vocabularies, and the batches that a text DataModule yields."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from lit_gen.core.random import BatchKey

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>")
"""The first four tokens of every vocabulary, in the order of their numbers."""


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of one language, and the tokeniser that makes them of text; kept in every checkpoint.

    Args:
        size: number of tokens, the four special ones included.
        tokenizer: the tokeniser, in the JSON format of the ``tokenizers`` library.
        level: what a token is: "character", "word" or "bpe".
    """

    size: int
    tokenizer: str = field(repr=False)
    level: str

    def encode(self, text: str) -> list[int]:
        """Token numbers of a text, without bos and eos; what the vocabulary lacks is ``UNK``."""
        return _load(self.tokenizer).encode(text, add_special_tokens=False).ids

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """:meth:`encode` of many texts, in parallel where the tokeniser can."""
        return [each.ids for each in _load(self.tokenizer).encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of token numbers up to the first ``EOS``; pad and bos are left out."""
        kept = []
        for token in tokens:
            if token == EOS:
                break
            if token not in (PAD, BOS):
                kept.append(int(token))
        return _load(self.tokenizer).decode(kept, skip_special_tokens=False)

    def token(self, number: int) -> str:
        """How one token is written."""
        return _load(self.tokenizer).id_to_token(int(number))


@lru_cache(maxsize=8)
def _load(tokenizer: str) -> "Tokenizer":
    from tokenizers import Tokenizer

    return Tokenizer.from_str(tokenizer)


@dataclass(frozen=True)
class TextSpec:
    """What a model must know of its text before it can build its networks. Kept in every checkpoint.

    Args:
        target: vocabulary of what is generated.
        source: vocabulary of what is translated; None for a language model's data. Equal to ``target`` where the two
            languages share one (joint BPE).
    """

    target: Vocabulary
    source: Vocabulary | None = None

    def __post_init__(self) -> None:
        for name in ("target", "source"):
            if isinstance(getattr(self, name), dict):  # from a checkpoint
                object.__setattr__(self, name, Vocabulary(**getattr(self, name)))


class PairBatch(NamedTuple):
    """One batch of sentence pairs.

    source: int64 ``[B, S]``: the tokens of a sentence, eos, padding.
    target: int64 ``[B, T + 1]``: bos, the tokens, eos, padding. Read are ``target[:, :-1]``, predicted ``target[:, 1:]``.
    key: identity of the batch, from which all its randomness is derived.
    index: int64 ``[B]``, the number of each pair in its split.
    tokens: predicted tokens (eos counted, padding not) of the whole batch, over all processes.
    """

    source: Tensor
    target: Tensor
    key: BatchKey
    index: Tensor
    tokens: int

    unit = "tokens"

    @property
    def amount(self) -> int:
        """Predicted tokens of this process."""
        return int((self.target[:, 1:] != PAD).sum())


class StreamBatch(NamedTuple):
    """One batch of running text: contiguous streams (rows continue those of the batch before) or blocks at random places.

    input: int64 ``[B, T]``.
    target: int64 ``[B, T]``, the token after each of ``input``; ``PAD`` where nothing is to be predicted.
    key: identity of the batch.
    begins: True where the rows do not continue those of the batch before: a carried state starts anew.
    tokens: predicted tokens of the whole batch, over all processes.
    """

    input: Tensor
    target: Tensor
    key: BatchKey
    begins: bool
    tokens: int

    unit = "tokens"

    @property
    def amount(self) -> int:
        """Predicted tokens of this process."""
        return int((self.target != PAD).sum())
