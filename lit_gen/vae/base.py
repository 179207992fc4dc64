"""What all models of the family share: networks, optimizer, logging and averages. The mathematics is in the models."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lit_gen.core.averages import AveragedModule
from lit_gen.core.ema import ExponentialMovingAverage
from lit_gen.core.errors import UsageError, require
from lit_gen.core.images import ImageBatch, ImageSpec
from lit_gen.core.random import RowNoise
from lit_gen.vae.likelihoods import Bernoulli, Likelihood
from lit_gen.vae.networks import DecoderCallable, EncoderCallable, MLPDecoder, MLPEncoder


class EncoderDecoder(AveragedModule):
    """An encoder, a decoder and a likelihood, trained by one optimizer on the mean over examples of ``terms()["loss"]``.

    Args:
        encoder: (image shape, outputs, classes) -> network.
        decoder: (parameter map's shape, latent dimension, classes) -> network.
        likelihood: what the decoder's outputs mean; Bernoulli where None.
        latent_dim: length of z.
        optimizer: parameters -> optimizer.
        scheduler: optimizer -> learning rate scheduler, stepped once an epoch.
        ema_decay: decay of an average of the weights, used for evaluation and sampling; None for none.
        compile: ``torch.compile`` the networks, in place.

    Raises:
        UsageError: a hyper-parameter is out of range.
    """

    conditional: ClassVar[bool] = False
    """Whether encoder and decoder take a one-hot label."""

    def __init__(
        self,
        encoder: EncoderCallable = MLPEncoder,
        decoder: DecoderCallable = MLPDecoder,
        likelihood: Likelihood | None = None,
        latent_dim: int = 50,
        optimizer: OptimizerCallable = torch.optim.Adam,
        scheduler: LRSchedulerCallable | None = None,
        ema_decay: float | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        require(latent_dim >= 1, "latent_dim", latent_dim, "an integer of 1 or more")
        require(ema_decay is None or 0 <= ema_decay < 1, "ema_decay", ema_decay, "null or 0 <= ema_decay < 1")
        self.make_encoder, self.make_decoder = encoder, decoder
        self.likelihood = likelihood or Bernoulli()
        self.latent_dim = latent_dim
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.ema_decay, self.compile_networks = ema_decay, compile
        self.ema: ExponentialMovingAverage | None = None

    # ---------------------------------------------------------------- networks

    def make_networks(self, spec: ImageSpec) -> dict[str, nn.Module]:
        """The networks by name; :meth:`net` finds them again."""
        raise NotImplementedError(f"{type(self).__name__} must implement make_networks")

    def build_networks(self, spec: ImageSpec) -> None:
        if self.conditional and not spec.num_classes:
            raise UsageError(f"{type(self).__name__} needs labels, the data has none: num_classes = 0")
        self.likelihood = self.likelihood.bind(spec)
        self.networks = nn.ModuleDict(self.make_networks(spec))
        if self.ema_decay is not None:
            self.ema = ExponentialMovingAverage(self.networks, self.ema_decay)
        if self.compile_networks:
            for network in self.networks.values():
                network.compile()

    def params_shape(self, spec: ImageSpec) -> tuple[int, int, int]:
        """Shape of the decoder's output for one image."""
        channels, height, width = spec.shape
        return channels * self.likelihood.params_per_pixel, height, width

    def net(self, name: str) -> nn.Module:
        """A network by name: the trained one while training, the averaged one (if kept) otherwise."""
        return (self.networks if self.training or self.ema is None else self.ema.average)[name]

    def one_hot(self, label: Tensor) -> Tensor | None:
        """The label as the networks take it, float32 ``[B, K]``; None for a model without labels.

        Raises:
            UsageError: a label is missing or out of range.
        """
        if not self.conditional:
            return None
        low, high = int(label.min()), int(label.max())
        accepted = f"0 .. {self.spec.num_classes - 1}"
        require(low >= 0 and high < self.spec.num_classes, "label", low if low < 0 else high, accepted)
        return F.one_hot(label, self.spec.num_classes).float()

    # ---------------------------------------------------------------- training

    def terms(self, image: Tensor, label: Tensor, noise: RowNoise) -> dict[str, Tensor]:
        """The ``loss`` per example ``[B]`` in nats, and whatever else :meth:`measure` wants to report."""
        raise NotImplementedError(f"{type(self).__name__} must implement terms")

    def measure(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """What is logged, as values per example. Called at logging steps and in evaluation only."""
        return terms

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        terms = self.terms(batch.image, batch.label, self.noise(batch))
        loss = terms["loss"].mean()
        if self.should_log():
            values = {f"train/{k}": v.detach().mean() for k, v in self.measure(terms).items() if v.numel()}
            self.log_dict(values, batch_size=batch.image.shape[0])
        return self.watch_loss("loss", loss)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        # Here and not in on_train_batch_end, which a checkpoint callback would precede.
        if self.ema is not None:
            self.ema.update(self.networks)

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(self.networks.parameters())
        if self.make_scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.make_scheduler(optimizer), "monitor": "val/loss"},
        }

    # ---------------------------------------------------------------- evaluation

    def evaluate(self, batch: ImageBatch) -> dict[str, Tensor]:
        return self.measure(self.terms(batch.image, batch.label, self.noise(batch)))

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> dict[str, Tensor]:
        """``code``: the encoder's mean (or code) of each image ``[B, Z]``; ``label``: as given."""
        return {"code": self.code(batch.image, batch.label), "label": batch.label}

    def code(self, image: Tensor, label: Tensor) -> Tensor:
        """The one latent vector ``[B, Z]`` that stands for each image."""
        raise NotImplementedError(f"{type(self).__name__} must implement code")
