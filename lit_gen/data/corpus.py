"""The base of all DataModules of running text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from lit_gen.core.distributed import from_rank_zero
from lit_gen.core.errors import UsageError, require
from lit_gen.core.text import EOS, TextSpec
from lit_gen.data.module import SPLITS, SplitDataModule
from lit_gen.data.text_files import split_lines
from lit_gen.data.text_plan import BlockPlan, EvalBlockPlan, EvalStreamPlan, StreamPlan
from lit_gen.data.text_stores import TokenSplit, flat
from lit_gen.data.vocabulary import Level, check_vocabulary, encode, train_vocabulary

_PIECE = 10_000  # characters encoded at once where text has no lines


class TextCorpus(SplitDataModule):
    """Running text in three splits, as :class:`StreamBatch`.

    The tokeniser is trained on the training split alone. An evaluation predicts every token of its split exactly once,
    the first one from bos, and its result depends neither on the batch size nor on the number of processes.

    A subclass sets ``name`` and implements :meth:`read`.

    Args:
        level: what a token is: "character", "word" (what white space separates) or "bpe" (part of a word).
        vocab_size: number of tokens; see :func:`lit_gen.data.vocabulary.train_vocabulary`.
        min_frequency: characters, words or pairs to be merged that are rarer are left out of the vocabulary.
        lowercase: takes all text in lower case.
        line_end: "eos", each line, an empty one too, is followed by eos; "keep", the end of a line is a character like any
            other, for level "character". None: "keep" for characters, "eos" for the others.
        mode: "streams", training batches continue each other row by row, for models that carry a state; "blocks", training
            blocks are drawn at random places.
        block_size: places in a row of a batch.
        batch_size: rows of a training batch, on each process.
        batches_per_epoch: with blocks, the length of an epoch; None: as many batches as hold the text once.
        eval_batch_size: rows of an evaluation batch.
        eval_streams: with streams, into how many an evaluation split is cut; the first token of each is predicted from the
            token before it alone. Part of the estimator, unlike ``eval_batch_size``.
        eval_stride: with blocks, places by which blocks advance in evaluation: each predicts its last ``eval_stride``
            places after at least ``block_size - eval_stride`` others. None: ``block_size``, blocks side by side.

    Raises:
        UsageError: an option out of range; at setup, data that is missing.
    """

    def __init__(
        self,
        level: Level = "character",
        vocab_size: int | None = None,
        min_frequency: int = 1,
        lowercase: bool = False,
        line_end: Literal["eos", "keep"] | None = None,
        mode: Literal["streams", "blocks"] = "streams",
        block_size: int = 64,
        batch_size: int = 20,
        batches_per_epoch: int | None = None,
        eval_batch_size: int = 64,
        eval_streams: int = 10,
        eval_stride: int | None = None,
    ) -> None:
        super().__init__()
        self.level, self.vocab_size, self.min_frequency, self.lowercase = level, vocab_size, min_frequency, lowercase
        self.line_end = line_end or ("keep" if level == "character" else "eos")
        self.mode, self.block_size, self.batch_size = mode, block_size, batch_size
        self.batches_per_epoch, self.eval_batch_size = batches_per_epoch, eval_batch_size
        self.eval_streams, self.eval_stride = eval_streams, eval_stride
        check_vocabulary(level, vocab_size, min_frequency)
        accepted = ("keep", "eos") if level == "character" else ("eos",)
        require(self.line_end in accepted, "line_end", repr(line_end), f"{', '.join(accepted)} for level = {level!r}")
        require(mode in ("streams", "blocks"), "mode", repr(mode), "streams, blocks")
        for option in ("block_size", "batch_size", "batches_per_epoch", "eval_batch_size", "eval_streams"):
            value = getattr(self, option)
            require(value is None or value >= 1, option, value, "1 or more")
        in_range = eval_stride is None or 1 <= eval_stride <= block_size
        require(in_range, "eval_stride", eval_stride, f"1 to block_size = {block_size}, or none")
        self._spec: TextSpec | None = None

    # ---------------------------------------------------------------- what the data is

    @property
    def spec(self) -> TextSpec:
        """The vocabulary; reads the data and trains the tokeniser where that has not happened."""
        self.setup()
        return self._spec

    def tokens(self, split: str) -> Tensor:
        """The whole of a split in order, int64 ``[N]``, without a bos before it."""
        return self.split(split).tokens.long()

    def random_blocks(
        self, split: str, count: int, block_size: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Blocks at uniformly random places, for the estimate of a loss by random batches.

        Returns:
            Input and target, int64 ``[count, block_size]``, the target one place ahead; the first token of the split is
            no target.

        Raises:
            UsageError: the split has no more tokens than a block.
        """
        tokens = self.split(split).tokens
        require(1 <= block_size < len(tokens), "block_size", block_size, f"1 to {len(tokens) - 1}, as {split} is short")
        start = torch.randint(len(tokens) - block_size, (count, 1), generator=generator)
        place = start + torch.arange(block_size)
        return tokens[place].long(), tokens[place + 1].long()

    # ---------------------------------------------------------------- reading

    def read(self, split: str) -> str:
        """The text of "train", "val" or "test"; an empty one where the data has no such split.

        Raises:
            UsageError: the data is missing or cannot be read.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement read")

    def read_splits(self) -> dict[str, TokenSplit]:
        texts = {split: self.read(split) for split in SPLITS}
        for split, text in texts.items():
            self.saw(split, text)
        if not texts["train"]:
            raise UsageError(f"{self.name} has no training text")
        options = (self.level, self.vocab_size, self.min_frequency, self.lowercase)
        vocabulary = from_rank_zero(lambda: train_vocabulary(self._pieces(texts["train"]), *options))
        self._spec = TextSpec(target=vocabulary)
        return {split: TokenSplit(flat(self._encoded(text))) for split, text in texts.items()}

    def _pieces(self, text: str) -> list[str]:
        if self.line_end == "eos":
            return split_lines(text) if text else []
        return [text[i : i + _PIECE] for i in range(0, len(text), _PIECE)]

    def _encoded(self, text: str) -> Iterator[list[int]]:
        pieces = encode(self._spec.target, self._pieces(text))
        return ([*tokens, EOS] for tokens in pieces) if self.line_end == "eos" else pieces

    # ---------------------------------------------------------------- batches

    def train_plan(self, examples: TokenSplit, world_size: int, rank: int, reshuffle: bool) -> StreamPlan | BlockPlan:
        sizes = (len(examples), self.batch_size, self.block_size)
        if self.mode == "streams":
            return StreamPlan(*sizes, world_size, rank)
        return BlockPlan(*sizes, self.batches_per_epoch, world_size, rank, reshuffle)

    def eval_plan(
        self, examples: TokenSplit, name: str, world_size: int = 1, rank: int = 0
    ) -> EvalStreamPlan | EvalBlockPlan:
        dealt = (self.eval_batch_size, name, world_size, rank)
        if self.mode == "streams":
            return EvalStreamPlan(len(examples), self.eval_streams, self.block_size, *dealt)
        return EvalBlockPlan(len(examples), self.block_size, self.eval_stride or self.block_size, *dealt)
