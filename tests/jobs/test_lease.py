"""Leases are kept while their holder lives, and end with it or with its silence."""

from __future__ import annotations

import os
import time
from pathlib import Path

from lit_gen.jobs.lease import Lease, Leases
from lit_gen.jobs.process import Process


def test_leases_of_other_machines_end_with_silence(tmp_path: Path) -> None:
    leases, path = Leases(tmp_path, seconds=0.4), tmp_path / "trial-0000"
    assert leases.is_free(path.name)
    path.write_text("another-host|17|3")
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        os.utime(path)
        time.sleep(0.02)
        assert not leases.is_free(path.name)
    time.sleep(0.6)
    assert leases.is_free(path.name)
    path.write_text("")  # after a crash of the file system
    assert not leases.is_free(path.name)
    path.write_text(str(Process(Process.this().host, Process.this().pid, "1")))
    assert leases.is_free(path.name)


def test_a_holder_touches_its_lease_and_sees_that_it_lost_it(tmp_path: Path) -> None:
    lease = Lease(tmp_path / "trial-0000", seconds=0.4)
    os.utime(lease.path, (0, 0))
    deadline = time.monotonic() + 30
    while lease.path.stat().st_mtime == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert lease.path.stat().st_mtime > 0
    assert lease.is_held()
    lease.path.write_text("another-host|17|3")
    while not lease.lost and time.monotonic() < deadline:
        time.sleep(0.02)
    assert lease.lost
