"""CSV and JSON read back."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics

import pytest

from lit_gen.papers.output.data import HEADER, csv_text, json_text
from tests.papers.reports import COMMIT, NASTY, REPORTS


def lines(name: str) -> list[dict[str, str]]:
    text = csv_text(REPORTS[name]())
    assert text.splitlines()[0] == ",".join(HEADER)
    return list(csv.DictReader(io.StringIO(text), strict=True))


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


@pytest.mark.parametrize("name", REPORTS)
def test_csv_has_a_line_for_each_row_column_and_seed(name: str) -> None:
    report = REPORTS[name]()
    expected = [
        (row.row.key, column.key, str(cell.seed))
        for row in report.rows for column in report.table.columns for cell in row.cells
    ]  # fmt: skip
    assert [(line["row"], line["column"], line["seed"]) for line in lines(name)] == expected
    assert "nan" not in {value for line in lines(name) for value in line.values()}


def test_csv_values_are_exact_and_their_summary_is_that_of_all_seeds() -> None:
    own = [line for line in lines("three seeds") if (line["row"], line["column"]) == ("gpt_cpu", "blocks")]
    values = [float(line["value"]) for line in own]
    assert values == [1.8995123, 1.8931207, 1.9057441]
    for line in own:
        assert int(line["n"]) == 3
        assert float(line["mean"]) == pytest.approx(statistics.mean(values), abs=1e-15)
        assert float(line["std"]) == pytest.approx(statistics.stdev(values), abs=1e-15)
        half = 4.302652729911275 * statistics.stdev(values) / 3**0.5
        assert float(line["high"]) - float(line["mean"]) == pytest.approx(half, abs=1e-12)
        assert (line["paper"], line["paper_trust"], line["verdict"], line["quick"]) == (
            "1.88",
            "verified",
            "reproduced",
            "false",
        )
        assert (line["value_error"], line["value_error_kind"]) == ("0.0044065", "block_stderr")
    assert [line["dirty"] for line in own] == ["false", "true", "false"]
    assert {line["commit"] for line in own} == {COMMIT}
    (absent, *_) = [line for line in lines("three seeds") if line["row"] == "gpt_gpu"]
    empty = ("value", "mean", "std", "low", "high", "within", "epochs", "train_seconds", "commit", "dirty", "command")
    assert {absent[name] for name in empty} == {""}
    assert (absent["n"], absent["state"], absent["verdict"]) == ("0", "missing", "not run")


def test_csv_keeps_texts_and_the_shown_unit() -> None:
    first = lines("special")[0]
    assert (first["row_name"], first["column_title"], first["differs"]) == (NASTY, NASTY, NASTY)
    assert float(first["value"]) == -12.34, "in the unit that is shown"
    assert float(first["value_error"]) == pytest.approx(0.27)
    assert lines("special")[-1]["value"] == "", "not finite"


@pytest.mark.parametrize("name", REPORTS)
def test_json_is_complete_and_reads_back(name: str) -> None:
    report = REPORTS[name]()
    text = json_text(report)
    assert text == json_text(REPORTS[name]()), "the same report gives the same text"
    content = json.loads(text, parse_constant=refuse)
    assert list(content) == ["format", "table", "quick", "rows", "comparisons"]
    assert content["table"]["key"] == report.table.key
    assert content["table"]["notes"] == list(report.table.notes)
    assert [column["metric"] for column in content["table"]["columns"]] == [c.metric for c in report.table.columns]
    assert [one["p"] for one in content["comparisons"]] == [one.p for one in report.comparisons]
    for kept, row in zip(content["rows"], report.rows, strict=True):
        assert (kept["key"], kept["name"], kept["rule"], kept["differs"]) == (
            row.row.key, row.row.name, row.row.rule, row.row.differs
        )  # fmt: skip
        for key, entry in row.entries.items():
            told = kept["entries"][key]
            assert told["verdict"] == {"kind": entry.verdict.kind.value, "reason": entry.verdict.reason}
            assert (told["paper"] or {}).get("value") == (entry.paper.value if entry.paper else None)
            finite = {str(seed): value if math.isfinite(value) else None for seed, value in entry.values.items()}
            assert told["values"] == finite
        assert [cell["record"] for cell in kept["cells"]] == [
            None if cell.record is None else json.loads(json.dumps(cell.record).replace("NaN", "null"))
            for cell in row.cells
        ]


def test_json_writes_a_point_of_a_curve_in_one_line() -> None:
    report = REPORTS["three seeds"]()
    point = report.rows[0].cells[0].record["curves"]["val/nll"][0]
    assert f"[{point[0]}, {point[1]}]" in json_text(report)
