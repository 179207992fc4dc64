"""Running text: NumberText (embedded), tiny Shakespeare, and a user's own corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lit_gen.core.errors import UsageError, require
from lit_gen.data.corpus import TextCorpus
from lit_gen.data.numbers import check_language, draw_numbers, in_words
from lit_gen.data.text_files import DataFile, read_text

LAYOUTS = (
    ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"),
    ("wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"),
)
"""Training, validation and test file of Penn Treebank (Mikolov's) and of WikiText."""


class NumberText(TextCorpus):
    """Numbers from 0 to 999,999 in words, one a line: running text that needs no download.

    No number is in two splits.

    Args:
        language: one that the library num2words speaks.
        train_size: numbers in the training text.
        val_size: numbers in the validation text.
        test_size: numbers in the test text.
        split_seed: seed of the choice of numbers; the run's seed has no influence on it.
        options: the options of :class:`TextCorpus`.
    """

    name = "number_text"

    def __init__(
        self,
        language: str = "en",
        train_size: int = 10000,
        val_size: int = 500,
        test_size: int = 500,
        split_seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_language("language", language)
        self.language = language
        self.numbers = draw_numbers({"train": train_size, "val": val_size, "test": test_size}, split_seed)

    def read(self, split: str) -> str:
        return "".join(f"{words}\n" for words in in_words(self.numbers[split], self.language))


class TinyShakespeare(TextCorpus):
    """A megabyte of Shakespeare's plays: 1,115,394 characters of 65 kinds.

    The first 90 % are the training text, the rest is for validation. There is no other part: "test" is the same text as
    "val", so a checkpoint that was chosen on it is tested on what it was chosen by, as is usual with this data.

    Args:
        root: folder of the data; the file is ``tinyshakespeare/input.txt`` below it.
        download: fetch the file into ``root`` where it is missing (one process of each node does).
        options: the options of :class:`TextCorpus`.

    References:
        Karpathy, The unreasonable effectiveness of recurrent neural networks, 2015, github.com/karpathy/char-rnn.
    """

    name = "tinyshakespeare"
    url = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"

    def __init__(self, root: str = "data", download: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.root, self.download = root, download

    def _file(self) -> DataFile:
        return DataFile(self.root, ("tinyshakespeare/input.txt",), self.url)

    def prepare_data(self) -> None:
        """Downloads the file where it is missing and that is allowed.

        Raises:
            UsageError: it is missing and cannot be downloaded.
        """
        if self.download:
            self._file().download()

    def read(self, split: str) -> str:
        return held_out(self._file().read(self.download), 0.1)[split != "train"]


class PlainText(TextCorpus):
    """A user's own text.

    Args:
        train: path of the training text; or of a folder that has the three files of Penn Treebank (``ptb.train.txt``,
            ``ptb.valid.txt``, ``ptb.test.txt``) or of WikiText (``wiki.train.tokens``, ...). Files may be compressed
            (``.gz``) where they are named one by one.
        val: path of the validation text; None: the end of the training text.
        test: path of the test text; None: the validation text.
        val_fraction: characters at the end of the training text for validation, where that has no file of its own.
        options: the options of :class:`TextCorpus`.

    Raises:
        UsageError: at setup, a file is missing or cannot be read, or the folder has another layout.
    """

    def __init__(
        self, train: str, val: str | None = None, test: str | None = None, val_fraction: float = 0.1, **options: Any
    ) -> None:
        super().__init__(**options)
        require(0 <= val_fraction < 1, "val_fraction", val_fraction, "0 up to, but not, 1")
        self.paths, self.val_fraction = {"train": train, "val": val, "test": test}, val_fraction
        self.name = Path(train).name.split(".")[0]

    def _files(self) -> dict[str, Path | None]:
        folder = Path(self.paths["train"])
        if not folder.is_dir():
            return {split: None if path is None else Path(path) for split, path in self.paths.items()}
        for layout in LAYOUTS:
            files = [folder / name for name in layout]
            if all(file.is_file() for file in files):
                return dict(zip(("train", "val", "test"), files))
        accepted = "; or ".join(", ".join(layout) for layout in LAYOUTS)
        raise UsageError(f"train = {str(folder)!r}; accepted: a file, or a folder with {accepted}")

    def read(self, split: str) -> str:
        files = self._files()
        own = files["val"] if split == "test" and files["test"] is None else files[split]
        if own is not None and (split != "train" or files["val"] is not None):
            return read_text(own)
        return held_out(read_text(files["train"]), self.val_fraction)[split != "train"]


def held_out(text: str, fraction: float) -> tuple[str, str]:
    """A text without its end, and the end: this fraction of its characters."""
    kept = int(len(text) * (1 - fraction))
    return text[:kept], text[kept:]
