"""One lock for all processes that share a folder, on any file system, whatever moment one of them is killed at.

The usual ones are not enough for that: a lock file of a dead process is removed by whoever waits (who may remove that
of the next holder), and lock calls that some network file systems answer without locking cannot be trusted.
"""

from __future__ import annotations

import os
import random
import secrets
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from lit_gen.core.errors import LitGenError
from lit_gen.jobs.process import Process

FREE = ".free"
KEPT = 50
"""Old numbers that stay: a listing of the folder during which others come and go shows some of them in any case."""


class LockLost(LitGenError):
    """This process stood still for so long that the others took its lock from it."""


class Mutex:
    """Mutual exclusion by numbered symbolic links: whoever makes the next number holds the lock.

    A number may be made when a second link says that the one before is free, or when its holder is dead. Nobody removes
    another's link to get the lock, so two processes that find a dead holder at once cannot both get it. A link says who
    made it, from its first moment on. The newest numbers stay, which tells a process that was asleep that it is too
    late.

    Args:
        folder: where the links are; made where it is missing.
        patience: seconds after which the unchanged link of a process on another machine is that of a dead one.
    """

    def __init__(self, folder: Path, patience: float = 60.0) -> None:
        self.folder, self.patience = folder, patience
        self.number, self.depth = 0, 0
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "Mutex":
        if self.depth == 0:
            self._acquire()
        self.depth += 1
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.depth -= 1
        if self.depth == 0:
            with suppress(FileExistsError):  # a network file system may lose the answer to a link that it made
                os.symlink("free", f"{self._link(self.number)}{FREE}")

    def check(self) -> None:
        """Called before each write under the lock.

        Raises:
            LockLost: another process has it by now.
        """
        if self._newest() != (self.number, False):
            raise LockLost(f"the lock in {self.folder} was lost")

    def _acquire(self) -> None:
        me = f"{Process.this()}|{secrets.token_hex(4)}"
        seen, since, pause = None, 0.0, 0.002
        while True:
            newest, free = self._newest()
            holder = None if free else self._holder(newest)
            if (newest, holder) != seen:
                seen, since = (newest, holder), time.monotonic()
            if free or (holder is not None and self._is_dead(holder, since)):
                if self._take(newest + 1, me):
                    return
                continue
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, 0.2)

    def _is_dead(self, holder: str, since: float) -> bool:
        gone = Process.parse(holder.rpartition("|")[0]).is_gone()
        return time.monotonic() - since > self.patience if gone is None else gone

    def _take(self, number: int, me: str) -> bool:
        link = self._link(number)
        try:
            os.symlink(me, link)
        except FileExistsError:
            if self._holder(number) != me:  # else the answer was lost, as above
                return False
        if self._newest() != (number, False):  # others have had this number already
            os.unlink(link)
            return False
        self.number = number
        for name in os.listdir(self.folder):
            if int(name.removesuffix(FREE)) < number - KEPT:
                (self.folder / name).unlink(missing_ok=True)
        return True

    def _newest(self) -> tuple[int, bool]:
        """The newest number and whether it is free; 0, free where there was none yet."""
        names = os.listdir(self.folder)
        newest = max((int(name.removesuffix(FREE)) for name in names), default=0)
        return newest, newest == 0 or f"{newest}{FREE}" in names

    def _holder(self, number: int) -> str | None:
        try:
            return os.readlink(self._link(number))
        except OSError:
            return None

    def _link(self, number: int) -> str:
        return str(self.folder / str(number))
