"""Arrays with a stand-in for SLURM's commands: a controller that does not answer. Real ones are in tests/cluster."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from lit_gen.core.errors import LitGenError
from lit_gen.jobs.stop_signal import StopSignal
from lit_gen.papers import slurm
from lit_gen.papers.cell import Options, cells
from lit_gen.papers.records import Records
from lit_gen.papers.runner import Storage
from lit_gen.papers.slurm import Array
from lit_gen.papers.table_file import read_table
from tests.fake_run import PROVENANCE
from tests.papers.conftest import write_toy


@pytest.fixture
def array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Array:
    """An array whose sbatch notes its calls, and whose squeue and scontrol fail."""
    for name, script in (
        ("sbatch", f"echo called >> {tmp_path}/calls; echo 7"),
        ("squeue", "exit 1"),
        ("scontrol", "exit 1"),
    ):
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/bin:/usr/bin")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.02)
    return Array(
        Storage(tmp_path / "runs"), Records(tmp_path / "results"), [], lambda _: {}, StopSignal(), lambda *_: None
    )


def test_a_silent_controller_means_nothing(array: Array, tmp_path: Path) -> None:
    cell = cells(read_table(write_toy(tmp_path)), ["a"], 1, Options(tmp_path / "runs"))[0]

    def task() -> None:
        time.sleep(40 * slurm.POLL_SECONDS)
        cell.run.result.write_text(json.dumps({**PROVENANCE, "metrics": {"test/loss": 0.25}}))

    def then_answers() -> None:
        task()
        (tmp_path / "bin" / "squeue").write_text("#!/bin/sh\n")

    thread = threading.Thread(target=then_answers)
    thread.start()
    array.run([cell])
    thread.join()
    assert (tmp_path / "calls").read_text().splitlines() == ["called"], "the task that runs was not submitted again"
    assert Records(tmp_path / "results").read(cell.name)["run"]["metrics"] == {"test/loss": 0.25}


def test_a_submission_that_only_slurm_knows_of_is_asked_for(array: Array, tmp_path: Path) -> None:
    cell = cells(read_table(write_toy(tmp_path)), ["a"], 1, Options(tmp_path / "runs"))[0]
    array.submissions = [slurm.Submission("lit-gen-1234", [slurm.place(cell)])]  # killed before sbatch had answered
    with pytest.raises(LitGenError, match="squeue does not answer, and only it knows whether lit-gen-1234"):
        array.run([cell])
    assert not (tmp_path / "calls").exists()
