"""Runs killed at random moments and resumed end with the weights, and the metrics.csv, of the uninterrupted run."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from tests.conftest import ROOT, differing_weights, lit_gen, only_run, process_environment, small

FAMILIES = {
    "gan": ROOT / "configs/gan/dcgan_digits.yaml",
    "vae": ROOT / "configs/vae/vae_digits.yaml",
    "rbm": ROOT / "configs/energy/rbm_pcd_mnist.yaml",  # with persistent chains
    "lstm_language_model": ROOT / "configs/text/lstm_numbers.yaml",  # its state goes from batch to batch
    "seq2seq": ROOT / "configs/text/transformer_numbers.yaml",  # with dropout
}
CHANGES = {"rbm": {"hidden_units": 12}}  # few enough for an exact likelihood


def experiment(family: str, processes: int, folder: Path) -> Path:
    """A run of some ten seconds that logs every update, validates in mid-epoch and has a checkpoint every 7 updates."""
    settings = small(FAMILIES[family], max_epochs=4, check_val_every_n_epoch=1, val_check_interval=20)
    settings["trainer"] |= {"log_every_n_steps": 1, "devices": processes, "enable_progress_bar": False}
    settings["checkpoint"] = {"every_n_steps": 7}
    settings["sample_grid"] = {"every_n_epochs": 2, "n": 4}
    if FAMILIES[family].parent.name == "text":
        settings["data"]["init_args"] |= {"train_size": 600}
    else:
        settings["data"]["init_args"] |= {"image_size": 16, "val_size": 200}
    settings["model"]["init_args"] |= CHANGES.get(family, {})
    file = folder / f"{family}.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


def rows(run: Path) -> list[dict[str, str]]:
    """metrics.csv without what a clock decides."""
    with open(run / "metrics.csv", newline="") as file:
        return [
            {k: v for k, v in row.items() if not k.endswith(("_per_s", "_seconds"))} for row in csv.DictReader(file)
        ]


def logged_updates(folder: Path) -> int:
    files = list(folder.glob("runs/*/*/metrics.csv"))
    return max(0, len(files[0].read_bytes().splitlines()) - 1) if files else 0


def run_until_killed(words: list[str], folder: Path, updates: int) -> None:
    """Starts lit-gen in a process group of its own and kills the group once so many rows are logged."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lit_gen", *words],
        cwd=folder, env=process_environment(), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while process.poll() is None and logged_updates(folder) < updates and time.monotonic() < deadline:
        time.sleep(0.005)
    assert process.poll() is None, "the run ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def state(run: Path) -> dict[str, torch.Tensor]:
    """The weights, and what goes from batch to batch where there is any: persistent chains, a carried state."""
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)
    chains = {"chains": checkpoint["chains"]} if "chains" in checkpoint else {}
    carried = {f"carried {i}": tensor for i, tensor in enumerate(checkpoint.get("carried_state") or ())}
    return {**checkpoint["state_dict"], **chains, **carried}


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_three_kills_change_nothing(family: str, processes: int, tmp_path: Path) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    for folder in (straight, broken):
        folder.mkdir()
    config = experiment(family, processes, tmp_path)
    lit_gen("run", "--config", config, cwd=straight)

    total = torch.load(only_run(straight) / "checkpoints" / "last.ckpt", weights_only=False)["global_step"]
    moments = sorted(random.SystemRandom().sample(range(5, total - 25), 3))
    print(f"killed after {moments} of {total} updates")
    words = ["run", "--config", str(config)]
    for moment in moments:
        run_until_killed(words, broken, moment)
        words = ["run", "--resume", str(only_run(broken).relative_to(broken))]
    lit_gen(*words, cwd=broken)

    assert differing_weights(state(only_run(straight)), state(only_run(broken))) == [], moments
    expected, found = rows(only_run(straight)), rows(only_run(broken))
    assert [row["step"] for row in found] == [row["step"] for row in expected], moments
    for mine, theirs in zip(found, expected):
        numbers = [{k: float(v) for k, v in row.items() if v} for row in (mine, theirs)]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-5), (moments, mine["step"])


def test_the_saved_config_repeats_the_run(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    lit_gen("run", "--config", experiment("vae", 1, tmp_path), "--trainer.max_epochs", "1", cwd=first)
    lit_gen("run", "--config", only_run(first) / "config.yaml", cwd=second)
    assert differing_weights(state(only_run(first)), state(only_run(second))) == []
    assert only_run(second).parent.name == only_run(first).parent.name


def test_a_torn_checkpoint_is_skipped_with_a_warning(tmp_path: Path) -> None:
    config = experiment("vae", 1, tmp_path)
    lit_gen("run", "--config", config, "--trainer.max_epochs", "1", cwd=tmp_path)
    run = only_run(tmp_path)
    expected = state(run)
    last = run / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    done = lit_gen("run", "--resume", run, cwd=tmp_path)
    assert "last.ckpt is torn or corrupt" in done.stderr
    assert "resuming from" in done.stdout
    assert "previous.ckpt" in done.stdout
    assert differing_weights(expected, state(run)) == []


def test_overrides_on_resume_take_effect_or_are_refused(tmp_path: Path) -> None:
    config = experiment("vae", 1, tmp_path)
    lit_gen("run", "--config", config, "--trainer.max_epochs", "1", cwd=tmp_path)
    run = only_run(tmp_path)
    before = (run / "config.yaml").read_text()

    for words in (["--model.init_args.beta", "4"], ["--data.init_args.batch_size", "32"], ["--seed_everything", "9"]):
        refused = lit_gen("run", "--resume", run, *words, cwd=tmp_path, check=False)
        assert refused.returncode == 2
        assert words[0][2:] in refused.stderr
        assert words[1] in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
        assert (run / "config.yaml").read_text() == before

    lit_gen("run", "--resume", run, "--trainer.max_epochs", "2", cwd=tmp_path)
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)["epoch"] == 2
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_epochs"] == 2
