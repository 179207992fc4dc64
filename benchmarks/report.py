"""What benchmarks print of their rounds, and the rows of their records."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.turns import Round


def median(rounds: list[Round], value: Callable[[Round], float]) -> float:
    """The median over the rounds."""
    return statistics.median(map(value, rounds))


def table(header: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as they need to be; the first to the left."""
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    lines = [
        "  ".join(
            text.ljust(width) if i == 0 else text.rjust(width) for i, (text, width) in enumerate(zip(row, widths))
        )
        for row in [header, *rows]
    ]
    return "\n".join(lines)


def compare(
    what: str,
    rounds: list[Round],
    unit: str,
    targets: Mapping[str, float],
    ours: str = "ours",
    names: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Prints a table of ours beside all others of the same rounds, and returns the rows of the record.

    Args:
        what: is measured.
        rounds: the measurements.
        unit: of a measurement.
        targets: least ratio of our speed to theirs; no entry, no target.
        ours: how our side is called in the table.
        names: how others are called in the record, where that is not their key.
    """
    mine = median(rounds, lambda r: r["ours"])
    lines, rows = [[ours, f"{mine:,.0f}", "", "", ""]], []
    for name in rounds[0]:
        if name == "ours":
            continue
        ratios = [r["ours"] / r[name] for r in rounds]
        theirs, ratio = median(rounds, lambda r: r[name]), statistics.median(ratios)  # noqa: B023
        target = targets.get(name)
        verdict = "" if target is None else f"{target} or more"
        span = f"{min(ratios):.2f} to {max(ratios):.2f}"
        lines.append([name, f"{theirs:,.0f}", f"{ratio:.3f}", span, verdict])
        note = f"median of {len(rounds)} interleaved rounds" + ("" if target is None else f"; target {target}")
        rows.append({
            "what": what, "ours": f"{mine:,.0f} {unit}", "theirs": f"{(names or {}).get(name, name)} {theirs:,.0f} {unit}",
            "ratio": ratio, "note": note,
        })  # fmt: skip
    print(table(["contender", unit, "ours / theirs", "range", "target"], lines))
    return rows
