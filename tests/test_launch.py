"""What the launcher's environment says, and what is made of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lit_gen.core.errors import UsageError
from lit_gen.core.launch import (
    check_launch,
    check_world_size,
    fill_trainer_arguments,
    first_host,
    launch_environment,
    shared_run_id,
)
from tests.conftest import ROOT, only_run, process_environment, small
from tests.test_resume import experiment
from tests.test_stopping import wait_for_updates

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
SLURM = {
    "SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "2", "SLURM_JOB_ID": "17",
    "SLURM_JOB_NAME": "vae", "SLURM_STEP_ID": "0", "SLURM_NODELIST": "localhost",
}  # fmt: skip


def test_torchrun_is_read() -> None:
    env = launch_environment(TORCHRUN)
    assert (env.launcher, env.rank, env.world_size, env.nodes, env.devices) == ("torchrun", 3, 8, 2, 4)


def test_slurm_is_read_and_names_the_run() -> None:
    env = launch_environment(SLURM)
    assert (env.launcher, env.rank, env.world_size, env.nodes, env.devices) == ("slurm", 1, 4, 2, 2)
    assert shared_run_id(env) == "slurm-17"
    array = launch_environment(SLURM | {"SLURM_ARRAY_JOB_ID": "16", "SLURM_ARRAY_TASK_ID": "2"})
    assert shared_run_id(array) == "slurm-16_2"


def test_steps_of_a_job_and_requeues_are_told_apart() -> None:
    assert launch_environment(SLURM | {"SLURM_STEP_ID": "2"}).job_id == "17-step2"
    assert launch_environment(SLURM | {"SLURM_RESTART_COUNT": "3"}).restarts == 3
    torchrun = launch_environment(SLURM | TORCHRUN | {"TORCHELASTIC_RESTART_COUNT": "1", "SLURM_RESTART_COUNT": "1"})
    assert (torchrun.launcher, torchrun.job_id, torchrun.restarts, torchrun.world_size) == ("torchrun", "17", 2, 8)


def test_an_agent_of_wandb_names_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    assert shared_run_id(launch_environment(SLURM)) == "slurm-17"  # a run id alone is no agent
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    assert shared_run_id(launch_environment(SLURM)) == "abc123"


def without(*names: str) -> dict[str, str]:
    return {key: value for key, value in SLURM.items() if key not in names}


def test_a_shell_inside_slurm_is_no_launcher() -> None:
    for environ in (
        SLURM | {"SLURM_JOB_NAME": "bash"},
        without("SLURM_STEP_ID"),
        without("SLURM_STEP_ID", "SLURM_PROCID"),
    ):
        assert launch_environment(environ).launcher == ""
        check_launch(environ | {"SLURM_NTASKS": "1"})  # one process: nothing to wait for


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (without("SLURM_STEP_ID"), "4 tasks, but this process was not started by srun.*srun lit-gen run"),
        (SLURM | {"SLURM_JOB_NAME": "bash"}, "called 'bash'.*train 4 times.*--job-name"),
        (SLURM | {"SLURM_JOB_NAME": "interactive"}, "called 'interactive'"),
        (without("SLURM_NTASKS_PER_NODE"), "--ntasks=4.*--ntasks-per-node=2"),
        (SLURM | {"SLURM_NTASKS": "5"}, "5 processes on 2 nodes"),
        (SLURM | {"SLURM_NODELIST": "no-such-host.invalid"}, "master address 'no-such-host.invalid'.*MASTER_ADDR"),
        (SLURM | {"MASTER_ADDR": "also.invalid"}, "master address 'also.invalid'"),
        (TORCHRUN | {"MASTER_ADDR": "also.invalid"}, "master address 'also.invalid'"),
    ],
)
def test_launches_that_would_hang_are_explained(environ: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_launch(environ)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("node[3-7,9],other", "node3"), ("gpu007", "gpu007"), ("a,b", "a"), ("n[01-02]-ib", "n01-ib"), ("c[5]", "c5")],
)
def test_the_first_host_of_a_node_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_run_ids_differ_between_runs_and_agree_within_one(monkeypatch: pytest.MonkeyPatch) -> None:
    env = launch_environment({})
    first = shared_run_id(env)
    assert shared_run_id(env) == first  # as a process that Lightning starts inherits it
    monkeypatch.delenv("LIT_GEN_RUN_ID")
    assert shared_run_id(env) != first


def test_devices_are_filled_in_or_checked() -> None:
    env = launch_environment(TORCHRUN)
    assert fill_trainer_arguments(env, "auto", 1) == (4, 2)
    assert fill_trainer_arguments(env, 4, 2) == (4, 2)
    for devices, nodes in ((2, 1), (4, 3)):
        with pytest.raises(UsageError, match="torchrun started 4"):
            fill_trainer_arguments(env, devices, nodes)
    assert fill_trainer_arguments(launch_environment({}), 3, 1) == (3, 1)


def test_world_size_is_checked() -> None:
    env = launch_environment(TORCHRUN)
    check_world_size(env, 8)
    with pytest.raises(UsageError, match="started 8 processes, the Trainer sees 1"):
        check_world_size(env, 1)


def test_torchrun_gives_one_run_directory(tmp_path: Path) -> None:
    file = tmp_path / "gan.yaml"
    experiment = small(ROOT / "configs/gan/dcgan_digits.yaml")
    experiment["trainer"].pop("devices")
    file.write_text(yaml.safe_dump(experiment))
    words = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "lit_gen",
        "run",
        "--config",
        str(file),
    ]
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=process_environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    record = yaml.safe_load((only_run(tmp_path) / "result.json").read_text())
    assert record["world_size"] == 2


def test_torchrun_restarts_the_run_where_it_was(tmp_path: Path) -> None:
    config = experiment("vae", 2, tmp_path)
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    process = subprocess.Popen(
        [sys.executable, *words, "-m", "lit_gen", "run", "--config", str(config), "--trainer.max_epochs", "10"],
        cwd=tmp_path, env=process_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for_updates(tmp_path, process, 30)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "resuming from" in printed
    assert (only_run(tmp_path) / "result.json").is_file()
