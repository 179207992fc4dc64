"""Numbers as every output writes them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from lit_gen.papers.statistics import Summary
from lit_gen.papers.table import Column, PaperValue

MINUS = re.compile(r"(?<![\w-])-(?=\.?\w)")


def shown(value: float, column: Column, signed: bool = False) -> str:
    """A value of ours with the column's decimals, and a minus sign where it is negative."""
    return _fixed(value, column.decimals, "+" if signed else "")


def printed(paper: PaperValue) -> tuple[str, str | None]:
    """The paper's value and its +-, both with as many decimals as the longer of the two has in the table file.

    They do not have the column's decimals: that would round what the paper says, or add digits that it does not say.
    """
    numbers = [number for number in (paper.value, paper.error) if number is not None]
    decimals = max(_decimals(number) for number in numbers)
    value, *error = (_fixed(number, decimals) for number in numbers)
    return value, error[0] if error else None


def mean_and_deviation(summary: Summary, column: Column) -> str:
    """The mean, with the sample standard deviation over seeds where there are several."""
    mean = shown(summary.mean, column)
    return mean if summary.std is None else f"{mean} ± {shown(summary.std, column)}"


def bounds(summary: Summary) -> tuple[float, float] | None:
    """Ends of the 95 % interval of the mean; None for one seed."""
    if summary.half_width is None:
        return None
    return summary.mean - summary.half_width, summary.mean + summary.half_width


def interval(summary: Summary, column: Column) -> str:
    """The 95 % interval of the mean; "" for one seed."""
    ends = bounds(summary)
    return f"[{shown(ends[0], column)}, {shown(ends[1], column)}]" if ends else ""


def p_value(p: float) -> str:
    """With its sign of relation."""
    return "< 0.0001" if p < 0.0001 else f"= {p:.4f}"


def count(number: float) -> str:
    """A whole number with its thousands apart."""
    return f"{number:,.0f}"


def span(numbers: Iterable[float]) -> str:
    """Whole numbers as one, or as the smallest and the largest; "" for none."""
    texts = list(dict.fromkeys(count(number) for number in sorted(numbers)))
    return "–".join(texts if len(texts) < 2 else (texts[0], texts[-1]))


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def typographic(text: str) -> str:
    """A text in one line with ± for +- and a minus sign for a hyphen before a number or a variable."""
    return MINUS.sub("−", " ".join(text.split()).replace("+-", "±"))


def ascii_only(text: str) -> str:
    """A text for a terminal that knows no other characters."""
    for known, plain in (("±", "+-"), ("−", "-"), ("–", "-"), ("·", "|"), ("†", "*"), ("‡", "**"), ("…", "...")):
        text = text.replace(known, plain)
    return text.encode("ascii", "replace").decode()


def _fixed(value: float, decimals: int, sign: str = "") -> str:
    if not math.isfinite(value):
        return "not finite"
    return f"{round(value, decimals) + 0.0:{sign}.{decimals}f}".replace("-", "−")  # + 0.0: no -0.00


def _decimals(number: float) -> int:
    return len(f"{number:.10f}".rstrip("0").partition(".")[2])
