"""Plain lines for people, from the first process only."""

from __future__ import annotations

import sys

from pytorch_lightning.utilities import rank_zero_only


@rank_zero_only
def say(text: str) -> None:
    """Prints a line on standard output."""
    print(text, flush=True)


@rank_zero_only
def warn(text: str) -> None:
    """Prints a warning on standard error."""
    print(f"lit-gen: warning: {text}", file=sys.stderr, flush=True)
