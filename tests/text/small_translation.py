"""Sentence pairs, running text and models small enough that what callbacks must find is known beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lit_gen.core.module import GenerativeModule
from lit_gen.core.random import BatchKey
from lit_gen.core.text import BOS, EOS, PAD, SPECIAL_TOKENS, PairBatch, TextSpec, Vocabulary

WORDS = ["ein", "hund", "mann", "läuft", "steht", ",", ".", "und", "die", "wiese", "&apos;s"]
SENTENCES = [
    "ein hund läuft .", "ein mann steht und ein hund läuft .", "hund", "die wiese steht , und ein mann läuft .",
    "ein mann &apos;s hund", "ein mann läuft , ein hund steht .", "die wiese", "läuft die wiese und steht ein hund .",
    "mann und hund .", "ein hund und die wiese .", "steht", "ein mann , ein hund , und die wiese .", "und die wiese .",
]  # fmt: skip


def vocabulary() -> Vocabulary:
    tokens = {token: i for i, token in enumerate([*SPECIAL_TOKENS, *WORDS])}
    tokenizer = Tokenizer(WordLevel(tokens, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return Vocabulary(len(tokens), tokenizer.to_str(), "word")


class Batches:
    """A loader of batches that are there."""

    def __init__(self, batches: Iterator[PairBatch]) -> None:
        self.batches = list(batches)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[PairBatch]:
        return iter(self.batches)


class Pairs(pl.LightningDataModule):
    """Each sentence paired with itself, in batches of four sorted by length: not in the order of their numbers."""

    name, fingerprint, spec = "pairs", "pairs", TextSpec(vocabulary(), vocabulary())

    def references(self, split: str) -> list[str]:
        return SENTENCES

    def sources(self, split: str) -> list[str]:
        return SENTENCES

    def eval_batches(self, split: str, limit: int | None = None) -> Iterator[PairBatch]:
        rows = [torch.tensor(self.spec.source.encode(text)) for text in SENTENCES]
        order = sorted(range(len(rows))[:limit], key=lambda i: len(rows[i]))
        for start in range(0, len(order), 4):
            index = order[start : start + 4]
            source = pad_sequence([torch.cat([rows[i], torch.tensor([EOS])]) for i in index], True, PAD)
            target = torch.cat([torch.full((len(index), 1), BOS), source], 1)
            key = BatchKey(start, 0, len(index))
            yield PairBatch(source, target, key, torch.tensor(index), int((source != PAD).sum()))

    def train_dataloader(self) -> Batches:
        return Batches(self.eval_batches("train"))

    val_dataloader = test_dataloader = train_dataloader


class Echo(GenerativeModule):
    """Repeats the source but for one word: every "hund" becomes a "mann"; with ``shorten`` the last word is left out."""

    spec_class = TextSpec

    def build_networks(self, spec: TextSpec) -> None:
        self.weight = torch.nn.Parameter(torch.zeros(2))

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        return (self.weight - batch.source.float().mean()).square().sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        return None

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)

    def decoding_options(self, beam: int = 1, shorten: bool = False) -> dict[str, Any]:
        return {"beam": beam, "shorten": shorten}

    def translate(self, source: Tensor, beam: int = 1, shorten: bool = False) -> list[list[int]]:
        dog, man = (self.spec.target.encode(word)[0] for word in ("hund", "mann"))
        assert not self.training
        rows = [[man if token == dog else token for token in row if token not in (PAD, EOS)] for row in source.tolist()]
        return [row[:-1] if shorten else row for row in rows]


def echoed(text: str, shorten: bool = False) -> str:
    """What :class:`Echo` makes of a sentence."""
    words = text.replace("hund", "mann").split()
    return " ".join(words[:-1] if shorten else words)


class Stream(Pairs):
    """Random blocks of a text of 500 random tokens; the last token of a block is not asked for."""

    block_size = 6
    references = sources = None

    def random_blocks(
        self, split: str, count: int, block_size: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        text = torch.randint(4, 15, (500,), generator=torch.Generator().manual_seed(len(split)))
        start = torch.randint(len(text) - block_size, (count, 1), generator=generator)
        place = start + torch.arange(block_size)
        target = text[place + 1]
        target[:, -1] = PAD
        return text[place], target


class Bigram(Echo):
    """A model whose nats are a fixed function of a token and the one before it."""

    translate = None

    def nats(self, input: Tensor, target: Tensor) -> Tensor:
        assert not self.training
        return bigram_nats(input, target)

    def sample(self, n: int, *, label: Any = None, generator: torch.Generator | None = None) -> Tensor:
        tokens = torch.randint(4, 8, (n, 5), generator=generator)
        tokens[:, 3] = EOS
        return tokens


def bigram_nats(input: Tensor, target: Tensor) -> Tensor:
    return (0.1 * input + 0.01 * target * input).where(target != PAD, torch.nan)


def trainer(folder: Any, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    """A Trainer that writes to a folder and nowhere else."""
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    options = {"max_epochs": 1, "accelerator": "cpu", "devices": 1, "num_sanity_val_steps": 0, **quiet, **options}
    return pl.Trainer(default_root_dir=str(folder), callbacks=list(callbacks), use_distributed_sampler=False, **options)
