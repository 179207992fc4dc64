"""Table files: every shipped one is read, and each mistake is answered by one line that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_gen.core.errors import UsageError
from lit_gen.core.tree import merged
from lit_gen.papers.cell import Options, cells
from lit_gen.papers.code_version import code_files
from lit_gen.papers.table_file import read_table
from tests.conftest import ROOT
from tests.papers.conftest import TOY, write_toy

pytestmark = pytest.mark.usefixtures("in_own_folder")
TABLES = sorted((ROOT / "configs" / "papers").glob("*.yaml"))


@pytest.fixture
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configurations are looked for from where the command is given."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_shipped_tables_are_read(path: Path) -> None:
    table = read_table(path)
    assert len(table.rows) >= 3
    for quick in (False, True):
        for cell in cells(table, [], None, Options(Path("runs"), quick=quick)):
            assert len(cell.key) == 12
            names = {file.name for file in code_files(cell.experiment)}
            assert {"module.py", "random.py"} <= names, "the code of the model and of its data"


def test_values_of_a_table(tmp_path: Path) -> None:
    table = read_table(write_toy(tmp_path))
    a, b = table.rows
    assert (table.key, a.key, a.seeds, a.rule, b.differs) == ("toys", "a", (0, 1), "interval", "the seed")
    assert a.paper["loss"].value == 0.25
    assert a.tolerance == {"loss": 0.01}
    assert a.experiment["model"]["x"] == 0.5
    assert not table.columns[0].higher


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"titel": "x"}, "unknown key titel: did you mean title?"),
    ({"title": ""}, "title = ; accepted: a text"),
    ({"columns.loss.direction": "down"}, "columns.loss.direction = down: accepted: lower, higher"),
    ({"columns.loss.decimals": -1}, "columns.loss.decimals = -1; accepted: a whole number of 0 or more"),
    ({"columns.loss.error": "test/x"}, "columns.loss.error_kind = None; accepted: one where there is an error"),
    ({"columns.loss.error": "bootstap", "columns.loss.error_kind": "unstated"}, "columns.loss.error = bootstap; accepted"),
    ({"rows.a.seeds": [0, 0]}, "rows.a.seeds = [0, 0]; accepted: a list of different integers"),
    ({"rows.a.seeds": []}, "rows.a.seeds = []"),
    ({"rows.a.config": "nothing.yaml"}, "rows.a.config: no configuration at nothing.yaml"),
    ({"rows.a.protocol": "equal"}, "rows.a.protocol = equal: accepted: same, part, other"),
    ({"rows.a.protocol": "part"}, "rows.a.differs = ''; accepted: what differs"),
    ({"rows.b.rule": "interval"}, "rows.b.rule = interval; accepted: trend, none with protocol part"),
    ({"rows.a.rule": "guess"}, "rows.a.rule = guess: accepted: interval, at_least, trend, none"),
    ({"rows.a.minutes": None}, "rows.a.minutes = None; accepted: a number of 0 or more"),
    ({"rows.a.paper.los": {"value": 1}}, "rows.a.paper: unknown key los: did you mean loss?"),
    ({"rows.a.paper.loss.trust": "yes"}, "rows.a.paper.loss.trust = yes: accepted: verified, second_hand, unverified"),
    ({"rows.a.paper.loss.value": "0.25"}, "rows.a.paper.loss.value = 0.25; accepted: a number"),
    ({"rows.a.paper.loss.error": 1.0}, "rows.a.paper.loss.error_kind = None"),
    ({"rows.a.overrides": {"runs_dir": "x"}}, "rows.a.overrides: key runs_dir: accepted: keys below trainer, model, data"),
    ({"rows.a.overrides": {"model.x.y": 1}}, "rows.a.overrides: model.x.y: model.x is 0.0 and has no parts"),
    ({"rows.a.seeds": [0], "columns.loss.tolerance": 0}, "rows.a.tolerance.loss = 0.0; accepted: more than 0, as one seed"),
    ({"pairing.baseline": "c"}, "pairing.baseline = c: accepted: a, b"),
    ({"pairing.translations": "none"}, "accepted: either examples or translations"),
    ({"data": {"lit_gen.data.Digits": 7}}, "data.lit_gen.data.Digits = 7; accepted: sixteen hexadecimal digits"),
    ({"needs": [{"what": "x"}]}, "needs.0.file = None; accepted: a text"),
    ({"quick": {"loggers.wandb": False}}, "quick: key loggers.wandb: accepted"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"), MISTAKES, ids=lambda value: "-".join(value) if isinstance(value, dict) else ""
)
def test_a_mistake_is_one_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    content = {**TOY, **changes} if "quick" in changes or "data" in changes else merged(TOY, changes)
    path = write_toy(tmp_path, content)
    with pytest.raises(UsageError) as caught:
        read_table(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no table file at"):
        read_table(tmp_path / "nothing.yaml")
    (tmp_path / "a.yaml").write_text("a: [")
    with pytest.raises(UsageError, match="not valid YAML"):
        read_table(tmp_path / "a.yaml")
    (tmp_path / "A b.yaml").write_text(yaml.safe_dump(TOY))
    with pytest.raises(UsageError, match="its name = A b"):
        read_table(tmp_path / "A b.yaml")
