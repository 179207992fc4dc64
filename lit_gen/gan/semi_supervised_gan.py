r"""Semi-supervised learning with a GAN: the discriminator is a classifier with one more class, "generated".

The classifier has K logits :math:`l_k(x)`; the logit of "generated" is fixed to 0, which loses nothing, since a softmax
does not change when all logits are shifted. So the probability that x is real is

.. math:: D(x) = \frac{Z(x)}{Z(x) + 1}, \qquad Z(x) = \sum_{k=1}^K \exp l_k(x)

and its logit is :math:`\log Z(x)`. The generator matches the mean features of the data.

References:
    Salimans, Goodfellow, Zaremba, Cheung, Radford and Chen, Improved techniques for training GANs, NeurIPS 2016,
    arXiv:1606.03498, section 5 and section 3.1. The authors' code: https://github.com/openai/improved-gan.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_gen.core.distributed import mean_over_processes
from lit_gen.core.ema import ExponentialMovingAverage
from lit_gen.core.errors import UsageError, require
from lit_gen.core.images import UNLABELLED, ImageBatch, ImageSpec
from lit_gen.core.random import BatchKey, derive_seed, run_seed, seeded_generator
from lit_gen.gan.base import AdversarialModule
from lit_gen.gan.gan import GeneratorCallable, frozen
from lit_gen.gan.semi_supervised_losses import (
    ClassifierScores,
    feature_matching_loss,
    log_evidence,
    unsupervised_loss,
)
from lit_gen.gan.semi_supervised_networks import SemiSupervisedClassifier, SemiSupervisedGenerator

ClassifierCallable = Callable[[tuple[int, int, int], int], nn.Module]
"""(image_shape, num_classes) -> network with the methods of :class:`SemiSupervisedClassifier`, called as ``network(image)``."""


def authors_adam(parameters: Any) -> torch.optim.Adam:
    """Adam with learning rate 0.003 and beta1 = 0.5; the authors' has 1e-8 under the root, which is 1e-4 beside it."""
    return torch.optim.Adam(parameters, lr=3e-3, betas=(0.5, 0.999), eps=1e-4)


class SemiSupervisedGAN(AdversarialModule):
    r"""A classifier that also learns from unlabelled images and from a generator's.

    One ``training_step`` is one update of the classifier D and one of the generator G:

    .. math::
        L_D = -E_{x, y} \log p(y \mid x) + w\, L(x, G(z)), \qquad p(k \mid x) = \frac{\exp l_k(x)}{Z(x)}

    with labelled images in the first term; L is the :func:`unsupervised_loss` of a batch of all training images, whose labels
    are not looked at, and of as many generated ones. G minimises the :func:`feature_matching_loss` of the same batch and of
    new codes (the authors take another batch). The labelled images of an update come from random permutations of all of
    them, one after the other, as the authors' do: with 100 labels each of them is in every update once.
    ``trainer.global_step`` counts updates of G. Losses are means over the rows of all processes.

    D starts from 500 training images (:meth:`SemiSupervisedClassifier.initialise`). An average of its weights classifies, as in
    the authors' code. Theirs starts at zero; ours follows faster while it is young.

    Logs on held-out data: ``error`` (share of wrong predictions), ``errors`` (their number), ``accuracy``,
    ``cross_entropy`` of the classes, ``loss_real`` = -E log D(x), ``loss_fake`` = -E log(1 - D(G(z))).

    Args:
        generator: makes G from (image_shape, latent_dim, 0).
        classifier: makes D from (image_shape, num_classes).
        optimizer_g, optimizer_d: make the optimizers from the networks' parameters.
        latent_dim: length of the code z ~ N(0, I) (the authors' is uniform; batch norm follows on the first layer).
        labelled_batch_size: labelled images in one update of D, over all processes.
        unsupervised_weight: w; 0 leaves a classifier of the labelled images.
        discriminator_ema_decay: decay of the average of D's weights; None classifies with the last ones.
        gradient_clip: largest norm of the gradient of one network.

    Raises:
        UsageError: an option out of range; data without labels, no labelled training image, no labelled test image.

    References:
        See the module.
    """

    initial_images = 500
    """Training images that D's first scales and biases come from."""

    def __init__(
        self,
        generator: GeneratorCallable = SemiSupervisedGenerator,
        classifier: ClassifierCallable = SemiSupervisedClassifier,
        optimizer_g: OptimizerCallable = authors_adam,
        optimizer_d: OptimizerCallable = authors_adam,
        latent_dim: int = 100,
        labelled_batch_size: int = 100,
        unsupervised_weight: float = 1.0,
        discriminator_ema_decay: float | None = 0.9999,
        gradient_clip: float | None = None,
    ) -> None:
        super().__init__(gradient_clip)
        self.save_hyperparameters()
        require(latent_dim >= 1, "latent_dim", latent_dim, "latent_dim >= 1")
        require(labelled_batch_size >= 1, "labelled_batch_size", labelled_batch_size, "labelled_batch_size >= 1")
        require(unsupervised_weight >= 0, "unsupervised_weight", unsupervised_weight, "unsupervised_weight >= 0")
        decay, accepted = discriminator_ema_decay, "0 <= discriminator_ema_decay < 1, or null for none"
        require(decay is None or 0 <= decay < 1, "discriminator_ema_decay", decay, accepted)
        self.make_networks, self.make_optimizers = (generator, classifier), (optimizer_g, optimizer_d)
        self.latent_dim, self.labelled_batch_size = latent_dim, labelled_batch_size
        self.unsupervised_weight, self.ema_decay = unsupervised_weight, decay
        self.conditional, self.scores = False, ClassifierScores()
        self.labelled: ImageBatch | None = None  # all labelled training images, as bytes
        self.labelled_images = 0  # their number, in the checkpoint
        self._logs: dict[str, Tensor] = {}

    # ---------------------------------------------------------------- building

    def build_networks(self, spec: ImageSpec) -> None:
        if spec.num_classes == 0:
            raise UsageError(f"{type(self).__name__} is a classifier; the data has no labels")
        make_generator, make_classifier = self.make_networks
        self.generator = make_generator(spec.shape, self.latent_dim, 0)
        self.discriminator = make_classifier(spec.shape, spec.num_classes)
        self.ema = None  # of G, which only serves D
        decay = self.ema_decay
        self.discriminator_ema = None if decay is None else ExponentialMovingAverage(self.discriminator, decay)

    def configure_optimizers(self) -> list[Optimizer]:
        networks = self.generator, self.discriminator
        return [make(network.parameters()) for make, network in zip(self.make_optimizers, networks)]

    @property
    def classifier(self) -> nn.Module:
        """What classifies: the average of D's weights where there is one."""
        return self.discriminator_ema.average if self.discriminator_ema else self.discriminator

    # ---------------------------------------------------------------- labelled images

    def on_fit_start(self) -> None:
        """Collects the labelled training images; a new classifier gets its scales and biases."""
        label = self.trainer.datamodule.split("train").label
        known = (label != UNLABELLED).nonzero().flatten()
        if len(known) == 0:
            raise UsageError("no training image has a label (all are -1); accepted: data.init_args.num_labelled >= 1")
        self.labelled, self.labelled_images = self.training_images(known), len(known)
        if self.discriminator_updates == 0:
            self.initialise_discriminator(len(label))

    def training_images(self, rows: Tensor) -> ImageBatch:
        """These rows of the training split as they lie in the store, on the model's device."""
        key = BatchKey(derive_seed(run_seed(), "chosen"), 0, len(rows))
        (batch,) = self.trainer.datamodule.split("train").stream([(rows, key)], None)
        return batch._replace(image=batch.image.to(self.device), label=batch.label.to(self.device))

    def initialise_discriminator(self, examples: int) -> None:
        """Scales and biases of D from some training images, the same on all processes."""
        seed = derive_seed(run_seed(), "initial images")
        torch.manual_seed(seed)  # of D's noise; every batch seeds the global generators anew
        rows = torch.randperm(examples, generator=seeded_generator(seed))[: self.initial_images]
        chosen = self.trainer.datamodule.transform("val")(self.training_images(rows))
        self.discriminator.train()
        self.discriminator.initialise(chosen.image)
        if self.discriminator_ema:
            self.discriminator_ema.average.load_state_dict(self.discriminator.state_dict())

    def labelled_batch(self, batch: ImageBatch) -> ImageBatch:
        """This process's part of the labelled images that belong to a batch: a function of its key alone."""
        count, known = self.labelled_batch_size, self.labelled_images
        rank, world = self.trainer.global_rank, self.trainer.world_size
        start, stop = count * rank // world, count * (rank + 1) // world
        key = BatchKey(derive_seed(batch.key.seed, "labelled"), start, count)
        generator = seeded_generator(key.seed)
        rounds = -(-count // known)
        order = torch.cat([torch.randperm(known, generator=generator) for _ in range(rounds)])
        rows = order[start:stop].to(self.device)
        chosen = ImageBatch(self.labelled.image[rows], self.labelled.label[rows], key)
        return self.trainer.datamodule.transform("train")(chosen)

    # ---------------------------------------------------------------- algorithm

    def training_step(self, batch: ImageBatch, batch_idx: int) -> None:
        self.update_discriminator(batch, self.labelled_batch(batch))
        self.update_generator(batch)
        self.write_logs(batch)

    def update_discriminator(self, batch: ImageBatch, labelled: ImageBatch) -> None:
        """One update of D on labelled, unlabelled and generated images, in one pass: no layer of D couples rows."""
        optimizer = self.optimizers()[1].optimizer
        optimizer.zero_grad()
        with torch.no_grad():
            fake = self.generator(self.noise(batch, "discriminator").normal(self.latent_dim))
        parts = labelled.image, batch.image, fake
        logits = self.discriminator(torch.cat(parts)).float()
        of_labelled, of_real, of_fake = logits.split([part.shape[0] for part in parts])
        # Processes average their gradients: sums over the own rows, times the number of processes, by the rows of all.
        world = self.trainer.world_size
        supervised = F.cross_entropy(of_labelled, labelled.label, reduction="sum") * world / labelled.key.total
        unsupervised = unsupervised_loss(of_real, of_fake) * world * len(batch.image) / batch.key.total
        loss = self.watch_loss("loss_d", supervised + self.unsupervised_weight * unsupervised)
        self.manual_backward(loss)
        # Straight through the strategy: an update of D is not counted in global_step.
        self.trainer.strategy.optimizer_step(optimizer, lambda: None)
        self.discriminator_updates += 1
        if self.discriminator_ema:
            self.discriminator_ema.update(self.discriminator)
        self._logs |= {"train/loss_d": loss.detach(), "train/loss_supervised": supervised.detach()}
        self._logs |= {"train/loss_unsupervised": unsupervised.detach()}

    def update_generator(self, batch: ImageBatch) -> None:
        """One update of G on new codes: its images' mean features are to be those of the batch."""
        optimizer = self.optimizers()[0]
        optimizer.zero_grad()
        with frozen(self.discriminator):
            with torch.no_grad():
                real = self.discriminator.features(batch.image).float()
            fake = self.generator(self.noise(batch, "generator").normal(self.latent_dim))
            features = self.discriminator.features(fake).float()
            loss = feature_matching_loss(self.mean_of_all(real, batch.key), self.mean_of_all(features, batch.key))
            self.watch_loss("loss_g", loss)
            self.manual_backward(loss)
        optimizer.step()
        self._logs |= {"train/loss_g": loss.detach()}

    def mean_of_all(self, features: Tensor, key: BatchKey) -> Tensor:
        """Mean over the rows of all processes ``[F]``, with the gradient of the own ones.

        Processes average their gradients, so the own rows count for as many as there are processes.
        """
        own = features.sum(dim=0) * (self.trainer.world_size / key.total)
        constant = own.detach()
        return own + (mean_over_processes(constant) - constant)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        player = "g" if optimizer is self.optimizers()[0].optimizer else "d"
        self._logs[f"train/grad_norm_{player}"] = self.checked_norm(optimizer)

    def write_logs(self, batch: ImageBatch) -> None:
        """Logs the last update of each network, every ``log_every_n_steps`` updates of G."""
        if self.global_step % self.trainer.log_every_n_steps == 0:
            self.log_dict(self._logs, on_step=True, on_epoch=False, batch_size=batch.image.shape[0])
        self._logs = {}

    # ---------------------------------------------------------------- evaluation

    def classify(self, image: Tensor) -> Tensor:
        """Probabilities of the K classes, given that the image is real, ``[B, K]``."""
        with self.evaluating():
            return self.classifier(image).float().softmax(dim=1)

    def on_validation_epoch_start(self) -> None:
        self.scores.reset()

    def on_test_epoch_start(self) -> None:
        self.scores.reset()

    def evaluation_step(self, batch: ImageBatch) -> None:
        """Adds one batch to the scores on held-out data and as many samples."""
        logits = self.classifier(batch.image).float()
        fake_logits = self.classifier(self.from_latent(self.noise(batch).normal(self.latent_dim))).float()
        known = batch.label != UNLABELLED
        guess, label = logits[known], batch.label[known]
        self.scores.update(
            error=guess.argmax(dim=1) != label,
            cross_entropy=F.cross_entropy(guess, label, reduction="none"),
            loss_real=F.softplus(-log_evidence(logits)),
            loss_fake=F.softplus(log_evidence(fake_logits)),
        )

    def on_evaluation_end(self, stage: str) -> None:
        """Logs the scores over all processes."""
        means, images, wrong = self.scores.compute()
        if images == 0:
            raise UsageError(f"no image of the {stage} split has a label (all are -1); accepted: labelled ones")
        values = {**means, "accuracy": 1.0 - means["error"], "errors": float(wrong)}
        self.log_dict({f"{stage}/{name}": value for name, value in values.items()}, sync_dist=True)
        if stage == "test":
            about = {"images": images, "labelled": self.labelled_images, "unit": "wrong predictions"}
            self.estimators["test/errors"] = about

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> dict[str, Tensor]:
        """``class_prob``: as :meth:`classify`, ``[B, K]``; ``score``: the logit of "real" ``[B]``; ``label``: as given."""
        logits = self.classifier(batch.image).float()
        return {"class_prob": logits.softmax(dim=1), "score": log_evidence(logits), "label": batch.label}

    # ---------------------------------------------------------------- checkpoint

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["labelled_images"] = self.labelled_images

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.labelled_images = checkpoint["labelled_images"]
