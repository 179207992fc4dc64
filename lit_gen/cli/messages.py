"""One line for each mistake in a configuration: the parser's own messages run over a page."""

from __future__ import annotations

import difflib
import inspect
import itertools
import pkgutil
import re
from importlib import import_module
from typing import Any

import lit_gen

KEY = re.compile(r'Parser key "([^"]+)"')
CLASS_PATH = re.compile(r"(?:given class_path '|Namespace\(class_path=')([\w.]+)'")
UNKNOWN_KEY = re.compile(r"Option '([^']+)' is not accepted")
UNKNOWN_IN_GROUP = re.compile(r"Group '([^']+)' does not accept option '([^']+)'")
MISSING_CLASS = re.compile(
    r"has no attribute '(\w+)'|No module named '([\w.]+)'|Expected a dot import path string: (\S+)"
)
NOT_SUBCLASS = re.compile(r"does not correspond to a subclass of (\w+)")
SUBTYPES = re.compile(r"Subtypes: \[(.*)\]")
EXPECTED = re.compile(r"Expected an? <class '([\w.]+)'>\. Got value: (.+?)(?:\. Got value: Namespace|$)", re.MULTILINE)
GIVEN = re.compile(r"Given value: (.+?)(?:\. Got value: Namespace.*)?$", re.MULTILINE)
MISSING_FILE = re.compile(r"File does not exist: '?([^'\n]+)'?")


def one_line(error: Exception, parser: Any, args: list[str]) -> str:
    """What is wrong and what would be accepted, in one line.

    Args:
        error: raised by the parser.
        parser: the parser, whose options are proposed for a misspelt one.
        args: the words that were parsed.
    """
    text = str(error)
    path = [part for key in KEY.findall(text) for part in key.split(".")]
    where = path[0] if path else ""
    for part in path[1:]:
        where += f".{part}" if path[0] not in ("model", "data") else f".init_args.{part}"
    class_paths = CLASS_PATH.findall(text)

    if match := MISSING_FILE.search(text):
        return f"file {match[1].rsplit('/', 1)[-1]!r} does not exist: {match[1]}"
    if match := re.search(r"unrecognized arguments: (\S+)", text):
        option = match[1].split("=")[0]
        return f"unknown option {option}: {proposal(option, parser._option_string_actions)}"
    if match := re.search(r"following arguments are required: (.+)", text):
        return f"missing {match[1]}: give them by --config FILE (such as configs/gan/dcgan_digits.yaml) or as options"
    if match := UNKNOWN_IN_GROUP.search(text):
        group = f"--{match[1]}."
        names = [name[len(group) :] for name in parser._option_string_actions if name.startswith(group)]
        return f"unknown key {match[1]}.{match[2]}: {proposal(match[2], names)}"
    if match := UNKNOWN_KEY.search(text):
        if not class_paths:
            names = [name.removeprefix("--") for name in parser._option_string_actions if name.startswith("--")]
            return f"unknown key {match[1]}: {proposal(match[1], names)}"
        owner = class_paths[-1]
        return f"unknown key {where}.init_args.{match[1]} of {owner}: {proposal(match[1], parameters(owner))}"
    if text.startswith("Problems parsing config"):
        configs = [after for word, after in itertools.pairwise(args) if word in ("-c", "--config")]
        return f"{', '.join(configs)} is not valid YAML: {shorten(text.split(':', 1)[1])}"
    if match := EXPECTED.search(text):
        return f"{where} = {match[2]}: expected {match[1]}"
    if match := re.search("Expected a <class 'float'>", text) and SUBTYPES.search(text):
        return f"{where} = {GIVEN.findall(text)[0]}: expected a number"
    if match := MISSING_CLASS.search(text):
        wanted = next(filter(None, match.groups()))
        given = class_paths[-1] if class_paths and class_paths[-1].endswith(wanted) else wanted
        return f"{where}: class {given!r} does not exist: {proposal(given, public_classes(path[0] if len(path) == 1 else ''))}"
    if match := NOT_SUBCLASS.search(text):
        given = GIVEN.search(text)
        return f"{where} = {given[1] if given else '?'} is not a {match[1]}: accepted is a class path of one"
    subtypes, given = SUBTYPES.findall(text), GIVEN.findall(text)
    if subtypes and given:
        names = re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", subtypes[-1]).replace("NoneType", "null")
        inner = given[0] if len(path) > 1 else given[-1]
        return f"{where} = {shorten(inner)}: expected one of {names}"
    return shorten(text, 400)


def proposal(word: str, known: Any) -> str:
    """The closest known name, or the list of them."""
    known = sorted(known)
    # a class may be misspelt in its last part, or given without its module
    by_last_part = {name.rsplit(".", 1)[-1]: name for name in known}
    last_parts = difflib.get_close_matches(word.rsplit(".", 1)[-1], by_last_part, n=1)
    close = difflib.get_close_matches(word, known, n=1) or [by_last_part[part] for part in last_parts]
    if close:
        return f"did you mean {close[0]}?"
    shown = ", ".join(known[:30]) + (", ..." if len(known) > 30 else "")
    return f"accepted: {shown}" if known else "nothing is accepted here"


def shorten(text: str, limit: int = 160) -> str:
    """The text on one line of at most ``limit`` characters."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def parameters(class_path: str) -> list[str]:
    """Names that a class takes in its configuration; empty where it cannot be imported."""
    module, _, name = class_path.rpartition(".")
    try:
        signature = inspect.signature(getattr(import_module(module), name))
    except (ImportError, AttributeError, TypeError, ValueError):
        return []
    return [parameter for parameter in signature.parameters if parameter != "self"]


def import_families() -> list[str]:
    """Imports every package of lit_gen (a new family needs no entry anywhere) and returns their names."""
    names = [f"lit_gen.{found.name}" for found in pkgutil.iter_modules(lit_gen.__path__) if found.ispkg]
    return [import_module(name).__name__ for name in names if name != "lit_gen.cli"]


def public_classes(key: str) -> list[str]:
    """Class paths of what lit_gen offers for ``model``, for ``data``, or (any other key) for their parts."""
    from pytorch_lightning import LightningDataModule, LightningModule

    found = []
    for module in map(import_module, import_families()):
        for name in getattr(module, "__all__", []):
            member = getattr(module, name)
            if inspect.isclass(member) and not inspect.isabstract(member):
                model, data = issubclass(member, LightningModule), issubclass(member, LightningDataModule)
                if {"model": model, "data": data}.get(key, not (model or data)):
                    found.append(f"{module.__name__}.{name}")
    return found
