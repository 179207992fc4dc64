"""The DataModules of text: what they read, what they leave out and say so, what they refuse."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch

from lit_gen.core.errors import UsageError
from lit_gen.core.text import BOS, EOS, PAD, UNK, PairBatch
from lit_gen.data import Multi30k, NumberText, NumberWords, ParallelText, PlainText, TextCorpus, TinyShakespeare
from lit_gen.data.corpora import held_out
from lit_gen.data.pairs import PairDataModule
from lit_gen.data.text_files import read_lines
from tests.conftest import REAL_DATA

SPLITS = ("train", "val", "test")
SMALL = {"train_size": 120, "val_size": 30, "test_size": 20}


def pairs(folder: Path, source: list[str], target: list[str], name: str = "train") -> list[str]:
    paths = [folder / f"{name}.{side}" for side in ("de", "en")]
    for path, lines in zip(paths, (source, target)):
        path.write_text("".join(f"{line}\n" for line in lines))
    return [str(path) for path in paths]


def one_line(caught: pytest.ExceptionInfo, *names: str) -> None:
    message = str(caught.value)
    assert "\n" not in message
    assert all(name in message for name in names), message


# -------------------------------------------------------------------- pairs


@pytest.mark.parametrize("level", ["character", "word", "bpe"])
@pytest.mark.parametrize("joint", [True, False])
def test_batches_hold_the_pairs_that_were_read(level: str, joint: bool):
    data = NumberWords(level=level, vocab_size=None if level != "bpe" else 90, joint=joint, batch_tokens=300, **SMALL)
    spec = data.spec
    assert (spec.source == spec.target) is joint
    for split, loader in (("train", data.train_dataloader()), ("val", data.val_dataloader())):
        seen = []
        for batch in loader:
            assert isinstance(batch, PairBatch)
            assert batch.source.dtype == batch.target.dtype == torch.int64
            assert (batch.target[:, 0] == BOS).all()
            assert batch.tokens == batch.amount
            assert not any((side == PAD).all(0).any() for side in (batch.source, batch.target)), "a column of padding"
            for source, target, i in zip(batch.source, batch.target, batch.index.tolist()):
                for row, vocabulary, text in (
                    (source, spec.source, data.sources(split)[i]),
                    (target[1:], spec.target, data.references(split)[i]),
                ):
                    length = int((row != PAD).sum())
                    assert row[length - 1] == EOS
                    assert (row[length:] == PAD).all()
                    assert row[: length - 1].tolist() == vocabulary.encode(text)
                seen.append(i)
        assert sorted(seen) == list(range(data.num_examples(split)))
        assert [len(data.sources(split)), len(data.references(split))] == [len(seen)] * 2


def test_number_words_are_numbers_in_words_and_no_number_is_in_two_splits():
    data = NumberWords(**SMALL)
    assert [data.num_examples(split) for split in SPLITS] == list(SMALL.values())
    numbers = [n for split in SPLITS for n in data.numbers[split]]
    assert len(set(numbers)) == len(numbers) == 170
    assert all(0 <= n < 1_000_000 for n in numbers)
    assert max(numbers) > 900_000
    assert NumberWords(**SMALL).numbers == data.numbers
    assert NumberWords(**SMALL, split_seed=1).numbers != data.numbers
    data = NumberWords(**SMALL)
    data.numbers = {"train": [64012, 1, 100], "val": [21], "test": []}
    assert data.sources("train") == ["vierundsechzigtausendzwölf", "eins", "einhundert"]
    assert data.references("train") == ["sixty-four thousand and twelve", "one", "one hundred"]
    assert data.sources("val") == ["einundzwanzig"]
    assert data.test_dataloader() == []


def test_the_tokeniser_knows_the_training_split_alone(tmp_path: Path):
    train = pairs(tmp_path, ["aa ab", "ba"], ["xx", "xy yx"])
    val = pairs(tmp_path, ["ac"], ["xz"], "val")
    data = ParallelText(train, val, level="character", joint=False, vocab_size=None)
    known = {name: {v.token(i) for i in range(4, v.size)} for name, v in vars(data.spec).items()}
    assert known == {"source": set("ab "), "target": set("xy ")}
    (batch,) = data.val_dataloader()
    assert batch.source.tolist() == [[data.spec.source.encode("a")[0], UNK, EOS]]
    shared = ParallelText(train, val, level="character", vocab_size=None).spec
    assert {shared.target.token(i) for i in range(4, shared.target.size)} == set("abxy ")


def test_long_and_empty_training_pairs_are_left_out_counted_and_reported(tmp_path: Path, capsys):
    source = ["a b", "a b c d e", "", "a", "b", "  ", ""]
    target = ["x", "x", "y", "x y x y x", "y", "x", "x x x x x x"]
    train, val = pairs(tmp_path, source, target), pairs(tmp_path, source, target, "val")
    data = ParallelText(train, val, val, level="word", max_length=4)
    assert data.dropped == {"empty": 3, "too_long": 2}
    assert capsys.readouterr().out.count("\n") == 1
    assert data.num_examples("train") == 2
    assert (data.sources("train"), data.references("train")) == (["a b", "b"], ["x", "y"])
    assert sorted(i for batch in data.train_dataloader() for i in batch.index.tolist()) == [0, 1]
    for split in ("val", "test"):
        assert data.num_examples(split) == 7
        assert (data.sources(split), data.references(split)) == (source, target)
        assert sorted(i for batch in data.eval_batches(split) for i in batch.index.tolist()) == list(range(7))
    everything = ParallelText(pairs(tmp_path, ["a"], ["b"]), level="word")
    assert everything.dropped == {"empty": 0, "too_long": 0}
    assert capsys.readouterr().out == ""


def test_lowercase_leaves_references_alone(tmp_path: Path):
    data = ParallelText(pairs(tmp_path, ["Ein Haus"], ["A House"]), level="word", lowercase=True)
    assert data.references("train") == ["A House"]
    (batch,) = data.eval_batches("train")
    assert data.spec.target.decode(batch.target[0, 1:].tolist()) == "a house"


@pytest.mark.parametrize("limit", [1, 7, 30, 100, None])
def test_limited_evaluation_takes_the_first_pairs(limit: int | None):
    data = NumberWords(eval_batch_tokens=100, **SMALL)
    index = [i for batch in data.eval_batches("val", limit) for i in batch.index.tolist()]
    assert sorted(index) == list(range(min(limit or 30, 30)))


def test_pad_multiple_rounds_the_widths_up():
    data = NumberWords(pad_multiple=8, batch_tokens=500, **SMALL)
    for batch in [*data.train_dataloader(), *data.val_dataloader()]:
        assert batch.source.shape[1] % 8 == 0
        assert (batch.target.shape[1] - 1) % 8 == 0  # what a model reads and predicts
        assert batch.tokens == batch.amount


def test_two_columns_are_two_files(tmp_path: Path):
    (tmp_path / "train.tsv").write_text("ein hund\ta dog\n\neine katze\ta cat")
    with gzip.open(tmp_path / "val.tsv.gz", "wt") as file:
        file.write("hund\tdog\r\n")
    data = ParallelText(str(tmp_path / "train.tsv"), str(tmp_path / "val.tsv.gz"), level="word")
    assert data.sources("train") == ["ein hund", "eine katze"]
    assert data.references("train") == ["a dog", "a cat"]
    assert data.dropped["empty"] == 1
    assert (data.sources("val"), data.references("val")) == (["hund"], ["dog"])
    assert data.name == "train"


def test_lines_end_with_a_line_feed_only(tmp_path: Path):
    path = tmp_path / "lines"
    path.write_bytes("\ufeffa b\r\n\nc\x0bd\x85e".encode())
    assert read_lines(path) == ["a b", "", "c\x0bd\x85e"]


@pytest.mark.parametrize(("files", "ending"), [("tok", ".lc.norm.tok"), ("raw", "")])
def test_multi30k(files: str, ending: str):
    if not (REAL_DATA / "multi30k" / files).is_dir():
        pytest.skip(f"no Multi30k in {REAL_DATA}: set LIT_GEN_DATA to its folder")
    data = Multi30k(str(REAL_DATA), files, download=False, level="word", max_length=30)
    assert data.num_examples("train") + sum(data.dropped.values()) == 29000
    assert [data.num_examples(split) for split in ("val", "test")] == [1014, 1000]
    path = REAL_DATA / "multi30k" / files / f"test_2016_flickr{ending}.de.gz"
    assert data.references("test") == gzip.decompress(path.read_bytes()).decode().split("\n")[:-1]
    assert sum(len(batch.index) for batch in data.train_dataloader()) == data.num_examples("train")
    plan = data.train_dataloader().plan
    padded = sum(len(p.rows) * (p.source_width + p.target_width) for p in plan.batches(0))
    tokens = int(plan.lengths.source.sum() + plan.lengths.target.sum())
    assert padded < 1.12 * tokens


# -------------------------------------------------------------------- running text


def corpus(folder: Path, text: str, **options) -> PlainText:
    (folder / "train.txt").write_text(text)
    return PlainText(str(folder / "train.txt"), **options)


@pytest.mark.parametrize("text", ["a b\n\n b c \nd", "a b\n\n b c \nd\n"])
def test_every_line_is_followed_by_eos(tmp_path: Path, text: str):
    for level, words in (("word", 1), ("character", 0)):
        data = corpus(tmp_path, text, level=level, line_end="eos", val_fraction=0)
        tokens = data.tokens("train")
        assert tokens.dtype == torch.int64
        assert int((tokens == EOS).sum()) == 4
        lines, line = [], []
        for token in tokens.tolist():
            line.append(token)
            if token == EOS:
                lines.append(data.spec.target.decode(line))
                line = []
        assert lines == ([" ".join(x.split()) for x in text.split("\n")[:4]] if words else text.split("\n")[:4])
        assert data.val_dataloader() == []


def test_characters_keep_the_ends_of_lines(tmp_path: Path):
    text = "To be,\r\nor not\n\n" * 3000  # longer than the pieces in which it is encoded
    data = corpus(tmp_path, text, val_fraction=0.25)
    train, val = held_out(text.replace("\r\n", "\n"), 0.25)
    assert data.spec.target.decode(data.tokens("train").tolist()) == train
    assert data.spec.target.decode(data.tokens("val").tolist()) == val
    assert train + val == text.replace("\r\n", "\n")
    assert torch.equal(data.tokens("test"), data.tokens("val"))


@pytest.mark.parametrize("mode", ["streams", "blocks"])
def test_evaluation_loaders_predict_the_whole_split_in_order(tmp_path: Path, mode: str):
    data = corpus(
        tmp_path, "abcdefghij" * 37, mode=mode, block_size=8, eval_stride=3, eval_streams=4, eval_batch_size=3
    )
    for split, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        target = torch.cat([batch.target.flatten() for batch in loader])
        assert target[target != PAD].sort().values.tolist() == data.tokens(split).sort().values.tolist()
        assert sum(batch.tokens for batch in loader) == data.num_examples(split) == 37
    rows = [len(batch.input) for batch in data.eval_batches("train", 4)]
    assert sum(rows) == 4
    assert all(batch.tokens == batch.amount for batch in data.eval_batches("train", 4))
    assert data.train_dataloader().plan.examples == 333


def test_random_blocks_are_stretches_of_the_split(tmp_path: Path):
    data = corpus(tmp_path, "".join(chr(0x4E00 + i) for i in range(400)), val_fraction=0.5)
    tokens = data.tokens("train")
    x, y = data.random_blocks("train", 500, 12, torch.Generator().manual_seed(0))
    assert x.shape == y.shape == (500, 12)
    assert torch.equal(x[:, 1:], y[:, :-1])
    place = {token: i for i, token in enumerate(tokens.tolist())}
    starts = torch.tensor([place[token] for token in x[:, 0].tolist()])
    assert torch.equal(tokens[starts[:, None] + torch.arange(12)], x)
    assert torch.equal(tokens[starts + 12], y[:, -1])
    assert (int(starts.min()), int(starts.max())) == (
        0,
        200 - 12 - 1,
    )  # 500 draws of 188 places: 7 % to miss one; seeded
    again, _ = data.random_blocks("train", 500, 12, torch.Generator().manual_seed(0))
    assert torch.equal(again, x)
    with pytest.raises(UsageError) as caught:
        data.random_blocks("val", 1, 200)
    one_line(caught, "block_size", "200", "199")


@pytest.mark.parametrize(
    "names",
    [
        ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"),
        ("wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"),
    ],
)
def test_folders_of_penn_treebank_and_wikitext(tmp_path: Path, names: tuple[str, ...]):
    for name, text in zip(names, (" a <unk> b \n = title = \n \n", " b \n", " c a \n")):
        (tmp_path / name).write_text(text)
    data = PlainText(str(tmp_path), level="word")
    counts = {split: (data.num_examples(split), int((data.tokens(split) == UNK).sum())) for split in SPLITS}
    assert counts == {"train": (9, 1), "val": (2, 0), "test": (3, 1)}


def test_files_of_its_own_take_the_place_of_held_out_text(tmp_path: Path):
    for name in ("val", "test"):
        (tmp_path / name).write_text(name)
    text = "evalst" * 10
    sizes = {
        (True, True): (60, 3, 4), (True, False): (60, 3, 3), (False, True): (54, 6, 4), (False, False): (54, 6, 6),
    }  # fmt: skip
    for (val, test), expected in sizes.items():
        files = {"val": str(tmp_path / "val") if val else None, "test": str(tmp_path / "test") if test else None}
        data = corpus(tmp_path, text, **files)
        assert tuple(data.num_examples(split) for split in SPLITS) == expected


def test_number_text_needs_no_file():
    data = NumberText(train_size=50, val_size=10, test_size=10, language="de")
    text = data.spec.target.decode(data.tokens("train").tolist())
    assert text.count("\n") == 50
    assert set(text.split("\n")[:-1]) == set(NumberWords(train_size=50, val_size=10, test_size=10).sources("train"))


def test_tiny_shakespeare():
    if not (REAL_DATA / "tinyshakespeare").is_dir():
        pytest.skip(f"no tinyshakespeare in {REAL_DATA}: set LIT_GEN_DATA to its folder")
    data = TinyShakespeare(str(REAL_DATA), download=False)
    assert [data.num_examples(split) for split in SPLITS] == [1003854, 111540, 111540]
    assert data.spec.target.size == 65 + 4
    text = (REAL_DATA / "tinyshakespeare" / "input.txt").read_text()
    assert data.spec.target.decode(torch.cat([data.tokens("train"), data.tokens("val")]).tolist()) == text


# -------------------------------------------------------------------- downloads


def test_multi30k_is_downloaded_where_it_is_missing(tmp_path: Path, monkeypatch):
    server, root = tmp_path / "server", tmp_path / "root"
    monkeypatch.setattr("lit_gen.data.pair_sets._MULTI30K", server.as_uri())
    for part in ("train", "val", "test_2018_flickr"):
        for language in ("fr", "cs"):
            for folder, ending in (("raw", f"{language}.gz"), ("tok", f"lc.norm.tok.{language}")):
                path = server / folder / f"{part}.{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                text = f"{part} {language}\n".encode()
                path.write_bytes(gzip.compress(text) if ending.endswith("gz") else text)
    for files in ("raw", "tok"):
        data = Multi30k(str(root), files, "fr", "cs", "test_2018_flickr", level="word")
        with pytest.raises(UsageError) as caught:
            data.setup()
        one_line(caught, str(root), f"multi30k/{files}/train", "prepare_data")
        data.prepare_data()
        assert data.sources("train") == ["train fr"]
        assert data.references("test") == ["test_2018_flickr cs"]
    assert not list(root.rglob("*.part"))
    (server / "raw" / "val.cs.gz").unlink()
    data.prepare_data()  # all there: nothing is fetched
    with pytest.raises(UsageError) as caught:
        Multi30k(str(tmp_path / "other"), "raw", "fr", "cs", "test_2018_flickr").prepare_data()
    one_line(caught, "multi30k/raw/val.cs", "download")
    assert not list((tmp_path / "other").rglob("*.part"))


def test_tiny_shakespeare_is_downloaded_where_it_is_missing(tmp_path: Path, monkeypatch):
    (tmp_path / "input.txt").write_text("to be or not to be " * 10)
    monkeypatch.setattr(TinyShakespeare, "url", (tmp_path / "input.txt").as_uri())
    data = TinyShakespeare(str(tmp_path / "root"))
    data.prepare_data()
    assert [data.num_examples(split) for split in SPLITS] == [171, 19, 19]
    with pytest.raises(UsageError) as caught:
        TinyShakespeare(str(tmp_path / "other"), download=False).setup()
    one_line(caught, "tinyshakespeare/input.txt", "other", "download: true")
    monkeypatch.setattr(TinyShakespeare, "url", (tmp_path / "missing").as_uri())
    with pytest.raises(UsageError) as caught:
        TinyShakespeare(str(tmp_path / "other")).prepare_data()
    one_line(caught, "tinyshakespeare", "missing")


# -------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("kind", "options", "names"),
    [
        (NumberWords, {"source": "tlh"}, ["source", "tlh", "de"]),
        (NumberWords, {"train_size": 0}, ["train_size", "0"]),
        (NumberWords, {"val_size": -1}, ["val_size", "-1"]),
        (NumberWords, {"train_size": 999_999}, ["1000000"]),
        (NumberWords, {"batch_tokens": 0}, ["batch_tokens", "0"]),
        (NumberWords, {"max_length": 0}, ["max_length", "0"]),
        (NumberWords, {"pad_multiple": 0}, ["pad_multiple", "0"]),
        (NumberWords, {"level": "letter"}, ["level", "letter", "character"]),
        (NumberWords, {"vocab_size": None}, ["vocab_size", "bpe"]),
        (Multi30k, {"files": "task1"}, ["files", "task1", "raw"]),
        (Multi30k, {"source": "it"}, ["source", "it", "fr"]),
        (Multi30k, {"source": "de"}, ["target", "de"]),
        (Multi30k, {"test_set": "test"}, ["test_set", "test_2016_flickr"]),
        (Multi30k, {"source": "cs", "test_set": "test_2017_flickr"}, ["test_2017_flickr", "test_2018_flickr"]),
        (ParallelText, {"train": ["a", "b", "c"]}, ["train", "'c'"]),
        (NumberText, {"language": "tlh"}, ["language", "tlh"]),
        (NumberText, {"mode": "windows"}, ["mode", "windows", "blocks"]),
        (NumberText, {"line_end": "crlf"}, ["line_end", "crlf", "keep"]),
        (NumberText, {"level": "word", "line_end": "keep"}, ["line_end", "keep", "word"]),
        (NumberText, {"block_size": 0}, ["block_size", "0"]),
        (NumberText, {"eval_streams": 0}, ["eval_streams", "0"]),
        (NumberText, {"block_size": 8, "eval_stride": 9}, ["eval_stride", "9", "8"]),
        (PlainText, {"train": "x", "val_fraction": 1.0}, ["val_fraction", "1.0"]),
    ],
)
def test_options_out_of_range_are_named_in_one_line(kind: type, options: dict, names: list[str]):
    with pytest.raises(UsageError) as caught:
        kind(**options)
    one_line(caught, *names)


def test_data_that_does_not_fit_together_is_refused_in_one_line(tmp_path: Path):
    train = pairs(tmp_path, ["a", "b", "c"], ["x", "y"])
    with pytest.raises(UsageError) as caught:
        ParallelText(train).setup()
    one_line(caught, "3 lines", "2 in", *train)
    (tmp_path / "train.tsv").write_text("a\tx\nb\n")
    with pytest.raises(UsageError) as caught:
        ParallelText(str(tmp_path / "train.tsv")).setup()
    one_line(caught, "train.tsv", "line 2", "1 column")
    with pytest.raises(UsageError) as caught:
        ParallelText(str(tmp_path / "nowhere.tsv")).setup()
    one_line(caught, "nowhere.tsv")
    (tmp_path / "latin1.txt").write_bytes(b"Gr\xfc\xdfe")
    with pytest.raises(UsageError) as caught:
        PlainText(str(tmp_path / "latin1.txt")).setup()
    one_line(caught, "latin1.txt", "utf-8")
    with pytest.raises(UsageError) as caught:
        PlainText(str(tmp_path)).setup()
    one_line(caught, str(tmp_path), "ptb.train.txt", "wiki.train.tokens")
    for empty in (PlainText(str(tmp_path / "empty")), ParallelText(str(tmp_path / "empty"))):
        (tmp_path / "empty").write_text("")
        with pytest.raises(UsageError) as caught:
            empty.setup()
        one_line(caught, "empty", "no training")
    (tmp_path / "blank.tsv").write_text("\n\n")
    with pytest.raises(UsageError) as caught:
        ParallelText(str(tmp_path / "blank.tsv"), level="word").train_dataloader()
    one_line(caught, "0 training pairs")
    assert issubclass(PlainText, TextCorpus)
    assert issubclass(ParallelText, PairDataModule)
