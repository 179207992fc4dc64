"""A report in Markdown: the long table of the documentation and the short one of the README."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lit_gen.papers.output import numbers, words
from lit_gen.papers.output.words import NOTHING, Marks
from lit_gen.papers.report import Entry, RowReport, TableReport
from lit_gen.papers.table import Column

SPECIAL = re.compile(r"[\\`*\[\]|~$<]|(?<!\w)_|_(?!\w)|&(?=#?\w+;)")


def escaped(text: str) -> str:
    """A text that stands in a cell as it is."""
    return SPECIAL.sub(lambda match: "&lt;" if match[0] == "<" else f"\\{match[0]}", numbers.typographic(text))


def long_table(report: TableReport) -> str:
    """All that a report says but curves and configurations: a line for each row and quantity, protocols and runs."""
    table, marks = report.table, Marks.of(report)
    parts = [
        f"# {escaped(table.title)}",
        f"{escaped(table.citation)}, <{_address(table.link)}>: {escaped(table.table)}.",
        f"**{words.QUICK}**" if report.quick else "",
        "\n".join(f"- {escaped(note)}" for note in table.notes),
        "## Values",
        _values(report, marks),
        _legend(marks),
        "## Protocols and runs",
        _runs(report),
    ]
    if report.comparisons:
        parts += ["## Comparisons on the same test items", _comparisons(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def short_table(report: TableReport) -> str:
    """A line for each row: the paper's value, ours, and the verdict, in the columns in which the paper has values.

    A row that has no value of ours in any of them says what else it measured.
    """
    columns = words.compared_columns(report)
    marks, head, lines = Marks.of(report), ["row"], []
    for column in columns:
        before = f"{escaped(column.title)}, " if len(columns) > 1 else ""
        head += [f"{escaped(words.heading(column))}, paper", f"{before}ours (n)", f"{before}verdict"]
    for row in report.rows:
        cells = [escaped(row.row.name)]
        for column in columns:
            entry = row.entries[column.key]
            is_told = entry in words.entries_told(row)
            verdict = _verdict(entry, reason=False) if is_told else NOTHING
            cells += [_paper(entry, marks), _ours_briefly(row, column, columns), verdict]
        lines.append(cells)
    return _grid(head, lines)


# ---------------------------------------------------------------- parts of the long table


def _values(report: TableReport, marks: Marks) -> str:
    lines = []
    for row in report.rows:
        for number, entry in enumerate(words.entries_told(row)):
            name = "" if number else escaped(row.row.name)
            summary, arrow = entry.summary, "↑" if entry.column.higher else "↓"
            within = (
                f"± {numbers.shown(entry.within.value, entry.column)} {_raised(marks.letters[entry.within.kind])}"
                if entry.within
                else NOTHING
            )
            lines.append([
                name, f"{escaped(words.heading(entry.column))} {arrow}", _paper(entry, marks),
                numbers.mean_and_deviation(summary, entry.column) if summary else NOTHING,
                str(summary.n) if summary else "0",
                (numbers.interval(summary, entry.column) if summary else "") or NOTHING,
                within, _verdict(entry, reason=True),
            ])  # fmt: skip
    head = ["row", "quantity", "paper", "ours", "n", "95 % interval", "within one run", "verdict"]
    return _grid(head, lines)


def _legend(marks: Marks) -> str:
    lines = [
        f"Ours: {words.SEEDS}. With n = 1 there is no variance over seeds. "
        "“Within one run” is the error inside a run (the mean over runs) and no variance over seeds either. "
        "↑ larger, ↓ smaller values are better."
    ]
    lines += [f"{_raised(mark) if mark else 'Without a sign'}: {escaped(text)}." for mark, text in marks.legend()]
    return "  \n".join(lines)


def _runs(report: TableReport) -> str:
    lines = []
    for row in report.rows:
        taken = words.budget(row)
        spent = [NOTHING] * 4
        if taken:
            spent = [f"{taken.epochs or NOTHING} / {taken.updates or NOTHING}", taken.seconds or NOTHING]
            spent += ["<br>".join(map(escaped, taken.devices)), "<br>".join(map(_code, taken.commits))]
        seeds = [cell.seed for cell in row.cells if cell.state == "done"]
        states = (
            [f"seeds {', '.join(map(str, seeds))} done" if len(seeds) > 1 else f"seed {seeds[0]} done"] if seeds else []
        )
        lines.append([
            escaped(row.row.name), escaped(row.row.differs) or "none", _rules(row), *spent,
            "<br>".join(escaped(state) for state in states + words.unfinished(row)),
        ])  # fmt: skip
    head = ["row", "differs from the paper", "rule", "epochs / updates", "training, s", "device", "commit", "runs"]
    return _grid(head, lines)


def _rules(row: RowReport) -> str:
    compared = [entry for entry in row.entries.values() if entry.paper] or list(row.entries.values())[:1]
    rules = {words.rule_in_words(row.row, entry.column): words.heading(entry.column) for entry in compared}
    if len(rules) == 1:
        return escaped(next(iter(rules)))
    return "<br>".join(f"{escaped(title)}: {escaped(rule)}" for rule, title in rules.items())


def _comparisons(report: TableReport) -> str:
    lines = [
        [escaped(one.row), escaped(one.baseline), escaped(one.column), one.difference, f"p {escaped(one.p)}", one.n,
         escaped(one.method)]
        for one in words.comparisons(report)
    ]  # fmt: skip
    head = ["row", "baseline", "quantity", "row − baseline (± standard error)", "p, two-sided", "items", "test"]
    return _grid(head, lines)


# ---------------------------------------------------------------- cells


def _paper(entry: Entry, marks: Marks) -> str:
    if entry.paper is None:
        return NOTHING
    value, error = numbers.printed(entry.paper)
    return f"{value}{f' ± {error}' if error else ''} {_raised(marks.beside(entry.paper))}".strip()


def _ours_briefly(row: RowReport, column: Column, columns: Sequence[Column]) -> str:
    entry, after = row.entries[column.key], ""
    if entry.summary is None and column is columns[0] and not any(row.entries[c.key].summary for c in columns):
        entry = next((other for other in row.entries.values() if other.summary), entry)
        after = f", {escaped(entry.column.title)}"
    if entry.summary is None:
        return NOTHING
    return f"{numbers.mean_and_deviation(entry.summary, entry.column)} ({entry.summary.n}){after}"


def _verdict(entry: Entry, reason: bool) -> str:
    if not words.has_verdict(entry):
        return NOTHING
    kind, why = entry.verdict.kind.value, escaped(entry.verdict.reason)
    return f"**{kind}**: {why}" if reason and why else f"**{kind}**" if reason else kind


def _raised(mark: str) -> str:
    return f"<sup>{mark}</sup>" if mark else ""


def _address(link: str) -> str:
    """An address that stands between angle brackets."""
    for character in "<> ":
        link = link.replace(character, f"%{ord(character):02X}")
    return link


def _code(text: str) -> str:
    return f"`{text}`"


def _grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])
