"""README's commands, taken from its text and run in order, and its tables, compared with the records they come from."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

from tests.conftest import ROOT, process_environment

README = (ROOT / "README.md").read_text()
SHORT = "--trainer.max_epochs 1 --trainer.limit_train_batches 2 --trainer.limit_val_batches 1 --loggers.wandb false"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    lines = [line.split(" #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    found = [line for line in lines if line.startswith(("lit-gen", "torchrun"))]
    long = ("lit-gen sweep", "lit-gen reproduce")  # hours otherwise; tests/papers runs every table quickly
    return [f"{line} --dry-run" if line.startswith(long) and "--dry-run" not in line else line for line in found]


def runnable(command: str, folder: Path) -> list[str]:
    """The command as a process here: this Python, the run that RUN_ID means, and a new run made short."""
    for placeholder in re.findall(r"runs/\w+/RUN_ID", command):
        (newest,) = sorted(folder.glob(placeholder.replace("RUN_ID", "*")))[-1:]
        command = command.replace(placeholder, str(newest.relative_to(folder)))
    if " run --config configs/" in command:
        command += f" {SHORT}"
        command += " --model.init_args.nll_samples 10" if "/vae" in command else ""
        command += " --model.init_args.partition.init_args.steps 50" if "/energy" in command else ""
    words = shlex.split(command)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*torchrun, *words[1:]] if words[0] == "torchrun" else [sys.executable, "-m", "lit_gen", *words[1:]]


def test_every_command_works(tmp_path: Path) -> None:
    for folder in ("configs", "sweeps"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    assert len(commands()) >= 10
    for command in commands():
        done = subprocess.run(
            runnable(command, tmp_path),
            cwd=tmp_path,
            env=process_environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        if "--out" in command:
            out = command.split("--out ")[1].split()[0]
            assert (tmp_path / out).stat().st_size > 1000, command


def test_python_examples_run() -> None:
    assert blocks("python")
    for block in blocks("python"):
        subprocess.run([sys.executable, "-c", block], check=True, env=process_environment(), timeout=120)


def test_yaml_examples_name_real_classes() -> None:
    from importlib import import_module

    for block in blocks("yaml"):
        for class_path in re.findall(r"lit_gen\.[\w.]+", yaml.safe_dump(yaml.safe_load(block))):
            module, _, name = class_path.rpartition(".")
            assert hasattr(import_module(module), name), class_path


def test_links_and_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make (\w+)`?", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for path in re.findall(r"`((?:configs|results|benchmarks|slurm|sweeps|docs)/[\w/.]*)`", README):
        assert (ROOT / path).exists(), path


def test_tables_are_those_of_the_records() -> None:
    from results.tables import paper_pages, paper_tables, with_tables

    assert with_tables(README) == README, "run `make tables`"
    assert all(f"<!-- paper:{key} -->" in README for key in paper_tables())
    for page, content in paper_pages().items():
        assert page.read_text() == content, "run `make tables`"
