"""Pictures of what a model has learnt, beside the samples: filters, chains over time, answers to images."""

from __future__ import annotations

from pathlib import Path

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only
from torchvision.utils import save_image

from lit_gen.callbacks import views
from lit_gen.callbacks.views import LACKS, STEPS, Half, Kind, View
from lit_gen.core.errors import UsageError, require
from lit_gen.core.loggers import log_image
from lit_gen.core.random import run_seed, seeded_generator


class Pictures(Callback):
    """Writes ``samples/KIND-step-NNNNNN.png`` and shows it in the loggers as KIND, at the end of training and on the way.

    - ``filters``: the weights into the first n units, each by its own largest absolute value, zero in mid-grey;
    - ``trajectory``: n chains of the model, a row for each number of steps;
    - ``reconstruct``, ``complete``, ``denoise``: validation images (training images where there are none), below them what
      the model sees of them, and below that its answer.

    The images and the random numbers are the same every time, and apart from those of training.

    Args:
        kinds: what to show; None: all that the model offers (``denoise`` with binary images only).
        every_n_epochs: epochs between two rounds; 0: only at the end, since long chains take their time.
        n: images in a row (they are broken into lines of sixteen), or filters.
        flip: probability with which ``denoise`` flips each pixel.
        hide: the half that ``complete`` hides.
        steps: the numbers of steps after which ``trajectory`` looks.

    Raises:
        UsageError: an argument is out of range, or (in ``setup``) the model does not offer one of the kinds.
    """

    def __init__(
        self,
        kinds: list[Kind] | None = None,
        every_n_epochs: int = 0,
        n: int = 64,
        flip: float = 0.1,
        hide: Half = "lower",
        steps: tuple[int, ...] = STEPS,
    ) -> None:
        for kind in kinds or ():
            require(kind in LACKS, "kinds", kind, ", ".join(LACKS))
        require(every_n_epochs >= 0, "every_n_epochs", every_n_epochs, "0 or more")
        require(n >= 1, "n", n, "1 or more")
        require(hide in ("lower", "upper", "left", "right"), "hide", hide, "lower, upper, left, right")
        views.check_flip(flip)
        views.check_steps(steps)
        self.kinds, self.every_n_epochs, self.n = kinds, every_n_epochs, n
        self.flip, self.hide, self.steps = flip, hide, tuple(steps)
        self._shown_step = -1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if trainer.datamodule is None:
            raise UsageError("Pictures needs a DataModule of lit_gen.data; the Trainer was given none")
        for kind in self.kinds or ():
            views.check_offered(pl_module, kind, f"Pictures, kinds = {kind}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._show(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(trainer, pl_module)

    @rank_zero_only
    def _show(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == self._shown_step:
            return
        self._shown_step = trainer.global_step
        kinds = self.kinds
        if kinds is None:
            kinds = [kind for kind in LACKS if views.offers(pl_module, kind)]
            kinds = [kind for kind in kinds if kind != "denoise" or pl_module.spec.binary]
        for kind in kinds:
            with pl_module.evaluating():
                picture = self.view(kind, trainer, pl_module).draw()
            path = Path(trainer.default_root_dir) / "samples" / f"{kind}-step-{trainer.global_step:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_image(picture, path)
            log_image(trainer, kind, picture, path)

    def view(self, kind: Kind, trainer: Trainer, model: LightningModule) -> View:
        """What there is to see of this kind."""
        generator = seeded_generator(run_seed(), "pictures", kind, device=model.device)
        if kind == "filters":
            return views.filters(model, self.n)
        if kind == "trajectory":
            return views.trajectory(model, self.n, self.steps, generator)
        data = trainer.datamodule
        batches = list(data.eval_batches("val" if data.num_examples("val") else "train", self.n))
        image = torch.cat([batch.image for batch in batches]).to(model.device)
        if kind == "reconstruct":
            return views.reconstruct(model, image, torch.cat([batch.label for batch in batches]).to(model.device))
        if kind == "complete":
            return views.complete(model, image, self.hide, generator)
        return views.denoise(model, image, self.flip, generator)
