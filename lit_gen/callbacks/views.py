"""What a model lets one see: its filters, its chains over time, and what it makes of images that it is given.

A model offers a view by having the method of its name: ``filters()``, ``trajectory(n, steps, generator)``,
``reconstruct(image)``, ``complete(image, mask, generator)``, ``denoise(image, flip, generator)``.

References:
    Hinton, A Practical Guide to Training Restricted Boltzmann Machines, 2012, section 15 (what to display).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gen.callbacks.sample_grid import tiled
from lit_gen.core.errors import UsageError, require

Kind = Literal["filters", "trajectory", "reconstruct", "complete", "denoise"]
Half = Literal["lower", "upper", "left", "right"]
LACKS: dict[str, str] = {
    "filters": "has no filters",
    "trajectory": "has no chains to look at",
    "reconstruct": "cannot reconstruct images",
    "complete": "cannot complete images",
    "denoise": "cannot denoise images",
}
"""All kinds of view, each with what is said of a model that does not offer it."""
COLUMNS = 16
STEPS = (1, 10, 100, 1000)


class View(NamedTuple):
    """Rows of images that belong together column by column.

    images: ``[R, N, C, H, W]``.
    rows: what each of the R rows shows.
    value_range: of the pixels; None: each image is drawn by its own largest absolute value, zero in mid-grey.
    columns: images in a line of a view that has one row only; about a square where None.
    """

    images: Tensor
    rows: tuple[str, ...]
    value_range: tuple[float, float] | None
    columns: int | None = None

    def draw(self) -> Tensor:
        """One picture ``[3, height, width]`` in [0, 1]; the rows are broken into blocks of sixteen columns."""
        images, value_range, pad = self.images, self.value_range, 0.25  # darker than what is hidden
        if value_range is None:
            largest = images.abs().amax((-3, -2, -1), keepdim=True)
            images, value_range, pad = images / largest.clamp_min(torch.finfo(images.dtype).tiny), (-1.0, 1.0), 0.0
        if len(images) == 1:
            return tiled(images[0], value_range, self.columns, pad=pad)
        blocks = [tiled(part.flatten(0, 1), value_range, part.shape[1], pad=pad) for part in images.split(COLUMNS, 1)]
        width, gap = blocks[0].shape[-1], 8
        framed = [F.pad(block, (0, width - block.shape[-1], 0, gap), value=pad) for block in blocks]
        return torch.cat(framed, -2)[:, :-gap]


def offers(model: Any, kind: str) -> bool:
    """Whether the model has the method of this kind of view."""
    return callable(getattr(model, kind, None))


def check_offered(model: Any, kind: str, option: str) -> None:
    """Compares a wish with what the model can.

    Raises:
        UsageError: the model does not offer the view.
    """
    if not offers(model, kind):
        raise UsageError(f"{option}: a {type(model).__name__} {LACKS[kind]}")


def check_flip(flip: float, option: str = "flip") -> None:
    """Raises a UsageError unless flip is a probability at which something is left of an image."""
    require(0 < flip < 0.5, option, flip, "a number between 0 and 0.5")


def check_steps(steps: Sequence[int], option: str = "steps") -> None:
    """Raises a UsageError unless the steps are the lengths of a chain that only grows."""
    grows = all(a < b for a, b in zip([0, *steps], steps))
    require(len(steps) > 0 and grows, option, ",".join(map(str, steps)), "increasing numbers of 1 or more")


def half_hidden(size: Sequence[int], hide: str) -> Tensor:
    """A mask ``[1, 1, H, W]``: 1 in the half that is hidden, 0 where the pixel is shown."""
    mask = torch.zeros(1, 1, *size)
    height, width = size
    rows = {"lower": slice(height // 2, None), "upper": slice(None, height // 2)}.get(hide, slice(None))
    columns = {"left": slice(None, width // 2), "right": slice(width // 2, None)}.get(hide, slice(None))
    mask[:, :, rows, columns] = 1
    return mask


# -------------------------------------------------------------------- the views


def filters(model: Any, n: int) -> View:
    """The first n filters, as they are."""
    return View(model.filters()[:n].unsqueeze(0), ("filter",), None)


def trajectory(model: Any, n: int, steps: Sequence[int], generator: torch.Generator | None = None) -> View:
    """n chains, one row for each of these numbers of steps."""
    seen = model.trajectory(n, list(steps), generator=generator)
    return View(seen, tuple(f"{step} steps" for step in steps), model.spec.value_range)


def reconstruct(model: Any, image: Tensor, label: Tensor | None = None) -> View:
    """Images ``[N, C, H, W]`` above their reconstructions; conditional models are told the labels ``[N]``."""
    told = () if label is None or not getattr(model, "conditional", False) else (label,)
    return View(
        torch.stack([image, model.reconstruct(image, *told)]), ("image", "reconstruction"), model.spec.value_range
    )


def complete(model: Any, image: Tensor, hide: str, generator: torch.Generator | None = None) -> View:
    """Images ``[N, C, H, W]``, what the model sees of them (the rest is drawn grey), and their completions."""
    mask = half_hidden(image.shape[-2:], hide).to(image.device).expand(len(image), -1, -1, -1)
    completed = model.complete(image, mask, generator=generator)
    seen = torch.where(mask.bool(), sum(model.spec.value_range) / 2, image)
    return View(torch.stack([image, seen, completed]), ("image", "seen", "completion"), model.spec.value_range)


def denoise(model: Any, image: Tensor, flip: float, generator: torch.Generator | None = None) -> View:
    """Images ``[N, C, H, W]``, the same with each pixel flipped with this probability, and what the model makes of those."""
    flipped = torch.rand(image.shape, generator=generator, device=image.device) < flip
    noisy = torch.where(flipped, sum(model.spec.value_range) - image, image)
    denoised = model.denoise(noisy, flip, generator=generator)
    return View(torch.stack([image, noisy, denoised]), ("image", "noisy", "denoised"), model.spec.value_range)
