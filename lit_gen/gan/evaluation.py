"""What the discriminator says of held-out data, summed over batches and processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_gen.gan.objectives import Objective


class DiscriminatorScores(Metric):
    """Means, over all held-out rows, of the discriminator's loss and of its score on data and on generated images.

    A discriminator that remembers its training images gives held-out ones a lower score: compare ``d_real`` with the
    training's. Sums are float64, so that the result does not depend on how the batches are dealt to processes.
    """

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, objective: Objective, real: Tensor, fake: Tensor) -> None:
        values = [objective.discriminator_loss(real, fake), objective.score(real), objective.score(fake)]
        self.sums += real.shape[0] * torch.stack(values).double()
        self.count += real.shape[0]

    def compute(self) -> dict[str, Tensor]:
        means = (self.sums / self.count).float()
        return dict(zip(("loss_d", "d_real", "d_fake"), means))
