"""One trial: a child process ``lit-gen run``, whose metrics.csv is read while it grows."""

from __future__ import annotations

import math
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from optuna.trial import TrialState

from lit_gen.core.errors import UsageError
from lit_gen.jobs import child
from lit_gen.jobs.metrics_file import MetricsFile
from lit_gen.jobs.process import end_leftovers
from lit_gen.jobs.run_files import read_result
from lit_gen.sweeps.study import Claim, SweepStudy


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
    for _ in range(child.ATTEMPTS):
        end_leftovers(child.MARK, str(claim.run.path))
        # whoever had the trial may have been killed between the run's end and writing it down
        if read_result(claim.run) is not None:
            return result_of(study, claim)
        printed = log.stat().st_size if log.exists() else 0
        process = child.start(study.run_words(claim), claim.run, log)
        try:
            outcome = follow(study, claim, process, stopped)
        except BaseException:
            child.stop(process, signal.SIGKILL)
            raise
        if outcome is not None:
            return outcome
        if process.returncode == 0:
            return result_of(study, claim)
        reason = child.last_line(log, printed) or f"exit code {process.returncode}"
        if process.returncode == child.USAGE:
            raise UsageError(f"trial {claim.number} ({shown(claim.values)}): {reason}")
        if not child.stopped_by_signal(process.returncode):
            return Outcome(TrialState.FAIL, reason=reason)
        if stopped():
            return Outcome(None)
    return Outcome(
        TrialState.FAIL, reason=f"killed by a signal {child.ATTEMPTS} times (exit code {process.returncode})"
    )


def follow(study: SweepStudy, claim: Claim, process: subprocess.Popen, stopped: Callable[[], bool]) -> Outcome | None:
    """Watches the run to its end; None where it ended by itself, else how it was ended."""
    metrics, reported = MetricsFile(claim.run.metrics), 0
    while True:
        try:
            process.wait(child.POLL_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        else:
            return None
        if claim.lease.lost:  # somebody else works on it: no more writing into its directory
            child.stop(process, signal.SIGKILL)
            return Outcome(None)
        if stopped():
            child.stop(process, signal.SIGTERM)
            # a run that had come to its end is not stopped
            return None if process.returncode == 0 and read_result(claim.run) is not None else Outcome(None)
        if study.sweep.halving is not None:
            values = metrics.values(study.sweep.metric)
            reported, pruned = study.prune(claim, values, min(reported, len(values)))
            if pruned:
                child.stop(process, signal.SIGTERM)
                return Outcome(TrialState.PRUNED)


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


def shown(values: dict) -> str:
    """Parameters on one line."""
    return ", ".join(f"{name.rsplit('.', 1)[-1]}={value}" for name, value in values.items())
