"""One line for each wrong argument."""

from __future__ import annotations


def require(condition: bool, name: str, value: object, accepted: str) -> None:
    """Raises a ValueError that names the value and what is accepted, unless the condition holds."""
    if not condition:
        raise ValueError(f"{name} = {value}; accepted: {accepted}")
