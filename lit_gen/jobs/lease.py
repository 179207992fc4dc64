"""Who works on which piece of work: a file for each, which its holder touches while it lives."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from lit_gen.core.run_dir import write_atomically
from lit_gen.jobs.process import Process

SECONDS = 120.0
"""After so long without a touch a lease on another machine is void, where nothing else is said."""


class Lease:
    """The right of this process to a piece of work. A thread touches the file until the lease is released.

    Args:
        path: the file.
        seconds: after so long without a touch others take the work, if they cannot see the process itself.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.interval = path, min(5.0, seconds / 8)
        self.holder = str(Process.this())
        self.lost = False
        """Whether another process took the work (because this one stood still for too long)."""
        self._released = threading.Event()
        write_atomically(path, self.holder)
        self._thread = threading.Thread(target=self._beat, name=f"lease {path.name}", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Gives the work up: if it is not finished, anybody may continue it at once."""
        self._released.set()
        self._thread.join()
        if self.is_held():
            self.path.unlink(missing_ok=True)

    def is_held(self) -> bool:
        """Whether the work is still this process's."""
        try:
            return not self.lost and self.path.read_text() == self.holder
        except FileNotFoundError:
            return False

    def _beat(self) -> None:
        while not self._released.wait(self.interval):
            with suppress(OSError):  # a network file system that is away for a moment
                if not self.is_held():
                    self.lost = True
                    return
                os.utime(self.path)


class Leases:
    """The leases in a folder as this process sees them.

    Args:
        folder: where they are; made where it is missing.
        seconds: after so long without a touch the lease of a process on another machine is void. Counted by this
            process's own clock from when it saw the last touch, as the clocks of machines differ.
    """

    def __init__(self, folder: Path, seconds: float = SECONDS) -> None:
        self.folder, self.seconds = folder, seconds
        self._seen: dict[str, tuple[tuple[str, int], float]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def take(self, name: str) -> Lease:
        """Takes the lease, whoever had it; called under the lock of those who share the work."""
        return Lease(self.folder / name, self.seconds)

    def is_free(self, name: str) -> bool:
        """Whether nobody alive holds the lease."""
        path = self.folder / name
        try:
            state = (path.read_text(), path.stat().st_mtime_ns)
            gone = Process.parse(state[0]).is_gone()
        except FileNotFoundError:
            return True
        except ValueError:  # not written by us, or emptied by a crash of the file system
            gone = None
        if gone is not None:
            return gone
        if name not in self._seen or self._seen[name][0] != state:
            self._seen[name] = (state, time.monotonic())
        return time.monotonic() - self._seen[name][1] > self.seconds
