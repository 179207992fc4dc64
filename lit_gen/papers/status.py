"""What state a cell is in, read from its record and its run directory; nothing is imported that takes seconds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from lit_gen.papers.cell import Cell
from lit_gen.papers.records import CorruptRecord, Records, finished

FAILURE = "failure.txt"
"""In a run directory: why the run failed the last time."""


class State(str, Enum):
    """Of a cell."""

    DONE = "done"
    FINISHED = "finished"
    """Run, but not yet among the records."""
    MISSING = "missing"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    CHANGED = "changed"
    """There is a record of another configuration, of other data or of other code."""
    CORRUPT = "corrupt"
    BLOCKED = "blocked"
    """It cannot be run here."""

    @property
    def runs(self) -> bool:
        """Whether a run is to be started, or continued."""
        return self not in (State.DONE, State.FINISHED, State.BLOCKED)


@dataclass(frozen=True)
class Status:
    """Of a cell.

    Args:
        state: the state.
        reason: why; "" where the state says it.
        record: its record; that of another run where the state is "changed"; None where there is none.
    """

    state: State
    reason: str = ""
    record: dict[str, Any] | None = None


def status(cell: Cell, records: Records, fetch: bool = False) -> Status:
    """The state of a cell.

    Args:
        cell: the cell.
        records: of its table.
        fetch: runs may fetch data and weights that are missing, which then block nothing.
    """
    corrupt, record = "", None
    try:
        record = records.read(cell.name)
    except CorruptRecord as error:
        corrupt = str(error)
    if record is not None and record["key"] == cell.key:
        return Status(State.DONE, record=record)
    try:
        if finished(cell.run) is not None:
            return Status(State.FINISHED, corrupt)
    except CorruptRecord as error:
        corrupt = str(error)
    if not fetch and (missing := cell.missing()):
        return Status(State.BLOCKED, missing, record)
    if corrupt:
        return Status(State.CORRUPT, corrupt)
    if reason := failure(cell):
        return Status(State.FAILED, reason, record)
    if cell.run.config.is_file():
        return Status(State.INTERRUPTED, record=record)
    if record is not None:
        return Status(State.CHANGED, difference(cell, record), record)
    return Status(State.MISSING)


def recorded(cell: Cell, records: Records) -> Status:
    """What the records alone say of a cell, the same on every machine: for tables that are written into documents.

    A record of the same configuration and data is a measurement of this cell, whatever has been changed in the code since; it
    says of which commit it is.

    Raises:
        CorruptRecord: the record cannot be read.
    """
    record = records.read(cell.name)
    if record is not None and not _differs(cell, record, code=False):
        return Status(State.DONE, record=record)
    if cell.table.needs:
        return Status(State.BLOCKED, "no " + ", no ".join(need.what for need in cell.table.needs))
    return Status(State.MISSING)


def failure(cell: Cell) -> str:
    """Why the run failed the last time; "" where it did not."""
    file = cell.run.path / FAILURE
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""


def note_failure(cell: Cell, reason: str) -> None:
    """Writes down why the run failed; "" forgets it."""
    file: Path = cell.run.path / FAILURE
    if reason:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{reason}\n", encoding="utf-8")
    else:
        file.unlink(missing_ok=True)


def difference(cell: Cell, record: dict[str, Any]) -> str:
    """In what a record's run differs from the cell as it is now."""
    return "the record is of another " + " and other ".join(_differs(cell, record))


def _differs(cell: Cell, record: dict[str, Any], code: bool = True) -> list[str]:
    differs = {
        "configuration": record["config_hash"] != cell.config_hash,
        "data": cell.data_hash is not None and record["data_hash"] != cell.data_hash,
        "code": code and record["code"] != cell.code,
    }
    return [name for name, other in differs.items() if other]
