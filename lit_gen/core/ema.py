"""Exponential moving average of a network's weights, with its own counter."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class ExponentialMovingAverage(nn.Module):
    r"""Keeps :math:`\bar\theta_t = d_t \bar\theta_{t-1} + (1 - d_t) \theta_t` of a network, in the checkpoint.

    With ``warmup`` the decay is :math:`d_t = \min(d, (1 + t) / (10 + t))`, so that the initial weights are soon forgotten.
    Buffers (batch norm's running statistics) are copied. The average is always in evaluation mode.

    Args:
        network: the network to follow; it is copied, the original is not registered here.
        decay: d, in [0, 1).
        warmup: see above.

    Raises:
        ValueError: the decay is outside [0, 1).

    References:
        Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992. Karras et al., ICLR 2018, section 4.
    """

    updates: Tensor

    def __init__(self, network: nn.Module, decay: float = 0.999, warmup: bool = True) -> None:
        super().__init__()
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay = {decay}; accepted: 0 <= decay < 1")
        self.decay, self.warmup = decay, warmup
        self.average = copy.deepcopy(network).requires_grad_(False).eval()
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Folds the network's present weights into the average."""
        step = int(self.updates)
        decay = min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay
        torch._foreach_lerp_(list(self.average.parameters()), list(network.parameters()), 1.0 - decay)
        for kept, new in zip(self.average.buffers(), network.buffers(), strict=True):
            kept.copy_(new)
        self.updates += 1

    def train(self, mode: bool = True) -> "ExponentialMovingAverage":
        return super().train(False)
