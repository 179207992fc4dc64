"""One trial: how its run is begun, watched and continued, and how each of its ends is judged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import TrialState

from lit_gen.core.errors import UsageError
from lit_gen.jobs import child
from lit_gen.jobs.metrics_file import MetricsFile
from lit_gen.sweeps.study import Claim, SweepStudy
from lit_gen.sweeps.trial import work_on
from tests.sweeps.conftest import FAKE, sweep_text


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "PROGRAM", [sys.executable, str(FAKE)])
    monkeypatch.setattr(child, "POLL_SECONDS", 0.02)


def taken(folder: Path, metric: str = "val/loss", **parameters: Any) -> tuple[SweepStudy, Claim]:
    values = {"x": 0.5, "steps": 4} | parameters
    text = sweep_text(metric={"name": metric}, parameters={name: {"value": value} for name, value in values.items()})
    study = SweepStudy(folder / "sweep-toy", text, folder / "toy.yaml")
    return study, study.take(1)


def never() -> bool:
    return False


def starts(claim: Claim) -> int:
    return len((claim.run.path / "starts.txt").read_text().splitlines())


def test_the_test_metric_or_the_best_logged_value(tmp_path: Path) -> None:
    outcome = work_on(*taken(tmp_path / "a"), never)
    assert (outcome.state, outcome.value) == (TrialState.COMPLETE, 0.25 + 1 / 4)
    outcome = work_on(*taken(tmp_path / "b", metric="test/loss"), never)
    assert (outcome.state, outcome.value) == (TrialState.COMPLETE, 0.25)


def test_the_run_gets_its_place(tmp_path: Path) -> None:
    study, claim = taken(tmp_path)
    work_on(study, claim, never)
    assert claim.run.path.parent == study.folder
    assert claim.run.run_id.startswith("trial-0000-")
    config = yaml.safe_load(claim.run.config.read_text())
    assert (config["runs_dir"], config["name"]) == (str(tmp_path), "sweep-toy")
    environment = json.loads((claim.run.path / "environment.json").read_text())
    assert environment["LIT_GEN_RUN_ID"] == claim.run.run_id
    assert environment["WANDB_RUN_GROUP"] == "sweep-toy"


@pytest.mark.parametrize(
    ("fail", "reason", "runs"),
    [
        ("diverge", "training diverged: loss = nan", 1),
        ("nan", "val/loss is not finite", 1),
        ("kill", "killed by a signal 3 times (exit code -9)", 3),
    ],
)
def test_failed_runs_are_failed_trials(fail: str, reason: str, runs: int, tmp_path: Path) -> None:
    study, claim = taken(tmp_path, fail=fail)
    outcome = work_on(study, claim, never)
    assert (outcome.state, outcome.reason) == (TrialState.FAIL, reason)
    assert starts(claim) == runs
    study.finish(claim, outcome.state, outcome.value, outcome.reason)
    assert study.trials()[0].user_attrs["reason"] == reason


def test_a_refused_configuration_and_a_metric_that_is_not_logged_stop_the_sweep(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"trial 0 \(.*x=0.5.*\): model.init_args.x = 7: accepted: less"):
        work_on(*taken(tmp_path / "a", fail="exit 2"), never)
    with pytest.raises(UsageError, match=r"never logged the metric val/los; logged: test/loss, val/loss"):
        work_on(*taken(tmp_path / "b", metric="val/los"), never)


def test_a_stopped_run_saves_and_is_continued_in_its_place(tmp_path: Path) -> None:
    study, claim = taken(tmp_path, steps=30, pause=0.05)
    metrics = MetricsFile(claim.run.metrics)
    outcome = work_on(study, claim, lambda: len(metrics.values("val/loss")) >= 3)
    assert outcome.state is None
    reached = len(metrics.values("val/loss"))
    assert 3 <= reached < 30
    claim.lease.release()
    claim = study.take(1)
    outcome = work_on(study, claim, never)
    assert outcome.state == TrialState.COMPLETE
    assert starts(claim) == 2
    steps = [line.split(",")[0] for line in claim.run.metrics.read_text().splitlines()[1:]]
    assert steps == [str(step) for step in range(30)]


def test_a_run_that_ended_before_its_worker_wrote_it_down_is_not_repeated(tmp_path: Path) -> None:
    study, claim = taken(tmp_path)
    work_on(study, claim, never)
    claim.lease.release()
    claim = study.take(1)
    assert work_on(study, claim, never).value == 0.5
    assert starts(claim) == 1


def test_a_run_whose_lease_is_lost_ends_without_a_word(tmp_path: Path) -> None:
    study, claim = taken(tmp_path, steps=1000)
    claim.lease.lost = True
    assert work_on(study, claim, never).state is None
    assert len(MetricsFile(claim.run.metrics).values("val/loss")) < 1000


def test_what_a_killed_worker_left_running_is_ended_before_its_run_goes_on(tmp_path: Path) -> None:
    study, claim = taken(tmp_path)
    sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
    left = subprocess.Popen(sleeping, env={**os.environ, child.MARK: str(claim.run.path)})
    others = subprocess.Popen(sleeping, env={**os.environ, child.MARK: f"{claim.run.path}1"})
    try:
        while child.MARK.encode() not in Path(f"/proc/{left.pid}/environ").read_bytes():
            time.sleep(0.01)
        work_on(study, claim, never)
        assert left.wait(60) == -signal.SIGKILL
        assert others.poll() is None
    finally:
        for process in (left, others):
            process.kill()
            process.wait()
