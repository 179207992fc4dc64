"""Runs cells as the tasks of a SLURM array, watches them, and submits again what was killed.

Each task continues the run directory that was made for its cell, so it may be requeued, preempted or submitted again. What was
submitted is written down before it is: a command that is killed and called again finds its jobs by their name.
"""

from __future__ import annotations

import json
import re
import secrets
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

import lit_gen
from lit_gen.core.errors import LitGenError
from lit_gen.core.run_dir import write_atomically
from lit_gen.jobs.child import ATTEMPTS, last_line
from lit_gen.jobs.lease import Lease
from lit_gen.jobs.stop_signal import StopSignal
from lit_gen.papers.cell import Cell
from lit_gen.papers.records import CorruptRecord, Records, finished
from lit_gen.papers.runner import Storage, Tell, collect, reject
from lit_gen.papers.status import note_failure

TEMPLATE = Path(lit_gen.__file__).parent / "slurm" / "reproduce_array.sbatch"
POLL_SECONDS = 2.0
GONE = 3
"""So many looks in a row at which SLURM does not know a task mean that it has ended."""
MISTAKES = (1, 2, 3)
"""Exit codes of a run that ended with an error of its own: it would end so again."""

Configure = Callable[[list[str]], dict]
"""The complete configuration of the words of ``lit-gen run``."""


@dataclass
class Submission:
    """One array job.

    Args:
        name: of the job, drawn before it is submitted.
        cells: run directories of the cells, in the order of the tasks.
        job: its id; "" until SLURM has said it.
    """

    name: str
    cells: list[str]
    job: str = ""


class Array:
    """Cells as array jobs.

    Args:
        storage: where their run directories are; every node must see it.
        records: of the table.
        options: of sbatch, such as ``--partition=gpu``.
        configure: makes a configuration complete and refuses what is wrong.
        stop: says that a signal has come; the jobs go on.
        tell: called with what happens.

    Raises:
        LitGenError: there is no SLURM here.
    """

    def __init__(
        self,
        storage: Storage,
        records: Records,
        options: Sequence[str],
        configure: Configure,
        stop: StopSignal,
        tell: Tell,
    ) -> None:
        if shutil.which("sbatch") is None:
            raise LitGenError("no sbatch on this machine: --slurm is for a login node; without it the cells run here")
        self.storage, self.records, self.options, self.configure = storage, records, list(options), configure
        self.stop, self.tell = stop, tell
        self.submissions = self._read()
        self.attempts: dict[str, int] = {}
        self.unseen: dict[str, int] = {}

    @property
    def _file(self) -> Path:
        return self.storage.folder / "slurm.json"

    def _read(self) -> list[Submission]:
        try:
            return [Submission(**entry) for entry in json.loads(self._file.read_text())]
        except (OSError, ValueError, TypeError):
            return []

    def _write(self) -> None:
        write_atomically(self._file, json.dumps([asdict(each) for each in self.submissions], indent=1) + "\n")

    # ---------------------------------------------------------------- the loop

    def run(self, cells: Sequence[Cell]) -> None:
        """Submits the cells that no job works on, and waits for all of them; a signal ends the waiting, not the jobs."""
        held: dict[str, Lease] = {}
        open_cells = {cell.name: cell for cell in cells}
        try:
            for name, cell in list(open_cells.items()):
                lease = self.storage.take(cell)
                if lease is None:
                    self.tell(cell, "is in the hands of another process")
                    del open_cells[name]
                else:
                    held[name] = lease
            self._submit([cell for cell in open_cells.values() if self._task(cell) is None])
            while open_cells and not self.stop():
                time.sleep(POLL_SECONDS)
                alive = self._alive()
                if alive is None:  # a controller that has much to do: nothing follows from its silence
                    continue
                for cell in self._ended(open_cells, alive):
                    del open_cells[cell.name]
        finally:
            for lease in held.values():
                lease.release()

    def _ended(self, cells: dict[str, Cell], alive: set[str]) -> list[Cell]:
        """The cells that have come to an end; those whose task was killed are submitted again."""
        ended, killed = [], []
        for name, cell in cells.items():
            task = self._task(cell)
            try:
                result = finished(cell.run)
            except CorruptRecord:
                result = None
            if result is not None:
                collect(cell, self.records, self.tell)
                ended.append(cell)
            elif task in alive:
                self.unseen[name] = 0
            elif self.unseen.setdefault(name, 0) + 1 < GONE:
                self.unseen[name] += 1
            elif (reason := self._mistake(cell, task)) is not None:
                note_failure(cell, reason)
                self.tell(cell, f"failed: {reason}")
                ended.append(cell)
            else:
                killed.append(cell)
        for cell in killed:
            self.tell(cell, f"its task {self._task(cell)} ended without a result and is submitted again")
        self._submit(killed)
        return ended

    def _mistake(self, cell: Cell, task: str | None) -> str | None:
        """Why a task that has ended has failed for good; None where it was killed and may go on."""
        shown = dict(re.findall(r"(\w+)=(\S*)", _ask("scontrol", "show", "job", "-o", task or "0") or ""))
        code, _, signum = shown.get("ExitCode", "").partition(":")
        log = self._log(task)
        reason = last_line(log, 0) if log is not None else ""
        if code.isdigit() and int(code) in MISTAKES and signum == "0" and shown.get("JobState") == "FAILED":
            return reason or f"exit code {code}"
        if self.attempts.get(cell.name, 0) >= ATTEMPTS:
            return f"ended {ATTEMPTS} times without a result: {reason or 'nothing in its log'}"
        return None

    # ---------------------------------------------------------------- SLURM

    def _submit(self, cells: Sequence[Cell]) -> None:
        """One array job for these cells.

        Raises:
            UsageError: a configuration is refused; nothing was submitted.
            LitGenError: sbatch refuses the job.
        """
        if not cells:
            return
        for cell in cells:
            reject(cell.run)
            note_failure(cell, "")
            if not cell.run.config.is_file():
                config = self.configure([*cell.words, *cell.place_words])
                cell.run.create()
                write_atomically(cell.run.config, yaml.safe_dump(config, sort_keys=False))
        name = f"lit-gen-{secrets.token_hex(4)}"
        lines = [shlex.join(["--resume", str(cell.run.path.absolute()), *cell.options.words]) for cell in cells]
        file = self.storage.folder / f"{name}.txt"
        write_atomically(file, "".join(f"{line}\n" for line in lines))
        logs = self.storage.folder / "logs"
        logs.mkdir(exist_ok=True)
        submission = Submission(name, [place(cell) for cell in cells])
        self.submissions = [*self.submissions, submission]
        self._write()
        done = subprocess.run(
            ["sbatch", "--parsable", f"--job-name={name}", f"--array=1-{len(cells)}", f"--output={logs}/{name}-%a.out",
             *self.options, str(TEMPLATE), str(file.absolute())],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            self.submissions.remove(submission)
            self._write()
            said = [line.split("error: ", 1)[-1].strip() for line in done.stderr.splitlines() if line.strip()]
            raise LitGenError(f"sbatch refuses the array: {'; '.join(said) or f'exit {done.returncode}'}")
        submission.job = done.stdout.strip().split(";")[0]
        self._write()
        for number, cell in enumerate(cells, start=1):
            self.attempts[cell.name] = self.attempts.get(cell.name, 0) + 1
            self.unseen[cell.name] = 0
            self.tell(cell, f"-> task {submission.job}_{number}, {cell.run.path}")

    def _task(self, cell: Cell) -> str | None:
        """The newest task of a cell; None where it has none.

        Raises:
            LitGenError: only SLURM knows, and does not answer.
        """
        for submission in reversed(self.submissions):
            if place(cell) in submission.cells:
                if not submission.job:  # killed between the two: SLURM knows it by its name
                    found = _ask("squeue", "--noheader", "--format=%A", f"--name={submission.name}")
                    if found is None:
                        raise LitGenError(
                            f"squeue does not answer, and only it knows whether {submission.name} was submitted"
                        )
                    submission.job = found.split()[0] if found.split() else "unknown"
                return f"{submission.job}_{submission.cells.index(place(cell)) + 1}"
        return None

    def _alive(self) -> set[str] | None:
        """The tasks that wait or run; None where SLURM does not answer."""
        names = ",".join(submission.name for submission in self.submissions)
        listed = _ask("squeue", "--noheader", "--array", "--format=%F_%K", f"--name={names}")
        return None if listed is None else set(listed.split())

    def _log(self, task: str | None) -> Path | None:
        job, _, number = (task or "").rpartition("_")
        for submission in self.submissions:
            if submission.job == job:
                file = self.storage.folder / "logs" / f"{submission.name}-{number}.out"
                return file if file.is_file() else None
        return None


def place(cell: Cell) -> str:
    """What a submission knows a cell by: another configuration has another run directory."""
    return f"{cell.name}/{cell.run.run_id}"


def _ask(*words: str) -> str | None:
    """What a command of SLURM's prints; None where it fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return None if done.returncode else done.stdout
