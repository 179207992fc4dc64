"""``lit-gen sample``: pictures or arrays from a run or a checkpoint."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any, NoReturn

from lit_gen.core.errors import UsageError

CHUNK = 256  # images drawn at once: memory does not grow with --n


class OneLineParser(argparse.ArgumentParser):
    """Reports a mistake as a :class:`UsageError` instead of printing the usage."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (lit-gen sample --help lists the options)")


def make_parser() -> OneLineParser:
    parser = OneLineParser(prog="lit-gen sample", description="Images from a run or a checkpoint.", allow_abbrev=False)
    parser.add_argument("source", metavar="RUN_OR_CKPT", help="a run directory (its best checkpoint) or a checkpoint")
    parser.add_argument("--n", type=int, default=64, help="number of images (default 64)")
    parser.add_argument("--out", type=Path, default=Path("grid.png"), help="grid.png (default) or samples.npz")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same images (default 0)")
    parser.add_argument("--class-label", type=int, help="the class of all images, for conditional models")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--interpolate", action="store_true", help="walk between four latent codes")
    mode.add_argument("--reconstruct", action="store_true", help="test images, each above its reconstruction")
    mode.add_argument(
        "--complete", action="store_true", help="test images, what the model sees of them, its completion"
    )
    parser.add_argument("--hide", choices=("lower", "upper", "left", "right"), default="lower",
                        help="the half that --complete hides (default lower)")  # fmt: skip
    return parser


def main(command: str, args: list[str]) -> int:
    """Runs ``lit-gen sample``; returns the exit code."""
    options = make_parser().parse_args(args)
    if options.n < 1:
        raise UsageError(f"--n {options.n}: accepted is 1 or more")
    if options.out.suffix not in (".png", ".npz"):
        raise UsageError(f"--out {options.out}: accepted is a file name ending in .png or .npz")

    # heavy imports only after the words are known to be right
    import torch

    from lit_gen.cli.run import checkpoint_of, quiet_lightning
    from lit_gen.core.checkpoint import load_model

    quiet_lightning()
    path = checkpoint_of(options.source)
    model = load_model(path)
    generator = torch.Generator().manual_seed(options.seed)
    label = chosen_label(model, options.class_label, options.n)
    columns = None
    with torch.no_grad():
        if options.interpolate:
            columns = max(2, round(math.sqrt(options.n)))
            images = four_corner_walk(model, columns, label, generator)
        elif options.reconstruct or options.complete:
            images, columns = from_test_images(model, path, options, generator)
        else:
            images = in_chunks(model, options.n, label, generator)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write(images, model.spec, options.out, columns)
    print(f"{len(images)} images of shape {list(images.shape[1:])} from {path} -> {options.out}")
    return 0


def chosen_label(model: Any, class_label: int | None, n: int) -> Any:
    """The label of all images, or None where the model draws them.

    Raises:
        UsageError: the model is unconditional, or has no such class.
    """
    import torch

    if class_label is None:
        return None
    if not getattr(model, "conditional", False):
        raise UsageError(f"--class-label {class_label}: this {type(model).__name__} is unconditional")
    if not 0 <= class_label < model.spec.num_classes:
        raise UsageError(f"--class-label {class_label}: accepted are 0 to {model.spec.num_classes - 1}")
    return torch.full((n,), class_label)


def in_chunks(model: Any, n: int, label: Any, generator: Any) -> Any:
    """n samples, drawn a chunk at a time from one generator."""
    import torch

    starts = range(0, n, CHUNK)
    parts = [
        model.sample(
            min(CHUNK, n - start), label=None if label is None else label[start : start + CHUNK], generator=generator
        )
        for start in starts
    ]
    return torch.cat(parts)


def four_corner_walk(model: Any, side: int, label: Any, generator: Any) -> Any:
    r"""A ``side`` x ``side`` walk between four codes, on the sphere that normal codes lie near.

    .. math:: z(a, b) = \cos a\,(\cos b\,z_0 + \sin b\,z_1) + \sin a\,(\cos b\,z_2 + \sin b\,z_3), \quad a, b \in [0, \pi/2]

    Raises:
        UsageError: the model has no latent code.
    """
    import torch

    if not hasattr(model, "from_latent"):
        raise UsageError(f"--interpolate: {type(model).__name__} has no latent code")
    z0, z1, z2, z3 = torch.randn(4, model.latent_dim, generator=generator)
    angles = torch.linspace(0, math.pi / 2, side)
    a, b = (angle.reshape(-1, 1) for angle in torch.meshgrid(angles, angles, indexing="ij"))
    z = a.cos() * (b.cos() * z0 + b.sin() * z1) + a.sin() * (b.cos() * z2 + b.sin() * z3)
    if getattr(model, "conditional", False):
        one = torch.randint(model.spec.num_classes, (1,), generator=generator) if label is None else label[:1]
        return model.from_latent(z, one.expand(len(z)))
    return model.from_latent(z)


def from_test_images(model: Any, checkpoint: Path, options: argparse.Namespace, generator: Any) -> tuple[Any, int]:
    """Rows of test images, each above what the model makes of it; and the number of columns."""
    import torch

    method = "complete" if options.complete else "reconstruct"
    if not hasattr(model, method):
        raise UsageError(f"--{method}: a {type(model).__name__} cannot {method} images")
    image, label = first_test_images(checkpoint, options.n)
    if not getattr(model, "conditional", False):
        label = None
    if options.complete:
        mask = half_hidden(image.shape[-2:], options.hide).expand(len(image), -1, -1, -1)
        seen = torch.where(mask.bool(), torch.full_like(image, sum(model.spec.value_range) / 2), image)
        rows = [image, seen, model.complete(image, mask, generator=generator)]
    else:
        rows = [image, model.reconstruct(image, label) if label is not None else model.reconstruct(image)]
    columns = min(len(image), 16)
    blocks = [row[start : start + columns] for start in range(0, len(image), columns) for row in rows]
    return torch.cat(blocks), columns


def half_hidden(size: Any, hide: str) -> Any:
    """A mask ``[1, 1, H, W]``: 1 in the half that is hidden, 0 where the pixel is shown."""
    import torch

    mask = torch.zeros(1, 1, *size)
    height, width = size
    rows = {"lower": slice(height // 2, None), "upper": slice(None, height // 2)}.get(hide, slice(None))
    columns = {"left": slice(None, width // 2), "right": slice(width // 2, None)}.get(hide, slice(None))
    mask[:, :, rows, columns] = 1
    return mask


def first_test_images(checkpoint: Path, n: int) -> tuple[Any, Any]:
    """The first n test images and labels of the data that the run was made with.

    Raises:
        UsageError: the checkpoint does not lie in a run directory.
    """
    import torch
    import yaml
    from jsonargparse import ArgumentParser
    from pytorch_lightning import LightningDataModule

    config = checkpoint.resolve().parent.parent / "config.yaml"
    if not config.is_file():
        raise UsageError(f"{checkpoint} does not lie in a run directory, whose config.yaml would name the test images")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    data = parser.instantiate_classes(parser.parse_object({"data": yaml.safe_load(config.read_text())["data"]})).data
    data.prepare_data()
    data.setup("test")
    images, labels = [], []
    for batch in data.test_dataloader():
        batch = data.on_after_batch_transfer(batch, 0)
        images.append(batch.image)
        labels.append(batch.label)
        if sum(map(len, images)) >= n:
            break
    return torch.cat(images)[:n], torch.cat(labels)[:n]


def write(images: Any, spec: Any, out: Path, columns: int | None) -> None:
    """Writes a grid as PNG, or the raw array (float32, in the spec's range) as NPZ."""
    import numpy as np
    from torchvision.utils import save_image

    from lit_gen.callbacks.sample_grid import to_grid

    if out.suffix == ".png":
        save_image(to_grid(images, spec, columns), out)
    else:
        np.savez(out, images=images.float().cpu().numpy(), value_range=np.array(spec.value_range))
