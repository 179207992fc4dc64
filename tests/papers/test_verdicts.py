"""Each rule of a verdict, and that a paper's value changed by more than its tolerance flips it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lit_gen.papers.statistics import Summary, summary
from lit_gen.papers.table import PaperTable
from lit_gen.papers.table_file import read_table
from lit_gen.papers.verdicts import Kind, Verdict, verdict
from tests.papers.conftest import TOY, write_toy


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PaperTable:
    monkeypatch.chdir(tmp_path)
    return read_table(write_toy(tmp_path))


def judged(table: PaperTable, measured: dict[str, Summary], row: str = "a", **changes) -> Verdict:
    """The verdict on a row whose fields (or, for ``value`` and ``error``, whose paper's value) are changed."""
    found = table.row[row]
    value = replace(found.paper["loss"], **{k: changes.pop(k) for k in ("value", "error") if k in changes})
    found = replace(found, **{"paper": {"loss": value}, **changes})
    table = replace(table, rows=tuple(found if each.key == row else each for each in table.rows))
    return verdict(table, found, table.columns[0], measured)


def one(value: float) -> Summary:
    return summary([value])


@pytest.mark.parametrize(("value", "kind"), [(0.25, Kind.REPRODUCED), (0.26, Kind.REPRODUCED), (0.24, Kind.REPRODUCED),
                                             (0.2611, Kind.NOT_REPRODUCED), (0.2389, Kind.NOT_REPRODUCED)])  # fmt: skip
def test_interval_with_one_seed_is_the_tolerance(table: PaperTable, value: float, kind: Kind) -> None:
    assert judged(table, {"a": one(0.25)}, value=value).kind is kind


def test_changing_the_paper_by_more_than_the_tolerance_flips(table: PaperTable) -> None:
    paper, tolerance = TOY["rows"]["a"]["paper"]["loss"]["value"], TOY["columns"]["loss"]["tolerance"]
    measured = {"a": one(paper)}
    assert judged(table, measured).kind is Kind.REPRODUCED
    for change in (1.01 * tolerance, -1.01 * tolerance):
        assert judged(table, measured, value=paper + change).kind is Kind.NOT_REPRODUCED
    for change in (0.99 * tolerance, -0.99 * tolerance):
        assert judged(table, measured, value=paper + change).kind is Kind.REPRODUCED


def test_interval_over_seeds_and_the_papers_own_error_widen(table: PaperTable) -> None:
    seeds = summary([0.24, 0.25, 0.26])  # half width 0.0248
    assert judged(table, {"a": seeds}, value=0.284).kind is Kind.REPRODUCED
    assert judged(table, {"a": seeds}, value=0.286).kind is Kind.NOT_REPRODUCED
    assert judged(table, {"a": seeds}, value=0.286, error=0.01).kind is Kind.REPRODUCED
    assert "+0.000" not in judged(table, {"a": seeds}, value=0.284).reason


def test_at_least_takes_what_is_better(table: PaperTable) -> None:
    assert judged(table, {"a": one(0.1)}, rule="interval").kind is Kind.NOT_REPRODUCED
    assert judged(table, {"a": one(0.1)}, rule="at_least").kind is Kind.REPRODUCED
    assert judged(table, {"a": one(0.4)}, rule="at_least").kind is Kind.NOT_REPRODUCED
    higher = replace(table, columns=(replace(table.columns[0], higher=True),))
    assert judged(higher, {"a": one(0.4)}, rule="at_least").kind is Kind.REPRODUCED
    assert judged(higher, {"a": one(0.1)}, rule="at_least").kind is Kind.NOT_REPRODUCED


def test_a_missed_interval_with_the_right_order_is_a_trend(table: PaperTable) -> None:
    found = judged(table, {"a": one(0.4), "b": one(0.6)})
    assert found.kind is Kind.TREND
    assert found.reason == "+0.150 from the paper, 0.010 allowed; order as in the paper with B"
    assert judged(table, {"a": one(0.6), "b": one(0.4)}).kind is Kind.NOT_REPRODUCED


def test_trend_looks_at_the_order_alone(table: PaperTable) -> None:
    right, wrong = {"a": one(10), "b": one(20)}, {"a": one(20), "b": one(10)}
    assert judged(table, right, "b").kind is Kind.TREND
    assert judged(table, wrong, "b") == Verdict(Kind.NOT_REPRODUCED, "order reversed with A")
    assert judged(table, {"b": one(20)}, "b").kind is Kind.NOT_COMPARABLE
    # however near b is to the paper, another protocol is never reproduced
    assert judged(table, {"a": one(0.25), "b": one(0.7)}, "b").kind is Kind.TREND


def test_rows_that_our_seeds_do_not_separate_have_no_order(table: PaperTable) -> None:
    near = {"a": summary([1.0, 3.0, 5.0]), "b": summary([1.1, 3.2, 5.1])}
    for row in ("a", "b"):
        found = judged(table, near, row, rule="trend")
        assert found == Verdict(Kind.NOT_COMPARABLE, f"our seeds do not separate it from {'B' if row == 'a' else 'A'}")
    far = {"a": summary([1.0, 1.1, 0.9]), "b": summary([5.0, 5.1, 4.9])}
    assert judged(table, far, "b").kind is Kind.TREND
    assert judged(table, {"a": far["b"], "b": far["a"]}, "b").kind is Kind.NOT_REPRODUCED
    assert judged(table, {"a": one(1.0), "b": summary([0.5, 5.0])}, "b").kind is Kind.TREND, "one seed has no spread"


def test_rows_that_the_paper_does_not_separate_have_no_order(table: PaperTable) -> None:
    measured = {"a": one(0.9), "b": one(0.6)}
    assert judged(table, measured, "b").kind is Kind.NOT_REPRODUCED
    assert judged(table, measured, "b", error=0.5).kind is Kind.NOT_COMPARABLE


def test_what_is_not_compared(table: PaperTable) -> None:
    measured = {"a": one(0.25), "b": one(0.7)}
    assert judged(table, measured, "b", rule="none") == Verdict(Kind.NOT_COMPARABLE, "the seed")
    row = replace(table.row["a"], paper={})
    assert verdict(table, row, table.columns[0], measured) == Verdict(Kind.NOT_COMPARABLE, "the paper has no value")


def test_not_run_says_why_and_quick_never_says_more(table: PaperTable) -> None:
    row, column = table.row["a"], table.columns[0]
    assert verdict(table, row, column, {}, not_run="no CIFAR-10") == Verdict(Kind.NOT_RUN, "no CIFAR-10")
    for rule in ("interval", "at_least", "trend", "none"):
        found = verdict(table, replace(row, rule=rule), column, {"a": one(0.25)}, quick=True)
        assert found == Verdict(Kind.QUICK, "")
