"""Records: made of a finished run, whole or refused; states of cells; comparisons on the same examples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from lit_gen.core.errors import LitGenError
from lit_gen.papers.assemble import assemble, compare
from lit_gen.papers.cell import Cell, Options, cells
from lit_gen.papers.records import CURVE_POINTS, CorruptRecord, Records, checksum, curves
from lit_gen.papers.statistics import paired_difference
from lit_gen.papers.status import State, note_failure, status
from lit_gen.papers.table_file import read_table
from lit_gen.papers.verdicts import Kind
from tests.fake_run import PROVENANCE
from tests.papers.conftest import toy, write_toy


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def of_toy(content: dict | None = None, **options) -> list[Cell]:
    return cells(read_table(write_toy(Path(), content)), [], None, Options(Path("runs"), **options))


def finish(cell: Cell, loss: float, **result) -> None:
    """Leaves what a finished run leaves."""
    cell.run.create()
    callback = {"init_args": {"feature_extractor_weights_path": "/secret/weights"}}
    config = {"data": {"class_path": "x", "init_args": {"root": "/secret/place"}}, "runs_dir": "/secret", "name": "n"}
    config["trainer"] = {"callbacks": [callback]}
    cell.run.config.write_text(yaml.safe_dump(config))
    rows = "".join(f"{step},{1 / (step + 1)},,{step}\n" for step in range(200))
    cell.run.metrics.write_text(f"step,val/loss,other,train/x\n{rows}")
    cell.run.examples.write_text(json.dumps({"test/loss": [loss + (i % 7) / 10 for i in range(50)]}))
    (cell.run.samples / "step-000100.png").write_bytes(b"old")
    (cell.run.samples / "step-000200.png").write_bytes(b"new")
    ran = {"metrics": {"test/loss": loss}, "command": "lit-gen run --data.init_args.root=/secret/place"}
    cell.run.result.write_text(json.dumps({**PROVENANCE, **ran, **result}))


def test_record_of_a_run(tmp_path: Path) -> None:
    cell, records = of_toy()[0], Records(tmp_path / "results")
    assert status(cell, records).state is State.MISSING
    finish(cell, 0.25)
    assert status(cell, records).state is State.FINISHED
    written = records.collect(cell)
    assert status(cell, records).state is State.DONE
    assert records.read(cell.name) == written
    assert written["run"]["metrics"] == {"test/loss": 0.25}
    assert written["command"] == "lit-gen run --config toy.yaml --model.x=0.5 --seed_everything=0"
    assert "secret" not in json.dumps(written), "places of this machine stay here"
    assert records.picture(cell.name) == b"new"
    assert len(written["curves"]["val/loss"]) == CURVE_POINTS
    assert written["curves"]["val/loss"][-1] == [199, 0.005]
    assert set(written["curves"]) == {"val/loss"}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[: len(text) // 2], "is no JSON"),
        (lambda text: text.replace("0.25", "0.15"), "its checksum differs"),
        (lambda text: text.replace('"format": 1', '"format": 7'), "is no record of format 1"),
        (lambda text: "[]", "is no record of format 1"),
    ],
)
def test_a_damaged_record_is_noticed(damage, said: str, tmp_path: Path) -> None:
    cell, records = of_toy()[0], Records(tmp_path / "results")
    finish(cell, 0.25)
    records.collect(cell)
    path = records.path(cell.name)
    path.write_text(damage(path.read_text()))
    with pytest.raises(CorruptRecord, match=said):
        records.read(cell.name)
    found = status(cell, records)  # the run itself is still there
    assert (found.state, said in found.reason) == (State.FINISHED, True)
    cell.run.result.unlink()
    found = status(cell, records)
    assert (found.state, found.state.runs, said in found.reason) == (State.CORRUPT, True, True)


def test_states(tmp_path: Path) -> None:
    cell, records = of_toy()[0], Records(tmp_path / "results")
    cell.run.create()
    cell.run.config.write_text("{}")
    assert status(cell, records).state is State.INTERRUPTED
    note_failure(cell, "no memory")
    assert (status(cell, records).state, status(cell, records).reason) == (State.FAILED, "no memory")
    cell.run.result.write_text('{"metrics": ')
    assert status(cell, records).state is State.CORRUPT
    finish(cell, 0.25)
    records.collect(cell)
    other = of_toy(toy(a={"model.x": 0.51}))[0]
    found = status(other, records)
    assert (found.state, found.reason) == (State.CHANGED, "the record is of another configuration")
    content = toy()
    content["needs"] = [{"what": "pictures", "file": "{root}/none"}]
    blocked = of_toy(content | {"data": {}}, root="here")[0]
    assert status(blocked, records).state is State.BLOCKED
    assert status(blocked, records, fetch=True).state is State.CHANGED


def test_a_run_on_other_data_is_refused(tmp_path: Path) -> None:
    cell, records = of_toy()[0], Records(tmp_path / "results")
    finish(cell, 0.25, data_hash="f" * 16)
    with pytest.raises(LitGenError, match=r"data_hash is f{16}, expected 0123456789abcdef"):
        records.collect(cell)
    assert records.read(cell.name) is None


def test_the_checksum_covers_everything() -> None:
    record = {"a": 1, "b": {"c": [1, 2]}, "checksum": "x"}
    assert checksum(record) == checksum({**record, "checksum": "y"})
    assert checksum(record) != checksum({**record, "b": {"c": [1, 3]}})


def test_curves_of_what_was_not_logged(tmp_path: Path) -> None:
    assert curves(tmp_path / "none.csv", {"test/loss"}) == {}
    (tmp_path / "m.csv").write_text("step,val/fid\n1,3.5\n2,nan\n3,\n4,2.5\n")
    assert curves(tmp_path / "m.csv", {"test/fid"}) == {"val/fid": [[1, 3.5], [4, 2.5]]}


def test_table_and_comparisons(tmp_path: Path) -> None:
    own, records = of_toy(), Records(tmp_path / "results")
    for cell, loss in zip(own, (0.24, 0.26, 0.6)):  # the last cell of b is missing
        finish(cell, loss)
        records.collect(cell)
    compare(own[0].table, own, records)
    report = assemble(own[0].table, own, records)
    a, b = report.rows
    assert a.entries["loss"].values == {0: 0.24, 1: 0.26}
    assert (a.entries["loss"].summary.n, a.entries["loss"].summary.mean) == (2, 0.25)
    assert a.entries["loss"].verdict.kind is Kind.REPRODUCED
    assert b.entries["loss"].verdict.kind is Kind.TREND
    assert [cell.state for cell in b.cells] == ["done", "missing"]
    (found,) = report.comparisons
    values = [json.loads(cell.run.examples.read_text())["test/loss"] for cell in (own[2], own[0])]
    assert (found.difference, found.error, found.p) == paired_difference(*values)
    assert (found.row, found.baseline, found.n) == ("b", "a", 50)
    assert "seed 0" in found.method
    # a comparison outlives the runs' directories, but not a change of what was compared
    for cell in own:
        cell.run.examples.unlink(missing_ok=True)
    compare(own[0].table, own, records)
    assert assemble(own[0].table, own, records).comparisons == (found,)
    changed = of_toy(toy(b={"model.x": 0.7}))
    assert assemble(changed[0].table, changed, records).comparisons == ()


def test_rows_without_runs_say_why(tmp_path: Path) -> None:
    content = toy()
    content["needs"] = [{"what": "pictures", "file": "{root}/none"}]
    own = of_toy(content, root="here")
    report = assemble(own[0].table, own, Records(tmp_path / "results"))
    assert {str(row.entries["loss"].verdict) for row in report.rows} == {"not run: no pictures (here/none is missing)"}
