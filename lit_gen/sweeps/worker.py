"""The loop of a worker: take a trial, work on it, write what came of it; until all trials are finished."""

from __future__ import annotations

import time

from optuna.trial import TrialState

from lit_gen.jobs.stop_signal import StopSignal
from lit_gen.sweeps.study import Claim, SweepStudy
from lit_gen.sweeps.trial import Outcome, shown, work_on

WAIT_SECONDS = 1.0


def work(study: SweepStudy, count: int, stop: StopSignal) -> None:
    """Works until so many trials are finished (also those of others: they may have to be taken over), or until a signal.

    Raises:
        UsageError: no trial can succeed; the one at hand stays unfinished, to be continued once the reason is gone.
    """
    while not stop() and not study.is_finished(count):
        claim = study.take(count)
        if claim is None:
            time.sleep(WAIT_SECONDS)
            continue
        try:
            continued = "continues in" if claim.run.config.is_file() else "->"
            tell(f"trial {claim.number} {continued} {claim.run.path.name}: {shown(claim.values)}")
            outcome = work_on(study, claim, stop)
            if outcome.state is None:
                tell(
                    f"trial {claim.number} {'was taken over by another worker' if claim.lease.lost else 'is handed back'}"
                )
            elif study.finish(claim, outcome.state, outcome.value, outcome.reason):
                tell(line_of(study, claim, outcome, count))
        finally:
            claim.lease.release()


def line_of(study: SweepStudy, claim: Claim, outcome: Outcome, count: int) -> str:
    """What is said of a finished trial."""
    finished = sum(trial.state.is_finished() for trial in study.trials())
    if outcome.state == TrialState.COMPLETE:
        said = f"{study.sweep.metric} = {outcome.value:.6g}"
    elif outcome.state == TrialState.PRUNED:
        said = "pruned"
    else:
        said = f"failed: {outcome.reason}"
    return f"trial {claim.number} {said} ({finished} of {count} finished)"


def tell(line: str) -> None:
    """Prints a line at once, in one piece, from whichever task of a job this worker is."""
    print(f"{line}\n", end="", flush=True)
