"""A paper's table as a file, ``configs/papers/KEY.yaml``: what was printed, and what is to be run beside it.

    title: On the Quantitative Analysis of Deep Belief Networks
    citation: Salakhutdinov and Murray, ICML 2008
    link: https://...
    table: table 1
    notes: [what a reader must know before comparing]
    columns:
      nll: {title: -log p, metric: test/nll, unit: nats, direction: lower, decimals: 2, tolerance: 0.5, error: test/nll_stderr,
            error_kind: example_stderr}
    data: {lit_gen.data.MNIST: 0123456789abcdef}         # content hash that every run's data must have
    needs: [{what: Inception weights, file: "{inception}"}]
    pairing: {column: nll, baseline: cd1, examples: test/nll}
    quick: {model.init_args.nll_samples: 10}             # overrides of --quick
    rows:
      cd1:
        name: CD-1
        config: configs/energy/rbm_cd1_mnist.yaml
        overrides: {trainer.max_epochs: 20}
        seeds: [0, 1, 2]
        minutes: 5                                       # estimated cost of one cell
        paper: {nll: {value: 125.53, error: 0.2, error_kind: seed_std, trust: unverified}}
        protocol: same | part | other                    # as the paper's; differs, but the order can be compared; neither
        differs: what differs
        rule: interval | at_least | trend | none
        tolerance: {nll: 1.0}

Everything in it is decided before anything is run.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from lit_gen.core.errors import UsageError, require
from lit_gen.core.strict import mapping, one_of
from lit_gen.core.tree import merged
from lit_gen.papers.table import (
    BOOTSTRAP,
    ERROR_KINDS,
    ESTIMATOR,
    PROTOCOLS,
    RULES,
    TRUST,
    Column,
    Need,
    Pairing,
    PaperTable,
    PaperValue,
    Row,
)

OVERRIDABLE = ("trainer", "model", "data", "checkpoint")
SLUG = re.compile(r"[a-z0-9][a-z0-9_]*")
TABLE_KEYS = ("title", "citation", "link", "table", "notes", "columns", "data", "needs", "pairing", "quick", "rows")
COLUMN_KEYS = ("title", "metric", "unit", "direction", "decimals", "scale", "tolerance", "error", "error_kind")
ROW_KEYS = (
    "name",
    "config",
    "overrides",
    "quick",
    "seeds",
    "minutes",
    "paper",
    "protocol",
    "differs",
    "rule",
    "tolerance",
)
VALUE_KEYS = ("value", "error", "error_kind", "trust")
PAIRING_KEYS = ("column", "baseline", "examples", "translations")


def read_table(path: str | Path) -> PaperTable:
    """Reads a table file.

    Raises:
        UsageError: it is missing, or something in it is not accepted; one line that names it.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"no table file at {path}; accepted: one such as configs/papers/rbm_likelihood.yaml"
        ) from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    try:
        return _table(path, mapping("the file", content, TABLE_KEYS))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _table(path: Path, content: dict[str, Any]) -> PaperTable:
    require(SLUG.fullmatch(path.stem) is not None, "its name", path.stem, "lower-case letters, digits and '_'")
    texts = {key: _text(key, content.get(key)) for key in ("title", "citation", "link", "table")}
    columns = tuple(_column(key, given) for key, given in _entries("columns", content.get("columns")).items())
    known = {column.key: column for column in columns}
    rows = tuple(_row(path, key, given, known) for key, given in _entries("rows", content.get("rows")).items())
    notes = _list("notes", content.get("notes", []))
    needs = tuple(_need(number, given) for number, given in enumerate(_list("needs", content.get("needs", []))))
    data = content.get("data", {})
    require(isinstance(data, dict), "data", data, "class paths with their content hashes")
    for class_path, digits in data.items():
        right = isinstance(digits, str) and re.fullmatch(r"[0-9a-f]{16}", digits)
        require(
            bool(right), f"data.{class_path}", repr(digits), "sixteen hexadecimal digits in quotes (data_hash of a run)"
        )
    quick = _overrides("quick", content.get("quick", {}))
    pairing = _pairing(content.get("pairing"), known, {row.key for row in rows})
    return PaperTable(
        path, **texts, notes=tuple(_text(f"notes.{i}", note) for i, note in enumerate(notes)), columns=columns, rows=rows,
        data=data, needs=needs, pairing=pairing, quick=quick,
    )  # fmt: skip


def _column(key: str, given: Any) -> Column:
    where = f"columns.{key}"
    given = mapping(where, given, COLUMN_KEYS)
    error, kind = given.get("error"), given.get("error_kind")
    require(
        (error is None) == (kind is None), f"{where}.error_kind", kind, "one where there is an error, none where not"
    )
    if error is not None:
        known = "/" in str(error) or error == ESTIMATOR or (error == BOOTSTRAP and given.get("metric") == "test/bleu")
        accepted = f"the name of a metric, {ESTIMATOR}, or {BOOTSTRAP} for test/bleu"
        require(known, f"{where}.error", error, accepted)
    return Column(
        key,
        _text(f"{where}.title", given.get("title")),
        _text(f"{where}.metric", given.get("metric")),
        str(given.get("unit", "")),
        one_of(f"{where}.direction", given.get("direction"), ("lower", "higher")) == "higher",
        _number(f"{where}.decimals", given.get("decimals", 2), least=0, whole=True),
        _number(f"{where}.scale", given.get("scale", 1.0)),
        _number(f"{where}.tolerance", given.get("tolerance", 0.0), least=0),
        None if error is None else _text(f"{where}.error", error),
        None if kind is None else one_of(f"{where}.error_kind", kind, ERROR_KINDS),
    )


def _row(path: Path, key: str, given: Any, columns: dict[str, Column]) -> Row:
    where = f"rows.{key}"
    given = mapping(where, given, ROW_KEYS)
    seeds = given.get("seeds", [0])
    valid = isinstance(seeds, list) and seeds and all(type(seed) is int and seed >= 0 for seed in seeds)
    require(bool(valid) and len(set(seeds)) == len(seeds), f"{where}.seeds", seeds, "a list of different integers")
    overrides = _overrides(f"{where}.overrides", given.get("overrides", {}))
    config = _config_path(f"{where}.config", path, _text(f"{where}.config", given.get("config")))
    paper = given.get("paper", {})
    values = {k: _value(f"{where}.paper.{k}", v) for k, v in mapping(f"{where}.paper", paper, columns).items()}
    tolerance = mapping(f"{where}.tolerance", given.get("tolerance", {}), columns)
    tolerance = {k: _number(f"{where}.tolerance.{k}", v, least=0) for k, v in tolerance.items()}
    protocol, differs = one_of(f"{where}.protocol", given.get("protocol"), PROTOCOLS), str(given.get("differs", ""))
    require((protocol == "same") == (not differs), f"{where}.differs", repr(differs),
            "what differs from the paper's protocol where that is not the same, nothing where it is")  # fmt: skip
    rule = one_of(f"{where}.rule", given.get("rule"), RULES)
    allowed = {"same": tuple(RULES), "part": ("trend", "none"), "other": ("none",)}[protocol]
    require(rule in allowed, f"{where}.rule", rule, f"{', '.join(allowed)} with protocol {protocol}")
    row = Row(
        key, _text(f"{where}.name", given.get("name")), config, overrides,
        _overrides(f"{where}.quick", given.get("quick", {})), tuple(seeds),
        _number(f"{where}.minutes", given.get("minutes"), least=0), values, protocol, differs, rule,
        {**{column.key: column.tolerance for column in columns.values()}, **tolerance},
        _experiment(where, config, overrides),
    )  # fmt: skip
    alone = rule in ("interval", "at_least") and len(seeds) == 1
    for column in values if alone else ():
        accepted = "more than 0, as one seed has no interval"
        require(row.tolerance[column] > 0, f"{where}.tolerance.{column}", row.tolerance[column], accepted)
    return row


def _config_path(where: str, path: Path, text: str) -> Path:
    """A configuration is looked for from here, and from the project to which ``configs/papers`` belongs."""
    for folder in (Path(), path.resolve().parents[2] if len(path.resolve().parents) > 2 else Path()):
        if (folder / text).is_file():
            return folder / text
    raise UsageError(f"{where}: no configuration at {text}")


def _experiment(where: str, config: Path, overrides: dict[str, Any]) -> dict[str, Any]:
    try:
        experiment = yaml.safe_load(config.read_text(encoding="utf-8"))
        return merged(mapping(str(config), experiment, experiment or ()), overrides)
    except yaml.YAMLError as error:
        raise UsageError(f"{config} is not valid YAML: {' '.join(str(error).split())}") from error
    except KeyError as error:
        raise UsageError(f"{where}.overrides: {error.args[0]}") from error


def _value(where: str, given: Any) -> PaperValue:
    given = mapping(where, given, VALUE_KEYS)
    error, kind = given.get("error"), given.get("error_kind")
    require(
        (error is None) == (kind is None), f"{where}.error_kind", kind, "one where there is an error, none where not"
    )
    return PaperValue(
        _number(f"{where}.value", given.get("value")),
        None if error is None else _number(f"{where}.error", error, least=0),
        None if kind is None else one_of(f"{where}.error_kind", kind, ERROR_KINDS),
        one_of(f"{where}.trust", given.get("trust"), TRUST),
    )


def _pairing(given: Any, columns: dict[str, Column], rows: set[str]) -> Pairing | None:
    if given is None:
        return None
    given = mapping("pairing", given, PAIRING_KEYS)
    examples, translations = given.get("examples"), given.get("translations")
    require((examples is None) != (translations is None), "pairing", given, "either examples or translations")
    column = one_of("pairing.column", given.get("column"), columns)
    return Pairing(column, one_of("pairing.baseline", given.get("baseline"), sorted(rows)), examples, translations)


def _need(number: int, given: Any) -> Need:
    given = mapping(f"needs.{number}", given, ("what", "file"))
    return Need(*(_text(f"needs.{number}.{key}", given.get(key)) for key in ("what", "file")))


def _overrides(where: str, given: Any) -> dict[str, Any]:
    require(isinstance(given, dict), where, given, "dotted keys with their values")
    for key in given:
        first = str(key).split(".")[0]
        if first not in OVERRIDABLE:
            raise UsageError(f"{where}: key {key}: accepted: keys below {', '.join(OVERRIDABLE)}")
    return given


def _entries(where: str, given: Any) -> dict[str, Any]:
    require(isinstance(given, dict) and bool(given), where, given, "at least one entry")
    for key in given:
        require(isinstance(key, str) and SLUG.fullmatch(key) is not None, f"a key of {where}", key,
                "lower-case letters, digits and '_'")  # fmt: skip
    return given


def _list(where: str, given: Any) -> list[Any]:
    require(isinstance(given, list), where, given, "a list")
    return given


def _text(where: str, given: Any) -> str:
    require(isinstance(given, str) and bool(given.strip()), where, given, "a text")
    return " ".join(given.split())


def _number(where: str, given: Any, least: float = float("-inf"), whole: bool = False) -> Any:
    kinds = int if whole else (int, float)
    valid = isinstance(given, kinds) and not isinstance(given, bool) and least <= given < float("inf")
    accepted = f"{'a whole number' if whole else 'a number'}{'' if least == float('-inf') else f' of {least} or more'}"
    require(valid, where, given, accepted)
    return given if whole else float(given)
