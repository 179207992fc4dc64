"""One trial: what is read of a run while it writes, and how each of its ends is judged."""

from __future__ import annotations

import json
import math
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
from lit_gen.core.loggers import MetricsCSV
from lit_gen.sweeps import trial as trials
from lit_gen.sweeps.process import ends_with_parent
from lit_gen.sweeps.study import Claim, SweepStudy
from lit_gen.sweeps.trial import MetricsFile, last_line, stopped_by_signal, work_on
from tests.sweeps.conftest import FAKE, sweep_text


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "PROGRAM", [sys.executable, str(FAKE)])
    monkeypatch.setattr(trials, "POLL_SECONDS", 0.02)


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


def test_the_run_gets_its_place_and_no_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "SLURM_PROCID",
        "SLURM_JOB_ID",
        "RANK",
        "WORLD_SIZE",
        "MASTER_ADDR",
        "TORCHELASTIC_RUN_ID",
        "WANDB_SWEEP_ID",
    ):
        monkeypatch.setenv(name, "7")
    others = {"LOCAL_SCRATCH": "a", "SLURM_TMPDIR": "b", "CUDA_VISIBLE_DEVICES": "0", "MY_RANK": "c"}
    for name, value in others.items():
        monkeypatch.setenv(name, value)
    study, claim = taken(tmp_path)
    work_on(study, claim, never)
    assert claim.run.path.parent == study.folder
    assert claim.run.run_id.startswith("trial-0000-")
    config = yaml.safe_load(claim.run.config.read_text())
    assert (config["runs_dir"], config["name"]) == (str(tmp_path), "sweep-toy")
    environment = json.loads((claim.run.path / "environment.json").read_text())
    assert "7" not in environment.values()
    assert others.items() <= environment.items()
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
    left = subprocess.Popen(sleeping, env={**os.environ, trials.MARK: str(claim.run.path)})
    others = subprocess.Popen(sleeping, env={**os.environ, trials.MARK: f"{claim.run.path}1"})
    try:
        while trials.MARK.encode() not in Path(f"/proc/{left.pid}/environ").read_bytes():
            time.sleep(0.01)
        work_on(study, claim, never)
        assert left.wait(60) == -signal.SIGKILL
        assert others.poll() is None
    finally:
        for process in (left, others):
            process.kill()
            process.wait()


def test_a_run_ends_with_its_worker_however_that_ends(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    worker = os.fork()
    if worker == 0:
        child = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True,
            preexec_fn=ends_with_parent(signal.SIGKILL),
        )  # fmt: skip
        note.with_suffix(".new").write_text(str(child.pid))
        os.rename(note.with_suffix(".new"), note)
        signal.pause()
    while not note.exists():
        time.sleep(0.01)
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    run = Path(f"/proc/{note.read_text()}/stat")
    deadline = time.monotonic() + 60
    while run.exists() and run.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline, "the run outlived its worker"
        time.sleep(0.01)


def test_metrics_are_read_while_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path)
    assert file.values("a") == []
    logger = MetricsCSV(path)
    logger.log_metrics({"a": 1.0}, 1)
    assert file.values("a") == [1.0]
    assert file.values("b") == []
    with open(path, "a") as raw:
        raw.write("2,3.1")  # and 3.14 follows
    assert file.values("a") == [1.0]
    with open(path, "a") as raw:
        raw.write("4\n")
    assert file.values("a") == [1.0, 3.14]
    logger.log_metrics({"b": float("nan"), "0": 5.0}, 3)  # columns that come later stand before and after the others
    assert file.values("a") == [1.0, 3.14]
    assert math.isnan(file.values("b")[0])
    assert set(file.columns()) == {"0", "a", "b"}
    logger.truncate(1)
    assert file.values("a") == [1.0]


def test_ends_are_told_apart(tmp_path: Path) -> None:
    assert all(map(stopped_by_signal, (-9, -15, 130, 138, 143, 137)))
    assert not any(map(stopped_by_signal, (0, 1, 2, 3, 139, 127)))
    log = tmp_path / "log"
    log.write_text("lit-gen: error: an old one\n")
    old = log.stat().st_size
    log.write_text(log.read_text() + "begin\nlit-gen: error: a new one\nlit-gen: warning: late\n\n")
    assert last_line(log, old) == "a new one"
    log.write_text(log.read_text()[:old] + "Segmentation fault\n")
    assert last_line(log, old) == "Segmentation fault"
    assert last_line(log, log.stat().st_size) == ""
