"""One trial: a child process ``lit-gen run``, whose metrics.csv is read while it grows."""

from __future__ import annotations

import csv
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import TrialState

from lit_gen.core.errors import UsageError
from lit_gen.core.run_dir import RunDir
from lit_gen.sweeps.process import end_leftovers, ends_with_parent
from lit_gen.sweeps.study import Claim, SweepStudy, read_result

PROGRAM = [sys.executable, "-m", "lit_gen"]
POLL_SECONDS = 0.5
PATIENCE = 120.0
"""Seconds in which a run has to save its checkpoint and to stop."""
ATTEMPTS = 3
"""A run that the system kills so often (for its memory, mostly) has failed."""
MARK = "LIT_GEN_SWEEP_RUN"
"""Environment variable with the run directory, by which all processes of a run are known."""
LAUNCHERS = re.compile(
    r"(SLURM|SRUN_|PMI|OMPI_|TORCHELASTIC_|LT_|PL_)\w*|((LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE))|NODE_RANK|MASTER_(ADDR|PORT)"
    r"|WANDB_(RUN|SWEEP)_ID|LIT_GEN_RUN_ID"
)
"""Environment variables in which srun, torchrun, ``fabric run`` and W&B's agent tell a process who it is."""
USAGE = 2
"""Exit code of a run whose configuration is refused."""


@dataclass(frozen=True)
class Outcome:
    """How the work on a trial ended.

    Args:
        state: of the trial; None where it is not finished: stopped, or taken over by another process.
        value: the metric, for a complete trial.
        reason: why it failed.
    """

    state: TrialState | None
    value: float | None = None
    reason: str = ""


def work_on(study: SweepStudy, claim: Claim, stopped: Callable[[], bool]) -> Outcome:
    """Runs a trial, or the rest of it; the caller writes the outcome and releases the lease.

    Args:
        study: of the trial.
        claim: the trial.
        stopped: asked again and again; once it says so, the run saves its checkpoint and stops.

    Raises:
        UsageError: the run's configuration is wrong, or it does not log the metric: the same holds for every trial.
    """
    log = study.log(claim.number)
    log.parent.mkdir(exist_ok=True)
    for _ in range(ATTEMPTS):
        end_leftovers(MARK, str(claim.run.path))
        # whoever had the trial may have been killed between the run's end and writing it down
        if read_result(claim.run) is not None:
            return result_of(study, claim)
        printed = log.stat().st_size if log.exists() else 0
        child = start(study.run_words(claim), claim.run, log)
        try:
            outcome = follow(study, claim, child, stopped)
        except BaseException:
            stop(child, signal.SIGKILL)
            raise
        if outcome is not None:
            return outcome
        if child.returncode == 0:
            return result_of(study, claim)
        reason = last_line(log, printed) or f"exit code {child.returncode}"
        if child.returncode == USAGE:
            raise UsageError(f"trial {claim.number} ({shown(claim.values)}): {reason}")
        if not stopped_by_signal(child.returncode):
            return Outcome(TrialState.FAIL, reason=reason)
        if stopped():
            return Outcome(None)
    return Outcome(TrialState.FAIL, reason=f"killed by a signal {ATTEMPTS} times (exit code {child.returncode})")


def start(words: list[str], run: RunDir, log: Path) -> subprocess.Popen:
    """Starts the run in a session of its own (Ctrl-C is for the worker), without the variables of launchers."""
    kept = {k: v for k, v in os.environ.items() if k == "SLURM_TMPDIR" or not LAUNCHERS.fullmatch(k)}
    environment = {**kept, "LIT_GEN_RUN_ID": run.run_id, "WANDB_RUN_GROUP": run.experiment, MARK: str(run.path)}
    with open(log, "ab") as output:
        return subprocess.Popen(
            [*PROGRAM, *words], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True, preexec_fn=ends_with_parent(signal.SIGKILL),
        )  # fmt: skip


def follow(study: SweepStudy, claim: Claim, child: subprocess.Popen, stopped: Callable[[], bool]) -> Outcome | None:
    """Watches the run to its end; None where it ended by itself, else how it was ended."""
    metrics, reported = MetricsFile(claim.run.metrics), 0
    while True:
        try:
            child.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        else:
            return None
        if claim.lease.lost:  # somebody else works on it: no more writing into its directory
            stop(child, signal.SIGKILL)
            return Outcome(None)
        if stopped():
            stop(child, signal.SIGTERM)
            # a run that had come to its end is not stopped
            return None if child.returncode == 0 and read_result(claim.run) is not None else Outcome(None)
        if study.sweep.halving is not None:
            values = metrics.values(study.sweep.metric)
            reported, pruned = study.prune(claim, values, min(reported, len(values)))
            if pruned:
                stop(child, signal.SIGTERM)
                return Outcome(TrialState.PRUNED)


def stop(child: subprocess.Popen, signum: int) -> None:
    """Ends a run: the signal, some time for its checkpoint, and the end of everything that it started."""
    if child.poll() is None:
        child.send_signal(signum)
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def stopped_by_signal(code: int) -> bool:
    """Whether a process was killed by a signal, or stopped in good order because of one."""
    return code < 0 or code - 128 in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL)


def result_of(study: SweepStudy, claim: Claim) -> Outcome:
    """What a finished run says of the metric: its test metric, else the best of the logged values.

    Raises:
        UsageError: the metric is not among what was logged.
    """
    name, metrics = study.sweep.metric, MetricsFile(claim.run.metrics)
    tested = (read_result(claim.run) or {}).get("metrics", {})
    if name in tested:
        value = math.nan if tested[name] is None else float(tested[name])  # JSON has no NaN
    else:
        logged = metrics.values(name)
        if not logged:
            known = ", ".join(sorted({*metrics.columns(), *tested})) or "nothing"
            raise UsageError(f"trial {claim.number} never logged the metric {name}; logged: {known}")
        finite = [value for value in logged if math.isfinite(value)]
        value = (min if study.sweep.goal == "minimize" else max)(finite, default=math.nan)
    if not math.isfinite(value):
        return Outcome(TrialState.FAIL, reason=f"{name} is not finite")
    return Outcome(TrialState.COMPLETE, value)


class MetricsFile:
    """metrics.csv of a run that may be writing it: a line that is not complete yet is left for the next time.

    Args:
        path: the file, which may be missing, grow, and be replaced by one with more columns.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state: tuple[int, ...] = ()
        self._rows: list[list[str]] = []

    def values(self, metric: str) -> list[float]:
        """The logged values of a metric, in order."""
        header, *rows = self._read() or [[]]
        if metric not in header:
            return []
        column = header.index(metric)
        return [float(row[column]) for row in rows if len(row) > column and row[column]]

    def columns(self) -> list[str]:
        """Names of what is logged."""
        return [name for name in (self._read() or [[]])[0] if name != "step"]

    def _read(self) -> list[list[str]]:
        try:
            with open(self.path, newline="", encoding="utf-8") as file:
                status = os.fstat(file.fileno())
                state = (status.st_ino, status.st_size, status.st_mtime_ns)
                if state != self._state:
                    text = file.read()
                    self._rows = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))
                    self._state = state
        except FileNotFoundError:
            return []
        return self._rows


def last_line(log: Path, offset: int) -> str:
    """Why a run ended: its error line, else the last line that it printed after ``offset``."""
    with open(log, "rb") as file:
        file.seek(offset)
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("lit-gen: error: ") for line in lines if line.startswith("lit-gen: error: ")]
    return (errors or lines or [""])[-1][:400]


def shown(values: dict) -> str:
    """Parameters on one line."""
    return ", ".join(f"{name.rsplit('.', 1)[-1]}={value}" for name, value in values.items())
