"""One journal for all workers, on any shared file system, whatever moment one of them is killed at.

Optuna's own file backend is not enough for that: a write that is cut off by a kill makes its journal unreadable,
and its locks have the faults that :mod:`lit_gen.jobs.mutex` tells of.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from lit_gen.jobs.mutex import Mutex


class Journal(BaseJournalBackend):
    """Optuna's journal in a file: a line for each operation. A line that was cut off by a kill never happened.

    Args:
        path: the file; made where it is missing.
        mutex: held while a line is written.
    """

    def __init__(self, path: Path, mutex: Mutex) -> None:
        self.path, self.mutex = path, mutex
        self._offsets = [0]  # where the n-th operation begins
        path.touch()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        number = min(log_number_from, len(self._offsets) - 1)
        with open(self.path, "rb") as file:
            position = file.seek(self._offsets[number])
            for line in file:
                if not line.endswith(b"\n"):  # being written, or cut off
                    return
                position += len(line)
                try:
                    operation = json.loads(line)
                except ValueError:  # cut off, and ended by the next writer
                    continue
                number += 1
                if number == len(self._offsets):
                    self._offsets.append(position)
                if number > log_number_from:
                    yield operation

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with self.mutex, open(self.path, "ab+") as file:
            self.mutex.check()
            if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
                text = f"\n{text}"
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
