"""Jobs on a real SLURM: submitted, waited for, shown where they fail, cancelled at the end. Skipped where there is none."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, process_environment, small

SCRIPTS = ROOT / "slurm"
RUNNING = ("PENDING", "RUNNING", "COMPLETING", "REQUEUED", "CONFIGURING")
LONGEST = 400.0
"""Seconds after which a job is taken for hanging."""
ENTRY_POINTS = {"lit-gen": "lit_gen.cli.main", "torchrun": "torch.distributed.run"}


@dataclass
class Cluster:
    """SLURM, as seen from one folder.

    Args:
        folder: where jobs are submitted and run.
        environment: of sbatch, and so of the jobs.
    """

    folder: Path
    environment: dict[str, str]
    jobs: list[str] = field(default_factory=list)

    def submit(self, script: str | Path, *words: str, options: tuple[str, ...] = ()) -> str:
        """Submits a script of ``slurm/`` (or any other) and returns the job's id."""
        done = subprocess.run(
            ["sbatch", "--parsable", "--mem=100", "--cpus-per-task=1", *options, str(SCRIPTS / script), *words],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        self.jobs.append(done.stdout.strip().split(";")[0])
        return self.jobs[-1]

    def states(self, job: str) -> dict[str, str]:
        """State of each task of an array, or of the one job, by its id."""
        shown = subprocess.run(
            ["scontrol", "show", "job", "-o", job], capture_output=True, text=True, timeout=60
        ).stdout
        return dict(re.findall(r"^JobId=(\d+) .*?\bJobState=(\w+)", shown, re.MULTILINE))

    def completed(self, *jobs: str, seconds: float = LONGEST) -> None:
        """Waits until all jobs have ended, and shows the logs of one that has not ended well."""
        deadline = time.monotonic() + seconds
        for job in jobs:
            while (states := self.states(job)) and not set(states.values()).isdisjoint(RUNNING):
                assert time.monotonic() < deadline, f"job {job}: {states} after {seconds:.0f} s\n{self.log(job)}"
                time.sleep(0.3)
            assert states, f"job {job} is unknown"
            assert set(states.values()) == {"COMPLETED"}, f"job {job}: {states}\n{self.log(job)}"

    def log(self, job: str) -> str:
        """What a job, or all tasks of an array, have printed."""
        return "".join(file.read_text() for file in sorted(self.folder.rglob(f"slurm-{job}*.out")))


@pytest.fixture(scope="session")
def slurm() -> None:
    """Skips where no SLURM answers."""
    if shutil.which("sbatch") is None:
        pytest.skip("no sbatch on the PATH: these tests need a SLURM cluster")
    try:
        nodes = subprocess.run(["sinfo", "-h", "-o", "%D"], capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        pytest.skip("sinfo does not answer: is slurmctld running?")
    if nodes.returncode != 0 or not nodes.stdout.strip():
        pytest.skip(f"no SLURM controller answers: {nodes.stderr.strip()}")


@pytest.fixture
def cluster(slurm: None, tmp_path: Path) -> Iterator[Cluster]:
    """A folder with lit-gen in its .venv/, and nowhere else on the jobs' PATH, as the scripts promise to find it."""
    for name, module in ENTRY_POINTS.items():
        program = tmp_path / ".venv" / "bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!{sys.executable}\nimport sys\nfrom {module} import main\nsys.exit(main())\n")
        program.chmod(0o755)
    elsewhere = [part for part in os.environ["PATH"].split(os.pathsep) if not Path(part, "lit-gen").exists()]
    found = Cluster(tmp_path, process_environment(PATH=os.pathsep.join(elsewhere)))
    yield found
    if found.jobs:
        subprocess.run(["scancel", *found.jobs], capture_output=True, timeout=60)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = LONGEST) -> None:
    """Polls until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.3)


def write_config(folder: Path, config: str, **trainer: Any) -> str:
    """A shipped config made small, with devices and nodes left to the launcher; returns the file's name."""
    settings = small(ROOT / "configs" / config, **trainer)
    settings["trainer"].pop("devices")
    settings["data"]["init_args"]["image_size"] = 16
    name = Path(config).name
    (folder / name).write_text(yaml.safe_dump(settings))
    return name
