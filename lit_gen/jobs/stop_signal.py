"""Signals to a process that has children at work: they set a flag, and the process ends its children in good order."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lit_gen.core.stopping import SIGNALS


class StopSignal:
    """Remembers the first signal that asked this process to stop."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def __call__(self) -> bool:
        return self.signum is not None

    @contextmanager
    def listening(self) -> Iterator["StopSignal"]:
        """Within, the signals only set a flag; afterwards they do what they did before."""
        before = {signum: signal.signal(signum, self._receive) for signum in SIGNALS}
        try:
            yield self
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        self.signum = self.signum or signum
