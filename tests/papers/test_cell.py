"""Cells: what their keys follow and what not, and the words of their runs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_gen.cli.app import checked_config
from lit_gen.core.errors import UsageError
from lit_gen.core.tree import flatten
from lit_gen.papers import cell as cell_module
from lit_gen.papers.cell import NEUTRAL, Cell, Options, cells
from lit_gen.papers.table_file import read_table
from tests.conftest import ROOT
from tests.papers.conftest import CONFIG, toy, write_toy

TABLES = sorted((ROOT / "configs" / "papers").glob("*.yaml"))


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def first(folder: Path, content: dict[str, Any] | None = None, **options: Any) -> Cell:
    return cells(read_table(write_toy(folder, content)), ["a"], None, Options(Path("runs"), **options))[0]


def test_key_follows_configuration_seed_data_and_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = toy()
    keys = [first(tmp_path, content).key, first(tmp_path, toy(a={"model.x": 0.6})).key]
    keys += [found.key for found in cells(read_table(write_toy(tmp_path)), ["a"], 3, Options(Path("runs")))[1:]]
    content["data"] = {"lit_gen.data.Digits": "f" * 16}
    keys.append(first(tmp_path, content).key)
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(CONFIG | {"model": {**CONFIG["model"], "more": 1}}))
    content = toy()
    content["rows"]["a"]["config"] = "other.yaml"
    keys.append(first(tmp_path, content).key)
    monkeypatch.setattr(cell_module, "code_version", lambda _: "c0de")
    keys.append(first(tmp_path).key)
    assert len(set(keys)) == len(keys) == 7


def test_key_ignores_where_and_on_what_it_runs(tmp_path: Path) -> None:
    plain = first(tmp_path).key
    words = ("--trainer.accelerator=gpu", "--loggers.wandb=false")
    assert first(tmp_path, None, root="elsewhere", inception="weights.pth", words=words).key == plain
    (tmp_path / "logged.yaml").write_text(
        yaml.safe_dump(CONFIG | {"trainer": {"max_epochs": 1, "log_every_n_steps": 7}, "sample_grid": {"n": 3}})
    )
    content = toy()
    content["rows"]["a"]["config"] = "logged.yaml"
    assert first(tmp_path, content).key == plain
    # an override that says what the file says already changes nothing
    assert first(tmp_path, toy(a={"trainer.max_epochs": 1})).key == plain


def test_quick_is_another_cell(tmp_path: Path) -> None:
    quick = first(tmp_path, None, quick=True)
    assert quick.key != first(tmp_path).key
    assert quick.overrides == {"model.x": 0.5, "model.steps": 2, **cell_module.QUICK}
    table = read_table(write_toy(tmp_path))
    assert [c.seed for c in cells(table, [], 3, Options(Path("runs"), quick=True))] == [0, 0]


def test_seeds(tmp_path: Path) -> None:
    content = toy()
    content["rows"]["a"]["seeds"] = [5, 0]
    table = read_table(write_toy(tmp_path, content))
    for count, wanted in ((None, [5, 0]), (1, [5]), (2, [5, 0]), (4, [5, 0, 1, 2])):
        assert [c.seed for c in cells(table, ["a"], count, Options(Path("runs")))] == wanted
    with pytest.raises(UsageError, match="--only c: accepted: a, b"):
        cells(table, ["c"], None, Options(Path("runs")))


def test_a_list_is_given_whole(tmp_path: Path) -> None:
    config = CONFIG | {"trainer": {"max_epochs": 1, "callbacks": [{"init_args": {"n": 1, "m": 2}}, {"init_args": {}}]}}
    content = toy(a={"trainer.callbacks.0.init_args.n": 5})
    path = write_toy(tmp_path, content)
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(config))
    found = cells(read_table(path), ["a"], None, Options(Path("runs")))[0]
    assert '--trainer.callbacks=[{"init_args": {"m": 2, "n": 5}}, {"init_args": {}}]' in found.words
    assert found.experiment["trainer.callbacks.0.init_args.n"] == 5


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    content = toy()
    content["needs"] = [{"what": "pictures", "file": "{root}/pictures"}, {"what": "weights", "file": "{inception}"}]
    assert first(tmp_path, content, root=str(tmp_path)).missing() == f"no pictures ({tmp_path}/pictures is missing)"
    (tmp_path / "pictures").touch()
    assert first(tmp_path, content, root=str(tmp_path)).missing() == "no weights"
    assert first(tmp_path, content, root=str(tmp_path), inception=str(tmp_path / "toy.yaml")).missing() is None


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("quick", [False, True], ids=["full", "quick"])
def test_the_real_parser_makes_of_the_words_what_the_key_is_of(path: Path, quick: bool, monkeypatch) -> None:
    """The configuration that a run gets agrees with the one that is hashed, in every value that the latter has."""
    monkeypatch.chdir(ROOT)
    for found in cells(read_table(path), [], 1, Options(Path("runs"), quick=quick)):
        complete = flatten(checked_config([*found.words, *found.place_words], instantiate=False))
        command = flatten(checked_config(shlex.split(found.command)[2:], instantiate=False))
        for key, value in found.experiment.items():
            if isinstance(value, str) and value.replace(".", "").replace("e-", "").isdigit():
                value = float(value)  # YAML takes 2e-5 for a text, the parser for a number
            assert complete[key] == value, f"{found.name}: {key}"
            assert command[key] == value, f"{found.name}: {key}"
        given = {key for key in complete if key in found.experiment or NEUTRAL.fullmatch(key)}
        assert {"seed_everything", "model.class_path", "data.class_path"} <= given
