"""Overfitting of a model whose likelihood cannot be had: the free energies of unseen images beside those of seen ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lit_gen.core.errors import UsageError, require


class FreeEnergyGap(Callback):
    r"""Logs ``val/free_energy_gap``, the mean free energy of validation images less that of as many training images.

    .. math:: \frac1n \sum_{v \in val} F(v) - \frac1n \sum_{v \in train} F(v)

    Since :math:`\log p(v) = -F(v) - \log Z`, the unknown log Z cancels: this is by how much training images are likelier, in
    nats. It is about zero as long as the model does not overfit and grows when it begins to. Both kinds of images pass
    through the evaluation transform with noise that is always the same, and are the same ones each time, so that changes show
    well below the standard error of the value, which is logged as ``val/free_energy_gap_stderr``. Every process computes the
    same values.

    For a model without ``free_energy(image)`` its ``energy(image)`` is taken: without hidden units they are the same.

    Args:
        every_n_epochs: epochs between two values, at the end of validation (the last epoch always has one).
        n: validation images, and as many training images; fewer where a split has fewer.

    Raises:
        UsageError: an argument is out of range, or (in ``setup``) the model has no energy or the data no validation images.

    References:
        Hinton, A Practical Guide to Training Restricted Boltzmann Machines, 2012, section 6.
    """

    def __init__(self, every_n_epochs: int = 1, n: int = 2000) -> None:
        require(every_n_epochs >= 1, "every_n_epochs", every_n_epochs, "1 or more")
        require(n >= 2, "n", n, "2 or more")
        self.every_n_epochs, self.n = every_n_epochs, n

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage not in ("fit", "validate"):
            return
        if energy_of(pl_module) is None:
            raise UsageError(f"FreeEnergyGap: a {type(pl_module).__name__} has no free energy")
        if trainer.datamodule is None or not trainer.datamodule.num_examples("val"):
            raise UsageError("FreeEnergyGap needs validation images: set data.init_args.val_size")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        epoch = trainer.current_epoch + 1
        if trainer.state.fn == "fit" and epoch % self.every_n_epochs and epoch != trainer.max_epochs:
            return
        data, energy = trainer.datamodule, energy_of(pl_module)
        n = min(self.n, data.num_examples("val"), data.num_examples("train"))
        with pl_module.evaluating():
            val, train = (
                torch.cat([energy(b.image.to(pl_module.device)).cpu().double() for b in data.eval_batches(split, n)])
                for split in ("val", "train")
            )
        values = {"gap": val.mean() - train.mean(), "gap_stderr": ((val.var() + train.var()) / n).sqrt()}
        values = {f"val/free_energy_{name}": float(value) for name, value in values.items()}
        pl_module.log_dict(values, on_step=False, on_epoch=True, sync_dist=False, batch_size=1)


def energy_of(model: LightningModule) -> Callable[[Tensor], Tensor] | None:
    """The model's free energy, or its energy, as a function of images; None where it has neither."""
    return next((f for name in ("free_energy", "energy") if callable(f := getattr(model, name, None))), None)
