"""What models of text share: training and evaluation counted in tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_gen.core.errors import require
from lit_gen.core.manual import ManualModule
from lit_gen.core.module import GenerativeModule
from lit_gen.core.text import PairBatch, StreamBatch, TextSpec
from lit_gen.metrics.perplexity import Perplexity


class TextModule(GenerativeModule):
    """A model of text, evaluated by its perplexity over all tokens of a split."""

    spec_class = TextSpec
    spec: TextSpec

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.perplexity = Perplexity()

    def score(self, batch: PairBatch | StreamBatch) -> tuple[Tensor, Tensor]:
        """What the model says of a batch, token by token, without smoothing and without dropout.

        Returns:
            Nats ``[N]`` of the N predicted tokens (padding left out), and bool ``[N]``: whether each is the most probable.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement score")

    def on_validation_epoch_start(self) -> None:
        self.perplexity.reset()

    def validation_step(self, batch: PairBatch | StreamBatch, batch_idx: int) -> None:
        self.perplexity.update(*self.score(batch))

    def on_validation_epoch_end(self) -> None:
        self._log_perplexity("val")

    def on_test_epoch_start(self) -> None:
        self.perplexity.reset()

    def test_step(self, batch: PairBatch | StreamBatch, batch_idx: int) -> None:
        self.perplexity.update(*self.score(batch))

    def on_test_epoch_end(self) -> None:
        self._log_perplexity("test")
        about = {"tokens": int(self.perplexity.tokens), "unit": "nats per token", "level": self.spec.target.level}
        self.estimators["test/nll"] = about
        self.estimators["test/perplexity"] = {**about, "unit": "e to the nats per token"}

    def _log_perplexity(self, stage: str) -> None:
        values = self.perplexity.compute()
        self.log_dict({f"{stage}/{name}": value for name, value in values.items()}, sync_dist=True)


class TokenModel(ManualModule, TextModule):
    r"""A neural model of text. One update descends the mean over the TOKENS of all its micro-batches on all processes.

    .. math:: L = \frac{1}{N} \sum_{b} \sum_{i \in b} \ell_i, \qquad N = \text{predicted tokens of the whole update}

    so that neither accumulation nor the number of processes changes the gradient, however the tokens are spread.

    A subclass implements :meth:`loss_sum`, :meth:`score` and ``build_networks``.

    Args:
        optimizer: makes the optimizer from the parameters.
        scheduler: makes the learning-rate schedule, stepped at every update.
        gradient_clip: largest norm of the gradient; None for no limit.
        accumulate: micro-batches for each update.
        label_smoothing: epsilon of the training loss; never part of what is evaluated.

    Raises:
        UsageError: an option out of range.
    """

    def __init__(
        self,
        optimizer: OptimizerCallable,
        scheduler: LRSchedulerCallable | None = None,
        gradient_clip: float | None = None,
        accumulate: int = 1,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(gradient_clip)
        require(accumulate >= 1, "accumulate", accumulate, "an integer of 1 or more")
        require(0 <= label_smoothing < 1, "label_smoothing", label_smoothing, "0 <= label_smoothing < 1")
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.batches_per_step, self.label_smoothing = accumulate, label_smoothing

    def loss_sum(self, batch: PairBatch | StreamBatch) -> Tensor:
        """The training loss summed over this process's predicted tokens, a scalar in nats."""
        raise NotImplementedError(f"{type(self).__name__} must implement loss_sum")

    def optimized_parameters(self) -> Iterable[nn.Parameter] | list[dict[str, Any]]:
        """What the optimizer is given: all parameters, or groups of them."""
        return (p for p in self.parameters() if p.requires_grad)

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(self.optimized_parameters())
        return [optimizer], [self.make_scheduler(optimizer)] if self.make_scheduler else []

    def training_step(self, batches: list[PairBatch | StreamBatch], batch_idx: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        tokens, total = sum(batch.tokens for batch in batches), 0.0
        for batch, synchronise in self.micro_batches(batches):
            # Processes average their gradients, whence the world size.
            loss = self.loss_sum(batch) * (self.trainer.world_size / tokens)
            self.watch_loss("loss", loss)
            with synchronise:
                self.manual_backward(loss)
            total = total + loss.detach()
        self._logs = {"train/loss": total, "train/lr": optimizer.param_groups[0]["lr"]} if self.should_log() else None
        optimizer.step()
        for scheduler in self.schedulers:
            scheduler.step()
        if self._logs is not None:
            self.log_dict(self._logs, on_step=True, on_epoch=False, batch_size=1, sync_dist=True)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        norm = self.checked_norm(optimizer)
        if self._logs is not None:
            self._logs["train/grad_norm"] = norm


def real_tokens(values: Tensor, mask: Tensor) -> Tensor:
    """The rows of ``values [B, T, ...]`` where ``mask [B, T]`` is True, as ``[N, ...]``; no copy where all are."""
    return values.flatten(0, 1) if bool(mask.all()) else values[mask]


def adam(parameters: Any) -> torch.optim.Adam:
    """Adam with learning rate 0.001."""
    return torch.optim.Adam(parameters, lr=1e-3)
