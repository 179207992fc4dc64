"""The records of a table's runs, small JSON files in ``results/KEY/``: what the tables in README and docs are written from.

results/KEY/
    ROW-seedN.json      the run's result.json and configuration, its curves, which cell it was; a checksum over all
    ROW-seedN.png       its last sample grid, where it made one
    comparisons.json    paired comparisons of rows, made while the runs' own values per test item were at hand
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
import shutil
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lit_gen.core.errors import LitGenError
from lit_gen.core.run_dir import RunDir, write_atomically
from lit_gen.core.tree import flatten, merged
from lit_gen.jobs.run_files import read_config, read_result
from lit_gen.papers.cell import INCEPTION, Cell
from lit_gen.papers.statistics import Comparison, bootstrap_bleu
from lit_gen.papers.table import BOOTSTRAP, ESTIMATOR, Column

FORMAT = 1
CURVE_POINTS = 60


class CorruptRecord(LitGenError):
    """A record that cannot be read, or that is not what was written."""


@dataclass(frozen=True)
class Records:
    """The records of one table.

    Args:
        folder: ``results/KEY``.
    """

    folder: Path

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def read(self, name: str) -> dict[str, Any] | None:
        """The record of a cell's name, whatever run it is of; None where there is none.

        Raises:
            CorruptRecord: saying what is wrong with it.
        """
        try:
            text = self.path(name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise CorruptRecord(f"{self.path(name)} cannot be read: {error}") from error
        try:
            record = json.loads(text)
        except ValueError as error:
            raise CorruptRecord(f"{self.path(name)} is no JSON: {error}") from error
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise CorruptRecord(f"{self.path(name)} is no record of format {FORMAT}")
        if record.get("checksum") != checksum(record):
            raise CorruptRecord(f"{self.path(name)} is not what was written: its checksum differs")
        return record

    def picture(self, name: str) -> bytes | None:
        """The sample grid of a cell, PNG."""
        file = self.path(name).with_suffix(".png")
        return file.read_bytes() if file.is_file() else None

    def collect(self, cell: Cell) -> dict[str, Any]:
        """Makes the record of a finished run and writes it.

        Raises:
            CorruptRecord: its result.json cannot be read.
            LitGenError: the run read other data than the table says.
        """
        record = record_of(cell)
        self.folder.mkdir(parents=True, exist_ok=True)
        picture, grids = self.path(cell.name).with_suffix(".png"), sorted(cell.run.samples.glob("step-*.png"))
        if grids:
            shutil.copyfile(grids[-1], picture)
        else:
            picture.unlink(missing_ok=True)
        write_atomically(self.path(cell.name), json.dumps(record, indent=1, sort_keys=True) + "\n")
        return record

    # ---------------------------------------------------------------- comparisons

    @property
    def _comparisons(self) -> Path:
        return self.folder / "comparisons.json"

    def comparisons(self, keys: Collection[str]) -> list[tuple[list[str], Comparison]]:
        """The comparisons of which both runs are among the given keys, with these; none where the file cannot be read."""
        try:
            entries = json.loads(self._comparisons.read_text(encoding="utf-8"))
            found = [(entry["keys"], Comparison(**entry["comparison"])) for entry in entries]
        except (OSError, ValueError, TypeError, KeyError):
            return []
        return [(pair, comparison) for pair, comparison in found if set(pair) <= set(keys)]

    def write_comparisons(self, found: Iterable[tuple[list[str], Comparison]]) -> None:
        """Writes comparisons with the keys of the two runs of each."""
        entries = [{"keys": keys, "comparison": asdict(comparison)} for keys, comparison in found]
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._comparisons, json.dumps(entries, indent=1, sort_keys=True) + "\n")


def record_of(cell: Cell) -> dict[str, Any]:
    """What is kept of a finished run.

    Raises:
        CorruptRecord: its result.json cannot be read.
        LitGenError: it read other data than the table says.
    """
    result = finished(cell.run)
    if result is None:
        raise CorruptRecord(f"{cell.run.result} is missing")
    if cell.data_hash is not None and result.get("data_hash") != cell.data_hash:
        raise LitGenError(
            f"the run read other data than the table's: data_hash is {result.get('data_hash')}, expected {cell.data_hash}"
        )
    result = {**result, "command": cell.command}  # without the folders of this machine
    record = {
        "format": FORMAT, "table": cell.table.key, "row": cell.row.key, "seed": cell.seed, "key": cell.key,
        "config_hash": cell.config_hash, "code": cell.code, "data_hash": result.get("data_hash"),
        "command": cell.command, "quick": cell.options.quick, "run": result, "config": placeless(read_config(cell.run)),
        "curves": curves(cell.run.metrics, {column.metric for column in cell.table.columns}),
        "within": {column.key: within(column, result, cell.run) for column in cell.table.columns if column.error},
    }  # fmt: skip
    return {**record, "checksum": checksum(record)}


def finished(run: RunDir) -> dict[str, Any] | None:
    """``result.json`` of a run that has ended, or None.

    Raises:
        CorruptRecord: it cannot be read.
    """
    try:
        result = read_result(run)
        if result is not None and not isinstance(result.get("metrics"), dict):
            raise CorruptRecord(f"{run.result} has no metrics")
        return result
    except (ValueError, AttributeError) as error:
        raise CorruptRecord(f"{run.result} is no JSON: {error}") from error


def placeless(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the folders and files of the machine on which it ran."""
    kept = {key: value for key, value in config.items() if key not in ("runs_dir", "loggers")}
    leaves = flatten(kept)
    places = {key: None for key in leaves if key.endswith(f".{INCEPTION}")}
    if "data.init_args.root" in leaves:
        places["data.init_args.root"] = "data"
    return merged(kept, places)


def checksum(record: dict[str, Any]) -> str:
    """Sixteen hexadecimal digits of all of a record but its checksum."""
    content = {key: value for key, value in record.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def within(column: Column, result: dict[str, Any], run: RunDir) -> float | None:
    """The error of a column within one run, in the logged unit; None where the run has none."""
    about = result.get("estimators", {}).get(column.metric, {})
    if column.error == BOOTSTRAP:
        texts, tokenizer = translations(run), re.search(r"\btok:([\w-]+)", about.get("signature", ""))
        return bootstrap_bleu(*texts, tokenizer[1]) if texts and tokenizer else None
    if column.error == ESTIMATOR:
        return about.get("stderr")
    return result["metrics"].get(column.error)


class Translations(NamedTuple):
    """What a run translated in its test, a line each, in the order of the split."""

    hypotheses: list[str]
    references: list[str]


def translations(run: RunDir) -> Translations | None:
    """The translations of a run's test; None where it made none or they are not here."""
    files = [run.samples / f"test.{kind}" for kind in Translations._fields]
    if not all(file.is_file() for file in files):
        return None
    return Translations(*(file.read_text(encoding="utf-8").splitlines() for file in files))


def curves(metrics: Path, tested: set[str]) -> dict[str, list[list[float]]]:
    """The curves worth drawing of a run's metrics.csv, each thinned to some sixty points ``[step, value]``.

    Those are the validation values of what is tested, else ``val/loss`` or ``val/nll``, and the training loss.
    """
    found: dict[str, list[list[float]]] = {}
    wanted = {name.replace("test/", "val/", 1) for name in tested}
    if metrics.is_file():
        with open(metrics, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for name, text in row.items():
                    kept = name in wanted or name in ("val/loss", "val/nll", "val/elbo", "train/loss", "train/loss_g")
                    if kept and text and math.isfinite(float(text)):
                        found.setdefault(name, []).append([int(float(row["step"])), float(f"{float(text):.5g}")])
    return {name: thinned(points) for name, points in sorted(found.items())}


def thinned(points: list[list[float]]) -> list[list[float]]:
    """At most :data:`CURVE_POINTS` of the points, the first and the last among them."""
    if len(points) <= CURVE_POINTS:
        return points
    stride = (len(points) - 1) / (CURVE_POINTS - 1)
    return [points[round(number * stride)] for number in range(CURVE_POINTS)]
