r"""The deep belief network, trained layer by layer and then as a whole.

Each layer is a restricted Boltzmann machine on the hidden activities of the one below. Afterwards the whole network may be
fine-tuned, as a generative model by the up-down algorithm (:mod:`lit_gen.energy.wake_sleep`) or, with labels, as a classifier
by back-propagation (:mod:`lit_gen.energy.belief_classifier`). One run does all stages: the stage follows from the epoch, and
each has an optimizer of its own.

To train: ``lit-gen run --config configs/energy/dbn_mnist.yaml``.

References:
    Hinton, Osindero and Teh, A fast learning algorithm for deep belief nets, Neural Computation 2006.
    Bengio, Lamblin, Popovici and Larochelle, Greedy layer-wise training of deep networks, NIPS 2007.
    Salakhutdinov and Murray, On the Quantitative Analysis of Deep Belief Networks, ICML 2008 (the bound on the likelihood).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lit_gen.core.errors import UsageError, require
from lit_gen.core.images import UNLABELLED, ImageBatch, ImageSpec
from lit_gen.core.random import RowNoise
from lit_gen.energy.belief_bound import unnormalised_bound
from lit_gen.energy.belief_classifier import BeliefClassifier
from lit_gen.energy.belief_images import BeliefImages
from lit_gen.energy.belief_network import BeliefNetwork
from lit_gen.energy.data_mean import first_states, mean_state
from lit_gen.energy.labels import class_logits
from lit_gen.energy.likelihood import pseudo_log_likelihood
from lit_gen.energy.negative_phase import ContrastiveDivergence, NegativePhase
from lit_gen.energy.partition import Partition
from lit_gen.energy.samplers import LogZ
from lit_gen.energy.staged_training import StagedTraining, groups
from lit_gen.energy.units import Bernoulli, Units
from lit_gen.energy.wake_sleep import up_down, wake_sleep_loss

SMOOTHING = 0.01
BOUND_NAMES = {"exact": "nll_bound", "forward": "nll_bound", "reverse": "nll_bound_reverse"}
"""The name of the bound on -log p(v) by how log Z was found."""


class DBN(StagedTraining, BeliefImages):
    """Deep belief network.

    ``test/nll_bound`` is the mean upper bound on -log p(v) with log Z of the top machine from ``partition``; with labels,
    ``test/error_generative`` is the fraction of wrong labels by p(y | x) of the top machine. ``test/error`` is that of the
    fine-tuned classifier, where there is one, and otherwise the same. Grey pixels of binary units are taken for probabilities;
    the bound is then one on the mean of log p(v) over the images drawn from them.

    Args:
        hidden: numbers of hidden units, from the bottom.
        pretrain_epochs: epochs for each layer. ``trainer.max_epochs`` must be the sum over all stages, or -1 for that.
        fine_tuning: what follows: nothing, the up-down algorithm, or back-propagation through a classifier.
        fine_tune_epochs: epochs for that.
        labels: put the label beside the units that the top machine sees.
        visible: number -> units of the image.
        negative_phase: where the machines' states come from, for all layers or one for each; CD-1 where None.
        pass_up: what the next layer is trained on: the hidden units' probabilities or states.
        initial: initial weights of a layer: "random", or "transposed" from the layer below, where the sizes allow it.
        up_down_steps: Gibbs steps at the top between the wake and the sleep phase.
        partition: how log Z of the top machine is estimated for the test.
        bound_samples: draws from the recognition distribution for the bound on each test image.
        optimizer: parameters -> optimizer, for each layer.
        rate_factors: what its learning rate is multiplied by for each layer; 1 where None.
        scheduler: optimizer -> learning rate scheduler, stepped once an epoch of the layer's stage.
        fine_tune_optimizer, fine_tune_scheduler: the same for fine-tuning.
        weight_decay: of the weights alone, not of biases, in pre-training.
        weight_std: standard deviation of the initial weights.
        sample_steps: length of the chains of :meth:`sample`, at the top.
        posterior_steps: length of the chains of :meth:`complete`.
        pixels: whether images are probabilities, as in the papers' figures, or states.

    Raises:
        UsageError: a hyper-parameter is out of range, or the number of epochs is not the sum of the stages'.
    """

    measures: ClassVar[tuple[str, ...]] = (
        "free_energy", "pseudo_log_likelihood", "reconstruction_error", "error", "error_generative", "nll_bound",
        "nll_bound_reverse",
    )  # fmt: skip
    falls_in_training: ClassVar[str | None] = None  # a new layer begins with a reconstruction of its own

    def __init__(
        self,
        hidden: Sequence[int] = (500, 2000),
        pretrain_epochs: Sequence[int] = (30, 30),
        fine_tuning: Literal["none", "up_down", "backprop"] = "none",
        fine_tune_epochs: int = 0,
        labels: bool = False,
        visible: Callable[[int], Units] = Bernoulli,
        negative_phase: NegativePhase | list[NegativePhase] | None = None,
        pass_up: Literal["mean", "sample"] = "mean",
        initial: Literal["random", "transposed"] = "random",
        up_down_steps: int = 3,
        partition: Partition | None = None,
        bound_samples: int = 1,
        optimizer: OptimizerCallable = torch.optim.SGD,
        rate_factors: Sequence[float] | None = None,
        scheduler: LRSchedulerCallable | None = None,
        fine_tune_optimizer: OptimizerCallable = torch.optim.SGD,
        fine_tune_scheduler: LRSchedulerCallable | None = None,
        weight_decay: float = 0.0,
        weight_std: float = 0.01,
        sample_steps: int = 1000,
        posterior_steps: int = 100,
        pixels: Literal["mean", "sample"] = "mean",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        require(len(hidden) >= 1 and min(hidden) >= 1, "hidden", hidden, "a list of numbers of 1 or more")
        require(len(pretrain_epochs) == len(hidden) and min(pretrain_epochs) >= 1, "pretrain_epochs", pretrain_epochs,
                f"{len(hidden)} numbers of 1 or more, as many as hidden")  # fmt: skip
        for name, value, accepted in (
            ("fine_tuning", fine_tuning, ("none", "up_down", "backprop")),
            ("pass_up", pass_up, ("mean", "sample")),
            ("initial", initial, ("random", "transposed")),
            ("pixels", pixels, ("mean", "sample")),
        ):
            require(value in accepted, name, value, ", ".join(accepted))
        accepted = "0 without fine-tuning" if fine_tuning == "none" else "1 or more"
        require((fine_tune_epochs == 0) if fine_tuning == "none" else (fine_tune_epochs >= 1), "fine_tune_epochs",
                fine_tune_epochs, accepted)  # fmt: skip
        for name in ("up_down_steps", "bound_samples", "sample_steps", "posterior_steps"):
            require(locals()[name] >= 1, name, locals()[name], "1 or more")
        require(weight_decay >= 0, "weight_decay", weight_decay, "0 or more")
        phases = negative_phase if isinstance(negative_phase, list) else [negative_phase] * len(hidden)
        require(len(phases) == len(hidden), "negative_phase", f"a list of {len(phases)}", f"one, or {len(hidden)}")
        self.rate_factors = [1.0] * len(hidden) if rate_factors is None else rate_factors
        require(len(self.rate_factors) == len(hidden), "rate_factors", rate_factors, f"null or {len(hidden)} numbers")
        # persistent chains belong to one layer alone
        self.negative_phases = [copy.deepcopy(phase) or ContrastiveDivergence() for phase in phases]
        self.hidden, self.fine_tuning, self.labels, self.make_visible = hidden, fine_tuning, labels, visible
        self.stage_epochs = [*pretrain_epochs, *([fine_tune_epochs] if fine_tune_epochs else [])]
        self.pass_up, self.initial, self.up_down_steps = pass_up, initial, up_down_steps
        self.partition, self.bound_samples = partition or Partition(), bound_samples
        self.make_optimizers, self.make_schedulers = (optimizer, fine_tune_optimizer), (scheduler, fine_tune_scheduler)
        self.weight_decay, self.weight_std, self.conditional = weight_decay, weight_std, labels
        self.sample_steps, self.posterior_steps, self.pixels = sample_steps, posterior_steps, pixels
        self.log_z: dict[str, LogZ] = {}

    def build_networks(self, spec: ImageSpec) -> None:
        if (self.labels or self.fine_tuning == "backprop") and not spec.num_classes:
            raise UsageError("labels = true or fine_tuning = backprop needs labels, the data has none: num_classes = 0")
        classes = spec.num_classes if self.labels else 0
        doubled = self.fine_tuning == "up_down"
        self.network = BeliefNetwork(self.make_visible(spec.dim), self.hidden, classes, self.weight_std, doubled)
        if self.fine_tuning == "backprop":
            self.classifier = BeliefClassifier(self.network, spec.num_classes)

    # ---------------------------------------------------------------- stages

    def begin(self, stage: int) -> None:
        if stage < len(self.hidden):
            self.network.grow(stage + 1)
            self.network.begin_top(self.mean_top_state(), SMOOTHING, self.initial == "transposed")
        elif self.fine_tuning == "up_down":
            for layer in self.network.below:
                layer.untie()
        else:
            self.classifier.begin(self.network)

    def take_up(self, stage: int) -> None:
        if stage < len(self.hidden):
            self.negative_phases[stage].start(self.network.top, self.network.top_mean)

    def top_state(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        """Visible states of the top machine after an upward pass of means."""
        return self.network.join(self.network.recognise(self.state(image))[-1], label)

    def mean_top_state(self) -> Tensor:
        """Its mean over the training images."""
        return mean_state(self.trainer.datamodule, self._top_state_anywhere)

    def _top_state_anywhere(self, image: Tensor, label: Tensor) -> Tensor:
        return self.top_state(image.to(self.device), label.to(self.device))

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[Any]]:
        make, make_last = self.make_optimizers
        optimizers = []
        for layer, factor in zip(self.network.layers, self.rate_factors):
            optimizers.append(make(groups(layer.machine.named_parameters(), self.weight_decay)))
            for group in optimizers[-1].param_groups:
                group["lr"] *= factor
        schedulers = [self.make_schedulers[0](o) for o in optimizers] if self.make_schedulers[0] else []
        if self.fine_tuning != "none":
            tuned = self.network if self.fine_tuning == "up_down" else self.classifier
            optimizers.append(make_last([p for p in tuned.parameters() if p.requires_grad]))
            if self.make_schedulers[1]:
                schedulers.append(self.make_schedulers[1](optimizers[-1]))
        return optimizers, schedulers

    # ---------------------------------------------------------------- training

    def objective(self, stage: int, batch: ImageBatch, noise: RowNoise) -> dict[str, Tensor]:
        if stage < len(self.hidden):
            return self.contrast(self.negative_phases[stage], batch, noise)
        if self.fine_tuning == "up_down":
            phases = up_down(self.network, self.state(batch.image), batch.label, self.up_down_steps, noise)
            return {"loss": wake_sleep_loss(self.network, phases)}
        logits, known = self.classify(batch.image), batch.label != UNLABELLED
        loss = F.cross_entropy(logits, batch.label, ignore_index=UNLABELLED, reduction="sum") / known.sum().clamp(min=1)
        return {"loss": loss, "error": wrong(logits, batch.label)[known].mean()}

    def contrast(self, phase: NegativePhase, batch: ImageBatch, noise: RowNoise) -> dict[str, Tensor]:
        """The loss of the machine at the top, as that of :class:`~lit_gen.energy.RBM`."""
        network = self.network
        upwards = noise if self.pass_up == "sample" else None
        x = network.join(network.recognise(self.state(batch.image), upwards)[-1], batch.label)
        data, field = network.top(x)
        model, _ = network.top(phase.states(network.top, x, field.detach(), noise))
        return {"loss": data.mean() - model.mean(), "free_energy": data.mean()}

    def monitors(self, batch: ImageBatch) -> dict[str, Tensor]:
        return {"reconstruction_error": self.reconstruction_error(self.state(batch.image)).mean()}

    def classify(self, image: Tensor) -> Tensor:
        """The fine-tuned classifier's logits ``[B, K]``."""
        x = self.state(image)
        # a network of one labelled layer is a machine alone, which takes states
        return self.classifier(self.units.coupled(x).detach() if self.classifier.recognisers else x)

    # ---------------------------------------------------------------- evaluation

    def reconstruction_error(self, v: Tensor) -> Tensor:
        """Mean squared difference ``[B]`` per unit between v and what comes back from a pass up and down."""
        return (v - self.network.reconstruct(v)).square().mean(-1)

    def evaluate(self, batch: ImageBatch) -> dict[str, Tensor]:
        network, v = self.network, self.state(batch.image)
        x, known = network.recognise(v)[-1], batch.label != UNLABELLED
        values = {"free_energy": network.free_energy(x), "reconstruction_error": self.reconstruction_error(v)}
        if network.labelled:
            values["error_generative"] = values["error"] = wrong(class_logits(network.top, x), batch.label)[known]
        if self.fine_tuning == "backprop" and self.stages_begun > len(self.hidden):
            values["error"] = wrong(self.classify(batch.image), batch.label)[known]
        if network.top.visible.discrete and (known.all() or not network.labelled):
            noise = self.noise(batch, "pseudo_log_likelihood")
            x = network.join(network.recognise(v, noise)[-1], batch.label)
            values["pseudo_log_likelihood"] = pseudo_log_likelihood(network.top, x, noise)
        return values

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        states = first_states(self.trainer.datamodule, self._top_state_anywhere, self.partition.chains)
        self.log_z = self.partition.estimate(self.network.top, self.mean_top_state().to(self.device), states)

    def test_step(self, batch: ImageBatch, batch_idx: int) -> None:
        values, bound = self.evaluate(batch), self.unnormalised_bound(batch.image, self.noise(batch, "bound"))
        for name, log_z in self.log_z.items():
            values[BOUND_NAMES[name]] = log_z.value - bound
        self.add_tested(batch_idx, **values)

    def unnormalised_bound(self, image: Tensor, noise: RowNoise) -> Tensor:
        """Lower bound on log p(v) plus log Z, ``[B]`` in nats, mean over ``bound_samples`` draws."""
        v = self.state(image)
        return sum(unnormalised_bound(self.network, v, noise) for _ in range(self.bound_samples)) / self.bound_samples

    def on_test_epoch_end(self) -> None:
        values = self.log_averages("test")
        for name, log_z in self.log_z.items():
            key, error = f"test/{BOUND_NAMES[name]}", values[BOUND_NAMES[name]][1]
            self.log_dict({f"{key}_stderr": error, f"test/log_z_{name}": log_z.value}, sync_dist=True)
            self.estimators[key] = {
                "unit": "nats", "stderr": error, "samples": self.bound_samples, **self.partition.about(log_z),
            }  # fmt: skip

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> dict[str, Tensor]:
        """``code``: means of the highest hidden layer; ``label``: as given; ``class_prob``: p(y | v), where there is one."""
        values = {"code": self.network.top.hidden_mean(self.top_state(batch.image)), "label": batch.label}
        if self.fine_tuning == "backprop":
            values["class_prob"] = self.classify(batch.image).softmax(-1)
        elif self.network.labelled:
            x = self.network.recognise(self.state(batch.image))[-1]
            values["class_prob"] = class_logits(self.network.top, x).softmax(-1)
        return values

    # ---------------------------------------------------------------- chains in the checkpoint

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        chains = [phase.chains for phase in self.negative_phases]
        checkpoint["chains"] = [None if c is None else c.whole() for c in chains]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        for phase, whole in zip(self.negative_phases, checkpoint["chains"]):
            if phase.chains is not None:
                phase.chains.load(whole)


def wrong(logits: Tensor, label: Tensor) -> Tensor:
    """1 where the most probable class is not the label, ``[B]``."""
    return (logits.argmax(-1) != label).float()
