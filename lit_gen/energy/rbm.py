r"""The restricted Boltzmann machine.

A bipartite machine (:mod:`lit_gen.energy.machine`) of visible and hidden units has :math:`p(v) = e^{-F(v)} / Z`. The gradient
of its log-likelihood is that of a difference of free energies,

.. math:: -\nabla \log p(v) = \nabla F(v) - E_{v' \sim p} \nabla F(v')

so that, given states v' of the model from a Markov chain (:mod:`lit_gen.energy.negative_phase`) as constants, the loss
:math:`F(v) - F(v')` has the right gradient for any optimizer. Where v' comes from k Gibbs steps that begin at the data this is
contrastive divergence, CD-k.

To train: ``lit-gen run --config configs/energy/rbm_cd1_mnist.yaml``. The loss is no measure of progress, since both of its
terms move; look at the pseudo-likelihood and at the gap of free energies between validation and training images, and at the
likelihood itself after training.

References:
    Hinton, Training Products of Experts by Minimizing Contrastive Divergence, Neural Computation 2002.
    Hinton, A Practical Guide to Training Restricted Boltzmann Machines, 2012.
    Salakhutdinov and Murray, On the Quantitative Analysis of Deep Belief Networks, ICML 2008 (likelihoods).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lit_gen.core.distributed import mean_over_processes
from lit_gen.core.errors import require
from lit_gen.core.images import ImageBatch, ImageSpec
from lit_gen.core.random import RowNoise
from lit_gen.energy.data_mean import first_states, mean_state
from lit_gen.energy.likelihood import pseudo_log_likelihood
from lit_gen.energy.machine import BipartiteMachine
from lit_gen.energy.machine_images import MachineImages
from lit_gen.energy.negative_phase import ContrastiveDivergence, NegativePhase
from lit_gen.energy.partition import Partition
from lit_gen.energy.samplers import LogZ
from lit_gen.energy.units import Bernoulli, Units

UnitsCallable = Callable[[int], Units]
NLL_NAMES = {"exact": "nll", "forward": "nll", "reverse": "nll_reverse"}
"""The name of -log p(v) by how log Z was found."""


class RBM(MachineImages):
    """Restricted Boltzmann machine with any kinds of units.

    ``log_prob`` is exact where the smaller layer can be enumerated, and otherwise uses an estimate of log Z by annealed
    importance sampling. ``test/nll`` is its negative mean over the test images; ``test/nll_reverse`` uses the estimate from the
    other side.

    Args:
        hidden_units: number of hidden units.
        visible: number -> visible units.
        hidden: number -> hidden units.
        negative_phase: where the model's states come from; CD-1 where None.
        partition: how log Z is estimated for the test; AIS as in the authors' code where None.
        optimizer: parameters -> optimizer.
        scheduler: optimizer -> learning rate scheduler, stepped once an epoch.
        weight_decay: of the weights; 0 leaves it to the optimizer. Neither acts on biases.
        weight_std: standard deviation of the initial weights.
        centred: train in centred coordinates.
        offset_rate: rate of the offsets' moving averages, where centred.
        sparsity_target: probability that a hidden unit should be on, averaged over the data; None for no such wish.
        sparsity_weight: of the cross-entropy between the target and the batch's mean activity.
        temperature: T of the distribution exp(-E / T).
        sample_steps: length of the chains of :meth:`sample`.
        posterior_steps: length of the chains of :meth:`complete` and :meth:`denoise`.
        pixels: whether these methods return the probabilities of the last step, as the papers' figures do, or states.
        compile: ``torch.compile`` the free energy, in place.

    Raises:
        UsageError: a hyper-parameter is out of range.
    """

    measures: ClassVar[tuple[str, ...]] = ("free_energy", "pseudo_log_likelihood", "reconstruction_error", "nll",
                                           "nll_reverse")  # fmt: skip
    falls_in_training: ClassVar[str] = "train/reconstruction_error"

    def __init__(
        self,
        hidden_units: int = 500,
        visible: UnitsCallable = Bernoulli,
        hidden: UnitsCallable = Bernoulli,
        negative_phase: NegativePhase | None = None,
        partition: Partition | None = None,
        optimizer: OptimizerCallable = torch.optim.SGD,
        scheduler: LRSchedulerCallable | None = None,
        weight_decay: float = 0.0,
        weight_std: float = 0.01,
        centred: bool = False,
        offset_rate: float = 0.01,
        sparsity_target: float | None = None,
        sparsity_weight: float = 0.1,
        temperature: float = 1.0,
        sample_steps: int = 1000,
        posterior_steps: int = 100,
        pixels: Literal["mean", "sample"] = "mean",
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        require(hidden_units >= 1, "hidden_units", hidden_units, "1 or more")
        require(weight_decay >= 0, "weight_decay", weight_decay, "0 or more")
        require(0 < offset_rate <= 1, "offset_rate", offset_rate, "0 < offset_rate <= 1")
        require(sparsity_target is None or 0 < sparsity_target < 1, "sparsity_target", sparsity_target,
                "null or 0 < sparsity_target < 1")  # fmt: skip
        require(sparsity_weight >= 0, "sparsity_weight", sparsity_weight, "0 or more")
        require(sample_steps >= 1, "sample_steps", sample_steps, "1 or more")
        require(posterior_steps >= 1, "posterior_steps", posterior_steps, "1 or more")
        self.hidden_units, self.make_visible, self.make_hidden = hidden_units, visible, hidden
        # its chains belong to this model alone
        self.negative_phase = copy.deepcopy(negative_phase) or ContrastiveDivergence()
        self.partition = partition or Partition()
        self.make_optimizer, self.make_scheduler, self.weight_decay = optimizer, scheduler, weight_decay
        self.weight_std, self.centred, self.offset_rate = weight_std, centred, offset_rate
        self.sparsity_target, self.sparsity_weight = sparsity_target, sparsity_weight
        self.temperature, self.pixels = temperature, pixels
        self.sample_steps, self.posterior_steps = sample_steps, posterior_steps
        self.compile_machine = compile
        self.log_z: dict[str, LogZ] = {}

    # ---------------------------------------------------------------- the machine

    def build_networks(self, spec: ImageSpec) -> None:
        hidden = self.make_hidden(self.hidden_units)
        require(self.sparsity_target is None or isinstance(hidden, Bernoulli), "sparsity_target", self.sparsity_target,
                f"null with {type(hidden).__name__} hidden units")  # fmt: skip
        self.machine = BipartiteMachine(
            self.visible_units(spec), hidden, self.weight_std, self.centred, self.temperature
        )
        self.register_buffer("data_mean", torch.full((self.machine.visible.dim,), torch.nan))
        if self.compile_machine:
            self.machine.compile()

    def visible_units(self, spec: ImageSpec) -> Units:
        """The visible layer for images of this spec."""
        return self.make_visible(spec.dim)

    # ---------------------------------------------------------------- training

    def on_fit_start(self) -> None:
        if self.data_mean.isnan().any():  # a new run: the units alone shall fit the data (Hinton 2012, section 8)
            self.data_mean.copy_(mean_state(self.trainer.datamodule, self.state))
            self.machine.visible.fit(self.data_mean, 0.01)
        self.negative_phase.start(self.machine, self.data_mean)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        v = self.state(batch.image, batch.label)
        terms = self.contrast(v, self.noise(batch))
        return self.finish(terms["loss"], v, terms)

    def contrast(self, v: Tensor, noise: RowNoise) -> dict[str, Tensor]:
        """The ``loss``, whose gradient is that of the mean of -log p(v), and the mean ``free_energy`` of v."""
        data, field = self.machine(v)
        model, _ = self.machine(self.negative_phase.states(self.machine, v, field.detach(), noise))
        loss = data.mean() - model.mean()
        if self.sparsity_target is not None:
            loss = loss + self.sparsity_weight * self.sparsity(field)
        if self.centred:
            self._statistics = self.mean_statistics(v, field)
        return {"loss": loss, "free_energy": data.mean()}

    def finish(self, loss: Tensor, v: Tensor, values: dict[str, Tensor]) -> Tensor:
        """Logs the step and hands the loss over to the optimizer."""
        if self.should_log():
            values = {**values, "loss": loss, "reconstruction_error": self.reconstruction_error(v).mean()}
            self.log_dict({f"train/{name}": value.detach() for name, value in values.items()}, batch_size=len(v))
        return self.watch_loss("loss", loss)

    def sparsity(self, field: Tensor) -> Tensor:
        r"""A term with the gradient of the cross-entropy between target t and mean activity q, summed over hidden units.

        q is the mean over the batches of all processes, so that their number makes no difference:
        :math:`\partial_q [-t \log q - (1 - t) \log (1 - q)] = (q - t) / (q (1 - q))`.

        References:
            Hinton 2012, section 11. Lee, Ekanadham and Ng, Sparse deep belief net model for visual area V2, NIPS 2007.
        """
        activity = self.machine.hidden.mean_(field.clone(), self.machine.beta).mean(0)
        q = mean_over_processes(activity.detach()).clamp(1e-6, 1 - 1e-6)
        return ((q - self.sparsity_target) / (q * (1 - q)) * activity).sum()

    @torch.no_grad()
    def mean_statistics(self, v: Tensor, field: Tensor) -> tuple[Tensor, Tensor]:
        """Means over the batches of all processes of the coupling statistics of v and of h given v."""
        machine = self.machine
        h = machine.hidden.mean_(field.clone(), machine.beta)
        both = torch.cat([machine.visible.coupled(v).mean(0), machine.hidden.coupled(h).mean(0)])
        return mean_over_processes(both).split([machine.visible.dim, machine.hidden.dim])

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.log_z = {}  # that of other parameters
        if self.centred:
            self.machine.move_offsets(*self._statistics, self.offset_rate)

    def configure_optimizers(self) -> Any:
        weights: dict[str, Any] = {"params": [self.machine.weight]}
        if self.weight_decay:
            weights["weight_decay"] = self.weight_decay
        others = [p for name, p in self.machine.named_parameters() if name != "weight"]
        optimizer = self.make_optimizer([weights, {"params": others, "weight_decay": 0.0}])
        if self.make_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.make_scheduler(optimizer)}

    # ---------------------------------------------------------------- evaluation

    def reconstruction_error(self, v: Tensor) -> Tensor:
        """Mean squared difference ``[B]`` between v and E[v | E[h | v]], per visible unit."""
        return (v - self.machine.visible_mean(self.machine.hidden_mean(v))).square().mean(-1)

    def evaluate(self, batch: ImageBatch) -> dict[str, Tensor]:
        v = self.state(batch.image, batch.label)
        values = {"free_energy": self.machine.free_energy(v), "reconstruction_error": self.reconstruction_error(v)}
        if self.machine.visible.discrete:
            noise = self.noise(batch, "pseudo_log_likelihood")
            values["pseudo_log_likelihood"] = pseudo_log_likelihood(self.machine, v, noise)
        return values

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        data = first_states(self.trainer.datamodule, self.state, self.partition.chains)
        self.log_z = self.partition.estimate(self.machine, self.data_mean, data.to(self.device))

    def test_step(self, batch: ImageBatch, batch_idx: int) -> None:
        values = self.evaluate(batch)
        for name, log_z in self.log_z.items():
            values[NLL_NAMES[name]] = values["free_energy"] + log_z.value
        self.add_tested(batch_idx, **values)

    def on_test_epoch_end(self) -> None:
        values = self.log_averages("test")
        for name, log_z in self.log_z.items():
            key, error = f"test/{NLL_NAMES[name]}", values[NLL_NAMES[name]][1]
            self.log_dict({f"{key}_stderr": error, f"test/log_z_{name}": log_z.value}, sync_dist=True)
            self.estimators[key] = {"unit": "nats", "stderr": error, **self.partition.about(log_z)}
        if self.partition.raise_examples:
            self.log_conservative()

    def log_conservative(self) -> None:
        """Logs ``test/nll_raise`` of the first test images, in expectation an upper bound of their -log p(v)."""
        batches = self.trainer.datamodule.eval_batches("test", self.partition.raise_examples)
        image = torch.cat([batch.image for batch in batches]).to(self.device)
        nll = -self.partition.raise_log_prob(self.machine, self.data_mean, self.state(image))
        error = (nll.std() / len(nll) ** 0.5).item()
        self.log_dict({"test/nll_raise": nll.mean().item(), "test/nll_raise_stderr": error}, sync_dist=True)
        self.estimators["test/nll_raise"] = {
            "unit": "nats",
            "stderr": error,
            "method": "RAISE",
            "temperatures": len(self.partition.betas()),
            "chains": self.partition.raise_chains,
            "images": len(image),
            "nll_of_the_same_images": -self.log_prob(image).mean().item(),
        }

    def log_prob(self, image: Tensor) -> Tensor:
        """log p(v) in nats, ``[B]``, float64: exact where log Z is, otherwise with its estimate by AIS, which is made once.

        AIS underestimates log Z in expectation, so that the result is optimistic.
        """
        with self.evaluating():
            if not self.log_z:
                forward = copy.copy(self.partition)
                forward.reverse = False
                self.log_z = forward.estimate(self.machine, self.data_mean, self.data_mean.unsqueeze(0))
            return -self.free_energy(image).double() - next(iter(self.log_z.values())).value

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> dict[str, Tensor]:
        """``code``: E[h | v] of each image; ``free_energy`` in nats; ``label``: as given."""
        v = self.state(batch.image, batch.label)
        return {
            "code": self.machine.hidden_mean(v), "free_energy": self.machine.free_energy(v), "label": batch.label,
        }  # fmt: skip

    # ---------------------------------------------------------------- chains in the checkpoint

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.negative_phase.chains is not None:
            checkpoint["chains"] = self.negative_phase.chains.whole()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if self.negative_phase.chains is not None:
            self.negative_phase.chains.load(checkpoint.get("chains"))
