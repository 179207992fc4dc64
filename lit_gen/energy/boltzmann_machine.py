r"""The general Boltzmann machine: binary units that are all coupled to each other, some visible, the others hidden.

.. math:: \frac{\partial \log p(v)}{\partial w_{ij}} = \frac1T \left(
    \langle s_i s_j \rangle_{data} - \langle s_i s_j \rangle_{model} \right)

In the positive phase the visible units are clamped to an image and the hidden ones settle (by Gibbs sampling, or mean
field); in the negative phase all units run freely, in chains that persist from one update to the next. The loss is
the difference of the mean energies of the two phases, whose gradient is the one above.

References:
    Ackley, Hinton and Sejnowski, A learning algorithm for Boltzmann machines, Cognitive Science 1985.
    Neal, Connectionist learning of belief networks, Artificial Intelligence 1992 (persistent chains, section 2).
    Salakhutdinov, Learning and evaluating Boltzmann machines, University of Toronto TR 2008-002 (mean field, AIS).
    Peterson and Anderson, A mean field theory learning algorithm for neural networks, Complex Systems 1987.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lit_gen.core.distributed import world_size
from lit_gen.core.errors import UsageError, require
from lit_gen.core.images import ImageBatch, ImageSpec
from lit_gen.core.random import RowNoise, run_seed, seeded_generator
from lit_gen.energy import fully_connected_likelihood as likelihood
from lit_gen.energy.boltzmann_images import BoltzmannImages
from lit_gen.energy.chains import PersistentChains
from lit_gen.energy.data_mean import mean_state
from lit_gen.energy.fully_connected import FullyConnected, Moments
from lit_gen.energy.samplers import LogZ
from lit_gen.energy.sequential_sweeps import Scan
from lit_gen.energy.units import ENUMERABLE

SMOOTHING = 0.01
"""Weight of the uniform distribution in the base rates: no pixel is impossible."""


class BoltzmannMachine(BoltzmannImages):
    r"""General Boltzmann machine over the pixels of binary images and some hidden units.

    ``conditional_nll`` in the logs is :math:`-\sum_i \log p(v_i | v_{-i}, h)` with h from the positive phase; without hidden
    units that is the negative pseudo-log-likelihood. Up to 20 units the log-likelihood is exact (``nll``); beyond, testing
    gives ``nll_bound``, the variational bound of :meth:`log_prob` with log Z estimated by AIS.

    Args:
        hidden_units: number of hidden units, 0 or more.
        temperature: T.
        gradient: ``gibbs``, or ``exact`` by enumeration of all states (at most 20 units).
        positive: how hidden units settle given an image, ``gibbs`` or ``mean_field``.
        positive_sweeps: sweeps over the hidden units for each image.
        negative_sweeps: sweeps of the persistent chains for each update.
        n_chains: number of persistent chains, over all processes.
        scan: visit the units in a ``systematic`` order or ``shuffled`` in each sweep.
        centred: train the centred machine, with the pixels' means and 1/2 (hidden units) as offsets.
        weight_std: standard deviation of the initial couplings.
        optimizer: parameters -> optimizer; its weight decay acts on the couplings only.
        scheduler: optimizer -> learning rate scheduler, stepped once an epoch.
        sample_steps: sweeps of a chain from the pixels' means to a sample.
        posterior_steps: sweeps of :meth:`complete` and :meth:`denoise`.
        pixels: what images made by the machine show, probabilities (``mean``) or states (``sample``).
        ais_steps: intermediate distributions of annealed importance sampling.
        ais_chains: its number of chains.

    Raises:
        UsageError: a hyper-parameter is out of range.
    """

    value_ranges: ClassVar[tuple[tuple[float, float], ...]] = ((0.0, 1.0),)

    measures: ClassVar[tuple[str, ...]] = ("conditional_nll", "free_energy", "nll", "nll_bound")

    falls_in_training: ClassVar[str] = "train/conditional_nll"
    """The loss is a difference of energies, which need not fall."""

    def __init__(
        self,
        hidden_units: int = 100,
        temperature: float = 1.0,
        gradient: Literal["gibbs", "exact"] = "gibbs",
        positive: Literal["gibbs", "mean_field"] = "gibbs",
        positive_sweeps: int = 10,
        negative_sweeps: int = 5,
        n_chains: int = 100,
        scan: Scan = "systematic",
        centred: bool = True,
        weight_std: float = 0.01,
        optimizer: OptimizerCallable = torch.optim.SGD,
        scheduler: LRSchedulerCallable | None = None,
        sample_steps: int = 1000,
        posterior_steps: int = 200,
        pixels: Literal["mean", "sample"] = "mean",
        ais_steps: int = 2000,
        ais_chains: int = 100,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        sizes = {"hidden_units": 0, "positive_sweeps": 1, "negative_sweeps": 1, "n_chains": 1, "sample_steps": 1,
                 "posterior_steps": 1, "ais_steps": 1, "ais_chains": 2}  # fmt: skip
        choices = {"gradient": ("gibbs", "exact"), "positive": ("gibbs", "mean_field"),
                   "scan": ("systematic", "shuffled"), "pixels": ("mean", "sample")}  # fmt: skip
        for name, least in sizes.items():
            require(self.hparams[name] >= least, name, self.hparams[name], f"an integer of {least} or more")
        for name, accepted in choices.items():
            require(self.hparams[name] in accepted, name, self.hparams[name], ", ".join(accepted))
        require(temperature > 0, "temperature", temperature, "temperature > 0")
        require(weight_std >= 0, "weight_std", weight_std, "weight_std >= 0")
        self.hidden_units, self.temperature, self.weight_std, self.centred = (
            hidden_units,
            temperature,
            weight_std,
            centred,
        )
        self.gradient, self.positive, self.scan, self.pixels = gradient, positive, scan, pixels
        self.positive_sweeps, self.negative_sweeps = positive_sweeps, negative_sweeps
        self.sample_steps, self.posterior_steps = sample_steps, posterior_steps
        self.ais_steps, self.ais_chains = ais_steps, ais_chains
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.chains = PersistentChains(n_chains)

    # ---------------------------------------------------------------- the machine

    def build_networks(self, spec: ImageSpec) -> None:
        if not spec.binary:
            raise UsageError(
                "BoltzmannMachine takes binary pixels, the data has grey levels: set data.init_args.binarize"
            )
        if self.gradient == "exact":
            likelihood.check_enumerable(spec.dim + self.hidden_units, "gradient: exact")
        self.machine = FullyConnected(spec.dim, self.hidden_units, self.temperature, self.weight_std)
        self.register_buffer("base_rate", torch.full((self.machine.units,), 0.5))
        self.register_buffer("prepared", torch.zeros((), dtype=torch.int64))

    def on_fit_start(self) -> None:
        """Before the first update: biases (Hinton 2010, section 8.1), offsets and the start of chains from the data's means."""
        if self.prepared:
            return
        mean = mean_state(self.trainer.datamodule, lambda image, label: image.flatten(1))
        self.base_rate[: self.spec.dim] = mean.to(self.base_rate) * (1 - SMOOTHING) + 0.5 * SMOOTHING
        self.machine.start_at(self.base_rate, self.centred)
        self.prepared += 1

    # ---------------------------------------------------------------- training

    def positive_phase(self, visible: Tensor, noise: RowNoise) -> Tensor:
        """Images and the hidden units that settle with them: values, or means in mean field, ``[N, K]``."""
        return self.infer(visible, noise) if self.positive == "gibbs" else self.mean_field(visible)

    def negative_phase(self, noise: RowNoise) -> Tensor:
        """The persistent chains of this process, moved on, ``[rows, K]``."""
        sweeps = self.sweeps(self.chains.state)
        for _ in range(self.negative_sweeps):
            sweeps.sweep(noise)
        self.chains.state = sweeps.state
        return self.chains.state

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        with torch.autocast(self.device.type, enabled=False):
            visible = batch.image.flatten(1).to(self.machine.couplings)
            with torch.no_grad():
                state = self.positive_phase(visible, self.noise(batch))
                if self.gradient == "exact":
                    data = likelihood.data_moments(self.machine, visible)
                    model = likelihood.model_moments(self.machine)
                else:
                    data = Moments.of(state)
                    # Processes are averaged, and their parts may differ by a chain.
                    share = self.chains.count / world_size()
                    noise = self.chains.noise(batch.key, self.device)
                    model = Moments.of(self.negative_phase(noise), share)
            loss = (self.machine.expected_energy(data) - self.machine.expected_energy(model)) / self.temperature
            if self.should_log():
                values = {f"train/{name}": value.mean() for name, value in self.measure(state).items()}
                self.log_dict({"train/loss": loss.detach(), **values}, batch_size=len(visible))
        return self.watch_loss("loss", loss)

    def configure_optimizers(self) -> Any:
        machine = self.machine
        groups = [{"params": [machine.couplings]}, {"params": [machine.centred_bias], "weight_decay": 0.0}]
        optimizer = self.make_optimizer(groups)
        if self.make_scheduler is None:
            return optimizer
        schedule = {"scheduler": self.make_scheduler(optimizer), "monitor": "val/conditional_nll"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def on_train_start(self) -> None:
        if self.gradient == "gibbs":
            self.chains.start(self.initial_chains, self.device)

    def initial_chains(self) -> Tensor:
        """Where all the persistent chains begin, ``[n_chains, K]``, the same on every process."""
        generator = seeded_generator(run_seed(), "chains", device=self.device)
        return self.start(RowNoise.of(generator, self.chains.count, self.device))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["chains"] = self.chains.whole()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.chains.load(checkpoint["chains"])

    # ---------------------------------------------------------------- evaluation

    @torch.no_grad()
    def measure(self, state: Tensor) -> dict[str, Tensor]:
        """What is logged, as values per example ``[N]``, of states of the positive phase."""
        values = {"conditional_nll": self.machine.conditional_nll(state)}
        if self.exact:
            values["nll"] = -likelihood.log_likelihood(self.machine, state[:, : self.spec.dim])
        return values

    @property
    def exact(self) -> bool:
        """Whether the machine is small enough for exact sums."""
        return self.machine.units <= ENUMERABLE

    def evaluate(self, batch: ImageBatch) -> dict[str, Tensor]:
        visible = batch.image.flatten(1)
        values = self.measure(self.positive_phase(visible, self.noise(batch)))
        return {**values, "free_energy": self.free_energy(batch.image)}

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        self.log_z = self.log_partition()

    def test_step(self, batch: ImageBatch, batch_idx: int) -> None:
        super().test_step(batch, batch_idx)
        if not self.exact:
            self.add_tested(batch_idx, nll_bound=-self.log_prob(batch.image, self.log_z.value))

    def on_test_epoch_end(self) -> None:
        name = "nll" if self.exact else "nll_bound"
        error = self.log_averages("test")[name][1]
        log_z = self.log_z
        numbers = {"log_z": log_z.value, "log_z_lower": log_z.lower, "log_z_upper": log_z.upper}
        self.log_dict(
            {f"test/{key}": value for key, value in {f"{name}_stderr": error, **numbers}.items()}, sync_dist=True
        )
        about = {"unit": "nats", "stderr": error, "binarize": getattr(self.trainer.datamodule, "binarize", None)}
        if not self.exact:
            about |= {"bound": "variational (mean field)", "log_z": "AIS", "ais_steps": self.ais_steps,
                      "ais_chains": self.ais_chains, "log_z_interval": [log_z.lower, log_z.upper]}  # fmt: skip
        self.estimators[f"test/{name}"] = about

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> dict[str, Tensor]:
        """``code``: means of the hidden units given each image, by mean field; ``free_energy`` in nats; ``label``."""
        code = self.mean_field(batch.image.flatten(1))[:, self.spec.dim :]
        return {"code": code, "free_energy": self.free_energy(batch.image), "label": batch.label}

    @torch.no_grad()
    def log_partition(self) -> LogZ:
        """log Z in nats: exact up to 20 units, else by AIS (the same estimate at each call under one seed of the run)."""
        if self.exact:
            value = likelihood.log_partition(self.machine).item()
            return LogZ(value, value, value, 0.0, math.inf)
        generator = seeded_generator(run_seed(), "ais", device=self.device)
        return likelihood.annealed_log_partition(
            self.machine, self.base_rate, self.ais_steps, self.ais_chains, generator
        )

    @torch.no_grad()
    def free_energy(self, image: Tensor) -> Tensor:
        """F(v) / T in nats, ``[B]``: exact where the hidden states can be enumerated for a small machine, else an upper bound.

        The bound is by mean field, and tight without hidden units.
        """
        visible = image.flatten(1).to(self.machine.couplings)
        if self.exact:
            return likelihood.free_energy(self.machine, visible) / self.temperature
        return -self.machine.variational_bound(self.mean_field(visible))

    def log_prob(self, image: Tensor, log_z: float | None = None) -> Tensor:
        """log p(v) in nats, ``[B]``: exact up to 20 units; beyond, an estimate of a lower bound.

        The bound is variational (mean field) where there are hidden units. log Z is then AIS's estimate, which tends to
        be too small, so that the estimated bound tends to be too high by the same amount.

        Args:
            image: ``[B, C, H, W]``, binary.
            log_z: log Z where it is known already; :meth:`log_partition` where None.
        """
        return -self.free_energy(image) - (self.log_partition().value if log_z is None else log_z)
