"""``lit-gen run`` as a child: its environment, its log, its end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lit_gen.core.run_dir import RunDir
from lit_gen.jobs import child
from lit_gen.jobs.child import last_line, start, stop, stopped_by_signal
from lit_gen.jobs.process import end_leftovers
from tests.conftest import ROOT

NOTES = "import json, os, sys; print(json.dumps([sys.argv[1:], os.getsid(0) == os.getpid(), dict(os.environ)]))"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"


def started(folder: Path, program: str, monkeypatch: pytest.MonkeyPatch) -> tuple[subprocess.Popen, RunDir, Path]:
    """Starts a program in place of lit-gen."""
    monkeypatch.setattr(child, "PROGRAM", [sys.executable, "-c", program])
    run, log = RunDir(folder / "toy" / "run-1"), folder / "toy" / "logs" / "run-1.log"
    return start(["run", "--a=two words"], run, log), run, log


def test_a_run_gets_its_words_and_no_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "SLURM_PROCID",
        "SLURM_JOB_ID",
        "RANK",
        "WORLD_SIZE",
        "MASTER_ADDR",
        "TORCHELASTIC_RUN_ID",
        "WANDB_SWEEP_ID",
    ):
        monkeypatch.setenv(name, "7")
    others = {"LOCAL_SCRATCH": "a", "SLURM_TMPDIR": "b", "CUDA_VISIBLE_DEVICES": "0", "MY_RANK": "c"}
    for name, value in others.items():
        monkeypatch.setenv(name, value)
    for _ in range(2):
        process, run, log = started(tmp_path, NOTES, monkeypatch)
        assert process.wait(60) == 0
    printed = log.read_text().splitlines()
    assert len(printed) == 2, "the log is continued"
    words, own_session, environment = json.loads(printed[-1])
    assert words == ["run", "--a=two words"]
    assert own_session
    assert "7" not in environment.values()
    assert others.items() <= environment.items()
    assert environment["LIT_GEN_RUN_ID"] == "run-1"
    assert environment["WANDB_RUN_GROUP"] == "toy"
    assert environment[child.MARK] == str(run.path)


def test_a_run_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process, _, log = started(tmp_path, DEAF, monkeypatch)
    deadline = time.monotonic() + 60
    while "deaf" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    monkeypatch.setattr(child, "PATIENCE", 0.2)
    stop(process, signal.SIGTERM)
    assert process.returncode == -signal.SIGKILL
    stop(process, signal.SIGTERM)  # it has ended already


def test_what_a_run_left_running_is_known_by_its_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process, run, log = started(tmp_path, DEAF, monkeypatch)
    try:
        while "deaf" not in log.read_text():
            time.sleep(0.01)
        assert end_leftovers(child.MARK, f"{run.path}1") == 0
        assert process.poll() is None
        assert end_leftovers(child.MARK, str(run.path)) == 1
        assert process.wait(60) == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()


def test_ends_are_told_apart(tmp_path: Path) -> None:
    assert all(map(stopped_by_signal, (-9, -15, 130, 138, 143, 137)))
    assert not any(map(stopped_by_signal, (0, 1, 2, 3, 139, 127)))
    log = tmp_path / "log"
    log.write_text("lit-gen: error: an old one\n")
    old = log.stat().st_size
    log.write_text(log.read_text() + "begin\nlit-gen: error: a new one\nlit-gen: warning: late\n\n")
    assert last_line(log, old) == "a new one"
    log.write_text(log.read_text()[:old] + "Segmentation fault\n")
    assert last_line(log, old) == "Segmentation fault"
    assert last_line(log, log.stat().st_size) == ""


def test_jobs_need_neither_torch_nor_sweeps() -> None:
    modules = [f"lit_gen.jobs.{path.stem}" for path in (ROOT / "lit_gen" / "jobs").glob("[!_]*.py")]
    heavy = {"torch", "optuna", "pytorch_lightning", "lit_gen.sweeps"}
    program = f"import sys, {', '.join(modules)}; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "set()"
