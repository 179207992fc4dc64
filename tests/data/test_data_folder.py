"""A user's own pictures: modes and sizes, classes, workers, resume, broken files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lit_gen.core.errors import UsageError
from lit_gen.core.images import ImageSpec
from lit_gen.data import ImageFolder


def save(path: Path, level: int, mode: str = "RGB", size: tuple[int, int] = (20, 14)) -> None:
    """A picture of one grey level, by which it is known again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level,) * 3).convert(mode, palette=Image.Palette.ADAPTIVE).save(path)


@pytest.fixture(scope="module")
def flat(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("flat")
    for i in range(23):
        save(
            root / f"sub{i % 2}" / f"{i}.png", level=10 * i, mode=("RGB", "L", "RGBA", "P")[i % 4], size=(9 + i, 30 - i)
        )
    (root / "notes.txt").write_text("no picture")
    save(root / ".hidden" / "x.png", level=255)
    return root


@pytest.fixture(scope="module")
def classes(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("classes")
    for i in range(30):
        save(root / ("cat", "dog", "eel")[i % 3] / f"{i}.jpg", level=8 * i, mode="L" if i % 2 else "RGB")
    return root


def levels(batches) -> list[list[int]]:
    return [(batch.image[:, 0, 0, 0] * 255).round().int().tolist() for batch in batches]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_pictures_of_any_mode_and_size(flat: Path, channels: int, workers: int):
    data = ImageFolder(str(flat), image_size=8, channels=channels, batch_size=5, num_workers=workers)
    assert data.spec == ImageSpec((channels, 8, 8), 0, (0.0, 1.0))
    batches = list(data.train_dataloader())
    assert all(b.image.shape[1:] == (channels, 8, 8) and b.image.dtype == torch.float32 for b in batches)
    assert sorted(level for batch in levels(batches) for level in batch) == [10 * i for i in range(23)]
    assert all((b.label == -1).all() for b in batches)


def test_workers_deliver_what_the_main_process_reads(flat: Path):
    options = {"image_size": 8, "batch_size": 5, "binarize": "static", "flip": True, "crop": 1}
    alone, workers = (ImageFolder(str(flat), num_workers=n, **options).train_dataloader() for n in (0, 2))
    for a, b in zip(alone, workers, strict=True):
        assert a.key == b.key
        assert torch.equal(a.image, b.image)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", [1, 2, 4])
def test_resume_in_mid_epoch(flat: Path, workers: int, taken: int):
    options = {"image_size": 8, "batch_size": 5, "num_workers": workers, "binarize": "dynamic"}

    def loader():
        return ImageFolder(str(flat), **options).train_dataloader()

    whole = two_epochs(loader())
    first = loader()
    iterator = iter(first)
    for _ in range(taken):
        next(iterator)  # workers have read further ahead than this
    resumed = loader()
    resumed.load_state_dict(first.state_dict())
    for a, b in zip(whole[taken:], two_epochs(resumed)):
        assert a.key == b.key
        assert torch.equal(a.image, b.image)


def two_epochs(loader) -> list:
    return [batch for _ in range(2) for batch in loader]


def test_class_folders(classes: Path):
    data = ImageFolder(
        str(classes), image_size=8, channels=1, num_classes=3, val_size=6, test_size=9, num_workers=0, labels=[0, 2]
    )
    assert data.spec.num_classes == 2
    assert [data.num_examples(s) for s in ("train", "val", "test")] == [8, 6, 6]
    seen = []
    for split in ("train", "val", "test"):
        for images, labels in data.clean_batches(split, batch_size=3):
            for image, label in zip(images, labels.tolist()):
                number = round(float(image.float().mean()) / 8)
                assert number % 3 == (0, 2)[label]
                seen.append(number)
    assert sorted(seen) == [i for i in range(30) if i % 3 != 1]


def test_semi_supervised_pictures(classes: Path):
    data = ImageFolder(str(classes), image_size=8, num_classes=3, num_labelled=6, num_workers=0)
    labels = torch.cat([b.label for b in data.train_dataloader()])
    assert torch.bincount(labels + 1).tolist() == [24, 2, 2, 2]


def test_test_pictures_in_their_own_folder(flat: Path, classes: Path):
    data = ImageFolder(str(flat), image_size=8, test_root=str(classes), num_workers=0)
    assert [data.num_examples(s) for s in ("train", "val", "test")] == [23, 0, 30]


def test_the_shorter_side_is_scaled_and_the_centre_kept(tmp_path: Path):
    pixels = np.zeros((10, 30, 3), dtype=np.uint8)
    pixels[:, :10, 0], pixels[:, 10:20, 1], pixels[:, 20:, 2] = 255, 255, 255
    Image.fromarray(pixels).save(tmp_path / "flag.png")
    data = ImageFolder(str(tmp_path), image_size=10, num_workers=0)
    image = next(iter(data.train_dataloader())).image[0]
    assert image[1].min() == 1.0
    assert image[0].max() == image[2].max() == 0.0


def test_pictures_are_turned_upright(tmp_path: Path):
    pixels = np.zeros((16, 16), dtype=np.uint8)
    pixels[:8] = 255  # stored bright above; orientation 3 says: turned by 180 degrees
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    data = ImageFolder(str(tmp_path), image_size=16, channels=1, num_workers=0)
    image = next(iter(data.train_dataloader())).image[0, 0]
    assert image[:8].max() == 0.0
    assert image[8:].min() == 1.0


def test_sixteen_bit_pictures_are_scaled(tmp_path: Path):
    Image.fromarray(np.full((8, 8), 128 * 256, dtype=np.uint16)).save(tmp_path / "a.png")
    data = ImageFolder(str(tmp_path), image_size=8, channels=1, num_workers=0)
    assert levels(data.train_dataloader()) == [[128]]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("content", [b"", b"not a picture", "truncated"])
def test_a_broken_picture_is_named_in_one_line(tmp_path: Path, workers: int, content):
    for i in range(4):
        save(tmp_path / f"{i}.png", level=i)
    if content == "truncated":
        Image.effect_noise((64, 64), 50).save(tmp_path / "bad.png")
        content = (tmp_path / "bad.png").read_bytes()[:300]
    (tmp_path / "bad.png").write_bytes(content)
    data = ImageFolder(str(tmp_path), image_size=8, num_workers=workers, batch_size=2)
    with pytest.raises(UsageError, match=r"cannot read the picture .*bad\.png") as caught:
        list(data.train_dataloader())
    assert "\n" not in str(caught.value)


def test_fingerprint_follows_the_files(tmp_path: Path):
    for i in range(4):
        save(tmp_path / f"{i}.png", level=i)
    before = ImageFolder(str(tmp_path), image_size=8).fingerprint
    assert before == ImageFolder(str(tmp_path), image_size=8, batch_size=2).fingerprint
    save(tmp_path / "4.png", level=4)
    assert before != ImageFolder(str(tmp_path), image_size=8).fingerprint


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_classes": 2}, r"num_classes = 2, but root = .* has 3 sub-folders \(cat, dog, eel\)"),
        ({"channels": 2}, "channels = 2"),
        ({"num_classes": -1}, "num_classes = -1"),
        ({"labels": [0]}, "the data has no labels"),
        ({"num_labelled": 3}, "num_labelled = 3"),
        ({"test_size": 30}, "test_size = 30; accepted: less than the 30"),
        ({"test_size": 3, "test_root": "x"}, "accepted: one of the two"),
        ({"root": "no/such/folder"}, "'no/such/folder' is not a folder"),
    ],
)
def test_mistakes_are_one_line(classes: Path, options: dict, named: str):
    with pytest.raises(UsageError, match=named) as caught:
        ImageFolder(**{"root": str(classes), **options}).setup()
    assert "\n" not in str(caught.value)


def test_a_folder_without_pictures(tmp_path: Path):
    with pytest.raises(UsageError, match="no pictures in root") as caught:
        ImageFolder(str(tmp_path)).setup()
    assert "\n" not in str(caught.value)
