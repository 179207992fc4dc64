"""Writes README's tables from the run records and benchmark records that lie beside this file (``make tables``)."""

from __future__ import annotations

import json
import re
import statistics
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


def translation_table() -> str:
    """One row for each run that translates, the one with seeds left to a table of its own."""
    rows = []
    for record in filter(of_text, records("runs")):
        metrics = record["metrics"]
        if "test/bleu" not in metrics or record["experiment"].startswith("scheduled_"):
            continue
        scores = [("bleu", ".2f"), ("bleu_detokenized", ".2f"), ("chrf", ".2f"), ("exact_match", ".1%")]
        rows.append(
            [
                f"`{record['experiment']}`",
                f"{record['parameters']['total']:,}",
                f"{metrics['test/nll']:.3f}",
                f"{metrics['test/perplexity']:.2f}",
                *(format(metrics[f"test/{name}"], form) if f"test/{name}" in metrics else "" for name, form in scores),
                *trained(record),
            ]
        )
    scores = ["nats / token", "perplexity", "BLEU", "detokenised, 13a", "chrF", "exact match"]
    return table(["config", "parameters", *scores, *TRAINED], rows)


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


def scheduled_table() -> str:
    """Scheduled sampling: mean and sample standard deviation over the seeds of each way to train."""
    groups: dict[str, list[dict[str, float]]] = {}
    for record in records("runs"):
        if record["experiment"].startswith("scheduled_"):
            groups.setdefault(record["experiment"], []).append(record["metrics"])

    def spread(runs: list[dict[str, float]], name: str, scale: float, digits: int) -> str:
        values = [scale * run[f"test/{name}"] for run in runs]
        deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
        return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"

    rows = [
        [
            f"`{name}`",
            str(len(runs)),
            spread(runs, "exact_match", 100, 1),
            spread(runs, "bleu", 1, 2),
            spread(runs, "nll", 1, 4),
        ]
        for name, runs in groups.items()
    ]
    return table(["training", "seeds", "exact match, %", "BLEU", "nats / token, true prefix"], rows)


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
    for name, content in (
        ("results", results_table()),
        ("translation", translation_table()),
        ("language", language_table()),
        ("scheduled", scheduled_table()),
        ("benchmarks", benchmarks_table()),
    ):
        between = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text = between.sub(lambda match, content=content: f"{match[1]}{content}\n{match[2]}", text)
    return text


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
