"""A W&B sweep file: read, checked, and turned into the words of ``lit-gen run`` as W&B's own agent would."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lit_gen.core.errors import UsageError
from lit_gen.core.strict import count, mapping, one_of
from lit_gen.sweeps.space import Parameter, grid, read_parameter

KEYS = (
    "method", "metric", "parameters", "early_terminate", "run_cap", "command", "program",
    "name", "description", "project", "entity",
)  # fmt: skip
METHODS = ("grid", "random", "bayes")
GOALS = ("minimize", "maximize")
DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")
BEFORE_RUN = (
    "${env}",
    "/usr/bin/env",
    "${interpreter}",
    "python",
    "python3",
    "-m",
    "${program}",
    "lit-gen",
    "lit_gen",
    "train.py",
)
DECIDING = ("method", "metric", "parameters", "early_terminate", "command", "program")
"""Keys that say what a sweep is; the others may change while it lasts."""


@dataclass(frozen=True)
class Halving:
    """Early termination at the brackets ``min_iter * eta^k``, counted in logged values of the metric.

    Args:
        min_iter: values before the first decision.
        eta: of those at a bracket, one in so many goes on.

    References:
        Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, https://arxiv.org/abs/1810.05934
        (asynchronous successive halving, which is what W&B calls hyperband).
    """

    min_iter: int
    eta: int

    def is_bracket(self, values: int) -> bool:
        """Whether a decision falls after so many values."""
        bracket = self.min_iter
        while bracket < values:
            bracket *= self.eta
        return bracket == values


@dataclass(frozen=True)
class Sweep:
    """A sweep file.

    Args:
        name: the file's name without its ending.
        method: grid, random or bayes.
        metric: name of the metric, as it stands in metrics.csv or result.json.
        goal: minimize or maximize.
        parameters: in the file's order.
        before_args: the words after ``lit-gen run`` and before the parameters.
        after_args: the words after the parameters.
        run_cap: number of trials, or None.
        halving: early termination, or None.
        content: the file as plain data.
    """

    name: str
    method: str
    metric: str
    goal: str
    parameters: tuple[Parameter, ...]
    before_args: tuple[str, ...]
    after_args: tuple[str, ...]
    run_cap: int | None
    halving: Halving | None
    content: dict[str, Any]

    @property
    def grid(self) -> list[dict[str, Any]] | None:
        """The draws of all points, for a grid."""
        return grid(self.parameters) if self.method == "grid" else None

    def values(self, draws: Mapping[str, Any]) -> dict[str, Any]:
        """What the parameters are for some draws."""
        return {parameter.name: parameter.value(draws[parameter.name]) for parameter in self.parameters}

    def words(self, values: Mapping[str, Any]) -> list[str]:
        """What stands after ``lit-gen run`` in a trial."""
        return [*self.before_args, *agent_words(values), *self.after_args]


def agent_words(values: Mapping[str, Any]) -> list[str]:
    """The parameters as W&B's agent writes ``${args}``: ``--key=value``, in order."""
    return [f"--{name}={value}" for name, value in values.items()]


def read_sweep(path: str | Path) -> Sweep:
    """Reads a W&B sweep file.

    Raises:
        UsageError: it is missing, or something in it is not accepted; one line that names it.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"no sweep file at {path}; accepted: a W&B sweep file such as sweeps/vae_digits.yaml"
        ) from error
    return parse_sweep(text, path)


def parse_sweep(text: str, path: Path) -> Sweep:
    """Makes a sweep of the text of its file; ``path`` names it.

    Raises:
        UsageError: something in it is not accepted.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    try:
        return _sweep(path.stem, mapping("the file", content, KEYS))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _sweep(name: str, content: dict[str, Any]) -> Sweep:
    method = one_of("method", content.get("method"), METHODS)
    metric = mapping("metric", content.get("metric"), ("name", "goal"))
    if not isinstance(metric.get("name"), str):
        raise UsageError(f"metric.name = {metric.get('name')}: expected the name of a logged metric, such as val/elbo")
    if not isinstance(content.get("parameters"), dict) or not content["parameters"]:
        raise UsageError("parameters: at least one is needed")
    parameters = tuple(read_parameter(str(key), given) for key, given in content["parameters"].items())
    before, after = _command(content.get("command", DEFAULT_COMMAND), content.get("program"))
    run_cap = content.get("run_cap")
    if run_cap is not None:
        count("run_cap", run_cap)
    sweep = Sweep(
        name, method, metric["name"], one_of("metric.goal", metric.get("goal", "minimize"), GOALS), parameters,
        before, after, run_cap, _halving(content.get("early_terminate")), content,
    )  # fmt: skip
    _ = sweep.grid  # refuses continuous ranges
    return sweep


def _command(command: Any, program: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words after ``run``: those before ``${args}`` and those after it."""
    if not isinstance(command, Sequence) or isinstance(command, str):
        raise UsageError(f"command = {command}: expected a list of words")
    words = [_with_environment(str(word)) for word in command]
    if words.count("${args}") != 1:
        raise UsageError("command: ${args} has to stand in it once, after --config FILE")
    place = words.index("${args}")
    if "run" not in words[:place]:
        raise UsageError(
            "command: 'run' is missing before ${args}; accepted: [..., lit-gen, run, --config, FILE, ${args}]"
        )
    start = words.index("run")
    if strange := [word for word in words[:start] if word not in BEFORE_RUN]:
        raise UsageError(f"command: {strange[0]!r} before run; accepted: {', '.join(BEFORE_RUN)}")
    if "${program}" in words[:start] and Path(str(program)).name != "train.py":
        raise UsageError(f"program = {program}: accepted is train.py, which the command calls as ${{program}}")
    before, after = words[start + 1 : place], words[place + 1 :]
    if strange := [word for word in (*before, *after) if word.startswith("${")]:
        raise UsageError(f"command: {strange[0]} after run; accepted there: ${{args}}")
    if not any(word in ("-c", "--config") or word.startswith("--config=") for word in before):
        raise UsageError(
            "command: --config FILE has to stand before ${args}, or the file would override the parameters"
        )
    if any(word.startswith("--resume") for word in (*before, *after)):
        raise UsageError("command: --resume cannot be part of a sweep, whose trials are resumed by themselves")
    return tuple(before), tuple(after)


def _with_environment(word: str) -> str:
    """Fills ``${envvar:NAME}`` as the agent does."""
    return re.sub(r"\$\{envvar:([A-Z0-9_]*)\}", lambda found: os.environ.get(found[1], found[1]), word)


def _halving(given: Any) -> Halving | None:
    if given is None:
        return None
    given = mapping("early_terminate", given, ("type", "min_iter", "max_iter", "s", "eta", "strict"))
    one_of("early_terminate.type", given.get("type"), ("hyperband",))
    eta = given.get("eta", 3)
    for key, value in {**given, "eta": eta}.items():
        if key not in ("type", "strict"):
            count(f"early_terminate.{key}", value)
    if eta < 2:
        raise UsageError(f"early_terminate.eta = {eta}: expected an integer of 2 or more")
    if "min_iter" in given and not {"max_iter", "s"} & given.keys():
        return Halving(given["min_iter"], eta)
    if {"max_iter", "s"} <= given.keys() and "min_iter" not in given:
        return Halving(max(1, given["max_iter"] // eta ** given["s"]), eta)
    raise UsageError("early_terminate: give either min_iter, or max_iter and s")


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """The first difference between two sweep files that makes them different sweeps, or None."""
    for key in DECIDING:
        before, after = old.get(key), new.get(key)
        if key == "parameters" and before != after:
            changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
            return f"parameters.{changed[0]} was {before.get(changed[0])}, is {after.get(changed[0])}"
        if before != after:
            return f"{key} was {before}, is {after}"
    return None
