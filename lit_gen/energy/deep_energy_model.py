r"""The deep energy model: any network's output as an energy, :math:`p_\theta(x) = e^{-E_\theta(x)} / Z_\theta`.

Nothing is asked of the network but one smooth number for each image. Two objectives train it:
:class:`~lit_gen.energy.PersistentLangevin`, maximum likelihood with the model's own images from Langevin dynamics, and
:class:`~lit_gen.energy.DenoisingScoreMatching`, which fits the energy's gradient and needs no samples.

References:
    LeCun et al., A tutorial on energy-based learning, 2006. Du and Mordatch, Implicit generation and modeling with
    energy-based models, NeurIPS 2019 (arXiv:1903.08689). Song and Ermon, NeurIPS 2019 (arXiv:1907.05600).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lit_gen.core.averages import AveragedModule
from lit_gen.core.ema import ExponentialMovingAverage
from lit_gen.core.errors import require
from lit_gen.core.images import ImageBatch, ImageSpec
from lit_gen.core.random import RowNoise, run_seed, seeded_generator
from lit_gen.energy.chains import PersistentChains
from lit_gen.energy.energy_networks import ConvEnergy, EnergyCallable
from lit_gen.energy.langevin_training import EnergyObjective, LangevinStep, PersistentLangevin, float32, langevin
from lit_gen.energy.score_matching import score_error, tweedie


class DeepEnergyModel(AveragedModule):
    """An energy network, an objective that trains it, Langevin dynamics that sample from it.

    Everything is computed in float32 whatever the Trainer's precision: energies are sums of hundreds of nats whose
    differences matter. Persistent chains are divided among the processes and kept in the checkpoint as one tensor.

    Logged: ``noise_margin``, the energy of training images less that of uniform noise; ``score_error``, comparable between
    objectives (:func:`~lit_gen.energy.score_matching.score_error`, at the data's noise level); ``energy_gap``, the mean energy
    of held-out data less that of the chains, near 0 where the chains have the data's distribution. Held-out images carry the
    noise that the objective puts on its training images.

    Args:
        network: (image shape) -> network.
        objective: :class:`PersistentLangevin` where None.
        sample_steps: Langevin steps from uniform noise to a sample.
        denoise_samples: return the mean of the clean image given the last state of the chain (Tweedie's formula).
        optimizer: parameters -> optimizer.
        scheduler: optimizer -> learning rate scheduler, stepped once an epoch.
        gradient_clip: largest norm of the weights' gradient.
        ema_decay: decay of an average of the weights, used for evaluation and sampling; None for none.
        compile: ``torch.compile`` the network, in place; not with score matching, which differentiates twice.

    Raises:
        UsageError: a hyper-parameter is out of range.
    """

    falls_in_training: ClassVar[str | None] = "train/noise_margin"
    measures: ClassVar[tuple[str, ...]] = ("loss", "energy", "energy_chains", "score_error")

    def __init__(
        self,
        network: EnergyCallable = ConvEnergy,
        objective: EnergyObjective | None = None,
        sample_steps: int = 500,
        denoise_samples: bool = True,
        optimizer: OptimizerCallable = torch.optim.Adam,
        scheduler: LRSchedulerCallable | None = None,
        gradient_clip: float | None = None,
        ema_decay: float | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        require(sample_steps >= 1, "sample_steps", sample_steps, "an integer of 1 or more")
        require(gradient_clip is None or gradient_clip > 0, "gradient_clip", gradient_clip, "null or gradient_clip > 0")
        require(ema_decay is None or 0 <= ema_decay < 1, "ema_decay", ema_decay, "null or 0 <= ema_decay < 1")
        self.objective = objective or PersistentLangevin()
        accepted = "false: a compiled network has no second derivative"
        require(not (compile and self.objective.second_order), "compile", compile, accepted)
        self.make_network, self.make_optimizer, self.make_scheduler = network, optimizer, scheduler
        self.sample_steps, self.denoise_samples = sample_steps, denoise_samples
        self.gradient_clip, self.ema_decay, self.compiled = gradient_clip, ema_decay, compile
        self.chains = PersistentChains(self.objective.chains) if self.objective.chains else None

    def build_networks(self, spec: ImageSpec) -> None:
        self.network = self.make_network(spec.shape)
        self.ema = None if self.ema_decay is None else ExponentialMovingAverage(self.network, self.ema_decay)
        if self.compiled:
            self.network.compile()

    @property
    def averaged(self) -> nn.Module:
        """The network with averaged weights where the model keeps them: what evaluates and samples."""
        return self.network if self.ema is None else self.ema.average

    # ---------------------------------------------------------------- chains

    def start_chains(self) -> None:
        """Shares the chains out among the processes, at the beginning or from a checkpoint."""
        if self.chains is not None:
            world = self.trainer.world_size  # a mean over shares of different size would not be the mean over all
            require(self.chains.count % world == 0, "chains", self.chains.count, f"a multiple of {world} processes")
            generator = seeded_generator(run_seed(), "chains")
            self.chains.start(lambda: self.objective.initial_chains(self.spec, generator), self.device)

    on_fit_start = on_validation_start = on_test_start = start_chains

    def negatives(self, batch: ImageBatch) -> Tensor | None:
        """The model's images against which this batch is held; None where the objective asks for none."""
        if self.chains is None:
            return None
        noise = self.chains.noise(batch.key, self.device)
        with self.evaluating():  # spectral norm makes no power iterations while chains run
            return self.objective.negatives(self.network, self.chains.state, self.spec, noise)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["chains"] = None if self.chains is None else self.chains.whole()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if self.chains is not None:
            self.chains.load(checkpoint["chains"])

    # ---------------------------------------------------------------- training

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        terms = self.objective.terms(self.network, batch.image, self.noise(batch), self.negatives(batch))
        if self.should_log():
            with self.evaluating():  # what is logged makes no power iterations either
                terms |= {"noise_margin": self.noise_margin(batch), **self.errors(self.network, batch)}
            values = {f"train/{name}": value.detach().mean() for name, value in terms.items()}
            self.log_dict(values, batch_size=batch.image.shape[0])
        return self.watch_loss("loss", terms["loss"])

    def noise_margin(self, batch: ImageBatch) -> Tensor:
        """Energy of the data less that of uniform noise, ``[B]`` in nats: falls as the model tells them apart."""
        with float32(batch.image.device):
            noise = self.uniform(self.noise(batch, "noise_margin"))
            return self.objective.nats * (self.network(batch.image) - self.network(noise))

    def errors(self, network: nn.Module, batch: ImageBatch) -> dict[str, Tensor]:
        """The ``score_error`` of each image ``[B]``; nothing where the data carry no noise."""
        if not self.objective.sigma:
            return {}
        epsilon = self.noise(batch, "score_error").normal(*self.spec.shape)
        return {"score_error": score_error(network, batch.image, epsilon, self.objective.sigma, self.objective.nats)}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        if self.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.gradient_clip)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.ema is not None:  # here and not in on_train_batch_end, which a checkpoint callback would precede
            self.ema.update(self.network)

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(self.network.parameters())
        if self.make_scheduler is None:
            return optimizer
        scheduler = {"scheduler": self.make_scheduler(optimizer), "monitor": "val/score_error"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    # ---------------------------------------------------------------- evaluation

    def evaluate(self, batch: ImageBatch) -> dict[str, Tensor]:
        noised = batch.image + self.objective.sigma * self.noise(batch, "noised").normal(*self.spec.shape)
        values = {"energy": self.energy(noised), **self.errors(self.averaged, batch)}
        if self.chains is None:
            loss = self.objective.terms(self.averaged, batch.image, self.noise(batch), None)["loss"]
            values["loss"] = loss.expand(len(batch.image))
        return values

    def log_averages(self, stage: str) -> dict[str, tuple[float, float]]:
        if self.chains is not None:
            self.averages.update(energy_chains=self.energy(self.chains.state[:, -1]))
        values = super().log_averages(stage)
        if self.chains is not None:
            self.log(f"{stage}/energy_gap", values["energy"][0] - values["energy_chains"][0], sync_dist=True)
        return values

    def on_test_epoch_end(self) -> None:
        about = {"objective": type(self.objective).__name__, "noise": self.objective.sigma}
        values = self.log_averages("test")
        self.estimators |= {f"test/{name}": {**about, "stderr": error} for name, (_, error) in values.items()}

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> dict[str, Tensor]:
        """``energy``: of each image ``[B]``, in nats; ``label``: as given."""
        return {"energy": self.energy(batch.image), "label": batch.label}

    @torch.no_grad()
    def energy(self, image: Tensor) -> Tensor:
        """-log p(x) up to a constant, in nats, ``[B]`` for images ``[B, C, H, W]``; p is the density of noised data."""
        with self.evaluating(), float32(image.device):
            return self.objective.nats * self.averaged(image)

    # ---------------------------------------------------------------- images

    def run(
        self,
        image: Tensor,
        schedule: Sequence[LangevinStep],
        noise: RowNoise,
        project: Callable[[Tensor, LangevinStep], Tensor] | None = None,
    ) -> Tensor:
        """Langevin dynamics from the averaged weights; see :func:`~lit_gen.energy.langevin_training.langevin`."""
        with self.evaluating():
            return langevin(self.averaged, image, schedule, noise, self.objective.clamp, project)

    def uniform(self, noise: RowNoise) -> Tensor:
        """Images of uniform noise."""
        low, high = self.spec.value_range
        return noise.uniform(*self.spec.shape).mul_(high - low).add_(low)

    def start(self, noise: RowNoise) -> Tensor:
        """Where the chains of samples begin."""
        image = self.uniform(noise)
        return image + self.objective.spread * noise.normal_like(image) if self.objective.spread else image

    def finish(self, image: Tensor) -> Tensor:
        """Images to look at, of the states of chains."""
        return self.tweedie(image) if self.denoise_samples else image.clamp(*self.spec.value_range)

    def sample(self, n: int, *, label: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        noise = RowNoise.of(generator, n, self.device)
        return self.finish(self.run(self.start(noise), self.objective.schedule(self.sample_steps), noise))

    def trajectory(self, n: int, steps: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        """n chains from uniform noise, as they are after the given numbers of steps, ``[len(steps), n, C, H, W]``.

        An annealed schedule takes ``sample_steps`` steps and goes on at the last level.

        Raises:
            UsageError: a number of steps is negative.
        """
        require(min(steps) >= 0, "steps", list(steps), "numbers of 0 or more")
        noise = RowNoise.of(generator, n, self.device)
        schedule = self.objective.schedule(self.sample_steps)
        schedule += schedule[-1:] * (max(steps) - len(schedule))
        image, seen, done = self.start(noise), {}, 0
        for step in sorted(set(steps)):
            image = self.run(image, schedule[done:step], noise)
            seen[step], done = image.clamp(*self.spec.value_range), step
        return torch.stack([seen[step] for step in steps])

    def tweedie(self, image: Tensor) -> Tensor:
        """The mean of the clean images given images with noise of the objective's ``sigma``, ``[B, C, H, W]``."""
        with self.evaluating():
            clean = tweedie(self.averaged, image, self.objective.sigma, self.objective.nats)
        return clean.clamp(*self.spec.value_range)

    def complete(self, image: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Fills hidden pixels by ``sample_steps`` Langevin steps; the others are returned as given.

        While the chain runs, known pixels carry noise of the level that the schedule has reached.

        Shape:
            image: ``[B, C, H, W]``; mask: ``[B, 1, H, W]``, 1 = hidden; result ``[B, C, H, W]``.

        Raises:
            UsageError: the mask's shape does not fit the image.

        References:
            Song and Ermon 2019 (arXiv:1907.05600), appendix B.3.
        """
        expected, shape = [image.shape[0], 1, *image.shape[-2:]], list(mask.shape)
        require(shape == expected, "mask's shape", shape, f"{expected}, 1 where a pixel is hidden")
        hidden, noise = mask.bool(), RowNoise.of(generator, len(image), image.device)

        def put_back(state: Tensor, step: LangevinStep) -> Tensor:
            return torch.where(hidden, state, image + step.sigma * noise.normal_like(image))

        schedule = self.objective.schedule(self.sample_steps)
        state = self.run(put_back(self.start(noise), schedule[0]), schedule, noise, put_back)
        return torch.where(hidden, self.finish(state), image)
