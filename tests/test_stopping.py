"""Stopping on request: signals, a second one, the queue, a full disk, a process that dies."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lit_gen.core.stopping import Phase, Stopped, StopRequest, requeue
from tests.conftest import differing_weights, lit_gen, only_run, process_environment
from tests.test_resume import experiment, logged_updates, rows, state


def start(folder: Path, *words: object, **environment: str) -> subprocess.Popen:
    """lit-gen in the background, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "lit_gen", *map(str, words)], cwd=folder, env=process_environment(**environment),
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_updates(folder: Path, process: subprocess.Popen, updates: int) -> None:
    deadline = time.monotonic() + 300
    while logged_updates(folder) < updates:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


# ---------------------------------------------------------------- the flag


@pytest.fixture
def request_() -> Iterator[StopRequest]:
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)}
    watched = StopRequest()
    watched.watch()
    yield watched
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.TRAINING])
@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGTERM])
def test_before_the_end_of_training_a_signal_only_sets_the_flag(
    request_: StopRequest, phase: Phase, signum: int
) -> None:
    request_.phase = phase
    for _ in range(3):
        os.kill(os.getpid(), signum)
    assert request_.signum == signum
    with pytest.raises(Stopped) as raised:
        request_.finishing()
    assert raised.value.exit_code == 128 + signum
    os.kill(os.getpid(), signum)  # while stopping: no harm


def test_after_training_a_signal_stops_at_once(request_: StopRequest) -> None:
    request_.finishing()
    with pytest.raises(Stopped, match="SIGUSR1 after training"):
        os.kill(os.getpid(), signal.SIGUSR1)
    assert request_.phase is Phase.STOPPING


def test_ctrl_c_interrupts_at_once_unless_training_and_then_the_second_time(request_: StopRequest) -> None:
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    request_.phase = Phase.TRAINING
    os.kill(os.getpid(), signal.SIGINT)
    assert request_.signum == signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    request_.phase = Phase.STOPPING
    os.kill(os.getpid(), signal.SIGINT)


def test_after_the_end_signals_are_ignored_while_the_interpreter_leaves(request_: StopRequest) -> None:
    request_.ended()
    for signum in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), signum)
    script = (
        "import atexit, os, signal, sys; from lit_gen.core.stopping import stop_request; stop_request.watch();"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGUSR1)); stop_request.ended(); sys.exit(7)"
    )
    done = subprocess.run([sys.executable, "-c", script], env=process_environment(), timeout=60)
    assert done.returncode == 7


def test_a_forked_process_does_not_take_the_signal_for_its_own(request_: StopRequest) -> None:
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(request_.signum)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert request_.signum == 0


# ---------------------------------------------------------------- runs


@pytest.mark.parametrize(("processes", "name"), [(1, "SIGINT"), (2, "SIGUSR1")])
def test_a_signalled_run_continues_bit_for_bit(processes: int, name: str, tmp_path: Path) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    for folder in (straight, broken):
        folder.mkdir()
    config = experiment("gan", processes, tmp_path)
    lit_gen("run", "--config", config, "--checkpoint.every_n_steps", 0, cwd=straight)

    process = start(broken, "run", "--config", config, "--checkpoint.every_n_steps", 0)
    wait_for_updates(broken, process, 20)
    signum = signal.Signals[name]
    process.send_signal(signum)  # to the first process alone, which tells the others
    time.sleep(0.002)
    if signum != signal.SIGINT:
        process.send_signal(signum)  # maybe while it saves
    _, errors = process.communicate(timeout=120)
    run = only_run(broken).relative_to(broken)
    assert process.returncode == 128 + signum
    (line,) = [line for line in errors.splitlines() if line.startswith("lit-gen: error")]
    assert f"--resume {run}" in line
    assert "Traceback" not in errors
    step = torch.load(broken / run / "checkpoints" / "last.ckpt", weights_only=False)["global_step"]
    assert step >= 20

    resumed = lit_gen("run", "--resume", run, cwd=broken)
    assert f"at step {step}" in resumed.stdout
    assert differing_weights(state(only_run(straight)), state(broken / run)) == []
    assert [row["step"] for row in rows(broken / run)] == [row["step"] for row in rows(only_run(straight))]


def test_a_process_that_dies_takes_the_others_with_it(tmp_path: Path) -> None:
    config = experiment("vae", 2, tmp_path)
    process = start(tmp_path, "run", "--config", config, "--trainer.max_epochs", 500)
    wait_for_updates(tmp_path, process, 20)
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[:1]
    os.kill(int(child), signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in errors
    resumed = lit_gen("run", "--resume", only_run(tmp_path), "--trainer.max_epochs", 3, cwd=tmp_path)
    assert "resuming from" in resumed.stdout


# ---------------------------------------------------------------- the queue


def fake_scontrol(folder: Path, text: str) -> dict[str, str]:
    """An environment inside a SLURM job whose scontrol is this script."""
    script = folder / "scontrol"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(script.stat().st_mode | stat.S_IEXEC)
    return {"PATH": str(folder), "SLURM_JOB_ID": "17"}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('[ "$1" = show ] && echo JobState=RUNNING Restarts=0; exit 0', None),
        ('[ "$1" = show ] && echo JobState=COMPLETING Reason=TimeLimit Restarts=0; exit 0', None),
        ('[ "$1" = show ] && echo JobState=COMPLETING Reason=None Restarts=1 && exit 0; exit 1', None),
        ('[ "$1" = show ] && echo JobState=COMPLETING Reason=None Restarts=0; exit 0', "it was cancelled"),
        (
            '[ "$1" = show ] && exit 0; echo "Requested operation is presently disabled" >&2; exit 1',
            "presently disabled",
        ),
        ("exit 3", "scontrol exited with 3"),
    ],
)
def test_requeueing_says_what_became_of_the_job(
    text: str, answer: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for name, value in fake_scontrol(tmp_path, text).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    assert requeue() is (answer is None)
    (line,) = capsys.readouterr().out.splitlines()
    assert "job 17" in line
    assert answer is None or (answer in line and "the checkpoint is kept" in line)


def test_array_tasks_are_requeued_by_their_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    environment = fake_scontrol(tmp_path, f'echo "$@" >> {tmp_path}/calls')
    for name, value in {**environment, "SLURM_ARRAY_JOB_ID": "16", "SLURM_ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(name, value)
    assert requeue()
    assert (tmp_path / "calls").read_text().splitlines()[-1] == "requeue 16_3"
    assert "job 16_3" in capsys.readouterr().out


def test_without_scontrol_or_slurm_nothing_is_requeued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    assert not requeue()
    assert "no scontrol" in capsys.readouterr().out
    monkeypatch.delenv("SLURM_JOB_ID")
    assert not requeue()
    assert capsys.readouterr().out == ""


# ---------------------------------------------------------------- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Two megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2M", "tmpfs", disk], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_full_disk_is_one_line_and_the_checkpoint_before_is_intact(
    processes: int, small_disk: Path, tmp_path: Path
) -> None:
    config = experiment("vae", processes, tmp_path)
    process = start(small_disk, "run", "--config", config, "--trainer.max_epochs", 500, "--loggers.wandb", "false")
    last = "runs/vae/*/checkpoints/last.ckpt"
    deadline = time.monotonic() + 120
    while not list(small_disk.glob(last)) and time.monotonic() < deadline:
        time.sleep(0.01)
    free = os.statvfs(small_disk)
    kept = 200_000  # for metrics.csv and the pictures
    (small_disk / "ballast").write_bytes(b"0" * max(0, free.f_bavail * free.f_frsize - kept))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    lines = [line for line in errors.splitlines() if line.startswith("lit-gen: error")]
    assert "No space left on device" in lines[0]
    assert "last.ckpt before it is intact" in lines[0]
    assert len(lines) == 1
    assert "Traceback" not in errors
    (small_disk / "ballast").unlink()
    (checkpoint,) = small_disk.glob(last)
    assert not list(checkpoint.parent.glob(".*tmp"))
    step = torch.load(checkpoint, weights_only=False)["global_step"]
    run = checkpoint.parent.parent
    resumed = lit_gen("run", "--resume", run, "--trainer.max_epochs", 20, "--checkpoint.every_n_steps", 0, cwd=tmp_path)
    assert f"at step {step}" in resumed.stdout
