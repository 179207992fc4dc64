"""``lit-gen submit``: a run as a SLURM job. The job script is the site's own script of ``slurm/``, filled in for this run."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import lit_gen
from lit_gen.cli.arguments import OneLineParser, joined, positive
from lit_gen.cli.job_script import JobScript, seconds_of
from lit_gen.core.errors import LitGenError, UsageError, require

TEMPLATES = {"srun": "train.sbatch", "torchrun": "train_torchrun.sbatch"}
OWN = {
    "array": "", "dependency": "", "job-name": "", "chdir": "", "open-mode": "", "ntasks": "--nodes, --tasks-per-node",
    "nodes": "--nodes", "ntasks-per-node": "--tasks-per-node", "gpus-per-node": "--gpus-per-node", "time": "--time",
    "cpus-per-task": "--cpus-per-task", "mem": "--mem", "partition": "--partition", "account": "--account",
    "signal": "--signal-before",
}  # fmt: skip
"""What --sbatch cannot set, and the option that does; "" where the run decides."""
EPILOG = """\
All other words are those of `lit-gen run`. The configuration is checked, the run directory is made with its config.yaml
and job.sbatch, the script is shown and submitted. What is not given here is taken from slurm/train.sbatch (or
train_torchrun.sbatch), with what you have set there for your site.

The job continues the run that is in its directory: after a preemption or at the time limit it saves, goes back into the
queue and goes on. `sbatch RUN/job.sbatch` submits it again; two jobs never train in one directory at the same time.

examples:
  lit-gen submit --config configs/gan/dcgan_mnist.yaml --nodes 2 --gpus-per-node 8 --time 8:00:00 --dry-run
  lit-gen submit --config configs/vae/vae_mnist.yaml --tasks-per-node 4 --model.init_args.beta 4 --name beta4
  lit-gen submit --config C --gpus-per-node 1 --setup "module load cuda/12.4" --sbatch "--qos=high"
  lit-gen submit --resume runs/vae_mnist/RUN_ID --nodes 1 --trainer.max_epochs 200
"""


def main(command: str, args: list[str]) -> int:
    """Writes the job script of a run into its run directory and submits it; returns the exit code.

    Raises:
        UsageError: the options or the run's configuration are wrong; nothing was written.
        LitGenError: the script was written, and sbatch is missing or refuses it.
    """
    options, words = parse(args)
    script = JobScript.read(Path(lit_gen.__file__).parent / "slurm" / TEMPLATES[options.launcher])
    fill_in(script, options)

    from lit_gen.core.run_dir import write_atomically

    run, words, config = prepared_run(words, script)
    run_path = run.path.absolute()
    about_the_run = {
        "job-name": f"{run.experiment}-{run.run_id}",
        "dependency": "singleton",  # of this name and user: SLURM itself keeps a second job out of the directory
        "chdir": str(Path.cwd()),
        "output": str(run_path / "slurm-%j.out").replace("%", "%%").replace("%%j", "%j"),
    }
    script.options = {**about_the_run, **{k: v for k, v in script.options.items() if k not in about_the_run}}
    script.setup = [*path_of_lit_gen(), *script.setup, *options.setup]
    text = script.text("Written by lit-gen submit. Submitted again, it continues the run in its directory.",
                       ["--resume", str(run_path), *words])  # fmt: skip
    run.create()
    if config is not None:
        write_atomically(run.config, config)
    path = run.path / "job.sbatch"
    write_atomically(path, text)
    show(text)
    print(f"run directory: {run.path}")
    if options.dry_run:
        print(f"not submitted: sbatch {shlex.quote(str(path))} does it")
        return 0
    print(f"submitted job {sbatch(path)}; it writes to {run.path}/slurm-JOB.out")
    return 0


# ---------------------------------------------------------------- options


def build_parser() -> argparse.ArgumentParser:
    """The options of ``lit-gen submit``."""
    parser = OneLineParser(
        prog="lit-gen submit", usage="lit-gen submit [options] [words of lit-gen run]", epilog=EPILOG, allow_abbrev=False,
        description="Submits a run to SLURM.", formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--nodes", type=positive, metavar="N", help="nodes of the job")
    add("--gpus-per-node", type=positive, metavar="N", help="GPUs on each node, with one process for each")
    add("--tasks-per-node", type=positive, metavar="N", help="processes on each node of a job without GPUs")
    add("--cpus-per-task", type=positive, metavar="N", help="CPUs of each process")
    add("--mem", type=memory, metavar="SIZE", help="memory on each node, such as 64G")
    add("--time", type=time_limit, metavar="LIMIT", help="such as 90 (minutes), 8:00:00 or 2-12:00:00")
    add("--partition", type=one_line, metavar="NAME")
    add("--account", type=one_line, metavar="NAME")
    add("--signal-before", type=positive, default=120, metavar="SECONDS",
        help="how long before the limit the run saves and goes back into the queue (default 120)")  # fmt: skip
    add("--launcher", choices=TEMPLATES, default="srun", help="what starts the processes (default srun)")
    add("--sbatch", type=one_line, action="append", default=[], metavar='"--any=thing"',
        help="any other option of sbatch; may be repeated")  # fmt: skip
    add("--setup", type=one_line, action="append", default=[], metavar="LINE",
        help='a line of shell before the run, such as "module load cuda"; may be repeated')  # fmt: skip
    add("--dry-run", action="store_true", help="write and show the script, submit nothing")
    return parser


def memory(text: str) -> str:
    """An amount of memory as sbatch takes it."""
    if not re.fullmatch(r"\d+[KMGT]?", text, re.IGNORECASE):
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: a whole number with K, M, G or T (alone: megabytes)")
    return text


def time_limit(text: str) -> str:
    """A time limit as sbatch takes it."""
    if seconds_of(text) is None:
        raise argparse.ArgumentTypeError(
            f"{text!r}; accepted: MINUTES, MIN:SEC, HOURS:MIN:SEC, DAYS-HOURS, DAYS-HOURS:MIN, DAYS-HOURS:MIN:SEC, UNLIMITED"
        )
    return text


def one_line(text: str) -> str:
    """Text that can stand in a line of the script."""
    if not text.strip() or "\n" in text:
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: one line that is not empty")
    return text


def parse(args: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The job's options, and the words that belong to ``lit-gen run``.

    Raises:
        UsageError: an option is wrong.
    """
    return build_parser().parse_known_args(joined(args, "--sbatch", "--setup"))


def fill_in(script: JobScript, options: argparse.Namespace) -> None:
    """Puts the given options in the place of the template's.

    Raises:
        UsageError: they contradict each other.
    """
    gpus, tasks = options.gpus_per_node, options.tasks_per_node
    if gpus and tasks and gpus != tasks:
        raise UsageError(
            f"--tasks-per-node {tasks}: a job with --gpus-per-node {gpus} has one process for each GPU; leave it out"
        )
    signal = (script.options.get("signal") or "USR1").split("@")[0]
    given = {
        "partition": options.partition, "account": options.account, "nodes": options.nodes, "gpus-per-node": gpus,
        "ntasks-per-node": gpus or tasks, "cpus-per-task": options.cpus_per_task, "mem": options.mem,
        "time": options.time, "signal": f"{signal}@{options.signal_before}",
    }  # fmt: skip
    script.options.update({name: str(value) for name, value in given.items() if value is not None})
    for text in options.sbatch:
        match = re.fullmatch(r"--([a-z][a-z-]*)(?:[= ]\s*(.+))?", text.strip())
        require(match is not None, "--sbatch", repr(text), 'one option with its value, such as "--qos=high"')
        if match[1] in OWN:
            how = f"use {OWN[match[1]]}" if OWN[match[1]] else "lit-gen submit sets it, so that the job finds its run"
            raise UsageError(f"--sbatch {text!r}: {how}")
        script.options[match[1]] = match[2]
    limit = script.options.get("time")
    if limit and (seconds_of(limit) or float("inf")) <= options.signal_before:
        raise UsageError(f"--signal-before {options.signal_before}: the time limit {limit} is no longer than that")


# ---------------------------------------------------------------- the run


def prepared_run(words: list[str], script: JobScript) -> tuple[Any, list[str], str | None]:
    """The run's directory, the words that change it while resuming, and the text of its config.yaml where it is new.

    Raises:
        UsageError: the configuration is wrong or does not fit the job.
    """
    import yaml

    from lit_gen.cli.app import checked_config
    from lit_gen.cli.configuration import refuse_changes
    from lit_gen.cli.run import take_option
    from lit_gen.core.launch import fresh_run_id
    from lit_gen.core.run_dir import RunDir

    rest, resume = take_option(words, "--resume")
    if resume is not None:
        run = RunDir.existing(resume)
        config = checked_config(["--config", str(run.config), *rest])
        refuse_changes(yaml.safe_load(run.config.read_text()), config)
        check_fits(config["trainer"], script)
        return run, rest, None
    config = checked_config(words)
    check_fits(config["trainer"], script)
    run = RunDir(Path(config["runs_dir"]) / config["name"] / fresh_run_id())
    return run, [], yaml.safe_dump(config, sort_keys=False)


def check_fits(trainer: dict[str, Any], script: JobScript) -> None:
    """Compares what the configuration says of devices with what the job asks for.

    Raises:
        UsageError: they differ.
    """
    devices, nodes, accelerator = trainer["devices"], trainer["num_nodes"], trainer["accelerator"]
    if isinstance(devices, str) and "," in devices:
        devices = [part for part in devices.split(",") if part]
    count = len(devices) if isinstance(devices, list) else devices
    if str(count) not in ("auto", "-1", str(script.processes)) or nodes not in (1, script.nodes):
        raise UsageError(
            f"trainer.devices = {count}, trainer.num_nodes = {nodes}, but the job has {script.processes} process(es) "
            f"on each of {script.nodes} node(s): leave both out of the configuration or make them agree"
        )
    if accelerator == "cpu" and script.has_gpus():
        raise UsageError("trainer.accelerator = cpu, but the job asks for GPUs: leave out one of the two")
    if accelerator in ("gpu", "cuda") and not script.has_gpus():
        raise UsageError(f"trainer.accelerator = {accelerator}, but the job asks for no GPUs: give --gpus-per-node")


def path_of_lit_gen() -> list[str]:
    """The line that makes the job use the environment from which it is submitted."""
    folder = Path(sys.executable).parent
    return [f'export PATH={shlex.quote(str(folder))}:"$PATH"'] if (folder / "lit-gen").exists() else []


# ---------------------------------------------------------------- submitting


def show(text: str) -> None:
    """Prints the script, in colour where people look at it."""
    if not sys.stdout.isatty():
        print(text)
        return
    from rich.console import Console
    from rich.syntax import Syntax

    Console().print(Syntax(text, "bash", word_wrap=True, background_color="default"))


def sbatch(path: Path) -> str:
    """Submits a script; returns the job's id.

    Raises:
        LitGenError: there is no sbatch, or it refuses.
    """
    if shutil.which("sbatch") is None:
        raise LitGenError(f"no sbatch on this machine: {path} is written; on a login node, sbatch {path} submits it")
    environ = {name: value for name, value in os.environ.items() if name != "LIT_GEN_RUN_ID"}
    done = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True, env=environ)
    if done.returncode != 0:
        lines = [line.split("error: ", 1)[-1].strip() for line in done.stderr.splitlines() if line.strip()]
        raise LitGenError(f"sbatch refuses {path}: {'; '.join(lines) or f'exit {done.returncode}'}")
    return done.stdout.strip().split(";")[0]
