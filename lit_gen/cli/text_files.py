"""What ``lit-gen sample`` reads text from and writes it to."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from lit_gen.core.errors import UsageError

if TYPE_CHECKING:
    from lit_gen.core.text import Vocabulary

SHOWN_UNKNOWN = 10
"""Unknown words that are named; of the others only the number is kept."""


class Unknown:
    """Collects the words of which a vocabulary lacks a part.

    Args:
        vocabulary: of the text.
    """

    def __init__(self, vocabulary: "Vocabulary") -> None:
        self.vocabulary, self.words, self.count = vocabulary, {}, 0

    def watch(self, lines: Iterable[str]) -> Iterator[str]:
        """Passes the lines on and looks at them."""
        from lit_gen.core.text import UNK

        for line in lines:
            if UNK in self.vocabulary.encode(line.strip()):
                for word in line.split():
                    if UNK in self.vocabulary.encode(word):
                        self.count += 1
                        if len(self.words) < SHOWN_UNKNOWN:
                            self.words[word] = True
            yield line

    def report(self) -> None:
        """One line on standard error, if there is something to say."""
        if self.count:
            from lit_gen.core.console import warn

            more = "" if self.count <= len(self.words) else f" ({self.count} words in all)"
            warn(f"unknown to the vocabulary: {', '.join(self.words)}{more}")


@contextmanager
def source_lines(source: str | None, source_file: str) -> Iterator[tuple[Iterable[str], bool]]:
    """The lines to translate, and whether somebody types them and waits for each answer.

    Raises:
        UsageError: the file is no text.
    """
    if source is not None:
        yield [" ".join(source.split())], False
    elif source_file == "-":
        yield sys.stdin, sys.stdin.isatty()
    else:
        path = Path(source_file)
        try:
            with path.open(encoding="utf-8") as file:
                yield file, False
        except UnicodeDecodeError as error:
            raise UsageError(f"--source-file {path}: not UTF-8 text ({error.reason} at byte {error.start})") from error


@contextmanager
def opened_for_writing(out: Path | None, source_file: str | None) -> Iterator[TextIO]:
    """The file to write to; standard output where there is none, or for "-".

    Raises:
        UsageError: the file is the one that is read.
    """
    if out is None or str(out) == "-":
        yield sys.stdout
        return
    if source_file not in (None, "-") and out.resolve() == Path(source_file).resolve():
        raise UsageError(f"--out {out} is the file that is read; accepted: another one")
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8") as file:
        yield file
