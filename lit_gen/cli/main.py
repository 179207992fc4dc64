"""Entry point: answers ``--help`` without importing torch, dispatches, and turns errors into one line and an exit code."""

from __future__ import annotations

import difflib
import os
import re
import sys
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from lit_gen import __version__
from lit_gen.core.errors import LitGenError, UsageError
from lit_gen.core.launch import check_launch, fill_trainer_arguments, launch_environment, process_rank
from lit_gen.core.stopping import Phase, stop_request

COMMANDS = {
    "run": ("lit_gen.cli.run", "train, test the best checkpoint, write result.json"),
    "fit": ("lit_gen.cli.run", "train only"),
    "validate": ("lit_gen.cli.run", "evaluate a checkpoint on the validation split"),
    "test": ("lit_gen.cli.run", "evaluate a checkpoint on the test split"),
    "predict": ("lit_gen.cli.run", "what the model says of each example: codes, critic values"),
    "sample": (
        "lit_gen.cli.sample",
        "images from a run: grid, array, walk, reconstructions, completions, filters, chains",
    ),
    "reproduce": (
        "lit_gen.cli.reproduce",
        "a paper's table: what is missing is run, the paper's values stand beside ours",
    ),
    "submit": ("lit_gen.cli.submit", "a run as a SLURM job: its script is written, shown and submitted"),
    "sweep": ("lit_gen.cli.sweep", "a W&B sweep file without internet, on any number of workers"),
}

TRAINING_COMMANDS = ("run", "fit")
TRAINER_COMMANDS = (*TRAINING_COMMANDS, "validate", "test", "predict")

USAGE = """usage: lit-gen COMMAND [options]

The classical generative models, trained, measured and sampled by one command.

commands:
{commands}

  lit-gen COMMAND --help    options of one command
  --debug                   show the traceback of an error
  --version                 print the version

examples:
  lit-gen run --config configs/gan/dcgan_digits.yaml
  lit-gen run --config configs/vae/vae_mnist.yaml --model.init_args.beta 4 --trainer.max_epochs 3 --name beta4
  lit-gen run --resume runs/vae_mnist/RUN_ID
  lit-gen sample runs/vae_mnist/RUN_ID --n 64 --out grid.png
"""


LOST_PEER = re.compile(r"gloo.*(peer|pipe|refused)|NCCL.*(remote|abort|timeout)", re.IGNORECASE)


SILENT_SECONDS = 2.0
"""What a process that leaves its error to the first one waits: a launcher stops them all as soon as one has left."""


def usage() -> str:
    """The text of ``lit-gen --help``."""
    return USAGE.format(commands="\n".join(f"  {name:10}{text}" for name, (_, text) in COMMANDS.items()))


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the words after ``lit-gen``; ``sys.argv[1:]`` where None.

    Returns:
        The exit code: 0; 2 for a mistake of the user's; 3 for a diverged training; 128 + N where signal N (2: Ctrl-C)
        stopped the run; 1 for anything else.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    args = [word for word in args if word != "--debug"]
    if not args or args[0] in ("-h", "--help", "help"):
        print(usage(), end="")
        return 0
    if args[0] == "--version":
        print(f"lit-gen {__version__}")
        return 0
    if argv is None:  # this process is ours alone
        os.environ.pop("WANDB_SERVICE", None)  # of a caller that logs: it writes where that one is, and ends with it
        if args[0] in TRAINING_COMMANDS:
            stop_request.watch()
    code = exit_code(args, debug)
    stop_request.ended()
    return code


def exit_code(args: list[str], debug: bool) -> int:
    """Runs a command; an error becomes a line and a number."""
    try:
        return dispatch(args[0], args[1:])
    except LitGenError as error:
        return report(error, error.exit_code, debug)
    except KeyboardInterrupt as error:
        return report(error, 130, debug)
    except BrokenPipeError:  # the reader of our output has gone, as in `lit-gen ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        return report(error, 1, debug)


def dispatch(command: str, args: list[str]) -> int:
    """Imports the command's module and runs it.

    Raises:
        UsageError: there is no such command.
    """
    if command not in COMMANDS:
        close = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"accepted: {', '.join(COMMANDS)}"
        raise UsageError(f"unknown command {command!r}: {hint}")
    if command in TRAINER_COMMANDS:  # before torch is imported, which takes seconds
        check_launch()
        check_devices(args)
    return import_module(COMMANDS[command][0]).main(command, args)


def check_devices(args: list[str]) -> None:
    """Compares the devices and nodes of the command with the launcher's; the parser does it again, many seconds later.

    Raises:
        UsageError: they differ.
    """
    env = launch_environment()
    if not env.launcher:
        return
    asked: dict[str, Any] = {"devices": "auto", "num_nodes": 1}
    for word, after in zip(args, [*args[1:], ""]):
        option, _, value = word.partition("=")
        with suppress(OSError, yaml.YAMLError, AttributeError, TypeError):  # the parser will say what is wrong
            if option in ("-c", "--config"):
                asked |= yaml.safe_load(Path(value or after).read_text()).get("trainer", {})
            elif option in ("--trainer.devices", "--trainer.num_nodes"):
                asked[option.rpartition(".")[2]] = yaml.safe_load(value or after)
    fill_trainer_arguments(env, asked["devices"], asked["num_nodes"])


def report(error: BaseException, code: int, debug: bool) -> int:
    """Prints the error as one line on standard error (with its traceback where asked for) and returns the exit code."""
    if debug:
        import traceback

        traceback.print_exception(error)
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, KeyboardInterrupt):
        text = f"interrupted; continue with lit-gen run --resume {stop_request.run}"
    elif LOST_PEER.search(text):
        text = f"another process of this run died; continue with lit-gen run --resume {stop_request.run}"
    elif not isinstance(error, LitGenError):
        text = f"{type(error).__name__}: {text}" + ("" if debug else " (--debug shows the traceback)")
    rank = process_rank()
    # what is wrong before training is wrong in every process; later each may have an error of its own
    if rank == 0 or (stop_request.phase is not Phase.STARTING and not isinstance(error, LitGenError)):
        print(f"lit-gen: error: {f'[rank {rank}] ' if rank else ''}{text}", file=sys.stderr, flush=True)
    else:
        time.sleep(SILENT_SECONDS)
    return code
