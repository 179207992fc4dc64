"""Jobs on a real SLURM cluster: submitting, waiting, looking."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT, process_environment

SCRIPT = ROOT / "slurm" / "train.sbatch"
NODES = ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1")
LONGEST = 600.0
"""Seconds after which a job is taken for hanging."""


@cache
def why_no_slurm() -> str:
    """The reason to skip what needs a cluster of two nodes, "" where there is one."""
    if shutil.which("sbatch") is None:
        return "SLURM is not installed: no sbatch on the PATH"
    try:
        shown = subprocess.run(["sinfo", "-h", "-o", "%D"], capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return "SLURM does not answer: sinfo took more than 20 s"
    if shown.returncode:
        return f"SLURM does not answer: {shown.stderr.strip()}"
    nodes = sum(map(int, shown.stdout.split()))
    return "" if nodes >= 2 else f"the SLURM cluster has {nodes} node(s), two are needed"


needs_slurm = pytest.mark.skipif(bool(why_no_slurm()), reason=why_no_slurm())


def submit(folder: Path, *words: str, options: tuple[str, ...] = NODES, script: Path = SCRIPT) -> str:
    """Submits a job that runs in ``folder``; returns its id."""
    path = f"{Path(sys.executable).parent}:{process_environment()['PATH']}"
    done = subprocess.run(
        ["sbatch", "--parsable", "--mem=100", *options, str(script), *words],
        cwd=folder, env=process_environment(PATH=path), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().split(";")[0]


def shown(job: str, field: str) -> str:
    """A field of ``scontrol show job``."""
    text = subprocess.run(["scontrol", "show", "job", "-o", job], capture_output=True, text=True, timeout=60).stdout
    found = re.search(rf"\b{field}=(\S+)", text)
    return found[1] if found else ""


def job_state(job: str) -> str:
    return shown(job, "JobState")


def wait_for(condition: Callable[[], bool], what: str, seconds: float = LONGEST) -> None:
    """Polls until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.2)


def finished(job: str) -> bool:
    return job_state(job) not in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED", "")


def log(folder: Path, job: str) -> str:
    return "".join(file.read_text() for file in sorted(folder.glob(f"*{job}*.out")))


def run_of(folder: Path, job: str) -> Path:
    (run,) = folder.glob(f"runs/*/slurm-{job}")
    return run


def completed(folder: Path, job: str) -> Path:
    """Waits for the job's end; returns its run directory."""
    wait_for(lambda: finished(job), f"end of job {job}")
    assert job_state(job) == "COMPLETED", f"{job_state(job)}\n{log(folder, job)}"
    run = run_of(folder, job)
    assert (run / "result.json").is_file()
    return run


def is_started(job: str, restarts: int) -> bool:
    return job_state(job) == "RUNNING" and int(shown(job, "Restarts") or 0) >= restarts


def logged_updates_of(run: Path) -> int:
    file = run / "metrics.csv"
    return max(0, len(file.read_bytes().splitlines()) - 1) if file.is_file() else 0
