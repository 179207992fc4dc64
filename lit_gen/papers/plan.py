"""The plan before anything runs: every cell's state and what the rest will cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lit_gen.papers.cell import Cell
from lit_gen.papers.output.numbers import duration
from lit_gen.papers.status import State, Status
from lit_gen.papers.table import PaperTable

COLOURS = {State.DONE: "green", State.FAILED: "red", State.CORRUPT: "red", State.BLOCKED: "dim"}
QUICK_MINUTES = 0.2


def minutes(cell: Cell, states: Mapping[Cell, Status]) -> float:
    """What a cell costs: the mean of what its row's recorded runs took, or what the table file says."""
    if cell.options.quick:
        return QUICK_MINUTES
    seconds = [
        found.record["run"]["seconds"]["train"] + found.record["run"]["seconds"]["test"]
        for other, found in states.items()
        if other.row is cell.row and found.record is not None and found.state is State.DONE
    ]
    return sum(seconds) / len(seconds) / 60 if seconds else cell.row.minutes


def print_plan(table: PaperTable, states: Mapping[Cell, Status], jobs: int, console: Console) -> None:
    """Prints the state of every cell, and what those that will be run cost.

    Args:
        table: of the cells.
        states: of the cells.
        jobs: runs at a time.
        console: where to print.
    """
    console.print(f"{table.key}: {table.citation}; {len(states)} cells", style="bold", highlight=False, soft_wrap=True)
    shown = Table()
    for heading in ("cell", "state", "cost", "why"):
        shown.add_column(heading, justify="right" if heading == "cost" else "left", no_wrap=heading != "why")
    for cell, found in states.items():
        cost = duration(60 * minutes(cell, states)) if found.state.runs else ""
        style = COLOURS.get(found.state, "")
        # the reason as text: a path in brackets is no markup
        shown.add_row(cell.name, Text(found.state.value, style), cost, Text(found.reason, "dim"))
    console.print(shown)
    console.print(in_all(states, jobs), highlight=False, soft_wrap=True)


def in_all(states: Mapping[Cell, Status], jobs: int) -> str:
    """The plan in one line."""
    counts = Counter(found.state.value for found in states.values())
    total = sum(minutes(cell, states) for cell, found in states.items() if found.state.runs)
    together = f" with {jobs} at a time" if jobs > 1 else ""
    cost = f"; to run: about {duration(60 * total / jobs)}{together}" if total else "; nothing to run"
    return ", ".join(f"{count} {state}" for state, count in counts.items()) + cost
