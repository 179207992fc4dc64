"""Parts of a file that a user wrote, read strictly: what is not accepted is named in one line."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any

from lit_gen.core.errors import UsageError


def mapping(where: str, given: Any, keys: Collection[str]) -> dict[str, Any]:
    """The mapping as it was given, if all its keys are known; any of them may be missing.

    Args:
        where: names it in the message.
        given: what stands there.
        keys: accepted ones.

    Raises:
        UsageError: it is no mapping, or has another key.
    """
    if not isinstance(given, dict):
        raise UsageError(f"{where} is missing or no mapping: expected {', '.join(keys)}")
    for key in given:
        if key not in keys:
            close = difflib.get_close_matches(str(key), keys, n=1)
            hint = f"did you mean {close[0]}?" if close else f"accepted: {', '.join(keys)}"
            raise UsageError(f"{where}: unknown key {key}: {hint}")
    return given


def one_of(where: str, value: Any, accepted: Collection[str]) -> str:
    """The value as it was given, if it is one of those accepted.

    Args:
        where: names it in the message.
        value: what stands there.
        accepted: the choice.

    Raises:
        UsageError: it is another.
    """
    if value not in accepted:
        raise UsageError(f"{where} = {value}: accepted: {', '.join(accepted)}")
    return value


def count(where: str, value: Any) -> None:
    """Checks that the value is an integer of 1 or more.

    Args:
        where: names it in the message.
        value: what stands there.

    Raises:
        UsageError: it is not (true is no integer here).
    """
    if type(value) is not int or value < 1:
        raise UsageError(f"{where} = {value!r}: expected an integer of 1 or more")
