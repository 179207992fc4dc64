r"""The classification RBM: an RBM over an image and its label.

The label y is a softmax group beside the visible units of the image v. What the label is given the image is exact, since it
takes only one free energy for each class:

.. math:: p(y \mid v) = \frac{e^{-F(v, y)}}{\sum_{y'} e^{-F(v, y')}}

The generative loss -log p(v, y) is that of the RBM, the discriminative one is -log p(y | v), and the hybrid is their weighted
sum. Images without a label take part in the generative loss with a label drawn from p(y | v).

References:
    Larochelle and Bengio, Classification using Discriminative Restricted Boltzmann Machines, ICML 2008.
    Larochelle, Mandel, Pascanu and Bengio, Learning Algorithms for the Classification Restricted Boltzmann Machine, JMLR 2012.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gen.core.errors import UsageError, require
from lit_gen.core.images import UNLABELLED, ImageBatch, ImageSpec
from lit_gen.core.random import RowNoise
from lit_gen.energy.joined import Joined
from lit_gen.energy.labels import class_logits
from lit_gen.energy.path import TemperedPath
from lit_gen.energy.rbm import RBM
from lit_gen.energy.units import Softmax, Units


class ClassificationRBM(RBM):
    """RBM over images and labels, trained generatively, discriminatively or both.

    ``test/error`` is the fraction of wrong labels; ``test/nll`` is that of the image alone, summed over labels.

    Args:
        generative_weight: alpha, weight of the generative loss.
        discriminative_weight: weight of the discriminative loss.
        **kwargs: as in :class:`RBM`.

    Raises:
        UsageError: a hyper-parameter is out of range, or the data has no labels.
    """

    conditional: ClassVar[bool] = True
    measures: ClassVar[tuple[str, ...]] = (*RBM.measures, "error", "label_nll")
    falls_in_training: ClassVar[str] = "train/label_nll"

    def __init__(self, generative_weight: float = 0.01, discriminative_weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require(generative_weight >= 0, "generative_weight", generative_weight, "0 or more")
        require(discriminative_weight >= 0, "discriminative_weight", discriminative_weight, "0 or more")
        require(generative_weight + discriminative_weight > 0, "generative_weight", 0,
                "more than 0 where discriminative_weight is 0")  # fmt: skip
        require(self.partition.raise_examples == 0, "partition.raise_examples", self.partition.raise_examples,
                "0: RAISE would be of image and label together")  # fmt: skip
        self.generative_weight, self.discriminative_weight = generative_weight, discriminative_weight

    # ---------------------------------------------------------------- the machine

    def visible_units(self, spec: ImageSpec) -> Units:
        if not spec.num_classes:
            raise UsageError("ClassificationRBM needs labels, the data has none: num_classes = 0")
        return Joined([self.make_visible(spec.dim), Softmax(1, spec.num_classes)])

    def _pixels(self, image: Tensor) -> Tensor:
        return self.machine.visible.parts[0].of_pixels(image.flatten(1))

    def state(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        """Visible states of images and labels; p(y | v) stands for a label that is not given or is -1."""
        pixels = self._pixels(image)
        if label is not None and not (label == UNLABELLED).any():
            return torch.cat([pixels, F.one_hot(label, self.spec.num_classes).to(pixels.dtype)], -1)
        with torch.no_grad():
            believed = class_logits(self.machine, pixels).softmax(-1)
        if label is not None:
            given = F.one_hot(label.clamp(min=0), self.spec.num_classes).to(believed.dtype)
            believed = torch.where((label == UNLABELLED).unsqueeze(-1), believed, given)
        return torch.cat([pixels, believed], -1)

    def image(self, v: Tensor) -> Tensor:
        pixels = self.machine.visible.split(v)[0]
        return self.machine.visible.parts[0].to_pixels(pixels).unflatten(-1, self.spec.shape).clamp(0, 1)

    def filters(self) -> Tensor:
        weights = self.machine.visible.split(self.machine.weight.detach().T)[0]
        return self.machine.visible.parts[0].to_pixels(weights).unflatten(-1, self.spec.shape)

    def class_log_prob(self, image: Tensor) -> Tensor:
        """log p(y | v), exact, ``[B, K]``."""
        return class_logits(self.machine, self._pixels(image)).log_softmax(-1)

    def free_energy(self, image: Tensor) -> Tensor:
        """-log sum over labels of exp(-F(v, y)), in nats, ``[B]``."""
        return -class_logits(self.machine, self._pixels(image)).logsumexp(-1)

    # ---------------------------------------------------------------- training and evaluation

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        noise, label, labelled = self.noise(batch), batch.label, batch.label != UNLABELLED
        log_prob = self.class_log_prob(batch.image)
        if not labelled.all():
            drawn = (noise.uniform(1) >= log_prob.detach().exp().cumsum(-1)[:, :-1]).sum(-1)
            label = torch.where(labelled, label, drawn)
        v = self.state(batch.image, label)
        terms = self.contrast(v, noise) if self.generative_weight else {"loss": v.new_zeros(())}
        loss = self.generative_weight * terms["loss"]
        # a batch without labels still needs a gradient of the right shape
        label_nll = F.nll_loss(log_prob[labelled], label[labelled], reduction="sum") / max(int(labelled.sum()), 1)
        return self.finish(loss + self.discriminative_weight * label_nll, v, {**terms, "label_nll": label_nll})

    def evaluate(self, batch: ImageBatch) -> dict[str, Tensor]:
        values, log_prob = super().evaluate(batch), self.class_log_prob(batch.image)
        values["free_energy"] = self.free_energy(batch.image)
        known = batch.label != UNLABELLED
        log_prob, label = log_prob[known], batch.label[known]
        values["error"] = (log_prob.argmax(-1) != label).float()
        values["label_nll"] = F.nll_loss(log_prob, label, reduction="none")
        return values

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> dict[str, Tensor]:
        """What :class:`RBM` says, and ``class_prob``: p(y | v), ``[B, K]``."""
        return {**super().predict_step(batch, batch_idx), "class_prob": self.class_log_prob(batch.image).exp()}

    # ---------------------------------------------------------------- sampling

    def sample(self, n: int, *, label: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Images of the given classes: Gibbs chains whose label unit is clamped; free chains where ``label`` is None."""
        if label is None:
            return super().sample(n, generator=generator)
        noise = RowNoise.of(generator, n, self.device)
        with self.evaluating():
            v = TemperedPath(self.machine, self.data_mean).start(noise)
            clamped = torch.zeros_like(v, dtype=torch.bool)
            clamped[:, -self.spec.num_classes :] = True
            v[clamped] = F.one_hot(label, self.spec.num_classes).to(v.dtype).flatten()
            mean = torch.empty_like(v)
            v = self.machine.gibbs(v, self.sample_steps, noise, known=clamped, visit=mean.copy_)
            return self.image(v if self.pixels == "sample" else mean)

    def known_places(self, known: Tensor) -> Tensor:
        return torch.cat([super().known_places(known), known.new_zeros(len(known), self.spec.num_classes)], -1)
