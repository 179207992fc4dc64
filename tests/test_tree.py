"""Configurations by dotted keys."""

from __future__ import annotations

import pytest

from lit_gen.core.tree import at, flatten, merged, through_list

TREE = {"a": {"b": 1, "c": [{"d": 2}, 3]}, "e": None}


def test_flatten_and_at_agree() -> None:
    leaves = flatten(TREE)
    assert leaves == {"a.b": 1, "a.c.0.d": 2, "a.c.1": 3, "e": None}
    assert all(at(TREE, key) == leaf for key, leaf in leaves.items())


def test_merged_changes_a_copy() -> None:
    changed = merged(TREE, {"a.b": 5, "a.c.0.d": 6, "a.c.1": 7, "new.deep.key": 8, "e.f": 9, "a.c.0.g": {"h": 1}})
    assert flatten(changed) == {
        "a.b": 5, "a.c.0.d": 6, "a.c.0.g.h": 1, "a.c.1": 7, "new.deep.key": 8, "e.f": 9,
    }  # fmt: skip
    assert TREE == {"a": {"b": 1, "c": [{"d": 2}, 3]}, "e": None}
    branch = {"x": [1]}
    merged(TREE, {"a": branch})["a"]["x"].append(2)
    assert branch == {"x": [1]}


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("a.b.c", "a.b.c: a.b is 1 and has no parts"),
        ("a.c.2", "a.c.2: '2' is not the number of an entry; there are 2"),
        ("a.c.d.e", "a.c.d.e: 'd' is not the number of an entry; there are 2"),
    ],
)
def test_keys_that_lead_nowhere(key: str, said: str) -> None:
    with pytest.raises(KeyError) as caught:
        merged(TREE, {key: 1})
    assert caught.value.args[0] == said


def test_through_list() -> None:
    keys = {"a.b": None, "a.c.0.d": "a.c", "a.c.1": "a.c", "a.c": None, "new.0": None, "e.0": None}
    assert {key: through_list(TREE, key) for key in keys} == keys
