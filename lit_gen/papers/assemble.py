"""Puts records together: what each row measured, its verdicts, and comparisons on the same test items."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from lit_gen.core.run_dir import RunDir
from lit_gen.papers.cell import Cell
from lit_gen.papers.output.numbers import duration
from lit_gen.papers.records import Records, translations
from lit_gen.papers.report import CellReport, Entry, RowReport, TableReport, Within
from lit_gen.papers.statistics import Comparison, Summary, paired_bleu, paired_difference, summary
from lit_gen.papers.status import State, Status, status
from lit_gen.papers.table import Column, Pairing, PaperTable, Row
from lit_gen.papers.verdicts import verdict


def assemble(table: PaperTable, cells: Sequence[Cell], records: Records, fetch: bool = False) -> TableReport:
    """The table as it stands.

    Args:
        table: from its file.
        cells: that belong to it.
        records: of the table.
        fetch: see :func:`status`.
    """
    states = {cell: status(cell, records, fetch) for cell in cells}
    quick = any(cell.options.quick for cell in cells)
    return build(table, states, records, quick)


def build(table: PaperTable, states: Mapping[Cell, Status], records: Records, quick: bool = False) -> TableReport:
    """The table of cells in known states; only runs that are done count."""
    done = {cell: found.record for cell, found in states.items() if found.state is State.DONE}
    values = {column.key: {row.key: _values(row, column, done) for row in table.rows} for column in table.columns}
    summaries = {
        key: {row: summary(list(found.values())) for row, found in rows.items() if found}
        for key, rows in values.items()
    }
    rows = []
    for row in table.rows:
        own = {cell: found for cell, found in states.items() if cell.row is row}
        if not own:
            continue
        reports = tuple(
            CellReport(cell.seed, found.state.value, found.reason, done.get(cell), _picture(cell, found, records))
            for cell, found in own.items()
        )
        entries = {
            column.key: _entry(table, row, column, values[column.key], summaries[column.key], own, quick)
            for column in table.columns
        }
        rows.append(RowReport(row, reports, entries))
    known = () if quick else records.comparisons({record["key"] for record in done.values()})
    comparisons = tuple(found for _, found in known)
    return TableReport(table, tuple(rows), comparisons, quick)


def _values(row: Row, column: Column, done: Mapping[Cell, dict]) -> dict[int, float]:
    found = {cell.seed: record["run"]["metrics"].get(column.metric) for cell, record in done.items() if cell.row is row}
    return {seed: value * column.scale for seed, value in found.items() if value is not None}


def _entry(
    table: PaperTable, row: Row, column: Column, values: Mapping[str, dict[int, float]],
    summaries: Mapping[str, Summary], own: Mapping[Cell, Status], quick: bool,
) -> Entry:  # fmt: skip
    errors = [found.record["within"].get(column.key) for found in own.values() if found.state is State.DONE]
    errors = [error * column.scale for error in errors if error is not None]
    within = Within(sum(errors) / len(errors), column.error_kind) if errors else None
    return Entry(
        column, row.paper.get(column.key), values[row.key], summaries.get(row.key), within,
        verdict(table, row, column, summaries, quick, not_run(own)),
    )  # fmt: skip


def not_run(own: Mapping[Cell, Status]) -> str:
    """Why a row has no value."""
    found = next((found for found in own.values() if found.state is not State.DONE), None)
    if found is None:
        return "its runs did not measure this"
    if found.state in (State.FAILED, State.BLOCKED, State.CORRUPT, State.CHANGED):
        return found.reason if found.state is State.BLOCKED else f"{found.state.value}: {found.reason}"
    if found.state is State.INTERRUPTED:
        return "interrupted, the same command continues it"
    return f"no run yet, about {duration(60 * next(iter(own)).row.minutes)} a cell"


def _picture(cell: Cell, found: Status, records: Records) -> bytes | None:
    return records.picture(cell.name) if found.state is State.DONE else None


# ---------------------------------------------------------------- comparisons


def compare(table: PaperTable, cells: Sequence[Cell], records: Records) -> None:
    """Compares each row with the baseline on the same test items, where both runs lie here, and writes that down.

    Two runs are compared that have the same seed, the first that both have: what is drawn for a test (a binarisation, say) is
    then the same too. Comparisons of runs that do not lie here stay as they are recorded.
    """
    if table.pairing is None:
        return
    done = [cell for cell in cells if status(cell, records, fetch=True).state is State.DONE]
    base = {cell.seed: cell for cell in done if cell.row.key == table.pairing.baseline}
    known = {found.row: (keys, found) for keys, found in records.comparisons({cell.key for cell in done})}
    for row in dict.fromkeys(cell.row.key for cell in done if cell.row.key != table.pairing.baseline):
        pair = next(((cell, base[cell.seed]) for cell in done if cell.row.key == row and cell.seed in base), None)
        if pair is not None and (found := _compared(table.pairing, *pair)) is not None:
            known[row] = [cell.key for cell in pair], found
    if known:
        records.write_comparisons(known[row.key] for row in table.rows if row.key in known)


def _compared(pairing: Pairing, cell: Cell, base: Cell) -> Comparison | None:
    if pairing.examples is not None:
        items = [_examples(run, pairing.examples) for run in (cell.run, base.run)]
        if None in items or len(items[0]) != len(items[1]):
            return None
        difference, error, p = paired_difference(*items)
        method = f"paired t-test over test examples, seed {cell.seed}"
        return Comparison(cell.row.key, base.row.key, pairing.column, difference, error, p, len(items[0]), method)
    texts = [translations(run) for run in (cell.run, base.run)]
    if None in texts or texts[0].references != texts[1].references:
        return None
    hypotheses = [text.hypotheses for text in texts]
    own, other, p = paired_bleu(*hypotheses, texts[0].references, pairing.translations)
    method = f"sacreBLEU's paired approximate randomisation, seed {cell.seed}"
    return Comparison(cell.row.key, base.row.key, pairing.column, own - other, None, p, len(hypotheses[0]), method)


def _examples(run: RunDir, name: str) -> list[float] | None:
    try:
        return json.loads(run.examples.read_text(encoding="utf-8"))[name]
    except (OSError, ValueError, KeyError):
        return None
