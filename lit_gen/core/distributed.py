"""What the rest needs of torch.distributed; without a process group there is one process, of rank zero."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from lit_gen.core.errors import LitGenError

T = TypeVar("T")


def _initialised() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Rank of this process."""
    return dist.get_rank() if _initialised() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if _initialised() else 1


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor over the processes, the same on each; the tensor itself where there is one process."""
    if world_size() == 1:
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / world_size()


def share_from_rank_zero(tensors: Iterable[Tensor]) -> None:
    """Gives every process the first one's values, in place."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


class Vote:
    """The largest number that any process has put in, taken out later: nobody waits in between.

    A group of its own on the CPU, so that neither the accelerator nor the reduction of the gradients is held up.
    To be made, put into and taken from by all processes alike.
    """

    def __init__(self) -> None:
        self._group = dist.new_group(backend="gloo") if world_size() > 1 else None
        self._number = torch.zeros(1, dtype=torch.int64)
        self._pending: dist.Work | None = None

    def put(self, number: int) -> None:
        self._number[0] = number
        if self._group is not None:
            self._pending = dist.all_reduce(self._number, dist.ReduceOp.MAX, self._group, async_op=True)

    def take(self) -> int:
        if self._pending is not None:
            self._pending.wait()
            self._pending = None
        return int(self._number)


def from_rank_zero(compute: Callable[[], T]) -> T:
    """Calls ``compute`` on rank zero alone and returns its result, or raises its error, on every rank.

    The others wait; an error is sent to them too, for a rank that waits for one that died would wait until the timeout.

    Raises:
        LitGenError: (or the subclass raised) on all ranks.
        RuntimeError: on the other ranks, where rank zero raised any other exception.
    """
    if world_size() == 1:
        return compute()
    message: list[Any] = [None]
    error: Exception | None = None
    if rank() == 0:
        try:
            message = [("result", compute())]
        except LitGenError as raised:
            error, message = raised, [("user", type(raised), str(raised))]
        except Exception as raised:
            error, message = raised, [("error", None, f"{type(raised).__name__}: {raised}")]
    dist.broadcast_object_list(message, src=0)
    if error is not None:
        raise error
    what, *content = message[0]
    if what == "result":
        return content[0]
    if what == "user":
        kind, text = content
        copy = kind.__new__(kind)
        copy.args = (text,)
        raise copy
    raise RuntimeError(f"rank zero failed with {content[1]}")
