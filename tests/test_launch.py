"""What the launcher's environment says, and what is made of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lit_gen.core.errors import UsageError
from lit_gen.core.launch import check_world_size, fill_trainer_arguments, launch_environment, shared_run_id
from tests.conftest import ROOT, only_run, process_environment, small

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
SLURM = {"SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_NNODES": "2", "SLURM_JOB_ID": "17", "SLURM_JOB_NAME": "vae"}


def test_torchrun_is_read() -> None:
    env = launch_environment(TORCHRUN)
    assert (env.launcher, env.rank, env.world_size, env.nodes, env.devices) == ("torchrun", 3, 8, 2, 4)


def test_slurm_is_read_and_names_the_run() -> None:
    env = launch_environment(SLURM)
    assert (env.launcher, env.rank, env.world_size, env.nodes, env.devices) == ("slurm", 1, 4, 2, 2)
    assert shared_run_id(env) == "slurm-17"
    array = launch_environment(SLURM | {"SLURM_ARRAY_JOB_ID": "16", "SLURM_ARRAY_TASK_ID": "2"})
    assert shared_run_id(array) == "slurm-16_2"


def test_an_interactive_slurm_shell_is_no_launcher() -> None:
    assert launch_environment(SLURM | {"SLURM_JOB_NAME": "bash"}).launcher == ""


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
