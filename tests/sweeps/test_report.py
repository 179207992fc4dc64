"""The report of a sweep: names, values and ranges as they are shown, and the picture as pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from optuna.trial import TrialState
from rich.console import Console

from lit_gen.core.run_dir import write_atomically
from lit_gen.sweeps.picture import value_range
from lit_gen.sweeps.report import brief, print_report, short_names
from lit_gen.sweeps.study import SweepStudy
from tests.sweeps.conftest import sweep_text

PENALTY = '{"class_path": "lit_gen.gan.GradientPenalty", "init_args": {"weight": 10}}'


def test_names_are_as_short_as_they_can_be() -> None:
    names = [
        "model.init_args.optimizer_g.init_args.lr", "model.init_args.optimizer_d.init_args.lr", "seed_everything",
        "model.init_args.penalty", "model.init_args.penalty.init_args.weight", "data.init_args.weight",
    ]  # fmt: skip
    expected = ["optimizer_g.lr", "optimizer_d.lr", "seed_everything", "penalty", "penalty.weight", "data.weight"]
    assert short_names(names) == expected
    assert short_names(["lr"]) == ["lr"]


def test_values_are_short() -> None:
    values = [PENALTY, '{"class_path": "lit_gen.gan.Hinge"}', "{class_path: [", 0.000123456, 10, "null", None]
    shown = ["GradientPenalty(weight=10)", "Hinge", "{class_path: [", "0.0001235", "10", "null", "null"]
    assert [brief(value) for value in values] == shown


def test_the_range_leaves_far_values_out() -> None:
    assert value_range([1.0, 2.0, 3.0, 4.0]) == (1.0, 4.0)
    assert value_range([1.0, 2.0, 3.0, 4.0, 900.0]) == (1.0, 4.0)
    assert value_range([5.0]) == (5.0, 5.0)
    assert value_range([5.0, 5.0, 5.0, 5.0, 6.0]) == (5.0, 5.0)


def report(folder: Path, outcomes: list[tuple[TrialState, float | None]]) -> tuple[SweepStudy, str]:
    parameters = {
        "model.init_args.penalty": {"values": ["null", PENALTY]},
        "lr": {"distribution": "log_uniform_values", "min": 1.0e-4, "max": 1.0e-2},
        "beta": {"distribution": "q_uniform", "min": 0.5, "max": 4.0, "q": 0.5},
        "steps": {"value": 7},
    }
    study = SweepStudy(folder / "sweep-toy", sweep_text(parameters=parameters, run_cap=99), folder / "toy.yaml")
    for state, value in outcomes:
        claim = study.take(99)
        claim.run.create()
        write_atomically(claim.run.config, "seed_everything: 1\nname: sweep-toy\nruns_dir: elsewhere\n")
        if state == TrialState.PRUNED:
            claim.trial.report(value, 1)
        study.finish(
            claim, state, value if state == TrialState.COMPLETE else None, "broken" * (state == TrialState.FAIL)
        )
        claim.lease.release()
    console = Console(width=120, record=True, quiet=False, file=(folder / "printed").open("w"))
    print_report(study, console)
    return study, console.export_text()


def test_table_best_and_picture(tmp_path: Path) -> None:
    complete, pruned, failed = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL
    outcomes = [(complete, 3.0), (pruned, 9.0), (failed, None), (complete, 1.5), (complete, 2.0), (complete, 800.0)]
    study, text = report(tmp_path, outcomes)
    rows = [line.split("│")[1:-1] for line in text.splitlines() if line.startswith("│")]
    assert [row[0].strip() for row in rows] == ["0", "1", "2", "3 *", "4", "5"]
    assert [row[1].strip() for row in rows] == ["complete", "pruned", "failed", "complete", "complete", "complete"]
    assert [row[2].strip() for row in rows] == ["3", "9", "", "1.5", "2", "800"]
    assert "steps" not in text  # a constant
    assert "trial 2 failed: broken" in text
    best = (study.folder / "best.yaml").read_text()
    assert best.splitlines() == [
        "# trial 3 of sweep-toy: val/loss = 1.5", "seed_everything: 1", "name: toy-best", "runs_dir: runs",
    ]  # fmt: skip
    picture = imread(study.folder / "parameters.png")[..., :3]
    colours = {"blue": "1f6fb4", "orange": "e07b00", "grey": "9a9a9a"}
    for name, code in colours.items():
        wanted = np.array([int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)])
        assert (np.abs(picture - wanted).max(-1) < 0.02).sum() > 20, name


def test_without_a_complete_trial_there_is_no_best(tmp_path: Path) -> None:
    study, text = report(tmp_path, [(TrialState.FAIL, None), (TrialState.FAIL, None)])
    assert "best" not in text
    assert {path.name for path in study.folder.glob("*.*")} >= {"trials.csv"}
    assert not (study.folder / "best.yaml").exists()


def test_a_signal_asks_for_the_slurm_job_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lit_gen.cli.sweep import stopped
    from lit_gen.core import stopping

    asked = []
    monkeypatch.setattr(stopping, "requeue", lambda: not asked.append(1))
    assert stopped(15, tmp_path) == 143
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert stopped(10, tmp_path) == 138  # in the batch script itself, which has the job's signals
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert stopped(2, tmp_path) == 130  # Ctrl-C
    assert asked == []
    assert stopped(10, tmp_path) == 0
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert stopped(10, tmp_path) == 138
    assert asked == [1]
