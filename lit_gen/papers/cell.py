"""A cell: one row under one seed, the run that fills it, and the key that says whether a record is of this very run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lit_gen.core.errors import UsageError
from lit_gen.core.run_dir import RunDir
from lit_gen.core.tree import at, flatten, merged, through_list
from lit_gen.papers.code_version import code_version
from lit_gen.papers.table import PaperTable, Row

NEUTRAL = re.compile(
    r"(runs_dir|name|loggers\.\w+|sample_grid\.\w+|checkpoint\.every_n_steps"
    r"|data\.init_args\.(root|download|num_workers)"
    r"|trainer\.(accelerator|enable_progress_bar|profiler|log_every_n_steps)"
    r"|trainer\.callbacks\.\d+\.init_args\.feature_extractor_weights_path)"
)
"""What does not change a result: where things lie, what is logged, and the device."""

QUICK = {"trainer.max_steps": 2, "trainer.limit_val_batches": 1, "trainer.limit_test_batches": 1}
INCEPTION = "feature_extractor_weights_path"


@dataclass(frozen=True)
class Options:
    """What the command says of all cells and what changes none of their results.

    Args:
        runs: folder of the cells' run directories.
        root: folder of the data, for configurations that have one; None: as they say.
        inception: file of Inception weights, for callbacks that take one; None: their own download.
        words: further words for every ``lit-gen run``.
        quick: tiny budgets.
    """

    runs: Path
    root: str | None = None
    inception: str | None = None
    words: tuple[str, ...] = ()
    quick: bool = False


@dataclass(frozen=True, eq=False)
class Cell:
    """One run of a table.

    Args:
        table: it belongs to.
        row: of the table.
        seed: of the run.
        options: of the command.
    """

    table: PaperTable
    row: Row
    seed: int
    options: Options

    @property
    def name(self) -> str:
        return f"{self.row.key}-seed{self.seed}"

    # ---------------------------------------------------------------- what it is

    @cached_property
    def overrides(self) -> dict[str, Any]:
        """What is put over the row's configuration file, by dotted key."""
        quick = {**QUICK, **self.table.quick, **self.row.quick} if self.options.quick else {}
        return {**self.row.overrides, **quick}

    @cached_property
    def experiment(self) -> dict[str, Any]:
        """The configuration that decides the result: the file with all overrides and the seed, without what is neutral.

        The defaults of lit_gen's classes, which are not written out here, are code and part of :attr:`code`; those of torch
        and Lightning are theirs: a new release of either does not make a record void, its versions stand in it.

        Raises:
            UsageError: an override of ``--quick`` leads nowhere.
        """
        try:
            whole = merged(self.row.experiment, {**self.overrides, "seed_everything": self.seed})
        except KeyError as error:
            raise UsageError(f"{self.table.path}: rows.{self.row.key}: quick: {error.args[0]}") from error
        return {key: value for key, value in flatten(whole).items() if not NEUTRAL.fullmatch(key)}

    @cached_property
    def config_hash(self) -> str:
        return _digest(self.experiment)

    @cached_property
    def code(self) -> str:
        """Version of the code of everything that the configuration names."""
        return code_version(self.experiment)

    @property
    def data_hash(self) -> str | None:
        """The content hash that the data must have, where the table says so."""
        return self.table.data.get(self.row.experiment["data"]["class_path"])

    @cached_property
    def key(self) -> str:
        """Twelve hexadecimal digits for configuration, data and code."""
        return _digest([self.config_hash, self.data_hash, self.code])

    # ---------------------------------------------------------------- how it is run

    @cached_property
    def run(self) -> RunDir:
        """Its run directory, the same whenever the same cell is run by the same user in the same place."""
        # W&B wants ids that no other run has, in whatever place it ran
        place = hashlib.sha256(f"{os.getuid()} {self.options.runs.absolute()}".encode()).hexdigest()[:4]
        return RunDir(self.options.runs / self.name / f"{self.key}-{place}")

    @cached_property
    def words(self) -> list[str]:
        """What stands after ``lit-gen run`` and says what the cell is."""
        experiment, given = self.row.experiment, dict(self.overrides)
        if self.options.root is not None and "root" in experiment["data"].get("init_args", {}):
            given["data.init_args.root"] = self.options.root
        for number, callback in enumerate(experiment["trainer"].get("callbacks", ())):
            if self.options.inception and callback.get("init_args", {}).get("extractor") == "inception":
                given[f"trainer.callbacks.{number}.init_args.{INCEPTION}"] = self.options.inception
        # on a machine with several GPUs a run would take them all, and with them a batch several times as large
        given = {"trainer.devices": 1, **given} if "devices" not in experiment["trainer"] else given
        return [*self._command_words(given), *self.options.words]

    def _command_words(self, given: dict[str, Any]) -> list[str]:
        words = [f"--{key}={value}" for key, value in _on_command_line(self.row.experiment, given).items()]
        return ["--config", str(self.row.config), *words, f"--seed_everything={self.seed}"]

    @property
    def place_words(self) -> list[str]:
        """The words that put the run where the table looks for it."""
        return [f"--runs_dir={self.options.runs}", f"--name={self.name}"]

    @property
    def command(self) -> str:
        """What anybody may type to repeat the cell."""
        return shlex.join(["lit-gen", "run", *self._command_words(self.overrides)])

    def missing(self) -> str | None:
        """What it needs and is not there, or None."""
        root = self.options.root or self.row.experiment["data"].get("init_args", {}).get("root", "data")
        for need in self.table.needs:
            file = need.file.replace("{root}", root).replace("{inception}", self.options.inception or "")
            if not file or not Path(file).exists():
                return f"no {need.what}" + (f" ({file} is missing)" if file else "")
        return None


def cells(table: PaperTable, rows: Sequence[str], seeds: int | None, options: Options) -> list[Cell]:
    """The cells of a table, row by row.

    Args:
        table: read from its file.
        rows: keys of rows; all where empty.
        seeds: so many seeds a row, its own first and then the next integers; None: its own.
        options: of the command.

    Raises:
        UsageError: there is no such row.
    """
    for key in rows:
        if key not in table.row:
            raise UsageError(f"--only {key}: accepted: {', '.join(table.row)}")
    kept = [row for row in table.rows if not rows or row.key in rows]
    return [Cell(table, row, seed, options) for row in kept for seed in _seeds(row, 1 if options.quick else seeds)]


def _seeds(row: Row, count: int | None) -> list[int]:
    if count is None:
        return list(row.seeds)
    return [*row.seeds, *(seed for seed in range(max(row.seeds) + count + 1) if seed not in row.seeds)][:count]


def _on_command_line(experiment: dict[str, Any], changes: dict[str, Any]) -> dict[str, str]:
    """The changes as the parser takes them: it cannot reach into a list, which is given whole."""
    lists = {whole for key in changes if (whole := through_list(experiment, key))}
    changed = merged(experiment, changes)
    alone = {key: value for key, value in changes.items() if not through_list(experiment, key)}
    return {key: _written(value) for key, value in {**alone, **{key: at(changed, key) for key in lists}}.items()}


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
