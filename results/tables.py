"""Writes the tables of README and docs from the run records and benchmark records beside this file (``make tables``)."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from lit_gen.core.errors import UsageError
from lit_gen.papers.assemble import build
from lit_gen.papers.cell import Options, cells
from lit_gen.papers.output.markdown import long_table, short_table
from lit_gen.papers.records import Records
from lit_gen.papers.report import TableReport
from lit_gen.papers.status import recorded
from lit_gen.papers.table_file import read_table

HERE = Path(__file__).resolve().parent
README, DOCS = HERE.parent / "README.md", HERE.parent / "docs" / "papers"
PAPERS = sorted((HERE.parent / "configs" / "papers").glob("*.yaml"))


def records(kind: str) -> list[dict[str, Any]]:
    """All records of ``runs`` or ``benchmarks``, in the order of their file names."""
    return [json.loads(path.read_text()) for path in sorted((HERE / kind).glob("*.json"))]


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


NLL = {
    "nll": "NLL", "nll_reverse": "by reverse AIS", "nll_raise": "by RAISE",
    "nll_bound": "NLL bound", "nll_bound_reverse": "by reverse AIS",
}  # fmt: skip


def log_likelihood(short: str, value: float, record: dict[str, Any]) -> str:
    """A negative log-likelihood with its standard error and what it is: a bound, exact, or with an estimated log Z."""
    error = record["metrics"][f"test/{short}_stderr"]
    about = record["estimators"].get(f"test/{short}", {})
    relation, method = {"AIS": ("≈", " (AIS)"), "enumeration": ("=", "")}.get(about.get("method"), ("≤", ""))
    if short not in ("nll", "nll_bound"):
        relation = "≈"
    images = f" ({about['images']} images)" if "images" in about else ""
    return f"{NLL[short]} {relation} {value:.2f} ± {error:.2f} nats{method}{images}"


def test_metrics(record: dict[str, Any]) -> str:
    """The metrics that decide, each with its error or its anchors."""
    shown, metrics = [], record["metrics"]
    for name, value in metrics.items():
        short = name.removeprefix("test/")
        if short in NLL:
            shown.append(log_likelihood(short, value, record))
        if short in ("error", "error_generative"):
            shown.append(f"{'error' if short == 'error' else 'by the generative model'} {value:.2%}")
        if short == "completion_error":
            mean = metrics[f"{name}_mean_image"]
            averaged = metrics[f"{name}_averaged"]
            shown.append(f"completion error {averaged:.4f}, one draw {value:.4f}, mean image {mean:.4f}")
        if short.startswith("capacity_"):
            size = short.removeprefix("capacity_")
            what = "where the curves of both sizes cross" if size == "crossing" else f"capacity at N = {int(size):,}"
            shown.append(f"{what}: {value:.3f} N")
        anchors = record["estimators"].get(name, {}).get("anchors")
        if anchors and short.startswith(("fcd", "fid")):
            shown.append(f"{short} {value:.4g} (real {anchors['real']:.4g}, noise {anchors['noise']:.4g})")
        if short in ("accuracy", "modes"):
            shown.append(f"{short} {value:.4g}")
    if not shown and "test/loss" in metrics:
        shown.append(f"loss {metrics['test/loss']:.4g}")
    return "<br>".join(shown)


def of_text(record: dict[str, Any]) -> bool:
    """Whether a record is of a sequence model, which has tables of its own."""
    return record["model"].startswith("lit_gen.text.")


def trained(record: dict[str, Any]) -> list[str]:
    """The last columns of every table of runs: how long, and with which code."""
    return [
        f"{record['epochs']} / {record['steps']:,}",
        f"{record['seconds']['train']:,.0f}",
        f"`{(record['git']['commit'] or 'unknown')[:9]}`{' +changes' if record['git']['dirty'] else ''}",
    ]


TRAINED = ["epochs / updates", "training, s", "commit"]


def results_table() -> str:
    """One row for each run record of a model of images."""
    rows = [
        [
            f"`{record['experiment']}`",
            record["model"].rsplit(".", 1)[-1],
            f"{record['parameters']['total']:,}",
            test_metrics(record),
            *trained(record),
        ]
        for record in records("runs")
        if not of_text(record)
    ]
    return table(["config", "model", "parameters", "test", *TRAINED], rows)


def language_table() -> str:
    """One row for each language model of tinyshakespeare, the best last."""
    found = [r for r in filter(of_text, records("runs")) if r["data"].endswith("TinyShakespeare")]
    rows = []
    for record in sorted(found, key=lambda r: -r["metrics"]["test/nll"]):
        metrics = record["metrics"]
        blocks = metrics.get("test/nll_random_blocks")
        rows.append(
            [
                f"`{record['experiment']}`",
                f"{record['parameters']['total']:,}" if record["parameters"]["total"] else "",
                f"{metrics['test/nll']:.4f}",
                "" if blocks is None else f"{blocks:.4f}",
                f"{metrics['test/bits_per_token']:.3f}",
                f"{metrics['test/accuracy']:.1%}",
                *trained(record),
            ]
        )
    columns = ["nats / character, full pass", "random blocks", "bits", "accuracy"]
    return table(["model", "parameters", *columns, *TRAINED], rows)


def benchmarks_table() -> str:
    """One row for each measured pair."""
    rows = [
        [row["what"], row["ours"], row["theirs"], f"{row['ratio']:.2f}", row["note"]]
        for record in records("benchmarks")
        for row in record["rows"]
    ]
    return table(["what", "ours", "beside", "ratio", "how"], rows)


def paper_report(file: Path) -> TableReport:
    """A paper's table as the records tell it, the same on every machine."""
    table, records = read_table(file), Records(HERE / file.stem)
    every = cells(table, [], None, Options(Path("runs/reproduce") / file.stem))
    return build(table, {cell: recorded(cell, records) for cell in every}, records)


def paper_tables() -> dict[str, str]:
    """The short table of each paper, by its key, in the order of the files' names."""
    return {file.stem: short_table(paper_report(file)) for file in PAPERS}


def paper_pages() -> dict[Path, str]:
    """The pages in docs/papers: the long table of each paper, and an index."""
    reports = {file.stem: paper_report(file) for file in PAPERS}
    pages = {DOCS / f"{key}.md": long_table(report) for key, report in reports.items()}
    rows = []
    for key, report in reports.items():
        states = [cell.state for row in report.rows for cell in row.cells]
        done = f"{states.count('done')} of {len(states)}"
        rows.append([f"[{key}]({key}.md)", report.table.citation, report.table.table, done])
    index = table(["table", "paper", "which of its tables", "cells run"], rows)
    head = (
        "What was printed beside what `lit-gen reproduce` measured; `make tables` writes these pages from `results/`."
    )
    return {**pages, DOCS / "README.md": f"# Papers' tables\n\n{head}\n\n{index}\n"}


def with_tables(text: str) -> str:
    """The text with fresh tables between its markers."""
    contents = {"results": results_table(), "language": language_table(), "benchmarks": benchmarks_table()}
    contents |= {f"paper:{key}": content for key, content in paper_tables().items()}
    for name, content in contents.items():
        between = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text = between.sub(lambda match, content=content: f"{match[1]}{content}\n{match[2]}", text)
    return text


def main() -> int:
    """Writes README's tables and the pages of docs; 2 where a table file is wrong, before anything is written."""
    try:
        readme, pages = with_tables(README.read_text()), paper_pages()
    except UsageError as error:
        print(f"tables: error: {error}", file=sys.stderr)
        return error.exit_code
    README.write_text(readme)
    DOCS.mkdir(parents=True, exist_ok=True)
    for page, content in pages.items():
        page.write_text(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
