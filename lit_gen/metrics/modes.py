"""How many of the data's classes the samples hit, by the domain classifier's verdict."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class ClassCounts(Metric):
    """Counts how often a classifier sees each class.

    Args:
        num_classes: K.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor) -> None:
        """Adds samples by their class scores ``[N, K]``."""
        self.counts += logits.detach().argmax(1).bincount(minlength=len(self.counts)).to(self.counts)

    def compute(self) -> Tensor:
        """The counts, int64 ``[K]``."""
        return self.counts.clone()


class ModeCount(ClassCounts):
    """Number of classes that occur among the samples, and how their frequencies differ from those in real images.

    Args:
        real: int64 ``[K]``, how often the classifier sees each class in real images.

    References:
        Metz et al., Unrolled generative adversarial networks, ICLR 2017, arXiv:1611.02163, section 3.3 (the count and the
        Kullback-Leibler divergence between the class frequencies).
    """

    def __init__(self, real: Tensor) -> None:
        super().__init__(len(real))
        self.real = real

    def compute(self) -> dict[str, Tensor]:
        r"""``modes``, the number of classes hit, and ``modes_kl``, :math:`\mathrm{KL}(p_{fake} \| p_{real})` in nats.

        One pseudo-count, spread over the classes, keeps the divergence finite where the classifier never sees a class in
        real images.
        """
        real = self.real.to(self.counts.device).double() + 1.0 / len(self.counts)
        fake = self.counts.double() / self.counts.sum()
        kl = torch.special.xlogy(fake, fake).sum() - (fake * (real / real.sum()).log()).sum()
        return {"modes": (self.counts > 0).sum().double(), "modes_kl": kl}
