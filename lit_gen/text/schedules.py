"""What changes over training: the learning rate with warm-up, and how often a decoder is fed the true token."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lit_gen.core.errors import require


class InverseSquareRoot(LRScheduler):
    r"""Rises linearly to the optimizer's learning rate in ``warmup`` updates, then falls with the root of their number.

    .. math:: \eta_u = \eta \cdot \min\left(\frac{u}{w}, \sqrt{\frac{w}{u}}\right), \quad u = 1, 2, \dots

    With ``d_model`` the schedule of the Transformer's paper, in which the optimizer's learning rate is a factor:

    .. math:: \eta_u = \eta \cdot d^{-1/2} \min(u^{-1/2}, u\, w^{-3/2})

    To be stepped after every update.

    Args:
        optimizer: the optimizer.
        warmup: w, updates until the peak.
        d_model: d, the Transformer's width; None: the learning rate itself is the peak.
        last_epoch: updates made so far less one.

    Raises:
        UsageError: no update of warm-up, or a width below one.

    References:
        Vaswani et al., Attention Is All You Need, NeurIPS 2017, arXiv:1706.03762, equation 3.
    """

    def __init__(self, optimizer: Optimizer, warmup: int, d_model: int | None = None, last_epoch: int = -1) -> None:
        require(warmup >= 1, "warmup", warmup, "1 or more")
        require(d_model is None or d_model >= 1, "d_model", d_model, "1 or more, or none")
        self.warmup, self.d_model = warmup, d_model
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        update = self.last_epoch + 1
        factor = min(update / self.warmup, (self.warmup / update) ** 0.5)
        if self.d_model is not None:
            factor *= (self.d_model * self.warmup) ** -0.5
        return [lr * factor for lr in self.base_lrs]


class WarmupCosine(LRScheduler):
    r"""Rises linearly to the optimizer's learning rate, then falls along half a cosine to ``min_lr`` and stays there.

    .. math:: \eta_u = \eta \frac{u + 1}{w + 1} \;\; (u < w), \qquad
        \eta_u = \eta_{min} + \tfrac12 (\eta - \eta_{min}) \left(1 + \cos \pi \frac{u - w}{n - w}\right)
        \;\; (w \le u \le n)

    for update u = 0, 1, ... To be stepped after every update.

    Args:
        optimizer: the optimizer.
        warmup: w, updates before the peak.
        steps: n, updates until the learning rate is ``min_lr``.
        min_lr: the last learning rate.
        last_epoch: updates made so far less one.

    Raises:
        UsageError: a negative warm-up or learning rate, or no update after the warm-up.

    References:
        Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017, arXiv:1608.03983, equation 5.
        The warm-up as in nanoGPT, github.com/karpathy/nanoGPT.
    """

    def __init__(
        self, optimizer: Optimizer, warmup: int, steps: int, min_lr: float = 0.0, last_epoch: int = -1
    ) -> None:
        require(warmup >= 0, "warmup", warmup, "0 or more")
        require(steps > warmup, "steps", steps, f"more than warmup = {warmup}")
        require(min_lr >= 0, "min_lr", min_lr, "0 or more")
        self.warmup, self.steps, self.min_lr = warmup, steps, min_lr
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        update = self.last_epoch
        if update < self.warmup:
            return [lr * (update + 1) / (self.warmup + 1) for lr in self.base_lrs]
        passed = min(1.0, (update - self.warmup) / (self.steps - self.warmup))
        weight = (1 + math.cos(math.pi * passed)) / 2
        return [self.min_lr + weight * (lr - self.min_lr) for lr in self.base_lrs]


class SamplingSchedule(ABC):
    r"""Probability :math:`\epsilon_i` that a decoder in training is fed the true token and not its own prediction.

    Always 1 is teacher forcing, always 0 is training on the model's own predictions alone.

    References:
        Bengio et al., Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks, NIPS 2015,
        arXiv:1506.03099, section 2.4.
    """

    @abstractmethod
    def __call__(self, step: int) -> float:
        """The probability at an update.

        Args:
            step: i, updates made so far.
        """


class LinearDecay(SamplingSchedule):
    r"""Falls along a line down to a floor.

    .. math:: \epsilon_i = \max(\epsilon, k - c\,i)

    cut off at 1 where k is larger.

    Args:
        k: offset.
        c: slope, for one update.
        floor: :math:`\epsilon`, the least share of truth.

    Raises:
        UsageError: a negative slope or offset, or a floor outside [0, 1).

    References:
        Bengio et al. 2015, section 2.4, linear decay.
    """

    def __init__(self, k: float, c: float, floor: float = 0.0) -> None:
        require(k >= 0, "k", k, "0 or more")
        require(c >= 0, "c", c, "0 or more")
        require(0 <= floor < 1, "floor", floor, "0 up to, not including, 1")
        self.k, self.c, self.floor = k, c, floor

    def __call__(self, step: int) -> float:
        return min(1.0, max(self.floor, self.k - self.c * step))


class ExponentialDecay(SamplingSchedule):
    r"""Falls by the same factor with each update.

    .. math:: \epsilon_i = k^i, \quad k < 1

    Args:
        k: the factor.

    Raises:
        UsageError: a factor outside (0, 1).

    References:
        Bengio et al. 2015, section 2.4, exponential decay.
    """

    def __init__(self, k: float) -> None:
        require(0 < k < 1, "k", k, "between 0 and 1")
        self.k = k

    def __call__(self, step: int) -> float:
        return self.k**step


class InverseSigmoidDecay(SamplingSchedule):
    r"""Stays near one, falls around :math:`i = k \log k`, and goes to zero.

    .. math:: \epsilon_i = \frac{k}{k + \exp(i / k)}, \quad k \ge 1

    Args:
        k: how slowly it falls, in updates.

    Raises:
        UsageError: k below one.

    References:
        Bengio et al. 2015, section 2.4, inverse sigmoid decay.
    """

    def __init__(self, k: float) -> None:
        require(k >= 1, "k", k, "1 or more")
        self.k = k

    def __call__(self, step: int) -> float:
        x = math.log(self.k) - step / self.k  # the sigmoid of x, without an exponential that overflows
        return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))
