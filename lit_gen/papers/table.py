"""What a paper's table is: columns, rows, the paper's values, and the rule of each verdict, all declared in advance."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

ERROR_KINDS = {
    "seed_std": "standard deviation over seeds",
    "seed_ci95": "95 % interval over seeds",
    "example_stderr": "standard error over test examples",
    "example_2stderr": "two standard errors over test examples",
    "split_std": "standard deviation over splits of one run's samples, no variance over seeds",
    "bootstrap_ci95": "95 % interval by bootstrap over test examples",
    "block_stderr": "standard error over random batches of one run",
    "unstated": "of a kind that is not stated",
}
"""What a +- may be."""

TRUST = {
    "verified": "read at the source",
    "second_hand": "a second-hand transcription",
    "unverified": "from memory, not checked at the source",
}
"""How far a paper's value can be trusted."""

ESTIMATOR, BOOTSTRAP = "estimator", "bootstrap"
"""Errors within a run that are no metric: the one that the estimator states, and BLEU's over the test sentences."""

PROTOCOLS = ("same", "part", "other")
RULES = {
    "interval": "the paper's value lies in our 95 % interval over seeds, widened by the paper's +- and the tolerance",
    "at_least": "as the interval, or better than the paper",
    "trend": "only the order of the rows is compared, as far as our seeds separate them",
    "none": "not compared",
}


@dataclass(frozen=True)
class Column:
    """A measured quantity.

    Args:
        key: in the file.
        title: above the column.
        metric: its name in ``result.json``.
        unit: e.g. nats; "" for none.
        higher: whether more is better.
        decimals: shown.
        scale: factor from the logged to the shown value, e.g. 100 for a share in per cent.
        tolerance: by how much a value may miss the paper's (in the shown unit).
        error: the error within one run: the name of a metric; "estimator" for the standard error that the metric's estimator
            states; "bootstrap" for BLEU over the test sentences; or None.
        error_kind: what it is, of :data:`ERROR_KINDS`.
    """

    key: str
    title: str
    metric: str
    unit: str
    higher: bool
    decimals: int
    scale: float
    tolerance: float
    error: str | None
    error_kind: str | None


@dataclass(frozen=True)
class PaperValue:
    """What the paper printed.

    Args:
        value: in the column's shown unit.
        error: its +-, or None.
        error_kind: what that is, of :data:`ERROR_KINDS`.
        trust: of :data:`TRUST`.
    """

    value: float
    error: float | None
    error_kind: str | None
    trust: str


@dataclass(frozen=True)
class Row:
    """A row of the table: one experiment under several seeds.

    Args:
        key: in the file.
        name: as the paper calls it.
        config: path of the experiment's configuration.
        overrides: by dotted key.
        quick: further overrides of ``--quick``.
        seeds: of its cells.
        minutes: estimated cost of a cell on two CPU cores.
        paper: the paper's values by column.
        protocol: "same", "part" (the order of rows can be compared) or "other".
        differs: from the paper's protocol; "" for nothing.
        rule: of :data:`RULES`.
        tolerance: by column; see :class:`Column`.
        experiment: content of the configuration with the overrides.
    """

    key: str
    name: str
    config: Path
    overrides: dict[str, Any]
    quick: dict[str, Any]
    seeds: tuple[int, ...]
    minutes: float
    paper: dict[str, PaperValue]
    protocol: str
    differs: str
    rule: str
    tolerance: dict[str, float]
    experiment: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Need:
    """What a table cannot be run without and no run can make by itself.

    Args:
        what: for people.
        file: a path, in which ``{root}`` and ``{inception}`` stand for the options of the command.
    """

    what: str
    file: str


@dataclass(frozen=True)
class Pairing:
    """How rows are compared on the same test examples.

    Args:
        column: what is compared.
        baseline: the row with which the others are compared.
        examples: name of the values per example, or None.
        translations: sacreBLEU's tokeniser for a comparison of translations, or None.
    """

    column: str
    baseline: str
    examples: str | None
    translations: str | None


@dataclass(frozen=True)
class PaperTable:
    """A table file.

    Args:
        path: of the file; its stem is the table's key.
        title, citation, link, table: of the paper, and which of its tables.
        notes: what a reader must know.
        columns, rows: in the file's order.
        data: content hash that the data of a class path must have.
        needs: files without which nothing can run.
        pairing: the paired comparison, or None.
        quick: overrides of ``--quick`` for all rows.
    """

    path: Path
    title: str
    citation: str
    link: str
    table: str
    notes: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    data: dict[str, str]
    needs: tuple[Need, ...]
    pairing: Pairing | None
    quick: dict[str, Any]

    @property
    def key(self) -> str:
        return self.path.stem

    @cached_property
    def row(self) -> dict[str, Row]:
        return {row.key: row for row in self.rows}

    @cached_property
    def column(self) -> dict[str, Column]:
        return {column.key: column for column in self.columns}
