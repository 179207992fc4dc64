"""Numbers and words that all outputs share."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lit_gen.papers.output import numbers, words
from lit_gen.papers.statistics import Summary, summary
from lit_gen.papers.table import Column, PaperValue
from tests.papers.reports import REPORTS, ROOT


def column(decimals: int) -> Column:
    return Column("x", "x", "test/x", "", True, decimals, 1.0, 0.0, None, None)


def test_ours_have_the_decimals_of_the_column() -> None:
    assert numbers.shown(1.88, column(4)) == "1.8800"
    assert numbers.shown(-3.14159, column(2)) == "−3.14"
    assert numbers.shown(3.14159, column(2), signed=True) == "+3.14"
    assert numbers.shown(-0.004, column(2)) == "0.00"
    assert numbers.shown(float("nan"), column(2)) == "not finite"
    seeds = summary([1.0, 2.0, 3.0])
    assert numbers.mean_and_deviation(seeds, column(1)) == "2.0 ± 1.0"
    # the quantile of Student's t with two degrees of freedom is 4.3027
    assert numbers.interval(seeds, column(3)) == f"[{2 - 4.3027 / 3**0.5:.3f}, {2 + 4.3027 / 3**0.5:.3f}]".replace(
        "-", "−"
    )
    assert numbers.mean_and_deviation(Summary(1, 2.0, None, None), column(1)) == "2.0"
    assert numbers.interval(Summary(1, 2.0, None, None), column(1)) == ""


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        (1.88, None, ("1.88", None)), (1677.0, 452.0, ("1677", "452")), (93.0, 6.5, ("93.0", "6.5")),
        (20.3, 5.0, ("20.3", "5.0")), (21.7, 0.21, ("21.70", "0.21")), (-1.5, None, ("−1.5", None)),
    ],
)  # fmt: skip
def test_the_papers_values_are_neither_rounded_nor_given_digits(value, error, expected) -> None:
    assert numbers.printed(PaperValue(value, error, error and "seed_std", "verified")) == expected


def test_other_numbers() -> None:
    assert [numbers.p_value(p) for p in (0.0, 3e-200, 0.00011, 0.5)] == ["< 0.0001", "< 0.0001", "= 0.0001", "= 0.5000"]
    assert [numbers.span(v) for v in ([], [2000], [2000, 2000.2], [3, 1, 2])] == ["", "2,000", "2,000", "1–3"]
    assert [numbers.duration(s) for s in (46.3, 896.6, 7200, 200_000)] == ["46.3 s", "15 min", "2.0 h", "55.6 h"]


def test_only_hyphens_that_are_minus_signs_become_some() -> None:
    text = "IS 11.24 +- .12,\n -log p of -3 and -.5, CD-1, 2e-5, well-known, --name=-1, [-1, 2]"
    assert (
        numbers.typographic(text) == "IS 11.24 ± .12, −log p of −3 and −.5, CD-1, 2e-5, well-known, --name=−1, [−1, 2]"
    )
    assert numbers.ascii_only("−1 ± 2 – “é”") == "-1 +- 2 - ???"


def test_the_legend_explains_every_mark_beside_the_papers_values() -> None:
    for make in REPORTS.values():
        report = make()
        marks = words.Marks.of(report)
        explained = {mark for mark, _ in marks.legend()}
        papers = [entry.paper for row in report.rows for entry in row.entries.values() if entry.paper]
        assert all(set(marks.beside(paper)) <= explained for paper in papers)
        within = [entry.within for row in report.rows for entry in row.entries.values() if entry.within]
        assert all(marks.letters[error.kind] in explained for error in within)
        assert len(explained) == len(marks.legend())


def test_reasons_name_quantities_only_where_verdicts_differ() -> None:
    found = {which: str(verdict) for which, verdict in words.reasons(REPORTS["one seed"]())}
    assert found["RBM, CD-1"].startswith("trend only")
    assert found["RBM, PCD-1, -log p, reverse AIS"].startswith("not comparable")
    blocked = words.reasons(REPORTS["nothing run"]())
    assert [which.count(";") for which, _ in blocked] == [5], "six rows, one reason"


def test_importing_the_outputs_imports_neither_torch_nor_lightning_nor_wandb() -> None:
    names = "markdown, latex, data, terminal, html, wandb"
    code = f"from lit_gen.papers.output import {names}; import sys; print(*{{n.split('.')[0] for n in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"torch", "pytorch_lightning", "wandb", "scipy", "matplotlib"} & set(done.stdout.split())
