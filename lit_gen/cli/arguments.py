"""What the commands with options of their own share: mistakes in one line, and kinds of values."""

from __future__ import annotations

import argparse
from typing import NoReturn

from lit_gen.core.errors import UsageError


class OneLineParser(argparse.ArgumentParser):
    """Reports a mistake as a :class:`UsageError` instead of printing the usage."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message.removeprefix('argument ')} ({self.prog} --help lists the options)")


def positive(text: str) -> int:
    """An integer of 1 or more."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: an integer of 1 or more")
    return int(text)


def joined(args: list[str], *options: str) -> list[str]:
    """The words with each value joined to its option: argparse takes one that starts with dashes for an option."""
    found, words = [], iter(args)
    for word in words:
        value = next(words, None) if word in options else None
        found.append(word if value is None else f"{word}={value}")
    return found
