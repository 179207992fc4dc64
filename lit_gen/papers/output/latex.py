"""A report as a LaTeX table, for article with booktabs."""

from __future__ import annotations

import re
import unicodedata

from lit_gen.papers.output import numbers, words
from lit_gen.papers.output.words import Marks
from lit_gen.papers.report import Entry, RowReport, TableReport
from lit_gen.papers.table import Column

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "`": r"\`{}", "[": "{[}", "]": "{]}", "*": "{*}",
    "±": r"$\pm$", "−": "$-$", "×": r"$\times$", "·": r"$\cdot$", "≤": r"$\le$", "≥": r"$\ge$", "≈": r"$\approx$",
    "≠": r"$\ne$", "∞": r"$\infty$", "→": r"$\to$", "←": r"$\leftarrow$", "↑": r"$\uparrow$", "↓": r"$\downarrow$",
    "°": r"$^\circ$", "∈": r"$\in$", "√": r"$\surd$", "∑": r"$\sum$", "ℓ": r"$\ell$", "«": r"$\ll$", "»": r"$\gg$",
    "–": r"\textendash{}", "—": r"\textemdash{}", "“": "``", "”": "''", "„": "''", "‘": "`", "’": "'", "…": r"\ldots{}",
    "†": r"\dag{}", "‡": r"\ddag{}", "§": r"\S{}", "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ø": r"\o{}",
    "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}", "\u00a0": "~", "\u202f": r"\,", "\u2009": r"\,",
}  # fmt: skip
"""Characters that stand for something else in LaTeX, or that its fonts do not have. A bracket or an asterisk after the
end of a line would be read as its option."""

ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u0304": "=", "\u0307": ".",
    "\u030a": "r", "\u030c": "v", "\u0306": "u", "\u030b": "H", "\u0327": "c", "\u0328": "k",
}  # fmt: skip
GREEK = {chr(code): unicodedata.name(chr(code)).rsplit(" ", 1)[-1].lower() for code in range(0x3B1, 0x3CA)}
LATIN_CAPITALS = {
    "alpha": "A", "beta": "B", "epsilon": "E", "zeta": "Z", "eta": "H", "iota": "I", "kappa": "K", "mu": "M", "nu": "N",
    "omicron": "O", "rho": "P", "tau": "T", "chi": "X",
}  # fmt: skip


def escaped(text: str) -> str:
    """A text as it stands. What LaTeX cannot set without further packages becomes its code point, such as U+4E2D."""
    text = unicodedata.normalize("NFC", numbers.typographic(text))
    return re.sub("-(?=-)", "-{}", "".join(map(_character, text)))  # two hyphens would become a dash


def latex(report: TableReport) -> str:
    r"""A ``table`` environment with a line for each row and quantity, a caption, and a legend below.

    It needs ``\usepackage{booktabs}``.
    """
    table, marks = report.table, Marks.of(report)
    grouped = len(table.columns) > 1
    title = f"{escaped(table.title)} ({escaped(table.citation)}): {escaped(table.table)}."
    if not grouped:
        title += f" {_quantity(table.columns[0])}."
    if report.quick:
        title += rf" \textbf{{{escaped(words.QUICK)}}}"
    lines = [
        "% \\usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{title}}}",
        rf"\label{{tab:{table.key}}}",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{3pt}",
        r"\begin{tabular}{@{}p{0.24\linewidth}rrrll@{}}",
        r"\toprule",
        r" & paper & ours & $n$ & 95\,\% interval & verdict \\",
        r"\midrule",
    ]
    for number, row in enumerate(report.rows):
        lines += [r"\addlinespace"] if number and grouped else []
        lines += _lines(row, marks, grouped)
    lines += [
        r"\bottomrule",
        r"\end{tabular}",
        "",
        r"\smallskip",
        r"\raggedright",
        *_legend(report, marks),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _lines(row: RowReport, marks: Marks, grouped: bool) -> list[str]:
    """The lines of a row: its name above its quantities, or beside the only one."""
    name = escaped(row.row.name)
    lines = [rf"\multicolumn{{6}}{{@{{}}l@{{}}}}{{\emph{{{name}}}}} \\"] if grouped else []
    for entry in words.entries_told(row):
        first = "\\raggedright " + (rf"\quad {_quantity(entry.column)}" if grouped else name)
        summary = entry.summary
        ours = [words.NOTHING, "0", words.NOTHING]
        if summary:
            ours = [numbers.mean_and_deviation(summary, entry.column), str(summary.n)]
            ours += [numbers.interval(summary, entry.column) or words.NOTHING]
        verdict = entry.verdict.kind.value if words.has_verdict(entry) else words.NOTHING
        lines.append(" & ".join([first, _paper(entry, marks), *map(escaped, [*ours, verdict])]) + r" \\")
    return lines


def _paper(entry: Entry, marks: Marks) -> str:
    if entry.paper is None:
        return escaped(words.NOTHING)
    value, error = numbers.printed(entry.paper)
    mark = marks.beside(entry.paper)
    return escaped(f"{value}{f' ± {error}' if error else ''}") + (
        rf"\textsuperscript{{{escaped(mark)}}}" if mark else ""
    )


def _legend(report: TableReport, marks: Marks) -> list[str]:
    kinds = [
        (rf"\textsuperscript{{{escaped(mark)}}}~" if mark else "Without a sign: ") + f"{escaped(text)}."
        for mark, text in marks.legend()
    ]
    differing = [
        f"{escaped(row.row.name)}: {escaped(row.row.differs)}." for row in report.rows if row.row.differs
    ]  # fmt: skip
    judged = [f"{escaped(which)}: {escaped(str(verdict))}." for which, verdict in words.reasons(report)]
    within = [
        f"{escaped(row.row.name)}, {escaped(entry.column.title)}: {_within(entry, marks)}"
        for row in report.rows
        for entry in row.entries.values()
        if entry.within
    ]
    compared = [
        f"{escaped(one.row)} minus {escaped(one.baseline)}, {escaped(one.column)}: {escaped(one.difference)}, "
        f"$p$ {escaped(one.p)} ({escaped(one.method)}, {one.n} items)."
        for one in words.comparisons(report)
    ]
    source = escaped(report.table.link).replace("/", r"/\allowbreak{}")
    paragraphs = [
        [f"Ours: {escaped(words.SEEDS)}.", *kinds],
        within and ["Errors within one run, which are no variance over seeds:", "; ".join(within) + "."],
        judged and ["Verdicts:", *judged],
        differing and ["Protocols:", *differing],
        compared and ["On the same test items:", *compared],
        [rf"Source: \texttt{{{source}}}."],
    ]
    return "\n\n".join(" ".join(paragraph) for paragraph in paragraphs if paragraph).splitlines()


def _within(entry: Entry, marks: Marks) -> str:
    mark = rf"\textsuperscript{{{marks.letters[entry.within.kind]}}}"
    return escaped(f"± {numbers.shown(entry.within.value, entry.column)}") + mark


def _quantity(column: Column) -> str:
    return f"{escaped(words.heading(column))} {escaped('↑' if column.higher else '↓')}"


def _character(character: str) -> str:
    if character in SPECIAL:
        return SPECIAL[character]
    if character in GREEK or character.lower() in GREEK:
        return _greek(character)
    if character.isascii() and character.isprintable():
        return character
    whole = unicodedata.normalize("NFKD", character)
    if len(whole) == 2 and whole[0].isascii() and whole[0].isalpha() and whole[1] in ACCENTS:
        base = {"i": r"\i", "j": r"\j"}.get(whole[0], whole[0])
        return rf"\{ACCENTS[whole[1]]}{{{base}}}"
    if unicodedata.decomposition(character).startswith(("<super>", "<sub>")):
        script = "super" if unicodedata.decomposition(character).startswith("<super>") else "sub"
        return rf"\text{script}script{{{''.join(map(_character, whole))}}}"
    return f"U+{ord(character):04X}"


def _greek(character: str) -> str:
    """A letter in mathematics; some capitals are those of the Latin alphabet."""
    if character == "ς":
        return r"$\varsigma$"
    name = GREEK[character.lower()]
    name = {"lamda": "lambda"}.get(name, name)
    if character.islower():
        return "$o$" if name == "omicron" else rf"$\{name}$"
    latin = LATIN_CAPITALS.get(name)
    return rf"$\mathrm{{{latin}}}$" if latin else rf"$\{name.capitalize()}$"
