"""Estimators over many importance samples."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

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
