"""What models of running text share, be they counted or trained: samples, probabilities, states of their own in evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_gen.core.errors import require
from lit_gen.core.text import TextSpec
from lit_gen.text.cache import Cache
from lit_gen.text.carried_state import CarriedState
from lit_gen.text.decoding import generate
from lit_gen.text.token_model import TextModule


class RunningTextModule(TextModule):
    """p(text), one token after another. A subclass implements ``advance``, :meth:`nats` and ``score``.

    Attributes:
        evaluation_state: what the batches of a validation or a test leave to the next one; training has its own.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.evaluation_state = CarriedState()

    def check_spec(self, spec: TextSpec) -> None:
        super().check_spec(spec)
        require(spec.source is None, "data", "sentence pairs", f"running text, for a {type(self).__name__}")

    def read(self, source: None = None) -> None:
        """There is no source: decoding passes this on as the memory."""

    def nats(self, input: Tensor, target: Tensor, cache: Cache | None = None) -> Tensor:
        """Minus log p of each target token in nats; zero on padding.

        Args:
            input: what is read.
            target: what follows each of the tokens read; ``PAD`` where nothing is asked.
            cache: of the tokens before.

        Shape:
            input and target int64 ``[R, T]``; result ``[R, T]``.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement nats")

    def log_prob(self, tokens: Tensor) -> Tensor:
        """log p of all tokens after the first, given it (``BOS``, or the text before): ``[R, T]`` -> float64 ``[R]``, nats."""
        return -self.nats(tokens[:, :-1], tokens[:, 1:]).double().sum(1)

    def sample(
        self,
        n: int,
        length: int = 200,
        prompt: Sequence[int] = (),
        *,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Tensor:
        """Draws n texts, int64 ``[n, length]``; ``EOS``, the end of a line, is a token like the others.

        Args:
            n: number of texts.
            length: tokens in each, the prompt not counted.
            prompt: tokens that come before; the beginning of a text where empty.
            generator: source of randomness; the global one where None.
            temperature, top_k, top_p: see :class:`~lit_gen.text.decoding.Sampler`.
        """
        device = "cpu" if generator is None else generator.device
        seed = int(torch.randint(2**62, (), generator=generator, device=device))
        options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
        found = generate(self, prompt, n, length=length, **options)
        return torch.tensor([each.tokens for each in found], device=self.device)

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.evaluation_state = CarriedState()

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        self.evaluation_state = CarriedState()
