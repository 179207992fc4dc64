"""A report in a terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from lit_gen.papers.output import numbers, words
from lit_gen.papers.output.words import NOTHING, Marks
from lit_gen.papers.report import Entry, TableReport
from lit_gen.papers.verdicts import Kind

STYLES = {
    Kind.REPRODUCED: "green", Kind.TREND: "cyan", Kind.NOT_REPRODUCED: "red", Kind.NOT_COMPARABLE: "dim",
    Kind.NOT_RUN: "dim", Kind.QUICK: "dim",
}  # fmt: skip
HEAD = ("", "paper", "ours", "n", "95 % interval", "within a run", "verdict")
INTERVAL, WITHIN, VERDICT = 4, 5, 6
GAP = 2


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Args:
        cells: as many as are shown; or one, the name of a row above its quantities.
        style: of the last cell.
    """

    cells: tuple[str, ...]
    style: str = ""

    @property
    def is_name(self) -> bool:
        return len(self.cells) == 1


def print_table(report: TableReport, console: Console) -> None:
    """Prints the table, and below it why each verdict is what it is, comparisons, and what the marks mean.

    Where the console is too narrow, names of rows get lines of their own, then errors within runs and intervals go.

    Args:
        report: of the table.
        console: where to print; its width decides the layout.
    """
    table, plain = report.table, console.options.ascii_only

    def tell(*parts: str | tuple[str, str]) -> None:
        styled = [(part, "") if isinstance(part, str) else part for part in parts]
        texts = [(numbers.ascii_only(text) if plain else text, style) for text, style in styled]
        console.print(Text.assemble(*texts))

    tell((numbers.typographic(table.title), "bold"))
    tell((numbers.typographic(f"{table.citation}: {table.table}"), "dim"))
    if report.quick:
        tell((words.QUICK, "yellow"))
    tell()
    lines, marks = fitting(report, console.width, plain)
    for line in lines:
        *first, last = line.cells
        tell(("".join(first), "") if first else "", (last, "bold" if line.is_name else line.style))
    tell()
    for which, verdict in words.reasons(report):
        why = f": {numbers.typographic(verdict.reason)}" if verdict.reason else ""
        tell(numbers.typographic(which), ": ", (verdict.kind.value, STYLES[verdict.kind]), why)
    for row in report.rows:
        for state in words.unfinished(row) if any(entry.summary for entry in row.entries.values()) else ():
            tell(f"{numbers.typographic(row.row.name)}: ", (numbers.typographic(state), "yellow"))
    for one in words.comparisons(report):
        which = numbers.typographic(f"{one.row} minus {one.baseline}, {one.column}:")
        tell(f"{which} {one.difference}, p {one.p}", (f" ({numbers.typographic(one.method)}, {one.n} items)", "dim"))
    tell((f"ours: {words.SEEDS}", "dim"))
    for mark, text in marks.legend():
        tell((f"{mark or 'no sign'}  {text}", "dim"))


def fitting(report: TableReport, width: int, ascii_only: bool = False) -> tuple[list[Line], Marks]:
    """The lines of the first layout that fits into the console, with its marks; in the last one names are cut."""
    several = len(report.table.columns) > 1
    for dropped in ((), (WITHIN,), (WITHIN, INTERVAL)):
        marks = Marks.of(report, within=WITHIN not in dropped)
        for grouped in (True,) if several else (False, True):
            lines = _lines(report, marks, grouped)
            if ascii_only:
                lines = [replace(line, cells=tuple(map(numbers.ascii_only, line.cells))) for line in lines]
            lines = _aligned(lines, dropped)
            excess = max(sum(map(cell_len, line.cells)) for line in lines if not line.is_name) - width
            if excess <= 0:
                return lines, marks
    return [line if line.is_name else _cut(line, excess) for line in lines], marks


def _lines(report: TableReport, marks: Marks, grouped: bool) -> list[Line]:
    lines = [Line(HEAD)]
    for row in report.rows:
        if grouped:
            lines.append(Line((numbers.typographic(row.row.name),)))
        for entry in words.entries_told(row):
            first = f"  {words.heading(entry.column)}" if grouped else row.row.name
            kind = entry.verdict.kind if words.has_verdict(entry) else Kind.NOT_COMPARABLE
            lines.append(Line((_indented(first), *_cells(entry, marks)), STYLES[kind]))
    return lines


def _cells(entry: Entry, marks: Marks) -> tuple[str, ...]:
    paper, within, summary = NOTHING, "", entry.summary
    if entry.paper:
        value, error = numbers.printed(entry.paper)
        mark = marks.beside(entry.paper)
        paper = f"{value}{f' ± {error}' if error else ''}{f' {mark}' if mark else ''}"
    if entry.within:
        within = f"± {numbers.shown(entry.within.value, entry.column)} {marks.letters.get(entry.within.kind, '')}"
    ours, n, interval = NOTHING, "0", ""
    if summary:
        ours, n = numbers.mean_and_deviation(summary, entry.column), str(summary.n)
        interval = numbers.interval(summary, entry.column)
    return paper, ours, n, interval, within, entry.verdict.kind.value if words.has_verdict(entry) else NOTHING


def _aligned(lines: Sequence[Line], dropped: Collection[int]) -> list[Line]:
    """Columns below each other, without those that are dropped or empty."""
    whole = [line for line in lines if not line.is_name]
    kept = [n for n in range(len(HEAD)) if n not in dropped and any(line.cells[n] for line in whole[1:])]
    wide = {n: max(cell_len(line.cells[n]) for line in whole) for n in kept}
    return [
        line if line.is_name else replace(line, cells=tuple(_padded(line.cells[n], wide[n], n) for n in kept))
        for line in lines
    ]


def _padded(text: str, width: int, number: int) -> str:
    space = " " * (width - cell_len(text))
    if number == 0:
        return text + space
    return " " * GAP + (text if number == VERDICT else space + text)


def _cut(line: Line, excess: int) -> Line:
    first, *rest = line.cells
    cut = set_cell_size(first, max(1, cell_len(first) - excess))
    return replace(line, cells=(cut, *rest))


def _indented(text: str) -> str:
    return " " * (len(text) - len(text.lstrip())) + numbers.typographic(text)
