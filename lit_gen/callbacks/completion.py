"""How well a model fills in the hidden half of an image, beside two ways to do it without a model."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torchvision.utils import save_image

from lit_gen.callbacks import views
from lit_gen.callbacks.views import COLUMNS, Half, View
from lit_gen.core.averages import Averages
from lit_gen.core.errors import UsageError, require
from lit_gen.core.images import ImageBatch
from lit_gen.core.loggers import log_image
from lit_gen.core.random import run_seed, seeded_generator

NAMES = ("completion_error", "completion_error_averaged", "completion_error_mean_image", "completion_error_nearest")
SCALE = 2.0**10  # Averages are sums of multiples of 2^-20, which are too coarse for errors of some hundredths


class Completion(Callback):
    """Hides one half of test images, lets the model complete them, and logs how far off it is.

    - ``test/completion_error``: squared difference between the completion and the image, averaged over the hidden pixels,
      pixels in [0, 1]. The image is the one that the model was given: binarised, where the data is binarised.
    - ``test/completion_error_averaged``: the same with the mean of ``draws`` completions;
    - ``test/completion_error_mean_image``: with the mean of all training images in place of the completion;
    - ``test/completion_error_nearest``: with the training image whose known pixels are nearest.

    The squared error favours answers that are means over answers that are samples: a model whose probabilities are right
    has twice the error with its samples. A chain that stays in one mode gives an answer in between, whence the average. The
    training images of the baselines pass through the same transform.

    Completions are drawn from generators of (run seed, split, batch) and batches are dealt to the processes in turn: the values
    do not depend on their number. ``samples/completion.png`` shows the first images: whole, as seen, completed (where the
    Trainer was given a folder).

    Attributes:
        record: after a test, by logged name: value, stderr, and how it was measured.

    Args:
        n: images to complete, fewer where there are fewer.
        draws: completions of each image that are averaged.
        hide: the half that is hidden.
        every_n_epochs: epochs between two evaluations on validation images (``val/completion_error``, ...) while training; 0:
            only at test.

    Raises:
        UsageError: an argument is out of range, or (in ``setup``) the model does not complete images.
    """

    def __init__(self, n: int = 1000, hide: Half = "lower", every_n_epochs: int = 0, draws: int = 10) -> None:
        require(n >= 1, "n", n, "1 or more")
        require(draws >= 1, "draws", draws, "1 or more")
        require(hide in ("lower", "upper", "left", "right"), "hide", hide, "lower, upper, left, right")
        require(every_n_epochs >= 0, "every_n_epochs", every_n_epochs, "0 or more")
        self.n, self.hide, self.every_n_epochs, self.draws = n, hide, every_n_epochs, draws
        self.record: dict[str, dict[str, Any]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "predict":
            return
        views.check_offered(pl_module, "complete", "Completion")
        if trainer.datamodule is None:
            raise UsageError("Completion needs a DataModule of lit_gen.data; the Trainer was given none")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every_n_epochs == 0 or trainer.sanity_checking:
            return
        if trainer.state.fn != "fit" or (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._evaluate(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.record = self._evaluate(trainer, pl_module, "test")

    def _evaluate(self, trainer: Trainer, model: LightningModule, split: str) -> dict[str, dict[str, Any]]:
        data, spec, averages = trainer.datamodule, model.spec, Averages(NAMES).to(model.device)
        hidden = views.half_hidden(spec.shape[-2:], self.hide).to(model.device)
        parts, averaged = [], []
        for number, batch in islice(
            enumerate(data.eval_batches(split, self.n)), trainer.global_rank, None, trainer.world_size
        ):
            generator = seeded_generator(run_seed(), "completion", split, number, device=model.device)
            with model.evaluating():
                image = batch.image.to(model.device)
                drawn = [views.complete(model, image, self.hide, generator) for _ in range(self.draws)]
            parts.append(drawn[0])
            averaged.append(torch.stack([view.images[-1] for view in drawn]).mean(0))
        if parts:  # with more processes than batches, some have none
            image, seen, completed = torch.cat([part.images for part in parts], 1)
            mean, nearest = baselines(data.eval_batches("train"), image, hidden)
            span = spec.value_range[1] - spec.value_range[0]
            for name, answer in zip(NAMES, (completed, torch.cat(averaged), mean, nearest)):
                averages.update(**{name: SCALE * hidden_error(answer / span, image / span, hidden)})
        values = {name: (value / SCALE, error / SCALE) for name, (value, error) in averages.compute().items()}
        model.log_dict(
            {f"{split}/{name}": value for name, (value, _) in values.items()},
            on_step=False, on_epoch=True, sync_dist=False, batch_size=1,
        )  # fmt: skip
        if split == "test" and trainer.is_global_zero:
            self._draw(
                trainer, View(torch.stack([image, seen, completed])[:, :COLUMNS], parts[0].rows, spec.value_range)
            )
        about = {
            "unit": "squared error of a hidden pixel, pixels in [0, 1]",
            "of": "binarised images" if spec.binary else "images",
            "n": min(self.n, data.num_examples(split)),
            "hidden": self.hide,
            "draws": self.draws,
            "n_train": data.num_examples("train"),
        }
        return {f"{split}/{name}": {"value": v, "stderr": error, **about} for name, (v, error) in values.items()}

    @staticmethod
    def _draw(trainer: Trainer, view: View) -> None:
        folder = Path(trainer.default_root_dir)
        if folder.resolve() == Path.cwd():  # Lightning's default: `lit-gen test` leaves no files where it is called
            return
        path = folder / "samples" / "completion.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = view.draw()
        save_image(picture, path)
        log_image(trainer, "completion", picture, path)


def hidden_error(answer: Tensor, image: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared difference over the hidden pixels, ``[B]``.

    Args:
        answer: ``[B, C, H, W]`` or ``[C, H, W]``.
        image: ``[B, C, H, W]``.
        hidden: ``[1, 1, H, W]``, 1 where a pixel is hidden.
    """
    squares = (answer - image).square() * hidden
    return squares.sum((-3, -2, -1)) / (hidden.sum() * image.shape[1])


def baselines(train: Iterable[ImageBatch], image: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Answers without a model.

    Args:
        train: all training images.
        image: ``[B, C, H, W]``.
        hidden: ``[1, 1, H, W]``, 1 where a pixel is hidden.

    Returns:
        The mean training image ``[C, H, W]``, and for each image the training image whose known pixels are nearest (Euclidean
        distance; the first of several) ``[B, C, H, W]``.
    """
    known = (1 - hidden).bool().expand_as(image[:1]).flatten()
    wanted = image.flatten(1)[:, known]
    total, count = torch.zeros_like(image[0]), 0
    nearest, least = torch.zeros_like(image), torch.full_like(image[:, 0, 0, 0], torch.inf)
    for batch in train:
        candidate = batch.image.to(image)
        total, count = total + candidate.sum(0), count + len(candidate)
        seen = candidate.flatten(1)[:, known]
        distance, index = (seen.square().sum(1) - 2 * wanted @ seen.T).min(1)  # but for |wanted|^2, the same for all
        closer = distance < least
        nearest[closer], least[closer] = candidate[index[closer]], distance[closer]
    return total / count, nearest
