"""Tokenisers: what is encoded comes back, unknown stays unknown, and training text alone makes the vocabulary."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import pytest

from lit_gen.core.errors import UsageError
from lit_gen.core.text import BOS, EOS, PAD, SPECIAL_TOKENS, UNK
from lit_gen.data.vocabulary import encode, train_vocabulary
from tests.conftest import REAL_DATA, ROOT

LINES = [
    "the cat sat on the mat .",
    "der hund ist groß",
    "  two   spaces\tand a tab ",
    "",
    "ein Ä und ▲ zeichen",
    "the end",
]


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(("level", "size"), [("character", None), ("word", None), ("bpe", 60), ("bpe", 200)])
def test_special_tokens_come_first_and_decoding_gives_back_the_text(level: str, size: int | None):
    vocabulary = train_vocabulary(LINES, level, size)
    assert [vocabulary.token(i) for i in (PAD, BOS, EOS, UNK)] == list(SPECIAL_TOKENS)
    assert len({vocabulary.token(i) for i in range(vocabulary.size)}) == vocabulary.size
    for line, tokens in zip(LINES, encode(vocabulary, LINES), strict=True):
        assert tokens == vocabulary.encode(line)
        assert all(UNK < token < vocabulary.size for token in tokens)
        assert vocabulary.decode(tokens) == (line if level == "character" else words(line))
        assert vocabulary.decode([BOS, *tokens, EOS, *tokens, PAD]) == vocabulary.decode(tokens)


def test_character_vocabulary_is_the_set_of_characters():
    text = "first\nsecond line\n\n"
    vocabulary = train_vocabulary([text], "character")
    assert [vocabulary.token(i) for i in range(4, vocabulary.size)] == sorted(set(text))
    assert vocabulary.encode(text) == [4 + sorted(set(text)).index(c) for c in text]


def test_word_vocabulary_counts_words():
    lines = ["a a a b b c", "b a d d"]
    counts = Counter(" ".join(lines).split())
    vocabulary = train_vocabulary(lines, "word", min_frequency=2)
    kept = {vocabulary.token(i) for i in range(4, vocabulary.size)}
    assert kept == {word for word, n in counts.items() if n >= 2} == {"a", "b", "d"}
    assert vocabulary.encode("a c d never") == [vocabulary.encode("a")[0], UNK, vocabulary.encode("d")[0], UNK]
    capped = train_vocabulary(lines, "word", vocab_size=6)
    assert [capped.token(i) for i in (4, 5)] == ["a", "b"]


def reference_merges(lines: list[str], merges: int) -> list[str]:
    """Algorithm 1 of Sennrich et al. on words marked at their beginning; ties are avoided by the caller."""
    vocab = {tuple("▁" + word): n for word, n in Counter(" ".join(lines).split()).items()}
    made = []
    for _ in range(merges):
        pairs: Counter[tuple[str, str]] = Counter()
        for symbols, n in vocab.items():
            for pair in pairwise(symbols):
                pairs[pair] += n
        (best, count), *others = pairs.most_common()
        assert all(n < count for _, n in others), "a tie: the reference does not say which pair comes first"
        made.append("".join(best))
        merged = {}
        for symbols, n in vocab.items():
            out: list[str] = []
            for symbol in symbols:
                if out and (out[-1], symbol) == best:
                    out[-1] = "".join(best)
                else:
                    out.append(symbol)
            merged[tuple(out)] = n
        vocab = merged
    return made


def test_bpe_merges_are_those_of_the_paper():
    lines = ["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3 + ["es"] * 1
    expected = reference_merges(lines, 2)
    characters = len(set("".join(lines))) + 1
    vocabulary = train_vocabulary(lines, "bpe", 4 + characters + 2)
    assert [vocabulary.token(i) for i in range(4 + characters, vocabulary.size)] == expected == ["es", "est"]


def test_bpe_leaves_out_rare_pairs_and_stops_at_the_size_asked_for():
    lines = ["abab abab", "cd"]
    assert train_vocabulary(lines, "bpe", 11).size == 11
    rare = train_vocabulary(lines, "bpe", 1000, min_frequency=2)
    assert "cd" not in {rare.token(i) for i in range(rare.size)}
    assert rare.decode(rare.encode("abab cd")) == "abab cd"


@pytest.mark.parametrize("level", ["character", "word", "bpe"])
def test_unknown_text_is_unk_and_swallows_nothing(level: str):
    vocabulary = train_vocabulary(["ab ba", "abba"], level, 20)
    (tokens,) = encode(vocabulary, ["ab ☃ ba"])
    assert UNK in tokens
    assert vocabulary.decode(tokens) == "ab <unk> ba"


@pytest.mark.parametrize("level", ["character", "word", "bpe"])
def test_special_tokens_spelled_out_in_a_text_are_no_special_tokens(level: str):
    lines = ["a<eos>b <pad> <bos> <eos> x", "plain"]
    vocabulary = train_vocabulary(lines, level, None if level == "word" else 40)
    for tokens in encode(vocabulary, lines):
        assert not {PAD, BOS, EOS} & set(tokens)
    if level == "word":
        assert vocabulary.decode(vocabulary.encode("a<eos>b")) == "a<eos>b"
        assert train_vocabulary(["the <unk> said"], "word").encode("<unk>") == [UNK]  # as corpora spell it
    else:
        assert vocabulary.decode(next(encode(vocabulary, lines))) == lines[0]


def test_lowercase_is_part_of_the_tokeniser():
    for level in ("character", "word", "bpe"):
        vocabulary = train_vocabulary(["Das Große HAUS"], level, 40, lowercase=True)
        assert vocabulary.decode(vocabulary.encode("DAS große Haus")) == "das große haus"


def test_min_frequency_of_characters_and_a_cap():
    vocabulary = train_vocabulary(["aaabbc"], "character", min_frequency=2)
    assert vocabulary.encode("abc") == [4, 5, UNK]
    assert train_vocabulary(["aaabbc"], "character", vocab_size=5).encode("abc") == [4, UNK, UNK]


def test_many_texts_are_encoded_as_each_alone():
    generator = random.Random(0)
    texts = ["".join(generator.choices("abcde ", k=generator.randrange(20))) for _ in range(5000)]
    vocabulary = train_vocabulary(texts[:500], "bpe", 50)
    assert list(encode(vocabulary, texts)) == [vocabulary.encode(text) for text in texts]


def trained() -> str:
    lines = [f"zahl {i} ist {i * i} und {i * i * i}" for i in range(400)]
    vocabularies = [train_vocabulary(lines, level, 120) for level in ("character", "word", "bpe")]
    return repr([(each.tokenizer, list(encode(each, lines))[:20]) for each in vocabularies])


TRAIN_AND_FORK = """
import os, sys
from tests.data.test_data_text_vocabulary import trained
print(trained(), flush=True)
if os.fork() == 0:  # as a data loader does
    trained()
    os._exit(0)
os.wait()
assert "TOKENIZERS_PARALLELISM" not in os.environ
"""


def test_every_process_trains_the_same_tokeniser_and_forks_in_silence():
    environment = {k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"}
    environment |= {"PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", TRAIN_AND_FORK], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout.strip() == trained()


@pytest.mark.parametrize("name", ["raw", "tok"])
def test_every_line_of_multi30k_comes_back(name: str):
    folder = REAL_DATA / "multi30k" / name
    if not folder.is_dir():
        pytest.skip(f"no Multi30k in {REAL_DATA}: set LIT_GEN_DATA to its folder")
    texts = {path.name: gzip.decompress(path.read_bytes()).decode().split("\n")[:-1] for path in folder.glob("*.gz")}
    train = [line for path, lines in sorted(texts.items()) if path.startswith("train") for line in lines]
    vocabulary = train_vocabulary(train, "bpe", 2000)
    known = set("".join(train))
    for path, lines in texts.items():
        lines = lines[:2000] if path.startswith("train") else lines
        for line, tokens in zip(lines, encode(vocabulary, lines), strict=True):
            assert UNK not in tokens or not set(line) <= known
            if UNK not in tokens:
                assert vocabulary.decode(tokens) == (line if name == "tok" else words(line))


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"level": "syllable"}, ["level", "syllable", "word"]),
        ({"level": "word", "min_frequency": 0}, ["min_frequency", "0"]),
        ({"level": "bpe", "vocab_size": 4}, ["vocab_size", "4"]),
        ({"level": "bpe"}, ["vocab_size", "None"]),
        ({"level": "bpe", "vocab_size": 6}, ["vocab_size", "6", "9"]),  # a b c d, the mark of a word, four special ones
    ],
)
def test_options_out_of_range_are_named_in_one_line(options: dict, names: list[str]):
    with pytest.raises(UsageError) as caught:
        train_vocabulary(["ab cd"], **options)
    assert "\n" not in str(caught.value)
    assert all(name in str(caught.value) for name in names)
