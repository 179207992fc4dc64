"""The lock under processes that are killed with kill -9 at any moment."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from lit_gen.jobs.mutex import LockLost, Mutex
from lit_gen.jobs.process import Process
from tests.jobs.conftest import crash_while, forked


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


def test_who_lost_the_lock_is_told(tmp_path: Path) -> None:
    mutex = Mutex(tmp_path / "lock")
    with mutex:
        mutex.check()
        with mutex:  # it may be taken again by who has it
            mutex.check()
        mutex.check()
        (tmp_path / "lock" / str(mutex.number + 1)).symlink_to(f"{Process.this()}|abcd")  # as if it had stood still
        with pytest.raises(LockLost, match=r"the lock in .* was lost"):
            mutex.check()
