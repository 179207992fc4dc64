"""A run directory is the unit of provenance: everything that one run wrote, and all that is needed to repeat it.

runs/EXPERIMENT/RUN_ID/
    config.yaml     complete: class paths, trainer, seed; running it again repeats the run
    metrics.csv     every logged value, one row a step
    checkpoints/    last.ckpt, previous.ckpt (to resume), best.ckpt (to test and to sample)
    samples/        image grids
    wandb/          the W&B run, offline where there is no key
    result.json     final metrics with their estimator's settings, and where they came from
    examples.json   values of single test examples, for comparing two models on the same ones
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lit_gen.core.errors import UsageError


@dataclass(frozen=True)
class RunDir:
    """Paths inside a run directory.

    Args:
        path: ``runs/EXPERIMENT/RUN_ID``.
    """

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def examples(self) -> Path:
        return self.path / "examples.json"

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def experiment(self) -> str:
        return self.path.parent.name

    @classmethod
    def existing(cls, path: str | Path) -> "RunDir":
        """The run directory at ``path``.

        Raises:
            UsageError: there is no run there.
        """
        run = cls(Path(path))
        if not run.config.is_file():
            raise UsageError(
                f"no run in {path}: expected a directory that holds config.yaml, such as runs/EXPERIMENT/RUN_ID"
            )
        return run

    def create(self) -> "RunDir":
        for folder in (self.checkpoints, self.samples):
            folder.mkdir(parents=True, exist_ok=True)
        return self


def experiment_name(name: str | None, configs: list[str], model_class: str) -> str:
    """The experiment's folder: the given name, else the first config's file name, else the model class.

    Raises:
        UsageError: the name cannot be a folder name.
    """
    if name is None:
        name = Path(configs[0]).stem if configs else model_class.rsplit(".", 1)[-1].lower()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(
            f"--name {name!r}: accepted are letters, digits, '.', '_' and '-', the first a letter or digit"
        )
    return name


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file so that a reader sees the old content or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


@cache
def git_state() -> dict[str, Any]:
    """Commit and dirty flag of the source tree that this package runs from; both None outside a checkout.

    Read once a process: a run is of the commit that it started from, whatever is committed while it lasts.
    """
    here = Path(__file__).resolve().parent

    def git(*args: str) -> str | None:
        try:
            return subprocess.run(
                ["git", "-C", str(here), *args], capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return None

    commit = git("rev-parse", "HEAD")
    status = git("status", "--porcelain", "--untracked-files=no") if commit else None
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for package in ("lit-gen", "torch", "torchvision", "pytorch-lightning", "torchmetrics", "torch-fidelity", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_examples(run: RunDir, values: dict[str, list[float]]) -> None:
    """Writes ``examples.json``: values of the test examples in the order of the split, to four decimals; nothing for none."""
    if values:
        rounded = {name: [round(value, 4) for value in each] for name, each in values.items()}
        write_atomically(run.examples, json.dumps(rounded, separators=(",", ":")) + "\n")


def write_result(run: RunDir, record: dict[str, Any]) -> None:
    """Writes ``result.json``; NaN and infinities become null, as JSON has none."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(k): clean(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [clean(v) for v in value]
        if isinstance(value, float) and not (abs(value) < float("inf")):
            return None
        return value

    write_atomically(run.result, json.dumps(clean(record), indent=2) + "\n")
