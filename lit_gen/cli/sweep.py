"""``lit-gen sweep``: runs a W&B sweep file without W&B, with any number of workers that share a folder."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lit_gen.cli.arguments import OneLineParser, positive
from lit_gen.core.errors import LitGenError, UsageError
from lit_gen.sweeps.file import Sweep, read_sweep

if TYPE_CHECKING:
    from lit_gen.jobs.stop_signal import StopSignal
    from lit_gen.sweeps.study import SweepStudy

SHOWN = 5
"""Commands that --dry-run prints of a sweep that is no grid."""
EPILOG = """\
Several of these commands with one --storage (the tasks of a SLURM array) share the sweep: together they finish exactly
COUNT trials. A killed worker's trial is continued by another from its checkpoint; the same command again goes on where
all were stopped, and with a larger --count adds trials.

The folder holds the trials' run directories, sweep.yaml, journal.log (an Optuna study) and logs/, and at the end
trials.csv, best.yaml (for lit-gen run --config) and parameters.png.

examples:
  lit-gen sweep sweeps/vae_digits.yaml --count 20 --workers 2
  lit-gen sweep sweeps/vae_digits.yaml --dry-run
"""


def make_parser() -> OneLineParser:
    """The options of ``lit-gen sweep``."""
    parser = OneLineParser(
        prog="lit-gen sweep", description="Runs a W&B sweep file (grid, random, bayes; hyperband) without internet.",
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("file", type=Path, help="the sweep file, as `wandb sweep` takes it")
    parser.add_argument("--count", type=positive, metavar="N",
                        help="trials in all (default: the file's run_cap; all points of a grid)")  # fmt: skip
    parser.add_argument("--workers", type=positive, default=1, metavar="N", help="trials at a time (default 1)")
    parser.add_argument("--storage", type=Path, metavar="DIR",
                        help="the sweep's folder, seen by all workers (default: runs/sweep-FILE)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the sampled parameters (default 1)")
    parser.add_argument("--lease", type=positive, default=120, metavar="SECONDS",
                        help="silence after which a worker on another machine counts as dead (default 120)")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="print the commands of the first trials, run nothing")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser


def main(command: str, args: list[str]) -> int:
    """Runs the sweep, or this worker's part of it; returns the exit code.

    Raises:
        UsageError: the options, the sweep file or its trials' configuration are wrong.
    """
    options = make_parser().parse_args(args)
    sweep = read_sweep(options.file)
    count = trial_count(sweep, options.count)
    if options.dry_run:
        return print_commands(sweep, count, options.seed)
    from lit_gen.jobs.stop_signal import StopSignal
    from lit_gen.sweeps.study import SweepStudy, check_storage

    folder = options.storage or Path("runs") / f"sweep-{sweep.name}"
    check_storage(folder)
    with StopSignal().listening() as stop:
        if not (folder / "journal.log").exists() and not options.worker:
            check_configurations(sweep)
        text = options.file.read_text(encoding="utf-8")
        study = SweepStudy(folder, text, options.file, options.seed, options.lease)
        if options.worker:
            return work_alone(study, count, stop)
        if not study.is_finished(count):
            announce(study, count, options.workers)
        workers = min(options.workers, count)
        code = work_alone(study, count, stop) if workers == 1 else work_together(study, count, options, workers, stop)
        if study.is_finished(count):
            from lit_gen.sweeps.report import print_report

            print_report(study)
            return 0
    if stop():
        return stopped(stop.signum, folder)
    if code != UsageError.exit_code:
        raise LitGenError(f"every worker ended before all trials were finished: the same command continues {folder}")
    return code


def trial_count(sweep: Sweep, asked: int | None) -> int:
    """How many trials there are in all.

    Raises:
        UsageError: neither the command, the file nor the method says so.
    """
    points = None if sweep.grid is None else len(sweep.grid)
    count = asked or sweep.run_cap or points
    if count is None:
        raise UsageError(f"--count is missing: {sweep.name} has no run_cap, and {sweep.method} has no end of its own")
    return count if points is None else min(count, points)


def print_commands(sweep: Sweep, count: int, seed: int) -> int:
    """Prints the trials' commands: all of a grid, the first of another sweep."""
    from lit_gen.sweeps.sampling import first_draws

    shown = count if sweep.grid is not None else min(count, SHOWN)
    for number in range(shown):
        words = sweep.words(sweep.values(first_draws(sweep, seed, number)))
        print(shlex.join(["lit-gen", "run", *words]))
    if shown < count:
        print(f"# and {count - shown} more" + (", drawn from what the others gave" if sweep.method == "bayes" else ""))
    return 0


def check_configurations(sweep: Sweep) -> None:
    """Parses the trials that use every choice and both ends of every range, before anything is started.

    Raises:
        UsageError: one of them is refused.
    """
    from lit_gen.cli.app import checked_config

    ends = {parameter.name: parameter.ends() for parameter in sweep.parameters}
    for number in range(max(map(len, ends.values()))):
        words = sweep.words(sweep.values({name: draws[number % len(draws)] for name, draws in ends.items()}))
        try:
            checked_config(words)
        except UsageError as error:
            raise UsageError(f"lit-gen run {shlex.join(words)}: {error}") from error


def announce(study: "SweepStudy", count: int, workers: int) -> None:
    """Says what is going to happen."""
    finished = sum(trial.state.is_finished() for trial in study.trials())
    sweep = study.sweep
    print(f"{study.folder.name}: {sweep.method}, {sweep.goal} {sweep.metric}, {finished} of {count} trials finished, "
          f"{workers} worker{'s' * (workers > 1)}, in {study.folder}", flush=True)  # fmt: skip


def work_alone(study: "SweepStudy", count: int, stop: "StopSignal") -> int:
    """Works in this process; returns the exit code."""
    from lit_gen.sweeps.worker import work

    work(study, count, stop)
    return 128 + stop.signum if stop() else 0


def work_together(
    study: "SweepStudy", count: int, options: argparse.Namespace, workers: int, stop: "StopSignal"
) -> int:
    """Starts worker processes and waits for them; returns the exit code of the worst."""
    from lit_gen.jobs.child import PROGRAM
    from lit_gen.jobs.process import ends_with_parent

    if study.is_finished(count):
        return 0
    words = [*PROGRAM, "sweep", str(options.file), "--count", str(count), "--storage", str(study.folder),
             "--seed", str(options.seed), "--lease", str(options.lease), "--worker"]  # fmt: skip
    running = {
        number: subprocess.Popen(words, stdin=subprocess.DEVNULL, preexec_fn=ends_with_parent(signal.SIGTERM))
        for number in range(workers)
    }
    ended: list[int] = []
    asked_to_stop = False
    while running:
        time.sleep(0.2)
        for number, process in list(running.items()):
            if process.poll() is not None:
                del running[number]
                ended.append(process.returncode)
                if process.returncode not in (0, UsageError.exit_code) and not (asked_to_stop or stop()):
                    print(
                        f"worker {number} {how(process.returncode)}; {left(len(running))}", file=sys.stderr, flush=True
                    )
        # a configuration that is refused is refused for all
        if not asked_to_stop and (stop() or UsageError.exit_code in ended):
            asked_to_stop = True
            for process in running.values():
                process.terminate()
    return UsageError.exit_code if UsageError.exit_code in ended else max(map(abs, ended))


def how(code: int) -> str:
    """How a process ended."""
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def left(others: int) -> str:
    """What becomes of the trial of a worker that ended."""
    return "another one continues its trial" if others else "no worker is left"


def stopped(signum: int, folder: Path) -> int:
    """After a signal: asks for this SLURM job again where it is one; returns the exit code."""
    print(f"stopped by signal {signum}: the same command continues {folder}", file=sys.stderr, flush=True)
    # one request for a job; without srun the batch script gets the signal, and decides; Ctrl-C means the end
    in_step = {"SLURM_JOB_ID", "SLURM_STEP_ID"} <= os.environ.keys() and os.environ.get("SLURM_PROCID", "0") == "0"
    if in_step and signum != signal.SIGINT:
        from lit_gen.core.stopping import requeue

        if requeue():
            return 0
    return 128 + signum
