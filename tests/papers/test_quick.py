"""``lit-gen reproduce --quick`` over every shipped table, by the real command with real trainings of two updates."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lit_gen.papers.table_file import read_table
from tests.conftest import REAL_DATA, ROOT, process_environment
from tests.random_inception import write_random_inception

TABLES = sorted((ROOT / "configs" / "papers").glob("*.yaml"))
NEEDED = {"MNIST": "MNIST/raw", "FashionMNIST": "FashionMNIST/raw", "Multi30k": "multi30k/tok",
          "TinyShakespeare": "tinyshakespeare/input.txt"}  # fmt: skip


def quick(folder: Path, table: Path, *words: str, program: tuple[str, ...] = ("-m", "lit_gen")) -> dict[str, dict]:
    """Runs a table's rows; returns the cells of its table.json by name."""
    (folder / "configs").symlink_to(ROOT / "configs")
    done = subprocess.run(
        [sys.executable, *program, "reproduce", str(table), "--quick", "--no-wandb", "--loggers.wandb=false", *words],
        cwd=folder, env=process_environment(), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not run" in done.stdout
    assert not (folder / "results").exists(), "records of tiny budgets are no results"
    records = (folder / f"runs/reproduce/quick-{table.stem}/records").glob("*-seed*.json")
    return {path.stem: json.loads(path.read_text()) for path in records}


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.stem)
def test_every_row_of_every_table_runs(table: Path, tmp_path: Path) -> None:
    rows = read_table(table).rows
    for kind, place in NEEDED.items():
        uses = any(row.experiment["data"]["class_path"].endswith(f".{kind}") for row in rows)
        if uses and not (REAL_DATA / place).exists():
            pytest.skip(f"no {kind} in {REAL_DATA}: set LIT_GEN_DATA to its folder")
    records = quick(tmp_path, table, "--root", str(REAL_DATA))
    wanted = [] if read_table(table).needs else [f"{row.key}-seed{row.seeds[0]}" for row in rows]
    assert sorted(records) == sorted(wanted)
    for name, record in records.items():
        row = read_table(table).row[name.rpartition("-")[0]]
        measured = record["run"]["metrics"]
        assert record["quick"] is True
        for column in row.paper:
            assert measured[read_table(table).column[column].metric] is not None, f"{name}: {column}"


def test_rows_that_need_cifar_and_inception_run_where_they_are(tmp_path: Path) -> None:
    """On pictures and weights that this test makes, which are random: the scores mean nothing, and are there."""
    rng, folder = np.random.default_rng(0), tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for file in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        batch = {
            "data": rng.integers(256, size=(1020, 3072), dtype=np.uint8),
            "labels": rng.integers(10, size=1020).tolist(),
        }
        (folder / file).write_bytes(pickle.dumps(batch))
    weights = write_random_inception(tmp_path / "weights.pth")
    table = ROOT / "configs" / "papers" / "cifar10_gans.yaml"
    records = quick(
        tmp_path, table, "--root", str(tmp_path / "data"), "--inception", weights, "--only", "sn_gan_resnet",
        program=(str(ROOT / "tests/papers/cifar_run.py"),),
    )  # fmt: skip
    (record,) = records.values()
    assert record["run"]["metrics"]["test/fid"] > 0
    assert record["run"]["metrics"]["test/is"] >= 1
    assert str(tmp_path) not in record["command"]
