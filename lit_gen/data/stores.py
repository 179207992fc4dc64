"""Where the images of a split are: in memory, or in files read by worker processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lit_gen.core.errors import UsageError
from lit_gen.core.random import seeded_generator
from lit_gen.data.transforms import WORD, bernoulli


class ImageStore(Protocol):
    """Images by number."""

    def __len__(self) -> int: ...

    def stream(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """For every int64 ``[B]`` of numbers their images, uint8 ``[B, C, H, W]``."""
        ...

    def binarized(self, seed: int, name: str) -> "ImageStore":
        """The same store with every pixel set to 0 or 255 once for all, a function of (seed, name, image)."""
        ...


class MemoryStore:
    """All images in one tensor; a batch is one ``index_select``.

    Args:
        images: uint8 ``[N, C, H, W]``.
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images.contiguous()

    def __len__(self) -> int:
        return self.images.shape[0]

    def stream(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        return (self.images.index_select(0, index) for index in batches)

    def binarized(self, seed: int, name: str) -> "MemoryStore":
        generator = seeded_generator(seed, "static", name)
        return MemoryStore(torch.cat([_drawn(chunk, generator) for chunk in self.images.split(8192)]))


def _drawn(images: Tensor, generator: torch.Generator) -> Tensor:
    words = torch.randint(WORD, (len(images), -(-images[0].numel() // 4)), generator=generator)
    return bernoulli(images, words).mul_(255).byte()


@dataclass(frozen=True)
class Pictures(Dataset):
    """Picture files: opened, turned upright, made grey or colour, scaled on the shorter side, cut to the centre.

    ``__getitems__`` returns a tensor, or the message for the user: an exception would come out of a worker with its
    whole traceback as the message.

    Args:
        paths: the files.
        shape: (channels, height, width) of the result.
        static: (seed, name) of the static binarisation, or None.
    """

    paths: list[Path]
    shape: tuple[int, int, int]
    static: tuple[int, str] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Tensor:
        """One picture, uint8 ``[C, H, W]``."""
        channels, height, width = self.shape
        with Image.open(self.paths[number]) as picture:
            picture.draft(None, (2 * width, 2 * height))  # JPEG decodes at a fraction of its size, where that suffices
            picture = ImageOps.exif_transpose(picture)
            if picture.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip instead of scale
                picture = Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
            picture = picture.convert("L" if channels == 1 else "RGB")
            pixels = np.array(ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR))
        image = rearrange(torch.from_numpy(pixels), "h w c -> c h w" if pixels.ndim == 3 else "h w -> 1 h w")
        if self.static is not None:
            seed, name = self.static
            image = _drawn(image[None], seeded_generator(seed, "static", name, number))[0]
        return image

    def __getitems__(self, numbers: list[int]) -> Tensor | str:
        images = []
        for number in numbers:
            try:
                images.append(self[number])
            except Exception as error:  # whatever a decoder throws at a broken file, the user needs the file's name
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                return f"cannot read the picture {self.paths[number]}: {reason}"
        return torch.stack(images)


def _as_fetched(batch: Tensor | str) -> Tensor | str:
    return batch


class PictureStore:
    """Picture files read by worker processes, which start at the first batch asked for and read ahead of the training.

    Args:
        pictures: the files and what to make of them.
        num_workers: number of worker processes; 0 reads in this one.
    """

    def __init__(self, pictures: Pictures, num_workers: int = 2) -> None:
        self.pictures, self.num_workers = pictures, num_workers

    def __len__(self) -> int:
        return len(self.pictures)

    def stream(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        loader = DataLoader(
            self.pictures,
            batch_sampler=[index.tolist() for index in batches],
            num_workers=self.num_workers,
            collate_fn=_as_fetched,
            generator=torch.Generator(),  # the loader draws its workers' seed from it, not from the global generator
        )
        for images in loader:
            if isinstance(images, str):
                raise UsageError(images)
            yield images

    def binarized(self, seed: int, name: str) -> "PictureStore":
        return PictureStore(Pictures(self.pictures.paths, self.pictures.shape, (seed, name)), self.num_workers)
