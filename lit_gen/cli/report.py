"""The table at the end of a run: each metric with its error or its anchors, where the time went, and where everything lies."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from lit_gen.core.checkpoint import BEST
from lit_gen.core.run_dir import RunDir


def print_report(run: RunDir, record: dict[str, Any], console: Console | None = None) -> None:
    """Prints a run record for people.

    Args:
        run: the run's directory.
        record: what went to ``result.json``.
        console: where to print; standard output where None.
    """
    console = console or Console(width=None if Console().is_terminal else 110)
    best = record["checkpoint"] == BEST
    step = record["best"]["step"] if best else record["steps"]
    rows = [("metric", "value", "real data", "noise", "samples")]
    for name, value in record["metrics"].items():
        estimator = record["estimators"].get(name, {})
        anchors = estimator.get("anchors") or {}
        samples = estimator.get("n_fake") or estimator.get("samples") or ""
        rows.append((name, number(value), number(anchors.get("real")), number(anchors.get("noise")), str(samples)))
    # a column that nothing is in is left out
    columns = [column for column in zip(*rows) if any(column[1:])]
    title = f"{record['experiment']}: {record['checkpoint']}, step {step}"
    table = Table(title=title, min_width=len(title) + 2)
    for heading, *_ in columns:
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for row in list(zip(*columns))[1:]:
        table.add_row(*row)
    console.print(table)
    for line in estimator_notes(record["estimators"]):
        console.print(line, highlight=False)
    seconds = record["seconds"]
    share = (seconds["evaluation_in_training"] + seconds["test"]) / max(seconds["train"] + seconds["test"], 1e-9)
    console.print(
        f"time: training {seconds['train']:.0f} s, of which evaluation {seconds['evaluation_in_training']:.0f} s; "
        f"test {seconds['test']:.0f} s; evaluation is {share:.0%} of the whole",
        highlight=False,
    )
    samples = sorted(run.samples.glob("step-*"))
    console.print(f"run directory: {run.path}", soft_wrap=True, highlight=False)
    if samples:
        console.print(f"samples: {samples[-1]}", soft_wrap=True, highlight=False)


def estimator_notes(estimators: dict[str, Any]) -> list[str]:
    """What the anchors are and which extractor the distances were measured with, where there are any."""
    measured = next((entry for entry in estimators.values() if "anchors" in entry), None)
    if measured is None:
        return []
    anchors, accuracy = measured["anchors"], measured.get("classifier_accuracy")
    classifier = f", a classifier of this data with {accuracy:.2%} test accuracy" if accuracy else ""
    return [
        f"real data: {anchors['real_n']} training images in place of samples; noise: {anchors['noise_n']} uniform ones; "
        f"extractor: {measured['extractor']} {measured['weights_hash']}{classifier}"
    ]


def number(value: Any) -> str:
    """A number with four significant digits, or nothing."""
    return "" if value is None else f"{value:.4g}"
