"""A report at W&B: the table and the web page, in a run of their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from lit_gen.papers.output import numbers, words
from lit_gen.papers.output.html import html_page
from lit_gen.papers.report import TableReport

COLUMNS = ("row", "column", "paper", "ours", "sd", "n", "low", "high", "verdict", "reason")
UNLOGGED = ("offline", "disabled", "dryrun")


def log_table(report: TableReport, project: str, folder: Path) -> None:
    """Logs the table and the page in a run ``reproduce/KEY``; offline without a key, and a failure is one warning.

    Args:
        report: of the table.
        project: W&B project.
        folder: W&B's files go to its ``wandb/``.
    """
    try:
        _log(report, project, folder)
    except Exception as error:  # whatever W&B raises: the table is written elsewhere too
        what = " ".join(str(error).split()) or type(error).__name__
        print(f"lit-gen: warning: the table is not logged to W&B: {what}", file=sys.stderr, flush=True)


def _log(report: TableReport, project: str, folder: Path) -> None:
    import wandb

    from lit_gen.core.loggers import has_wandb_key

    given = os.environ.get("WANDB_MODE", "")
    mode = given if given in UNLOGGED else None if has_wandb_key() else "offline"
    if mode == "offline":
        print(f"W&B: the table is logged offline; upload it with: wandb sync {folder}/wandb/offline-run-*", flush=True)
    run = wandb.init(
        project=project,
        dir=str(folder),
        name=f"reproduce/{report.table.key}",
        job_type="reproduce",
        mode=mode,
        config={"table": report.table.key, "quick": report.quick},
        settings=wandb.Settings(silent=True, console="off", save_code=False),
    )
    with run:
        table = wandb.Table(columns=list(COLUMNS), data=lines(report))
        run.log({"table": table, "page": wandb.Html(html_page(report), inject=False)})


def lines(report: TableReport) -> list[list[Any]]:
    """A line of :data:`COLUMNS` for each row and quantity."""
    found = []
    for row in report.rows:
        for entry in row.entries.values():
            summary = entry.summary
            low, high = (summary and numbers.bounds(summary)) or (None, None)
            found.append([
                row.row.name, words.heading(entry.column), entry.paper and entry.paper.value, summary and summary.mean,
                summary and summary.std, summary.n if summary else 0, low, high, entry.verdict.kind.value,
                entry.verdict.reason,
            ])  # fmt: skip
    return found
