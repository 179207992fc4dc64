"""What all tests share: the repository's configs made small, real data where it is there, the command line as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(path for path in (ROOT / "configs").glob("*/*.yaml") if path.parent.name != "papers")
REAL_DATA = Path(os.environ.get("LIT_GEN_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test writes into the user's cache, logs to W&B or depends on the seed of another."""
    monkeypatch.setenv("LIT_GEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    torch.manual_seed(0)
    yield
    # left behind by a run in this process; fixtures of a wider scope would see it before the next test does
    for name in ("PL_GLOBAL_SEED", "LIT_GEN_RUN_ID"):
        os.environ.pop(name, None)
    if "WANDB_SERVICE" in os.environ:  # its folder is this test's, and processes of later tests would write there
        import wandb

        wandb.teardown()


@pytest.fixture
def real_data() -> Path:
    """The folder of the real data sets; skips where it is missing."""
    if not (REAL_DATA / "MNIST" / "raw").is_dir():
        pytest.skip(f"no MNIST in {REAL_DATA}: set LIT_GEN_DATA to its folder")
    return REAL_DATA


def small(config: Path, **trainer: Any) -> dict[str, Any]:
    """A shipped config on few digits with narrow networks: the same model, seconds instead of hours.

    Args:
        config: path of the YAML file.
        **trainer: the Trainer's arguments; one epoch of two batches where nothing is given.
    """
    experiment = yaml.safe_load(config.read_text())
    experiment["trainer"] = {"accelerator": "cpu", "devices": 1, "log_every_n_steps": 1, "enable_progress_bar": False}
    experiment["trainer"] |= trainer or {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1}
    experiment["loggers"] = {"wandb": False}
    experiment.pop("checkpoint", None)
    narrow(experiment["model"])
    shorten_stages(experiment)
    family = config.parent.name
    experiment["data"] = on_numbers(experiment["data"]) if family == "text" else on_digits(experiment["data"])
    return experiment


def narrow(part: Any) -> None:
    """Makes the networks and estimators of a config small, in place."""
    sizes = {
        "width": 8, "hidden": 24, "nll_samples": 20, "embedding": 8, "hidden_units": 24, "sample_steps": 5,
        "posterior_steps": 4, "chains": 8, "burn_in": 5, "raise_examples": 4,
        "embedding_dim": 24, "layers": 1, "heads": 2, "feed_forward": 24,
    }  # fmt: skip
    if isinstance(part, dict):
        for key, value in part.items():
            if key in sizes and type(value) is int:
                part[key] = sizes[key]
            elif key in sizes and isinstance(value, list):
                part[key] = [sizes[key]] * len(value)
            narrow(value)
    elif isinstance(part, list):
        for item in part:
            narrow(item)


def shorten_stages(experiment: dict[str, Any]) -> None:
    """Where a model is trained in stages, each becomes as long as the whole training was to be, in place."""
    options, trainer = experiment["model"].get("init_args", {}), experiment["trainer"]
    if "pretrain_epochs" in options:
        epochs = trainer.get("max_epochs", 1)
        options["pretrain_epochs"] = [epochs] * len(options["pretrain_epochs"])
        options["fine_tune_epochs"] = epochs if options.get("fine_tune_epochs") else 0
        trainer["max_epochs"] = -1  # their sum


def on_digits(data: dict[str, Any]) -> dict[str, Any]:
    """The embedded digits with the options of another data set's config, in colour where that is in colour."""
    options = {k: v for k, v in data.get("init_args", {}).items() if k not in ("root", "download", "subset_size")}
    colour = "CIFAR" in data["class_path"]
    options |= {"batch_size": 16, "eval_batch_size": 32, "val_size": 64}
    options.setdefault("image_size", 32 if colour else 28)
    if options.get("num_labelled"):
        options["num_labelled"] = 700
    return {"class_path": "tests.colour.ColourDigits" if colour else "lit_gen.data.Digits", "init_args": options}


def on_numbers(data: dict[str, Any]) -> dict[str, Any]:
    """Number words with the options of another text data set's config: sentence pairs, or running text."""
    options = data.get("init_args", {})
    if "batch_tokens" in options:
        kept = {k: v for k, v in options.items() if k in ("joint", "level", "lowercase", "pad_multiple")}
        sizes = {"train_size": 200, "val_size": 20, "test_size": 20, "batch_tokens": 256, "eval_batch_tokens": 256}
        return {"class_path": "lit_gen.data.NumberWords", "init_args": kept | sizes | {"vocab_size": 60}}
    kept = {k: v for k, v in options.items() if k in ("mode", "level", "block_size", "eval_stride")}
    sizes = {
        "train_size": 200,
        "val_size": 20,
        "test_size": 20,
        "batch_size": 4,
        "eval_batch_size": 4,
        "eval_streams": 4,
    }
    sizes |= {"block_size": 16, "batches_per_epoch": 30} if kept.get("mode") == "blocks" else {"block_size": 16}
    return {"class_path": "lit_gen.data.NumberText", "init_args": kept | sizes}


def lit_gen(*words: str, cwd: Path, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
    """Runs the command line in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "lit_gen", *map(str, words)],
        cwd=cwd, env=process_environment(**environment), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    if check and done.returncode != 0:
        raise AssertionError(
            f"lit-gen {' '.join(map(str, words))}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
    return done


def process_environment(**more: str) -> dict[str, str]:
    """The environment of a lit-gen process: this source tree, one thread, no launcher."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "PL_", "TORCHELASTIC"))}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", **more}


def only_run(folder: Path) -> Path:
    """The single run directory below ``runs/``."""
    (run,) = folder.glob("runs/*/*")
    return run


def differing_weights(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that are not bitwise equal in two state dicts (missing ones included)."""
    return sorted(
        name for name in a.keys() | b.keys() if name not in a or name not in b or not torch.equal(a[name], b[name])
    )
