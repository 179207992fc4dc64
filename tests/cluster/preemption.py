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

from tests.cluster.jobs import TWO_NODES, Cluster, wait_for
from tests.conftest import differing_weights
from tests.test_resume import experiment, rows, state

EPOCHS = {"vae": 60, "gan": 24, "rbm": 60, "seq2seq": 24}
LIMIT = "time limit"


@dataclass
class Signalled:
    """One signal: what was sent when, and how far the run was."""

    family: str
    signal: str
    seconds: float | None = None
    updates: int | None = None
    outcome: str = ""


def config_of(family: str, folder: Path) -> Path:
    """The experiment of the tests of resuming, long enough to be signalled in; devices and nodes are srun's to say."""
    file = experiment(family, 1, folder)
    settings = yaml.safe_load(file.read_text())
    settings["trainer"].pop("devices")
    settings["trainer"]["max_epochs"] = EPOCHS[family]
    file.write_text(yaml.safe_dump(settings))
    return file


def check_same(run: Path, straight: Path) -> None:
    """Weights bitwise equal, no row of metrics.csv missing or doubled, and the values of training the same."""
    assert differing_weights(state(run), state(straight)) == []
    mine, theirs = rows(run), rows(straight)
    assert [row["step"] for row in mine] == [row["step"] for row in theirs]
    for a, b in zip(mine, theirs):
        assert {k: v for k, v in a.items() if k.startswith("train/")} == {
            k: v for k, v in b.items() if k.startswith("train/")
        }


def preempt(family: str, cluster: Cluster, signals: list[str], longest: float = 30.0) -> list[Signalled]:
    """Signals runs of one family, a new one when the last has ended, each at a random moment after it (re)started.

    Args:
        family: of ``tests.test_resume.FAMILIES``.
        cluster: where.
        signals: names for ``scancel --signal``, in order; :data:`LIMIT` is a job with a real time limit of a minute.
        longest: seconds after a start within which the moment is drawn; imports and setting up are among them.
    """
    config = config_of(family, cluster.folder)
    straight = cluster.submit("train.sbatch", "--config", config, "--name", "straight", options=TWO_NODES)
    cluster.completed(straight)
    waiting, done = list(signals), []
    while waiting:
        limit = ("--time=1", "--signal=USR1@20") if waiting[0] == LIMIT else ()
        job = cluster.submit("train.sbatch", "--config", config, options=(*TWO_NODES, *limit))
        sent = [Signalled(family, waiting.pop(0))] if limit else send(job, family, cluster, waiting, longest)
        cluster.completed(job)
        check_same(cluster.run_of(job), cluster.run_of(straight))
        for index, entry in enumerate(sent):
            entry.outcome = outcome(cluster, job, index)
        done += sent
    return done


def send(job: str, family: str, cluster: Cluster, waiting: list[str], longest: float) -> list[Signalled]:
    """Takes signals from those waiting and sends them to the job, as long as there are any and it runs."""
    sent: list[Signalled] = []

    def again() -> bool:
        return cluster.finished(job) or (cluster.state(job) == "RUNNING" and cluster.restarts(job) == len(sent))

    while waiting and waiting[0] != LIMIT:
        wait_for(again, f"start {len(sent)} of job {job}", lambda: cluster.log(job))
        pause = random.SystemRandom().uniform(1.0, longest)
        time.sleep(pause)
        if subprocess.run(["scancel", f"--signal={waiting[0]}", job], capture_output=True, timeout=60).returncode:
            break  # it ended before
        sent.append(Signalled(family, waiting.pop(0), pause, cluster.updates(job)))
    return sent


def outcome(cluster: Cluster, job: str, index: int) -> str:
    """What the log of an ended job says of its signal number ``index``."""
    resumed = re.findall(r"resuming from \S+ at step (\d+)|(no intact checkpoint yet)", cluster.log(job))
    if index >= cluster.restarts(job):
        return "came after the end"
    return f"resumed at update {resumed[index][0]}" if resumed[index][0] else "began again"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    text = "for each family; half of them USR1, the others TERM, the last a time limit"
    parser.add_argument("--signals", type=int, default=10, help=text)
    parser.add_argument("--families", nargs="+", default=list(EPOCHS))
    args = parser.parse_args()
    print("| family | signal | seconds after the start | rows logged | outcome |\n|---|---|---|---|---|", flush=True)
    usr1 = args.signals // 2
    signals = ["USR1"] * usr1 + ["TERM"] * (args.signals - usr1 - 1) + [LIMIT]
    for family in args.families:
        with tempfile.TemporaryDirectory() as folder:
            for entry in preempt(family, Cluster.at(Path(folder)), signals):
                moment = ("", "") if entry.seconds is None else (f"{entry.seconds:.1f}", entry.updates)
                print(f"| {entry.family} | {entry.signal} | {moment[0]} | {moment[1]} | {entry.outcome} |", flush=True)
        print(f"{family}: all equal to the uninterrupted run, bit for bit", file=sys.stderr)


if __name__ == "__main__":
    main()
