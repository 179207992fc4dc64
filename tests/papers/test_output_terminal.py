"""The table in a terminal: widths, colours, no colours, no other characters than ASCII."""

from __future__ import annotations

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from lit_gen.papers.output.terminal import print_table
from tests.papers.reports import REPORTS


def printed(name: str, width: int, **options) -> str:
    console = Console(file=io.StringIO(), width=width, **options)
    print_table(REPORTS[name](), console)
    return console.file.getvalue()


def row_of(text: str, start: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return line


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("name", REPORTS)
def test_nothing_is_wider_than_the_console(name: str, width: int) -> None:
    text = printed(name, width)
    assert max(map(cell_len, text.splitlines())) <= width
    report = REPORTS[name]()
    flat = " ".join(text.split())
    for row in report.rows:
        assert " ".join(row.row.name.split()).replace("+-", "±").replace(" -3", " −3") in flat
        for entry in row.entries.values():
            if entry.paper:
                assert entry.verdict.kind.value in flat


def test_columns_are_aligned_and_have_the_numbers_of_the_summary() -> None:
    report = REPORTS["three seeds"]()
    summary = report.rows[0].entries["blocks"].summary
    ours = f"{summary.mean:.4f} ± {summary.std:.4f}"
    for width in (80, 140):
        text = printed("three seeds", width)
        line = row_of(text, "  random blocks (nats)       1.88")
        assert ours in line
        assert line.endswith("reproduced")
        lines = [line for line in text.splitlines() if line.startswith("  ") and line.strip()]
        verdicts = {re.search(r"(verdict|reproduced|not run|–)$", line).start() for line in lines}
        assert len(verdicts) == 1, lines
    low, high = summary.mean - summary.half_width, summary.mean + summary.half_width
    assert f"[{low:.4f}, {high:.4f}]    ± 0.0044 a" in printed("three seeds", 140)
    assert "[" not in printed("three seeds", 80), "no room for it"
    assert "[34.1, 46.9]" in row_of(printed("some seeds", 80), "MM-GAN  ")


def test_reasons_comparisons_and_unfinished_seeds_follow() -> None:
    text = printed("one seed", 140)
    assert "RBM, PCD-1, −log p, reverse AIS: not comparable: no other row to compare the order with" in text
    assert "RBM, CD-3 minus RBM, CD-1, −log p, AIS (nats): −25.21 ± 0.12, p < 0.0001 (paired t-test" in text
    assert "‡  paper's value: from memory, not checked at the source" in text
    assert "MM-GAN: seed 2 missing" in printed("some seeds", 80)
    assert "tiny budgets" in printed("quick", 80)


def test_verdicts_are_coloured_and_the_words_are_the_same_without_colours() -> None:
    colours = {"reproduced": 32, "trend only": 36, "not reproduced": 31, "not run": 2, "not comparable": 2}
    seen = set()
    for name in REPORTS:
        coloured = printed(name, 140, force_terminal=True, color_system="standard", _environ={})
        for kind, code in colours.items():
            if f"\x1b[{code}m{kind}" in coloured:
                seen.add(kind)
        assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == printed(name, 140)
    assert seen == set(colours)


def test_a_terminal_of_ascii_gets_ascii() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_table(REPORTS["special"](), Console(file=file, width=140))
    print_table(REPORTS["some seeds"](), Console(file=file, width=80))
    file.flush()
    text = file.buffer.getvalue().decode("ascii")
    assert re.search(r"MM-GAN +29\.6 \+- 1\.6 a\* +40\.5 \+- 0\.7  2", text)
