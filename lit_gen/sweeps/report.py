"""The report of a sweep: a table of its trials, trials.csv, the best configuration as a runnable file, and a picture."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import yaml
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from lit_gen.core.run_dir import write_atomically
from lit_gen.jobs.run_files import read_config
from lit_gen.sweeps.file import Sweep
from lit_gen.sweeps.picture import draw_parameters
from lit_gen.sweeps.space import Parameter
from lit_gen.sweeps.study import SweepStudy

STATES = {
    TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed",
    TrialState.RUNNING: "running", TrialState.WAITING: "waiting",
}  # fmt: skip


def print_report(study: SweepStudy, console: Console | None = None) -> None:
    """Prints the table and writes the files of the report into the sweep's folder.

    Args:
        study: the sweep.
        console: where to print; standard output where None.
    """
    console = console or Console(width=None if Console().is_terminal else 140)
    trials, best = study.trials(), study.best()
    places = {"runs": f"trial-NNNN-{study.token}", "trials": "trials.csv"}
    write_atomically(study.folder / "trials.csv", trials_csv(study, trials))
    if best is not None:
        places |= {"picture": "parameters.png", "best": "best.yaml"}
        write_atomically(study.folder / "best.yaml", best_config(study, best))
        draw_parameters(study, trials, best, study.folder / "parameters.png")
    console.print(trials_table(study, trials, best))
    for trial in trials:
        if reason := trial.user_attrs.get("reason"):
            print_line(console, f"trial {trial.number} failed: {reason}")
    for name, place in places.items():
        print_line(console, f"{name + ':':9}{shortest(study.folder / place)}")
    if best is not None:
        print_line(console, f"the best again: lit-gen run --config {shortest(study.folder / 'best.yaml')}")


def print_line(console: Console, line: str) -> None:
    """Prints a line as it is, however long."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def trials_table(study: SweepStudy, trials: list[FrozenTrial], best: FrozenTrial | None) -> Table:
    """The trials in order; the best one is marked. Parameters that never change are in trials.csv alone."""
    shown = varied(study.sweep)
    names = short_names([parameter.name for parameter in shown])
    table = Table(title=f"{study.folder.name}: {study.sweep.goal} {study.sweep.metric}, {len(trials)} trials")
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column(study.sweep.metric, justify="right", no_wrap=True)
    for parameter, name in zip(shown, names):
        table.add_column(name, justify="right", overflow="fold", no_wrap=parameter.choices is None)
    table.add_column("seconds", justify="right", no_wrap=True)
    for trial in trials:
        is_best = best is not None and trial.number == best.number
        values = study.values_of(trial)
        cells = [brief(values[parameter.name]) if parameter.name in values else "" for parameter in shown]
        style = "bold green" if is_best else "" if trial.state == TrialState.COMPLETE else "dim"
        metric = "" if trial.value is None else f"{trial.value:.6g}"
        seconds = seconds_of(trial)
        table.add_row(
            f"{trial.number}{' *' if is_best else ''}", STATES[trial.state], metric, *cells,
            "" if seconds is None else f"{seconds:.0f}", style=style,
        )  # fmt: skip
    return table


def trials_csv(study: SweepStudy, trials: list[FrozenTrial]) -> str:
    """All trials with the full names and values of their parameters."""
    names = [parameter.name for parameter in study.sweep.parameters]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", study.sweep.metric, *names, "seconds", "run", "reason"])
    for trial in trials:
        values = study.values_of(trial)
        writer.writerow([
            trial.number, STATES[trial.state], trial.value, *(values.get(name) for name in names), seconds_of(trial),
            study.run_dir(trial.number).path, trial.user_attrs.get("reason"),
        ])  # fmt: skip
    return text.getvalue()


def best_config(study: SweepStudy, best: FrozenTrial) -> str:
    """The complete configuration of the best trial, as an experiment of its own in the default place."""
    config = read_config(study.run_dir(best.number))
    config |= {"name": f"{study.folder.name.removeprefix('sweep-')}-best", "runs_dir": "runs"}
    head = f"# trial {best.number} of {study.folder.name}: {study.sweep.metric} = {best.value:.6g}\n"
    return head + yaml.safe_dump(config, sort_keys=False)


def seconds_of(trial: FrozenTrial) -> float | None:
    """From a trial's beginning to its end, with the time in which nobody worked on it."""
    return None if trial.duration is None else round(trial.duration.total_seconds(), 1)


def varied(sweep: Sweep) -> list[Parameter]:
    """The parameters that have more than one value; all of them where none has."""
    return [p for p in sweep.parameters if p.choices is None or len(p.choices) > 1] or list(sweep.parameters)


def short_names(names: list[str]) -> list[str]:
    """Of each dotted name as many last parts as no other name has; parts that only nest are left out."""
    parts = [[part for part in name.split(".") if part != "init_args"] for name in names]
    shortened = []
    for own in parts:
        endings = (own[-length:] for length in range(1, len(own) + 1))
        alone = (ending for ending in endings if sum(other[-len(ending) :] == ending for other in parts) == 1)
        shortened.append(".".join(next(alone, own)))
    return shortened


def brief(value: Any) -> str:
    """A value for a table or an axis: numbers with four digits, of a class choice the class's name and arguments."""
    if value is None:
        return "null"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str) and "class_path" in value:
        return class_choice(value)
    return str(value)


def class_choice(text: str) -> str:
    """``GradientPenalty(weight=10)`` for the JSON of such a choice."""
    try:
        choice = yaml.safe_load(text)
        arguments = ", ".join(f"{key}={value}" for key, value in (choice.get("init_args") or {}).items())
        name = choice["class_path"].rsplit(".", 1)[-1]
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        return text
    return f"{name}({arguments})" if arguments else name


def shortest(path: Path) -> str:
    """A path as it is best written from here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
