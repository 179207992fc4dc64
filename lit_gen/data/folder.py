"""A user's own pictures."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from lit_gen.core.errors import UsageError
from lit_gen.core.images import UNLABELLED
from lit_gen.core.random import seeded_generator
from lit_gen.data.base import ImageDataModule
from lit_gen.data.splits import stratified
from lit_gen.data.stores import Pictures, PictureStore


class ImageFolder(ImageDataModule):
    """Pictures of any size, grey or colour, read by worker processes while the model trains.

    Without classes every picture under ``root`` is taken, however deep. With ``num_classes`` = K, ``root`` holds K
    sub-folders, one a class, numbered in the order of their names. Hidden files and folders are left out.

    Args:
        root: folder of the pictures.
        image_size: side of the square images: the shorter side is scaled to it, the centre is cut out.
        channels: 3 for colour, 1 for grey; pictures of the other kind are converted.
        num_classes: number of class sub-folders; 0 takes the pictures as unlabelled.
        val_size: pictures for validation, classes in proportion.
        test_size: pictures for testing, classes in proportion, chosen with ``split_seed``.
        test_root: folder of the test pictures, laid out as ``root``, instead of ``test_size``.
        num_workers: worker processes that read pictures; 0 reads in the main process.
        options: the other options of :class:`ImageDataModule`.

    Raises:
        UsageError: an option out of range; at setup, a missing folder, one without pictures, or with other class
            sub-folders than ``num_classes``; while reading, a broken picture, naming the file.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 64,
        channels: Literal[1, 3] = 3,
        num_classes: int = 0,
        val_size: int = 0,
        test_size: int = 0,
        test_root: str | None = None,
        num_workers: int = 2,
        **options: Any,
    ) -> None:
        if channels not in (1, 3):
            raise UsageError(f"channels = {channels}; accepted: 1 (grey) or 3 (colour)")
        for option, value in (("num_classes", num_classes), ("test_size", test_size), ("num_workers", num_workers)):
            if value < 0:
                raise UsageError(f"{option} = {value}; accepted: 0 or more")
        if test_root is not None and test_size:
            raise UsageError(f"test_size = {test_size} with test_root = {test_root!r}; accepted: one of the two")
        self.root, self.test_root, self.test_size = root, test_root, test_size
        self.channels, self.num_workers = channels, num_workers
        self.name = Path(root).name
        self.native_shape = (channels, image_size, image_size)
        self.all_classes = tuple(str(k) for k in range(num_classes))
        self._listing: tuple[list[Path], Tensor] | None = None
        super().__init__(image_size=image_size, val_size=val_size, **options)

    def read(self, part: Literal["train", "test"]) -> tuple[PictureStore, Tensor]:
        if self.test_root is not None:
            paths, labels = list_pictures(self.root if part == "train" else self.test_root, len(self.all_classes))
        else:
            if self._listing is None:
                self._listing = list_pictures(self.root, len(self.all_classes))
            paths, labels = self._listing
            if self.test_size >= len(paths):
                raise UsageError(f"test_size = {self.test_size}; accepted: less than the {len(paths)} pictures")
            in_test = torch.zeros(len(labels), dtype=torch.bool)
            in_test[stratified(labels, self.test_size, self.split_seed, "folder test")] = True
            kept = in_test if part == "test" else ~in_test
            paths, labels = [paths[i] for i in kept.nonzero().flatten().tolist()], labels[kept]
        self.saw(part, *map(_name_and_size, paths), labels.numpy())
        return PictureStore(Pictures(paths, self.spec.shape), self.num_workers), labels

    def _identity(self) -> list[Any]:
        digest = hashlib.sha256()
        for split in ("train", "test"):
            for path in self.split(split).clean.pictures.paths:
                digest.update(_name_and_size(path).encode())
        return [*super()._identity(), len(self.all_classes), digest.hexdigest()]


def _name_and_size(path: Path) -> str:
    """What stands for a file's content."""
    return f"{path.parent.name}/{path.name} {path.stat().st_size}\n"


def list_pictures(root: str, num_classes: int) -> tuple[list[Path], Tensor]:
    """Picture files under ``root`` and their labels int64 ``[N]``, in a shuffled order that is always the same.

    Shuffled, so that the first thousand are a fair sample even where the files are sorted by class.

    Raises:
        UsageError: see :class:`ImageFolder`.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise UsageError(f"root = {root!r} is not a folder; expected a folder of pictures")
    if num_classes == 0:
        paths = _pictures(folder)
        labels = [UNLABELLED] * len(paths)
    else:
        classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
        if len(classes) != num_classes:
            names = ", ".join(p.name for p in classes[:10]) + (", ..." if len(classes) > 10 else "")
            raise UsageError(
                f"num_classes = {num_classes}, but root = {root!r} has {len(classes)} sub-folders ({names or 'none'})"
            )
        members = [_pictures(p) for p in classes]
        paths = [path for each in members for path in each]
        labels = [k for k, each in enumerate(members) for _ in each]
    if not paths:
        raise UsageError(f"no pictures in root = {root!r}; accepted: {' '.join(sorted(_extensions()))}")
    order = torch.randperm(len(paths), generator=seeded_generator("folder order"))
    return [paths[i] for i in order.tolist()], torch.tensor(labels, dtype=torch.int64)[order]


def _extensions() -> set[str]:
    opens = Image.registered_extensions()
    return {extension for extension, kind in opens.items() if kind in Image.OPEN and kind not in ("PDF", "MPEG")}


def _pictures(folder: Path) -> list[Path]:
    known = _extensions()
    inside = (p for p in sorted(folder.rglob("*")) if p.suffix.lower() in known)
    visible = (p for p in inside if not any(part.startswith(".") for part in p.relative_to(folder).parts))
    return [p for p in visible if p.is_file()]
