"""Seeded choices of examples that keep the classes in proportion, or in balance."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gen.core.errors import UsageError
from lit_gen.core.random import seeded_generator


def _choose(label: Tensor, quota: dict[int, int], *seed: int | str) -> Tensor:
    generator = seeded_generator(*seed)
    chosen = []
    for value, count in quota.items():
        members = (label == value).nonzero().flatten()
        chosen.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return torch.cat(chosen).sort().values if chosen else torch.empty(0, dtype=torch.int64)


def stratified(label: Tensor, n: int, *seed: int | str) -> Tensor:
    """Positions of n examples drawn at random, each class in its proportion (largest remainders get the odd ones).

    Args:
        label: int64 ``[N]``; one and the same value where there are no labels.
        n: number of examples, at most N.
        seed: what the choice depends on.

    Returns:
        int64 ``[n]``, increasing.
    """
    values, counts = label.unique(return_counts=True)
    share = counts.double() * n / max(len(label), 1)
    quota = share.floor().long()
    odd = (share - quota).argsort(descending=True, stable=True)[: n - int(quota.sum())]
    quota[odd] += 1
    return _choose(label, dict(zip(values.tolist(), quota.tolist())), *seed)


def class_balanced(label: Tensor, n: int, num_classes: int, *seed: int | str) -> Tensor:
    """Positions of n examples, equally many of each class (the first classes get the odd ones).

    Args:
        label: int64 ``[N]`` with values 0 .. num_classes-1.
        n: number of examples, at least one for each class.
        num_classes: number of classes.
        seed: what the choice depends on.

    Returns:
        int64 ``[n]``, increasing.

    Raises:
        UsageError: n is less than the number of classes, or more than the smallest class allows.
    """
    if n < num_classes:
        raise UsageError(f"num_labelled = {n}; accepted: at least one for each of the {num_classes} classes")
    quota = {k: n // num_classes + (k < n % num_classes) for k in range(num_classes)}
    for k, count in quota.items():
        available = int((label == k).sum())
        if available < count:
            raise UsageError(f"num_labelled = {n} needs {count} examples of class {k}, which has {available}")
    return _choose(label, quota, *seed)
