"""Generative adversarial networks: one training loop, composed of an objective, penalties, a constraint and tricks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_gen.core.ema import ExponentialMovingAverage
from lit_gen.core.errors import UsageError
from lit_gen.core.images import ImageBatch, ImageSpec
from lit_gen.gan.base import AdversarialModule
from lit_gen.gan.dcgan import DCGANDiscriminator, DCGANGenerator
from lit_gen.gan.objectives import NonSaturating, Objective
from lit_gen.gan.penalties import Constraint, Penalty
from lit_gen.gan.tricks import Pass, Trick

GeneratorCallable = Callable[[tuple[int, int, int], int, int], nn.Module]
"""(image_shape, latent_dim, num_classes) -> network, called as ``network(z, label)``."""

DiscriminatorCallable = Callable[[tuple[int, int, int], int], nn.Module]
"""(image_shape, num_classes) -> network, called as ``network(image, label)``."""


def dcgan_adam(parameters: Any) -> torch.optim.Adam:
    """Adam with learning rate 0.0002 and beta1 = 0.5 (DCGAN, section 4)."""
    return torch.optim.Adam(parameters, lr=2e-4, betas=(0.5, 0.999))


class GAN(AdversarialModule):
    r"""A generator G and a discriminator (critic) D, trained in turn.

    One ``training_step`` is one iteration of the outer loop of algorithm 1 (Goodfellow et al. 2014; Arjovsky et al.
    2017; Gulrajani et al. 2017): ``discriminator_steps`` updates of D, each on its own batch of data, then one
    update of G. D sees data and generated images in separate batches. ``trainer.global_step`` counts updates of G, and so do
    both learning-rate schedulers. WGAN-GP is ``objective: Wasserstein`` with ``penalties: [GradientPenalty]``, and so on.

    Losses are means over the rows of the whole update, over all its micro-batches and all processes, so that
    accumulation and data parallelism change nothing where no layer couples the rows of a batch.

    Args:
        generator: makes G from (image_shape, latent_dim, num_classes).
        discriminator: makes D from (image_shape, num_classes).
        objective: the two losses; :class:`NonSaturating` where None.
        penalties: terms of D's loss on its gradient, e.g. :class:`~lit_gen.gan.GradientPenalty`.
        constraint: projection of D's weights after each update, e.g. :class:`~lit_gen.gan.WeightClipping`.
        tricks: further loss terms, e.g. :class:`~lit_gen.gan.FeatureMatching`.
        optimizer_g, optimizer_d: make the optimizers from the networks' parameters.
        scheduler_g, scheduler_d: make learning-rate schedulers, stepped at every update of G.
        latent_dim: length of the code z ~ N(0, I).
        conditional: give the labels of the data to both networks.
        discriminator_steps: updates of D for one of G (n_critic).
        accumulate: micro-batches for each update of either network.
        fresh_noise: draw new codes for G's update (algorithm 1); False takes the generated batch of D's last update
            again, which saves one pass through G, as the authors' DCGAN code does.
        gradient_clip: largest norm of the gradient of one network.
        ema_decay: decay of the average of G's weights, which then samples; None for no average.
        compile: compile G with ``torch.compile`` (D never: a compiled critic has no second derivative).

    Raises:
        UsageError: a count below 1, or parts that do not go together.

    References:
        Goodfellow et al., Generative adversarial nets, NeurIPS 2014 (arXiv:1406.2661), algorithm 1. Conditional: Mirza
        and Osindero 2014 (arXiv:1411.1784). Average of G's weights: Yazıcı et al., The unusual effectiveness of
        averaging in GAN training, ICLR 2019 (arXiv:1806.04498).
    """

    def __init__(
        self,
        generator: GeneratorCallable = DCGANGenerator,
        discriminator: DiscriminatorCallable = DCGANDiscriminator,
        objective: Objective | None = None,
        penalties: list[Penalty] | None = None,
        constraint: Constraint | None = None,
        tricks: list[Trick] | None = None,
        optimizer_g: OptimizerCallable = dcgan_adam,
        optimizer_d: OptimizerCallable = dcgan_adam,
        scheduler_g: LRSchedulerCallable | None = None,
        scheduler_d: LRSchedulerCallable | None = None,
        latent_dim: int = 100,
        conditional: bool = False,
        discriminator_steps: int = 1,
        accumulate: int = 1,
        fresh_noise: bool = True,
        gradient_clip: float | None = None,
        ema_decay: float | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__(gradient_clip)
        self.save_hyperparameters()
        counts = {"latent_dim": latent_dim, "discriminator_steps": discriminator_steps, "accumulate": accumulate}
        for name, value in counts.items():
            if value < 1:
                raise UsageError(f"{name} = {value}; accepted: {name} >= 1")
        if ema_decay is not None and not 0 <= ema_decay < 1:
            raise UsageError(f"ema_decay = {ema_decay}; accepted: 0 <= ema_decay < 1, or null for none")
        if accumulate > 1 and not fresh_noise:
            raise UsageError(f"fresh_noise = False with accumulate = {accumulate}; accepted: accumulate = 1")
        self.objective = objective or NonSaturating()
        self.penalties, self.constraint, self.tricks = penalties or [], constraint, tricks or []
        for trick in self.tricks:
            trick.check(self.objective)
        # Not self.hparams, which holds plain data where the model comes from the command line.
        self.make_networks, self.make_optimizers = (generator, discriminator), (optimizer_g, optimizer_d)
        self.make_schedulers, self.ema_decay, self.compiled = (scheduler_g, scheduler_d), ema_decay, compile
        self.latent_dim, self.conditional, self.accumulate = latent_dim, conditional, accumulate
        self.fresh_noise = fresh_noise
        self.batches_per_step = discriminator_steps * accumulate
        self._logs: dict[str, Tensor] = {}

    # ---------------------------------------------------------------- building

    def build_networks(self, spec: ImageSpec) -> None:
        classes = spec.num_classes if self.conditional else 0
        if self.conditional and classes == 0:
            raise UsageError("conditional = True; the data has no labels: set model.init_args.conditional to false")
        make_generator, make_discriminator = self.make_networks
        self.generator = make_generator(spec.shape, self.latent_dim, classes)
        self.discriminator = make_discriminator(spec.shape, classes)
        if self.penalties and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.discriminator.modules()):
            raise UsageError("gradient penalty on a discriminator with batch norm; accepted normalisation: none, layer")
        if not all(hasattr(self.discriminator, "features") for trick in self.tricks if trick.needs_features):
            raise UsageError(f"{type(self.discriminator).__name__} has no method features, which FeatureMatching needs")
        self.memories_g = nn.ModuleList(trick.build(self.generator) for trick in self.tricks)
        self.memories_d = nn.ModuleList(trick.build(self.discriminator) for trick in self.tricks)
        self.ema = None if self.ema_decay is None else ExponentialMovingAverage(self.generator, self.ema_decay)
        if self.compiled:
            self.generator.compile()

    def configure_optimizers(self) -> tuple[list[Optimizer], list[Any]]:
        networks = self.generator, self.discriminator
        optimizers = [make(network.parameters()) for make, network in zip(self.make_optimizers, networks)]
        pairs = zip(self.make_schedulers, optimizers)
        return optimizers, [make(optimizer) for make, optimizer in pairs if make]

    # ---------------------------------------------------------------- algorithm 1

    def training_step(self, batches: list[ImageBatch], batch_idx: int) -> None:
        for start in range(0, len(batches), self.accumulate):
            fake = self.update_discriminator(batches[start : start + self.accumulate])
        self.update_generator(batches[-self.accumulate :], fake)
        self.write_logs(batches)

    def update_discriminator(self, batches: list[ImageBatch]) -> Tensor | None:
        """One update of D; returns the last generated batch with its graph where G's update takes it again."""
        optimizer = self.optimizers()[1].optimizer
        optimizer.zero_grad()
        for batch, share, synchronise in self.shares(batches):
            noise, label = self.noise(batch, "discriminator"), self.label_of(batch)
            with torch.set_grad_enabled(not self.fresh_noise):
                fake = self.generator(noise.normal(self.latent_dim), label)
            real_logits = self.discriminator(batch.image, label).float()
            fake_logits = self.discriminator(fake.detach(), label).float()
            loss = self.objective.discriminator_loss(real_logits, fake_logits)
            step = Pass(self.discriminator, fake_logits, real_logits)
            for trick, memory in zip(self.tricks, self.memories_d):
                loss = loss + trick.discriminator_loss(step, memory)
            for penalty in self.penalties:
                if self.discriminator_updates % penalty.interval == 0:
                    value = penalty(self.discriminator, batch.image, fake, label, noise)
                    loss = loss + penalty.weight * penalty.interval * value
                    self._logs[f"train/{penalty.name}"] = value.detach()
            self.watch_loss("loss_d", loss)
            with synchronise:
                self.manual_backward(share * loss)
        # Straight through the strategy: an update of D is not counted in global_step.
        self.trainer.strategy.optimizer_step(optimizer, lambda: None)
        self.discriminator_updates += 1
        for trick, memory in zip(self.tricks, self.memories_d):
            trick.after_step(self.discriminator, memory)
        if self.constraint:
            self.constraint.apply(self.discriminator)
        self._logs |= {"train/loss_d": loss.detach()}
        self._outputs = real_logits.detach(), fake_logits.detach()
        return None if self.fresh_noise else fake

    def update_generator(self, batches: list[ImageBatch], fake: Tensor | None = None) -> None:
        """One update of G, on new codes or on the generated batch that is given."""
        optimizer = self.optimizers()[0]
        optimizer.zero_grad()
        with frozen(self.discriminator):
            for batch, share, synchronise in self.shares(batches):
                label = self.label_of(batch)
                if self.fresh_noise:
                    noise = self.noise(batch, "generator")
                    fake = self.generator(noise.normal(self.latent_dim), label)
                step = self.judge(fake, batch.image, label)
                loss = 0.0 if self.replaces_objective else self.objective.generator_loss(step.fake_logits)
                for trick, memory in zip(self.tricks, self.memories_g):
                    loss = loss + trick.generator_loss(step, memory)
                self.watch_loss("loss_g", loss)
                with synchronise:
                    self.manual_backward(share * loss)
        optimizer.step()
        for trick, memory in zip(self.tricks, self.memories_g):
            trick.after_step(self.generator, memory)
        if self.ema:
            self.ema.update(self.generator)
        for scheduler in self.schedulers:
            scheduler.step()
        self._logs |= {"train/loss_g": loss.detach()}

    def judge(self, fake: Tensor, real: Tensor, label: Tensor | None) -> Pass:
        """D's opinion of generated images, with its features of both kinds of images where a trick compares them."""
        if not any(trick.needs_features for trick in self.tricks):
            return Pass(self.generator, self.discriminator(fake, label).float())
        features = self.discriminator.features(fake, label)
        with torch.no_grad():
            real_features = self.discriminator.features(real, label)
        logits = self.discriminator.logits(features, label).float()
        return Pass(self.generator, logits, real_features=real_features.float(), fake_features=features.float())

    @property
    def replaces_objective(self) -> bool:
        """A trick takes the place of the generator's objective."""
        return any(trick.replaces_objective for trick in self.tricks)

    def shares(self, batches: list[ImageBatch]) -> Iterator[tuple[ImageBatch, float, Any]]:
        """Each batch of one update, its share of the update's mean, and the context in which to run its backward pass.

        Processes average their gradients, whence the world size.
        """
        total = sum(batch.key.total for batch in batches)
        for batch, synchronise in self.micro_batches(batches):
            yield batch, self.trainer.world_size * batch.image.shape[0] / total, synchronise

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        player = "g" if optimizer is self.optimizers()[0].optimizer else "d"
        self._logs[f"train/grad_norm_{player}"] = self.checked_norm(optimizer)

    # ---------------------------------------------------------------- logging

    def write_logs(self, batches: list[ImageBatch]) -> None:
        """Logs the last update of each network, every ``log_every_n_steps`` updates of G."""
        if self.global_step % self.trainer.log_every_n_steps == 0:
            real, fake = self._outputs
            self._logs |= {"train/d_real": self.objective.score(real), "train/d_fake": self.objective.score(fake)}
            rows = sum(batch.image.shape[0] for batch in batches)
            self.log_dict(self._logs, on_step=True, on_epoch=False, batch_size=rows)
        self._logs = {}


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """No gradients for the network's parameters inside: G's update neither computes nor synchronises those of D."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
