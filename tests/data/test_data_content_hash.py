"""The hash of the data as it was read: the same for the same data under any options, another for other data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_gen.data import Digits, ImageFolder, NumberText, NumberWords, PlainText


def test_options_do_not_change_it() -> None:
    plain = Digits().content_hash
    assert Digits(image_size=16, binarize="static", val_size=50, value_range="symmetric").content_hash == plain
    assert len(plain) == 16


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        (NumberText(train_size=50), NumberText(train_size=50, batch_size=3), NumberText(train_size=51)),
        (
            NumberWords(train_size=50),
            NumberWords(train_size=50, vocab_size=99),
            NumberWords(train_size=50, target="fr"),
        ),
    ],
)
def test_texts(one, same, other) -> None:
    assert one.content_hash == same.content_hash != other.content_hash


def test_one_changed_character_changes_it(tmp_path: Path) -> None:
    hashes = []
    for text in ("to be or not to be" * 20, "to be or not to bf" * 20):
        (tmp_path / "a.txt").write_text(text)
        hashes.append(PlainText(str(tmp_path / "a.txt")).content_hash)
    assert hashes[0] != hashes[1]


def test_folder_of_pictures(tmp_path: Path) -> None:
    for number in range(4):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(tmp_path / f"{number}.png")
    one = ImageFolder(root=str(tmp_path), image_size=8, test_size=1, val_size=1).content_hash
    assert ImageFolder(root=str(tmp_path), image_size=4, test_size=1, val_size=1).content_hash == one
    (tmp_path / "0.png").unlink()
    assert ImageFolder(root=str(tmp_path), image_size=8, test_size=1, val_size=1).content_hash != one
