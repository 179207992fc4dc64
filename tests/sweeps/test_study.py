"""The shared state of a sweep: killed between any two of its writes, it makes exactly the trials that were asked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from lit_gen.core.errors import UsageError
from lit_gen.jobs.mutex import Mutex
from lit_gen.sweeps.journal import Journal
from lit_gen.sweeps.study import SweepStudy
from tests.jobs.conftest import crash_while, forked
from tests.sweeps.conftest import sweep_text

PARAMETERS = {name: {"min": 0.0, "max": 1.0} for name in "abc"}


def opened(folder: Path, **changes: Any) -> SweepStudy:
    return SweepStudy(folder / "sweep-toy", sweep_text(**changes), folder / "toy.yaml")


def finish_all(study: SweepStudy, count: int) -> list[int]:
    """Works as a worker would whose runs take no time; returns the numbers of the trials."""
    numbers = []
    while (claim := study.take(count)) is not None:
        study.finish(claim, TrialState.COMPLETE, claim.values["a"])
        claim.lease.release()
        numbers.append(claim.number)
    return numbers


def dies_at(operation: str, moment: int) -> None:
    """Makes this process die at the n-th write: before it, in its middle, or after it."""
    original, count = Journal.append_logs, 0

    def append_logs(self: Journal, logs: list[dict[str, Any]]) -> None:
        nonlocal count
        count += 1
        if count == moment and operation == "before":
            os._exit(1)
        if count == moment and operation == "within":
            with open(self.path, "ab") as file:
                file.write(b'{"op_code":4,"worker')
            os._exit(1)
        original(self, logs)
        if count == moment and operation == "after":
            os._exit(1)

    Journal.append_logs = append_logs


@pytest.mark.parametrize("method", ["random", "bayes", "grid"])
@pytest.mark.parametrize("operation", ["before", "within", "after"])
def test_killed_at_every_write(operation: str, method: str, tmp_path: Path) -> None:
    parameters = PARAMETERS if method != "grid" else {name: {"values": [1, 2]} for name in "abc"}
    changes = {"method": method, "parameters": parameters}
    count = 8
    for moment in range(1, 14):  # opening takes 2 writes, each trial 4, its end 1
        folder = tmp_path / str(moment)
        folder.mkdir()

        def work(folder: Path = folder, moment: int = moment) -> None:
            dies_at(operation, moment)
            finish_all(opened(folder, **changes), count)

        crash_while(work)
        study = opened(folder, **changes)
        finish_all(study, count)
        trials = study.trials()
        assert [trial.number for trial in trials] == list(range(count))
        assert all(trial.state == TrialState.COMPLETE and len(trial.params) == 3 for trial in trials)
        assert len({tuple(trial.params.values()) for trial in trials}) == count
        if method != "bayes":  # and they are those of a sweep that nobody disturbed
            undisturbed = opened(tmp_path / "undisturbed", **changes)
            finish_all(undisturbed, count)
            assert [t.params for t in trials] == [t.params for t in undisturbed.trials()]


def test_workers_that_race_for_every_trial(tmp_path: Path) -> None:
    def work() -> None:
        numbers = finish_all(opened(tmp_path, parameters=PARAMETERS), 40)
        (tmp_path / f"worker-{os.getpid()}").write_text(" ".join(map(str, numbers)))

    workers = [forked(work) for _ in range(4)]
    for worker in workers:
        os.waitpid(worker, 0)
    done = [int(number) for note in tmp_path.glob("worker-*") for number in note.read_text().split()]
    assert sorted(done) == list(range(40))
    trials = opened(tmp_path, parameters=PARAMETERS).trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 40


@pytest.mark.parametrize("method", ["_take", "_newest"])
def test_killed_inside_the_lock(method: str, tmp_path: Path) -> None:
    opened(tmp_path, parameters=PARAMETERS)
    original = getattr(Mutex, method)

    def work() -> None:
        def dies(*args: Any) -> Any:
            original(*args)
            os._exit(1)

        study = opened(tmp_path, parameters=PARAMETERS)
        setattr(Mutex, method, dies)
        finish_all(study, 4)

    crash_while(work)
    study = opened(tmp_path, parameters=PARAMETERS)
    assert finish_all(study, 4) == [0, 1, 2, 3]


def test_a_running_trial_is_taken_over_with_its_parameters(tmp_path: Path) -> None:
    study = opened(tmp_path, parameters=PARAMETERS)

    def dies_with_a_trial() -> None:
        study = opened(tmp_path, parameters=PARAMETERS)
        study.take(3)
        os._exit(1)

    crash_while(dies_with_a_trial)
    before = study.trials()[0].params
    mine, other = study.take(3), opened(tmp_path, parameters=PARAMETERS)
    assert (mine.number, mine.values) == (0, before)
    assert other.take(3).number == 1  # nobody takes what this living process holds
    mine.lease.release()
    assert other.take(3).number == 0  # handed back: at once


def test_what_another_process_has_taken_is_its_own(tmp_path: Path) -> None:
    study = opened(tmp_path, parameters=PARAMETERS)
    claim = study.take(1)
    claim.lease.path.write_text("another-host|17|3")
    assert study.finish(claim, TrialState.COMPLETE, 1.0) is False
    claim.lease.release()
    assert claim.lease.path.exists()
    assert study.trials()[0].state == TrialState.RUNNING


def test_the_sampler_of_bayes_learns(tmp_path: Path) -> None:
    means = {}
    for method in ("bayes", "random"):
        study = SweepStudy(
            tmp_path / method,
            sweep_text(method=method, parameters=PARAMETERS | {"d": {"values": [0, 1, 2]}}),
            tmp_path / "s",
        )

        def distance(v: dict) -> float:
            return sum((v[k] - 0.3) ** 2 for k in "abc") + (v["d"] != 1)

        while (claim := study.take(50)) is not None:
            study.finish(claim, TrialState.COMPLETE, distance(claim.values))
            claim.lease.release()
        means[method] = sum(trial.value for trial in study.trials()[25:]) / 25
    assert means["bayes"] < 0.6 * means["random"]


def test_parallel_workers_of_bayes_draw_different_points(tmp_path: Path) -> None:
    study = opened(tmp_path, method="bayes", parameters=PARAMETERS)
    finish_all(study, 12)
    claims = [study.take(20) for _ in range(8)]
    assert len({tuple(claim.values.values()) for claim in claims}) == 8


def test_pruning_follows_successive_halving(tmp_path: Path) -> None:
    early = {"type": "hyperband", "min_iter": 2, "eta": 2}
    study = opened(tmp_path, early_terminate=early, parameters=PARAMETERS)
    first, second = study.take(4), study.take(4)
    assert study.prune(first, [5.0], 0) == (1, False)  # before the bracket
    assert study.prune(first, [5.0, 1.0], 1) == (2, False)  # the first at a bracket goes on
    assert study.prune(second, [5.0, 2.0, 0.1], 0) == (2, True)  # the worse of two does not
    third = study.take(4)
    assert study.prune(third, [9.0, 0.5, 9.0, 3.0], 0) == (4, False)
    assert study.prune(third, [9.0, 0.5, 9.0, 3.0], 0) == (4, False)  # after a takeover: what was said stays
    assert study.trials()[2].intermediate_values == {2: 0.5, 4: 3.0}
    fourth = study.take(4)
    assert study.prune(fourth, [9.0, float("nan")], 0) == (2, True)
    study.finish(second, TrialState.PRUNED)
    assert study.trials()[1].value == 2.0


def test_another_sweep_and_bad_names_are_refused(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(
        UsageError, match=r"is not the sweep in .*: method was random, is bayes; give another --storage"
    ):
        opened(tmp_path, method="bayes")
    opened(tmp_path, run_cap=5)
    with pytest.raises(UsageError, match=r"--storage .*: its last part names the experiment; accepted are letters"):
        SweepStudy(tmp_path / "my sweep", sweep_text(), tmp_path / "toy.yaml")
