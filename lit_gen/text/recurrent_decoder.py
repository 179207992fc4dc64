"""The recurrent decoder of a sequence-to-sequence model, with or without attention."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from lit_gen.core.errors import require
from lit_gen.text.cache import TensorCache
from lit_gen.text.cells import CellName
from lit_gen.text.encoded import Encoded
from lit_gen.text.recurrent import Recurrent
from lit_gen.text.scores import ScoreCallable, attend


class RecurrentMemory(NamedTuple):
    """What a recurrent decoder needs of B source sentences; None where it has no use for it.

    initial: ``[B, layers * states * hidden]``, the states in which it begins.
    summary: ``[B, E]``, read at each step.
    keys: ``[B, S, A]``, as the score needs them.
    values: ``[B, S, E]``, what attention averages.
    mask: bool ``[B, S]``, True on real positions.
    """

    initial: Tensor
    summary: Tensor | None = None
    keys: Tensor | None = None
    values: Tensor | None = None
    mask: Tensor | None = None

    def select(self, rows: Tensor) -> "RecurrentMemory":
        """The given sentences (int64, any length)."""
        return RecurrentMemory(*(None if each is None else each.index_select(0, rows) for each in self))


class Maxout(nn.Linear):
    """A linear layer followed by the maximum over pairs of units (Goodfellow et al., ICML 2013, arXiv:1302.4389)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, 2 * outputs)

    def forward(self, x: Tensor) -> Tensor:
        first, second = super().forward(x).chunk(2, -1)
        return torch.maximum(first, second)


class RecurrentDecoder(nn.Module):
    r"""Reads the target from left to right, beginning in a state made of the source's summary.

    With e_t the embedding of the target token read at t and c a context, the average of the encoder's states by attention:

    - without ``score``: :math:`h_t = f(e_t, h_{t-1})` are the features. With ``summary_input`` each step also reads the
      summary u, and the features are :math:`\mathrm{maxout}(h_t, e_t, u)` (Cho et al. 2014).
    - ``style="luong"``: :math:`h_t = f(e_t, h_{t-1})`, and :math:`\tilde h_t = \tanh(W_c [c(h_t); h_t])` are the features,
      computed for all times at once, unless ``input_feeding`` makes it :math:`h_t = f([e_t; \tilde h_{t-1}], h_{t-1})`, with
      :math:`\tilde h_0 = 0`.
    - ``style="bahdanau"``: :math:`h_t = f([e_t; c(h_{t-1})], h_{t-1})`, and the features are
      :math:`\mathrm{maxout}(h_t, e_t, c_t)`.

    The first state of layer l is :math:`\tanh(W_l u + b_l)`, its memory cell :math:`W'_l u + b'_l`.

    Args:
        embedding_dim: width of x.
        encoder_width: E, width of the encoder's states and summary.
        hidden: width of each layer and of the features.
        layers, cell: as in :class:`Recurrent`.
        score: makes the attention's score of (width of a query, width of a key); None for no attention.
        style: where attention stands, before the recurrent step or after it.
        input_feeding: the attentional vector is fed to the next step (``luong``).
        summary_input: the summary is an input of each step.
        dropout: between layers and of the features; with ``variational`` also of the input and the recurrent connections.
        variational: one mask for a whole sentence.

    Raises:
        UsageError: an option out of its range, or options that exclude each other.

    References:
        Sutskever et al., Sequence to sequence learning with neural networks, NeurIPS 2014, arXiv:1409.3215.
        Cho et al., Learning phrase representations using RNN encoder-decoder, EMNLP 2014, arXiv:1406.1078.
        Bahdanau et al., Neural machine translation by jointly learning to align and translate, ICLR 2015, arXiv:1409.0473,
        appendix A.2.2 (the maxout layer, here of the new state, as in most later systems).
        Luong et al., Effective approaches to attention-based neural machine translation, EMNLP 2015, arXiv:1508.04025,
        equation 5 and section 3.3 (input feeding).
    """

    def __init__(
        self,
        embedding_dim: int,
        encoder_width: int,
        hidden: int = 256,
        layers: int = 1,
        cell: CellName = "gru",
        score: ScoreCallable | None = None,
        style: Literal["luong", "bahdanau"] = "luong",
        input_feeding: bool = False,
        summary_input: bool = False,
        dropout: float = 0.0,
        variational: bool = False,
    ) -> None:
        super().__init__()
        require(style in ("luong", "bahdanau"), "style", style, "luong, bahdanau")
        require(style == "luong" or score is not None, "style", style, "luong where score is null")
        fits = not input_feeding or (score is not None and style == "luong")
        require(fits, "input_feeding", input_feeding, "true with a score and style luong only")
        self.width, self.style, self.input_feeding, self.summary_input = hidden, style, input_feeding, summary_input
        fed = encoder_width if style == "bahdanau" else hidden if input_feeding else 0
        inputs = embedding_dim + (encoder_width if summary_input else 0) + fed
        self.recurrent = Recurrent(inputs, hidden, layers, cell, False, dropout, variational)
        self.initial = nn.Linear(encoder_width, sum(cell.states for cell in self.recurrent.cells) * hidden)
        self.score = None if score is None else score(hidden, encoder_width)
        if self.score is not None and style == "luong":
            self.attentional = nn.Linear(encoder_width + hidden, hidden, bias=False)
        elif self.score is not None or summary_input:
            self.readout = Maxout(hidden + embedding_dim + encoder_width, hidden)

    # ---------------------------------------------------------------- the interface of decoders

    def memory(self, encoded: Encoded) -> RecurrentMemory:
        """What depends on the source alone, computed once."""
        initial, summary = self.initial(encoded.summary), encoded.summary if self.summary_input else None
        if self.score is None:
            return RecurrentMemory(initial, summary)
        return RecurrentMemory(initial, summary, self.score.prepare(encoded.states), encoded.states, encoded.mask)

    def forward(
        self, x: Tensor, memory: RecurrentMemory, cache: TensorCache | None = None
    ) -> tuple[Tensor, TensorCache]:
        """Features of T more positions of R = B K hypotheses, K for each sentence of the memory, and the states after them.

        Shape:
            x ``[R, T, embedding_dim]`` -> features ``[R, T, width]``.
        """
        features, _, cache = self._read(x, memory, cache)
        return self.recurrent.drop_output(features), cache

    def attention_weights(self, x: Tensor, memory: RecurrentMemory) -> Tensor | None:
        """How much each position attends to each source position, ``[R, T, S]``; None without attention."""
        return self._read(x, memory, None)[1]

    # ---------------------------------------------------------------- reading

    def _read(
        self, x: Tensor, memory: RecurrentMemory, cache: TensorCache | None
    ) -> tuple[Tensor, Tensor | None, TensorCache]:
        """Features before dropout, attention weights, and the cache after."""
        embedded = x
        if self.summary_input:
            summary = self._per_hypothesis(memory.summary, x).unsqueeze(1).expand(-1, x.shape[1], -1)
            x = torch.cat([x, summary], -1)
        if cache is None:
            cache = self._begin(x, memory)
        if self.style == "bahdanau":
            outputs, contexts, weights, cache = self._attend_then_step(x, memory, cache)
            return self.readout(torch.cat([outputs, embedded, contexts], -1)), weights, cache
        if self.input_feeding:
            return self._step_then_attend(x, memory, cache)
        outputs, cache = self.recurrent(x, cache)
        if self.score is not None:
            features, weights = self._attentional(outputs, memory)
            return features, weights, cache
        if self.summary_input:
            outputs = self.readout(torch.cat([outputs, embedded, summary], -1))
        return outputs, None, cache

    def _begin(self, x: Tensor, memory: RecurrentMemory) -> TensorCache:
        """The states before the first token; with input feeding, the attentional vector before it as well."""
        kinds = [kind for cell in self.recurrent.cells for kind in "hc"[: cell.states]]
        initial = self._per_hypothesis(memory.initial, x).to(x.dtype).chunk(len(kinds), -1)
        states = [each.tanh() if kind == "h" else each for kind, each in zip(kinds, initial)]
        return TensorCache(*states, *([torch.zeros_like(states[0])] if self.input_feeding else []))

    def _per_hypothesis(self, values: Tensor, x: Tensor) -> Tensor:
        """One row for each hypothesis: ``[B, d]`` -> ``[R, d]``."""
        repeats = x.shape[0] // values.shape[0]
        return values if repeats == 1 else values.repeat_interleave(repeats, 0)

    def _attend(self, queries: Tensor, memory: RecurrentMemory) -> tuple[Tensor, Tensor]:
        return attend(self.score, queries, memory.keys, memory.values, memory.mask)

    def _attentional(self, outputs: Tensor, memory: RecurrentMemory) -> tuple[Tensor, Tensor]:
        context, weights = self._attend(outputs, memory)
        return self.attentional(torch.cat([context, outputs], -1)).tanh(), weights

    def _step_then_attend(
        self, x: Tensor, memory: RecurrentMemory, cache: TensorCache
    ) -> tuple[Tensor, Tensor, TensorCache]:
        """Luong's decoder with input feeding, position by position."""
        *before, fed = cache
        states, features, weights = self.recurrent.states(x, before), [], []
        for step in self.recurrent.steps(x):
            states = step(fed, states)
            feature, weight = self._attentional(states[-1][0].unsqueeze(1), memory)
            fed = feature.squeeze(1)
            features.append(feature)
            weights.append(weight)
        after = TensorCache(*self.recurrent.cache(states), fed)
        return torch.cat(features, 1), torch.cat(weights, 1), after

    def _attend_then_step(
        self, x: Tensor, memory: RecurrentMemory, cache: TensorCache
    ) -> tuple[Tensor, Tensor, Tensor, TensorCache]:
        """Bahdanau's decoder, position by position: outputs, contexts, attention weights, states."""
        states, outputs, contexts, weights = self.recurrent.states(x, cache), [], [], []
        for step in self.recurrent.steps(x):
            context, weight = self._attend(states[-1][0].unsqueeze(1), memory)
            states = step(context.squeeze(1), states)
            outputs.append(states[-1][0])
            contexts.append(context)
            weights.append(weight)
        return torch.stack(outputs, 1), torch.cat(contexts, 1), torch.cat(weights, 1), self.recurrent.cache(states)
