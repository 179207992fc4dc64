"""Writes README's tables from the run records and benchmark records that lie beside this file (``make tables``)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"


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


def results_table() -> str:
    """One row for each run record."""
    rows = [
        [
            f"`{record['experiment']}`",
            record["model"].rsplit(".", 1)[-1],
            f"{record['parameters']['total']:,}",
            test_metrics(record),
            f"{record['epochs']} / {record['steps']:,}",
            f"{record['seconds']['train']:,.0f}",
            f"`{(record['git']['commit'] or 'unknown')[:9]}`{' +changes' if record['git']['dirty'] else ''}",
        ]
        for record in records("runs")
    ]
    return table(["config", "model", "parameters", "test", "epochs / updates", "training, s", "commit"], rows)


def benchmarks_table() -> str:
    """One row for each measured pair."""
    rows = [
        [row["what"], row["ours"], row["theirs"], f"{row['ratio']:.2f}", row["note"]]
        for record in records("benchmarks")
        for row in record["rows"]
    ]
    return table(["what", "ours", "beside", "ratio", "how"], rows)


def with_tables(text: str) -> str:
    """The text with fresh tables between its markers."""
    for name, content in (("results", results_table()), ("benchmarks", benchmarks_table())):
        between = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text = between.sub(lambda match, content=content: f"{match[1]}{content}\n{match[2]}", text)
    return text


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
