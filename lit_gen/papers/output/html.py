"""A report as one web page that loads nothing: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

from lit_gen.papers.output import numbers, words
from lit_gen.papers.output.html_rows import badge, escaped, paper_cell, raised, row_details
from lit_gen.papers.output.html_style import STYLE
from lit_gen.papers.output.words import NOTHING, Marks
from lit_gen.papers.report import Entry, RowReport, TableReport
from lit_gen.papers.table import Column
from lit_gen.papers.verdicts import Kind

INTERVAL = "95 % interval"
NUMBERS = ("paper", "ours", INTERVAL)
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def html_page(report: TableReport) -> str:
    """The page: the table with its verdicts, and for each row its protocol, values, curves, samples and runs."""
    table, marks = report.table, Marks.of(report)
    sections = [
        _head(report),
        '<section aria-labelledby="results"><h2 id="results">Results</h2>'
        f"{_results(report, marks)}{_legend(marks)}</section>",
        _comparisons(report),
        '<section aria-labelledby="rows"><h2 id="rows">Behind each row</h2>'
        + "".join(row_details(row, marks) for row in report.rows)
        + "</section>",
    ]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{escaped(table.title)}, reproduced</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{"".join(sections)}
<footer>Written by lit-gen from {escape(table.path.name)}. This page loads nothing from the network.</footer>
</main>
</body>
</html>
"""


def _head(report: TableReport) -> str:
    table = report.table
    entries = [entry for row in report.rows for entry in words.entries_told(row) if words.has_verdict(entry)]
    counts = Counter(entry.verdict.kind for entry in entries)
    badges = "".join(f"<li>{badge(kind, f'{counts[kind]} {kind.value}')}</li>" for kind in Kind if counts[kind])
    link = escape(table.link)
    if table.link.startswith(("https://", "http://")):
        link = f'<a href="{link}" rel="noreferrer">{link}</a>'
    return (
        f'<header><p class="over">A paper’s values beside ours</p><h1>{escaped(table.title)}</h1>'
        f'<p class="cite">{escaped(table.citation)}, {link}</p><p class="cite">{escaped(table.table)}</p>'
        + (f'<ul class="counts" aria-label="Verdicts">{badges}</ul>' if badges else "")
        + (f'<p class="warning">{escape(words.QUICK)}</p>' if report.quick else "")
        + '<ul class="notes">' * bool(table.notes)
        + "".join(f"<li>{escaped(note)}</li>" for note in table.notes)
        + "</ul>" * bool(table.notes)
        + "</header>"
    )


# ---------------------------------------------------------------- the table


def _results(report: TableReport, marks: Marks) -> str:
    column, several = report.table.columns[0], len(report.table.columns) > 1
    has_interval = any(
        entry.summary and entry.summary.std is not None for row in report.rows for entry in row.entries.values()
    )
    optional = (["quantity"] if several else [], [INTERVAL] if has_interval else [])
    heads = ["row", *optional[0], "paper", "ours", *optional[1], "verdict"]
    caption = "" if several else f", {words.heading(column)}, {words.direction(column)}"
    head = "".join(
        f'<th scope="col" role="columnheader"{_class("right" if name in NUMBERS else "")}>{name}</th>' for name in heads
    )
    return (
        ("" if several else f'<p class="soft measured">{_quantity(column)}</p>')
        + f'<div class="card scroll results-card"><table class="results" role="table">'
        f'<caption class="hidden">The paper’s values beside ours{escape(caption)}</caption>'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        + "".join(_row(row, marks, heads) for row in report.rows)
        + "</table></div>"
    )


def _row(row: RowReport, marks: Marks, heads: Sequence[str]) -> str:
    entries, lines = words.entries_told(row), []
    for number, entry in enumerate(entries):
        name = (
            f'<th scope="rowgroup" role="rowheader" rowspan="{len(entries)}">'
            f'<a href="#row-{row.row.key}">{escaped(row.row.name)}</a></th>'
        )
        cells = {"quantity": _quantity(entry.column), **_values(entry, marks)}
        line = "".join(_cell(head, cells[head]) for head in heads[1:])
        lines.append(f'<tr role="row">{"" if number else name}{line}</tr>')
    return f'<tbody role="rowgroup">{"".join(lines)}</tbody>'


def _quantity(column: Column) -> str:
    return (
        f'{escaped(words.heading(column))}&nbsp;<span class="soft" title="{words.direction(column)}">'
        f'<span aria-hidden="true">{"↑" if column.higher else "↓"}</span>'
        f'<span class="hidden">, {words.direction(column)}</span></span>'
    )


def _values(entry: Entry, marks: Marks) -> dict[str, str]:
    summary, within = entry.summary, ""
    if entry.within:
        error = f"± {numbers.shown(entry.within.value, entry.column)}{raised(marks.letters[entry.within.kind])}"
        within = f'<span class="small number">within one run {error}</span>'
    ours, interval = NOTHING, NOTHING
    if summary:
        ours = f'<span class="number">{escaped(numbers.mean_and_deviation(summary, entry.column))}</span>'
        ours += f'<span class="small">n = {summary.n}</span>{within}'
        if ends := escaped(numbers.interval(summary, entry.column)):
            interval = f'<span class="number">{ends}</span>'
    verdict = NOTHING
    if words.has_verdict(entry):
        reason = f'<span class="small">{escaped(entry.verdict.reason)}</span>' if entry.verdict.reason else ""
        verdict = badge(entry.verdict.kind) + reason
    return {"paper": paper_cell(entry, marks), "ours": ours, INTERVAL: interval, "verdict": verdict}


def _cell(label: str, content: str) -> str:
    kinds = "right" * (label in NUMBERS) + " empty" * (content == NOTHING)
    return f'<td role="cell" data-label="{escape(label)}"{_class(kinds.strip())}><span>{content}</span></td>'


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _legend(marks: Marks) -> str:
    entries = "".join(
        f"<li><b>{mark or 'no sign'}</b> <span>{escaped(text)}</span></li>" for mark, text in marks.legend()
    )
    return (
        f'<div class="legend"><p>Ours: {escape(words.SEEDS)}. With n = 1 there is no variance over seeds, and an error '
        f"within one run is none either.</p><ul>{entries}</ul></div>"
    )


def _comparisons(report: TableReport) -> str:
    found = words.comparisons(report)
    if not found:
        return ""
    heads = ("row", "minus", "quantity", "difference ± standard error", "p, two-sided", "items", "test")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    lines = "".join(
        f'<tr><th scope="row">{escaped(one.row)}</th><td>{escaped(one.baseline)}</td><td>{escaped(one.column)}</td>'
        f'<td class="number">{one.difference}</td><td class="number">{escape(one.p)}</td>'
        f'<td class="number">{one.n}</td><td>{escaped(one.method)}</td></tr>'
        for one in found
    )
    return (
        '<section aria-labelledby="comparisons"><h2 id="comparisons">Comparisons on the same test items</h2>'
        '<div class="card scroll" tabindex="0" role="region" aria-label="Comparisons">'
        f'<table class="comparisons"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div></section>'
    )
