"""What the tests of jobs share: functions in processes of their own."""

from __future__ import annotations

import os
from collections.abc import Callable


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
