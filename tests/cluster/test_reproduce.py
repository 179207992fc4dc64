"""``lit-gen reproduce --slurm``: a table of four cells as an array, with tasks and the command itself killed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import yaml

from tests.cluster.jobs import Cluster, needs_slurm, wait_for
from tests.conftest import ROOT

pytestmark = needs_slurm
OPTIONS = ("--sbatch=--cpus-per-task=1", "--sbatch=--mem=100")
ROW = {
    "config": str(ROOT / "configs/vae/vae_digits.yaml"), "seeds": [0, 1], "minutes": 1, "paper": {}, "protocol": "other",
    "differs": "a test", "rule": "none",
}  # fmt: skip
BUDGET = {"trainer.max_epochs": 25, "trainer.log_every_n_steps": 1, "model.init_args.nll_samples": 10}
TABLE = {
    "title": "t", "citation": "c", "link": "l", "table": "t",
    "columns": {"nll": {"title": "nll", "metric": "test/nll", "direction": "lower"}},
    "rows": {
        "short": {"name": "short", **ROW, "overrides": {**BUDGET, "trainer.max_epochs": 1}},
        "long": {"name": "long", **ROW, "overrides": BUDGET},
    },
}  # fmt: skip


def start(cluster: Cluster, *words: str) -> subprocess.Popen:
    (cluster.folder / "digits.yaml").write_text(yaml.safe_dump(TABLE, sort_keys=False))
    return subprocess.Popen(
        [sys.executable, "-m", "lit_gen", "reproduce", "digits.yaml", "--slurm", "--no-wandb", "--loggers.wandb=false",
         *OPTIONS, *words],
        cwd=cluster.folder, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def task_of(cluster: Cluster, cell: str) -> str:
    """The newest task of a cell, and its job for the cleaning up."""
    file = cluster.folder / "runs/reproduce/digits/slurm.json"
    for submission in reversed(json.loads(file.read_text()) if file.exists() else []):
        names = [place.split("/")[0] for place in submission["cells"]]
        if cell in names and submission["job"]:
            cluster.jobs.append(submission["job"])
            return f"{submission['job']}_{names.index(cell) + 1}"
    return ""


def rows_of(cluster: Cluster, cell: str) -> int:
    files = list(cluster.folder.glob(f"runs/reproduce/digits/{cell}/*/metrics.csv"))
    return len(files[0].read_text().splitlines()) if files else 0


def test_killed_tasks_and_a_killed_command_leave_a_complete_table(cluster: Cluster) -> None:
    process = start(cluster)
    wait_for(lambda: rows_of(cluster, "long-seed0") > 5, "beginning of long-seed0")
    # killed as a node that runs out of memory would do it, and cancelled by its user
    first = task_of(cluster, "long-seed0")
    subprocess.run(["scancel", "--signal=KILL", first], check=True)
    process.kill()  # the command alone: the jobs go on
    process.communicate()
    time.sleep(1)
    process = start(cluster)
    wait_for(lambda: rows_of(cluster, "long-seed1") > 5, "beginning of long-seed1")
    subprocess.run(["scancel", task_of(cluster, "long-seed1")], check=True)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    records = {
        path.stem: json.loads(path.read_text()) for path in (cluster.folder / "results/digits").glob("*-seed*.json")
    }
    assert sorted(records) == ["long-seed0", "long-seed1", "short-seed0", "short-seed1"]
    for name, record in records.items():
        assert record["run"]["seed"] == int(name[-1])
        assert record["run"]["metrics"]["test/nll"] > 0
    steps = {}
    for folder in cluster.folder.glob("runs/reproduce/digits/*-seed*"):
        (run,) = folder.iterdir()
        rows = (run / "metrics.csv").read_text().splitlines()[1:]
        steps[folder.name] = [int(row.split(",")[0]) for row in rows if row.split(",")[0]]
    assert steps["long-seed0"] == steps["long-seed1"], "no row is missing or doubled"
    assert "ended without a result and is submitted again" in out
    assert task_of(cluster, "long-seed0") != first
    again = start(cluster)
    said, _ = again.communicate(timeout=60)
    assert "4 done; nothing to run" in said


def test_a_refused_configuration_submits_nothing(cluster: Cluster) -> None:
    broken = {**TABLE, "rows": {"bad": {"name": "bad", **ROW, "overrides": {"model.init_args.beta": -3}}}}
    file = cluster.folder / "digits.yaml"
    process = start(cluster, "--dry-run")
    process.communicate(timeout=60)
    file.write_text(yaml.safe_dump(broken))
    done = subprocess.run(
        [sys.executable, "-m", "lit_gen", "reproduce", "digits.yaml", "--slurm", "--no-wandb", *OPTIONS],
        cwd=cluster.folder, env=cluster.environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert re.fullmatch(r"lit-gen: error: .*beta = -3.*\n", done.stderr)
    assert not (cluster.folder / "runs/reproduce/digits/slurm.json").exists()
    assert not list(Path(cluster.folder).glob("slurm-*.out"))
