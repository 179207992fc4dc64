"""``lit-gen run`` and its parts: fit, validate, test, predict."""

from __future__ import annotations

import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from lit_gen.callbacks.checkpoint_averaging import validate_average
from lit_gen.cli.app import LitGenCLI
from lit_gen.cli.report import print_report
from lit_gen.core.checkpoint import AVERAGED, RunCheckpoint, load_checkpoint, newest_intact
from lit_gen.core.console import say
from lit_gen.core.errors import UsageError
from lit_gen.core.loggers import finish_loggers, upload_best_model
from lit_gen.core.run_dir import RunDir, git_state, versions, write_examples, write_result
from lit_gen.core.stopping import Phase, Stopped, requeue, stop_request
from lit_gen.core.tree import flatten


def main(command: str, args: list[str]) -> int:
    """Runs one of the Trainer's commands; returns the exit code."""
    quiet_lightning()
    args, resume = take_option(args, "--resume")
    if resume is None:
        cli = LitGenCLI(command, args)
        {"run": run, "fit": run, "validate": evaluate, "test": evaluate, "predict": predict}[command](cli)
        return 0
    if command != "run":
        raise UsageError(f"--resume belongs to lit-gen run, not to lit-gen {command}")
    existing = RunDir.existing(resume)
    if any(word == "--config" or word == "-c" or word.startswith("--config=") for word in args):
        raise UsageError("--resume takes the configuration of the run itself: leave out --config")
    run(LitGenCLI(command, ["--config", str(existing.config), *args], resumed=existing))
    return 0


def run(cli: LitGenCLI) -> None:
    """Trains, and where the run is asked to stop before its end, puts its SLURM job back into the queue.

    Raises:
        Stopped: the run was asked to stop, and nothing will continue it by itself.
    """
    if cli.continued and cli.run_dir.result.is_file():
        say(f"{cli.run_dir.path} is finished: nothing is left to do for this job")
        return
    stop_request.run = str(cli.run_dir.path)
    try:
        train_and_test(cli)
    except Stopped as stopped:
        stop_request.phase = Phase.STOPPING
        finish_loggers(cli.trainer)
        # the other processes leave in silence: the first one speaks for all, and its exit code is the run's
        if cli.trainer.is_global_zero and (stopped.signum == signal.SIGINT or not requeue()):
            raise


def train_and_test(cli: LitGenCLI) -> None:
    """Fits, then (for ``run``) tests the best checkpoint and writes the run record."""
    started = time.perf_counter()
    trainer, model, data, run_dir = cli.trainer, cli.model, cli.datamodule, cli.run_dir
    resume_from = prepare_resume(cli) if cli.resumed else None
    say(f"run directory: {run_dir.path}")
    try:
        trainer.fit(model, datamodule=data, ckpt_path=resume_from)
    except SystemExit as error:  # Lightning's way to leave after Ctrl-C
        raise KeyboardInterrupt from error
    stop_request.finishing()
    if cli.command == "fit":
        return
    best = RunCheckpoint.to_test(run_dir.checkpoints)
    upload_best_model(trainer, best)
    if best.name == AVERAGED:
        validate_average(trainer, model, data, best)
    # read before testing, which loads the tested checkpoint's callback states
    seconds = {"train": cli.throughput.train_seconds, "evaluation_in_training": cli.throughput.evaluation_seconds}
    test_started = time.perf_counter()
    metrics = trainer.test(model, datamodule=data, ckpt_path=str(best), verbose=False)[0]
    examples = model.tested_examples()
    if trainer.is_global_zero:
        write_examples(run_dir, {name: values.tolist() for name, values in examples.items()})
        now = time.perf_counter()
        seconds |= {"test": now - test_started, "total_of_this_process": now - started}
        record = run_record(cli, best, metrics, seconds)
        write_result(run_dir, record)
        print_report(run_dir, record)


def prepare_resume(cli: LitGenCLI) -> str | None:
    """Names the checkpoint to continue from and cuts metrics.csv back to what was logged before it."""
    path = newest_intact(cli.run_dir.checkpoints)
    if path is None:
        say("no intact checkpoint yet: the run starts again from its beginning")
        cli.csv.truncate(0)
        return None
    checkpoint = load_checkpoint(path)
    check_same_model(cli, checkpoint, path)
    if checkpoint["log_rows"] is not None:
        cli.csv.truncate(checkpoint["log_rows"])
    say(f"resuming from {path} at step {checkpoint['global_step']}")
    return str(path)


def check_same_model(cli: LitGenCLI, checkpoint: dict[str, Any], path: str | Path) -> None:
    """Compares the checkpoint's class and hyper-parameters with the configuration's.

    Raises:
        UsageError: naming the first difference.
    """
    found = {k: v for k, v in checkpoint["hyper_parameters"].items() if k != "_instantiator"}
    wanted = {k: v for k, v in cli.model.hparams.items() if k != "_instantiator"}
    if found.get("_class_path") != wanted.get("_class_path"):
        raise UsageError(
            f"{path} holds a {found.get('_class_path')}, the configuration asks for a {wanted.get('_class_path')}"
        )
    old, new = flatten(found), flatten(wanted)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            raise UsageError(
                f"{path} was made with model.init_args.{key} = {old.get(key)}, the configuration has {new.get(key)}"
            )


def evaluate(cli: LitGenCLI) -> None:
    """Validates or tests a checkpoint and prints its metrics."""
    path = checkpoint_of(cli.config.ckpt_path)
    check_same_model(cli, load_checkpoint(path), path)
    method = getattr(cli.trainer, cli.command)
    metrics = method(cli.model, datamodule=cli.datamodule, ckpt_path=str(path), verbose=False)[0]
    if cli.trainer.is_global_zero:
        for name, value in sorted(metrics.items()):
            print(f"{name}  {value:.6g}")


def predict(cli: LitGenCLI) -> None:
    """Writes what the model says of each example of the predict split."""
    import numpy as np

    path, out = checkpoint_of(cli.config.ckpt_path), Path(cli.config.out)
    check_same_model(cli, load_checkpoint(path), path)
    if out.suffix != ".npz":
        raise UsageError(f"--out {out}: accepted is a file name ending in .npz")
    batches = cli.trainer.predict(cli.model, datamodule=cli.datamodule, ckpt_path=str(path))
    arrays = {key: torch.cat([batch[key] for batch in batches]).float().cpu().numpy() for key in batches[0]}
    np.savez(out, **arrays)
    print("  ".join(f"{key} {list(value.shape)}" for key, value in arrays.items()), "->", out)


def checkpoint_of(run_or_checkpoint: str | Path) -> Path:
    """The checkpoint that a path means: itself, or the best one of a run directory.

    Raises:
        UsageError: there is none.
    """
    path = Path(run_or_checkpoint)
    if path.is_dir():
        return RunCheckpoint.to_test(RunDir.existing(path).checkpoints)
    if not path.is_file():
        raise UsageError(f"no run directory and no checkpoint at {path}")
    return path


def run_record(cli: LitGenCLI, tested: Path, metrics: dict[str, float], seconds: dict[str, float]) -> dict[str, Any]:
    """All that ``result.json`` says of a run."""
    trainer, model = cli.trainer, cli.model
    estimators = dict(model.estimators)
    for callback in trainer.callbacks:
        estimators.update(getattr(callback, "record", None) or {})
    networks = {
        name: sum(p.numel() for p in child.parameters() if p.requires_grad) for name, child in model.named_children()
    }
    networks = {name: count for name, count in networks.items() if count}
    device = model.device
    return {
        "experiment": cli.run_dir.experiment,
        "run_id": cli.run_dir.run_id,
        "command": "lit-gen " + " ".join(sys.argv[1:]),
        "model": cli.config.model.class_path,
        "data": cli.config.data.class_path,
        "data_hash": getattr(cli.datamodule, "content_hash", None),
        "metrics": metrics,
        "estimators": estimators,
        "checkpoint": tested.name,
        "best": {"monitor": cli.checkpoint.monitor, "value": cli.checkpoint.best, "step": cli.checkpoint.best_step},
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
        # networks may share parameters: tied weights count once
        "parameters": {"total": sum(p.numel() for p in model.parameters() if p.requires_grad), **networks},
        "seed": cli.config.seed_everything,
        "git": git_state(),
        "versions": versions(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "world_size": trainer.world_size,
        "precision": str(trainer.precision),
        "seconds": seconds,
    }


def take_option(args: list[str], name: str) -> tuple[list[str], str | None]:
    """Takes ``--name VALUE`` or ``--name=VALUE`` out of the words.

    Raises:
        UsageError: the value is missing.
    """
    rest, value, words = [], None, iter(args)
    for word in words:
        if word == name:
            value = next(words, None)
            if value is None:
                raise UsageError(f"{name} needs a value")
        elif word.startswith(f"{name}="):
            value = word.split("=", 1)[1]
        else:
            rest.append(word)
    return rest, value


def quiet_lightning() -> None:
    """Silences Lightning's tips; warnings that a user can act on stay."""
    import logging

    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*number of training batches.*",
        ".*treespec, LeafSpec.*",
        ".*`srun` command is available.*",
        ".*callbacks used to create.*",
        ".*in eval mode at the start of training.*",
    ):
        warnings.filterwarnings("ignore", message)
