"""What the page says behind a row: its protocol, values by seed, curves, samples, and all that repeats its runs."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from html import escape
from typing import Any

import yaml

from lit_gen.papers.output import numbers, words
from lit_gen.papers.output.svg import chart, sample
from lit_gen.papers.output.words import NOTHING, Marks, run_of
from lit_gen.papers.report import CellReport, Entry, RowReport
from lit_gen.papers.verdicts import Kind

SIGNS = {Kind.REPRODUCED: "✓", Kind.TREND: "≈", Kind.NOT_REPRODUCED: "✕", Kind.NOT_COMPARABLE: "·", Kind.NOT_RUN: "○",
         Kind.QUICK: "○"}  # fmt: skip
PROTOCOL = {"same": "yes", "part": "in part: the order of the rows can be compared", "other": "no"}
PNG = b"\x89PNG\r\n\x1a\n"


def escaped(text: str) -> str:
    """A text for people."""
    return escape(numbers.typographic(text))


def badge(kind: Kind, text: str = "") -> str:
    """A verdict."""
    return (
        f'<span class="badge {"-".join(kind.value.split()[:2])}"><span aria-hidden="true">{SIGNS[kind]}</span>'
        f"{escape(text or kind.value)}</span>"
    )


def raised(mark: str) -> str:
    """A mark of the legend."""
    return f"<sup>{mark}</sup>" if mark else ""


def paper_cell(entry: Entry, marks: Marks) -> str:
    """What the paper printed."""
    if entry.paper is None:
        return NOTHING
    value, error = numbers.printed(entry.paper)
    text = escaped(f"{value} ± {error}" if error else value)
    return f'<span class="number">{text}{raised(marks.beside(entry.paper))}</span>'


def row_details(row: RowReport, marks: Marks) -> str:
    """Everything behind a row, folded."""
    entries = words.entries_told(row)
    badges = "".join(badge(entry.verdict.kind) for entry in entries if words.has_verdict(entry))
    return (
        f'<details class="row card"><summary><h3>{escaped(row.row.name)}</h3>{badges}</summary>'
        f'<div class="inside" id="row-{row.row.key}">'
        + _protocol(row)
        + _seeds(row, entries, marks)
        + _curves(row)
        + _pictures(row)
        + "<h4>Runs</h4>"
        + "".join(_run(cell) for cell in row.cells)
        + "</div></details>"
    )


# ---------------------------------------------------------------- what was decided in advance


def _protocol(row: RowReport) -> str:
    compared = [entry for entry in row.entries.values() if entry.paper] or list(row.entries.values())[:1]
    rules: dict[str, list[str]] = {}
    for entry in compared:
        rules.setdefault(words.rule_in_words(row.row, entry.column), []).append(entry.column.title)
    told = [(f"{', '.join(titles)}: " if len(rules) > 1 else "") + rule for rule, titles in rules.items()]
    terms = [
        ("as the paper’s", PROTOCOL[row.row.protocol]),
        ("what differs", escaped(row.row.differs)),
        ("rule", "<br>".join(map(escaped, told))),
        ("configuration", f"<code>{escape(row.row.config.as_posix())}</code>"),
        ("estimated cost", f"{escape(numbers.duration(60 * row.row.minutes))} a run on two CPU cores"),
    ]
    return f"<h4>Protocol</h4>{_terms(terms)}"


def _seeds(row: RowReport, entries: Sequence[Entry], marks: Marks) -> str:
    cells = [cell for cell in row.cells if any(cell.seed in entry.values for entry in entries)]
    if not cells:
        return ""
    shown = [entry for entry in entries if entry.values]
    head = "".join(f'<th scope="col">{escaped(words.heading(entry.column))}</th>' for entry in shown)
    lines = "".join(
        f'<tr><th scope="row">{cell.seed}</th>{"".join(_value(cell, entry, marks) for entry in shown)}</tr>'
        for cell in cells
    )
    return (
        '<h4>Values by seed</h4><div class="scroll"><table class="plain"><thead><tr><th scope="col">seed</th>'
        f"{head}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _value(cell: CellReport, entry: Entry, marks: Marks) -> str:
    if cell.seed not in entry.values:
        return f"<td>{NOTHING}</td>"
    text = escaped(numbers.shown(entry.values[cell.seed], entry.column))
    error = ((cell.record or {}).get("within") or {}).get(entry.column.key)
    if error is not None and entry.column.error_kind in marks.letters:
        text += f" ± {numbers.shown(error * entry.column.scale, entry.column)}"
        text += raised(marks.letters[entry.column.error_kind])
    return f'<td class="number">{text}</td>'


# ---------------------------------------------------------------- pictures


def _curves(row: RowReport) -> str:
    cells = [cell for cell in row.cells if (cell.record or {}).get("curves")]
    names = dict.fromkeys(name for cell in cells for name in cell.record["curves"])
    figures = []
    for number, name in enumerate(sorted(names, key=lambda name: (not name.startswith("val/"), name))):
        series = {
            f"seed {cell.seed}": [tuple(point) for point in cell.record["curves"].get(name, ()) if None not in point]
            for cell in cells
        }
        drawing = chart(series, f"{row.row.name}: {name} in training", name, f"curve-{row.row.key}-{number}")
        if drawing:
            keys = "".join(f"<li>{sample(place)}{escape(seed)}</li>" for place, seed in enumerate(series))
            figures.append(f'<figure>{drawing}<figcaption><ul class="keys">{keys}</ul></figcaption></figure>')
    return f'<h4>Learning curves</h4><div class="figures">{"".join(figures)}</div>' if figures else ""


def _pictures(row: RowReport) -> str:
    figures = [
        f'<figure><img src="data:image/png;base64,{base64.b64encode(cell.picture).decode()}"{_size(cell.picture)}'
        f' alt="Sample grid of {escaped(row.row.name)}, seed {cell.seed}">'
        f"<figcaption>seed {cell.seed}</figcaption></figure>"
        for cell in row.cells
        if cell.picture is not None
    ]
    return f'<h4>Samples</h4><div class="figures">{"".join(figures)}</div>' if figures else ""


def _size(picture: bytes) -> str:
    """Width and height, so that nothing moves while the page is drawn."""
    if not picture.startswith(PNG) or len(picture) < 24:
        return ""
    width, height = struct.unpack(">II", picture[16:24])
    return f' width="{width}" height="{height}"'


# ---------------------------------------------------------------- runs


def _run(cell: CellReport) -> str:
    state = f"{cell.state}{f': {cell.reason}' if cell.reason else ''}"
    if cell.record is None:
        return f'<div class="run"><h5>Seed {cell.seed}</h5><p class="soft">{escaped(state)}</p></div>'
    record, run = cell.record, run_of(cell)
    config = yaml.safe_dump(record.get("config") or {}, sort_keys=False, allow_unicode=True, width=110)
    said = "" if cell.state == "done" else f'<p class="soft">{escaped(state)}</p>'
    return (
        f'<div class="run"><h5>Seed {cell.seed}</h5>{said}'
        f'<pre class="command">{escape(str(record.get("command") or "unknown"))}</pre>'
        f"{_terms(_provenance(record, run))}"
        f"<details><summary>Configuration of seed {cell.seed}</summary>"
        f'<pre class="config" tabindex="0" aria-label="Configuration of seed {cell.seed}">{escape(config)}</pre>'
        "</details></div>"
    )


def _provenance(record: dict[str, Any], run: dict[str, Any]) -> list[tuple[str, str]]:
    seconds, parameters = run.get("seconds") or {}, (run.get("parameters") or {}).get("total")
    names = (("train", "training"), ("evaluation_in_training", "evaluation in training"), ("test", "test"))
    times = [f"{numbers.duration(seconds[key])} {name}" for key, name in names if seconds.get(key) is not None]
    device = [words.device_of(run)]
    device += [
        f"{run[key]} {word}" for key, word in (("threads", "threads"), ("precision", "precision")) if run.get(key)
    ]
    counted = [(key, word) for key, word in (("epochs", "epochs"), ("steps", "updates")) if run.get(key) is not None]
    budget = [f"{numbers.count(run[key])} {word}" for key, word in counted]
    versions = ", ".join(f"{name} {version}" for name, version in (run.get("versions") or {}).items())
    hashes = [f"{name} {record[key]}" for key, name in HASHES if record.get(key)]
    return [
        ("commit", f"<code>{escape(words.commit_of(run, 40))}</code>"),
        ("budget", escape(", ".join(budget))),
        ("time", escape(", ".join(times))),
        ("device", escape(", ".join(device).replace("1 threads", "1 thread"))),
        ("parameters", escape(numbers.count(parameters)) if parameters is not None else ""),
        ("versions", escape(versions)),
        ("hashes", f"<code>{escape(', '.join(hashes))}</code>" if hashes else ""),
    ]


HASHES = (("key", "cell"), ("config_hash", "configuration"), ("code", "code"), ("data_hash", "data"))


def _terms(terms: Sequence[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{term}</dt><dd>{content}</dd>" for term, content in terms if content) + "</dl>"
