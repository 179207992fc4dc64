"""Tokenisers trained on text: characters, words, and byte-pair encoding (Hugging Face ``tokenizers``)."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Literal

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from lit_gen.core.errors import UsageError, require
from lit_gen.core.text import EOS, SPECIAL_TOKENS, UNK, Vocabulary

Level = Literal["character", "word", "bpe"]
LEVELS = ("character", "word", "bpe")

_UNKNOWN = SPECIAL_TOKENS[UNK]
_CHUNK = 2048  # texts encoded at once: the library keeps the spelling and the place of each token, 500 bytes a token


def train_vocabulary(
    texts: Iterable[str], level: Level, vocab_size: int | None = None, min_frequency: int = 1, lowercase: bool = False
) -> Vocabulary:
    """The vocabulary of some texts, the same for the same texts.

    Decoding gives back a text of characters exactly, and a text of words or of byte pairs up to its white space (each
    stretch of it becomes one space), except for what the vocabulary lacks.

    Args:
        texts: training text, by lines.
        level: "character"; "word", what white space separates; "bpe", parts of words.
        vocab_size: number of tokens, the special ones included: the aim of byte-pair encoding (fewer where the text has
            fewer), a cap for the other two, which then keep the most frequent; None sets no cap.
        min_frequency: characters, words or pairs to be merged that are rarer are left out.
        lowercase: takes all text in lower case.

    Raises:
        UsageError: a value out of range, naming it and what is accepted.
    """
    check_vocabulary(level, vocab_size, min_frequency)
    train = {"character": character_tokenizer, "word": word_tokenizer, "bpe": bpe_tokenizer}[level]
    tokenizer = train(texts, vocab_size, min_frequency, normalizers.Lowercase() if lowercase else None)
    return Vocabulary(tokenizer.get_vocab_size(), tokenizer.to_str(), level)


def check_vocabulary(level: Level, vocab_size: int | None, min_frequency: int) -> None:
    """Raises a UsageError where one of the options is out of range."""
    require(level in LEVELS, "level", repr(level), ", ".join(LEVELS))
    require(min_frequency >= 1, "min_frequency", min_frequency, "1 or more")
    least = len(SPECIAL_TOKENS) + 1
    require(vocab_size is None or vocab_size >= least, "vocab_size", vocab_size, f"{least} or more")
    require(vocab_size is not None or level != "bpe", "vocab_size", None, "a number of tokens, for level = 'bpe'")


def character_tokenizer(
    texts: Iterable[str], vocab_size: int | None, min_frequency: int, normalizer: normalizers.Normalizer | None
) -> Tokenizer:
    """One token for each character, numbered in the order of Unicode."""
    counts = _counted(texts, normalizer, str)
    numbers = _numbered(sorted(_frequent(counts, vocab_size, min_frequency)))
    # Byte-pair encoding without a merge: twice as fast as splitting at every character.
    tokenizer = Tokenizer(models.BPE(vocab=numbers, merges=[], unk_token=_UNKNOWN))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def word_tokenizer(
    texts: Iterable[str], vocab_size: int | None, min_frequency: int, normalizer: normalizers.Normalizer | None
) -> Tokenizer:
    """One token for each word, the most frequent first; a "<unk>" in the text, as some corpora have it, is ``UNK``."""
    counts = _counted(texts, normalizer, str.split)
    numbers = _numbered(_frequent(counts, vocab_size, min_frequency))
    tokenizer = Tokenizer(models.WordLevel(vocab=numbers, unk_token=_UNKNOWN))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def _counted(
    texts: Iterable[str], normalizer: normalizers.Normalizer | None, divide: Callable[[str], Iterable[str]]
) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(divide(text if normalizer is None else normalizer.normalize_str(text)))
    for special in SPECIAL_TOKENS:
        del counts[special]
    return counts


def _frequent(counts: Counter[str], vocab_size: int | None, min_frequency: int) -> list[str]:
    """What is frequent enough, the most frequent first; equals in the order of Unicode."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [token for token, count in ordered if count >= min_frequency][: (vocab_size or 2**31) - len(SPECIAL_TOKENS)]


def _numbered(tokens: list[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate([*SPECIAL_TOKENS, *tokens])}


def bpe_tokenizer(
    texts: Iterable[str], vocab_size: int, min_frequency: int, normalizer: normalizers.Normalizer | None
) -> Tokenizer:
    """Parts of words: the most frequent pair of neighbours is made one token until there are ``vocab_size``.

    The beginning of a word is marked (with U+2581) rather than its end: so every character is known wherever in a word it
    stands, and an unknown one does not swallow the space before it.

    References:
        Sennrich et al., Neural machine translation of rare words with subword units, ACL 2016, algorithm 1.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=_UNKNOWN))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    mark = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), mark])
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    options = {"vocab_size": vocab_size, "min_frequency": min_frequency, "show_progress": False}
    with one_thread():
        tokenizer.train_from_iterator(texts, trainers.BpeTrainer(special_tokens=list(SPECIAL_TOKENS), **options))
    size = tokenizer.get_vocab_size()
    if size > vocab_size:
        raise UsageError(f"vocab_size = {vocab_size}; accepted: at least {size}, as many as the text has characters")
    # The library would cut a special token out of any text, "a<eos>b" too: they stay in the model's vocabulary alone.
    saved = json.loads(tokenizer.to_str())
    saved["added_tokens"] = []
    return Tokenizer.from_str(json.dumps(saved, ensure_ascii=False))


def encode(vocabulary: Vocabulary, texts: Iterable[str]) -> Iterator[list[int]]:
    """Token numbers of each text; a pad, bos or eos spelled out in a text is ``UNK``."""
    texts = iter(texts)
    while chunk := list(islice(texts, _CHUNK)):
        with one_thread():
            encoded = vocabulary.encode_all(chunk)
        for tokens in encoded:
            yield [UNK if token <= EOS else token for token in tokens] if min(tokens, default=UNK) <= EOS else tokens


@contextmanager
def one_thread() -> Iterator[None]:
    """The library works on the calling thread alone.

    Once its threads have been used it prints a warning at every later fork of the process, a data loader's for instance.
    """
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before
