r"""Semi-supervised learning with a VAE: the model M2 of Kingma et al.

The label y is a latent variable where it is unknown; p(y) is uniform, q(y | x) is the classifier that one wants. With

.. math:: L(x, y) = E_{q(z|x,y)} \log p(x | y, z) + \log p(y) - KL(q(z | x, y) \| p(z)) \le \log p(x, y)

a labelled example contributes :math:`L(x, y) + \alpha \log q(y | x)` and an unlabelled one

.. math:: U(x) = \sum_y q(y | x) L(x, y) + H(q(y | x)) \le \log p(x)

with the sum over all labels computed exactly.

References:
    Kingma, Rezende, Mohamed and Welling, Semi-supervised Learning with Deep Generative Models, NeurIPS 2014,
    arXiv:1406.5298, equations 6 to 9.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from lit_gen.core.errors import require
from lit_gen.core.images import ImageSpec
from lit_gen.core.random import RowNoise
from lit_gen.vae.evaluation import importance_bound
from lit_gen.vae.gaussian import DiagonalGaussian, standard_normal_log_prob
from lit_gen.vae.networks import EncoderCallable, MLPEncoder
from lit_gen.vae.objectives import kl_to_standard_normal
from lit_gen.vae.vae import VAE


class SemiSupervisedVAE(VAE):
    r"""M2. A label of -1 means that it is unknown. Logs ``accuracy`` of the classifier over the labelled examples.

    ``elbo`` = ``reconstruction`` - ``kl`` is U(x), whether the label is known or not, with the KL of both latent variables;
    ``test/nll`` bounds -log p(x) with ``nll_samples`` samples dealt evenly over the labels (rounded up).

    Args:
        alpha: weight of the cross entropy of ONE labelled example. The paper's 0.1 N times the mean over the labelled set is
            0.1 N / N_labelled here, e.g. 2 for 3,000 labels of 60,000 and 60 for 100 labels.
        classifier: (image shape, number of classes, 0) -> network of q(y | x).
        **kwargs: as in :class:`VAE`.

    Raises:
        UsageError: alpha is negative.
    """

    conditional: ClassVar[bool] = True
    measures: ClassVar[tuple[str, ...]] = (*VAE.measures, "accuracy")

    def __init__(self, alpha: float = 2.0, classifier: EncoderCallable = MLPEncoder, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require(alpha >= 0, "alpha", alpha, "alpha >= 0")
        self.alpha, self.make_classifier = alpha, classifier

    def make_networks(self, spec: ImageSpec) -> dict[str, nn.Module]:
        return {**super().make_networks(spec), "classifier": self.make_classifier(spec.shape, spec.num_classes, 0)}

    def classify(self, image: Tensor) -> Tensor:
        """Probabilities q(y | x), ``[B, K]``."""
        with self.evaluating():
            return self.net("classifier")(image).float().softmax(-1)

    def encode_all(self, image: Tensor) -> DiagonalGaussian:
        """q(z | x, y) for every label y, ``[K, B, Z]``."""
        classes, rows = self.spec.num_classes, image.shape[0]
        y = repeat(torch.eye(classes, device=image.device), "k c -> (k b) c", b=rows)
        q = self.encode(repeat(image, "b c h w -> (k b) c h w", k=classes), y)
        return DiagonalGaussian(*(rearrange(part, "(k b) z -> k b z", b=rows) for part in q))

    def terms(self, image: Tensor, label: Tensor, noise: RowNoise) -> dict[str, Tensor]:
        classes = self.spec.num_classes
        log_q_y = self.net("classifier")(image).float().log_softmax(-1).T  # [K, B]
        q = self.encode_all(image)
        # The same noise for every label: what differs between labels is then the label.
        z = q.rsample(self.draw(noise, self.samples).unsqueeze(1))  # [M, K, B, Z]
        y = torch.eye(classes, device=image.device).unsqueeze(1)  # [K, 1, K]
        reconstruction = self.likelihood.log_prob(image, self.decode(z, y)).mean(0)  # [K, B]
        kl = kl_to_standard_normal(q)
        joint = reconstruction - math.log(classes) - self.kl_weight() * kl  # L(x, y)

        known, index = label >= 0, label.clamp_min(0)
        labelled = joint.gather(0, index[None])[0] - self.alpha * F.cross_entropy(log_q_y.T, index, reduction="none")
        unlabelled = (log_q_y.exp() * (joint - log_q_y)).sum(0)
        return {
            "loss": -torch.where(known, labelled, unlabelled),
            "reconstruction": reconstruction,
            "kl": kl,
            "log_q_y": log_q_y,
            "label": label,
        }

    def measure(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        log_q_y, label = terms["log_q_y"], terms["label"]
        q_y, known = log_q_y.exp(), label >= 0
        reconstruction = (q_y * terms["reconstruction"]).sum(0)
        kl = (q_y * (terms["kl"] + log_q_y)).sum(0) + math.log(self.spec.num_classes)
        return {
            "loss": terms["loss"],
            "elbo": reconstruction - kl,
            "reconstruction": reconstruction,
            "kl": kl,
            "accuracy": (log_q_y.argmax(0) == label)[known].float(),
        }

    def bound(self, image: Tensor, label: Tensor | None, noise: RowNoise, samples: int) -> Tensor:
        """The importance-sampled bound on log p(x), whatever the label: sample i has label i mod K.

        With y from the uniform prior, stratified, the weights are p(x, z | y) / q(z | x, y).
        """
        classes = self.spec.num_classes
        q, eye = self.encode_all(image), torch.eye(classes, device=image.device)

        def log_weights(start: int, stop: int) -> Tensor:
            index = torch.arange(start, stop, device=image.device) % classes
            of_label = DiagonalGaussian(*(part[index] for part in q))
            z = of_label.rsample(self.draw(noise, stop - start))
            likelihood = self.likelihood.log_prob(image, self.decode(z, eye[index].unsqueeze(1)))
            return likelihood + standard_normal_log_prob(z) - of_label.log_prob(z)

        samples = classes * math.ceil(samples / classes)
        return importance_bound(log_weights, samples, self.chunk(image.shape[0], samples))

    def code(self, image: Tensor, label: Tensor) -> Tensor:
        """The mean of q(z | x, y) at the most probable label, known or not."""
        return super().code(image, self.classify(image).argmax(-1))

    def reconstruct(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        """As :meth:`VAE.reconstruct`, with the most probable label where none is given."""
        return super().reconstruct(image, self.classify(image).argmax(-1) if label is None else label)
