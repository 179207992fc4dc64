"""``lit-gen reproduce``: whole tables, killed and continued; a stand-in trains, but in the tests of --quick."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from lit_gen.cli.main import exit_code
from tests.papers.conftest import reproduce, start_reproduce, toy, write_toy

LONG = {"model.steps": 30, "model.pause": 0.05}


def runs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("runs/reproduce/toys/*-seed*/*") if path.is_dir())


def records(folder: Path) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("results/toys/*-seed*.json"))}


def steps(run: Path) -> list[int]:
    return [int(line.split(",")[0]) for line in (run / "metrics.csv").read_text().splitlines()[1:]]


def check_complete(folder: Path, length: int) -> int:
    """Every cell has one run with each step once, and a record; returns how many runs were continued."""
    assert [run.parent.name for run in runs(folder)] == ["a-seed0", "a-seed1", "b-seed0", "b-seed1"]
    assert list(records(folder)) == ["a-seed0", "a-seed1", "b-seed0", "b-seed1"]
    for run in runs(folder):
        assert steps(run) == list(range(length))
    assert not list((folder / "runs/reproduce/toys/leases").glob("*")), "every lease was given back"
    return sum(len((run / "starts.txt").read_text().splitlines()) > 1 for run in runs(folder))


def test_a_table_from_nothing_and_again(tmp_path: Path) -> None:
    write_toy(tmp_path)
    done = reproduce(tmp_path, "--jobs", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert check_complete(tmp_path, 5) == 0
    assert "4 missing; to run: about 2 min with 2 at a time" in done.stdout
    assert "a-seed0 done: loss 0.250 (" in done.stdout
    assert "reproduced" in done.stdout
    folder = tmp_path / "runs/reproduce/toys"
    for ending in ("md", "tex", "csv", "json", "html"):
        assert "0.25" in (folder / f"table.{ending}").read_text(), ending
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("results/toys/*-seed*")}
    again = reproduce(tmp_path)
    assert "4 done; nothing to run" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("results/toys/*-seed*")} == before
    assert check_complete(tmp_path, 5) == 0


def test_one_row_is_run_and_judged_beside_the_others(tmp_path: Path) -> None:
    write_toy(tmp_path)
    reproduce(tmp_path, "--only", "a")
    assert list(records(tmp_path)) == ["a-seed0", "a-seed1"]
    done = reproduce(tmp_path, "--only", "b", "--seeds", "1")
    assert list(records(tmp_path)) == ["a-seed0", "a-seed1", "b-seed0"]
    assert "B: trend only: order as in the paper with A" in done.stdout


def test_killed_at_random_moments(tmp_path: Path) -> None:
    """SIGKILL of the command: no cell is lost or run twice, and what a run had saved is not done again."""
    write_toy(tmp_path, toy(a=LONG, b=LONG))
    draw, killed = random.SystemRandom(), 0
    moments = [round(draw.uniform(0.8, 2.5), 2) for _ in range(3)]
    for moment in moments:
        process = start_reproduce(tmp_path, "--jobs", "2")
        time.sleep(moment)
        killed += process.poll() is None
        process.kill()
        process.communicate()
    done = reproduce(tmp_path, "--jobs", "2")
    assert done.returncode == 0, f"{moments}\n{done.stdout}{done.stderr}"
    assert killed >= 1, moments
    check_complete(tmp_path, 30)


def test_asked_to_stop(tmp_path: Path) -> None:
    write_toy(tmp_path, toy(a=LONG, b=LONG))
    process = start_reproduce(tmp_path, "--jobs", "2")
    while len([run for run in runs(tmp_path) if (run / "metrics.csv").exists() and len(steps(run)) > 3]) < 2:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM, out + err
    assert "stopped by signal 15: the same command continues" in err
    done = reproduce(tmp_path, "--jobs", "2")
    assert "2 interrupted, 2 missing" in done.stdout
    assert check_complete(tmp_path, 30) == 2


def test_two_commands_share_a_table(tmp_path: Path) -> None:
    write_toy(tmp_path, toy(a=LONG, b=LONG))
    both = [start_reproduce(tmp_path) for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err
    assert check_complete(tmp_path, 30) == 0


def test_a_failed_cell_does_not_stop_the_others_and_is_tried_again(tmp_path: Path) -> None:
    write_toy(tmp_path, toy(a={"model.fail": "diverge"}))
    done = reproduce(tmp_path)
    assert done.returncode == 1
    assert "a-seed0 failed: training diverged: loss = nan (" in done.stdout
    assert list(records(tmp_path)) == ["b-seed0", "b-seed1"]
    assert "failed: training diverged: loss = nan" in (tmp_path / "runs/reproduce/toys/table.md").read_text()
    again = reproduce(tmp_path, "--dry-run")
    assert "2 failed, 2 done" in again.stdout
    starts = {run.parent.name: len((run / "starts.txt").read_text().splitlines()) for run in runs(tmp_path)}
    reproduce(tmp_path)
    after = {run.parent.name: len((run / "starts.txt").read_text().splitlines()) for run in runs(tmp_path)}
    assert {name: after[name] - starts[name] for name in after} == {
        "a-seed0": 1,
        "a-seed1": 1,
        "b-seed0": 0,
        "b-seed1": 0,
    }


def test_a_run_that_the_system_kills_again_and_again_has_failed(tmp_path: Path) -> None:
    write_toy(tmp_path, toy(a={"model.fail": "kill"}))
    done = reproduce(tmp_path, "--only", "a", "--seeds", "1")
    assert done.returncode == 1
    assert done.stdout.count("was ended by a signal (exit code -9) and is continued") == 2
    assert "a-seed0 failed: exit code -9 (1 of 1)" in done.stdout


@pytest.mark.parametrize("run_is_there", [True, False])
def test_a_corrupt_record_is_reported_and_made_anew(run_is_there: bool, tmp_path: Path) -> None:
    write_toy(tmp_path)
    reproduce(tmp_path, "--jobs", "2")
    path = tmp_path / "results/toys/a-seed0.json"
    whole = path.read_text()
    path.write_text(whole[:100])
    if not run_is_there:
        for run in runs(tmp_path)[:1]:
            for file in ("result.json", "metrics.csv", "config.yaml"):
                (run / file).unlink()
            (run / "checkpoints" / "last").unlink()
            (run / "checkpoints").rmdir()
    done = reproduce(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "a-seed0 has a corrupt record: results/toys/a-seed0.json is no JSON" in done.stdout
    assert path.read_text() == whole
    starts = [len((run / "starts.txt").read_text().splitlines()) for run in runs(tmp_path)]
    assert starts == ([1, 1, 1, 1] if run_is_there else [2, 1, 1, 1])


def test_a_torn_result_is_reported_and_its_cell_run_again(tmp_path: Path) -> None:
    write_toy(tmp_path, toy(a={"model.fail": "torn result"}))
    first = reproduce(tmp_path, "--only", "a", "--seeds", "1")
    assert "result.json is no JSON" in first.stdout
    again = reproduce(tmp_path, "--only", "a", "--seeds", "1")
    assert again.returncode == 0, again.stdout
    assert list(records(tmp_path)) == ["a-seed0"]
    (run,) = runs(tmp_path)
    assert steps(run) == list(range(5))


def test_a_changed_cell_is_run_and_its_record_replaced(tmp_path: Path) -> None:
    write_toy(tmp_path)
    reproduce(tmp_path, "--jobs", "2")
    before = records(tmp_path)
    write_toy(tmp_path, toy(b={"model.x": 0.9}))
    plan = reproduce(tmp_path, "--dry-run")
    assert "2 done, 2 changed" in plan.stdout
    assert "the record is of another configuration" in plan.stdout
    reproduce(tmp_path, "--jobs", "2")
    after = records(tmp_path)
    assert [name for name in after if after[name]["key"] != before[name]["key"]] == ["b-seed0", "b-seed1"]
    assert after["b-seed0"]["run"]["metrics"]["test/loss"] == pytest.approx(0.81)


def test_other_data_than_the_tables_fails(tmp_path: Path) -> None:
    content = toy()
    content["data"] = {"lit_gen.data.Digits": "f" * 16}
    write_toy(tmp_path, content)
    done = reproduce(tmp_path, "--only", "a", "--seeds", "1")
    assert done.returncode == 1
    assert "failed: the run read other data than the table's" in done.stdout
    assert records(tmp_path) == {}


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    write_toy(tmp_path)
    done = reproduce(tmp_path, "--dry-run")
    assert "4 missing; to run: about 4 min" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toy.yaml", "toys.yaml"]


def test_quick_says_only_that_it_was_not_run(tmp_path: Path) -> None:
    write_toy(tmp_path)
    done = reproduce(tmp_path, "--quick", "--jobs", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "results").exists()
    text = (tmp_path / "runs/reproduce/quick-toys/table.md").read_text()
    assert "not run at the paper's budget" in text
    assert "| reproduced" not in text
    assert "trend only" not in text
    (run, *_) = sorted((tmp_path / "runs/reproduce/quick-toys").glob("a-seed0/*"))
    assert steps(run) == [0, 1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.yaml"], "no table file at nothing.yaml; accepted: one such as configs/papers/rbm_likelihood.yaml"),
        (["toys.yaml", "--only", "c"], "--only c: accepted: a, b"),
        (["toys.yaml", "--seeds", "0"], "--seeds: '0'; accepted: an integer of 1 or more"),
        (["toys.yaml", "--model.x=3"], "--model.x=3: accepted are the options of lit-gen reproduce, and those words"),
        (["toys.yaml", "--trainer.max_epochs", "3"], "--trainer.max_epochs: accepted are"),
        (["toys.yaml", "--sbatch", "--qos=high"], "--sbatch --qos=high: goes with --slurm"),
        (["toys.yaml", "toys.yaml", "--only", "a"], "--only a: goes with one table file, 2 are given"),
        ([], "the following arguments are required: FILE"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], message: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write_toy(tmp_path)
    assert exit_code(["reproduce", *words], debug=False) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_no_slurm_is_one_line(tmp_path: Path) -> None:
    write_toy(tmp_path)
    nowhere = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if not Path(p, "sbatch").exists())
    done = reproduce(tmp_path, "--slurm", PATH=nowhere)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "lit-gen: error: no sbatch on this machine: --slurm is for a login node; without it the cells run here"
    )
