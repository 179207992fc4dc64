"""What the tests of papers share: a table of toy cells, and ``lit-gen reproduce`` with the stand-in for training."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT, process_environment

FAKE = ROOT / "tests" / "fake_run.py"
TOY = {
    "title": "Toys", "citation": "Nobody, 1999", "link": "https://example.org", "table": "table 1",
    "columns": {
        "loss": {"title": "loss", "metric": "test/loss", "unit": "nats", "direction": "lower", "decimals": 3,
                 "tolerance": 0.01},
    },
    "data": {"lit_gen.data.Digits": "0123456789abcdef"},
    "pairing": {"column": "loss", "baseline": "a", "examples": "test/loss"},
    "quick": {"model.steps": 2},
    "rows": {
        "a": {"name": "A", "config": "toy.yaml", "overrides": {"model.x": 0.5}, "seeds": [0, 1], "minutes": 1,
              "paper": {"loss": {"value": 0.25, "trust": "verified"}}, "protocol": "same", "rule": "interval"},
        "b": {"name": "B", "config": "toy.yaml", "overrides": {"model.x": 0.8}, "seeds": [0, 1], "minutes": 1,
              "paper": {"loss": {"value": 0.7, "trust": "unverified"}}, "protocol": "part", "differs": "the seed",
              "rule": "trend"},
    },
}  # fmt: skip
"""A table of two rows and four cells of five steps; x * x is what they measure."""

CONFIG = {
    "seed_everything": 0,
    "trainer": {"max_epochs": 1},
    "model": {"class_path": "lit_gen.energy.RBM", "x": 0.0, "steps": 5, "pause": 0.02, "fail": "no"},
    "data": {"class_path": "lit_gen.data.Digits"},
}


def toy(**rows: dict[str, Any]) -> dict[str, Any]:
    """The content of the table file; keywords change a row's overrides."""
    content = copy.deepcopy(TOY)
    for row, overrides in rows.items():
        content["rows"][row]["overrides"] |= overrides
    return content


def write_toy(folder: Path, content: dict[str, Any] | None = None) -> Path:
    """Writes the table and its configuration; returns the table's path."""
    (folder / "toy.yaml").write_text(yaml.safe_dump(CONFIG))
    path = folder / "toys.yaml"
    path.write_text(yaml.safe_dump(TOY if content is None else content, sort_keys=False))
    return path


def start_reproduce(folder: Path, *words: str, **environment: str) -> subprocess.Popen:
    """Starts ``lit-gen reproduce toys.yaml`` with the stand-in."""
    return subprocess.Popen(
        [sys.executable, str(FAKE), "reproduce", "toys.yaml", "--no-wandb", *words], cwd=folder,
        env=process_environment(**environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def reproduce(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs ``lit-gen reproduce toys.yaml`` with the stand-in to its end."""
    process = start_reproduce(folder, *words, **environment)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
