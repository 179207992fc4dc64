"""The pictures of ``lit-gen sample`` that are more than samples: filters, chains over time, answers to test images."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import yaml
from jsonargparse import ArgumentParser
from pytorch_lightning import LightningDataModule
from torch import Tensor

from lit_gen.callbacks import views
from lit_gen.callbacks.views import View
from lit_gen.core.errors import UsageError
from lit_gen.core.module import GenerativeModule

CHAINS = {"samples": "sample_steps", "complete": "posterior_steps", "denoise": "posterior_steps"}
"""Where models keep the length of the chains behind each kind of picture."""


def view(model: GenerativeModule, checkpoint: Path, options: argparse.Namespace, generator: torch.Generator) -> View:
    """What was asked for by ``options.kind``.

    Raises:
        UsageError: the model does not offer it.
    """
    views.check_offered(model, options.kind, f"--{options.kind}")
    if options.kind == "filters":
        return views.filters(model, options.n)
    if options.kind == "trajectory":
        return views.trajectory(model, options.n, options.steps or views.STEPS, generator)
    image, label = first_test_images(checkpoint, options.n)
    if options.kind == "reconstruct":
        return views.reconstruct(model, image, label)
    if options.kind == "complete":
        return views.complete(model, image, options.hide, generator)
    return views.denoise(model, image, options.denoise, generator)


def set_chain_steps(model: GenerativeModule, kind: str, steps: int) -> None:
    """Gives the model's chains another length.

    Raises:
        UsageError: this kind of picture, or the model, has no chain whose length could be chosen.
    """
    if kind not in CHAINS:
        hint = "use --steps" if kind == "trajectory" else "no chain is run"
        raise UsageError(f"--chain-steps {steps} with --{kind}: {hint}")
    names = [name for name in (CHAINS[kind], "sample_steps") if hasattr(model, name)]
    if not names:
        raise UsageError(f"--chain-steps {steps}: a {type(model).__name__} runs no chain")
    setattr(model, names[0], steps)


def first_test_images(checkpoint: Path, n: int) -> tuple[Tensor, Tensor]:
    """The first n test images and labels of the data that the run was made with.

    Raises:
        UsageError: the checkpoint does not lie in a run directory.
    """
    config = checkpoint.resolve().parent.parent / "config.yaml"
    if not config.is_file():
        raise UsageError(f"{checkpoint} does not lie in a run directory, whose config.yaml would name the test images")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    data = parser.instantiate_classes(parser.parse_object({"data": yaml.safe_load(config.read_text())["data"]})).data
    data.prepare_data()
    batches = list(data.eval_batches("test", n))
    return torch.cat([batch.image for batch in batches]), torch.cat([batch.label for batch in batches])
