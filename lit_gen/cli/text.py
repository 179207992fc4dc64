"""The text side of ``lit-gen sample``: translations, and running text from a prompt."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from lit_gen.cli.text_files import Unknown, opened_for_writing, source_lines
from lit_gen.core.errors import UsageError, require

if TYPE_CHECKING:
    from lit_gen.core.text import Vocabulary
    from lit_gen.text.decoding import Decoding, Hypothesis

SEARCH = ("beam", "n_best", "penalty", "alpha", "min_length", "max_length")
HEAD = ("temperature", "top_k", "top_p")
TRANSLATION = ("source", "source_file", "attention", *SEARCH)
RUNNING_TEXT = ("prompt", "length")
TEXT = (*TRANSLATION, *RUNNING_TEXT, *HEAD, "greedy", "scores", "batch")
"""Options that are for text alone."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the group of options that models of text take."""
    group = parser.add_argument_group(
        "text",
        "Sequence-to-sequence models translate, language models write running text. Lengths count the end of sentence.",
    )
    given = group.add_mutually_exclusive_group()
    given.add_argument("--source", metavar="TEXT", help="the sentence to translate")
    given.add_argument("--source-file", metavar="FILE", help="translate a file line by line; - is standard input")
    given.add_argument(
        "--prompt", metavar="TEXT", help="what a language model goes on from (default: the beginning of a line)"
    )
    group.add_argument("--beam", type=int, metavar="K", help="beam search with K hypotheses (default 1: greedy)")
    group.add_argument("--greedy", action="store_true", help="the most probable token at each step")
    group.add_argument(
        "--n-best",
        type=int,
        metavar="N",
        help="the N best, each on a line; those of a file after the number of the source line and a tab",
    )
    group.add_argument(
        "--scores", action="store_true", help="print score and log-probability (nats) before each text, with tabs"
    )
    group.add_argument("--penalty", choices=("gnmt", "power"), help="length penalty of a beam's scores (default gnmt)")
    group.add_argument("--alpha", type=float, help="its strength (default 0.6)")
    group.add_argument("--min-length", type=int, metavar="N", help="fewest tokens of a translation")
    group.add_argument("--max-length", type=int, metavar="N",
                       help="most tokens of a translation (default: 50 more than the source has)")  # fmt: skip
    group.add_argument("--length", type=int, metavar="N", help="tokens of running text (default 200)")
    group.add_argument(
        "--temperature", type=float, metavar="T", help="sample at this temperature (running text: default 1)"
    )
    group.add_argument("--top-k", type=int, metavar="K", help="sample among the K most probable tokens")
    group.add_argument(
        "--top-p", type=float, metavar="P", help="sample among the fewest tokens of probability P in all"
    )
    group.add_argument("--batch", type=int, metavar="N",
                       help="sentences or texts decoded at once (default 50): for speed and memory")  # fmt: skip
    group.add_argument("--attention", type=Path, metavar="PNG", help="draw what the translation of --source attends to")


def spelled(name: str) -> str:
    """An option as it is written on the command line."""
    return "--" + name.replace("_", "-")


def given(options: argparse.Namespace, names: Iterable[str]) -> list[str]:
    """Those of the options that were written."""
    values = ((name, getattr(options, name)) for name in names)
    return [name for name, value in values if value is not None and value is not False]


def check_options(options: argparse.Namespace) -> None:
    """Looks at what can be judged without the model.

    Raises:
        UsageError: an option out of range, or without effect beside the others.
    """
    for name in ("beam", "n_best", "min_length", "max_length", "length", "batch", "top_k"):
        value = getattr(options, name)
        require(value is None or value >= 1, spelled(name), value, "1 or more")
    require(options.alpha is None or 0 <= options.alpha < float("inf"), "--alpha", options.alpha, "0 or more")
    require(
        options.temperature is None or 0 <= options.temperature < float("inf"),
        "--temperature",
        options.temperature,
        "0 or more",
    )
    require(options.top_p is None or 0 < options.top_p <= 1, "--top-p", options.top_p, "more than 0, at most 1")
    translating = given(options, ("source", "source_file"))
    refuse(options, RUNNING_TEXT if translating else (), f"{', '.join(map(spelled, translating))}")
    if options.prompt is not None:
        refuse(options, TRANSLATION, "--prompt")
    if options.greedy:
        refuse(options, ("beam", *HEAD), "--greedy")
    if given(options, ("beam",)):
        refuse(options, HEAD, "--beam")
    if options.source is not None and not options.source.strip():
        raise UsageError("--source is empty; accepted: a sentence")
    if options.source_file not in (None, "-") and not Path(options.source_file).is_file():
        raise UsageError(f"--source-file {options.source_file}: there is no such file; accepted: a text file, or -")
    if options.attention is not None:
        require(options.source is not None, "--attention", options.attention, "together with --source")
        require(options.attention.suffix == ".png", "--attention", options.attention, "a file name ending in .png")
    if (options.beam or 1) == 1:
        refuse(options, ("penalty", "alpha"), "a beam of 1")
    if options.min_length and options.max_length:
        require(
            options.min_length <= options.max_length,
            "--min-length",
            options.min_length,
            f"1 to --max-length {options.max_length}",
        )
    n_best, beam = options.n_best or 1, options.beam or 1
    require(n_best <= beam, "--n-best", n_best, f"1 to --beam {beam}")


def refuse(options: argparse.Namespace, names: Iterable[str], beside: str) -> None:
    """Raises a UsageError where one of the options was written beside another that leaves it without effect."""
    for name in given(options, names):
        raise UsageError(f"{spelled(name)} has no effect with {beside}")


def main(model: Any, options: argparse.Namespace) -> int:
    """Writes what was asked for; returns the exit code.

    Raises:
        UsageError: options that do not fit the model.
    """
    kind = type(model).__name__
    if model.spec.source is None:
        for name in given(options, TRANSLATION):
            raise UsageError(f"{spelled(name)}: a {kind} translates nothing; accepted is --prompt")
        run = write_running_text
    else:
        for name in given(options, RUNNING_TEXT):
            raise UsageError(f"{spelled(name)}: a {kind} translates; accepted is --source or --source-file")
        if not given(options, ("source", "source_file")):
            raise UsageError(f"a {kind} translates: give --source TEXT or --source-file FILE")
        if options.temperature is None:
            for name in given(options, ("top_k", "top_p", "n", "seed")):
                raise UsageError(f"{spelled(name)} belongs to samples: give --temperature too")
        run = translate
    with opened_for_writing(options.out, options.source_file) as out:
        run(model, options, out)
    return 0


# -------------------------------------------------------------------- translations


def translate(model: Any, options: argparse.Namespace, out: TextIO) -> None:
    """One line for each hypothesis of each source line, in the order of the source, as they are made.

    A line is the text; with ``--scores`` score, log-probability and text; where a line of a file has several hypotheses, the
    line's number comes before all that. Columns are separated by tabs.
    """
    from lit_gen.text.decoding import decode_stream

    decoding, unknown = decoding_of(options), Unknown(model.spec.source)
    batch = options.batch or 50
    with source_lines(options.source, options.source_file) as (lines, interactive):
        found = decode_stream(model, unknown.watch(lines), decoding, 1 if interactive else batch)
        for number, hypotheses in enumerate(found, 1):
            numbered = options.source_file is not None and decoding.n_best > 1
            if options.attention is not None:
                draw_attention(model, options, hypotheses[0])
            for hypothesis in hypotheses or [None]:
                print("\t".join(columns(model, hypothesis, options.scores, number if numbered else None)), file=out)
            out.flush()
    unknown.report()


def decoding_of(options: argparse.Namespace) -> "Decoding":
    """The options of decoding, from those of the command line."""
    from lit_gen.text.decoding import Decoding

    chosen = {name: getattr(options, name) for name in given(options, (*SEARCH, *HEAD, "seed"))}
    if options.max_length is not None:  # whatever the length of the source
        chosen["max_extra"] = options.max_length
    if options.temperature is not None:
        chosen["n_best"] = options.n or 1
    return Decoding(**chosen)


def columns(model: Any, hypothesis: "Hypothesis | None", scores: bool, number: int | None) -> Iterator[str]:
    """The columns of one line of output; without a hypothesis (of an empty line) the text is empty."""
    if number is not None:
        yield str(number)
    if scores:
        yield "" if hypothesis is None else f"{hypothesis.score:.4f}"
        yield "" if hypothesis is None else f"{hypothesis.log_probability:.4f}"
    yield "" if hypothesis is None else " ".join(model.spec.target.decode(hypothesis.tokens).split("\n"))


def draw_attention(model: Any, options: argparse.Namespace, hypothesis: "Hypothesis") -> None:
    from lit_gen.core.text import EOS
    from lit_gen.text.attention_map import attention_map, draw
    from lit_gen.text.decoding.decode import encoded

    (source,) = encoded(model.spec.source, [options.source])
    end = [EOS] if hypothesis.finished else []
    draw(attention_map(model, [*source, EOS], [*hypothesis.tokens, *end]), options.attention)


# -------------------------------------------------------------------- running text


def write_running_text(model: Any, options: argparse.Namespace, out: TextIO) -> None:
    """The prompt and what the model makes of it, n times; several are separated by a line of dashes."""
    from lit_gen.text.decoding import generate

    vocabulary, n = model.spec.target, options.n or 1
    unknown = Unknown(vocabulary)
    prompt = prompt_tokens(vocabulary, options.prompt)
    list(unknown.watch((options.prompt or "").split("\n")))
    unknown.report()
    texts = generate(
        model, prompt, n, length=options.length or 200, top_k=options.top_k, top_p=options.top_p, seed=options.seed or 0,
        temperature=0.0 if options.greedy else 1.0 if options.temperature is None else options.temperature,
        batch=options.batch or 50,
    )  # fmt: skip
    shown = prompt if options.prompt else []
    for number, text in enumerate(texts):
        if number:
            print("-" * 40, file=out)
        if options.scores:
            print(f"log p = {text.log_probability:.4f} nats, {len(text.tokens)} tokens", file=out)
        print(lines_of(vocabulary, [*shown, *text.tokens]), file=out, flush=True)


def prompt_tokens(vocabulary: "Vocabulary", prompt: str | None) -> list[int]:
    """The tokens of a prompt; where there is none the end of a line, after which a new one begins.

    A line ends with a character of its own where the vocabulary has one, and with eos otherwise.
    """
    from lit_gen.core.text import EOS, UNK

    end = vocabulary.encode("\n")
    if not end or UNK in end:
        lines = [vocabulary.encode(line) for line in (prompt or "\n").split("\n")]
        tokens = [token for line in lines for token in [EOS, *line]][1:]
    else:
        tokens = vocabulary.encode(prompt or "\n")
    return tokens


def lines_of(vocabulary: "Vocabulary", tokens: list[int]) -> str:
    """The text of tokens in which eos ends a line."""
    from lit_gen.core.text import EOS

    lines: list[list[int]] = [[]]
    for token in tokens:
        if token == EOS:
            lines.append([])
        else:
            lines[-1].append(token)
    return "\n".join(map(vocabulary.decode, lines))
