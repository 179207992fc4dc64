"""Words that the outputs share: headings, the marks beside the paper's values, and where our values come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lit_gen.papers.output import numbers
from lit_gen.papers.report import CellReport, Entry, RowReport, TableReport
from lit_gen.papers.table import ERROR_KINDS, RULES, TRUST, Column, PaperValue, Row
from lit_gen.papers.verdicts import Verdict

NOTHING = "–"
QUICK = "Quick runs at tiny budgets: they prove that every row runs, and their values say nothing else."
SEEDS = "mean ± sample standard deviation over n seeds; the interval is the t-based 95 % interval of the mean"
TRUST_MARKS = {"verified": "", "second_hand": "†", "unverified": "‡"}


def heading(column: Column) -> str:
    """What is measured, and in what."""
    return f"{column.title} ({column.unit})" if column.unit else column.title


def direction(column: Column) -> str:
    """Which values are better."""
    return "higher is better" if column.higher else "lower is better"


def compared_columns(report: TableReport) -> list[Column]:
    """The columns in which the paper has values; all where it has none."""
    found = [column for column in report.table.columns if any(row.entries[column.key].paper for row in report.rows)]
    return found or list(report.table.columns)


def entries_told(row: RowReport) -> list[Entry]:
    """The columns of a row that say something: those with a value of the paper or of ours, else the first."""
    entries = list(row.entries.values())
    return [entry for entry in entries if entry.paper or entry.summary] or entries[:1]


def has_verdict(entry: Entry) -> bool:
    """Whether there is something to judge, or nothing to be seen."""
    return entry.paper is not None or entry.summary is None


def reasons(report: TableReport) -> list[tuple[str, Verdict]]:
    """Which rows (and quantities, where a row has several verdicts) have which verdict; equal ones together."""
    places: dict[Verdict, list[str]] = {}
    for row in report.rows:
        own: dict[Verdict, list[str]] = {}
        for entry in entries_told(row):
            if has_verdict(entry):
                own.setdefault(entry.verdict, []).append(entry.column.title)
        for verdict, titles in own.items():
            several = len(own) > 1
            name = f"{row.row.name}, {' and '.join(titles)}" if several else row.row.name
            places.setdefault(verdict, []).append(name)
    return [("; ".join(names), verdict) for verdict, names in places.items()]


def rule_in_words(row: Row, column: Column) -> str:
    """The row's rule with its tolerance."""
    text = RULES[row.rule]
    if row.rule not in ("interval", "at_least"):
        return text
    return f"{text} of {row.tolerance[column.key]:g}{f' {column.unit}' if column.unit else ''}"


@dataclass(frozen=True)
class Marks:
    """Signs for how far a value can be trusted, and letters for what each +- is.

    Args:
        letters: by the error kinds that the report has.
        trusts: of the paper's values in it.
    """

    letters: dict[str, str]
    trusts: tuple[str, ...]

    @classmethod
    def of(cls, report: TableReport, within: bool = True) -> "Marks":
        """Those of a report, with or without the errors within its runs."""
        entries = [entry for row in report.rows for entry in row.entries.values()]
        papers = [entry.paper for entry in entries if entry.paper]
        kinds = {paper.error_kind for paper in papers}
        kinds |= {entry.within.kind for entry in entries if entry.within and within}
        letters = {kind: chr(ord("a") + number) for number, kind in enumerate(k for k in ERROR_KINDS if k in kinds)}
        return cls(letters, tuple(trust for trust in TRUST if any(paper.trust == trust for paper in papers)))

    def beside(self, paper: PaperValue) -> str:
        """What stands beside a value of the paper."""
        return self.letters.get(paper.error_kind or "", "") + TRUST_MARKS[paper.trust]

    def legend(self) -> list[tuple[str, str]]:
        """Each mark with what it says; the mark is "" for values that have none."""
        kinds = [(letter, f"± {ERROR_KINDS[kind]}") for kind, letter in self.letters.items()]
        return kinds + [(TRUST_MARKS[trust], f"paper's value: {TRUST[trust]}") for trust in self.trusts]


# ---------------------------------------------------------------- runs


def run_of(cell: CellReport) -> dict[str, Any]:
    """``result.json`` of a cell's run; empty where there is none."""
    return (cell.record or {}).get("run") or {}


def commit_of(run: dict[str, Any], digits: int = 9) -> str:
    """The commit of a run, marked where the code had changes beside it."""
    git = run.get("git") or {}
    return f"{(git.get('commit') or 'unknown')[:digits]}{' + changes' if git.get('dirty') else ''}"


def device_of(run: dict[str, Any]) -> str:
    """The device of a run."""
    world = run.get("world_size") or 1
    return f"{run.get('device') or 'unknown'}{f' × {world}' if world > 1 else ''}"


def distinct(texts: Iterable[str]) -> tuple[str, ...]:
    """All different ones in their order."""
    return tuple(dict.fromkeys(texts))


@dataclass(frozen=True)
class Budget:
    """What the runs of a row took, as texts.

    Args:
        epochs, updates, seconds: of training; the smallest and the largest where seeds differ.
        devices, commits: all different ones.
    """

    epochs: str
    updates: str
    seconds: str
    devices: tuple[str, ...]
    commits: tuple[str, ...]


def budget(row: RowReport) -> Budget | None:
    """The budget of a row's runs; None where there are none."""
    runs = [run for cell in row.cells if (run := run_of(cell))]
    if not runs:
        return None
    return Budget(
        numbers.span(run["epochs"] for run in runs if run.get("epochs") is not None),
        numbers.span(run["steps"] for run in runs if run.get("steps") is not None),
        numbers.span(taken for run in runs if (taken := (run.get("seconds") or {}).get("train")) is not None),
        distinct(device_of(run) for run in runs),
        distinct(commit_of(run) for run in runs),
    )


def unfinished(row: RowReport) -> list[str]:
    """The cells of a row that have no value, and why; cells that say the same in one text."""
    seeds: dict[str, list[int]] = {}
    for cell in row.cells:
        if cell.state != "done":
            seeds.setdefault(f"{cell.state}{f': {cell.reason}' if cell.reason else ''}", []).append(cell.seed)
    return [
        f"seed{'s' if len(own) > 1 else ''} {', '.join(map(str, own))} {state}" for state, own in seeds.items()
    ]  # fmt: skip


# ---------------------------------------------------------------- comparisons


@dataclass(frozen=True)
class Compared:
    """A paired comparison as texts.

    Args:
        row, baseline: names of the rows.
        column: what is compared.
        difference: row minus baseline, with its standard error.
        p: p value with its sign of relation.
        n: test items.
        method: of the test.
    """

    row: str
    baseline: str
    column: str
    difference: str
    p: str
    n: str
    method: str


def comparisons(report: TableReport) -> list[Compared]:
    """All comparisons of a report."""
    table, found = report.table, []
    for one in report.comparisons:
        column = table.column[one.column]
        error = "" if one.error is None else f" ± {numbers.shown(one.error, column)}"
        found.append(Compared(
            table.row[one.row].name, table.row[one.baseline].name, heading(column),
            numbers.shown(one.difference, column, signed=True) + error, numbers.p_value(one.p), numbers.count(one.n),
            one.method,
        ))  # fmt: skip
    return found
