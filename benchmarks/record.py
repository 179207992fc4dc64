"""Records of benchmarks, from which README's table is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from lit_gen.core.run_dir import git_state, versions

FOLDER = Path(__file__).resolve().parents[1] / "results" / "benchmarks"


def write_record(name: str, rows: list[dict[str, Any]], rounds: Any) -> None:
    """Writes ``results/benchmarks/NAME.json``.

    Args:
        name: of the benchmark.
        rows: what the table shows: what, ours, theirs (texts), ratio (ours to theirs, a number), note.
        rounds: every single measurement.
    """
    record = {
        "rows": rows, "rounds": rounds, "threads": torch.get_num_threads(), "versions": versions(), "git": git_state(),
    }  # fmt: skip
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
