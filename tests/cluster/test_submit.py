"""``lit-gen submit``: what it writes, what it refuses, and what SLURM makes of it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import lit_gen
from lit_gen.cli.job_script import JobScript, seconds_of
from lit_gen.cli.main import COMMANDS, main
from lit_gen.cli.submit import TEMPLATES, parse
from lit_gen.core.errors import UsageError
from tests.cluster.jobs import SCRIPTS, Cluster, write_config
from tests.conftest import lit_gen as lit_gen_process
from tests.conftest import only_run

FAKE_SBATCH = """#!/bin/sh
[ -z "$REFUSE" ] || { echo "sbatch: error: $REFUSE" >&2; exit 1; }
echo "$@" >sbatch.txt
echo "77;cluster"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a small config and without the SLURM of this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    write_config(tmp_path, "vae/vae_digits.yaml")
    return tmp_path


@pytest.fixture
def fake_sbatch(folder: Path) -> None:
    """An sbatch that accepts every job as number 77, or refuses it with $REFUSE."""
    (folder / "bin" / "sbatch").write_text(FAKE_SBATCH)
    (folder / "bin" / "sbatch").chmod(0o755)


def submit(*words: str) -> int:
    return main(["submit", "--config", "vae_digits.yaml", *words])


def script_of(folder: Path) -> JobScript:
    return JobScript.read(only_run(folder) / "job.sbatch")


def test_the_shipped_scripts_are_the_templates() -> None:
    for name in TEMPLATES.values():
        assert (Path(lit_gen.__file__).parent / "slurm" / name).samefile(SCRIPTS / name)
    assert "submit" in COMMANDS


def test_a_dry_run_writes_all_that_a_job_needs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--nodes", "2", "--tasks-per-node", "4", "--time=8:00:00", "--partition", "long", "--account", "us"]
    words += ["--cpus-per-task", "6", "--mem", "64G", "--signal-before", "300", "--dry-run", "--sbatch", "--qos=high"]
    words += ["--setup", "module load cuda/12.4", "--model.init_args.beta", "4", "--seed_everything=9"]
    assert submit(*words) == 0
    run = only_run(folder)
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["model"]["init_args"]["beta"], config["seed_everything"], config["name"]) == (4, 9, "vae_digits")

    text = (run / "job.sbatch").read_text()
    script = script_of(folder)
    assert script.options == {
        "job-name": f"vae_digits-{run.name}", "dependency": "singleton", "chdir": str(folder),
        "output": f"{run}/slurm-%j.out", "nodes": "2", "ntasks-per-node": "4", "cpus-per-task": "6", "time": "8:00:00",
        "open-mode": "append", "signal": "USR1@300", "requeue": None, "partition": "long", "account": "us",
        "mem": "64G", "qos": "high",
    }  # fmt: skip
    assert "module load cuda/12.4" in script.setup
    assert f"set -- {shlex.join(['--resume', str(run)])}\n" in text
    assert text.endswith(JobScript.read(SCRIPTS / "train.sbatch").body)
    printed = capsys.readouterr().out
    assert text in printed
    assert f"not submitted: sbatch runs/vae_digits/{run.name}/job.sbatch does it" in printed


def test_gpus_have_a_process_each_and_torchrun_its_own_body(folder: Path) -> None:
    words = ("--trainer.accelerator", "auto", "--gpus-per-node", "8", "--launcher", "torchrun", "--dry-run")
    assert submit(*words) == 0
    script = script_of(folder)
    assert (script.options["gpus-per-node"], script.options["ntasks-per-node"]) == ("8", "8")
    assert script.options["signal"] == "TERM@120"
    assert script.body.endswith(JobScript.read(SCRIPTS / "train_torchrun.sbatch").body)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--nodes 0", "--nodes: '0'; accepted: an integer of 1 or more"),
        ("--gpus-per-node -1", "--gpus-per-node: '-1'; accepted"),
        ("--time soon", "--time: 'soon'; accepted: MINUTES"),
        ("--time 1", "--signal-before 120: the time limit 1 is no longer"),
        ("--mem lots", "--mem: 'lots'; accepted: a whole number"),
        ("--launcher mpirun", "--launcher: invalid choice: 'mpirun'"),
        ("--partition", "--partition: expected one argument"),
        ("--sbatch qos", "--sbatch = 'qos'; accepted: one option"),
        ("--sbatch --array=1-4", "--sbatch '--array=1-4': lit-gen submit sets it"),
        ("--sbatch --ntasks=4", "--sbatch '--ntasks=4': use --nodes, --tasks-per-node"),
        ("--gpus-per-node 8 --tasks-per-node 4", "--tasks-per-node 4: a job with --gpus-per-node 8"),
        ("--gpus-per-node 2", "trainer.accelerator = cpu, but the job asks for GPUs"),
        ("--trainer.accelerator gpu", "trainer.accelerator = gpu, but the job asks for no GPUs"),
        ("--trainer.devices 3", "trainer.devices = 3, trainer.num_nodes = 1, but the job has 1 process(es)"),
        ("--nodes 2 --trainer.num_nodes 3", "trainer.num_nodes = 3, but the job has 1 process(es) on each of 2 node(s)"),
        ("--model.init_args.betta 4", "betta"),
        ("--resume runs/none", "runs/none"),
    ],
)  # fmt: skip
def test_mistakes_are_named_in_one_line(
    words: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit(*words.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (folder / "runs").exists()


def test_words_of_the_run_keep_their_order() -> None:
    words = ["--config", "a.yaml", "--nodes", "2", "--model.init_args.x", "-3", "--trainer.devices=2", "-c", "b.yaml"]
    options, rest = parse([*words, "--sbatch", "--qos=high", "--sbatch=--exclusive"])
    assert rest == ["--config", "a.yaml", "--model.init_args.x", "-3", "--trainer.devices=2", "-c", "b.yaml"]
    assert (options.nodes, options.sbatch) == (2, ["--qos=high", "--exclusive"])


def test_forms_of_a_time_limit() -> None:
    accepted = {"90": 5400, "90:30": 5430, "8:00:00": 28800, "2-12": 216000, "1-0:30": 88200, "1-0:0:5": 86405}
    assert {text: seconds_of(text) for text in accepted} == accepted
    assert seconds_of("UNLIMITED") == seconds_of("0") == float("inf")
    for text in ("", "soon", "8h", "1:2:3:4", "-1", "1-", "1.5"):
        assert seconds_of(text) is None


def test_what_the_site_has_set_is_kept(folder: Path) -> None:
    text = (SCRIPTS / "train.sbatch").read_text()
    edited = folder / "train.sbatch"
    edited.write_text(
        text.replace("##SBATCH --partition=gpu", "#SBATCH --partition=gpu").replace("# module load", "module load")
    )
    script = JobScript.read(edited)
    assert script.options["partition"] == "gpu"
    assert script.setup == ["module load cuda"]
    edited.write_text("#!/bin/bash\nsrun lit-gen run\n")
    with pytest.raises(UsageError, match="has no line 'set -euo pipefail'"):
        JobScript.read(edited)


def test_sbatch_is_asked_once(folder: Path, fake_sbatch: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit() == 0
    run = only_run(folder)
    assert (folder / "sbatch.txt").read_text().split() == ["--parsable", f"runs/vae_digits/{run.name}/job.sbatch"]
    assert "submitted job 77;" in capsys.readouterr().out


def test_a_refusal_is_one_line_and_the_script_is_kept(
    folder: Path, fake_sbatch: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REFUSE", "invalid partition specified: nope")
    assert submit("--partition", "nope") == 1
    error = capsys.readouterr().err
    assert error.endswith("job.sbatch: invalid partition specified: nope\n")
    assert len(error.splitlines()) == 1
    assert (only_run(folder) / "job.sbatch").is_file()


def test_without_sbatch_the_script_is_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit() == 1
    error = capsys.readouterr().err
    assert "no sbatch on this machine" in error
    assert len(error.splitlines()) == 1
    assert (only_run(folder) / "job.sbatch").is_file()


def test_help_is_quick() -> None:
    loaded = "import sys; from lit_gen.cli.main import main\ntry: main(['submit', '--help'])\nexcept SystemExit: pass\n"
    words = [sys.executable, "-c", loaded + "print('torch' in sys.modules)"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=SCRIPTS.parent)
    assert done.stdout.strip().endswith("False"), done.stderr
    assert "lit-gen submit --resume" in done.stdout


def test_a_submitted_run_completes_and_continues(cluster: Cluster) -> None:
    """On two nodes, in its directory; submitted again while it runs, it waits, then continues the same run."""
    config = write_config(cluster.folder, "vae/vae_digits.yaml", max_epochs=100)  # runs while the second is submitted
    words = ["submit", "--config", config, "--nodes", "2", "--cpus-per-task", "1", "--mem", "100", "--time", "10"]
    done = lit_gen_process(*words, cwd=cluster.folder, PATH=cluster.environment["PATH"])
    run = only_run(cluster.folder)
    first = done.stdout.split("submitted job ")[1].split(";")[0]
    cluster.jobs.append(first)
    second = cluster.submit(run / "job.sbatch")
    shown = subprocess.run(["scontrol", "show", "job", "-o", second], capture_output=True, text=True, timeout=60).stdout
    assert "singleton" in shown
    cluster.completed(first, second)
    assert only_run(cluster.folder) == run
    assert json.loads((run / "result.json").read_text())["world_size"] == 2
    assert "no intact checkpoint yet" in cluster.log(first)
    assert "resuming from" in cluster.log(second)
