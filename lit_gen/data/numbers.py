"""Numbers and how languages say them: real language without a download."""

from __future__ import annotations

import torch
from num2words import CONVERTER_CLASSES, num2words

from lit_gen.core.errors import UsageError, require
from lit_gen.core.random import seeded_generator
from lit_gen.data.module import SPLITS

LIMIT = 1_000_000


def draw_numbers(sizes: dict[str, int], seed: int) -> dict[str, list[int]]:
    """Different numbers from 0 to 999,999 for the splits "train", "val" and "test", drawn at random from a seed.

    Raises:
        UsageError: a size out of range, or all of them together.
    """
    require(sizes["train"] >= 1, "train_size", sizes["train"], "1 or more")
    for split in SPLITS:
        require(sizes[split] >= 0, f"{split}_size", sizes[split], "0 or more")
    total = sum(sizes[split] for split in SPLITS)
    require(total <= LIMIT, "train_size + val_size + test_size", total, f"at most {LIMIT}")
    drawn = torch.randperm(LIMIT, generator=seeded_generator(seed, "number words"))[:total]
    return {split: part.tolist() for split, part in zip(SPLITS, drawn.split([sizes[split] for split in SPLITS]))}


def check_language(option: str, language: str) -> None:
    """Raises a UsageError where num2words does not speak the language."""
    if language not in CONVERTER_CLASSES:
        raise UsageError(f"{option} = {language!r}; accepted: {', '.join(sorted(CONVERTER_CLASSES))}")


def in_words(numbers: list[int], language: str) -> list[str]:
    """What the numbers are called in a language, e.g. "vierundsechzig", by the library num2words."""
    return [num2words(number, lang=language) for number in numbers]
