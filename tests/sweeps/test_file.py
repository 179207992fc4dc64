"""Sweep files: read strictly, and turned into the words that W&B's own agent makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from lit_gen.core.errors import UsageError
from lit_gen.sweeps.file import Halving, difference, parse_sweep, read_sweep
from tests.sweeps.conftest import sweep_text

PATH = Path("sweeps/toy.yaml")
RUN = ["--config", "c.yaml", "--trainer.max_epochs=3"]


def parsed(**changes: Any) -> Any:
    return parse_sweep(sweep_text(**changes), PATH)


def test_words_are_those_of_wandbs_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHS", "7")
    values = {
        "model.init_args.penalty": '{"class_path": "lit_gen.gan.GradientPenalty", "init_args": {"weight": 10}}',
        "model.init_args.none": "null", "lr": 1e-05, "small": "1e-3", "n": 3, "flag": True, "missing": None,
        "hidden": [200, 400], "text": "two words",
    }  # fmt: skip
    command = ["${env}", "${interpreter}", "${program}", "run", *RUN, "--e=${envvar:EPOCHS}", "${args}", "--name=x"]
    sweep = parsed(command=list(command), program="train.py", parameters={k: {"value": v} for k, v in values.items()})
    agent = create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    filled = create_sweep_command(list(command))
    expected = [*filled[4:-2], *agent["args"], filled[-1]]
    draws = {parameter.name: 0 for parameter in sweep.parameters}
    assert sweep.words(sweep.values(draws)) == expected
    assert "--e=7" in expected


@pytest.mark.parametrize(
    "before", [["${env}", "${interpreter}", "${program}"], ["${env}", "lit-gen"], ["${interpreter}", "-m", "lit_gen"]]
)
def test_the_usual_commands_are_understood(before: list[str]) -> None:
    sweep = parsed(command=[*before, "run", *RUN, "${args}"], program="train.py")
    assert list(sweep.before_args) == RUN


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "hill"}, "method = hill: accepted: grid, random, bayes"),
        ({"method": None}, "method = None"),
        ({"metric": None}, "metric is missing"),
        ({"metric": {"goal": "minimize"}}, "metric.name = None"),
        ({"metric": {"name": "a", "goal": "min"}}, "metric.goal = min: accepted: minimize, maximize"),
        ({"metric": {"name": "a", "gaol": "minimize"}}, "unknown key gaol: did you mean goal?"),
        ({"paramters": {}}, "unknown key paramters: did you mean parameters?"),
        ({"parameters": None}, "parameters: at least one"),
        ({"parameters": {"x": {"min": 2, "max": 1}}}, "parameters.x: min 2"),
        ({"run_cap": 0}, "run_cap = 0"),
        ({"method": "grid"}, "parameters.x is a continuous range"),
        ({"command": "lit-gen run"}, "expected a list of words"),
        ({"command": ["lit-gen", "run", "--config", "c"]}, "${args} has to stand in it once"),
        ({"command": ["lit-gen", "--config", "c", "${args}"]}, "'run' is missing"),
        ({"command": ["lit-gen", "run", "${args}", "--config", "c"]}, "--config FILE has to stand before ${args}"),
        ({"command": ["torchrun", "lit-gen", "run", "--config", "c", "${args}"]}, "'torchrun' before run"),
        ({"command": ["lit-gen", "run", "--config", "c", "${args_json}", "${args}"]}, "${args_json} after run"),
        ({"command": ["lit-gen", "run", "--config", "c", "--resume=x", "${args}"]}, "--resume"),
        ({"command": ["${program}", "run", "--config", "c", "${args}"], "program": "main.py"}, "program = main.py"),
        ({"command": None}, "command: 'run' is missing"),
        ({"early_terminate": {"type": "envelope"}}, "early_terminate.type = envelope: accepted: hyperband"),
        ({"early_terminate": {"type": "hyperband"}}, "give either min_iter, or max_iter and s"),
        ({"early_terminate": {"type": "hyperband", "max_iter": 9}}, "give either min_iter, or max_iter and s"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 3, "eta": 1}}, "eta = 1"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 0.5}}, "min_iter = 0.5"),
    ],
)  # fmt: skip
def test_mistakes_are_named_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed(**changes)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(PATH))
    assert "\n" not in str(caught.value)


def test_no_file_and_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no sweep file at"):
        read_sweep(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1\nb: 2")
    with pytest.raises(UsageError, match=r"broken\.yaml is not valid YAML"):
        read_sweep(broken)
    broken.write_text("")
    with pytest.raises(UsageError, match="the file is missing or no mapping"):
        read_sweep(broken)


def test_early_termination_has_wandbs_brackets() -> None:
    given = {"type": "hyperband", "min_iter": 3}
    assert parsed(early_terminate=given).halving == Halving(3, 3)
    assert [n for n in range(1, 100) if Halving(3, 3).is_bracket(n)] == [3, 9, 27, 81]
    # W&B's documentation: max_iter 27, s 2, eta 3 has the brackets 9 and 3
    given = {"type": "hyperband", "max_iter": 27, "s": 2, "eta": 3}
    assert parsed(early_terminate=given).halving == Halving(3, 3)
    assert parsed(early_terminate=None).halving is None


def test_only_what_decides_makes_another_sweep() -> None:
    base = parsed().content
    assert difference(base, parsed(run_cap=5, name="other").content) is None
    changed = parsed(parameters={"x": {"min": 0.0, "max": 2.0}, "steps": {"value": 5}}).content
    assert difference(base, changed) == "parameters.x was {'min': 0.0, 'max': 1.0}, is {'min': 0.0, 'max': 2.0}"
    assert "method was random, is bayes" in difference(base, parsed(method="bayes").content)
