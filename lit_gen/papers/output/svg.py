"""Learning curves as SVG that stands inside a page; its colours are the page's (see ``html_style.py``)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from lit_gen.papers.output.numbers import typographic

WIDTH, HEIGHT = 400, 232
TOP, RIGHT, BOTTOM = 12, 24, 40
COLOURS = 6
"""Series colours of the page, ``--series-0`` and so on; with the dashes no two of 24 seeds look the same."""
DASHES = ("", "7 3", "2 3", "9 3 2 3")

Points = Sequence[tuple[float, float]]


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) within a range, about as many as asked for."""
    if not low < high:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def labels(numbers: Sequence[float]) -> list[str]:
    """Numbers of the ticks of an axis, all with the same decimals."""
    largest = max(map(abs, numbers))
    if largest != 0 and not 1e-3 <= largest < 1e7:
        return [typographic(f"{number:.3g}") for number in numbers]
    decimals = max(len(f"{number:.10f}".rstrip("0").partition(".")[2]) for number in numbers)
    return [typographic(f"{number:,.{decimals}f}") for number in numbers]


def chart(series: Mapping[str, Points], title: str, vertical: str, identity: str, horizontal: str = "update") -> str:
    """A line for each series over common axes.

    Args:
        series: points by name; those that are not finite are left out.
        title: for those who do not see it.
        vertical: label of the axis of values.
        identity: starts the ids in the drawing; no other drawing in the page may have it.
        horizontal: label of the other axis.
    """
    finite = {name: [p for p in points if all(map(math.isfinite, p))] for name, points in series.items()}
    finite = {name: points for name, points in finite.items() if points}
    if not finite:
        return ""
    xs = [x for points in finite.values() for x, _ in points]
    ys = [y for points in finite.values() for _, y in points]
    x_range, y_range = _range(min(xs), max(xs), 0.0), _range(min(ys), max(ys), 0.06)
    x_ticks, y_ticks = ticks(*x_range), ticks(*y_range)
    y_labels = labels(y_ticks)
    left = 30 + 7.8 * max(map(len, y_labels))

    def right_of(x: float) -> float:
        return round(left + (x - x_range[0]) / (x_range[1] - x_range[0]) * (WIDTH - left - RIGHT), 1)

    def below(y: float) -> float:
        return round(TOP + (y_range[1] - y) / (y_range[1] - y_range[0]) * (HEIGHT - TOP - BOTTOM), 1)

    base = HEIGHT - BOTTOM
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{identity}-t {identity}-d">',
        f'<title id="{identity}-t">{escape(title)}</title>',
        f'<desc id="{identity}-d">{escape(_described(finite, horizontal))}</desc>',
    ]
    for tick, text in zip(y_ticks, y_labels):
        y = below(tick)
        parts.append(f'<path class="grid" d="M{left:.1f} {y}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="tick" x="{left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    for tick, text in zip(x_ticks, labels(x_ticks)):
        x = right_of(tick)
        parts.append(f'<path class="axis" d="M{x} {base}v4"/>')
        parts.append(f'<text class="tick" x="{x}" y="{base + 16}" text-anchor="middle">{text}</text>')
    parts.append(f'<path class="axis" d="M{left:.1f} {base}H{WIDTH - RIGHT}"/>')
    across, middle = (left + WIDTH - RIGHT) / 2, (TOP + base) / 2
    named = '<text class="name" text-anchor="middle"'
    parts.append(f'{named} x="{across:.1f}" y="{HEIGHT - 6}">{escape(horizontal)}</text>')
    turned = f'transform="rotate(-90 12 {middle:.1f})"'
    parts.append(f'{named} x="12" y="{middle:.1f}" {turned}>{escape(vertical)}</text>')
    for name, points in finite.items():
        style = stroke(list(series).index(name))
        if len(points) == 1:
            (x, y), colour = points[0], style.partition(";")[0].replace("stroke", "fill")
            parts.append(f'<circle cx="{right_of(x)}" cy="{below(y)}" r="3" style="{colour}"/>')
        else:
            path = " ".join(f"{right_of(x)},{below(y)}" for x, y in points)
            parts.append(f'<polyline class="curve" style="{style}" points="{path}"/>')
    return "".join(parts) + "</svg>"


def stroke(number: int) -> str:
    """Style of the line of a series, which its sample in the legend shares."""
    dashes = DASHES[number // COLOURS % len(DASHES)]
    return f"stroke:var(--series-{number % COLOURS})" + (f";stroke-dasharray:{dashes}" if dashes else "")


def sample(number: int) -> str:
    """The line of a series in a legend."""
    line = f'<path class="curve" style="{stroke(number)}" d="M1 4H23"/>'
    return f'<svg class="sample" viewBox="0 0 24 8" aria-hidden="true">{line}</svg>'


def _range(low: float, high: float, margin: float) -> tuple[float, float]:
    if low == high:
        return low - (abs(low) * 0.05 or 1.0), high + (abs(high) * 0.05 or 1.0)
    return low - margin * (high - low), high + margin * (high - low)


def _described(series: Mapping[str, Points], horizontal: str) -> str:
    """The ends of every curve in words."""
    texts = []
    for name, points in series.items():
        (x0, y0), (x1, y1) = points[0], points[-1]
        texts.append(f"{name}: from {y0:.4g} at {horizontal} {x0:,.0f} to {y1:.4g} at {x1:,.0f}")
    return "; ".join(texts)
