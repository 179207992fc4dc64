"""Optimization by hand: micro-batches, clipping and schedulers, where Lightning's own ways are not those of the paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from lit_gen.core.errors import UsageError, require
from lit_gen.core.module import Batch, GenerativeModule, gradient_norm


class ManualModule(GenerativeModule):
    """A model whose ``training_step`` runs its own backward passes and optimizer steps.

    A subclass writes ``training_step``; it takes :meth:`micro_batches` for its backward passes and steps :attr:`schedulers`
    after each update. Gradients are checked and clipped before every optimizer step.

    Args:
        gradient_clip: largest norm of an optimizer's gradient; None for no limit.

    Raises:
        UsageError: a limit that is not positive.
    """

    def __init__(self, gradient_clip: float | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        valid = gradient_clip is None or gradient_clip > 0
        require(valid, "gradient_clip", gradient_clip, "gradient_clip > 0, or null for none")
        self.gradient_clip = gradient_clip

    @property
    def schedulers(self) -> list[Any]:
        """The learning-rate schedulers, as a list whatever their number."""
        schedulers = self.lr_schedulers()
        return schedulers if isinstance(schedulers, list) else [schedulers] if schedulers else []

    def micro_batches(self, batches: Sequence[Batch]) -> Iterator[tuple[Batch, Any]]:
        """Each batch of one update with the context in which to run its backward pass.

        Processes average their gradients only once, in the last backward pass.
        """
        wait = getattr(self.trainer.strategy, "block_backward_sync", nullcontext)
        for index, batch in enumerate(batches, start=1):
            yield batch, nullcontext() if index == len(batches) else wait()

    def checked_norm(self, optimizer: Optimizer) -> Tensor:
        """The norm of an optimizer's gradient, which is finite and is clipped on return. For ``on_before_optimizer_step``.

        Gradients are unscaled there, also under 16-bit floats; Trainer-level clipping would see them scaled.

        Raises:
            UsageError: a fused optimizer under a loss scaler, which unscales too late.
            DivergenceError: the loss or the gradient is not finite.
        """
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler and getattr(optimizer, "_step_supports_amp_scaling", False):
            raise UsageError("fused = True with precision 16-mixed; accepted: fused = false")
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = gradient_norm(parameters)
        self.check_finite(None if scaler else norm)
        if self.gradient_clip is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.gradient_clip, norm)
        return norm
