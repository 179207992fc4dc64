"""Stacks of recurrent layers in one or both directions, with ordinary or variational dropout."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gen.core.errors import require
from lit_gen.text.cache import TensorCache
from lit_gen.text.cells import CellName, State, make_cell


class LayerMasks(NamedTuple):
    """Dropout masks of one layer, the same at all times, ``[R, width]`` and scaled; None for no variational dropout.

    input: of what the layer reads.
    recurrent: of h, one for each direction.
    """

    input: Tensor | None = None
    recurrent: tuple[Tensor | None, ...] = (None, None)


class Recurrent(nn.Module):
    r"""Layers of recurrent cells, each reading the outputs of the one below.

    Dropout without ``variational`` falls on what goes up from layer to layer, anew at each time, as in torch. With it, one mask
    is drawn for each sequence (each call) and used at all times, for the input, between layers and for the recurrent
    connection alike (gates read :math:`h_{t-1} \odot m`; one mask for all gates). Torch's kernels read plain cells; the
    loop reads the others, and all cells while the recurrent connection is masked.

    Args:
        inputs: width of x.
        hidden: width of each layer and direction.
        layers: number of layers.
        cell: kind of cell.
        bidirectional: each layer reads from both ends; outputs are [forward, backward].
        dropout: probability of dropping a unit.
        variational: one mask for a whole sequence, recurrent connections included.

    Raises:
        UsageError: an option out of its range.

    References:
        Zaremba et al., Recurrent neural network regularization, 2014, arXiv:1409.2329 (dropout between layers).
        Gal and Ghahramani, A theoretically grounded application of dropout in recurrent neural networks, NeurIPS 2016,
        arXiv:1512.05287 (variational dropout, section 4).
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        layers: int = 1,
        cell: CellName = "lstm",
        bidirectional: bool = False,
        dropout: float = 0.0,
        variational: bool = False,
    ) -> None:
        super().__init__()
        require(hidden >= 1, "hidden", hidden, "1 or more")
        require(layers >= 1, "layers", layers, "1 or more")
        require(0 <= dropout < 1, "dropout", dropout, "0 <= dropout < 1")
        self.hidden, self.layers, self.directions = hidden, layers, 1 + bidirectional
        self.dropout, self.variational = dropout, variational
        self.width = hidden * self.directions
        """Width of the outputs."""
        widths = [inputs] + [self.width] * (layers - 1)
        # torch's order: the directions of the first layer, then those of the second, ...
        self.cells = nn.ModuleList(make_cell(cell, width, hidden) for width in widths for _ in range(self.directions))

    def forward(
        self, x: Tensor, cache: Iterable[Tensor] | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, TensorCache]:
        """Reads sequences, or T more positions of them.

        Args:
            x: what is read.
            cache: the states in which it is read, from the call before; zero where None.
            mask: True on real tokens, where rows are padded at their end and read from both ends: the backward direction
                begins at the last real token. Outputs on padding and the states after it have no meaning then.

        Shape:
            x ``[R, T, inputs]``, mask bool ``[R, T]`` -> outputs ``[R, T, width]``, and states ``[R, hidden]``: h (and c) of
            each layer and direction.
        """
        states, after = self.states(x, cache), []
        backwards = None if self.directions == 1 else reversal(x, mask)
        for layer, masks in enumerate(self.masks(x)):
            x = self._dropped(x, masks, layer)
            outputs = []
            for direction in range(self.directions):
                number = layer * self.directions + direction
                read = x if direction == 0 else reverse(x, backwards)
                output, state = self.cells[number].scan(read, states[number], masks.recurrent[direction])
                outputs.append(output if direction == 0 else reverse(output, backwards))
                after.append(state)
            x = outputs[0] if self.directions == 1 else torch.cat(outputs, -1)
        return x, self.cache(after)

    # ---------------------------------------------------------------- step by step, where the input depends on the output

    def steps(self, x: Tensor) -> Iterator[Callable[[Tensor, list[State]], list[State]]]:
        """One function for each position, from left to right: (the input's last columns ``[R, d]``, states) -> states.

        Args:
            x: the first columns of the input, known beforehand: ``[R, T, inputs - d]``. Their products are computed at once.
        """
        masks, first = self.masks(x), self.cells[0]
        known, late = first.input_weight.split([x.shape[-1], first.inputs - x.shape[-1]], 1)
        if masks[0].input is not None:
            x = x * masks[0].input[:, None, : x.shape[-1]]
        for gates in F.linear(x.transpose(0, 1), known, first.input_bias).unbind(0):
            yield partial(self._step, gates, late.t(), masks)

    def _step(
        self, gates: Tensor, late: Tensor, masks: list[LayerMasks], fed: Tensor, states: list[State]
    ) -> list[State]:
        """The states of all layers one position later."""
        if masks[0].input is not None:
            fed = fed * masks[0].input[:, -fed.shape[-1] :]
        gates, after = torch.addmm(gates, fed, late), []
        for layer, cell in enumerate(self.cells):
            if layer > 0:
                gates = cell.project(self._dropped(after[-1][0], masks[layer], layer))
            after.append(cell.step(gates, states[layer], masks[layer].recurrent[0]))
        return after

    # ---------------------------------------------------------------- states

    def states(self, x: Tensor, cache: Iterable[Tensor] | None) -> list[State]:
        """The states in a cache by layer and direction; zero for rows like those of x where there is no cache."""
        if cache is None:
            return [cell.start(x) for cell in self.cells]
        tensors = iter(cache)
        return [tuple(next(tensors).to(x.dtype) for _ in range(cell.states)) for cell in self.cells]

    def cache(self, states: list[State]) -> TensorCache:
        """The states one after the other: h (and c) of the first layer, of the second, ..."""
        return TensorCache(*(tensor for state in states for tensor in state))

    # ---------------------------------------------------------------- dropout

    def masks(self, x: Tensor) -> list[LayerMasks]:
        """Draws the variational masks of all layers for rows like those of x; none in evaluation or without them."""
        if not (self.variational and self.training and self.dropout > 0):
            return [LayerMasks()] * self.layers
        drawn = [[self._mask(x, cell.inputs), self._mask(x, cell.hidden)] for cell in self.cells]
        # Both directions of a layer read one input: the mask of the first.
        grouped = [drawn[first : first + self.directions] for first in range(0, len(drawn), self.directions)]
        return [LayerMasks(group[0][0], tuple(recurrent for _, recurrent in group)) for group in grouped]

    def drop_output(self, x: Tensor) -> Tensor:
        """Dropout of what the stack hands on, ``[R, T, d]``: anew at each time, or one mask for each sequence."""
        if not self.variational:
            return F.dropout(x, self.dropout, self.training)
        if not self.training or self.dropout == 0:
            return x
        return x * self._mask(x, x.shape[-1]).unsqueeze(1)

    def _mask(self, x: Tensor, width: int) -> Tensor:
        keep = 1 - self.dropout
        return x.new_empty(x.shape[0], width).bernoulli_(keep).div_(keep)

    def _dropped(self, x: Tensor, masks: LayerMasks, layer: int) -> Tensor:
        """The input of a layer, ``[R, d]`` or ``[R, T, d]``, after dropout."""
        if masks.input is not None:
            return x * (masks.input if x.dim() == 2 else masks.input.unsqueeze(1))
        if layer == 0 or self.variational:
            return x
        return F.dropout(x, self.dropout, self.training)


def reversal(x: Tensor, mask: Tensor | None) -> Tensor | None:
    """Where each position of a reversed row is read: real tokens from last to first, padding in place, ``[R, T, 1]``."""
    if mask is None:
        return None
    time = torch.arange(x.shape[1], device=x.device)
    mirrored = mask.sum(1, keepdim=True) - 1 - time
    return torch.where(mirrored >= 0, mirrored, time).unsqueeze(-1)


def reverse(x: Tensor, index: Tensor | None) -> Tensor:
    """x ``[R, T, d]`` from right to left; twice is x again."""
    return x.flip(1) if index is None else x.gather(1, index.expand_as(x))
