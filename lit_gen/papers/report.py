"""A table as it stands: the paper's values, ours, verdicts and comparisons. What all outputs are written from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lit_gen.papers.statistics import Comparison, Summary
from lit_gen.papers.table import Column, PaperTable, PaperValue, Row
from lit_gen.papers.verdicts import Verdict


@dataclass(frozen=True)
class Within:
    """The error inside one run, which is no variance over seeds.

    Args:
        value: in the column's shown unit; the mean over the seeds' runs.
        kind: of :data:`lit_gen.papers.table.ERROR_KINDS`.
    """

    value: float
    kind: str


@dataclass(frozen=True)
class Entry:
    """One row in one column.

    Args:
        column: of the table.
        paper: what was printed, or None.
        values: ours by seed, in the shown unit.
        summary: of the values; None where there is none.
        within: the error within a run, or None.
        verdict: by the row's rule.
    """

    column: Column
    paper: PaperValue | None
    values: dict[int, float]
    summary: Summary | None
    within: Within | None
    verdict: Verdict


@dataclass(frozen=True)
class CellReport:
    """One run behind a row.

    Args:
        seed: of the run.
        state: done, missing, interrupted, failed, blocked, changed or corrupt.
        reason: why it is in that state; "" where that says itself.
        record: what ``results/`` holds of it (see ``records.py``), or None.
        picture: PNG bytes of its last sample grid, or None.
    """

    seed: int
    state: str
    reason: str
    record: dict[str, Any] | None
    picture: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class RowReport:
    """A row.

    Args:
        row: of the table.
        cells: its runs.
        entries: by column key, in the table's order.
    """

    row: Row
    cells: tuple[CellReport, ...]
    entries: dict[str, Entry]


@dataclass(frozen=True)
class TableReport:
    """A whole table.

    Args:
        table: the table file.
        rows: in the table's order.
        comparisons: with the baseline on the same test items.
        quick: the runs had tiny budgets.
    """

    table: PaperTable
    rows: tuple[RowReport, ...]
    comparisons: tuple[Comparison, ...]
    quick: bool = False
