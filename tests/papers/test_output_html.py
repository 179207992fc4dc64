"""The page as text: its tags, what it refers to, what it says; ``test_output_browser.py`` opens it."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise

import pytest
import yaml

from lit_gen.papers.output.html import html_page
from lit_gen.papers.output.svg import chart, labels, ticks
from tests.papers.reports import COMMIT, NASTY, REPORTS, grid

VOID = {"meta", "link", "br", "img", "path", "circle", "polyline"}


class Page(HTMLParser):
    """Checks that tags are balanced, and keeps attributes and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def of(self, name: str) -> list[tuple[str, str]]:
        return [(tag, value) for tag, given, value in self.attributes if given == name]


@pytest.fixture(scope="module", params=REPORTS)
def pair(request: pytest.FixtureRequest):
    report = REPORTS[request.param]()
    text = html_page(report)
    return report, text, Page(text)


def test_it_loads_nothing(pair) -> None:
    report, text, page = pair
    assert page.of("href") == [
        ("link", "data:,"), ("a", report.table.link), *(("a", f"#row-{row.row.key}") for row in report.rows)
    ]  # fmt: skip
    assert all(value.startswith("data:image/png;base64,") for _, value in page.of("src"))
    assert "script" not in page.texts
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    for word in ("url(", "@import", "@font-face"):
        assert word not in page.texts["style"][0]
    assert 'content="default-src &#x27;none&#x27;;' in text


def test_it_is_accessible(pair) -> None:
    report, text, page = pair
    assert ("html", "en") in page.of("lang")
    assert ("meta", "width=device-width, initial-scale=1") in page.of("content")
    identities = Counter(value for _, value in page.of("id"))
    assert max(identities.values()) == 1
    for name in ("aria-labelledby",):
        for _, value in page.of(name):
            assert set(value.split()) <= set(identities)
    levels = [int(level) for level in re.findall(r"<h(\d)", text)]
    assert levels.index(1) == 0
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels)), "no level is left out"
    assert len(page.of("alt")) == sum(cell.picture is not None for row in report.rows for cell in row.cells)
    assert all(value for _, value in page.of("alt"))
    styles = page.texts["style"][0]
    for word in ("prefers-color-scheme: dark", "@media print", ":focus-visible", "@media (max-width"):
        assert word in styles


def test_it_says_all_that_repeats_every_run(pair) -> None:
    report, _, page = pair
    blocks, terms = page.texts.get("pre", []), page.texts["dd"]
    records = [cell.record for row in report.rows for cell in row.cells if cell.record]
    assert len(blocks) == 2 * len(records)
    for number, record in enumerate(records):
        assert blocks[2 * number] == record["command"]
        assert yaml.safe_load(blocks[2 * number + 1]) == record["config"]
    commits = [COMMIT + " + changes" * record["run"]["git"]["dirty"] for record in records]
    assert [term for term in terms if term.startswith(COMMIT)] == commits
    for row in report.rows:
        for cell in row.cells:
            if cell.record is None:
                assert any(cell.state in text and " ".join(cell.reason.split()) in text for text in page.texts["p"])


def test_numbers_and_verdicts_are_those_of_the_report(pair) -> None:
    report, _, page = pair
    table = page.texts["table"][0]
    for row in report.rows:
        for entry in row.entries.values():
            if entry.paper:
                assert entry.verdict.kind.value + entry.verdict.reason.replace("-0", "−0") in table
            if entry.summary and entry.summary.std is not None:
                decimals, summary = entry.column.decimals, entry.summary
                assert f"{summary.mean:.{decimals}f} ± {summary.std:.{decimals}f}n = {summary.n}" in table
                assert f"[{summary.mean - summary.half_width:.{decimals}f}, " in table
            if entry.within:
                assert f"within one run ± {entry.within.value:.{entry.column.decimals}f}" in table


def test_curves_pictures_and_comparisons() -> None:
    page = Page(html_page(REPORTS["one seed"]()))
    assert len(page.texts["svg"]) == 2 * 2 * 3, "two charts of three rows, each with a legend of one seed"
    assert "val/nll in training" in page.texts["title"][1]
    assert ("img", "120") in page.of("width")
    assert "−25.21 ± 0.12< 0.000110,000paired t-test" in page.texts["table"][1]
    assert "svg" not in Page(html_page(REPORTS["special"]())).texts, "no curves"
    assert grid().startswith(b"\x89PNG")


def test_every_text_is_a_text() -> None:
    page = Page(html_page(REPORTS["special"]()))
    shown = NASTY.replace("+-", "±").replace("-3", "−3")
    assert page.texts["h1"] == [shown]
    assert page.texts["title"] == [f"{shown}, reproduced"]
    assert page.texts["h3"] == [shown, "[b]"]
    assert yaml.safe_load(page.texts["pre"][1])["model"] == {"note": NASTY}, "configurations stay as they are"


# ---------------------------------------------------------------- curves


@pytest.mark.parametrize(
    ("low", "high"), [(0, 2000), (1.87, 4.1), (-0.003, 0.0041), (9.99e5, 1e6), (88, 150), (1e-9, 3e-9)]
)
def test_ticks_are_round_and_few_and_their_labels_say_what_they_are(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 7
    assert all(low - 1e-12 <= tick <= high + 1e-12 for tick in found)
    steps = [b - a for a, b in pairwise(found)]
    assert steps == pytest.approx([steps[0]] * len(steps), rel=1e-3)
    assert float(f"{steps[0]:.0e}"[0]) in (1, 2, 5)
    read = [float(text.replace("−", "-").replace(",", "")) for text in labels(found)]
    assert read == pytest.approx(found, rel=1e-2, abs=1e-12)


def test_points_of_a_curve_lie_where_the_axes_say() -> None:
    drawing = chart({"a": [(0, 1.0), (50, 2.0), (100, 3.0)], "b": [(0, float("nan")), (100, 1.0)]}, "<t>", "y & z", "c")
    (points,) = re.findall(r'<polyline [^>]*points="([^"]*)"', drawing)
    (x0, y0), (x1, y1), (x2, y2) = [tuple(map(float, point.split(","))) for point in points.split()]
    assert (x1 - x0, y1 - y0) == pytest.approx((x2 - x1, y2 - y1), abs=0.2)
    assert y0 > y1 > y2, "larger values are higher up"
    marks = {float(y): text for y, text in re.findall(r'y="([\d.]+)" text-anchor="end">([^<]*)<', drawing)}
    at_two = next(y for y, text in marks.items() if text == "2.0")
    assert at_two == pytest.approx(y1 + 4, abs=0.2), "a tick's text is centred on its line"
    assert drawing.count("<circle") == 1, "a series of one point"
    assert "&lt;t&gt;" in drawing
    assert "y &amp; z" in drawing
    assert chart({"a": []}, "t", "y", "c") == ""


def test_colours_and_dashes_tell_seeds_apart() -> None:
    drawing = chart({str(n): [(0, n), (1, n)] for n in range(24)}, "t", "y", "c")
    assert len(set(re.findall(r'class="curve" style="([^"]*)"', drawing))) == 24
