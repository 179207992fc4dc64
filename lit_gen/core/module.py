"""The base of every model: networks built from the data's spec, keyed noise, divergence guard, sampling contract."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from lit_gen.core.distributed import share_from_rank_zero
from lit_gen.core.errors import DivergenceError, UsageError
from lit_gen.core.images import ImageBatch, ImageSpec
from lit_gen.core.random import RowNoise, derive_seed, run_seed
from lit_gen.core.text import PairBatch, StreamBatch, TextSpec

Spec = ImageSpec | TextSpec
Batch = ImageBatch | PairBatch | StreamBatch


class GenerativeModule(LightningModule):
    """A generative model: it trains, it samples, and where its density is tractable or bounded it says so.

    Networks are built from the data's spec (:class:`ImageSpec`, :class:`TextSpec`), which is known only when the data is: pass
    it to :meth:`build`, or leave it to the Trainer (``configure_model``) or to the checkpoint (``load_from_checkpoint``). A
    subclass takes only hyper-parameters in ``__init__``, calls ``self.save_hyperparameters()`` and implements
    :meth:`build_networks`, ``training_step``, ``configure_optimizers`` and :meth:`sample`.

    ``trainer.global_step`` counts updates of the model that is sampled from (generator updates in a GAN).
    """

    spec_class: ClassVar[type[Spec]] = ImageSpec
    """The kind of data that the model takes."""

    value_ranges: ClassVar[tuple[tuple[float, float], ...]] = ((0.0, 1.0), (-1.0, 1.0))
    """Ranges of the pixels that a model of images accepts."""

    batches_per_step: int | None = None
    """None: ``training_step`` receives one batch. An integer k: a list of up to k batches, one update."""

    falls_in_training: ClassVar[str | None] = "train/loss"
    """A value logged in training that falls when a few images are trained on again and again; None: there is no optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.spec: Spec | None = None
        self.estimators: dict[str, dict[str, Any]] = {}  # how each tested metric was estimated, for result.json
        self._losses: dict[str, Tensor] = {}

    # ---------------------------------------------------------------- building

    def build(self, spec: Spec) -> "GenerativeModule":
        """Builds the networks for data of this spec and returns the model.

        Raises:
            UsageError: the data is of a kind that the model does not take.
        """
        self.check_spec(spec)
        self.spec = spec
        # Weights depend on the run's seed alone, not on what drew random numbers before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(run_seed(), "weights"))
            self.build_networks(spec)
        return self

    def check_spec(self, spec: Spec) -> None:
        """Looks at what the data is before anything is built.

        Raises:
            UsageError: another kind of data, or pixels in a range that the model does not accept.
        """
        if not isinstance(spec, self.spec_class):
            kinds = {ImageSpec: "images", TextSpec: "text"}
            raise UsageError(f"{type(self).__name__} takes {kinds[self.spec_class]}, the data is {kinds[type(spec)]}")
        if isinstance(spec, ImageSpec) and spec.value_range not in self.value_ranges:
            accepted = " or ".join(str(list(r)) for r in self.value_ranges)
            raise UsageError(
                f"{type(self).__name__} takes images in {accepted}, the data is in {list(spec.value_range)}: "
                "set data.init_args.value_range"
            )

    def build_networks(self, spec: Spec) -> None:
        """Creates the networks as attributes. Called once, under the run's seed."""
        raise NotImplementedError(f"{type(self).__name__} must implement build_networks")

    def configure_model(self) -> None:
        if self._trainer is None:  # loading a checkpoint: built in on_load_checkpoint
            return
        data_spec = self.trainer.datamodule.spec
        if self.spec is None:
            self.build(data_spec)
        elif self.spec != data_spec:
            raise UsageError(f"the model was built for {self.spec}, the data is {data_spec}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["spec"] = asdict(self.spec)
        checkpoint["model_class"] = f"{type(self).__module__}.{type(self).__qualname__}"

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        spec = self.spec_class(**checkpoint["spec"])
        if self.spec is None:
            self.build(spec)
        elif self.spec != spec:
            raise UsageError(f"the checkpoint's model was built for {spec}, this one for {self.spec}")

    def on_validation_model_eval(self) -> None:
        # Batch norm has statistics of its own in each process; a checkpoint holds the first one's, and they are validated.
        super().on_validation_model_eval()
        share_from_rank_zero(self.buffers())

    # ---------------------------------------------------------------- sampling

    def sample(self, n: int, *, label: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Draws n images ``[n, C, H, W]`` in the spec's range, from the averaged weights where the model keeps them.

        Args:
            n: number of images.
            label: int64 ``[n]``, for conditional models; drawn uniformly where None.
            generator: source of randomness on the model's device; the global one where None.
        """
        raise NotImplementedError(f"{type(self).__name__} does not sample")

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode without autograd, and back."""
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(training)

    # ---------------------------------------------------------------- testing

    def tested_examples(self) -> dict[str, Tensor]:
        """After a test, what is known of each example in the order of the split, float64 ``[N]`` by logged name.

        Every process must call it.
        """
        return {}

    # ---------------------------------------------------------------- randomness

    def noise(self, batch: Batch, name: str = "model") -> RowNoise:
        """The source of noise for this batch; see :class:`RowNoise`."""
        rows = batch[0]  # images, or tokens
        return RowNoise(batch.key, rows.shape[0], name, rows.device)

    def on_train_batch_start(self, batch: Batch | list[Batch], batch_idx: int) -> None:
        # Dropout and the like use the global generators: keyed as well, differently on each rank. Not torch.manual_seed,
        # which walks over all backends and, on a machine without them, queues a call with its stack trace: 0.5 ms a batch.
        first = batch[0] if self.batches_per_step else batch
        seed = derive_seed(first.key.seed, "global", self.global_rank)
        torch.default_generator.manual_seed(seed)
        if first[0].device.type == "cuda":
            torch.cuda.manual_seed(seed)
        # The step that loggers see; Lightning's own counter can be one off after a resume.
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.global_step

    # ---------------------------------------------------------------- logging and divergence

    def should_log(self) -> bool:
        """Whether the logger takes this step: every call of ``self.log`` costs 50 to 100 microseconds."""
        return (self.global_step + 1) % self.trainer.log_every_n_steps == 0

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        norm = gradient_norm([p for group in optimizer.param_groups for p in group["params"]])
        self.check_finite(norm)
        if self.should_log():
            self.log("train/grad_norm", norm)

    def watch_loss(self, name: str, loss: Tensor) -> Tensor:
        """Names the loss about to be differentiated, for :meth:`check_finite`; returns it."""
        self._losses.clear()
        self._losses[name] = loss.detach()
        return loss

    def check_finite(self, grad_norm: Tensor | None = None) -> None:
        """Stops before the optimizer step where the loss or the gradient is NaN or infinite.

        Gradients are equal on all ranks, so all ranks stop together; under 16-bit floats with a loss scaler an infinite
        gradient is normal and only the loss is looked at.

        Raises:
            DivergenceError: naming the loss and the step.
        """
        finite = grad_norm is None or math.isfinite(grad_norm.item())
        for name, loss in self._losses.items():
            if not finite or not math.isfinite(loss.item()):
                raise DivergenceError(name, self.global_step, loss.item())

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning sets this one some forty times a batch, and nn.Module's own way takes 100 microseconds for them.
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Euclidean norm over all gradients, a scalar tensor (0 where there is none)."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
