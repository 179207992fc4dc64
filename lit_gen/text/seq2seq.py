"""Sequence to sequence: an encoder reads the source, a decoder writes the target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lit_gen.core.errors import require
from lit_gen.core.text import PAD, PairBatch, TextSpec
from lit_gen.text.cross_entropy import linear_cross_entropy, token_nats
from lit_gen.text.decoding import Decoding
from lit_gen.text.scheduled_sampling import mixed_input
from lit_gen.text.schedules import SamplingSchedule
from lit_gen.text.token_model import TokenModel, adam, real_tokens
from lit_gen.text.transformer import TransformerDecoder, TransformerEncoder

EncoderCallable = Callable[[int], nn.Module]
"""(embedding_dim) -> encoder, called as ``encoder(x, mask)``; see :class:`~lit_gen.text.Encoded`."""

DecoderCallable = Callable[[int, int], nn.Module]
"""(embedding_dim, encoder_width) -> decoder, called as ``decoder(x, memory, cache)``."""


class Seq2Seq(TokenModel):
    r"""p(y | x) of a target sentence y given its source x, one token after another.

    .. math:: \log p(y \mid x) = \sum_{t=1}^{T} \log \mathrm{softmax}(W h_t + b)_{y_t}, \qquad
        h_t = \mathrm{decoder}(y_{<t}, \mathrm{encoder}(x))

    Encoder and decoder are recurrent, convolutional or Transformers, in any combination; embeddings and output layer are here.

    Args:
        encoder: makes the encoder from the embedding's size.
        decoder: makes the decoder from the embedding's size and the encoder's width.
        embedding_dim: length of a token's vector.
        share_embeddings: source and target have one embedding (their vocabulary must be one).
        tie_weights: the output layer is the target embedding (the decoder's width must be ``embedding_dim``).
        output_bias: the output layer has a bias.
        embedding_dropout: dropout on the vectors of source and target tokens; Transformers have their own.
        teacher_forcing: probability that the decoder is fed the true previous token instead of a prediction of its own, a
            number or a schedule over updates (scheduled sampling).
        feed: what its own prediction is: "sample" from its distribution, or "argmax".
        optimizer, scheduler, gradient_clip, accumulate, label_smoothing: see :class:`TokenModel`.
        compile: compile encoder and decoder with ``torch.compile``.

    Raises:
        UsageError: an option out of range, or parts that do not fit each other or the data.

    References:
        Sutskever, Vinyals and Le, Sequence to sequence learning with neural networks, NeurIPS 2014 (arXiv:1409.3215).
        Bahdanau, Cho and Bengio, Neural machine translation by jointly learning to align and translate, ICLR 2015
        (arXiv:1409.0473). Vaswani et al., Attention is all you need, NeurIPS 2017 (arXiv:1706.03762). Tied weights: Press
        and Wolf, Using the output embedding to improve language models, EACL 2017 (arXiv:1608.05859). Scheduled sampling:
        Bengio et al., NeurIPS 2015 (arXiv:1506.03099).
    """

    def __init__(
        self,
        encoder: EncoderCallable = TransformerEncoder,
        decoder: DecoderCallable = TransformerDecoder,
        embedding_dim: int = 256,
        share_embeddings: bool = False,
        tie_weights: bool = False,
        output_bias: bool = True,
        embedding_dropout: float = 0.0,
        teacher_forcing: float | SamplingSchedule = 1.0,
        feed: str = "sample",
        optimizer: OptimizerCallable = adam,
        scheduler: LRSchedulerCallable | None = None,
        gradient_clip: float | None = None,
        accumulate: int = 1,
        label_smoothing: float = 0.0,
        compile: bool = False,
    ) -> None:
        super().__init__(optimizer, scheduler, gradient_clip, accumulate, label_smoothing)
        self.save_hyperparameters()
        require(embedding_dim >= 1, "embedding_dim", embedding_dim, "an integer of 1 or more")
        require(0 <= embedding_dropout < 1, "embedding_dropout", embedding_dropout, "0 <= embedding_dropout < 1")
        if isinstance(teacher_forcing, (int, float)):
            require(0 <= teacher_forcing <= 1, "teacher_forcing", teacher_forcing, "a probability, or a schedule of it")
        require(feed in ("sample", "argmax"), "feed", feed, "sample, argmax")
        self.make_encoder, self.make_decoder, self.embedding_dim = encoder, decoder, embedding_dim
        self.share_embeddings, self.tie_weights, self.output_bias = share_embeddings, tie_weights, output_bias
        self.teacher_forcing, self.feed, self.compiled = teacher_forcing, feed, compile
        self.embedding_dropout = nn.Dropout(embedding_dropout)

    # ---------------------------------------------------------------- the model

    def check_spec(self, spec: TextSpec) -> None:
        super().check_spec(spec)
        require(spec.source is not None, "data", "running text", f"sentence pairs, for a {type(self).__name__}")
        fits = not self.share_embeddings or spec.source == spec.target
        require(
            fits, "share_embeddings", True, "true with one vocabulary for both languages (data.init_args.joint: true)"
        )

    def build_networks(self, spec: TextSpec) -> None:
        self.target_embedding = embedding(spec.target.size, self.embedding_dim)
        self.source_embedding = (
            self.target_embedding if self.share_embeddings else embedding(spec.source.size, self.embedding_dim)
        )
        self.encoder = self.make_encoder(self.embedding_dim)
        self.decoder = self.make_decoder(self.embedding_dim, self.encoder.width)
        self.output = nn.Linear(self.decoder.width, spec.target.size, self.output_bias)
        if self.tie_weights:
            width = self.decoder.width
            fits = width == self.embedding_dim
            require(fits, "tie_weights", True, f"true with embedding_dim = {width}, the decoder's width")
            self.output.weight = self.target_embedding.weight
        if self.compiled:
            self.encoder.compile()
            self.decoder.compile()

    def read(self, source: Tensor) -> Any:
        """What the decoder needs of source sentences int64 ``[B, S]`` (eos at the end, padded): its memory of them."""
        embedded = self.embedding_dropout(self.source_embedding(source))
        return self.decoder.memory(self.encoder(embedded, source != PAD))

    def features(self, tokens: Tensor, memory: Any, cache: Any = None) -> tuple[Tensor, Any]:
        """h for tokens ``[R, T]`` after those that the cache has seen: ``[R, T, width]``, and the cache of both."""
        return self.decoder(self.embedding_dropout(self.target_embedding(tokens)), memory, cache)

    def advance(self, tokens: Tensor, memory: Any, cache: Any = None) -> tuple[Tensor, Any]:
        """Logits ``[R, T, V]`` of what follows each of the tokens ``[R, T]``, and the cache to go on with.

        Args:
            tokens: int64; the first one of a sentence is ``BOS``. R = B K rows: K hypotheses for each of the B sentences.
            memory: from :meth:`read`.
            cache: what was returned for the tokens before these; None at the beginning.
        """
        features, cache = self.features(tokens, memory, cache)
        return self.output(features).float(), cache

    def attention_weights(self, source: Tensor, target: Tensor) -> Tensor | None:
        """How much each target position attends to each source position: ``[B, T, S]`` for ``[B, S]``, ``[B, T]``.

        None for a decoder without attention. Position t of the target is the one that predicts the token after it.
        """
        with self.evaluating():
            embedded = self.embedding_dropout(self.target_embedding(target))
            return self.decoder.attention_weights(embedded, self.read(source))

    # ---------------------------------------------------------------- decoding

    @property
    def max_context(self) -> int | None:
        """The most target tokens that the decoder can read; None for no limit."""
        return getattr(self.decoder, "max_length", None)

    def translate(self, source: Tensor, **decoding: Any) -> list[list[int]]:
        """The best translation of each source sentence int64 ``[B, S]`` (eos at the end, padded): tokens without bos and eos.

        Args:
            source: the sentences.
            **decoding: see :class:`~lit_gen.text.decoding.Decoding`; greedy search by default.
        """
        return [list(found[0].tokens) for found in Decoding(**decoding)(self, source)]

    def decoding_options(self, **decoding: Any) -> dict[str, Any]:
        """All options of :meth:`translate`, the defaults of those that are not given included.

        Raises:
            UsageError: a value that is not accepted.
            TypeError: an option that does not exist.
        """
        return asdict(Decoding(**decoding))

    def sample(
        self, n: int, *, source: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> list[list[int]]:
        """n translations of one sentence int64 ``[S]``, drawn from p(y | x): tokens without bos and eos.

        Args:
            n: number of translations.
            source: the sentence's tokens and eos.
            temperature: see :class:`~lit_gen.text.decoding.Sampler`.
            generator: source of randomness; the global one where None.
        """
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device if generator else "cpu"))
        decoding = Decoding(n_best=n, temperature=temperature, seed=seed)
        return [list(found.tokens) for found in decoding(self, source[None])[0]]

    # ---------------------------------------------------------------- training

    def loss_sum(self, batch: PairBatch) -> Tensor:
        memory, truth = self.read(batch.source), batch.target[:, 1:]
        features, _ = self.features(self.decoder_input(batch, memory), memory)
        mask = truth != PAD
        h, y = real_tokens(features, mask), real_tokens(truth, mask)
        return linear_cross_entropy(h, self.output.weight, self.output.bias, y, self.label_smoothing)

    def decoder_input(self, batch: PairBatch, memory: Any) -> Tensor:
        """The true previous tokens, or with scheduled sampling a mixture of them and of the model's own predictions."""
        truth = batch.target[:, :-1]
        probability = self.true_token_probability()
        if probability == 1:
            return truth
        return mixed_input(self, truth, memory, probability, self.noise(batch, "scheduled sampling"), self.feed)

    def true_token_probability(self) -> float:
        """epsilon_i of scheduled sampling at this update; 1 is teacher forcing."""
        if isinstance(self.teacher_forcing, (int, float)):
            return float(self.teacher_forcing)
        return self.teacher_forcing(self.global_step)

    # ---------------------------------------------------------------- evaluation

    def score(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        features, _ = self.features(batch.target[:, :-1], self.read(batch.source))
        truth = batch.target[:, 1:]
        mask = truth != PAD
        return token_nats(real_tokens(features, mask), self.output.weight, self.output.bias, real_tokens(truth, mask))

    def log_prob(self, source: Tensor, target: Tensor) -> Tensor:
        """log p(y | x) ``[B]`` in nats, exact, for source ``[B, S]`` and target ``[B, T + 1]`` (bos ... eos, padded)."""
        with self.evaluating():
            logits, _ = self.advance(target[:, :-1], self.read(source))
            truth = target[:, 1:]
            log_p = logits.log_softmax(-1).gather(-1, truth.unsqueeze(-1)).squeeze(-1)
            return (log_p * (truth != PAD)).double().sum(-1)


def embedding(tokens: int, dim: int) -> nn.Embedding:
    """An embedding with N(0, 1 / dim) entries, so that a tied output layer starts with logits of order one; padding is zero."""
    layer = nn.Embedding(tokens, dim, padding_idx=PAD)
    nn.init.normal_(layer.weight, std=dim**-0.5)
    with torch.no_grad():
        layer.weight[PAD].zero_()
    return layer
