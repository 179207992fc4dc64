"""The feature layer of a recurrent language model."""

from __future__ import annotations

from torch import Tensor, nn

from lit_gen.text.cache import TensorCache
from lit_gen.text.cells import CellName
from lit_gen.text.recurrent import Recurrent


class RecurrentFeatures(nn.Module):
    """Recurrent layers that read a text from left to right; the cache holds their states.

    Args:
        embedding_dim: width of x.
        hidden, layers, cell: as in :class:`Recurrent`.
        dropout: between layers; with ``variational`` also of the input, the recurrent connections and the features, so that the
            model's own dropout is best left at 0.
        variational: one mask for a whole sequence (a window of truncated backpropagation).

    Shape:
        x ``[R, T, embedding_dim]`` -> features ``[R, T, hidden]``.

    Raises:
        UsageError: an option out of its range.

    References:
        Mikolov et al., Recurrent neural network based language model, Interspeech 2010.
        Zaremba et al., Recurrent neural network regularization, 2014, arXiv:1409.2329.
    """

    def __init__(
        self,
        embedding_dim: int,
        hidden: int = 256,
        layers: int = 1,
        cell: CellName = "lstm",
        dropout: float = 0.0,
        variational: bool = False,
    ) -> None:
        super().__init__()
        self.recurrent = Recurrent(
            embedding_dim, hidden, layers, cell, bidirectional=False, dropout=dropout, variational=variational
        )
        self.width = hidden

    def forward(self, x: Tensor, cache: TensorCache | None = None) -> tuple[Tensor, TensorCache]:
        """Features of T more positions, and the states after them."""
        outputs, cache = self.recurrent(x, cache)
        return (self.recurrent.drop_output(outputs) if self.recurrent.variational else outputs), cache
