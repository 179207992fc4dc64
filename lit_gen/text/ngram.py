r"""The n-gram language model.

.. math:: \log p(w_1 .. w_T) = \sum_t \log p(w_t \mid w_{t-N+1} .. w_{t-1})

with the conditional probabilities made of counts (:mod:`lit_gen.text.ngram_counts`) by a smoothing: :class:`Additive` or
:class:`KneserNey`. It is trained by counting, in one pass over the whole training text: the first ``training_step`` takes
the text from the DataModule's ``tokens("train")``, whatever the batches are, so that the counts depend neither on them nor on
the number of processes, each of which counts all of it. Evaluation reads the same batches as every other language model.

To train: ``lit-gen run --config configs/text/ngram_kneser_ney_shakespeare.yaml``.

References:
    Shannon, A mathematical theory of communication, Bell System Technical Journal 27, 1948, section 3.
    Chen and Goodman, An empirical study of smoothing techniques for language modeling, Computer Speech and Language 13, 1999.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lit_gen.core.errors import require
from lit_gen.core.text import PAD, StreamBatch, TextSpec
from lit_gen.text.cache import TensorCache
from lit_gen.text.carried_state import CarriedState
from lit_gen.text.kneser_ney import KneserNey
from lit_gen.text.ngram_counts import NGramCounts
from lit_gen.text.ngram_table import NGramTable, Smoothing
from lit_gen.text.running_text import RunningTextModule


class NGram(RunningTextModule):
    """p(text) by counts of n-grams; the probability is exact, and sums to one over all tokens but ``PAD`` and ``BOS``.

    The history of the first tokens is filled up with ``BOS``. In evaluation a stream is read on from batch to batch, so that
    each token's history is the N - 1 tokens before it; a batch that begins anew begins with ``BOS``.

    Args:
        order: N, the predicted token counted.
        smoothing: how counts become probabilities; modified Kneser-Ney where None.

    Raises:
        UsageError: an order below 1.
    """

    falls_in_training: ClassVar[str | None] = None
    """No loss falls: counting is done in one pass."""

    def __init__(self, order: int = 5, smoothing: Smoothing | None = None) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        require(order >= 1, "order", order, "an integer of 1 or more")
        self.order, self.smoothing = order, smoothing or KneserNey()
        self.evaluation_state = CarriedState()
        self._table: NGramTable | None = None

    def build_networks(self, spec: TextSpec) -> None:
        self.counts = NGramCounts(self.order, spec.target.size)

    # ---------------------------------------------------------------- training

    def configure_optimizers(self) -> list:
        return []

    @torch.no_grad()
    def training_step(self, batch: StreamBatch, batch_idx: int) -> None:
        if not self.counts.counted:
            self.fit_tokens(self.trainer.datamodule.tokens("train"))
            amounts = {"train/tokens": self.counts.levels[0].count.sum(), "train/ngrams": len(self.counts.count)}
            self.log_dict(
                {name: float(value) for name, value in amounts.items()}, on_step=False, on_epoch=True, batch_size=1
            )
        # What Lightning does after each step of an optimizer: limits, checkpoints and loggers count it.
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        progress.increment_ready()
        progress.increment_completed()

    def fit_tokens(self, tokens: Tensor) -> "NGram":
        """Counts one text, integers ``[T]``, instead of what was counted before; returns the model.

        Raises:
            UsageError: the text is empty.
        """
        self.counts.fit(tokens.to(self.device, torch.int64))
        return self

    # ---------------------------------------------------------------- the model

    @property
    def table(self) -> NGramTable:
        """The probabilities that the smoothing makes of the counts; uniform before anything is counted."""
        levels = self.counts.levels
        if self._table is None or self._table.levels[0] is not levels[0]:
            self._table = NGramTable(self.counts, self.smoothing.shares(self.counts))
        return self._table

    def histories(self, tokens: Tensor, cache: TensorCache | None = None) -> tuple[Tensor, TensorCache]:
        """Where each position's last 0 .. N - 1 tokens are in the table.

        Args:
            tokens: int64 ``[R, T]``.
            cache: of the tokens before; None where the text begins.

        Returns:
            int64 ``[N, R, T]``, and the cache after the last token.
        """
        (state,) = (self.counts.start(len(tokens)),) if cache is None else cache
        histories = self.counts.read(tokens, state)
        return histories, TensorCache(histories[1:, :, -1].T)

    @torch.no_grad()
    def advance(
        self, tokens: Tensor, memory: None = None, cache: TensorCache | None = None
    ) -> tuple[Tensor, TensorCache]:
        """log p of what follows each of the tokens int64 ``[R, T]``, float32 ``[R, T, V]``, and the cache to go on with."""
        histories, cache = self.histories(tokens, cache)
        prob = self.table.distribution(histories.flatten(1))
        return prob.log().float().unflatten(0, tokens.shape), cache

    @torch.no_grad()
    def nats(self, input: Tensor, target: Tensor, cache: TensorCache | None = None) -> Tensor:
        histories, _ = self.histories(input, cache)
        return torch.where(target == PAD, 0.0, -self.table.log_prob(histories, target))

    # ---------------------------------------------------------------- evaluation

    def score(self, batch: StreamBatch) -> tuple[Tensor, Tensor]:
        histories, cache = self.histories(batch.input, self.evaluation_state.before(batch))
        self.evaluation_state.after(batch, cache)
        asked = batch.target != PAD
        histories, target = histories[:, asked], batch.target[asked]
        return -self.table.log_prob(histories, target), self.table.most_probable(histories) == target

    def on_test_epoch_end(self) -> None:
        super().on_test_epoch_end()
        about = {"order": self.order, **self.smoothing.record(self.counts)}
        for estimator in self.estimators.values():
            estimator.update(about)
