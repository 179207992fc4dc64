"""The scripts of ``slurm/``, as they are shipped: accepted by shellcheck and sbatch, and run on two nodes."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.cluster.jobs import SCRIPTS, TWO_NODES, Cluster, needs_slurm, wait_for, write_config
from tests.conftest import differing_weights

ALL = sorted(SCRIPTS.glob("*.sbatch"))
LISTENER = """
import os, signal, time
got = []
for signum in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(signum, lambda number, frame: got.append(signal.Signals(number).name))
os.write(1, b"ready\\n")
while not got:
    time.sleep(0.05)
time.sleep(2)
os.write(1, f"saved after {got[0]}\\n".encode())
"""


def result(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]


def test_all_scripts_are_there() -> None:
    names = {script.stem for script in ALL}
    assert names == {"train", "train_torchrun", "sweep_array", "reproduce_array"}


@pytest.mark.parametrize("script", ALL, ids=lambda script: script.stem)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck on the PATH")
    done = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", ALL, ids=lambda script: script.stem)
@needs_slurm
def test_sbatch_accepts_it(script: Path) -> None:
    done = subprocess.run(["sbatch", "--test-only", str(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", ALL, ids=lambda script: script.stem)
def test_what_every_script_has(script: Path) -> None:
    text = script.read_text()
    lines = text.splitlines()
    assert "set -euo pipefail" in lines
    # the last command replaces the shell, and srun starts Python without another one
    assert any(line.startswith("exec srun --kill-on-bad-exit=1") for line in lines)
    options = "\n".join(line for line in lines if line.startswith("#SBATCH"))
    for option in ("--open-mode=append", "--requeue", "--ntasks-per-node=1", "--nodes=1", "--time=", "--signal="):
        assert option in options, option
    assert "--output" not in text  # SLURM's own name is that of the run, in a directory that exists
    for site in ("partition", "account", "gpus-per-node"):
        assert f"##SBATCH --{site}=" in text.partition("The same everywhere")[0]


def test_two_nodes(cluster: Cluster) -> None:
    """The VAE and the GAN by srun, the VAE by torchrun; the launcher makes no difference."""
    vae = write_config(cluster.folder, "vae/vae_digits.yaml")
    gan = write_config(cluster.folder, "gan/dcgan_digits.yaml")
    jobs = {
        "vae": cluster.submit("train.sbatch", "--config", vae, "--name", "vae", options=TWO_NODES),
        "gan": cluster.submit("train.sbatch", "--config", gan, "--name", "gan", options=TWO_NODES),
        "torchrun": cluster.submit("train_torchrun.sbatch", "--config", vae, "--name", "torchrun", options=TWO_NODES),
    }
    cluster.completed(*jobs.values())
    runs = {name: cluster.folder / "runs" / name / f"slurm-{job}" for name, job in jobs.items()}
    assert sorted(cluster.folder.glob("runs/*/*")) == sorted(runs.values())
    for run in runs.values():
        assert result(run)["world_size"] == 2
    assert differing_weights(weights(runs["vae"]), weights(runs["torchrun"])) == []


def test_signals_reach_the_processes_of_torchrun(cluster: Cluster) -> None:
    """Two on each of two nodes: torchrun passes on USR1 and TERM, and lets them finish what they do."""
    stand_in = cluster.folder / "lit_gen"  # found before the package, as the current directory is
    stand_in.mkdir()
    (stand_in / "__init__.py").touch()
    (stand_in / "__main__.py").write_text(LISTENER)
    environment = cluster.environment | {"PYTHONPATH": str(cluster.folder)}
    here = Cluster(cluster.folder, environment, cluster.jobs)
    options = ("--nodes=2", "--ntasks-per-node=2")
    jobs = {name: here.submit("train_torchrun.sbatch", options=options) for name in ("USR1", "TERM")}
    for name, job in jobs.items():
        wait_for(lambda job=job: here.log(job).count("ready") == 4, f"4 processes of job {job}")
        subprocess.run(["scancel", f"--signal={name}", job], check=True, timeout=60)
    for name, job in jobs.items():
        wait_for(lambda job=job: here.state(job) == "FAILED", f"end of job {job}")
        assert here.log(job).count(f"saved after SIG{name}") == 4, here.log(job)


def test_an_array_trains_a_seed_with_each_task(cluster: Cluster) -> None:
    config = write_config(cluster.folder, "vae/vae_digits.yaml")
    job = cluster.submit("train.sbatch", "--config", config, options=("--array=1-4",))
    cluster.completed(job)
    runs = {int(run.name.split("_")[1]): run for run in cluster.folder.glob(f"runs/vae_digits/slurm-{job}_*")}
    assert sorted(runs) == [1, 2, 3, 4]
    for task, run in runs.items():
        assert result(run)["seed"] == task
        assert yaml.safe_load((run / "config.yaml").read_text())["seed_everything"] == task
    assert differing_weights(weights(runs[1]), weights(runs[2]))
    assert sorted(file.name for file in cluster.folder.glob("slurm-*.out")) == [
        f"slurm-{job}_{task}.out" for task in range(1, 5)
    ]


def test_cells_of_a_table(cluster: Cluster) -> None:
    config = write_config(cluster.folder, "vae/vae_digits.yaml")
    settings = "{'latent_dim': 3}"
    (cluster.folder / "cells.txt").write_text(
        f"--config {config} --name first --seed_everything 5\n"
        f'--config {config} --name second --model.init_args "{settings}"\n'
    )
    job = cluster.submit("reproduce_array.sbatch", "cells.txt", options=("--array=1-2",))
    cluster.completed(job)
    first, second = (cluster.folder / "runs" / name / f"slurm-{job}_{k}" for k, name in ((1, "first"), (2, "second")))
    assert result(first)["seed"] == 5
    assert yaml.safe_load((second / "config.yaml").read_text())["model"]["init_args"]["latent_dim"] == 3


def test_a_missing_cell_is_named(cluster: Cluster) -> None:
    (cluster.folder / "cells.txt").write_text("--config one.yaml\n")
    done = subprocess.run(
        ["bash", str(SCRIPTS / "reproduce_array.sbatch"), "cells.txt"], capture_output=True, text=True, timeout=60,
        cwd=cluster.folder, env={**cluster.environment, "SLURM_ARRAY_TASK_ID": "2"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "cells.txt has no line 2\n")


def test_three_workers_share_one_sweep(cluster: Cluster) -> None:
    """Three tasks of an array finish exactly four trials, each with a run directory of its own."""
    config = write_config(cluster.folder, "vae/vae_digits.yaml")
    sweep = {
        "program": "train.py",
        "command": ["${interpreter}", "${program}", "run", "--config", config, "${args}"],
        "method": "random",
        "metric": {"name": "val/elbo", "goal": "maximize"},
        "parameters": {"model.init_args.beta": {"min": 0.5, "max": 2.0}},
    }
    (cluster.folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    words = ("sweep.yaml", "--count", "4", "--storage", "study")
    job = cluster.submit("sweep_array.sbatch", *words, options=("--array=1-3",))
    cluster.completed(job)
    with open(cluster.folder / "study" / "trials.csv", newline="") as file:
        trials = list(csv.DictReader(file))
    assert [(trial["trial"], trial["state"]) for trial in trials] == [(str(k), "complete") for k in range(4)]
    assert len({trial["model.init_args.beta"] for trial in trials}) == 4
    assert len(list(cluster.folder.glob("study/**/result.json"))) == 4
    assert (cluster.folder / "study" / "best.yaml").is_file()
