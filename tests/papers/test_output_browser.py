"""The page in a browser: nothing scrolls sideways, no network is asked, every row opens, light and dark differ."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_gen.papers.output.html import html_page
from tests.papers.reports import REPORTS

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--allow-file-access-from-files",  # the page around it may look into the frames, which are files too
    "--enable-logging=stderr",
)  # fmt: skip
WIDTHS = (1280, 360)
"""Chromium's own window is never narrower than about 500 pixels, so that the pages stand in frames."""

MEASURE = """
<body style="margin: 0">%s<pre id="measured"></pre><script>
const sizes = frame => {
  const page = frame.contentDocument.documentElement
  return [page.scrollWidth, frame.contentWindow.innerWidth]
}
window.onload = () => {
  const found = []
  for (const frame of document.querySelectorAll("iframe")) {
    const one = {name: frame.title, closed: sizes(frame)}
    const page = frame.contentDocument
    page.querySelectorAll("details").forEach(details => { details.open = true })
    one.open = sizes(frame)
    one.height = page.documentElement.scrollHeight
    one.charts = [...page.querySelectorAll("figure > svg")].map(svg => svg.getBoundingClientRect().width)
    one.pictures = [...page.images].map(image => image.naturalWidth)
    one.scripts = page.scripts.length
    page.querySelectorAll("details").forEach(details => { details.open = false })
    const link = page.querySelector(".results a")
    frame.contentWindow.location.hash = link.hash
    one.target = page.querySelector(link.hash) !== null
    found.push(one)
  }
  setTimeout(() => {
    document.querySelectorAll("iframe").forEach((frame, number) => {
      const page = frame.contentDocument, link = page.querySelector(".results a")
      found[number].reached = page.querySelector(link.hash).closest("details").open
    })
    document.getElementById("measured").textContent = JSON.stringify(found)
  }, 100)
}
</script>
"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")


def browse(folder: Path, *words: str) -> subprocess.CompletedProcess:
    profile = folder / f"profile-{len(list(folder.glob('profile-*')))}"
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *words],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return done


def said(done: subprocess.CompletedProcess) -> list[str]:
    """What pages wrote into the browser's console, errors among it."""
    return [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def measured(folder: Path, pages: dict[str, str]) -> tuple[dict[str, dict], list[str]]:
    """Sizes of pages in frames of both widths, and what the console says."""
    frames = []
    for number, (name, page) in enumerate(pages.items()):
        (folder / f"{number}.html").write_text(page, encoding="utf-8")
        for width in WIDTHS:
            style = f"width: {width}px; height: 700px; border: 0; display: block"
            frames.append(f'<iframe title="{name} {width}" src="{number}.html" style="{style}"></iframe>')
    (folder / "frames.html").write_text(MEASURE % "".join(frames), encoding="utf-8")
    done = browse(
        folder, "--virtual-time-budget=5000", "--window-size=1400,900", "--dump-dom", (folder / "frames.html").as_uri()
    )
    text = re.search(r'<pre id="measured">(.*?)</pre>', done.stdout, re.DOTALL)
    assert text is not None, done.stdout[-2000:]
    return {one["name"]: one for one in json.loads(unescape(text[1]))}, said(done)


def test_pages_fit_into_every_width_and_write_no_error(tmp_path: Path) -> None:
    found, console = measured(tmp_path, {name: html_page(make()) for name, make in REPORTS.items()})
    assert console == []
    assert len(found) == len(REPORTS) * len(WIDTHS)
    for name, one in found.items():
        for state in ("closed", "open"):
            needed, there = one[state]
            assert there == int(name.split()[-1])
            assert needed <= there, f"{name}, {state}: {needed} px in {there}"
        assert one["height"] > 700
        assert one["scripts"] == 0
        assert one["target"]
        assert one["reached"], "a row's link opens what is behind the row"
    narrow, wide = found["three seeds 360"], found["three seeds 1280"]
    assert len(wide["charts"]) == len(narrow["charts"]) == 2 * 2
    assert all(width > 250 for width in narrow["charts"] + wide["charts"])
    assert found["one seed 360"]["pictures"] == [120] * 3


def test_the_policy_of_the_page_stops_every_request_and_the_measurement_would_see_what_is_too_wide(
    tmp_path: Path,
) -> None:
    page = html_page(REPORTS["quick"]())
    added = '<img src="https://example.org/x.png"><script>1</script><div style="width: 900px">wide</div></main>'
    found, console = measured(tmp_path, {"foreign": page.replace("</main>", added)})
    assert found["foreign 360"]["closed"][0] > 900
    assert found["foreign 1280"]["closed"] == [1280, 1280]
    assert any("Content Security Policy" in line and "example.org" in line for line in console)
    assert any("script" in line for line in console)


def test_screenshots_show_the_table_in_light_and_dark(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(html_page(REPORTS["three seeds"]()), encoding="utf-8")
    pictures = {}
    for scheme, number in (("light", 1), ("dark", 0)):
        browse(
            tmp_path, f"--blink-settings=preferredColorScheme={number}", "--window-size=1280,1100",
            f"--screenshot={tmp_path / scheme}.png", (tmp_path / "page.html").as_uri(),
        )  # fmt: skip
        pictures[scheme] = np.asarray(Image.open(tmp_path / f"{scheme}.png").convert("RGB")).astype(int)
    for picture in pictures.values():
        assert picture.shape == (1100, 1280, 3)
        background = picture[5, 5]
        written = (np.abs(picture - background).sum(-1) > 60).mean()
        assert 0.01 < written < 0.5, "text on a quiet ground"
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100
    assert pictures["light"].mean() > 200
    assert pictures["dark"].mean() < 80
