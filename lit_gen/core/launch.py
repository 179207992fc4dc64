"""The launcher's environment: how many processes there are, who this one is, and one run directory for all of them."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass

from lit_gen.core.errors import UsageError

_SHARED_RUN_ID = "LIT_GEN_RUN_ID"


@dataclass(frozen=True)
class LaunchEnvironment:
    """What torchrun, ``fabric run`` or srun say of the job; one process on one node where nobody says anything.

    Args:
        launcher: "torchrun", "slurm" or "" (started directly; Lightning itself starts the other processes).
        rank: global rank of this process.
        world_size: number of processes over all nodes.
        nodes: number of nodes.
        job_id: identity of the job that survives a requeue, "" where there is none.
    """

    launcher: str
    rank: int
    world_size: int
    nodes: int
    job_id: str = ""

    @property
    def devices(self) -> int:
        """Processes per node."""
        return self.world_size // self.nodes


def launch_environment(environ: Mapping[str, str] = os.environ) -> LaunchEnvironment:
    """Reads the launcher's variables."""
    get = environ.get
    if "TORCHELASTIC_RUN_ID" in environ:
        world, local = int(get("WORLD_SIZE", 1)), int(get("LOCAL_WORLD_SIZE", 1))
        return LaunchEnvironment("torchrun", int(get("RANK", 0)), world, max(1, world // local))
    if "SLURM_PROCID" in environ and get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        array, job = get("SLURM_ARRAY_JOB_ID"), get("SLURM_JOB_ID", "")
        job_id = f"{array}_{get('SLURM_ARRAY_TASK_ID')}" if array else job
        world, nodes = int(get("SLURM_NTASKS", 1)), int(get("SLURM_NNODES", get("SLURM_JOB_NUM_NODES", 1)))
        return LaunchEnvironment("slurm", int(get("SLURM_PROCID", 0)), world, nodes, job_id)
    return LaunchEnvironment("", int(get("LOCAL_RANK", 0)), 1, 1)


def shared_run_id(env: LaunchEnvironment) -> str:
    """A run id that all processes of this launch agree on.

    A SLURM job's id (with its array task) names the run, so that a requeued job finds its own directory. Else the first
    process draws one: processes started by Lightning inherit it, those of torchrun ask the launcher's store.
    """
    if env.job_id:
        return f"slurm-{env.job_id}"
    if known := os.environ.get(_SHARED_RUN_ID):
        return known
    run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    if env.launcher == "torchrun" and env.world_size > 1:
        run_id = _agree(env, run_id)
    os.environ[_SHARED_RUN_ID] = run_id
    return run_id


def _agree(env: LaunchEnvironment, run_id: str) -> str:
    from torch.distributed import TCPStore

    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    key = f"lit_gen/run_id/{attempt}"
    if env.rank == 0:
        store.set(key, run_id)
    return store.get(key).decode()


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
