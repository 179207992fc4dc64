"""Estimators over many importance samples, and averages over examples that do not depend on how the data was divided."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

CHUNK_ELEMENTS = {"cpu": 1 << 19, "other": 1 << 25}
"""Numbers that the decoder puts out at once, by kind of device. A CPU is twice as fast where they stay in its cache."""


def importance_bound(log_weights: Callable[[int, int], Tensor], samples: int, chunk: int) -> Tensor:
    r"""The importance-sampled lower bound :math:`\log \frac1k \sum_{i=1}^k w_i` of log p(x), in bounded memory.

    A running logsumexp in float64 over chunks of samples; all examples of the batch at once. The bound holds in expectation
    and tightens with k.

    Args:
        log_weights: gives samples start .. stop - 1 as ``[stop - start, B]``.
        samples: k.
        chunk: samples computed at once.

    Shape:
        result ``[B]``, float64, in nats.

    References:
        Rezende et al., ICML 2014, appendix E. Burda et al., ICLR 2016, theorem 1 (k = 5,000 in section 5).
    """
    total = None
    for start in range(0, samples, chunk):
        part = log_weights(start, min(start + chunk, samples)).double().logsumexp(0)
        total = part if total is None else torch.logaddexp(total, part)
    return total - math.log(samples)


def chunk_size(batch_size: int, params_per_example: int, samples: int, device_type: str = "cpu") -> int:
    """Number of samples of a whole batch that :data:`CHUNK_ELEMENTS` allows; at least one."""
    elements = CHUNK_ELEMENTS["cpu" if device_type == "cpu" else "other"]
    return min(samples, max(1, elements // (batch_size * params_per_example)))


class Averages(Metric):
    """Means over examples with their standard errors, equal to the last bit for any number of processes.

    Values are rounded to multiples of 2^-20 and squares to 2^-10, far below their sampling error, so that float64 sums are
    exact (up to 8e9 nats) and do not depend on their order.

    Args:
        names: what may be averaged; a name that nobody updated is absent from the result.
    """

    full_state_update = False

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        for state in ("sums", "squares", "counts"):
            self.add_state(state, torch.zeros(len(self.names), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, **values: Tensor) -> None:
        """Adds values, each ``[n]``, of n examples."""
        for name, value in values.items():
            index, value = self.names.index(name), value.detach().double()
            self.sums[index] += (value * 2**20).round().sum() / 2**20
            self.squares[index] += (value.square() * 2**10).round().sum() / 2**10
            self.counts[index] += value.numel()

    def compute(self) -> dict[str, tuple[float, float]]:
        """Mean and standard error (ddof = 1; nan for one example) of every name that was updated."""
        result = {}
        for name, total, square, count in zip(
            self.names, self.sums.tolist(), self.squares.tolist(), self.counts.tolist()
        ):
            if count:
                variance = max(square - total**2 / count, 0.0) / (count - 1) if count > 1 else math.nan
                result[name] = (total / count, math.sqrt(variance / count))
        return result
