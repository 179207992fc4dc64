"""``lit-gen sweep``: whole sweeps, with workers that are killed; a stand-in trains, but in one test."""

from __future__ import annotations

import collections
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from lit_gen.cli.app import checked_config
from lit_gen.cli.sweep import main
from lit_gen.core.errors import UsageError
from tests.conftest import ROOT, lit_gen
from tests.sweeps.conftest import run_sweep, start_sweep, trials, write_sweep

FINISHED = (1, 2, 3)  # Optuna's states COMPLETE, PRUNED, FAIL


def check_nothing_lost_or_repeated(folder: Path, count: int, steps: int) -> int:
    """Looks at the journal, the run directories and what each run logged; returns how many runs were continued."""
    sweep = folder / "runs" / "sweep-toy"
    ends = collections.Counter()
    made = 0
    for line in (sweep / "journal.log").read_text().splitlines():
        try:
            operation = json.loads(line)
        except ValueError:  # cut off by a kill
            continue
        made += operation["op_code"] == 4
        if operation["op_code"] == 6 and operation["state"] in FINISHED:
            ends[operation["trial_id"]] += 1
    assert made == count
    assert ends == dict.fromkeys(range(count), 1)
    runs = sorted(sweep.glob("trial-*"))
    assert len(runs) == count
    for run in runs:
        assert (run / "result.json").exists()
        logged = [line.split(",")[0] for line in (run / "metrics.csv").read_text().splitlines()]
        assert logged == ["step", *map(str, range(steps))]
    assert not list((sweep / "leases").glob("trial-*")), "every lease was given back"
    return sum(len((run / "starts.txt").read_text().splitlines()) > 1 for run in runs)


@pytest.mark.parametrize("method", ["random", "grid"])
def test_workers_killed_at_random_moments(method: str, tmp_path: Path) -> None:
    count, steps, kills = 12, 12, 8
    x = {"min": 0.0, "max": 1.0} if method == "random" else {"values": [n / 12 for n in range(12)]}
    write_sweep(tmp_path, method=method, parameters={"x": x, "steps": {"value": steps}, "pause": {"value": 0.1}})
    words, draw = ["--count", str(count), "--lease", "1000"], random.SystemRandom()
    workers = [start_sweep(tmp_path, *words) for _ in range(3)]
    moments = [round(draw.uniform(0.3, 1.6), 2) for _ in range(kills)]
    for moment in moments:
        time.sleep(moment)
        worker = workers.pop(draw.randrange(len(workers)))
        worker.kill()
        worker.communicate()
        workers.append(start_sweep(tmp_path, *words))
    for worker in workers:
        out, err = worker.communicate(timeout=240)
        assert worker.returncode == 0, (moments, err)
        assert "12 trials" in out
    continued = check_nothing_lost_or_repeated(tmp_path, count, steps)
    print(f"killed after {moments} s; {continued} of {count} runs were continued")
    rows = trials(tmp_path)
    assert [row["state"] for row in rows] == ["complete"] * count
    if method == "grid":
        assert sorted(float(row["x"]) for row in rows) == [n / 12 for n in range(12)]


def test_two_workers_of_one_command_of_which_one_is_killed(tmp_path: Path) -> None:
    write_sweep(
        tmp_path, run_cap=8, parameters={"x": {"min": 0.0, "max": 1.0}, "steps": {"value": 20}, "pause": {"value": 0.1}}
    )
    parent = start_sweep(tmp_path, "--workers", "2")
    victim = one_of_two_working(tmp_path, parent.pid)
    os.kill(victim, signal.SIGKILL)
    out, err = parent.communicate(timeout=240)
    assert parent.returncode == 0, err
    assert "was killed by signal 9; another one continues its trial" in err
    assert err.count("\n") == 1
    assert "(8 of 8 finished)" in out
    assert check_nothing_lost_or_repeated(tmp_path, 8, 20) == 1
    folder = tmp_path / "runs" / "sweep-toy"
    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        "sweep.yaml", "journal.log", "trials.csv", "best.yaml", "parameters.png",
    }  # fmt: skip
    best = min(trials(tmp_path), key=lambda row: float(row["val/loss"]))
    assert f"trial {best['trial']} of sweep-toy" in (folder / "best.yaml").read_text()


def one_of_two_working(folder: Path, parent: int) -> int:
    """Waits until two workers have a run that logs; returns one's process id."""
    deadline = time.monotonic() + 120
    while len(list(folder.glob("runs/sweep-toy/trial-*/metrics.csv"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return int(Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0])


def test_all_workers_killed_and_the_same_command_again(tmp_path: Path) -> None:
    write_sweep(
        tmp_path,
        run_cap=3,
        parameters={"x": {"min": 0.0, "max": 1.0}, "steps": {"value": 30}, "pause": {"value": 0.05}},
    )
    parent = start_sweep(tmp_path, "--workers", "2")
    one_of_two_working(tmp_path, parent.pid)
    for worker in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split():
        os.kill(int(worker), signal.SIGKILL)
    _, err = parent.communicate(timeout=60)
    assert parent.returncode == 1
    assert "every worker ended before all trials were finished: the same command continues" in err.splitlines()[-1]
    again = run_sweep(tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("continues in") == 2
    assert check_nothing_lost_or_repeated(tmp_path, 3, 30) == 2


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_signal_hands_the_trials_back(workers: str, tmp_path: Path) -> None:
    write_sweep(
        tmp_path,
        run_cap=4,
        parameters={"x": {"min": 0.0, "max": 1.0}, "steps": {"value": 40}, "pause": {"value": 0.05}},
    )
    process = start_sweep(tmp_path, "--workers", workers)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("runs/sweep-toy/trial-*/metrics.csv"))) < int(workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1 if workers == "1" else signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == (138 if workers == "1" else 143)
    assert out.count("is handed back") == int(workers)
    assert err.count("\n") == 1
    assert "the same command continues" in err
    assert not list((tmp_path / "runs" / "sweep-toy" / "leases").glob("trial-*"))
    again = run_sweep(tmp_path)
    assert again.returncode == 0
    assert check_nothing_lost_or_repeated(tmp_path, 4, 40) == int(workers)


def test_again_and_a_larger_count(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    assert run_sweep(tmp_path, "--count", "3").returncode == 0
    first = trials(tmp_path)
    again = run_sweep(tmp_path, "--count", "3")
    assert again.returncode == 0
    assert "best.yaml" in again.stdout
    assert "trial 0 ->" not in again.stdout
    more = run_sweep(tmp_path, "--count", "5", "--workers", "2")
    assert more.stdout.count(" -> ") == 2
    assert trials(tmp_path)[:3] == first
    assert check_nothing_lost_or_repeated(tmp_path, 5, 5) == 0
    write_sweep(tmp_path, method="bayes")
    other = run_sweep(tmp_path, "--count", "6")
    assert other.returncode == 2
    assert "method was random, is bayes" in other.stderr


def test_unpromising_trials_are_stopped_early(tmp_path: Path) -> None:
    early = {"type": "hyperband", "min_iter": 2, "eta": 2}
    values = {"x": {"values": [0.1, 0.9, 0.8, 0.7, 0.6, 0.5]}, "steps": {"value": 16}, "pause": {"value": 0.1}}
    write_sweep(tmp_path, method="grid", parameters=values, early_terminate=early)
    done = run_sweep(tmp_path)
    assert done.returncode == 0, done.stderr
    rows = trials(tmp_path)
    assert [row["state"] for row in rows] == ["complete"] + ["pruned"] * 5
    assert rows[0]["val/loss"] == str(0.1**2 + 1 / 16)
    for row in rows[1:]:
        run = Path(row["run"])
        assert not (run / "result.json").exists()
        assert len((run / "metrics.csv").read_text().splitlines()) < 17


def test_a_mistake_stops_all_workers_with_one_line(tmp_path: Path) -> None:
    values = {"x": {"values": [0, 1, 2]}, "fail": {"value": "exit 2"}}
    write_sweep(tmp_path, method="grid", parameters=values)
    done = run_sweep(tmp_path, "--workers", "2")
    assert done.returncode == 2
    assert "model.init_args.x = 7: accepted: less" in done.stderr
    assert "Traceback" not in done.stderr
    assert all(line.startswith("lit-gen: error: trial ") for line in done.stderr.splitlines())


def test_failed_trials_count_and_are_told(tmp_path: Path) -> None:
    write_sweep(tmp_path, method="grid", parameters={"x": {"value": 1}, "fail": {"values": ["", "diverge"]}})
    done = run_sweep(tmp_path)
    assert done.returncode == 0
    assert [row["state"] for row in trials(tmp_path)] == ["complete", "failed"]
    assert "trial 1 failed: training diverged: loss = nan" in done.stdout
    assert trials(tmp_path)[1]["reason"] == "training diverged: loss = nan"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.yaml"], "no sweep file at none.yaml"),
        ([], "the following arguments are required: file"),
        (["toy.yaml"], "--count is missing: toy has no run_cap, and random has no end of its own"),
        (["toy.yaml", "--count", "0"], "'0'; accepted: an integer of 1 or more"),
        (
            ["toy.yaml", "--count", "2", "--storage", "my sweep"],
            "--storage my sweep: its last part names the experiment",
        ),
        (["toy.yaml", "--cuont", "3"], "unrecognized arguments: --cuont 3"),
        (["toy.yaml", "--count", "2"], "file 'fake.yaml' does not exist"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_sweep(tmp_path)
    with pytest.raises(UsageError) as caught:
        main("sweep", words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["toy.yaml"]


def test_choices_that_the_configuration_refuses_are_found_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["lit-gen", "run", "--config", str(ROOT / "configs/vae/vae_digits.yaml"), "${args}"]
    posteriors = {"values": ["log_variance", "softplus", "nonsense"]}
    write_sweep(tmp_path, command=command, parameters={"model.init_args.posterior": posteriors})
    with pytest.raises(UsageError, match=r"posterior=nonsense: .*posterior"):
        main("sweep", ["toy.yaml", "--count", "2"])
    write_sweep(tmp_path, command=command, parameters={"model.init_args.latent_dmi": {"value": 2}})
    with pytest.raises(UsageError, match=r"unknown key model\.init_args\.latent_dmi"):
        main("sweep", ["toy.yaml", "--count", "2"])
    assert not (tmp_path / "runs").exists()


def test_dry_run_prints_commands_and_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write_sweep(tmp_path, method="grid", parameters={"a": {"values": [1, 2]}, "b": {"values": ["null", "two words"]}})
    assert main("sweep", ["toy.yaml", "--dry-run"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 4
    assert printed[1] == "lit-gen run --config fake.yaml --a=1 '--b=two words'"
    write_sweep(tmp_path, method="bayes", run_cap=30)
    assert main("sweep", ["toy.yaml", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "# and 25 more, drawn from what the others gave"
    assert not (tmp_path / "runs").exists()


def test_help_needs_neither_torch_nor_optuna() -> None:
    program = "import sys; from lit_gen.cli.main import main; main(['sweep', '--help'])"
    loaded = f"{program}; print({{'torch', 'optuna', 'matplotlib', 'pytorch_lightning'}} & set(sys.modules))"
    try_help = "import sys\ntry:\n exec(sys.argv[1])\nexcept SystemExit: pass\n"
    check = try_help + "print('LOADED', {'torch', 'optuna', 'matplotlib', 'pytorch_lightning'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check, loaded], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "--storage DIR" in done.stdout
    assert done.stdout.splitlines()[-1] == "LOADED set()"


def test_a_real_sweep(tmp_path: Path) -> None:
    """Three VAEs on digits on two workers: the report, and a best.yaml that is a configuration."""
    settings = [
        "--trainer.max_epochs=2", "--trainer.check_val_every_n_epoch=1", "--trainer.limit_train_batches=4",
        "--model.init_args.nll_samples=5", "--loggers.wandb=false", "--trainer.accelerator=cpu",
    ]  # fmt: skip
    config = str(ROOT / "configs/vae/vae_digits.yaml")
    parameters = {
        "model.init_args.optimizer.init_args.lr": {"distribution": "log_uniform_values", "min": 1.0e-4, "max": 1.0e-2},
        "model.init_args.decoder": {
            "value": '{"class_path": "lit_gen.vae.MLPDecoder", "init_args": {"hidden": [8], "activation": "tanh"}}'
        },
    }
    write_sweep(
        tmp_path, method="bayes", metric={"name": "val/elbo", "goal": "maximize"}, parameters=parameters,
        command=["${env}", "lit-gen", "run", "--config", config, *settings, "${args}"],
    )  # fmt: skip
    done = lit_gen("sweep", "toy.yaml", "--count", "3", "--workers", "2", cwd=tmp_path)
    folder = tmp_path / "runs" / "sweep-toy"
    rows = trials(tmp_path)
    assert [row["state"] for row in rows] == ["complete"] * 3
    for row in rows:
        run = Path(row["run"])
        assert run.parent == folder
        with open(run / "metrics.csv", newline="") as file:
            logged = [float(line["val/elbo"]) for line in csv.DictReader(file) if line["val/elbo"]]
        assert float(row["val/elbo"]) == max(logged)
        lr = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["optimizer"]["init_args"]["lr"]
        assert lr == float(row["model.init_args.optimizer.init_args.lr"])
    best = max(rows, key=lambda row: float(row["val/elbo"]))
    complete = checked_config(["--config", str(folder / "best.yaml")])
    assert (complete["name"], complete["runs_dir"]) == ("toy-best", "runs")
    of_best = yaml.safe_load((Path(best["run"]) / "config.yaml").read_text())
    assert complete | {"name": "", "runs_dir": ""} == of_best | {"name": "", "runs_dir": ""}
    assert (folder / "parameters.png").read_bytes().startswith(b"\x89PNG")
    assert "toy-best" in (folder / "best.yaml").read_text()
    assert "the best again: lit-gen run --config runs/sweep-toy/best.yaml" in done.stdout
