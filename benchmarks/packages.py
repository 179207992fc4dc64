"""Packages that benchmarks measure ours against; none of them is a dependency."""

from __future__ import annotations

import importlib
from collections.abc import Mapping


def missing(modules: Mapping[str, str]) -> dict[str, str]:
    """Which packages cannot be used here, each with a line that says why.

    Args:
        modules: package -> the module that must be imported.
    """
    reasons = {}
    for package, module in modules.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            reasons[package] = f"{package}: left out ({error})"
    return reasons
