"""The shared state of a sweep: which trials there are, who works on them, what came out.

DIR/
    sweep.yaml       the sweep file, as it was when the sweep began
    journal.log      Optuna's study: parameters, states and values of all trials
    lock/ leases/    who may write, who works on which trial
    logs/            what the trials printed
    trial-0000-*/    their run directories
    trials.csv best.yaml parameters.png   the report

A trial is made once, under the lock and only while there are fewer than were asked for, and is then worked on until it is
finished: by who made it, or by who finds that nobody alive works on it any more. So there are never more trials than asked
for, none is lost and none is run twice, wherever a worker is killed.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from lit_gen.core.errors import UsageError
from lit_gen.core.run_dir import RunDir, experiment_name, write_atomically
from lit_gen.jobs.lease import SECONDS, Lease, Leases
from lit_gen.jobs.mutex import Mutex
from lit_gen.sweeps.file import Sweep, difference, parse_sweep
from lit_gen.sweeps.journal import Journal
from lit_gen.sweeps.sampling import pruner, sampler, suggest


def check_storage(folder: Path) -> None:
    """Refuses a folder whose name cannot be that of an experiment, which it becomes.

    Raises:
        UsageError: naming it.
    """
    try:
        experiment_name(folder.resolve().name, [], "")
    except UsageError as error:
        accepted = str(error).partition(": ")[2]
        raise UsageError(f"--storage {folder}: its last part names the experiment; {accepted}") from error


@dataclass
class Claim:
    """A trial that this process works on.

    Args:
        number: of the trial.
        values: what its parameters are.
        run: its run directory, which may hold a part of the run already.
        lease: released when the work ends.
        trial: Optuna's trial.
    """

    number: int
    values: dict[str, Any]
    run: RunDir
    lease: Lease
    trial: optuna.Trial


class SweepStudy:
    """A sweep in its folder; any number of processes on any number of machines may have it open.

    Args:
        folder: the storage; made where it is missing.
        sweep_text: the sweep file's text.
        sweep_path: its path, which names the sweep in messages.
        seed: of the draws.
        lease_seconds: how long a worker on another machine may be silent before its trial is taken over.

    Raises:
        UsageError: the folder holds another sweep, or has a name that no experiment can have.
    """

    def __init__(
        self, folder: Path, sweep_text: str, sweep_path: Path, seed: int = 1, lease_seconds: float = SECONDS
    ) -> None:
        check_storage(folder)
        self.folder, self.seed = folder.resolve(), seed
        self.folder.mkdir(parents=True, exist_ok=True)
        self.mutex = Mutex(self.folder / "lock")
        self.leases = Leases(self.folder / "leases", lease_seconds)
        with self.mutex:
            self.sweep = self._same_sweep(sweep_text, sweep_path)
            storage = optuna.storages.JournalStorage(Journal(self.folder / "journal.log", self.mutex))
            self.study = optuna.create_study(
                study_name="sweep", storage=storage, direction=self.sweep.goal, load_if_exists=True,
                pruner=pruner(self.sweep),
            )  # fmt: skip
            if "token" not in self.study.user_attrs:
                self.study.set_user_attr("token", secrets.token_hex(2))

    def _same_sweep(self, text: str, path: Path) -> Sweep:
        """The sweep of the file that this storage began with; the order of its parameters numbers a grid's points."""
        copy, sweep = self.folder / "sweep.yaml", parse_sweep(text, path)
        if not copy.exists():
            write_atomically(copy, text)
        started = parse_sweep(copy.read_text(encoding="utf-8"), path)
        if changed := difference(started.content, sweep.content):
            raise UsageError(
                f"{path} is not the sweep in {self.folder}: {changed}; give another --storage for another sweep"
            )
        return started

    # ---------------------------------------------------------------- trials

    def trials(self) -> list[FrozenTrial]:
        """All trials, by number."""
        return self.study.get_trials(deepcopy=False)

    def is_finished(self, count: int) -> bool:
        """Whether so many trials exist and every one is finished."""
        trials = self.trials()
        return len(trials) >= count and all(trial.state.is_finished() for trial in trials)

    def take(self, count: int) -> Claim | None:
        """A trial to work on: one that nobody works on any more, or a new one while there are fewer than ``count``."""
        with self.mutex:
            trials = self.trials()
            for trial in trials:
                if not trial.state.is_finished() and self.leases.is_free(lease_name(trial.number)):
                    return self._claim(trial.number, optuna_trial_id=trial._trial_id)
            return self._claim(len(trials)) if len(trials) < count else None

    def _claim(self, number: int, optuna_trial_id: int | None = None) -> Claim:
        lease = self.leases.take(lease_name(number))
        try:
            self.study.sampler = sampler(self.sweep, self.seed, number)
            if optuna_trial_id is None:
                trial = self.study.ask()
            else:  # it may have been left before all its parameters were drawn: `suggest` keeps those that were
                trial = optuna.Trial(self.study, optuna_trial_id)
            assert trial.number == number
            draws = {p.name: suggest(trial, p.name, p.distribution()) for p in self.sweep.parameters}
        except BaseException:
            lease.release()
            raise
        return Claim(number, self.sweep.values(draws), self.run_dir(number), lease, trial)

    def finish(self, claim: Claim, state: TrialState, value: float | None = None, reason: str = "") -> bool:
        """Writes what came of a trial; False where another process has taken it meanwhile, whose word counts then."""
        with self.mutex:
            if not claim.lease.is_held():
                return False
            if reason:
                claim.trial.set_user_attr("reason", reason)
            self.study.tell(claim.trial, value, state)
            return True

    def prune(self, claim: Claim, values: list[float], reported: int) -> tuple[int, bool]:
        """Reports the metric at the brackets of early termination.

        Args:
            claim: the trial.
            values: all logged values of the metric.
            reported: how many of them were looked at before.

        Returns:
            How many have been looked at, and whether the trial is to be stopped.
        """
        halving = self.sweep.halving
        known = claim.trial.storage.get_trial(claim.trial._trial_id).intermediate_values if halving else {}
        for count in range(reported + 1, len(values) + 1):
            if halving and halving.is_bracket(count) and count not in known:
                value = values[count - 1]
                claim.trial.report(value, count)
                if math.isnan(value) or claim.trial.should_prune():
                    return count, True
        return len(values), False

    # ---------------------------------------------------------------- paths

    @cached_property
    def token(self) -> str:
        """Sets this sweep's run ids apart from those of every other, as W&B asks for."""
        return self.study.user_attrs["token"]

    def run_dir(self, number: int) -> RunDir:
        return RunDir(self.folder / f"trial-{number:04d}-{self.token}")

    def log(self, number: int) -> Path:
        return self.folder / "logs" / f"trial-{number:04d}.log"

    def run_words(self, claim: Claim) -> list[str]:
        """What stands after ``lit-gen`` to begin the trial's run, or to continue it."""
        if claim.run.config.is_file():
            return ["run", "--resume", str(claim.run.path)]
        return ["run", *self.sweep.words(claim.values), *self.place_words()]

    def place_words(self) -> list[str]:
        """The words that put a trial's run into this folder."""
        return [f"--runs_dir={self.folder.parent}", f"--name={self.folder.name}"]

    def values_of(self, trial: FrozenTrial) -> dict[str, Any]:
        """What the parameters of a trial are; without those that are not drawn yet."""
        drawn = [parameter for parameter in self.sweep.parameters if parameter.name in trial.params]
        return {parameter.name: parameter.value(trial.params[parameter.name]) for parameter in drawn}

    def best(self) -> FrozenTrial | None:
        """The best completed trial."""
        complete = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        sign = 1 if self.sweep.goal == "minimize" else -1
        return min(complete, key=lambda trial: sign * trial.value, default=None)


def lease_name(number: int) -> str:
    return f"trial-{number:04d}"
