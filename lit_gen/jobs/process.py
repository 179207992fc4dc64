"""Who a process is, whether it still lives, and how to end with its parent: what leases and locks ask of the system."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Process:
    """A process that can be told apart from every other, on this machine or another.

    Args:
        host: name of the machine and of its process namespace.
        pid: process id there.
        start: clock tick of its start, as process ids are used again; "" where the system does not tell.
    """

    host: str
    pid: int
    start: str

    @classmethod
    def this(cls) -> "Process":
        return cls(_host(), os.getpid(), _start(os.getpid()) or "")

    @classmethod
    def parse(cls, text: str) -> "Process":
        """Reads what ``str`` of a process wrote.

        Raises:
            ValueError: something else was written.
        """
        host, pid, start = text.split("|")
        return cls(host, int(pid), start)

    def __str__(self) -> str:
        return f"{self.host}|{self.pid}|{self.start}"

    def is_gone(self) -> bool | None:
        """Whether it has ended; None where only its own machine could tell."""
        if self.host != _host():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return bool(self.start) and _start(self.pid) != self.start


@cache
def _host() -> str:
    try:  # two containers may share a host's name, and have process ids of their own
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}{namespace}"


def _start(pid: int) -> str | None:
    """When a process started; None where it is gone, a zombie, or on a system without /proc."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]


def ends_with_parent(signum: int) -> Callable[[], None]:
    """What a child calls before it becomes its program: the system signals it when this process ends, however it ends.

    On systems other than Linux nothing happens.
    """
    parent, libc = os.getpid(), ctypes.CDLL(None) if sys.platform == "linux" else None

    def in_child() -> None:
        if libc is not None:
            libc.prctl(SET_PDEATHSIG, signum)
            if os.getppid() != parent:  # it ended before that
                os._exit(1)

    return in_child


def end_leftovers(name: str, value: str) -> int:
    """Kills the processes of this user on this machine whose environment says ``name=value``; returns their number.

    A killed run leaves the processes of its other ranks and data loaders behind, which hold the run directory.
    """
    wanted, ended = f"{name}={value}".encode(), 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0") and int(folder.name) != os.getpid():
                os.kill(int(folder.name), signal.SIGKILL)
                ended += 1
        except OSError:
            continue
    return ended
