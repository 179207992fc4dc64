"""What a run left in its directory, read by those that did not make it."""

from __future__ import annotations

import json
from typing import Any

import yaml

from lit_gen.core.run_dir import RunDir


def read_result(run: RunDir) -> dict[str, Any] | None:
    """``result.json`` of a finished run, or None."""
    try:
        return json.loads(run.result.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def read_config(run: RunDir) -> dict[str, Any]:
    """``config.yaml`` of a run."""
    return yaml.safe_load(run.config.read_text(encoding="utf-8"))
