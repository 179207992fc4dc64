"""What a causal network remembers of the tokens it has read, one row for each sequence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from torch import Tensor


class Cache(ABC):
    """The state of a network that reads from left to right; rows of all its tensors are sequences (dimension 0).

    Both methods leave this cache as it is. Reading on gives the next cache and may reuse the memory of the one before, so
    that each is read on from once.
    """

    @abstractmethod
    def select(self, rows: Tensor) -> "Cache":
        """The cache of the given rows (int64, any length): reorders, drops and repeats sequences."""

    @abstractmethod
    def detach(self) -> "Cache":
        """The same state as a constant: gradients end here (truncated backpropagation through time)."""


class TensorCache(Cache):
    """A tuple of tensors ``[rows, ...]``: all that most networks need to remember.

    Args:
        tensors: any number of tensors with equally many rows.
    """

    def __init__(self, *tensors: Tensor) -> None:
        self.tensors = tensors

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __getitem__(self, index: int) -> Tensor:
        return self.tensors[index]

    def select(self, rows: Tensor) -> "TensorCache":
        return type(self)(*(tensor.index_select(0, rows) for tensor in self.tensors))

    def detach(self) -> "TensorCache":
        return type(self)(*(tensor.detach() for tensor in self.tensors))
