"""The version of the code behind a number: a hash of the source files that define it, without comments and docstrings.

Nothing is imported (torch takes seconds): imports are followed in the syntax tree, from the classes that a configuration
names to all that they use within lit_gen. An edit elsewhere leaves the version as it is; so do comments, docstrings and
blank lines.
"""

from __future__ import annotations

import ast
import hashlib
import io
import tokenize
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import lit_gen

PACKAGE = Path(lit_gen.__file__).parent


def class_paths(config: Any) -> Iterator[str]:
    """All class paths of lit_gen's own classes in a configuration."""
    if isinstance(config, dict):
        for value in config.values():
            yield from class_paths(value)
    elif isinstance(config, list):
        for value in config:
            yield from class_paths(value)
    elif isinstance(config, str) and config.startswith("lit_gen."):
        yield config


def code_files(config: Any) -> list[Path]:
    """The source files that define what a configuration names, and all that these import of lit_gen, sorted."""
    found: set[Path] = set()
    waiting = [file for path in class_paths(config) if (file := _definition(path))]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += _imports(file)
    return sorted(found)


def code_version(config: Any) -> str:
    """Twelve hexadecimal digits for the code of everything that a configuration names.

    Args:
        config: of a run, as plain data.
    """
    digest = hashlib.sha256()
    for file in code_files(config):
        digest.update(f"{file.relative_to(PACKAGE).as_posix()}\n{_bare_hash(file)}\n".encode())
    return digest.hexdigest()[:12]


@cache
def _bare_hash(file: Path) -> str:
    return hashlib.sha256(bare_source(file.read_text(encoding="utf-8")).encode()).hexdigest()


def bare_source(source: str) -> str:
    """A source text without comments, docstrings, blank lines and trailing white space."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        for text in _docstrings(node):
            before = lines[text.lineno - 1].encode()[: text.col_offset].decode()  # columns count bytes
            lines[text.lineno - 1 : text.end_lineno] = [before] + [""] * (text.end_lineno - text.lineno)
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _docstrings(node: ast.AST) -> Iterator[ast.Expr]:
    """The strings in a body that are statements: docstrings, also those of attributes."""
    body = getattr(node, "body", None)
    for statement in body if isinstance(body, list) else ():
        alone = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if alone and isinstance(statement.value.value, str):
            yield statement


@cache
def _definition(path: str) -> Path | None:
    """The file that defines ``lit_gen.package.Name`` (or the module of that name), found through re-exports; None for none."""
    if file := _module_file(path):
        return None if file.name == "__init__.py" else file
    module, _, name = path.rpartition(".")
    file = _module_file(module)
    if file is None:
        return _definition(module) if module.startswith("lit_gen.") else None  # a method of a class
    return _re_exports(file).get(name, file)


@cache
def _re_exports(file: Path) -> dict[str, Path]:
    """For each name that a file takes from lit_gen: where it is defined."""
    names: dict[str, Path] = {}
    for node in _nodes(file):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lit_gen"):
            for alias in node.names:
                if defined := _definition(f"{node.module}.{alias.name}"):
                    names[alias.asname or alias.name] = defined
    return names


@cache
def _imports(file: Path) -> tuple[Path, ...]:
    """The files of lit_gen that a file imports, wherever in it; what is imported for type checkers alone does not count."""
    found = set(_re_exports(file).values())
    for node in _nodes(file):
        if isinstance(node, ast.Import):
            found |= {defined for alias in node.names if (defined := _module_file(alias.name))}
    return tuple(found - {file, PACKAGE / "__init__.py"})


@cache
def _nodes(file: Path) -> tuple[ast.AST, ...]:
    def visit(node: ast.AST) -> Iterator[ast.AST]:
        yield node
        for child in ast.iter_child_nodes(node):
            if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
                yield from visit(child)

    return tuple(visit(ast.parse(file.read_text(encoding="utf-8"))))


@cache
def _module_file(module: str) -> Path | None:
    parts = module.split(".")
    if parts[0] != "lit_gen":
        return None
    place = PACKAGE.joinpath(*parts[1:])
    candidates: Iterable[Path] = (place.with_suffix(".py"), place / "__init__.py")
    return next((file for file in candidates if file.is_file()), None) if len(parts) > 1 else None
