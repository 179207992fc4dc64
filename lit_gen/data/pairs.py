"""The base of all DataModules of parallel text."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from lit_gen.core.console import say
from lit_gen.core.distributed import from_rank_zero
from lit_gen.core.errors import UsageError, require
from lit_gen.core.text import PairBatch, TextSpec
from lit_gen.data.bucket_plan import BucketPlan, EvalBucketPlan
from lit_gen.data.module import SPLITS, SplitDataModule
from lit_gen.data.text_stores import PairSplit, TokenLines
from lit_gen.data.vocabulary import Level, check_vocabulary, encode, train_vocabulary

Lines = tuple[list[str], list[str]]


class PairDataModule(SplitDataModule):
    """Sentences and their translations in three splits, as :class:`PairBatch`.

    The tokenisers are trained on the training split alone. Every pair is seen once an epoch over all processes, except
    those with an empty side and over-long ones, which are counted (:attr:`dropped`) and reported; evaluation leaves no
    line out. Pairs of like length come together; see :class:`lit_gen.data.bucket_plan.BucketPlan`.

    A subclass sets ``name`` and implements :meth:`read`.

    Args:
        source: language to translate from.
        target: language to translate into.
        level: what a token is: "character", "word" (what white space separates) or "bpe" (part of a word).
        vocab_size: number of tokens; see :func:`lit_gen.data.vocabulary.train_vocabulary`.
        min_frequency: characters, words or pairs to be merged that are rarer are left out of the vocabulary.
        joint: one vocabulary for both languages rather than one for each.
        lowercase: takes all text in lower case (references stay as they are).
        max_length: tokens on either side, without bos and eos, beyond which a pair is not trained on; None: no limit.
        batch_tokens: padded tokens of a training batch on its longer side, on each process.
        eval_batch_tokens: the same for evaluation.
        pad_multiple: widths of batches are rounded up to a multiple of it (8 suits matrix units of 16 bits).

    Raises:
        UsageError: an option out of range; at setup, data that is missing or does not fit together.
    """

    def __init__(
        self,
        source: str = "source",
        target: str = "target",
        level: Level = "bpe",
        vocab_size: int | None = 8000,
        min_frequency: int = 1,
        joint: bool = True,
        lowercase: bool = False,
        max_length: int | None = None,
        batch_tokens: int = 4096,
        eval_batch_tokens: int = 8192,
        pad_multiple: int = 1,
    ) -> None:
        super().__init__()
        self.source, self.target, self.joint = source, target, joint
        self.level, self.vocab_size, self.min_frequency, self.lowercase = level, vocab_size, min_frequency, lowercase
        self.max_length, self.pad_multiple = max_length, pad_multiple
        self.batch_tokens, self.eval_batch_tokens = batch_tokens, eval_batch_tokens
        check_vocabulary(level, vocab_size, min_frequency)
        for option in ("max_length", "batch_tokens", "eval_batch_tokens", "pad_multiple"):
            value = getattr(self, option)
            require(value is None or value >= 1, option, value, "1 or more")
        self._lines: dict[str, Lines] = {}
        self._dropped: dict[str, int] = {}
        self._spec: TextSpec | None = None

    # ---------------------------------------------------------------- what the data is

    @property
    def spec(self) -> TextSpec:
        """The vocabularies; reads the data and trains the tokenisers where that has not happened."""
        self.setup()
        return self._spec

    @property
    def dropped(self) -> dict[str, int]:
        """Training pairs left out, by reason: "empty" (a side without a token), "too_long"."""
        self.setup()
        return self._dropped

    def sources(self, split: str) -> list[str]:
        """The sentences to translate as they were read; number i is the pair of ``index`` i."""
        self.split(split)
        return self._lines[split][0]

    def references(self, split: str) -> list[str]:
        """Their translations as they were read, untouched by tokeniser and lower case."""
        self.split(split)
        return self._lines[split][1]

    # ---------------------------------------------------------------- reading

    def read(self, split: str) -> Lines:
        """The source and the target lines of "train", "val" or "test"; none where the data has no such split.

        Raises:
            UsageError: the data is missing or cannot be read.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement read")

    def read_splits(self) -> dict[str, PairSplit]:
        lines = {split: self.read(split) for split in SPLITS}
        for split, (source, target) in lines.items():
            self.saw(split, *(f"{line}\n" for line in chain(source, target)))
            if len(source) != len(target):
                raise UsageError(
                    f"{self.name}, {split}: {len(source)} lines of {self.source}, {len(target)} of {self.target}; "
                    "accepted: as many of both"
                )
        if not lines["train"][0]:
            raise UsageError(f"{self.name} has no training pairs")
        self._spec = from_rank_zero(lambda: self._train_tokenizers(*lines["train"]))
        tokens = {split: self._encoded(pair) for split, pair in lines.items()}
        kept = self._kept(*tokens["train"])
        for each in (lines, tokens):
            each["train"] = tuple([side[i] for i in kept] for side in each["train"])
        self._lines = lines
        return {split: PairSplit(*map(TokenLines.of, pair)) for split, pair in tokens.items()}

    def _train_tokenizers(self, source: list[str], target: list[str]) -> TextSpec:
        options = (self.level, self.vocab_size, self.min_frequency, self.lowercase)
        if self.joint:
            shared = train_vocabulary(chain(source, target), *options)
            return TextSpec(target=shared, source=shared)
        return TextSpec(target=train_vocabulary(target, *options), source=train_vocabulary(source, *options))

    def _encoded(self, lines: Lines) -> tuple[list[list[int]], list[list[int]]]:
        source, target = lines
        return list(encode(self._spec.source, source)), list(encode(self._spec.target, target))

    def _kept(self, source: list[list[int]], target: list[list[int]]) -> list[int]:
        """Numbers of the pairs to train on; counts the others and says so."""
        limit = float("inf") if self.max_length is None else self.max_length
        empty = [not (s and t) for s, t in zip(source, target)]
        too_long = [max(len(s), len(t)) > limit for s, t in zip(source, target)]
        kept = [i for i, reasons in enumerate(zip(empty, too_long)) if not any(reasons)]
        self._dropped = {"empty": sum(empty), "too_long": len(source) - len(kept) - sum(empty)}
        if len(kept) < len(source):
            say(
                f"{self.name}: {len(source) - len(kept)} of {len(source)} training pairs left out: {sum(empty)} with an "
                f"empty side, {self._dropped['too_long']} of more than max_length = {self.max_length} tokens"
            )
        return kept

    # ---------------------------------------------------------------- batches

    def train_plan(self, examples: PairSplit, world_size: int, rank: int, reshuffle: bool) -> BucketPlan:
        return BucketPlan(examples.lengths(self.pad_multiple), self.batch_tokens, world_size, rank, reshuffle)

    def eval_plan(self, examples: PairSplit, name: str, world_size: int = 1, rank: int = 0) -> EvalBucketPlan:
        return EvalBucketPlan(examples.lengths(self.pad_multiple), self.eval_batch_tokens, name, world_size, rank)

    def eval_batches(self, split: str, limit: int | None = None) -> Iterator[PairBatch]:
        """The first ``limit`` pairs of a split, "train" too, in the batches in which one process evaluates them, on the CPU.

        Batches come sorted by length, so that the first batches of all pairs would be no fair sample of them.
        """
        examples = self.split(split)
        lengths = examples.lengths(self.pad_multiple).first(limit)
        return examples.stream(list(EvalBucketPlan(lengths, self.eval_batch_tokens, split).batches()))
