"""``lit-gen reproduce``: a paper's table, what it printed beside what we measure, run where it is missing."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from lit_gen.cli.arguments import OneLineParser, joined, positive
from lit_gen.core.errors import UsageError
from lit_gen.jobs.stop_signal import StopSignal
from lit_gen.papers.assemble import assemble, compare
from lit_gen.papers.cell import NEUTRAL, Cell, Options, cells
from lit_gen.papers.plan import print_plan
from lit_gen.papers.progress import Progress
from lit_gen.papers.records import Records
from lit_gen.papers.runner import Runner, Storage, collect
from lit_gen.papers.slurm import Array
from lit_gen.papers.status import State, Status, status
from lit_gen.papers.table import PaperTable
from lit_gen.papers.table_file import read_table

EPILOG = """\
A cell is a row under one seed. Its key is a hash of its configuration, its data and its code: a cell that has a record with
this key in results/KEY is never run again, one whose key has changed is. What was interrupted goes on from its checkpoint; what
failed is tried again by the next command; a failed cell does not stop the others.

Words of `lit-gen run` that do not change a result (--trainer.accelerator, --loggers.wandb, ...) are given to every run.

The table is printed, and written beside the run directories (runs/reproduce/KEY/table.md, .tex, .csv, .json, .html).

examples:
  lit-gen reproduce configs/papers/rbm_likelihood.yaml --dry-run
  lit-gen reproduce configs/papers/tinyshakespeare.yaml --only gpt_cpu --seeds 3 --jobs 2
  lit-gen reproduce configs/papers/iwae.yaml --slurm --sbatch "--partition=gpu" --sbatch "--gpus-per-node=1"
  lit-gen reproduce configs/papers/*.yaml --quick --jobs 2
"""


def make_parser() -> OneLineParser:
    """The options of ``lit-gen reproduce``."""
    parser = OneLineParser(
        prog="lit-gen reproduce", usage="lit-gen reproduce FILE [FILE ...] [options] [words of lit-gen run]",
        description="Runs what is missing of a paper's table and prints the paper's values beside ours, with verdicts.",
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    add = parser.add_argument
    add("files", type=Path, nargs="+", metavar="FILE", help="table files, such as configs/papers/iwae.yaml")
    add("--only", action="append", default=[], metavar="ROW", help="this row alone; may be repeated")
    add("--seeds", type=positive, metavar="N", help="so many seeds a row (default: those of the table)")
    add("--jobs", type=positive, default=1, metavar="N", help="runs at a time (default 1)")
    add("--slurm", action="store_true", help="run the cells as tasks of a SLURM array, and wait for them")
    add("--sbatch", action="append", default=[], metavar='"--any=thing"', help="an option of sbatch; may be repeated")
    add(
        "--quick",
        action="store_true",
        help="every row at a tiny budget and one seed: proves that it runs, nothing else",
    )
    add("--dry-run", action="store_true", help="print the plan, run and write nothing")
    add("--root", metavar="DIR", default=os.environ.get("LIT_GEN_DATA"),
        help="folder of the data (default: $LIT_GEN_DATA, else what the configurations say)")  # fmt: skip
    add("--inception", metavar="FILE", help="file of Inception weights, for tables with FID and IS")
    add(
        "--fetch",
        action="store_true",
        help="let runs download data and weights that a table needs and that are missing",
    )
    add("--results", type=Path, default=Path("results"), metavar="DIR", help="folder of the records (default results)")
    add("--runs", type=Path, default=Path("runs/reproduce"), metavar="DIR",
        help="folder of the run directories and of the written tables (default runs/reproduce)")  # fmt: skip
    add("--no-wandb", action="store_true", help="do not log the table to W&B")
    return parser


def main(command: str, args: list[str]) -> int:
    """Reproduces tables; returns 0, 1 where a cell failed, 128 + N after signal N.

    Raises:
        UsageError: the options or a table file are wrong; nothing was started.
    """
    options, words = make_parser().parse_known_args(joined(args, "--sbatch"))
    check_words(words, options)
    tables = [Job(read_table(file), options, tuple(words)) for file in options.files]
    if options.dry_run:
        for job in tables:
            print_plan(job.table, job.states(), options.jobs, job.console)
        return 0
    # Lightning's children share the cores; whoever set the variable knows better
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // options.jobs)))
    failed = False
    with StopSignal().listening() as stop:
        for job in tables:
            failed |= not job.run(stop)
            if stop():
                print(f"stopped by signal {stop.signum}: the same command continues", file=sys.stderr, flush=True)
                return 128 + stop.signum
    return int(failed)


def check_words(words: Sequence[str], options: argparse.Namespace) -> None:
    """Refuses what would change a result, and what does not go together.

    Raises:
        UsageError: naming it.
    """
    for word in words:
        if word.startswith("--") and not NEUTRAL.fullmatch(word.removeprefix("--").partition("=")[0]):
            raise UsageError(
                f"{word}: accepted are the options of lit-gen reproduce, and those words of lit-gen run that change no "
                "result, such as --trainer.accelerator=gpu; what changes one belongs into the table file's overrides"
            )
    if options.sbatch and not options.slurm:
        raise UsageError(f"--sbatch {options.sbatch[0]}: goes with --slurm")
    if options.only and len(options.files) > 1:
        raise UsageError(f"--only {options.only[0]}: goes with one table file, {len(options.files)} are given")


@dataclass
class Job:
    """One table of the command.

    Args:
        table: from its file.
        options: of the command.
        words: for every ``lit-gen run``.
    """

    table: PaperTable
    options: argparse.Namespace
    words: tuple[str, ...]

    def __post_init__(self) -> None:
        self.folder: Path = self.options.runs / (f"quick-{self.table.key}" if self.options.quick else self.table.key)
        of_all = Options(self.folder, self.options.root, self.options.inception, self.words, self.options.quick)
        self.cells: list[Cell] = cells(self.table, self.options.only, self.options.seeds, of_all)
        others = [] if self.options.quick else cells(self.table, [], self.options.seeds, of_all)
        # verdicts look at the other rows too
        self.shown = [
            *self.cells,
            *(cell for cell in others if cell.row.key not in {own.row.key for own in self.cells}),
        ]
        self.records = Records(self.folder / "records" if self.options.quick else self.options.results / self.table.key)
        self.console = Console(width=None if Console().is_terminal else 140)

    def states(self) -> dict[Cell, Status]:
        """Of all its cells."""
        return {cell: status(cell, self.records, self.options.fetch) for cell in self.cells}

    def run(self, stop: StopSignal) -> bool:
        """Runs what is missing, prints and writes the table; whether no cell has failed."""
        storage, states = Storage(self.folder), self.states()
        print_plan(self.table, states, self.options.jobs, self.console)
        todo = [cell for cell, found in states.items() if found.state.runs]
        left = len(todo) + sum(found.state is State.FINISHED for found in states.values())
        with Progress(self.console, left) as progress:
            for cell, found in states.items():
                if found.state is State.CORRUPT or (found.state is State.FINISHED and found.reason):
                    progress.tell(cell, f"has a corrupt record: {found.reason}")
                if found.state is State.FINISHED:
                    collect(cell, self.records, progress.tell)
            if self.options.slurm:
                self._array(storage, stop, progress).run(todo)
            elif todo:
                runner = Runner(storage, self.records, self.options.jobs, stop, progress.tell)
                runner.run(todo, lambda: progress.show(runner.working))
        if stop():
            return True
        self._write()
        return not any(found.state is State.FAILED for found in self.states().values())

    def _array(self, storage: Storage, stop: StopSignal, progress: Progress) -> Array:
        def configure(words: list[str]) -> dict[str, Any]:
            from lit_gen.cli.app import checked_config  # with torch, which takes seconds

            return checked_config(words)

        return Array(storage, self.records, self.options.sbatch, configure, stop, progress.tell)

    def _write(self) -> None:
        """Compares rows, prints the table and writes it in every form."""
        from lit_gen.core.run_dir import write_atomically
        from lit_gen.papers.output.data import csv_text, json_text
        from lit_gen.papers.output.html import html_page
        from lit_gen.papers.output.latex import latex
        from lit_gen.papers.output.markdown import long_table
        from lit_gen.papers.output.terminal import print_table

        compare(self.table, self.shown, self.records)
        report = assemble(self.table, self.shown, self.records, self.options.fetch)
        print_table(report, self.console)
        texts = {"md": long_table, "tex": latex, "csv": csv_text, "json": json_text, "html": html_page}
        for ending, text in texts.items():
            write_atomically(self.folder / f"table.{ending}", text(report))
        endings = ", ".join(f".{ending}" for ending in texts if ending != "md")
        self.console.print(f"written: {self.folder / 'table.md'}, {endings}", highlight=False, soft_wrap=True)
        if not self.options.no_wandb:
            from lit_gen.papers.output.wandb import log_table

            log_table(report, "lit_gen", self.folder)
