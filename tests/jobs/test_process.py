"""Processes are told apart, and end with their parent however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from lit_gen.jobs.process import Process, end_leftovers, ends_with_parent
from tests.jobs.conftest import forked


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
