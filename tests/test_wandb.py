"""An offline W&B run, read back with the public ``wandb`` command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lit_gen.core.run_dir import git_state
from tests.conftest import ROOT, lit_gen, only_run, process_environment, small
from tests.test_resume import experiment
from tests.test_stopping import start, wait_for_updates


def inspect(file: Path, folder: Path) -> list[dict]:
    """All records of a W&B file, as ``wandb leet inspect --json`` prints them."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(file)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, env=process_environment(), cwd=folder, timeout=120,
    )  # fmt: skip
    if done.returncode != 0 and "No such command" in done.stderr:
        pytest.skip("this wandb has no `leet inspect`")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_offline_run_has_config_history_and_grids(tmp_path: Path) -> None:
    settings = small(ROOT / "configs/gan/dcgan_digits.yaml", max_epochs=2, limit_train_batches=3, limit_val_batches=1)
    settings["loggers"] = {"wandb": True}
    file = tmp_path / "gan.yaml"
    file.write_text(yaml.safe_dump(settings))
    done = lit_gen("run", "--config", file, "--seed_everything", "11", cwd=tmp_path, WANDB_API_KEY="")
    assert "logging offline" in done.stdout

    run = only_run(tmp_path)
    (stored,) = run.glob("wandb/offline-run-*/*.wandb")
    records = inspect(stored, tmp_path)

    (started,) = [record["run"] for record in records if record["type"] == "run"]
    assert started["run_id"] == run.name
    config = started["config"]["update"]
    assert config["model"]["class_path"] == "lit_gen.gan.GAN"
    assert config["model"]["init_args"]["generator"]["class_path"] == "lit_gen.gan.DCGANGenerator"
    assert config["data"]["class_path"] == "lit_gen.data.Digits"
    assert config["seed_everything"] == 11
    assert config["git"] == git_state()

    text = json.dumps([record for record in records if record["type"] == "history"])
    for key in ("train/loss_d", "train/loss_g", "train/grad_norm_g", "trainer/global_step", "test/"):
        assert key in text
    assert text.count("image-file") >= 2, "one grid an epoch"
    grids = list(stored.parent.glob("files/media/images/samples_*.png"))
    assert len(grids) >= 2
    assert "model-" in json.dumps([record for record in records if record["type"] in ("artifact", "request")])

    lit_gen("run", "--resume", run, "--trainer.max_epochs", "3", cwd=tmp_path, WANDB_API_KEY="")
    continued = [inspect(file, tmp_path) for file in run.glob("wandb/offline-run-*/*.wandb")]
    ids = {record["run"]["run_id"] for records in continued for record in records if record["type"] == "run"}
    assert len(continued) == 2
    assert ids == {run.name}, "a resumed run continues the same W&B run"


def test_a_run_has_a_service_of_its_own(tmp_path: Path) -> None:
    """Its caller's (a notebook's, a sweep's) would take the paths for its own folder's and end with the caller."""
    program = (
        "import subprocess, sys, wandb; wandb.init(dir='.').finish();"
        "sys.exit(subprocess.run([sys.executable, '-m', 'lit_gen', *sys.argv[1:]], cwd='elsewhere').returncode)"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    words = ["run", "--config", str(experiment("vae", 1, tmp_path)), "--loggers.wandb", "true"]
    subprocess.run(
        [sys.executable, "-c", program, *words], cwd=tmp_path, env=process_environment(WANDB_API_KEY=""),
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert len([*tmp_path.glob("wandb/offline-run-*/*.wandb")]) == 1
    assert len([*only_run(elsewhere).glob("wandb/offline-run-*/*.wandb")]) == 1


def test_a_run_outlives_the_service_of_wandb_and_stops_as_asked(tmp_path: Path) -> None:
    config = experiment("vae", 1, tmp_path)
    words = ["run", "--config", config, "--loggers.wandb", "true", "--trainer.max_epochs", 500]
    process = start(tmp_path, *words, WANDB_API_KEY="")
    wait_for_updates(tmp_path, process, 20)
    (service,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert "wandb" in Path(f"/proc/{service}/cmdline").read_text()
    os.kill(int(service), signal.SIGTERM)  # as SLURM ends all processes of a job
    wait_for_updates(tmp_path, process, 100)
    process.send_signal(signal.SIGUSR1)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGUSR1
    lines = errors.splitlines()
    assert "W&B is lost" in lines[0]
    assert "stopped by SIGUSR1" in lines[1]
    assert len(lines) == 2


def test_a_stopped_run_leaves_a_complete_wandb_run(tmp_path: Path) -> None:
    config = experiment("vae", 1, tmp_path)
    words = ["run", "--config", config, "--loggers.wandb", "true", "--trainer.max_epochs", 500]
    process = start(tmp_path, *words, WANDB_API_KEY="")
    wait_for_updates(tmp_path, process, 20)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert len(errors.splitlines()) == 1
    (stored,) = only_run(tmp_path).glob("wandb/offline-run-*/*.wandb")
    kinds = [record["type"] for record in inspect(stored, tmp_path)]
    assert kinds.count("history") >= 20
    assert "exit" in kinds
