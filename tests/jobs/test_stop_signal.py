"""Signals set a flag while somebody listens, and do what they did before afterwards."""

from __future__ import annotations

import os
import signal

from lit_gen.core.stopping import SIGNALS
from lit_gen.jobs.stop_signal import StopSignal


def test_the_first_signal_is_remembered() -> None:
    before = [signal.getsignal(signum) for signum in SIGNALS]
    with StopSignal().listening() as stop:
        assert not stop()
        for signum in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), signum)
        assert stop()
        assert stop.signum == signal.SIGUSR1
    assert [signal.getsignal(signum) for signum in SIGNALS] == before
    assert stop(), "it stays asked"
