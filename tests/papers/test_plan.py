"""The plan, the live view, and which GPU a run gets."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from lit_gen.papers import runner
from lit_gen.papers.cell import Cell, Options, cells
from lit_gen.papers.output.numbers import duration
from lit_gen.papers.plan import in_all, minutes, print_plan
from lit_gen.papers.progress import Progress
from lit_gen.papers.runner import Work
from lit_gen.papers.status import State, Status
from lit_gen.papers.table_file import read_table
from tests.papers.conftest import write_toy

RECORD = {"run": {"seconds": {"train": 500.0, "test": 100.0}}}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    monkeypatch.chdir(tmp_path)
    return cells(read_table(write_toy(tmp_path)), [], None, Options(Path("runs")))


def test_cost_is_what_other_seeds_took_else_what_the_file_says(own: list[Cell]) -> None:
    states = {own[0]: Status(State.DONE, record=RECORD), **{cell: Status(State.MISSING) for cell in own[1:]}}
    assert [minutes(cell, states) for cell in own] == [10, 10, 1, 1]
    assert in_all(states, 1) == "1 done, 3 missing; to run: about 12 min"
    assert in_all(states, 2) == "1 done, 3 missing; to run: about 6 min with 2 at a time"
    blocked = dict.fromkeys(own, Status(State.BLOCKED, "no pictures"))
    assert in_all(blocked, 1) == "4 blocked; nothing to run"


def test_plan_names_every_cell_and_its_reason(own: list[Cell]) -> None:
    kinds = (State.DONE, State.FAILED, State.CHANGED, State.BLOCKED)
    states = {cell: Status(kind, f"[why] {kind.value}") for cell, kind in zip(own, kinds)}
    states[own[0]] = Status(State.DONE, record=RECORD)
    out = io.StringIO()
    print_plan(own[0].table, states, 1, Console(file=out, width=120))
    for cell, kind in zip(own, kinds):
        (line,) = [line for line in out.getvalue().splitlines() if cell.name in line]
        assert kind.value in line
        assert (f"[why] {kind.value}" in line) == (kind is not State.DONE)
        assert ("min" in line) == (kind in (State.FAILED, State.CHANGED))


def test_durations_for_people() -> None:
    assert [duration(60 * m) for m in (0.1, 1, 89, 90, 1500)] == ["6 s", "1 min", "89 min", "1.5 h", "25.0 h"]


def test_live_view_shows_where_a_run_is(own: list[Cell]) -> None:
    cell, out = own[0], io.StringIO()
    progress = Progress(Console(file=out, width=120, force_terminal=True), total=2)
    work = Work(cell, lease=None, process=None, slot=0, printed=0, started=time.monotonic() - 120)
    Console(file=(before := io.StringIO()), width=120).print(progress.table([work]))
    assert "starting" in before.getvalue()
    cell.run.create()
    cell.run.metrics.write_text("step,train/loss,val/nll\n7,0.5,\n1234,0.4,91.25\n")
    Console(file=(after := io.StringIO()), width=120).print(progress.table([work]))
    for part in (cell.name, "1,234", "val/nll 91.25", "2 min", "1 min", "0 of 2 cells have ended"):
        assert part in after.getvalue()
    progress.tell(cell, "failed: [no] memory")
    assert "a-seed0 failed: [no] memory (1 of 2)" in out.getvalue()


def test_gpus_are_those_that_the_user_shows_else_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert runner.devices() == ["3", "5"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runner.devices() == []
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: H200 (UUID: GPU-1)'\necho '  MIG 1g'\necho 'GPU 1: H200 (UUID: GPU-2)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert runner.devices() == ["0", "1"]
