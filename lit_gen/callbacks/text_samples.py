"""Texts in a run's ``samples/`` and in its loggers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytorch_lightning import LightningModule, Trainer

from lit_gen.core.loggers import log_table
from lit_gen.core.random import run_seed, seeded_generator
from lit_gen.core.run_dir import write_atomically

RULE = "-" * 72


def write_texts(trainer: Trainer, model: LightningModule, n: int, path: Path) -> list[str]:
    """Draws texts of a language model, writes them to a file and shows them in the loggers; for rank zero.

    The generator is the same each time, so that one sees the same text get better.

    Args:
        trainer: its loggers are used.
        model: ``sample(n, generator=...)`` gives n rows of token numbers.
        n: number of texts.
        path: the file; its folder is made.

    Returns:
        The texts.
    """
    generator = seeded_generator(run_seed(), "sample_grid", device=model.device)
    texts = [model.spec.target.decode(row) for row in token_rows(model.sample(n, generator=generator))]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(f"{text}\n{RULE}\n" for text in texts))
    log_table(trainer, "samples", ["text"], [[text] for text in texts])
    return texts


def token_rows(tokens: object) -> Sequence[Sequence[int]]:
    """Rows of token numbers as lists, from lists or from a tensor ``[n, T]``."""
    return tokens.tolist() if hasattr(tokens, "tolist") else tokens
