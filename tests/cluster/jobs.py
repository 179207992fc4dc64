"""Jobs on a real SLURM cluster: submitted, waited for, looked at, shown where they fail."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, process_environment, small

SCRIPTS = ROOT / "slurm"
TWO_NODES = ("--nodes=2", "--ntasks-per-node=1")
RUNNING = ("PENDING", "RUNNING", "COMPLETING", "REQUEUED", "CONFIGURING", "RESIZING", "SUSPENDED")
LONGEST = 600.0
"""Seconds after which a job is taken for hanging."""
ENTRY_POINTS = {"lit-gen": "lit_gen.cli.main", "torchrun": "torch.distributed.run"}


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


@dataclass
class Cluster:
    """SLURM, as seen from one folder.

    Args:
        folder: where jobs are submitted and run.
        environment: of sbatch, and so of the jobs.
        jobs: all that were submitted.
    """

    folder: Path
    environment: dict[str, str]
    jobs: list[str] = field(default_factory=list)

    @classmethod
    def at(cls, folder: Path) -> "Cluster":
        """A folder with lit-gen in its .venv/, and nowhere else on the jobs' PATH, as the scripts promise to find it."""
        for name, module in ENTRY_POINTS.items():
            program = folder / ".venv" / "bin" / name
            program.parent.mkdir(parents=True, exist_ok=True)
            program.write_text(f"#!{sys.executable}\nimport sys\nfrom {module} import main\nsys.exit(main())\n")
            program.chmod(0o755)
        elsewhere = [part for part in os.environ["PATH"].split(os.pathsep) if not Path(part, "lit-gen").exists()]
        return cls(folder, process_environment(PATH=os.pathsep.join(elsewhere)))

    def submit(self, script: str | Path, *words: object, options: tuple[str, ...] = ()) -> str:
        """Submits a script of ``slurm/`` (or any other) and returns the job's id."""
        done = subprocess.run(
            ["sbatch", "--parsable", "--mem=100", "--cpus-per-task=1", *options, str(SCRIPTS / script), *map(str, words)],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        self.jobs.append(done.stdout.strip().split(";")[0])
        return self.jobs[-1]

    def shown(self, job: str, name: str) -> list[str]:
        """What ``scontrol show job`` has under a name: for each task of an array, or for the one job."""
        for _ in range(20):  # a controller that has much to do may not answer
            done = subprocess.run(["scontrol", "show", "job", "-o", job], capture_output=True, text=True, timeout=60)
            if done.returncode == 0 and (found := re.findall(rf"\b{name}=(\S+)", done.stdout)):
                return found
            time.sleep(0.5)
        raise AssertionError(f"scontrol does not know {name} of job {job}: {done.stderr}")

    def state(self, job: str) -> str:
        """State of a job that is no array."""
        return self.shown(job, "JobState")[0]

    def restarts(self, job: str) -> int:
        return int(self.shown(job, "Restarts")[0])

    def finished(self, job: str) -> bool:
        """Whether the job, or every task of the array, has ended."""

        def ended() -> bool:
            return set(self.shown(job, "JobState")).isdisjoint(RUNNING)

        if not ended():
            return False
        time.sleep(1.5)  # a job that is being requeued has the state of one that has ended, for a moment
        return ended()

    def completed(self, *jobs: str) -> None:
        """Waits until all jobs have ended, and shows the logs of one that has not ended well."""
        for job in jobs:
            wait_for(lambda job=job: self.finished(job), f"end of job {job}", lambda job=job: self.log(job))
            states = set(self.shown(job, "JobState"))
            assert states == {"COMPLETED"}, f"job {job}: {states}\n{self.log(job)}"

    def run_of(self, job: str) -> Path:
        """The run directory of a job."""
        (run,) = self.folder.glob(f"runs/*/slurm-{job}")
        return run

    def updates(self, job: str) -> int:
        """Rows that the job's run has logged so far."""
        files = list(self.folder.glob(f"runs/*/slurm-{job}/metrics.csv"))
        return max(0, len(files[0].read_bytes().splitlines()) - 1) if files else 0

    def log(self, job: str) -> str:
        """What a job, or all tasks of an array, have printed."""
        return "".join(file.read_text() for file in sorted(self.folder.rglob(f"slurm-{job}*.out")))

    def cancel(self) -> None:
        """Ends what is left."""
        if self.jobs:
            subprocess.run(["scancel", *self.jobs], capture_output=True, timeout=60)


def wait_for(condition: Callable[[], bool], what: str, log: Callable[[], str] = str, seconds: float = LONGEST) -> None:
    """Polls until the condition holds; shows the log where it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s\n{log()}"
        time.sleep(0.3)


def write_config(folder: Path, config: str, **trainer: Any) -> str:
    """A shipped config made small, with devices and nodes left to the launcher; returns the file's name."""
    settings = small(ROOT / "configs" / config, **trainer)
    settings["trainer"].pop("devices")
    settings["data"]["init_args"]["image_size"] = 16
    name = Path(config).name
    (folder / name).write_text(yaml.safe_dump(settings))
    return name
