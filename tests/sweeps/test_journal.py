"""The journal of a sweep: torn lines, lost locks, and Optuna's own reader."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from lit_gen.jobs.mutex import LockLost, Mutex
from lit_gen.jobs.process import Process
from lit_gen.sweeps.journal import Journal


def test_who_lost_the_lock_writes_nothing(tmp_path: Path) -> None:
    mutex = Mutex(tmp_path / "lock")
    journal = Journal(tmp_path / "journal", mutex)
    journal.append_logs([{"n": 1}])
    with mutex:
        (tmp_path / "lock" / str(mutex.number + 1)).symlink_to(f"{Process.this()}|abcd")  # as if it had stood still
        with pytest.raises(LockLost):
            journal.append_logs([{"n": 2}])
    assert [log["n"] for log in journal.read_logs(0)] == [1]


def test_a_line_that_was_cut_off_never_happened(tmp_path: Path) -> None:
    path, mutex = tmp_path / "journal", Mutex(tmp_path / "lock")
    writer, reader = Journal(path, mutex), Journal(path, mutex)
    writer.append_logs([{"n": 0}, {"n": 1}])
    assert [log["n"] for log in reader.read_logs(0)] == [0, 1]
    for torn in (b'{"n": 99', b'{"n"', b"\0\0\0"):
        with open(path, "ab") as file:
            file.write(torn)
        assert [log["n"] for log in Journal(path, mutex).read_logs(1)] == [1]
    writer.append_logs([{"n": 2}])
    writer.append_logs([{"n": 3}])
    assert [log["n"] for log in reader.read_logs(2)] == [2, 3]
    assert [log["n"] for log in reader.read_logs(3)] == [3]
    assert [log["n"] for log in Journal(path, mutex).read_logs(0)] == [0, 1, 2, 3]
    assert [log["n"] for log in Journal(path, mutex).read_logs(4)] == []


def test_optuna_reads_the_journal_with_its_own_backend(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    study = optuna.create_study(storage=optuna.storages.JournalStorage(Journal(path, Mutex(tmp_path / "lock"))))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    theirs = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    loaded = optuna.load_study(study_name=study.study_name, storage=theirs)
    assert [trial.params for trial in loaded.trials] == [trial.params for trial in study.trials]
