"""JoeyNMT's model and trainer of the size of ``small_transformer``, on the same tokens.

Its text files hold the numbers of our tokens, so that its "word" tokenizer, which splits at spaces and costs it least, gives
the same sequences as our BPE. It is run as it is but for its log on the screen and for the checkpoint that it writes at the
end of every call. It needs ``pip install joeynmt``; or, to leave the environment as it is, ``pip install --no-deps --target
FOLDER joeynmt importlib_metadata==6.8 zipp subword-nmt sentencepiece`` and ``PYTHONPATH=FOLDER``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.small_transformer import (
    BATCH_TOKENS,
    BETAS,
    DROPOUT,
    FEED_FORWARD,
    HEADS,
    LAYERS,
    RATE,
    SMOOTHING,
    WARMUP,
    WIDTH,
)
from benchmarks.turns import Work
from lit_gen.core.text import PAD
from lit_gen.data import Multi30k

SPECIAL = torch.tensor([1, 2, 3, 0])
"""Its numbers of our pad, bos, eos and unk; all other tokens have the same ones."""


class Joey:
    """JoeyNMT's trainer, which goes on where it stopped.

    Args:
        data: whose training pairs it reads.
        folder: for its files.
    """

    def __init__(self, data: Multi30k, folder: Path) -> None:
        from joeynmt.config import parse_global_args, set_validation_args
        from joeynmt.prediction import prepare
        from joeynmt.training import TrainManager

        logging.disable(logging.INFO)
        pairs = data.split("train")
        for language, lines in (("en", pairs.source), ("de", pairs.target)):
            ends = (lines.start + lines.length).tolist()
            spans = zip((lines.start + 1).tolist(), ends)
            write(folder / f"train.{language}", (" ".join(map(str, lines.tokens[a:b].tolist())) for a, b in spans))
        write(folder / "vocabulary", map(str, range(len(SPECIAL), data.spec.target.size)))
        args = parse_global_args(configuration(folder), mode="train")
        self.model, self.pairs, _, _ = prepare(args, rank=0, mode="train")
        self.trainer = TrainManager(
            rank=0, model=self.model, model_dir=folder, device=args.device, autocast=args.autocast, seed=args.seed,
            train_args=args.train, dev_args=set_validation_args(args.test),
        )  # fmt: skip
        self.trainer._save_checkpoint = lambda *_: None

    def train(self, updates: int) -> Work:
        """So many updates by its own loop, on batches of its own; the work returns their target tokens."""

        def work() -> int:
            trainer, before = self.trainer, self.trainer.stats.total_tokens
            trainer.stats.is_max_update = False
            trainer.args = trainer.args._replace(max_updates=trainer.stats.steps + updates)
            trainer.seed += 1  # other batches than in the call before
            trainer.train_and_validate(self.pairs, self.pairs)
            return trainer.stats.total_tokens - before

        return work

    def search(self, source: Tensor, beam: int, length: int) -> Tensor:
        """Translations int64 ``[B, length]`` of source sentences ``[B, S]``, by its own search."""
        from joeynmt.batch import Batch
        from joeynmt.search import search

        self.model.eval()
        lengths, numbers = (source != PAD).sum(1), torch.arange(len(source))
        source = torch.where(source < len(SPECIAL), SPECIAL[source.clamp(max=len(SPECIAL) - 1)], source)
        ends = self.model.pad_index, self.model.eos_index
        batch = Batch(source, lengths, None, None, None, numbers, source.device, *ends, is_train=False)
        found, _, _ = search(self.model, batch, length, beam, 0.6, min_output_length=length)
        return torch.as_tensor(found)


def write(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def configuration(folder: Path) -> dict[str, Any]:
    """What JoeyNMT is told."""
    side = {"level": "word", "voc_file": str(folder / "vocabulary"), "max_length": -1}
    half = {
        "type": "transformer", "num_layers": LAYERS, "num_heads": HEADS, "hidden_size": WIDTH, "ff_size": FEED_FORWARD,
        "dropout": DROPOUT, "layer_norm": "post", "embeddings": {"embedding_dim": WIDTH, "scale": True, "dropout": DROPOUT},
    }  # fmt: skip
    return {
        "name": "benchmark", "model_dir": str(folder), "use_cuda": False,
        "data": {
            "train": str(folder / "train"), "dataset_type": "plain",
            "src": {"lang": "en", **side}, "trg": {"lang": "de", **side},
        },
        "training": {
            "batch_size": BATCH_TOKENS, "batch_type": "token", "normalization": "tokens", "label_smoothing": SMOOTHING,
            "optimizer": "adam", "adam_betas": list(BETAS), "learning_rate": RATE, "learning_rate_min": 0.0,
            "scheduling": "warmupinversesquareroot", "learning_rate_warmup": WARMUP,
            "logging_freq": 50, "validation_freq": 10**9, "epochs": 10**6,
        },
        "testing": {},
        "model": {
            "initializer": "xavier_uniform", "tied_embeddings": True, "tied_softmax": True, "encoder": half, "decoder": half,
        },
    }  # fmt: skip
