"""A report for machines: CSV with a line for each row, column and seed; JSON with everything."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from lit_gen.papers.output import numbers
from lit_gen.papers.output.words import run_of
from lit_gen.papers.report import CellReport, Entry, RowReport, TableReport

HEADER = (
    "table", "row", "row_name", "column", "column_title", "metric", "unit", "direction",
    "paper", "paper_error", "paper_error_kind", "paper_trust", "protocol", "differs", "rule", "tolerance",
    "seed", "state", "state_reason", "value", "value_error", "value_error_kind",
    "n", "mean", "std", "low", "high", "within", "within_kind", "verdict", "reason", "quick",
    "epochs", "updates", "train_seconds", "device", "commit", "dirty", "key", "command",
)  # fmt: skip
"""Columns of the CSV. ``value`` is of the line's seed, ``value_error`` the error within its run, and ``n`` to ``high``
are of all seeds of the row; all of them in the column's unit. Empty where unknown."""

PAIR = re.compile(r"\[\n\s*(-?[\d.e+-]+),\n\s*(-?[\d.e+-]+|null)\n\s*\]")


def csv_text(report: TableReport) -> str:
    """All values with full precision, one line for each row, column and seed; the first line names the columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, HEADER, lineterminator="\n")
    writer.writeheader()
    for row in report.rows:
        for entry in row.entries.values():
            for cell in row.cells or (None,):
                line = {**_of_entry(report, row, entry), **(_of_cell(cell, entry) if cell else {})}
                writer.writerow({name: _csv_value(value) for name, value in line.items()})
    return text.getvalue()


def json_text(report: TableReport) -> str:
    """The report as JSON, with the records of its runs; numbers that are not finite are null.

    A sample grid stands as the SHA-256 of its file.
    """
    table = report.table
    content = {
        "format": 1,
        "table": {
            "key": table.key, "title": table.title, "citation": table.citation, "link": table.link,
            "table": table.table, "notes": table.notes, "columns": [_fields(column) for column in table.columns],
            "data": table.data, "needs": [_fields(need) for need in table.needs],
            "pairing": table.pairing and _fields(table.pairing), "quick": table.quick,
        },
        "quick": report.quick,
        "rows": [
            {
                **{name: value for name, value in _fields(row.row).items() if name != "paper"},
                "entries": {key: _entry(entry) for key, entry in row.entries.items()},
                "cells": [_cell(cell) for cell in row.cells],
            }
            for row in report.rows
        ],
        "comparisons": [_fields(comparison) for comparison in report.comparisons],
    }  # fmt: skip
    text = json.dumps(_plain(content), indent=1, allow_nan=False, ensure_ascii=False)
    return PAIR.sub(r"[\1, \2]", text) + "\n"  # the points of curves, in one line each


# ---------------------------------------------------------------- CSV


def _of_entry(report: TableReport, row: RowReport, entry: Entry) -> dict[str, Any]:
    column, paper, summary, within = entry.column, entry.paper, entry.summary, entry.within
    low, high = (summary and numbers.bounds(summary)) or (None, None)
    return {
        "table": report.table.key, "row": row.row.key, "row_name": row.row.name, "column": column.key,
        "column_title": column.title, "metric": column.metric, "unit": column.unit,
        "direction": "higher" if column.higher else "lower",
        "paper": paper and paper.value, "paper_error": paper and paper.error,
        "paper_error_kind": paper and paper.error_kind, "paper_trust": paper and paper.trust,
        "protocol": row.row.protocol, "differs": row.row.differs, "rule": row.row.rule,
        "tolerance": row.row.tolerance.get(column.key),
        "n": summary.n if summary else 0, "mean": summary and summary.mean, "std": summary and summary.std,
        "low": low, "high": high, "within": within and within.value, "within_kind": within and within.kind,
        "verdict": entry.verdict.kind.value, "reason": entry.verdict.reason, "quick": report.quick,
    }  # fmt: skip


def _of_cell(cell: CellReport, entry: Entry) -> dict[str, Any]:
    run, record = run_of(cell), cell.record or {}
    git, seconds = run.get("git") or {}, run.get("seconds") or {}
    error = (record.get("within") or {}).get(entry.column.key)
    return {
        "seed": cell.seed, "state": cell.state, "state_reason": cell.reason, "value": entry.values.get(cell.seed),
        "value_error": None if error is None else error * entry.column.scale,
        "value_error_kind": None if error is None else entry.column.error_kind,
        "epochs": run.get("epochs"), "updates": run.get("steps"), "train_seconds": seconds.get("train"),
        "device": run.get("device"), "commit": git.get("commit"), "dirty": git.get("dirty"),
        "key": record.get("key"), "command": record.get("command"),
    }  # fmt: skip


def _csv_value(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if isinstance(value, float) and not math.isfinite(value) else value


# ---------------------------------------------------------------- JSON


def _entry(entry: Entry) -> dict[str, Any]:
    summary = entry.summary
    low, high = (summary and numbers.bounds(summary)) or (None, None)
    return {
        "paper": entry.paper and _fields(entry.paper),
        "values": entry.values,
        "summary": summary and {**_fields(summary), "low": low, "high": high},
        "within": entry.within and _fields(entry.within),
        "verdict": {"kind": entry.verdict.kind.value, "reason": entry.verdict.reason},
    }


def _cell(cell: CellReport) -> dict[str, Any]:
    picture = None if cell.picture is None else hashlib.sha256(cell.picture).hexdigest()
    return {
        "seed": cell.seed,
        "state": cell.state,
        "reason": cell.reason,
        "picture_sha256": picture,
        "record": cell.record,
    }


def _fields(of: Any) -> dict[str, Any]:
    """Of a dataclass, in their order."""
    return {field.name: getattr(of, field.name) for field in fields(of)}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return list(_items(value))
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _items(values: list | tuple) -> Iterator[Any]:
    for value in values:
        yield _plain(value)
