"""``lit-gen sample``: pictures, arrays or text from a run or a checkpoint."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from lit_gen.cli import text
from lit_gen.cli.arguments import OneLineParser
from lit_gen.core.errors import UsageError, require

CHUNK = 256  # images drawn at once: memory does not grow with --n


def make_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="lit-gen sample",
        description="Images from a run or a checkpoint (samples, or one of the pictures below), or text.",
        epilog="A .npz holds `images` [rows * n, C, H, W], row after row, `rows` (what each row is) and `value_range`.",
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("run", metavar="RUN_OR_CKPT", help="a run directory (its best checkpoint) or a checkpoint")
    parser.add_argument(
        "--n", type=int, help="number of images, chains or filters (default 64), or of texts (default 1)"
    )
    parser.add_argument(
        "--out", type=Path, help="grid.png (default) or samples.npz; a text file (default: standard output)"
    )
    parser.add_argument("--seed", type=int, help="same seed, same images or texts (default 0)")
    parser.add_argument("--class-label", type=int, help="the class of all images, for conditional models")
    parser.add_argument("--chain-steps", type=int, metavar="N",
                        help="length of the Markov chains behind samples, --complete and --denoise, for models that have "
                        "them (default: the model's own)")  # fmt: skip
    pictures = parser.add_argument_group("pictures (one of them)")
    mode = pictures.add_mutually_exclusive_group()
    for words, shown in {
        ("--interpolate",): "a walk between four latent codes",
        ("--reconstruct",): "test images, each above its reconstruction",
        ("--complete",): "test images, what the model sees of them (see --hide), its completion",
        ("--filters",): "the weights of the first n hidden units, each by its own largest, zero in mid-grey",
        ("--trajectory", "--over-time"): "chains of the model, a row for each number of steps (see --steps)",
    }.items():
        mode.add_argument(*words, dest="kind", action="store_const", const=words[0][2:], default="samples", help=shown)
    mode.add_argument("--denoise", type=float, metavar="FLIP",
                      help="test images, the same with pixels flipped at this rate, what the model makes of those")  # fmt: skip
    pictures.add_argument("--hide", choices=("lower", "upper", "left", "right"),
                          help="the half that --complete hides (default lower)")  # fmt: skip
    pictures.add_argument("--steps", type=numbers, metavar="N,N,...",
                          help="when --trajectory looks (default 1,10,100,1000)")  # fmt: skip
    text.add_options(parser)
    return parser


def numbers(text: str) -> list[int]:
    """The integers of a list with commas."""
    return [int(word) for word in text.split(",")]


def checked_options(args: list[str]) -> argparse.Namespace:
    """The options, with ``kind``: samples, or the picture that was asked for.

    Raises:
        UsageError: an option that is not known, out of range or without effect.
    """
    options = make_parser().parse_args(args)
    if options.denoise is not None:
        options.kind = "denoise"
        require(0 < options.denoise < 0.5, "--denoise", options.denoise, "a number between 0 and 0.5")
    for option in ("n", "chain_steps"):
        value = getattr(options, option)
        if value is not None and value < 1:
            raise UsageError(f"--{option.replace('_', '-')} {value}: accepted is 1 or more")
    if options.steps is not None:
        if options.kind != "trajectory":
            raise UsageError("--steps belongs to --trajectory")
        if any(a >= b for a, b in zip([0, *options.steps], options.steps)):
            raise UsageError(f"--steps {options.steps}: accepted are increasing numbers of 1 or more")
    text.check_options(options)
    for_text = text.given(options, text.TEXT)
    for name in picture_options(options) if for_text else ():
        raise UsageError(f"{name} makes pictures, {text.spelled(for_text[0])} text; accepted is one of them")
    return options


def picture_options(options: argparse.Namespace) -> list[str]:
    """The options for pictures alone that were written."""
    kind = [] if options.kind == "samples" else [f"--{options.kind}"]
    return kind + [text.spelled(name) for name in text.given(options, ("class_label", "chain_steps", "hide", "steps"))]


def check_images(model: Any, options: argparse.Namespace) -> None:
    """Fills in what was not said of images.

    Raises:
        UsageError: an option for text, or a file that is no picture and no array.
    """
    for name in text.given(options, text.TEXT):
        raise UsageError(f"{text.spelled(name)} is for text: a {type(model).__name__} makes images")
    defaults = {"n": 64, "out": Path("grid.png"), "seed": 0, "hide": "lower"}
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.out.suffix not in (".png", ".npz"):
        raise UsageError(f"--out {options.out}: accepted is a file name ending in .png or .npz")


def main(command: str, args: list[str]) -> int:
    """Runs ``lit-gen sample``; returns the exit code."""
    options = checked_options(args)

    # heavy imports only after the words are known to be right
    import torch

    from lit_gen.callbacks.views import View
    from lit_gen.cli.pictures import set_chain_steps, view
    from lit_gen.cli.run import checkpoint_of, quiet_lightning
    from lit_gen.core.checkpoint import load_model
    from lit_gen.core.text import TextSpec

    quiet_lightning()
    path = checkpoint_of(options.run)
    model = load_model(path)
    if isinstance(model.spec, TextSpec):
        for name in picture_options(options):
            raise UsageError(f"{name} makes pictures: a {type(model).__name__} makes text")
        return text.main(model, options)
    check_images(model, options)
    if options.chain_steps is not None:
        set_chain_steps(model, options.kind, options.chain_steps)
    generator = torch.Generator().manual_seed(options.seed)
    label = chosen_label(model, options.class_label, options.n)
    with torch.no_grad():
        if options.kind == "samples":
            seen = View(in_chunks(model, options.n, label, generator)[None], ("sample",), model.spec.value_range)
        elif options.kind == "interpolate":
            side = max(2, round(math.sqrt(options.n)))
            walk = four_corner_walk(model, side, label, generator)
            seen = View(walk[None], ("walk",), model.spec.value_range, columns=side)
        else:
            seen = view(model, path, options, generator)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write(seen, options.out)
    images = seen.images.flatten(0, 1)
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


def write(view: Any, out: Path) -> None:
    """Writes a view as a PNG picture, or as an NPZ array: float32, in the spec's range (filters: as they are)."""
    import numpy as np
    from torchvision.utils import save_image

    if out.suffix == ".png":
        save_image(view.draw(), out)
        return
    images = view.images.flatten(0, 1).float().cpu().numpy()
    largest = abs(images).max()
    np.savez(
        out, images=images, rows=np.array(view.rows), value_range=np.array(view.value_range or (-largest, largest))
    )
