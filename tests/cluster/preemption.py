"""Signals a two-node run at random moments, lets SLURM requeue it, and compares what it ends with to a run left in peace.

    python -m tests.cluster.preemption --signals 10 --families vae gan rbm seq2seq

prints a table of every signal, in Markdown. The tests call the same with fewer signals.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.cluster.jobs import (
    completed,
    finished,
    is_started,
    job_state,
    log,
    logged_updates_of,
    shown,
    submit,
    wait_for,
)
from tests.conftest import differing_weights
from tests.test_resume import experiment, rows, state

EPOCHS = {"vae": 25, "gan": 12, "rbm": 25, "seq2seq": 12}


@dataclass
class Signalled:
    """One signal: what was sent when, and how far the run was."""

    family: str
    signal: str
    seconds: float
    updates: int
    outcome: str


def config_of(family: str, folder: Path) -> Path:
    """The experiment of the tests of resuming, long enough to be signalled in; devices and nodes are srun's to say."""
    file = experiment(family, 1, folder)
    settings = yaml.safe_load(file.read_text())
    settings["trainer"].pop("devices")
    settings["trainer"]["max_epochs"] = EPOCHS[family]
    file.write_text(yaml.safe_dump(settings))
    return file


def check_same(family: str, run: Path, straight: Path) -> None:
    """Weights bitwise equal, no row of metrics.csv missing or doubled, and the values of training the same."""
    assert differing_weights(state(run), state(straight)) == []
    mine, theirs = rows(run), rows(straight)
    assert [row["step"] for row in mine] == [row["step"] for row in theirs]
    for a, b in zip(mine, theirs):
        assert {k: v for k, v in a.items() if k.startswith("train/")} == {
            k: v for k, v in b.items() if k.startswith("train/")
        }


def preempt(family: str, folder: Path, signals: list[str], longest: float = 18.0) -> list[Signalled]:
    """Signals runs of one family, a new one when the last has ended, each at a random moment after it (re)started.

    Args:
        family: of ``tests.test_resume.FAMILIES``.
        folder: for configs, logs and runs.
        signals: names for ``scancel --signal``, in order.
        longest: seconds after a start within which the moment is drawn; imports and setting up are among them.
    """
    config = config_of(family, folder)
    straight = completed(folder, submit(folder, "--config", str(config), "--name", "straight"))
    draw, done, job, sent = random.SystemRandom(), [], "", 0
    while sent < len(signals):
        if not job:
            job, restarts, of_job = submit(folder, "--config", str(config)), 0, []
        wait_for(lambda job=job, n=restarts: finished(job) or is_started(job, n), f"start {restarts} of job {job}")
        pause = draw.uniform(1.0, longest)
        time.sleep(pause)
        if not finished(job) and job_state(job) == "RUNNING":
            name, sent = signals[sent], sent + 1
            subprocess.run(["scancel", f"--signal={name}", job], check=True, timeout=60)
            updates = max((logged_updates_of(run) for run in folder.glob(f"runs/*/slurm-{job}")), default=0)
            of_job.append(Signalled(family, name, pause, updates, "hangs"))
            wait_for(lambda job=job, n=restarts: finished(job) or int(shown(job, "Restarts")) > n, f"answer of {job}")
            restarts += 1
        if finished(job):
            check_same(family, completed(folder, job), straight)
            done += [close(entry, folder, job, i) for i, entry in enumerate(of_job)]
            job = ""
    if job:
        check_same(family, completed(folder, job), straight)
        done += [close(entry, folder, job, i) for i, entry in enumerate(of_job)]
    return done


def close(entry: Signalled, folder: Path, job: str, index: int) -> Signalled:
    """Fills in from the log what the signal led to, once the job has ended as it should."""
    resumed = re.findall(r"resuming from \S+ at step (\d+)|(no intact checkpoint yet)", log(folder, job))
    restarted = int(shown(job, "Restarts")) > index
    entry.outcome = "after the end: nothing to do"
    if restarted and index < len(resumed):
        step = resumed[index][0]
        entry.outcome = f"resumed at {step}" if step else "started again"
    return entry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signals", type=int, default=10, help="for each family, half of them USR1, half TERM")
    parser.add_argument("--families", nargs="+", default=list(EPOCHS))
    args = parser.parse_args()
    print("| family | signal | seconds after the start | rows logged | outcome |\n|---|---|---|---|---|", flush=True)
    half = args.signals // 2
    for family in args.families:
        with tempfile.TemporaryDirectory() as folder:
            for entry in preempt(family, Path(folder), ["USR1"] * half + ["TERM"] * (args.signals - half)):
                cells = (entry.family, entry.signal, f"{entry.seconds:.1f}", entry.updates, entry.outcome)
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)
        print(f"{family}: all equal to the uninterrupted run, bit for bit", file=sys.stderr)


if __name__ == "__main__":
    main()
