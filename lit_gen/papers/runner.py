"""Runs cells here, several at a time, so that nothing is lost or done twice whenever this process is killed.

A cell is worked on under a lease that other processes see; its run is a child that dies with this process; what the run had
saved by then is continued by the next command; and a record is written whole or not at all.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lit_gen.core.errors import LitGenError, first_line
from lit_gen.core.run_dir import RunDir
from lit_gen.jobs import child
from lit_gen.jobs.lease import Lease, Leases
from lit_gen.jobs.metrics_file import MetricsFile
from lit_gen.jobs.mutex import Mutex
from lit_gen.jobs.process import end_leftovers
from lit_gen.jobs.stop_signal import StopSignal
from lit_gen.papers.cell import Cell
from lit_gen.papers.records import CorruptRecord, Records
from lit_gen.papers.status import State, note_failure, status

POLL_SECONDS = 0.2
PAUSE_SECONDS = 2.0
"""Between two looks at cells that other processes have."""

Tell = Callable[[Cell, str], None]
"""Called with what happened to a cell."""


@dataclass
class Work:
    """A cell in hand.

    Args:
        cell: the cell.
        lease: the right to work on it.
        process: the run.
        slot: its place among those that run at a time.
        printed: length of its log when it began.
        started: by the monotonic clock.
        attempts: runs started so far.
        metrics: what the run has logged.
    """

    cell: Cell
    lease: Lease
    process: subprocess.Popen
    slot: int
    printed: int
    started: float = field(default_factory=time.monotonic)
    attempts: int = 1
    metrics: MetricsFile = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = MetricsFile(self.cell.run.metrics)


class Storage:
    """The folder in which a table's cells are run, shared by any number of processes.

    Args:
        folder: holds the run directories, logs, leases and the lock.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.mutex = Mutex(folder / "lock")
        self.leases = Leases(folder / "leases")

    def log(self, cell: Cell) -> Path:
        """Where the run prints to."""
        return self.folder / "logs" / f"{cell.name}.log"

    def take(self, cell: Cell) -> Lease | None:
        """The right to work on a cell; None where another process that lives has it."""
        with self.mutex:
            return self.leases.take(cell.name) if self.leases.is_free(cell.name) else None


class Runner:
    """Runs cells until each is done, failed, or left because of a signal.

    Args:
        storage: where.
        records: of the table.
        jobs: runs at a time.
        stop: says that a signal has come.
        tell: called with what happens.
    """

    def __init__(self, storage: Storage, records: Records, jobs: int, stop: StopSignal, tell: Tell) -> None:
        self.storage, self.records, self.jobs, self.stop, self.tell = storage, records, jobs, stop, tell
        self.devices = devices()
        self.working: list[Work] = []
        self._pause_until = 0.0

    def run(self, cells: Iterable[Cell], each: Callable[[], None] = lambda: None) -> None:
        """Works through the cells in order; ``each`` is called at every turn of the loop."""
        waiting = list(cells)
        try:
            while (waiting and not self.stop()) or self.working:
                if self.stop():
                    self._hand_back()
                    return
                waiting = self._begin_some(waiting)
                time.sleep(POLL_SECONDS)
                each()
                for work in list(self.working):
                    if work.process.poll() is not None:
                        self._ended(work)
        finally:
            for work in self.working:
                child.stop(work.process, signal.SIGKILL)
                work.lease.release()

    def _begin_some(self, waiting: list[Cell]) -> list[Cell]:
        """Starts as many as there are free places; returns those that still wait."""
        if len(self.working) == self.jobs or time.monotonic() < self._pause_until:
            return waiting
        left = [cell for cell in waiting if len(self.working) == self.jobs or not self._begin(cell)]
        if len(self.working) < self.jobs:  # the others are in the hands of other processes
            self._pause_until = time.monotonic() + PAUSE_SECONDS
        return left

    # ---------------------------------------------------------------- one cell

    def _begin(self, cell: Cell) -> bool:
        """Starts a cell; False where another process works on it, which may yet leave it."""
        lease = self.storage.take(cell)
        if lease is None:
            return False
        try:
            if not status(cell, self.records, fetch=True).state.runs:  # another process has run it meanwhile
                collect(cell, self.records, self.tell)
                lease.release()
                return True
            reject(cell.run)  # one that could be read would have made the cell a finished one
            note_failure(cell, "")
            slot = next(number for number in range(self.jobs) if all(work.slot != number for work in self.working))
            continued = cell.run.config.is_file()
            log = self.storage.log(cell)
            printed = log.stat().st_size if log.exists() else 0
            self.working.append(Work(cell, lease, self._start(cell, slot), slot, printed))
        except BaseException:
            lease.release()
            raise
        self.tell(cell, f"{'continues in' if continued else '->'} {cell.run.path}")
        return True

    def _start(self, cell: Cell, slot: int) -> subprocess.Popen:
        end_leftovers(child.MARK, str(cell.run.path))
        gpu = {"CUDA_VISIBLE_DEVICES": self.devices[slot % len(self.devices)]} if self.devices else {}
        return child.start(run_words(cell), cell.run, self.storage.log(cell), gpu)

    def _ended(self, work: Work) -> None:
        """Writes down what came of a run, or starts it again where the system killed it."""
        cell, code = work.cell, work.process.returncode
        if code != 0 and child.stopped_by_signal(code) and work.attempts < child.ATTEMPTS:
            self.tell(cell, f"was ended by a signal (exit code {code}) and is continued")
            work.attempts, work.process = work.attempts + 1, self._start(cell, work.slot)
            return
        self.working.remove(work)
        try:
            if work.lease.lost:
                self.tell(cell, "was taken over by another process")
            elif code == 0:
                collect(cell, self.records, self.tell)
            else:
                reason = child.last_line(self.storage.log(cell), work.printed) or f"exit code {code}"
                note_failure(cell, reason)
                self.tell(cell, f"failed: {reason}")
        finally:
            work.lease.release()

    def _hand_back(self) -> None:
        """Asks all runs to save and to stop."""
        for work in self.working:
            if work.process.poll() is None:
                work.process.send_signal(signal.SIGTERM)
        for work in list(self.working):
            child.stop(work.process, signal.SIGTERM)
            if work.process.returncode == 0:
                self._ended(work)
            else:
                self.working.remove(work)
                work.lease.release()


def collect(cell: Cell, records: Records, tell: Tell) -> None:
    """Makes the record of a finished run, where there is none yet; says so."""
    if status(cell, records, fetch=True).state is State.DONE:
        return
    try:
        record = records.collect(cell)
    except CorruptRecord as error:
        tell(cell, f"{error}; it will be run again")
    except LitGenError as error:
        note_failure(cell, first_line(error))
        reject(cell.run)
        tell(cell, f"failed: {first_line(error)}")
    else:
        tell(cell, f"done: {values(cell, record)}")


def values(cell: Cell, record: dict) -> str:
    """The measured values of a record on one line."""
    metrics = record["run"]["metrics"]
    found = ((column, metrics.get(column.metric)) for column in cell.table.columns)
    shown = (
        f"{c.metric.rpartition('/')[2]} {value * c.scale:.{c.decimals}f}" for c, value in found if value is not None
    )
    return ", ".join(shown)


def run_words(cell: Cell) -> list[str]:
    """What stands after ``lit-gen`` to begin a cell's run, or to continue it."""
    if cell.run.config.is_file():
        return ["run", "--resume", str(cell.run.path), *cell.options.words]
    return ["run", *cell.words, *cell.place_words]


def reject(run: RunDir) -> None:
    """Puts a result.json aside, so that the run goes through its test again."""
    if run.result.exists():
        os.replace(run.result, run.result.with_suffix(".rejected"))


def devices() -> list[str]:
    """The GPUs of this machine, each for one run at a time; none where there is none."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    found = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(found))]
