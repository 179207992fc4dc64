"""What the tests of sweeps share: sweep files and processes of the stand-in for training."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT, process_environment

FAKE = ROOT / "tests" / "fake_run.py"


def sweep_text(**changes: Any) -> str:
    """A random sweep over x in [0, 1] of a run of five steps; keywords replace keys of the file, None removes them."""
    content = {
        "method": "random",
        "metric": {"name": "val/loss", "goal": "minimize"},
        "command": ["${env}", "lit-gen", "run", "--config", "fake.yaml", "${args}"],
        "parameters": {"x": {"min": 0.0, "max": 1.0}, "steps": {"value": 5}},
    } | changes
    return yaml.safe_dump({key: value for key, value in content.items() if value is not None}, sort_keys=False)


def write_sweep(folder: Path, **changes: Any) -> Path:
    path = folder / "toy.yaml"
    path.write_text(sweep_text(**changes))
    return path


def start_sweep(folder: Path, *words: str, **environment: str) -> subprocess.Popen:
    """Starts ``lit-gen sweep toy.yaml`` with the stand-in."""
    return subprocess.Popen(
        [sys.executable, str(FAKE), "sweep", "toy.yaml", *words], cwd=folder, env=process_environment(**environment),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def run_sweep(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs ``lit-gen sweep toy.yaml`` with the stand-in to its end."""
    process = start_sweep(folder, *words, **environment)
    out, err = process.communicate(timeout=240)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def trials(folder: Path) -> list[dict[str, str]]:
    """trials.csv of the sweep."""
    with open(folder / "runs" / "sweep-toy" / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))
