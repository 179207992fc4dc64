"""Markdown: cells, their numbers, what is said of rows without values."""

from __future__ import annotations

import re

import pytest

from lit_gen.papers.output.markdown import escaped, long_table, short_table
from tests.papers.reports import NASTY, REPORTS


def grids(text: str) -> list[list[list[str]]]:
    """The tables of a text as cells, escaped bars within them."""
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("| "):
            found[-1].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif found[-1]:
            found.append([])
    return [grid for grid in found if grid]


@pytest.mark.parametrize("name", REPORTS)
def test_every_line_of_a_table_has_as_many_cells_as_its_head(name: str) -> None:
    report = REPORTS[name]()
    for text in (long_table(report), short_table(report)):
        for grid in grids(text):
            assert set(map(len, grid)) == {len(grid[0])}
            assert set(grid[1]) == {"---"}
    (short,) = grids(short_table(report))
    assert len(short) == len(report.rows) + 2


def test_numbers_of_three_seeds_are_those_of_the_summary() -> None:
    report = REPORTS["three seeds"]()
    values, runs = grids(long_table(report))
    entry = report.rows[0].entries["blocks"]
    summary = entry.summary
    low, high = summary.mean - summary.half_width, summary.mean + summary.half_width
    assert values[2] == [
        "GPT, 4 layers, 128 wide, block 64", "random blocks (nats) ↓", "1.88",
        f"{summary.mean:.4f} ± {summary.std:.4f}", "3", f"[{low:.4f}, {high:.4f}]", "± 0.0044 <sup>a</sup>",
        f"**reproduced**: {entry.verdict.reason}",
    ]  # fmt: skip
    assert values[5][2:5] == ["1.4697", "–", "0"]
    assert values[5][-1] == "**not run**: no run yet, about 33.3 hours a cell"
    assert values[6][3:7] == ["1.9512", "1", "–", "–"], "one seed has neither deviation nor interval"
    assert runs[2][3:7] == ["2 / 2,000–2,002", "897–899", "cpu", "`012345678`<br>`012345678 + changes`"]
    assert "tolerance of 0.015 nats" in runs[2][2]
    assert runs[3][-1].startswith("seed 0 missing")


def test_one_seed_keeps_its_error_apart_from_seeds_and_comparisons_follow() -> None:
    values, _, compared = grids(long_table(REPORTS["one seed"]()))
    assert values[2][2:7] == ["125.53 <sup>‡</sup>", "150.26", "1", "–", "± 0.27 <sup>a</sup>"]
    assert compared[2] == [
        "RBM, CD-3", "RBM, CD-1", "−log p, AIS (nats)", "−25.21 ± 0.12", "p &lt; 0.0001", "10,000",
        "paired t-test over test examples",
    ]  # fmt: skip
    assert compared[3][3:5] == ["−60.62", "p = 0.0123"]
    text = long_table(REPORTS["one seed"]())
    for said in (
        "± standard error over test examples",
        "from memory, not checked",
        "a second-hand",
        "read at the source",
    ):
        assert said in text


def test_the_short_table_has_a_line_for_a_row_and_the_columns_of_the_paper() -> None:
    (grid,) = grids(short_table(REPORTS["three seeds"]()))
    assert grid[0] == [
        "random blocks (nats), paper" if n == 1 else name for n, name in enumerate(("row", "", "ours (n)", "verdict"))
    ]
    assert [line[1:] for line in grid[2:]] == [
        ["1.88", "1.8995 ± 0.0063 (3)", "reproduced"],
        ["1.4697", "–", "not run"],
        ["–", "1.9512 (1), full pass", "–"],
    ]
    (several,) = grids(short_table(REPORTS["one seed"]()))
    assert several[0][3:] == [
        "−log p, AIS, verdict", "−log p, reverse AIS (nats), paper", "−log p, reverse AIS, ours (n)",
        "−log p, reverse AIS, verdict",
    ]  # fmt: skip
    assert several[4][1:] == ["86.34 <sup>†</sup>", "–", "not run", "–", "–", "–"]


def test_what_was_not_finished_is_said() -> None:
    _, runs = grids(long_table(REPORTS["some seeds"]()))
    assert all(line[-1] == "seeds 0, 1 done<br>seed 2 missing" for line in runs[2:])
    assert "tiny budgets" in long_table(REPORTS["quick"]())
    assert "tiny budgets" not in long_table(REPORTS["three seeds"]())


def test_nothing_in_a_text_is_markdown() -> None:
    text = escaped(NASTY)
    assert re.sub(r"\\(.)", r"\1", text).replace("&lt;", "<") == NASTY.replace("+-", "±").replace("-3", "−3")
    for special in "|<*`[]$~":
        assert not re.search(rf"(?<!\\){re.escape(special)}", text)
    assert escaped("a_b &amp; _c_") == r"a_b \&amp; \_c\_"
    assert '<https://example.org/?a=1&b="%3Cx%3E">' in long_table(REPORTS["special"]())
