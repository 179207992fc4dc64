"""Every file in sweeps/: W&B accepts it, the agent's words parse and arrive, and the metric is logged by that config."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import Namespace
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args, load_sweep_config

from lit_gen.cli.app import ConfigurationOnly, LitGenCLI, checked_config
from lit_gen.sweeps.file import read_sweep
from tests.conftest import ROOT, small

FILES = sorted((ROOT / "sweeps").glob("*.yaml"))
FULL_PRODUCT = 32
"""The most combinations that are all tried; of more, some in which every pair of values of two parameters occurs."""

every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands name their configs from here, as whoever starts an agent does."""
    monkeypatch.chdir(ROOT)


# ---------------------------------------------------------------- reading a sweep


def read(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text())


def options(sweep: dict[str, Any]) -> list[str]:
    """What the command gives ``lit-gen run`` besides the parameters."""
    command = sweep["command"]
    return command[command.index("run") + 1 : command.index("${args}")]


def config_of(sweep: dict[str, Any]) -> Path:
    words = options(sweep)
    return ROOT / words[words.index("--config") + 1]


def choices(parameter: dict[str, Any]) -> list[Any]:
    """The values of a parameter; of a continuous one the ends and a middle."""
    if "values" in parameter:
        return parameter["values"]
    if "value" in parameter:
        return [parameter["value"]]
    low, high, distribution = parameter["min"], parameter["max"], parameter["distribution"]
    middle = {
        "int_uniform": (low + high) // 2,
        "uniform": (low + high) / 2,
        "log_uniform_values": math.sqrt(max(low, 0) * max(high, 0)),
    }
    return [low, middle[distribution], high]


def combinations(sweep: dict[str, Any]) -> list[dict[str, Any]]:
    """All combinations where they are few, otherwise a set that has every pair of values of two parameters."""
    values = {key: choices(parameter) for key, parameter in sweep["parameters"].items()}
    if math.prod(map(len, values.values())) <= FULL_PRODUCT:
        return [dict(zip(values, combination)) for combination in itertools.product(*values.values())]
    places = {key: range(len(found)) for key, found in values.items()}
    wanted = {
        ((a, i), (b, j)) for a, b in itertools.combinations(places, 2) for i in places[a] for j in places[b]
    }  # fmt: skip
    found = []
    while wanted:
        (a, i), (b, j) = min(wanted)
        row = {a: i, b: j}
        for key in places:
            if key not in row:
                row[key] = max(places[key], key=lambda place: len(wanted & pairs({**row, key: place})))
        wanted -= pairs({key: row[key] for key in places})
        found.append({key: values[key][row[key]] for key in places})
    return found


def pairs(row: dict[str, int]) -> set[tuple[tuple[str, int], tuple[str, int]]]:
    return {*itertools.permutations(row.items(), 2)}


def agent_words(sweep: dict[str, Any], parameters: dict[str, Any]) -> list[str]:
    """The process that W&B's agent starts, by its own functions (as ``Agent._command_run`` puts them together)."""
    filled = create_sweep_command_args({"args": {key: {"value": value} for key, value in parameters.items()}})
    filled |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [sweep["program"]]}
    words = []
    for word in create_sweep_command(list(sweep["command"])):
        words += filled[word[2:-1]] if word.startswith("${") else [word]
    assert words[:4] == ["/usr/bin/env", "python", "train.py", "run"]
    return words[4:]


# ---------------------------------------------------------------- reading a configuration


@cache
def parser() -> Any:
    """The parser of ``lit-gen run``; one for all, since making it takes longer than parsing."""
    return ConfigurationOnly("run", ["--config", str(ROOT / "configs/vae/vae_digits.yaml")]).parser


def at(config: Any, key: str) -> Any:
    """The value at a dotted key, which reaches into the last element of a list, as the parser's own do."""
    for part in key.split("."):
        config = config[-1] if isinstance(config, list) else config
        config = config[part]
    return config.as_dict() if isinstance(config, Namespace) else plain(config)


def plain(value: Any) -> Any:
    if isinstance(value, Namespace):
        return value.as_dict()
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def holds(found: Any, wanted: Any) -> bool:
    """Whether a configuration has all that was asked for; it has defaults besides."""
    if isinstance(found, dict) and isinstance(wanted, str):
        return found["class_path"] == wanted
    if isinstance(found, dict) and isinstance(wanted, dict):
        return all(key in found and holds(found[key], wanted[key]) for key in wanted)
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(holds, found, wanted))
    return found == wanted and isinstance(found, bool) == isinstance(wanted, bool)


def meant(value: Any) -> Any:
    """The value that a word stands for: lists, null and classes with arguments are given as JSON."""
    return json.loads(value) if isinstance(value, str) and re.match(r"[\[{]|null$", value) else value


def assert_arrives(sweep: dict[str, Any], parameters: dict[str, Any]) -> None:
    words = agent_words(sweep, parameters)
    config = parser().parse_args(words)
    for key, value in parameters.items():
        assert holds(at(config, key), meant(value)), f"{key}={value!r} became {at(config, key)!r} of {words}"
    for word in options(sweep)[2:]:  # the sweep's own options are not undone by a parameter
        key, value = word.removeprefix("--").split("=", 1)
        assert holds(at(config, key), yaml.safe_load(value)), f"{word} became {at(config, key)!r} of {words}"


# ---------------------------------------------------------------- tests


def test_there_are_sweeps_of_every_family() -> None:
    families = {config_of(read(file)).parent.name for file in FILES}
    assert families >= {"gan", "vae", "energy", "text"}
    assert {read(file)["method"] for file in FILES} == {"grid", "random", "bayes"}


@every_file
def test_the_file_says_what_it_is_for(file: Path) -> None:
    head = "".join(itertools.takewhile(lambda line: line.startswith("#"), file.open()))
    sweep = read(file)
    trials = sweep["run_cap"]
    assert "?" in head, "the question that it answers"
    assert "Budget:" in head
    assert f"wandb sweep sweeps/{file.name}" in head
    assert "wandb agent" in head
    assert f"lit-gen sweep sweeps/{file.name} --count {trials}" in head
    if sweep["method"] == "grid":
        assert trials == len(combinations(sweep)), "a grid is tried in full"
    assert ("hyperband" in head) == ("early_terminate" in sweep)


@every_file
def test_the_command_is_runnable(file: Path) -> None:
    sweep = read(file)
    assert sweep["command"][-1] == "${args}", "after --config, which would overwrite what comes before it"
    assert (ROOT / sweep["program"]).is_file()
    assert config_of(sweep).is_file()
    assert sweep["command"][:4] == ["${env}", "${interpreter}", "${program}", "run"]
    budgets = [word for word in options(sweep) if re.match(r"--trainer\.max_(epochs|steps)=\d", word)]
    assert len(budgets) == 1, "a budget for each trial"


@every_file
def test_schedules_and_hyperband_fit_the_budget(file: Path) -> None:
    sweep = read(file)
    config = parser().parse_args(agent_words(sweep, combinations(sweep)[0]))
    trainer = config.trainer
    budget = trainer.max_steps if trainer.max_steps > 0 else trainer.max_epochs
    for name, scheduler in config.model.init_args.as_dict().items():
        if name.startswith("scheduler") and scheduler is not None:
            for length in ("T_max", "total_iters", "steps"):
                assert scheduler["init_args"].get(length, budget) == budget, f"{length} is not the budget"
            assert scheduler["init_args"].get("warmup", 0) < budget / 2
    interval = trainer.val_check_interval if trainer.max_steps > 0 else trainer.check_val_every_n_epoch
    for callback in trainer.callbacks or []:
        if callback.class_path.endswith("SampleQuality"):
            every = callback.init_args.every_n_updates or callback.init_args.every_n_epochs
            assert every == interval, "samples are measured at every validation"
    if "early_terminate" in sweep:
        assert sweep["early_terminate"]["min_iter"] < budget // interval, "no trial would ever be stopped"


@every_file
def test_wandb_accepts_it(file: Path) -> None:
    sweeps = pytest.importorskip("sweeps", reason="W&B's validation of sweeps: pip install --no-deps sweeps")
    sweep = load_sweep_config(str(file))
    assert sweeps.schema_violations_from_proposed_config(sweep) == []
    filled = sweeps.SweepConfig(sweep)
    assert filled["parameters"].keys() == sweep["parameters"].keys(), "W&B leaves out what it does not understand"
    for run in sweeps.next_runs(dict(filled), [], n=2):  # what W&B itself would propose
        assert_arrives(sweep, {key: chosen["value"] for key, chosen in run.config.items()})


@every_file
def test_every_combination_arrives(file: Path) -> None:
    sweep = read(file)
    in_order = list(sweep["parameters"]) == sorted(sweep["parameters"])
    for parameters in combinations(sweep):
        assert_arrives(sweep, parameters)
        if not in_order:  # the agent may give them by the alphabet
            assert_arrives(sweep, dict(sorted(parameters.items())))


@every_file
def test_lit_gen_sweep_starts_what_wandb_starts(file: Path) -> None:
    sweep = read(file)
    for parameters in covering(sweep):
        assert read_sweep(file).words(parameters) == agent_words(sweep, parameters)


@every_file
def test_model_and_data_accept_every_value(file: Path) -> None:
    sweep = read(file)
    for parameters in covering(sweep):
        checked_config(agent_words(sweep, parameters))


def covering(sweep: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Few combinations that have every value once."""
    values = {key: choices(parameter) for key, parameter in sweep["parameters"].items()}
    for place in range(max(map(len, values.values()))):
        yield {key: found[place % len(found)] for key, found in values.items()}


@every_file
def test_its_metric_is_logged(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two batches and a validation of the sweep's config, small, with its own callbacks, options and a first combination."""
    monkeypatch.setattr("lit_gen.metrics.classifier.MAX_UPDATES", 2)  # what it measures does not matter here
    sweep = read(file)
    config = config_of(sweep)
    experiment = small(config)
    experiment["trainer"]["callbacks"] = yaml.safe_load(config.read_text())["trainer"].get("callbacks")
    shrunk = tmp_path / config.name
    shrunk.write_text(yaml.safe_dump(experiment))
    words = agent_words(sweep, next(covering(sweep)))
    words[words.index("--config") + 1] = str(shrunk)
    words += ["--trainer.max_steps=2", "--trainer.max_epochs=1", "--trainer.limit_val_batches=1"]
    words += ["--trainer.check_val_every_n_epoch=1", "--trainer.val_check_interval=null"]
    if "SampleQuality" in str(experiment["trainer"]["callbacks"]):
        words += ["--trainer.callbacks.init_args.n_samples=20", "--trainer.callbacks.init_args.every_n_epochs=1"]
        words += ["--trainer.callbacks.init_args.every_n_updates=1"]
    cli = LitGenCLI("fit", [*words, f"--runs_dir={tmp_path / 'runs'}"])
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    name = sweep["metric"]["name"]
    assert name.startswith("val/"), "a search must not look at the test set"
    assert name in cli.trainer.callback_metrics
    with cli.run_dir.metrics.open() as lines:
        logged = [float(row[name]) for row in csv.DictReader(lines) if row.get(name)]
    assert len(logged) == 1, "once for each validation: hyperband counts them"
    assert math.isfinite(logged[0])
