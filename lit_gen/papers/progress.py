"""What people see while cells run: a table that is drawn anew where they look at a terminal, else a line for each event."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

from lit_gen.papers.cell import Cell
from lit_gen.papers.output.numbers import duration
from lit_gen.papers.runner import Work


class Progress:
    """A live view of the runs at hand, with events printed above it.

    Args:
        console: where to print; without a terminal only the events are.
        total: cells to be run.
    """

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total, self.ended = console, total, 0
        self.live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._drawn = 0.0

    def __enter__(self) -> "Progress":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.stop()

    def tell(self, cell: Cell, what: str) -> None:
        """Prints an event of a cell."""
        if what.startswith(("done", "failed")):
            self.ended += 1
            what = f"{what} ({self.ended} of {self.total})"
        self.console.print(f"{cell.name} {what}", highlight=False, markup=False, soft_wrap=True)

    def show(self, working: Sequence[Work]) -> None:
        """Draws the runs at hand, at most twice a second."""
        if self.live is None or time.monotonic() - self._drawn < 0.5:
            return
        self._drawn = time.monotonic()
        self.live.update(self.table(working), refresh=True)

    def table(self, working: Sequence[Work]) -> Table:
        """The runs at hand: how far each is and what it logged last."""
        shown = Table(caption=f"{self.ended} of {self.total} cells have ended", caption_justify="left")
        for heading in ("cell", "update", "last value", "time", "expected"):
            shown.add_column(heading, justify="left" if heading == "cell" else "right", no_wrap=True)
        for work in working:
            last = work.metrics.last()
            value = next((f"{k} {last[k]:.4g}" for k in sorted(last, key=preferred) if k != "step"), "")
            step = f"{int(last['step']):,}" if "step" in last else "starting"
            spent = duration(time.monotonic() - work.started)
            shown.add_row(work.cell.name, step, value, spent, duration(60 * work.cell.row.minutes))
        return shown


def preferred(name: str) -> tuple[bool, bool, str]:
    """Validation before training, losses before the rest."""
    return not name.startswith("val/"), "loss" not in name and "nll" not in name, name
