"""The lock and the journal of a sweep under processes that are killed with kill -9 at any moment."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from lit_gen.sweeps.journal import Journal, LockLost, Mutex
from lit_gen.sweeps.process import Process, end_leftovers


def forked(work: Callable[[], None]) -> int:
    """Runs a function in a child process; returns its process id."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    finally:
        os._exit(0)


def crash_while(work: Callable[[], None]) -> None:
    os.waitpid(forked(work), 0)


def test_never_two_holders_while_holders_are_killed(tmp_path: Path) -> None:
    record = tmp_path / "record"

    def work() -> None:
        mutex, me = Mutex(tmp_path / "lock"), os.getpid()
        with open(record, "ab", buffering=0) as file:
            while True:
                with mutex:
                    file.write(f"{me} in\n".encode())
                    time.sleep(random.SystemRandom().uniform(0, 0.004))
                    file.write(f"{me} out\n".encode())

    workers = [forked(work) for _ in range(4)]
    for _ in range(25):
        time.sleep(random.SystemRandom().uniform(0.01, 0.12))
        killed = workers.pop(0)
        os.kill(killed, signal.SIGKILL)
        os.waitpid(killed, 0)
        workers.append(forked(work))
    time.sleep(0.3)
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
    events = [line.split() for line in record.read_text().splitlines()]
    inside = None
    for number, event in events:
        if event == "out":
            assert number == inside, "somebody else was in"
        inside = number if event == "in" else None
    assert len(events) > 200
    with Mutex(tmp_path / "lock"):
        assert len(os.listdir(tmp_path / "lock")) < 120


def test_a_dead_holder_here_is_found_at_once_a_silent_one_elsewhere_after_a_while(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    crash_while(lambda: Mutex(lock).__enter__())
    before = os.listdir(lock)
    with Mutex(lock, patience=1e9):
        assert set(before) < set(os.listdir(lock))
    elsewhere = lock / str(max(int(name) for name in os.listdir(lock) if name.isdigit()) + 1)
    elsewhere.symlink_to("another-host|17|3|abcd")
    started = time.monotonic()
    with Mutex(lock, patience=0.5):
        assert time.monotonic() - started >= 0.5


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


def test_processes_are_told_apart() -> None:
    me = Process.this()
    assert Process.parse(str(me)) == me
    assert me.is_gone() is False
    assert Process(me.host, me.pid, "1").is_gone() is True  # the same number, used again
    assert Process("another-host", me.pid, me.start).is_gone() is None
    child = forked(lambda: os._exit(0))
    zombie = Process(me.host, child, me.start)
    time.sleep(0.2)
    assert zombie.is_gone() is True
    os.waitpid(child, 0)
    assert end_leftovers("LIT_GEN_NOBODY_HAS_THIS", "x") == 0
