"""A job script for SLURM: read from ``slurm/`` with what a site has set there, filled in for one run, written."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from lit_gen.core.errors import UsageError

BODY = "set -euo pipefail\n"
"""The line of a template from which on it is the same everywhere; above it stands what belongs to the site."""


@dataclass
class JobScript:
    """A job script: the options of sbatch, the site's own lines, the rest.

    Args:
        options: without their dashes; None where an option has no value.
        setup: lines that prepare the environment.
        body: from ``set -euo pipefail`` on.
    """

    options: dict[str, str | None]
    setup: list[str] = field(default_factory=list)
    body: str = ""

    @classmethod
    def read(cls, path: Path) -> "JobScript":
        """Reads one of ``slurm/``.

        Raises:
            UsageError: it is missing, or has lost the line that separates the site's part from the rest.
        """
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        site, found, body = text.partition(BODY)
        if not found:
            raise UsageError(f"{path} is missing or has no line {BODY.strip()!r}: lit-gen submit fills this script in")
        options: dict[str, str | None] = {}
        for line in site.splitlines():
            for word in shlex.split(line.removeprefix("#SBATCH"), comments=True) if line.startswith("#SBATCH") else ():
                name, _, value = word.removeprefix("--").partition("=")
                options[name] = value or None
        setup = [line for line in site.splitlines() if line.strip() and not line.startswith("#")]
        return cls(options, setup, body)

    def text(self, title: str, words: list[str]) -> str:
        """The script for one run.

        Args:
            title: a comment for its top.
            words: what stands after ``lit-gen run``.
        """
        lines = [f"--{name}" if value is None else f"--{name}={quoted(value)}" for name, value in self.options.items()]
        head = "\n".join(["#!/bin/bash", f"# {title}", *(f"#SBATCH {line}" for line in lines)])
        setup = "".join(f"{line}\n" for line in self.setup)
        return f"{head}\n\n{setup}{BODY}set -- {shlex.join(words)}\n{self.body}"

    @property
    def nodes(self) -> int:
        return int(self.options.get("nodes") or 1)

    @property
    def processes(self) -> int:
        """On each node."""
        return int(self.options.get("ntasks-per-node") or 1)

    def has_gpus(self) -> bool:
        return any(name.startswith(("gpus", "gres")) or name == "G" for name in self.options)


def quoted(value: str) -> str:
    """A value as sbatch reads it from a script."""
    return value if re.fullmatch(r"[\w@%+=:,./-]*", value) else shlex.quote(value)


def seconds_of(limit: str) -> float | None:
    """The seconds of a time limit in any of SLURM's forms; None where it is none of them."""
    if limit.upper() in ("UNLIMITED", "INFINITE"):
        return float("inf")
    if match := re.fullmatch(r"(\d+)-(\d+)(?::(\d+))?(?::(\d+))?", limit):
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    elif match := re.fullmatch(r"(?:(?:(\d+):)?(\d+):(\d+))|(\d+)", limit):
        hours, minutes, seconds, alone = (int(part or 0) for part in match.groups())
        days, minutes = 0, minutes + alone
    else:
        return None
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds or float("inf")  # zero is no limit
