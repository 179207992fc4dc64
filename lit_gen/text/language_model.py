r"""Neural language models: an embedding layer, a feature layer that reads from left to right, an output layer.

.. math:: \log p(w_1 .. w_T) = \sum_t \log \mathrm{softmax}(W h_t + b)_{w_t}, \quad h_t = f(C(w_1), .., C(w_{t-1}))

The feature layer decides what kind of model it is: an average (:class:`PrefixAverage`), Bengio's perceptron over N - 1 words
(:class:`FeedForwardFeatures`), a recurrent network (:class:`RecurrentFeatures`) or a Transformer (:class:`CausalTransformer`).

References:
    Bengio et al., A neural probabilistic language model, JMLR 3, 2003. Mikolov et al., Recurrent neural network based
    language model, Interspeech 2010. Radford et al., Language models are unsupervised multitask learners, 2019.
    Tied weights: Press and Wolf, Using the output embedding to improve language models, EACL 2017 (arXiv:1608.05859).
    Truncated backpropagation: Williams and Peng, An efficient gradient-based algorithm for on-line training of recurrent
    network trajectories, Neural Computation 2(4), 1990.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lit_gen.core.errors import require
from lit_gen.core.text import PAD, StreamBatch, TextSpec
from lit_gen.text.cache import Cache, TensorCache
from lit_gen.text.carried_state import CarriedState
from lit_gen.text.cross_entropy import linear_cross_entropy, token_nats
from lit_gen.text.running_text import RunningTextModule
from lit_gen.text.token_model import TokenModel, adam, real_tokens
from lit_gen.text.transformer import CausalTransformer

FeaturesCallable = Callable[[int], nn.Module]
"""(embedding_dim) -> feature layer, called as ``features(x, cache)``."""


class LanguageModel(TokenModel, RunningTextModule):
    """p(text), one token after another; the probability is exact.

    Args:
        features: makes the feature layer from the embedding's size.
        embedding_dim: length of a token's vector.
        tie_weights: the output layer is the embedding (Press and Wolf 2017); features of another width are projected first.
        output_bias: the output layer has a bias.
        dropout: on embeddings and on features; the layers have their own within.
        init_std: standard deviation of embeddings and output layer at the start (GPT-2: 0.02); None: 1 / sqrt(embedding_dim)
            for embeddings, torch's own for the output layer. Its bias is zero. The feature layer has a scheme of its own.
        carry_state: streams are read on in the state that the batch before left: truncated backpropagation through time.
            False: every window is read from nothing.
        decay_matrices_only: the optimizer's weight decay spares biases and gains (nanoGPT).
        optimizer, scheduler, gradient_clip, accumulate, label_smoothing: see :class:`TokenModel`.
        compile: compile the feature layer with ``torch.compile``.

    Raises:
        UsageError: an option out of range, or a state carried by a layer that remembers every token.
    """

    def __init__(
        self,
        features: FeaturesCallable = CausalTransformer,
        embedding_dim: int = 128,
        tie_weights: bool = False,
        output_bias: bool = True,
        dropout: float = 0.0,
        init_std: float | None = None,
        carry_state: bool = False,
        decay_matrices_only: bool = False,
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
        require(0 <= dropout < 1, "dropout", dropout, "0 <= dropout < 1")
        require(init_std is None or init_std > 0, "init_std", init_std, "null or a number above 0")
        self.make_features, self.embedding_dim = features, embedding_dim
        self.tie_weights, self.output_bias, self.init_std = tie_weights, output_bias, init_std
        self.carry_state, self.decay_matrices_only, self.compiled = carry_state, decay_matrices_only, compile
        self.dropout = nn.Dropout(dropout)
        self.training_state = CarriedState()

    # ---------------------------------------------------------------- the model

    def build_networks(self, spec: TextSpec) -> None:
        size, dim = spec.target.size, self.embedding_dim
        self.embedding = nn.Embedding(size, dim)
        self.feature_layer = self.make_features(dim)
        width = self.feature_layer.width
        project = self.tie_weights and width != dim
        self.projection = nn.Linear(width, dim, bias=False) if project else nn.Identity()
        self.output = nn.Linear(dim if project else width, size, self.output_bias)
        std = dim**-0.5 if self.init_std is None else self.init_std
        nn.init.normal_(self.embedding.weight, std=std)
        if self.init_std is not None:
            nn.init.normal_(self.output.weight, std=std)
        if self.output_bias:
            nn.init.zeros_(self.output.bias)
        if self.tie_weights:
            self.output.weight = self.embedding.weight
        if self.carry_state:
            _, cache = self.feature_layer(torch.zeros(1, 1, dim))
            layer = type(self.feature_layer).__name__
            require(isinstance(cache, TensorCache), "carry_state", True, f"false for a {layer}, whose memory grows")
        if self.compiled:
            self.feature_layer.compile()

    @property
    def max_context(self) -> int | None:
        """The most tokens that the feature layer can look back on; None for no limit."""
        return getattr(self.feature_layer, "max_length", None)

    def features(self, tokens: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """h for tokens ``[R, T]`` after those that the cache has seen, ``[R, T, width]``, and the cache of both."""
        features, cache = self.feature_layer(self.dropout(self.embedding(tokens)), cache)
        return self.projection(self.dropout(features)), cache

    def advance(self, tokens: Tensor, memory: None = None, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Logits ``[R, T, V]`` of what follows each of the tokens int64 ``[R, T]``, and the cache to go on with."""
        features, cache = self.features(tokens, cache)
        return self.output(features).float(), cache

    def nats(self, input: Tensor, target: Tensor, cache: Cache | None = None) -> Tensor:
        with self.evaluating():
            features, _ = self.features(input, cache)
            mask = target != PAD
            values, _ = self._token_nats(features, target, mask)
            return torch.zeros(target.shape, device=target.device).masked_scatter_(mask, values)

    def _token_nats(self, features: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        h, y = real_tokens(features, mask), real_tokens(target, mask)
        return token_nats(h, self.output.weight, self.output.bias, y)

    # ---------------------------------------------------------------- training

    def loss_sum(self, batch: StreamBatch) -> Tensor:
        features = self.read_on(batch, self.training_state)
        mask = batch.target != PAD
        h, y = real_tokens(features, mask), real_tokens(batch.target, mask)
        return linear_cross_entropy(h, self.output.weight, self.output.bias, y, self.label_smoothing)

    def read_on(self, batch: StreamBatch, state: CarriedState) -> Tensor:
        """The features of a batch, from the state of the batch before where that is carried."""
        if not self.carry_state:
            return self.features(batch.input)[0]
        features, cache = self.features(batch.input, state.before(batch))
        state.after(batch, cache)
        return features

    def optimized_parameters(self) -> Iterable[nn.Parameter] | list[dict[str, Any]]:
        parameters = [p for p in self.parameters() if p.requires_grad]
        if not self.decay_matrices_only:
            return parameters
        matrices, others = [p for p in parameters if p.dim() >= 2], [p for p in parameters if p.dim() < 2]
        return [{"params": matrices}, {"params": others, "weight_decay": 0.0}]

    # ---------------------------------------------------------------- evaluation

    def score(self, batch: StreamBatch) -> tuple[Tensor, Tensor]:
        features = self.read_on(batch, self.evaluation_state)
        return self._token_nats(features, batch.target, batch.target != PAD)

    # ---------------------------------------------------------------- checkpoint

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["carried_state"] = self.training_state.whole()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.training_state.load(checkpoint["carried_state"])
