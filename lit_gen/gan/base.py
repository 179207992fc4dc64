"""What adversarial models share whatever their training: sampling from codes, evaluation of D, the count of its updates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lit_gen.core.ema import ExponentialMovingAverage
from lit_gen.core.errors import UsageError
from lit_gen.core.images import UNLABELLED, ImageBatch
from lit_gen.core.manual import ManualModule
from lit_gen.gan.evaluation import DiscriminatorScores
from lit_gen.gan.objectives import Objective


class AdversarialModule(ManualModule):
    """A generator that maps codes to images in [-1, 1], and a discriminator.

    A subclass sets the attributes below, trains the networks and counts ``discriminator_updates``.

    Attributes:
        generator: called as ``generator(z, label)``.
        discriminator: called as ``discriminator(image, label)``.
        ema: the average of the generator's weights, or None.
        objective: what the discriminator is evaluated by.
        latent_dim: length of the code z ~ N(0, I).
        conditional: both networks are given labels; otherwise None.
        discriminator_updates: updates of D so far, in the checkpoint.
    """

    value_ranges = ((-1.0, 1.0),)

    generator: nn.Module
    discriminator: nn.Module
    ema: ExponentialMovingAverage | None
    objective: Objective
    latent_dim: int
    conditional: bool

    def __init__(self, gradient_clip: float | None = None) -> None:
        super().__init__(gradient_clip)
        self.discriminator_updates = 0
        self.scores = DiscriminatorScores()

    def label_of(self, batch: ImageBatch) -> Tensor | None:
        """The labels that both networks receive; None in an unconditional model."""
        if not self.conditional:
            return None
        if (batch.label == UNLABELLED).any():
            raise UsageError("conditional = True; the data has unlabelled images (label -1): all must be labelled")
        return batch.label

    # ---------------------------------------------------------------- sampling

    @torch.no_grad()
    def from_latent(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Images of codes, from the averaged weights where there are any, in evaluation mode.

        Shape:
            z: ``[n, latent_dim]``; label: ``[n]``, for conditional models; output: ``[n, C, H, W]``.
        """
        if self.conditional and label is None:
            raise UsageError("label = None; a conditional model needs one label for each code")
        network = self.ema.average if self.ema else self.generator
        training = network.training
        network.eval()
        labels = label.split(256) if self.conditional else [None] * len(z)
        images = [network(part, y) for part, y in zip(z.split(256), labels)]  # bounded memory for any n
        network.train(training)
        return torch.cat(images).float()

    def sample(self, n: int, *, label: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        z = torch.randn(n, self.latent_dim, generator=generator, device=self.device)
        if self.conditional and label is None:
            label = torch.randint(self.spec.num_classes, (n,), generator=generator, device=self.device)
        return self.from_latent(z, label)

    # ---------------------------------------------------------------- evaluation

    def evaluation_step(self, batch: ImageBatch) -> None:
        """Adds one batch to the discriminator's scores on held-out data and as many samples."""
        label = self.label_of(batch)
        z = self.noise(batch).normal(self.latent_dim)
        real = self.discriminator(batch.image, label).float()
        fake = self.discriminator(self.from_latent(z, label), label).float()
        self.scores.update(self.objective, real, fake)

    def on_evaluation_end(self, stage: str) -> None:
        """Logs the scores over all processes."""
        values = {f"{stage}/{name}": value for name, value in self.scores.compute().items()}
        self.log_dict(values, sync_dist=True)  # equal on all processes already; this says so to Lightning
        self.scores.reset()

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        self.evaluation_step(batch)

    def on_validation_epoch_end(self) -> None:
        self.on_evaluation_end("val")

    def test_step(self, batch: ImageBatch, batch_idx: int) -> None:
        self.evaluation_step(batch)

    def on_test_epoch_end(self) -> None:
        self.on_evaluation_end("test")

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> dict[str, Tensor]:
        """``score``: the discriminator's output for each image ``[B]``; ``label``: as given."""
        return {"score": self.discriminator(batch.image, self.label_of(batch)).float().flatten(), "label": batch.label}

    # ---------------------------------------------------------------- checkpoint

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["discriminator_updates"] = self.discriminator_updates

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.discriminator_updates = checkpoint["discriminator_updates"]
