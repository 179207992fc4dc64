"""What is said of a configuration: which of its values a class refuses, and which differ from another's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lit_gen.cli.messages import shorten
from lit_gen.core.errors import LitGenError, UsageError
from lit_gen.core.tree import flatten

# These may change when a run is continued, and take effect; everything else is part of what the run is.
MAY_CHANGE_ON_RESUME = (
    "trainer.max_epochs", "trainer.max_steps", "trainer.max_time", "trainer.enable_progress_bar",
    "trainer.log_every_n_steps", "trainer.devices", "trainer.num_nodes", "trainer.accelerator", "trainer.strategy",
    "trainer.limit_test_batches", "trainer.profiler", "loggers.", "checkpoint.every_n_steps", "sample_grid.", "runs_dir",
)  # fmt: skip


@contextmanager
def refused_in_one_line() -> Iterator[None]:
    """Where nothing has run yet, any error says that a value of the configuration is not accepted."""
    try:
        yield
    except LitGenError:
        raise
    except Exception as error:
        reason = re.search(r"Errors:\s*- (.+)", str(error))  # the first of the parser's list is the class's own
        raise UsageError(shorten(reason[1] if reason else str(error), 400)) from error


def refuse_changes(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Compares two complete configurations.

    Raises:
        UsageError: a value differs that a resumed run cannot take over.
    """
    old, new = flatten(before), flatten(after)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key) and not key.startswith(MAY_CHANGE_ON_RESUME):
            raise UsageError(
                f"{key} cannot change from {old.get(key)} to {new.get(key)} while resuming: "
                "start a new run with --config RUN/config.yaml"
            )
