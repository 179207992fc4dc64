"""Four ways to start the same two processes, and every wrong way explained, on a real SLURM where there is one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.cluster.jobs import TWO_NODES, Cluster, needs_slurm, wait_for, why_no_slurm
from tests.cluster.preemption import config_of
from tests.conftest import ROOT, differing_weights, only_run, process_environment
from tests.test_resume import experiment, state

PYTHON = sys.executable
FABRIC = Path(PYTHON).with_name("fabric")
RUN = ["-m", "lit_gen", "run"]
TORCHRUN = [PYTHON, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SRUN = ["srun", "--nodes=2", "--ntasks-per-node=1", "--mem=100"]


def start(words: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        list(map(str, words)), cwd=folder, env=process_environment(**environment), capture_output=True, text=True,
        timeout=180, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def twenty_steps(folder: Path) -> Path:
    """A VAE for twenty updates; devices and nodes are the launcher's to say."""
    file = experiment("vae", 2, folder)
    settings = yaml.safe_load(file.read_text())
    settings["trainer"].pop("devices")
    settings["trainer"] |= {"max_steps": 20, "max_epochs": -1, "val_check_interval": 1.0}
    file.write_text(yaml.safe_dump(settings))
    return file


@needs_slurm
@pytest.mark.skipif(not FABRIC.exists(), reason="lightning-fabric is not installed")
def test_four_ways_to_start_give_the_same_weights(tmp_path: Path) -> None:
    config = ["--config", twenty_steps(tmp_path)]
    ways = {
        "directly": [PYTHON, *RUN, *config, "--trainer.devices", "2"],
        "torchrun": [*TORCHRUN, *RUN, *config],
        "fabric run": [FABRIC, "run", "--accelerator", "cpu", "--devices", "2", ROOT / "train.py", "run", *config],
        "srun": [*SRUN, "--job-name=four-ways", PYTHON, *RUN, *config],
    }
    states = {}
    for name, words in ways.items():
        folder = tmp_path / name.replace(" ", "-")
        folder.mkdir()
        done = start(words, folder)
        assert done.returncode == 0, f"{name}: {done.stdout}\n{done.stderr}"
        run = only_run(folder)
        assert yaml.safe_load((run / "result.json").read_text())["world_size"] == 2, name
        states[name] = state(run)
    for name, found in states.items():
        assert differing_weights(found, states["directly"]) == [], name


BATCH = """#!/bin/bash
#SBATCH --ntasks-per-node=2 --mem=100 --output=batch.out
{python} -m lit_gen run --config {config}
"""

MISTAKES = {
    "a job called bash": ([*SRUN, "--job-name=bash"], {}, [], "the SLURM job is called 'bash'"),
    "a job called interactive": ([*SRUN, "--job-name=interactive"], {}, [], "the SLURM job is called 'interactive'"),
    "--ntasks alone": (["srun", "--ntasks=2", "--mem=100"], {}, [], "--ntasks=2 leaves open"),
    "an unresolvable address": (SRUN, {"MASTER_ADDR": "nowhere.invalid"}, [], "address 'nowhere.invalid' cannot be resolved"),
    "more devices than tasks": (SRUN, {}, ["--trainer.devices", "4"], "trainer.devices = 4"),
    "fewer nodes than srun has": (SRUN, {}, ["--trainer.num_nodes", "3"], "trainer.num_nodes = 3"),
    "another number than torchrun's": (TORCHRUN, {}, ["--trainer.devices", "3"], "torchrun started 2 process(es)"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_launch_is_one_line(mistake: str, tmp_path: Path) -> None:
    launcher, environment, words, message = MISTAKES[mistake]
    if launcher[0] == "srun":
        if why_no_slurm():
            pytest.skip(why_no_slurm())
        launcher = [*launcher, PYTHON]
    started = time.monotonic()
    done = start([*launcher, *RUN, "--config", twenty_steps(tmp_path), *words], tmp_path, **environment)
    print(f"{mistake}: answered after {time.monotonic() - started:.1f} s")
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if "lit-gen: error" in line]
    assert message in line
    assert not (tmp_path / "runs").exists()


@needs_slurm
def test_two_tasks_without_srun_are_one_line(tmp_path: Path) -> None:
    script = tmp_path / "job.sbatch"
    script.write_text(BATCH.format(python=PYTHON, config=twenty_steps(tmp_path)))
    done = start(["sbatch", "--wait", script], tmp_path)
    (line,) = [line for line in (tmp_path / "batch.out").read_text().splitlines() if "lit-gen: error" in line]
    assert "2 tasks, but this process was not started by srun" in line
    assert done.returncode == 2
    assert not (tmp_path / "runs").exists()


def test_a_dead_rank_stops_the_job_and_the_requeued_one_goes_on(cluster: Cluster) -> None:
    words = ["--config", config_of("vae", cluster.folder), "--checkpoint.every_n_steps", 20]
    job = cluster.submit("train.sbatch", *words, options=TWO_NODES)
    wait_for(lambda: cluster.updates(job) > 60, "sixty updates", lambda: cluster.log(job))
    victim = next(pid for pid in processes_of(job) if environment_of(Path(f"/proc/{pid}")).get("SLURM_PROCID") == "1")
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    wait_for(lambda: cluster.finished(job), "end after a kill", lambda: cluster.log(job))
    print(f"the others stopped {time.monotonic() - killed:.1f} s after the kill")
    assert cluster.state(job) == "FAILED"
    assert cluster.shown(job, "ExitCode") != ["0:0"]
    subprocess.run(["scontrol", "requeue", job], check=True, timeout=60)
    wait_for(lambda: not cluster.finished(job), "requeue")
    cluster.completed(job)
    assert (cluster.run_of(job) / "result.json").is_file()
    assert "resuming from" in cluster.log(job)


def test_a_cancelled_job_saves_and_does_not_come_back(cluster: Cluster) -> None:
    words = ["--config", config_of("vae", cluster.folder), "--checkpoint.every_n_steps", 0]
    job = cluster.submit("train.sbatch", *words, options=TWO_NODES)
    wait_for(lambda: cluster.updates(job) > 20, "twenty updates", lambda: cluster.log(job))
    subprocess.run(["scancel", job], check=True, timeout=60)
    wait_for(lambda: cluster.finished(job), "end of the cancelled job", lambda: cluster.log(job))
    assert cluster.state(job) == "CANCELLED"
    assert "not requeued: it was cancelled" in cluster.log(job)
    assert (cluster.run_of(job) / "checkpoints" / "last.ckpt").is_file()


def processes_of(job: str) -> list[int]:
    """The trainings of a job; every node of the test cluster is this machine."""
    return [
        int(path.name)
        for path in Path("/proc").iterdir()
        if path.name.isdigit() and environment_of(path).get("SLURM_JOB_ID") == job and "lit-gen" in command_of(path)
    ]


def environment_of(process: Path) -> dict[str, str]:
    return dict(word.split("=", 1) for word in read(process / "environ").split("\0") if "=" in word)


def command_of(process: Path) -> str:
    """What runs, where that is Python; not the srun that waits for it."""
    words = read(process / "cmdline").split("\0")
    return " ".join(words) if "python" in words[0] else ""


def read(file: Path) -> str:
    try:
        return file.read_bytes().decode(errors="replace")
    except OSError:  # the process has gone
        return ""
