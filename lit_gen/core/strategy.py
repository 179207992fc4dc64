"""Data parallelism for models whose training step is their own."""

from __future__ import annotations

from pytorch_lightning.overrides.distributed import _sync_module_states
from pytorch_lightning.strategies import DDPStrategy


class ManualDDPStrategy(DDPStrategy):
    """DDP for manual optimization: each of several optimizers uses a part of the parameters, and there may be none.

    Torch's wrapper refuses a model without trainable parameters. Such a model (one that counts or stores) needs no gradient
    averaged, only the same state to begin with.
    """

    def __init__(self) -> None:
        super().__init__(find_unused_parameters=True)

    def configure_ddp(self) -> None:
        if any(p.requires_grad for p in self.model.parameters()):
            super().configure_ddp()
        else:
            _sync_module_states(self.model)
