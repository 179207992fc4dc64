"""Configurations as trees of dicts and lists, read and written by dotted keys such as ``trainer.callbacks.0.init_args.n``."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of nested dicts and lists under dotted keys."""
    if isinstance(tree, list):
        tree = dict(enumerate(tree))
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    return {key: leaf for name, branch in tree.items() for key, leaf in flatten(branch, f"{prefix}{name}.").items()}


def merged(tree: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the tree in which each dotted key has its new value, a whole branch too; missing dicts are made.

    Raises:
        KeyError: a key leads through a leaf, or past the end of a list; its text says where.
    """
    tree = copy.deepcopy(tree)
    for key, value in changes.items():
        place: Any = tree
        *way, last = key.split(".")
        for number, part in enumerate(way):
            index = _index(place, part, key)
            if isinstance(place, dict) and place.get(index) is None:
                place[index] = {}
            place = place[index]
            if not isinstance(place, dict | list):
                raise KeyError(f"{key}: {'.'.join(way[: number + 1])} is {place!r} and has no parts")
        place[_index(place, last, key)] = copy.deepcopy(value)
    return tree


def at(tree: Any, key: str) -> Any:
    """The branch or leaf under a dotted key."""
    for part in key.split("."):
        tree = tree[_index(tree, part, key)]
    return tree


def through_list(tree: Any, key: str) -> str | None:
    """The dotted key of the first list that a key leads through; None where there is none."""
    parts = key.split(".")
    for number, part in enumerate(parts):
        if isinstance(tree, list):
            return ".".join(parts[:number])
        tree = (tree or {}).get(part) if isinstance(tree, dict) else None
    return None


def _index(place: dict | list, part: str, key: str) -> str | int:
    if isinstance(place, dict):
        return part
    if not (isinstance(place, list) and part.isdigit() and int(part) < len(place)):
        raise KeyError(f"{key}: {part!r} is not the number of an entry; there are {len(place)}")
    return int(part)
