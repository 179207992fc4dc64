"""What each token of a translation attended to, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_gen.core.errors import UsageError
from lit_gen.core.text import BOS


class AttentionMap(NamedTuple):
    """Attention weights with their labels.

    weights: ``[T, S]``, rows sum to one.
    source: the S source tokens.
    target: the T target tokens, each the one that was predicted with the weights of its row.
    """

    weights: Tensor
    source: list[str]
    target: list[str]


def attention_map(model: Any, source: Sequence[int], target: Sequence[int]) -> AttentionMap:
    """The attention of a model while it wrote a target sentence.

    Args:
        model: with ``attention_weights``; see :class:`~lit_gen.text.Seq2Seq`.
        source: token numbers as the encoder read them, with eos.
        target: token numbers as they were predicted, with eos.

    Raises:
        UsageError: the model has no attention.
    """
    read = torch.tensor([[BOS, *target[:-1]]], device=model.device)
    weights = model.attention_weights(torch.tensor([list(source)], device=model.device), read)
    if weights is None:
        raise UsageError(f"--attention: this {type(model).__name__} has no attention")
    spec = model.spec
    return AttentionMap(
        weights[0, : len(target)].float().cpu(), [*map(spec.source.token, source)], [*map(spec.target.token, target)]
    )


def draw(attention: AttentionMap, path: Path) -> None:
    """Writes the map as a PNG: source tokens along x, target tokens downwards, dark for much attention."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = attention.weights.shape
    figure = Figure(
        figsize=(2.5 + 0.35 * columns, 2 + 0.35 * rows),
        dpi=min(120, 20_000 / max(rows, columns, 1)),
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(attention.weights.numpy(), cmap="Greys", vmin=0, vmax=1, aspect="equal")
    axes.set_xticks(range(columns), labels=map(plain, attention.source), rotation=90)
    axes.set_yticks(range(rows), labels=map(plain, attention.target))
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("source")
    axes.set_ylabel("target")
    figure.colorbar(image, label="attention", shrink=0.8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def plain(token: str) -> str:
    """A token as a label: matplotlib would read dollar signs as formulas, and white space cannot be seen."""
    return {" ": "␣", "\n": "↵", "\t": "⇥"}.get(token, token).replace("$", r"\$")
