"""States of which each process holds some rows: shared out in order of rank, and gathered whole for the checkpoint."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from lit_gen.core.distributed import rank, world_size


def share(count: int, process: int | None = None) -> tuple[int, int]:
    """First and last (exclusive) of ``count`` rows that a process holds; this process where None."""
    process, world = rank() if process is None else process, world_size()
    return process * count // world, (process + 1) * count // world


def gather_rows(part: Tensor, count: int, axis: int = 0) -> Tensor:
    """All rows, on the CPU and in memory of their own; every process must call it.

    Args:
        part: this process's :func:`share` of the rows.
        count: rows of all processes.
        axis: the one that counts the rows.
    """
    if world_size() == 1:
        return part.detach().cpu().clone()
    bounds = [share(count, process) for process in range(world_size())]
    lengths = [last - first for first, last in bounds]
    rows = part.detach().movedim(axis, 0)
    # gloo and NCCL both gather equal shapes only
    padded = rows.new_zeros(max(lengths), *rows.shape[1:])
    padded[: lengths[rank()]] = rows
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    whole = torch.cat([each[:length] for each, length in zip(parts, lengths)])
    return whole.movedim(0, axis).cpu().contiguous()
