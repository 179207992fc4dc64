"""Stopping on request with nothing lost: SIGUSR1 (the time limit is near), SIGTERM (preemption), SIGINT (Ctrl-C).

A signal may land anywhere, in the middle of an all-reduce or of ``import torch``. So the handler, which is installed before
anything heavy is imported, only sets a flag. After each batch the processes agree on it (``RunCheckpoint``), all of them save
one checkpoint and raise :class:`Stopped`, and the first one puts the SLURM job back into the queue. Lightning's own handlers
save and synchronise wherever the signal lands, and deadlock.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from enum import Enum
from types import FrameType
from typing import Any

from lit_gen.core.errors import LitGenError, first_line
from lit_gen.core.launch import slurm_job

SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)


class Phase(Enum):
    """What a signal does: before and in training it sets the flag, after training there is nothing left to save."""

    STARTING = "starting"
    TRAINING = "training"
    FINISHING = "finishing"
    STOPPING = "stopping"


class Stopped(LitGenError):
    """The run was asked to stop and has; it can be continued.

    Args:
        signum: the signal that asked for it.
        run: the run directory.
        step: number of completed updates, None after training.
    """

    def __init__(self, signum: int, run: str, step: int | None = None) -> None:
        name = "interrupted" if signum == signal.SIGINT else f"stopped by {signal.Signals(signum).name}"
        when = "after training" if step is None else f"at step {step}, which is saved"
        super().__init__(f"{name} {when}; continue with lit-gen run --resume {run}")
        self.signum, self.exit_code = signum, 128 + signum


class StopRequest:
    """The flag that the signals set, the phase that decides what else they do, and the run directory they concern."""

    def __init__(self) -> None:
        self.signum = 0
        self.phase = Phase.STARTING
        self.run = "RUN"
        self._process: int | None = None

    def watch(self) -> None:
        """Installs the handlers, in the process that trains."""
        self._process = os.getpid()
        for signum in SIGNALS:
            signal.signal(signum, self._handle)

    def ended(self) -> None:
        """Nothing can be stopped any more: until the interpreter is gone, which puts the handlers away, signals are ignored."""
        if self._process == os.getpid():
            for signum in SIGNALS:
                signal.signal(signum, signal.SIG_IGN)

    def finishing(self) -> None:
        """Training is over and saved: a request stops the process at once from now on, as one does that is waiting.

        Raises:
            Stopped: a signal has come.
        """
        self.phase = Phase.FINISHING
        self._stop_if_asked()

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process or self.phase is Phase.STOPPING:
            return  # a forked worker of the data loader, which the run ends itself; or the run is stopping already
        if signum == signal.SIGINT and (self.phase is not Phase.TRAINING or self.signum == signum):
            raise KeyboardInterrupt  # nothing to save, or asked for twice
        self.signum = max(self.signum, signum)
        if self.phase is Phase.FINISHING:
            self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self.signum:
            self.phase = Phase.STOPPING
            raise Stopped(self.signum, self.run)


stop_request = StopRequest()
"""Of this process."""


def own_signals(trainer: Any) -> None:
    """Keeps Lightning's signal handlers out of a Trainer, with the broadcast that it makes for them before every batch."""
    trainer._signal_connector.register_signal_handlers = lambda: None
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None


def requeue() -> bool:
    """Puts this SLURM job back into the queue; says in one line what became of it.

    Returns:
        Whether the job runs again. Not outside SLURM, where the job was cancelled, where requeueing is disabled, and where
        ``scontrol`` is missing, as in a container.
    """
    job = slurm_job()
    if not job:
        return False
    if shutil.which("scontrol") is None:
        return _not_requeued(job, "there is no scontrol here (a container?)")
    try:
        shown = dict(re.findall(r"(\w+)=(\S*)", _scontrol("show", "job", "-o", job).stdout))
        if int(shown.get("Restarts") or 0) > int(os.environ.get("SLURM_RESTART_COUNT") or 0):
            return _requeued(job)  # by whoever sent the signal
        # a job that is being ended is "completing", whatever the cause
        ending = shown.get("JobState") in ("COMPLETING", "CANCELLED")
        if ending and shown.get("Reason") not in ("TimeLimit", "Preempted"):
            return _not_requeued(job, "it was cancelled")
        answer = _scontrol("requeue", job)
    except (OSError, subprocess.SubprocessError) as error:
        return _not_requeued(job, first_line(error))
    if answer.returncode:
        return _not_requeued(job, " ".join(answer.stderr.split()) or f"scontrol exited with {answer.returncode}")
    return _requeued(job)


def _scontrol(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["scontrol", *words], capture_output=True, text=True, timeout=60)


def _requeued(job: str) -> bool:
    print(f"job {job} is requeued and will continue from its checkpoint", flush=True)
    return True


def _not_requeued(job: str, reason: str) -> bool:
    print(f"job {job} is not requeued: {reason}; the checkpoint is kept", flush=True)
    return False
