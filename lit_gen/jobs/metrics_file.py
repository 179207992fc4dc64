"""metrics.csv of a run, read by another process while it grows."""

from __future__ import annotations

import csv
import os
from contextlib import suppress
from pathlib import Path


class MetricsFile:
    """metrics.csv of a run that may be writing it: a line that is not complete yet is left for the next time.

    Args:
        path: the file, which may be missing, grow, and be replaced by one with more columns.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state: tuple[int, ...] = ()
        self._rows: list[list[str]] = []

    def values(self, metric: str) -> list[float]:
        """The logged values of a metric, in order."""
        header, *rows = self._read() or [[]]
        if metric not in header:
            return []
        column = header.index(metric)
        return [float(row[column]) for row in rows if len(row) > column and row[column]]

    def columns(self) -> list[str]:
        """Names of what is logged."""
        return [name for name in (self._read() or [[]])[0] if name != "step"]

    def last(self) -> dict[str, float]:
        """The newest value of every column, step included; fields that are empty or no number do not count."""
        header, *rows = self._read() or [[]]
        newest: dict[str, float] = {}
        for row in reversed(rows):
            for name, field in zip(header, row):
                if field and name not in newest:
                    with suppress(ValueError):
                        newest[name] = float(field)
            if len(newest) == len(header):
                break
        return {name: newest[name] for name in header if name in newest}

    def _read(self) -> list[list[str]]:
        try:
            with open(self.path, newline="", encoding="utf-8") as file:
                status = os.fstat(file.fileno())
                state = (status.st_ino, status.st_size, status.st_mtime_ns)
                if state != self._state:
                    text = file.read()
                    self._rows = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))
                    self._state = state
        except FileNotFoundError:
            return []
        return self._rows
