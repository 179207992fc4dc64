"""Example reports with invented records: what the tests of the outputs are written from."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from lit_gen.core.tree import merged
from lit_gen.papers.cell import Cell, Options
from lit_gen.papers.report import CellReport, Entry, RowReport, TableReport, Within
from lit_gen.papers.statistics import Comparison, summary
from lit_gen.papers.table import Column, PaperTable, PaperValue, Row
from lit_gen.papers.table_file import read_table
from lit_gen.papers.verdicts import verdict

ROOT = Path(__file__).resolve().parents[2]
Values = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Of rows by seed and column, in the unit that is shown."""

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NASTY = "R&D | 100 % \"x\" <script>alert('1')</script> $a_b$ {c} #1 ~^\\ ± − ≤ α é 中 *[z]* `q` +- -3 --dry"


def three_seeds() -> TableReport:
    """Language models: three seeds of one row, one of another, one row that has not been run."""
    values = {
        "gpt_cpu": {
            0: {"blocks": 1.8995123, "full": 1.8993351, "bits": 2.7401614},
            1: {"blocks": 1.8931207, "full": 1.8928875, "bits": 2.7308596},
            2: {"blocks": 1.9057441, "full": 1.9051002, "bits": 2.7484785},
        },
        "kneser_ney_7": {0: {"full": 1.9512333, "bits": 2.8150346}},
    }
    table = shipped("tinyshakespeare", {"gpt_cpu": {"blocks": said(1.88)}, "gpt_gpu": {"blocks": said(1.4697)}})
    within = {"gpt_cpu": {"blocks": 0.0044065}}
    return build(table, values, within, not_run={"gpt_gpu": "no run yet, about 33.3 hours a cell"})


def one_seed() -> TableReport:
    """Boltzmann machines: one seed a row, a paired comparison, pictures, one run that failed."""
    values = {
        "cd1": {0: {"nll": 150.2589, "reverse": 135.7731}},
        "cd3": {0: {"nll": 125.0442, "reverse": 126.0519}},
        "pcd": {0: {"nll": 89.6402, "reverse": 88.9957}},
    }
    within = {row: {"nll": 0.2743, "reverse": 0.2731} for row in values}
    papers = {"cd1": {"nll": said(125.53, "unverified")}, "cd3": {"nll": said(105.50, "unverified")}}
    papers |= {"cd25": {"nll": said(86.34, "second_hand")}, "pcd": {"nll": said(84.86), "reverse": said(96.61)}}
    table = shipped("rbm_likelihood", papers)
    method = "paired t-test over test examples"
    comparisons = (
        Comparison("cd3", "cd1", "nll", -25.2147, 0.1183, 3.1e-200, 10_000, method),
        Comparison("pcd", "cd1", "nll", -60.6187, None, 0.0123, 10_000, method),
    )
    not_run = {"cd25": "failed: training diverged: loss = nan or its gradient is not finite at step 120"}
    return replace(build(table, values, within, not_run, picture=grid()), comparisons=comparisons)


def some_seeds() -> TableReport:
    """One quantity with the paper's +-, three seeds asked for, of which one has failed."""
    papers = {"minimax": (29.6, 1.6), "non_saturating": (26.5, 1.6), "wgan": (21.5, 1.6)}
    papers = {row: {"fcd": PaperValue(*value, "unstated", "second_hand")} for row, value in papers.items()}
    table = shipped("gan_objectives_fashion", papers)
    table = replace(table, columns=table.columns[:1])
    rows = {row.key: {seed: {"fcd": 40.0 + 3 * n + seed} for seed in (0, 1)} for n, row in enumerate(table.rows)}
    return build(table, rows, {})


def nothing_run() -> TableReport:
    """A table of which nothing has been run, as something is missing."""
    table = shipped("cifar10_gans", {})
    missing = "no CIFAR-10 (data/cifar-10-batches-py/data_batch_1 is missing)"
    return build(table, {}, {}, {row.key: missing for row in table.rows}, state="blocked")


def quick() -> TableReport:
    """Runs at tiny budgets."""
    return build(shipped("iwae", {}), {"vae_1": {0: {"nll": 540.2}}}, {}, {}, quick=True)


def special() -> TableReport:
    """Every character that some format reads as its own, in every text; no curves; a value that is no number."""
    column = Column("x_1", NASTY, "test/x", "%", True, 1, 100.0, 0.5, "estimator", "example_stderr")
    other = Column("y", "y", "test/y", "", False, 2, 1.0, 0.0, None, None)
    paper = {"x_1": PaperValue(-93.0, 6.5, "seed_std", "second_hand"), "y": PaperValue(1.88, None, None, "unverified")}
    experiment = {"data": {"class_path": "lit_gen.data.Digits"}, "trainer": {}, "model": {"note": NASTY}}
    options = {
        "config": Path("configs/x & y.yaml"), "overrides": {"model.note": NASTY}, "quick": {}, "seeds": (3,),
        "minutes": 2.5, "experiment": experiment, "protocol": "part", "differs": NASTY, "rule": "trend",
        "tolerance": {"x_1": 0.5, "y": 0.0},
    }  # fmt: skip
    rows = (Row("a", NASTY, paper=paper, **options), Row("b", "[b]", paper={}, **options))
    table = PaperTable(
        Path("nasty.yaml"), NASTY, NASTY, 'https://example.org/?a=1&b="<x>"', NASTY, (NASTY,), (column, other), rows,
        {}, (), None, {},
    )  # fmt: skip
    values = {"a": {3: {"x_1": -12.34, "y": 0.001}}, "b": {3: {"x_1": -0.04, "y": math.nan}}}
    report = build(table, values, {"a": {"x_1": 0.27}}, curves=False)
    method = f"a test of {NASTY}"
    return replace(report, comparisons=(Comparison("b", "a", "x_1", 12.3, 0.5, 0.03, 1000, method),))


REPORTS = {
    "three seeds": three_seeds, "one seed": one_seed, "some seeds": some_seeds, "nothing run": nothing_run,
    "quick": quick, "special": special,
}  # fmt: skip


# ---------------------------------------------------------------- how they are made


def shipped(name: str, papers: Mapping[str, Mapping[str, PaperValue]]) -> PaperTable:
    """A table of ``configs/papers``, in which some values of the paper are what the tests expect."""
    table = read_table(ROOT / f"configs/papers/{name}.yaml")
    rows = tuple(replace(row, paper=dict(papers.get(row.key, row.paper))) for row in table.rows)
    return replace(table, rows=rows)


def said(value: float, trust: str = "verified") -> PaperValue:
    """A value of a paper without a +-."""
    return PaperValue(value, None, None, trust)


def build(
    table: PaperTable, values: Values, within: Mapping[str, Mapping[str, float]],
    not_run: Mapping[str, str] | None = None, state: str = "missing", picture: bytes | None = None, quick: bool = False,
    curves: bool = True,
) -> TableReport:  # fmt: skip
    """A report of invented runs.

    Args:
        table: from its file.
        values: of ours.
        within: errors within a run by row and column.
        not_run: why a row has no value.
        state: of the cells without a value.
        picture: of every run.
        quick: the runs had tiny budgets.
        curves: whether records have curves.
    """
    measured = {
        column.key: {
            row: summary([own[column.key] for own in seeds.values() if column.key in own])
            for row, seeds in values.items()
            if any(column.key in own for own in seeds.values())
        }
        for column in table.columns
    }
    rows = []
    for row in table.rows:
        seeds, reason = values.get(row.key, {}), (not_run or {}).get(row.key, "")
        errors = within.get(row.key, {})
        cells = []
        for seed in row.seeds:
            if seed in seeds:
                kept = record(table, row, seed, seeds[seed], errors, quick, curves)
                cells.append(CellReport(seed, "done", "", kept, picture))
            else:
                failed = "failed" if reason.startswith("failed") else state
                cells.append(CellReport(seed, failed, reason.removeprefix("failed: "), None))
        entries = {}
        for column in table.columns:
            own = {seed: found[column.key] for seed, found in seeds.items() if column.key in found}
            error = Within(errors[column.key], column.error_kind) if own and column.key in errors else None
            judged = verdict(table, row, column, measured[column.key], quick, reason)
            entries[column.key] = Entry(
                column, row.paper.get(column.key), own, measured[column.key].get(row.key), error, judged
            )
        rows.append(RowReport(row, tuple(cells), entries))
    return TableReport(table, tuple(rows), (), quick)


def record(
    table: PaperTable, row: Row, seed: int, values: Mapping[str, float], errors: Mapping[str, float], quick: bool,
    curves: bool,
) -> dict[str, Any]:  # fmt: skip
    """What ``results/`` would hold of a run."""
    cell = Cell(table, row, seed, Options(Path("runs"), quick=quick))
    steps = 2 if quick else 2000 + seed
    metrics = {table.column[key].metric: value / table.column[key].scale for key, value in values.items()}
    run = {
        "metrics": metrics, "estimators": {}, "steps": steps, "epochs": 2, "parameters": {"total": 804608},
        "seed": seed, "git": {"commit": COMMIT, "dirty": seed == 1}, "device": "cpu", "threads": 1, "world_size": 1,
        "versions": {"python": "3.11.7", "torch": "2.15.0", "numpy": "2.4.6"}, "precision": "32-true",
        "seconds": {"train": 896.63 + seed, "evaluation_in_training": 312.65, "test": 46.3},
    }  # fmt: skip
    return {
        "format": 1, "table": table.key, "row": row.key, "seed": seed, "key": f"c0ffee{seed:06}", "quick": quick,
        "config_hash": "00112233aabb", "code": "44556677ccdd", "data_hash": None, "command": cell.command, "run": run,
        "config": merged(row.experiment, {"seed_everything": seed}), "curves": learning(values, seed) if curves else {},
        "within": {key: error / table.column[key].scale for key, error in errors.items()}, "checksum": "0" * 16,
    }  # fmt: skip


def learning(values: Mapping[str, float], seed: int) -> dict[str, list[list[float]]]:
    """Curves that fall to the first value."""
    last = next(iter(values.values()))

    def at(step: int, noise: float) -> float:
        return round(last + 2.2 * math.exp(-step / 260) + noise * math.sin(step * (seed + 1.7)), 5)

    return {
        "train/loss": [[step, at(step, 0.08)] for step in range(50, 2001, 50)],
        "val/nll": [[step, at(step, 0.01)] for step in range(250, 2001, 250)],
    }


def grid() -> bytes:
    """A small picture, PNG."""
    picture = Image.new("L", (120, 90))
    picture.putdata([(x * y) % 256 for y in range(90) for x in range(120)])
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
