"""The launcher's environment: how many processes there are, who this one is, and one run directory for all of them."""

from __future__ import annotations

import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lit_gen.core.errors import UsageError

_SHARED_RUN_ID = "LIT_GEN_RUN_ID"
_INTERACTIVE = ("bash", "interactive")
"""Names of jobs that are a shell: Lightning takes what is started in one for a process of its own."""


@dataclass(frozen=True)
class LaunchEnvironment:
    """What torchrun, ``fabric run`` or srun say of the job; one process on one node where nobody says anything.

    Args:
        launcher: "torchrun", "slurm" or "" (started directly; Lightning itself starts the other processes).
        rank: global rank of this process.
        world_size: number of processes over all nodes.
        nodes: number of nodes.
        job_id: identity of the SLURM job (and step) that survives a requeue, "" where there is none.
        restarts: how many times the launcher has started this job again.
    """

    launcher: str
    rank: int
    world_size: int
    nodes: int
    job_id: str = ""
    restarts: int = 0

    @property
    def devices(self) -> int:
        """Processes per node."""
        return self.world_size // self.nodes


def launch_environment(environ: Mapping[str, str] = os.environ) -> LaunchEnvironment:
    """Reads the launcher's variables."""

    def number(name: str, default: int) -> int:
        return int(environ.get(name) or default)

    job_id, restarts = slurm_job(environ), number("SLURM_RESTART_COUNT", 0)
    if "TORCHELASTIC_RUN_ID" in environ:
        world, local = number("WORLD_SIZE", 1), number("LOCAL_WORLD_SIZE", 1)
        restarts += number("TORCHELASTIC_RESTART_COUNT", 0)
        return LaunchEnvironment("torchrun", number("RANK", 0), world, max(1, world // local), job_id, restarts)
    if _started_by_srun(environ) and environ.get("SLURM_JOB_NAME") not in _INTERACTIVE:
        if step := number("SLURM_STEP_ID", 0):
            job_id += f"-step{step}"  # the same job may start several runs
        world, nodes = number("SLURM_NTASKS", 1), number("SLURM_NNODES", 1)
        return LaunchEnvironment("slurm", number("SLURM_PROCID", 0), world, nodes, job_id, restarts)
    return LaunchEnvironment("", number("LOCAL_RANK", 0), 1, 1)


def process_rank(environ: Mapping[str, str] = os.environ) -> int:
    """Which of the processes started together this one is, as far as anyone says, however wrongly they were started."""
    ranks = (int(environ.get(name) or 0) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return next(filter(None, ranks), 0)


def slurm_job(environ: Mapping[str, str] = os.environ) -> str:
    """The SLURM job's id, with its array task, as ``scontrol`` takes it; "" outside SLURM."""
    if array := environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{environ.get('SLURM_ARRAY_TASK_ID')}"
    return environ.get("SLURM_JOB_ID", "")


def _started_by_srun(environ: Mapping[str, str]) -> bool:
    return "SLURM_STEP_ID" in environ


def check_launch(environ: Mapping[str, str] = os.environ) -> None:
    """Explains the ways to start a SLURM job that end in a hang or in several trainings of the same run.

    Raises:
        UsageError: naming the variable and what to do.
    """
    env = launch_environment(environ)
    tasks = int(environ.get("SLURM_NTASKS") or 1)
    if "SLURM_JOB_ID" in environ and env.launcher != "torchrun" and tasks > 1:
        name = environ.get("SLURM_JOB_NAME")
        if not _started_by_srun(environ):
            raise UsageError(
                f"the SLURM job has {tasks} tasks, but this process was not started by srun and would wait for the others "
                "for ever: write srun lit-gen run ..."
            )
        if name in _INTERACTIVE:
            raise UsageError(
                f"the SLURM job is called {name!r}, as a shell is, and its {tasks} tasks would train {tasks} times: "
                "give it another name, srun --job-name=NAME"
            )
        if "SLURM_NTASKS_PER_NODE" not in environ:
            raise UsageError(
                f"--ntasks={tasks} leaves open how many processes a node has: "
                f"give --ntasks-per-node={tasks // env.nodes} (and --nodes={env.nodes})"
            )
    if env.world_size % env.nodes:
        raise UsageError(f"{env.world_size} processes on {env.nodes} nodes: each node needs as many as the others")
    if env.world_size > 1 and env.launcher:
        check_resolvable(environ.get("MASTER_ADDR") or first_host(environ.get("SLURM_NODELIST", "127.0.0.1")))


def first_host(nodes: str) -> str:
    """The first name of SLURM's list: node3 of ``node[3-7,9],other``."""
    return "".join(part or "" for part in re.match(r"([^\[,]*)(?:\[(\d+)[^\]]*\]([^,]*))?", nodes).groups())


def check_resolvable(host: str, seconds: float = 5.0) -> None:
    """Looks a host's name up, for as long as ``seconds``.

    Raises:
        UsageError: the name means nothing here.
    """
    found: list[Any] = []

    def look_up() -> None:
        with suppress(OSError):
            found.append(socket.getaddrinfo(host, None))

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        raise UsageError(
            f"the master address {host!r} cannot be resolved on {socket.gethostname()}: "
            "set MASTER_ADDR to an address of the first node that every node can reach"
        )


def shared_run_id(env: LaunchEnvironment) -> str:
    """A run id that all processes of this launch agree on.

    An agent of W&B names the run it starts. A SLURM job's id (with its array task) names its run, so that a requeued job
    finds its own directory. Else the first process draws one: processes started by Lightning inherit it, those of torchrun
    ask the launcher's store, where it survives a restart.
    """
    if os.environ.get("WANDB_SWEEP_ID") and os.environ.get("WANDB_RUN_ID"):
        return os.environ["WANDB_RUN_ID"]
    if known := os.environ.get(_SHARED_RUN_ID):
        return known
    if env.job_id:
        return f"slurm-{env.job_id}"
    run_id = fresh_run_id()
    if env.launcher == "torchrun" and env.world_size > 1:
        run_id = _agree(env, run_id)
    os.environ[_SHARED_RUN_ID] = run_id
    return run_id


def fresh_run_id() -> str:
    """The time and six random digits."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def _agree(env: LaunchEnvironment, run_id: str) -> str:
    store, key = _store_of_torchrun(), "lit_gen/run_id"
    if env.rank == 0:
        store.compare_set(key, "", run_id)  # a restart keeps the first one's
    return store.get(key).decode()


def _store_of_torchrun() -> Any:
    from torch.distributed import TCPStore

    return TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)


def renew_rendezvous(env: LaunchEnvironment) -> None:
    """Lets the processes that torchrun has started again meet at a port of their own.

    Torchrun's store still has the addresses of those that died, and whoever reads before the new ones are written tries
    to reach them (seen with torch 2.15).
    """
    attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0)
    if env.world_size == 1 or attempt == 0:
        return
    store, key = _store_of_torchrun(), f"lit_gen/port/{attempt}"
    if env.rank == 0:
        with socket.socket() as free:
            free.bind(("", 0))
            store.set(key, str(free.getsockname()[1]))
    os.environ["MASTER_PORT"] = store.get(key).decode()
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"


def fill_trainer_arguments(
    env: LaunchEnvironment, devices: str | int | list, nodes: int
) -> tuple[str | int | list, int]:
    """Devices and nodes for the Trainer: the launcher's where the user gave none ("auto", 1), checked where she did.

    Raises:
        UsageError: the user's numbers and the launcher's differ.
    """
    if isinstance(devices, str) and devices.isdigit():  # as the command line gives it
        devices = int(devices)
    if not env.launcher:
        return devices, nodes
    asked = len(devices) if isinstance(devices, list) else devices
    if str(asked) not in ("auto", "-1", str(env.devices)) or (nodes != 1 and nodes != env.nodes):
        raise UsageError(
            f"trainer.devices = {asked}, trainer.num_nodes = {nodes}, but {env.launcher} started {env.devices} process(es) "
            f"on each of {env.nodes} node(s): leave both out or make them agree"
        )
    return (devices if isinstance(devices, list) else env.devices), env.nodes


def check_world_size(env: LaunchEnvironment, world_size: int) -> None:
    """Stops before training where the Trainer's world differs from the launcher's: the processes would train alone.

    Raises:
        UsageError: naming both numbers.
    """
    if env.launcher and world_size != env.world_size:
        raise UsageError(
            f"{env.launcher} started {env.world_size} processes, the Trainer sees {world_size}: "
            "set trainer.strategy to ddp and trainer.accelerator to the device in use"
        )
