"""``lit-gen run`` as a child process: how it is started and stopped, and what its end says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from lit_gen.core.run_dir import RunDir
from lit_gen.jobs.process import ends_with_parent

PROGRAM = [sys.executable, "-m", "lit_gen"]
POLL_SECONDS = 0.5
"""How often those that wait for a run look at it."""
PATIENCE = 120.0
"""Seconds in which a run has to save its checkpoint and to stop."""
ATTEMPTS = 3
"""A run that the system kills so often (for its memory, mostly) has failed."""
MARK = "LIT_GEN_JOB_RUN"
"""Environment variable with the run directory, by which all processes of a run are known."""
LAUNCHERS = re.compile(
    r"(SLURM|SRUN_|PMI|OMPI_|TORCHELASTIC_|LT_|PL_)\w*|((LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE))|NODE_RANK"
    r"|MASTER_(ADDR|PORT)|WANDB_(RUN|SWEEP)_ID|LIT_GEN_RUN_ID"
)
"""Environment variables in which srun, torchrun, ``fabric run`` and W&B's agent tell a process who it is."""
USAGE = 2
"""Exit code of a run whose configuration is refused."""


def start(
    words: list[str], run: RunDir, log: Path, variables: Mapping[str, str] = MappingProxyType({})
) -> subprocess.Popen:
    """Starts a run in a session of its own (Ctrl-C is for who started it), without the variables of launchers.

    On Linux the system kills it when the thread that called this ends, and so when this process does, however it ends.

    Args:
        words: what stands after ``lit-gen``.
        run: its run directory, whose parent is the experiment.
        log: file that what it prints is appended to; its folder is made where it is missing.
        variables: of its environment, besides those of this process.
    """
    kept = {k: v for k, v in os.environ.items() if k == "SLURM_TMPDIR" or not LAUNCHERS.fullmatch(k)}
    environment = {
        **kept,
        "LIT_GEN_RUN_ID": run.run_id,
        "WANDB_RUN_GROUP": run.experiment,
        MARK: str(run.path),
        **variables,
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        return subprocess.Popen(
            [*PROGRAM, *words], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True, preexec_fn=ends_with_parent(signal.SIGKILL),
        )  # fmt: skip


def stop(child: subprocess.Popen, signum: int) -> None:
    """Ends a run: the signal, some time for its checkpoint, SIGKILL. ``end_leftovers`` finds what it leaves running."""
    if child.poll() is None:
        child.send_signal(signum)
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def stopped_by_signal(code: int) -> bool:
    """Whether a process was killed by a signal, or stopped in good order because of one."""
    return code < 0 or code - 128 in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL)


def last_line(log: Path, offset: int) -> str:
    """Why a run ended: its error line, else the last line that it printed after ``offset``."""
    with open(log, "rb") as file:
        file.seek(offset)
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("lit-gen: error: ") for line in lines if line.startswith("lit-gen: error: ")]
    return (errors or lines or [""])[-1][:400]
