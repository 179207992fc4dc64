"""Verdicts by rule: what may be said of our values beside the paper's. The rules and tolerances stand in the table file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from lit_gen.papers.statistics import Summary, separated
from lit_gen.papers.table import Column, PaperTable, PaperValue, Row


class Kind(str, Enum):
    """All that a verdict can be."""

    REPRODUCED = "reproduced"
    TREND = "trend only"
    NOT_REPRODUCED = "not reproduced"
    NOT_COMPARABLE = "not comparable"
    NOT_RUN = "not run"
    QUICK = "not run at the paper's budget"


@dataclass(frozen=True)
class Verdict:
    """A verdict and why.

    Args:
        kind: the verdict.
        reason: one line.
    """

    kind: Kind
    reason: str

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.reason}" if self.reason else self.kind.value


def verdict(
    table: PaperTable, row: Row, column: Column, measured: Mapping[str, Summary], quick: bool = False, not_run: str = ""
) -> Verdict:
    """What the rule of a row says of one of its columns.

    A row of the paper's own protocol is reproduced where its rule's interval holds. Otherwise, and for a row whose protocol
    is partly another, the order is looked at: for each other row with a value of the paper and one of ours, both
    differences must have the same sign, unless the paper's own difference is within the +- of its two values. Rows that our
    seeds do not separate have no order.

    Args:
        table: of the row.
        row: of the table.
        column: of the table.
        measured: our values in this column by row, in the shown unit; without a row that has not been run.
        quick: the runs had tiny budgets.
        not_run: why the row has no value, where it has none.
    """
    paper = row.paper.get(column.key)
    if quick:
        return Verdict(Kind.QUICK, "")
    if row.key not in measured:
        return Verdict(Kind.NOT_RUN, not_run)
    if paper is None:
        return Verdict(Kind.NOT_COMPARABLE, "the paper has no value")
    if row.rule == "none":
        return Verdict(Kind.NOT_COMPARABLE, row.differs or "not compared")
    ours, missed = measured[row.key], ""
    if row.rule in ("interval", "at_least"):
        gap, allowed = ours.mean - paper.value, allowance(ours, paper, row.tolerance[column.key])
        said = f"{_signed(gap, column)} from the paper, {_plain(allowed, column)} allowed"
        better = row.rule == "at_least" and (gap > 0) == column.higher
        if abs(gap) <= allowed or math.isclose(abs(gap), allowed) or better:
            return Verdict(Kind.REPRODUCED, said)
        missed = f"{said}; "
    agree, reversed_, close = order(table, row, column, measured)
    if not agree and not reversed_:
        if missed:
            return Verdict(Kind.NOT_REPRODUCED, missed.removesuffix("; "))
        if close:
            return Verdict(Kind.NOT_COMPARABLE, f"our seeds do not separate it from {'; '.join(close)}")
        return Verdict(Kind.NOT_COMPARABLE, "no other row to compare the order with")
    if reversed_:
        return Verdict(Kind.NOT_REPRODUCED, f"{missed}order reversed with {'; '.join(reversed_)}")
    return Verdict(Kind.TREND, f"{missed}order as in the paper with {'; '.join(agree)}")


def allowance(ours: Summary, paper: PaperValue, tolerance: float) -> float:
    """How far our mean may be from the paper's value: our interval, widened by the paper's own +- and the tolerance."""
    return (ours.half_width or 0.0) + (paper.error or 0.0) + tolerance


def order(
    table: PaperTable, row: Row, column: Column, measured: Mapping[str, Summary]
) -> tuple[list[str], list[str], list[str]]:
    """Names of the rows that stand to ``row`` as in the paper, of those in reverse, of those that our seeds do not separate."""
    agree, reversed_, close = [], [], []
    own, ours = row.paper[column.key], measured[row.key]
    for other in table.rows:
        theirs = other.paper.get(column.key)
        if other.key == row.key or other.key not in measured or theirs is None or other.rule == "none":
            continue
        gap = own.value - theirs.value
        if abs(gap) <= (own.error or 0.0) + (theirs.error or 0.0):
            continue  # the paper itself does not separate the two
        if not separated(ours, measured[other.key]):
            close.append(other.name)
        elif gap * (ours.mean - measured[other.key].mean) > 0:
            agree.append(other.name)
        else:
            reversed_.append(other.name)
    return agree, reversed_, close


def _plain(value: float, column: Column) -> str:
    return f"{value:.{column.decimals}f}"


def _signed(value: float, column: Column) -> str:
    return f"{value:+.{column.decimals}f}"
