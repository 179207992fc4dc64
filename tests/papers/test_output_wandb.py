"""The table at W&B: what is logged, where, and that a failure is one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lit_gen.papers.output.wandb import COLUMNS, lines, log_table
from tests.papers.reports import REPORTS
from tests.test_wandb import inspect


def test_lines_are_those_of_the_report() -> None:
    report = REPORTS["three seeds"]()
    found = [dict(zip(COLUMNS, line, strict=True)) for line in lines(report)]
    assert len(found) == 9
    summary = report.rows[0].entries["blocks"].summary
    assert (found[0]["ours"], found[0]["sd"], found[0]["n"]) == (summary.mean, summary.std, 3)
    assert found[0]["high"] - found[0]["low"] == pytest.approx(2 * summary.half_width)
    assert (found[0]["paper"], found[0]["verdict"]) == (1.88, "reproduced")
    assert (found[3]["ours"], found[3]["n"], found[3]["verdict"]) == (None, 0, "not run")


def test_an_offline_run_holds_the_table_and_the_page(tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    log_table(REPORTS["three seeds"](), "lit_gen", tmp_path)
    assert "warning" not in "".join(capfd.readouterr())
    (folder,) = tmp_path.glob("wandb/offline-run-*")
    (stored,) = folder.glob("*.wandb")
    (started,) = [record["run"] for record in inspect(stored, tmp_path) if record["type"] == "run"]
    assert (started["display_name"], started["job_type"]) == ("reproduce/tinyshakespeare", "reproduce")
    (table,) = folder.glob("files/media/table/*.json")
    content = json.loads(table.read_text())
    assert content["columns"] == list(COLUMNS)
    assert len(content["data"]) == 9
    (page,) = folder.glob("files/media/html/*.html")
    assert "GPT, 4 layers, 128 wide, block 64" in page.read_text()


@pytest.mark.parametrize(
    ("given", "key", "mode"),
    [("", "", "offline"), ("", "k", None), ("disabled", "k", "disabled"), ("online", "", "offline")],
)
def test_it_is_offline_without_a_key_and_as_the_environment_says(
    given, key, mode, monkeypatch, capsys, tmp_path
) -> None:
    import wandb

    monkeypatch.setenv("WANDB_MODE", given)
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    asked = {}

    def refuse(**options):
        asked.update(options)
        raise RuntimeError("nobody\nis there")

    monkeypatch.setattr(wandb, "init", refuse)
    log_table(REPORTS["quick"](), "lit_gen", tmp_path)
    assert (asked["mode"], asked["project"], asked["name"]) == (mode, "lit_gen", "reproduce/iwae")
    captured = capsys.readouterr()
    assert ("is logged offline" in captured.out) == (mode == "offline")
    assert re.fullmatch(r"lit-gen: warning: [^\n]*W&B[^\n]*nobody is there\n", captured.err)
