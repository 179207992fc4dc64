"""LaTeX: no text is a command, numbers are those of the summary, and it compiles where there is a pdflatex."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lit_gen.papers.output.latex import escaped, latex
from tests.papers.reports import NASTY, REPORTS

COMMANDS = {
    "begin", "end", "centering", "caption", "label", "footnotesize", "setlength", "tabcolsep", "linewidth", "toprule",
    "midrule", "bottomrule", "addlinespace", "multicolumn", "emph", "raggedright", "quad", "textsuperscript",
    "textendash", "smallskip", "texttt", "textbf", "allowbreak", "textbackslash", "textasciitilde", "textasciicircum",
    "textless", "textgreater", "textbar", "dag", "ddag", "pm", "le", "alpha", "downarrow", "uparrow",
}  # fmt: skip
SETS = {
    "textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textless": "<", "textgreater": ">",
    "textbar": "|",
}  # fmt: skip


def read_back(text: str) -> str:
    """What LaTeX would set."""
    text = (
        text.replace("$\\pm$", "±")
        .replace("$\\le$", "≤")
        .replace("$\\alpha$", "α")
        .replace("$-$", "−")
        .replace(r"\'{e}", "é")
    )
    text = text.replace("-{}-", "--").replace("\\`{}", "`").replace("''", '"')
    text = re.sub(r"\{([\[\]*])\}", r"\1", text)
    text = re.sub(r"\\([a-z]+)\{\}", lambda match: SETS[match[1]], text)
    return re.sub(r"(?<!\\)\\([&%$#_{}])", r"\1", text)


def test_every_special_character_is_set_as_itself() -> None:
    assert read_back(escaped(NASTY)) == NASTY.replace("+-", "±").replace("-3", "−3").replace("中", "U+4E2D")
    assert escaped("Ö ø ŝ Ž Δ Ρ π") == r"""\"{O} \o{} \^{s} \v{Z} $\Delta$ $\mathrm{P}$ $\pi$"""
    assert escaped("x² H₂O “a” – ---") == r"x\textsuperscript{2} H\textsubscript{2}O ``a'' \textendash{} -{}-{}-"


@pytest.mark.parametrize("name", REPORTS)
def test_the_source_is_well_formed(name: str) -> None:
    source = latex(REPORTS[name]()).split("\n", 1)[1]
    assert source.isascii()
    assert set(re.findall(r"\\([A-Za-z]+)", source)) <= COMMANDS
    # without labels, \& and its like, accents and ends of lines
    bare = re.sub(r"\\(?![A-Za-z]).", "", re.sub(r"\\label\{[a-z0-9:_]+\}", "", source))
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert not set('#_%^"|<>') & set(bare)
    for paragraph in bare.split("\n\n"):
        assert paragraph.count("$") % 2 == 0
    assert [source.count(rf"\{word}{{table}}") for word in ("begin", "end")] == [1, 1]
    for rule in ("toprule", "midrule", "bottomrule"):
        assert source.count(f"\\{rule}") == 1
    body = source.split("\\midrule\n")[1].split("\\bottomrule")[0]
    for line in body.splitlines():
        cells = len(re.findall(r"(?<!\\)&", line)) + 1
        assert cells == (1 if line.startswith((r"\multicolumn{6}", r"\addlinespace")) else 6), line
        assert line == r"\addlinespace" or line.endswith(r" \\")
    outside = source.replace(body, "")
    assert not re.search(r"(?<!\\)&", re.sub(r"(?m)^ & paper.*$", "", outside))


def test_numbers_are_those_of_the_summary() -> None:
    report = REPORTS["three seeds"]()
    summary = report.rows[0].entries["blocks"].summary
    low, high = summary.mean - summary.half_width, summary.mean + summary.half_width
    ours = rf"{summary.mean:.4f} $\pm$ {summary.std:.4f} & 3 & {{[}}{low:.4f}, {high:.4f}{{]}} & reproduced \\"
    assert f"& 1.88 & {ours}" in latex(report)
    assert r"& 1.4697 & \textendash{} & 0 & \textendash{} & not run \\" in latex(report)
    assert r"125.53\textsuperscript{\ddag{}} & 150.26 & 1 & \textendash{} & trend only \\" in latex(
        REPORTS["one seed"]()
    )
    assert r"29.6 $\pm$ 1.6\textsuperscript{a\dag{}}" in latex(REPORTS["some seeds"]())


def test_the_legend_says_why_and_what_was_compared() -> None:
    source = latex(REPORTS["one seed"]())
    assert r"$-$25.21 $\pm$ 0.12, $p$ \textless{} 0.0001 (paired t-test over test examples, 10,000 items)" in source
    assert "order as in the paper with" in source
    assert r"\textsuperscript{a}~$\pm$ standard error over test examples." in source
    assert "tiny budgets" in latex(REPORTS["quick"]())


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on the PATH")
@pytest.mark.parametrize("name", REPORTS)
def test_it_compiles(name: str, tmp_path: Path) -> None:
    document = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n%s\\end{document}\n"
    (tmp_path / "table.tex").write_text(document % latex(REPORTS[name]()))
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-3000:]
