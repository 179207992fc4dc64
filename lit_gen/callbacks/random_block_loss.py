"""The loss of a language model on blocks at random places: the estimate that nanoGPT prints."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from lit_gen.core.averages import Averages
from lit_gen.core.errors import UsageError, require
from lit_gen.core.random import run_seed, seeded_generator
from lit_gen.core.text import PAD

SCALE = 2.0**10  # Averages round squares to 2^-10, and the means of batches differ by hundredths


class RandomBlockLoss(Callback):
    r"""Logs ``val/nll_random_blocks`` and ``test/nll_random_blocks``, in nats per token, beside the full pass over the split.

    .. math:: \frac{1}{K} \sum_{k=1}^{K} \frac{1}{BT} \sum_{b,t} -\log p(x^{kb}_{t+1} \mid x^{kb}_{1..t})

    over K batches of B blocks of T tokens that begin at random places. A token at the beginning of a block has no context,
    so that the value is above that of a pass which carries the context along; it is what nanoGPT reports.

    Batch k is drawn from a generator of (run seed, split, k), the same at each evaluation, and batches are dealt to the
    processes in turn: the value does not depend on their number, and differences between evaluations are those of the model.

    Attributes:
        record: after a test, by logged name: value, standard error over the batches, and how it was estimated.

    Args:
        batches: K.
        batch_size: B.
        block_size: T; None: the data's own ``block_size``.

    Raises:
        UsageError: an argument is out of range, or (in ``setup``) the model or the data is not one of running text.

    References:
        Karpathy, nanoGPT, 2022, github.com/karpathy/nanoGPT, train.py, ``estimate_loss``.
    """

    def __init__(self, batches: int = 200, batch_size: int = 12, block_size: int | None = None) -> None:
        require(batches >= 1, "batches", batches, "1 or more")
        require(batch_size >= 1, "batch_size", batch_size, "1 or more")
        require(block_size is None or block_size >= 1, "block_size", block_size, "1 or more, or none")
        self.batches, self.batch_size, self.block_size = batches, batch_size, block_size
        self.record: dict[str, dict[str, Any]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "predict":
            return
        if not callable(getattr(pl_module, "nats", None)):
            raise UsageError(f"RandomBlockLoss: a {type(pl_module).__name__} is no language model")
        if not callable(getattr(trainer.datamodule, "random_blocks", None)):
            raise UsageError(f"RandomBlockLoss: the data is a {type(trainer.datamodule).__name__}, not running text")
        if self.block_size is None and not getattr(trainer.datamodule, "block_size", None):
            raise UsageError(
                f"RandomBlockLoss: a {type(trainer.datamodule).__name__} has no block size: set block_size"
            )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._evaluate(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.record = self._evaluate(trainer, pl_module, "test")

    def _evaluate(self, trainer: Trainer, model: LightningModule, split: str) -> dict[str, dict[str, Any]]:
        data, block_size = trainer.datamodule, self.block_size or trainer.datamodule.block_size
        averages = Averages(["loss"])
        for k in range(trainer.global_rank, self.batches, trainer.world_size):
            generator = seeded_generator(run_seed(), "random_blocks", split, k)
            blocks, target = data.random_blocks(split, self.batch_size, block_size, generator)
            with model.evaluating():
                nats = model.nats(blocks.to(model.device), target.to(model.device))
            mean = nats[target.to(nats.device) != PAD].double().mean()
            averages.update(loss=SCALE * mean.cpu().reshape(1))
        value, error = (scaled / SCALE for scaled in averages.to(model.device).compute()["loss"])
        name = f"{split}/nll_random_blocks"
        model.log(name, value, on_step=False, on_epoch=True, sync_dist=False, batch_size=1)
        about = {"batches": self.batches, "batch_size": self.batch_size, "block_size": block_size}
        return {name: {"value": value, "stderr": error, "unit": "nats per token", **about}}
