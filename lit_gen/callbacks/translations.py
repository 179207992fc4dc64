"""Decodes sentences while a model trains and after, and scores them against their references."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lit_gen.callbacks.text_samples import token_rows
from lit_gen.core.distributed import rank, world_size
from lit_gen.core.errors import UsageError, require
from lit_gen.core.loggers import log_table
from lit_gen.core.run_dir import write_atomically
from lit_gen.core.text import PAD

COLUMNS = ["source", "reference", "hypothesis"]


class Translations(Callback):
    """Translates validation and test sentences and logs ``val/bleu``, ``val/chrf``, ``val/rouge_l``, ``val/exact_match``, etc.

    BLEU and chrF are sacreBLEU's corpus scores, 0 to 100; ROUGE (F1) and exact matches are shares of one. They can be
    monitored: ``checkpoint.monitor: val/bleu``, ``mode: max``. With ``detokenize`` also ``bleu_detokenized``: 13a BLEU after
    joining what the Moses tokeniser split, in hypothesis and reference. ``val/decode_seconds`` is what the decoding cost.

    The first sentences of the split are decoded, sorted by length and dealt to the processes in batches; each is scored
    once, and the scores do not depend on the number of processes.

    Written into the run's ``samples/``: ``step-NNNNNN.txt`` and ``test.txt`` with source, reference and hypothesis of some
    sentences (the loggers get them as a table), and ``test.hypotheses``, ``test.references`` with all of them, a line each, as
    sacreBLEU's own command takes them for a paired test.

    Attributes:
        record: after a test, by logged name: value, signature and how the sentences were decoded.
        seconds: wall time of this process spent decoding so far, by split.

    Args:
        max_sentences: sentences decoded at each validation; null for all.
        max_test_sentences: the same at test.
        decoding: options of the model's ``translate`` at validation, e.g. ``{beam: 5}``; its defaults where null. What they are
            with those that are not given is asked of its ``decoding_options``, for the record.
        test_decoding: the same at test; null: as ``decoding``.
        batch_size: sentences decoded at once by a process.
        tokenize: sacreBLEU's tokeniser for ``bleu``: "none" for data that is tokenised, else "13a", "intl", "char", ...
        lowercase: scores ignore case.
        detokenize: language of data that the Moses tokeniser has split, e.g. "de"; null: it has not.
        rouge_tokenization: "unicode", "whitespace", or "ascii" for what the package rouge-score gives.
        shown: sentences in the table and in the sample files.

    Raises:
        UsageError: an argument is out of range, or (in ``setup``) the model does not translate or not with these options.
    """

    def __init__(
        self,
        max_sentences: int | None = 200,
        max_test_sentences: int | None = None,
        decoding: dict[str, Any] | None = None,
        test_decoding: dict[str, Any] | None = None,
        batch_size: int = 50,
        tokenize: str = "13a",
        lowercase: bool = False,
        detokenize: str | None = None,
        rouge_tokenization: str = "unicode",
        shown: int = 10,
    ) -> None:
        from lit_gen.metrics.translation import TranslationScores  # the package of metrics takes a second to import

        for name, value in (("max_sentences", max_sentences), ("max_test_sentences", max_test_sentences)):
            require(value is None or value >= 1, name, value, "1 or more, or null for all")
        require(batch_size >= 1, "batch_size", batch_size, "1 or more")
        require(shown >= 0, "shown", shown, "0 or more")
        self.limit = {"val": max_sentences, "test": max_test_sentences}
        decoding = decoding or {}
        self.decoding = {"val": decoding, "test": decoding if test_decoding is None else test_decoding}
        self.batch_size, self.language, self.shown = batch_size, detokenize, shown
        self.scores = TranslationScores(tokenize, lowercase, rouge_tokenization=rouge_tokenization)
        self.detokenized = TranslationScores("13a", lowercase) if detokenize else None
        self.record: dict[str, dict[str, Any]] = {}
        self.seconds = {"val": 0.0, "test": 0.0}

    # ---------------------------------------------------------------- hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "predict":
            return
        if not callable(getattr(pl_module, "translate", None)):
            raise UsageError(f"Translations: a {type(pl_module).__name__} does not translate")
        if not callable(getattr(trainer.datamodule, "references", None)):
            raise UsageError(f"Translations: the data is a {type(trainer.datamodule).__name__}, not sentence pairs")
        for options in self.decoding.values():
            complete_options(pl_module, options)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking and not trainer.fast_dev_run:
            self._evaluate(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.fast_dev_run:
            self.record = self._evaluate(trainer, pl_module, "test")

    # ---------------------------------------------------------------- decoding

    def _evaluate(self, trainer: Trainer, model: LightningModule, split: str) -> dict[str, dict[str, Any]]:
        data, options = trainer.datamodule, self.decoding[split]
        references, sources = data.references(split), data.sources(split)
        sentences = first_sentences(data, split, self.limit[split])
        self.scores.reset()
        started = time.perf_counter()
        for index, source in self._share(sentences):
            with model.evaluating():
                rows = token_rows(model.translate(source.to(model.device), **options))
            hypotheses = [model.spec.target.decode(row) for row in rows]
            self.scores.update(hypotheses, [references[i] for i in index], index)
        seconds = time.perf_counter() - started
        self.seconds[split] += seconds
        report = self.scores.report()
        decoded = {number: pair[0] for number, pair in self.scores.sentences().items()}
        if self.detokenized is not None:
            report["bleu_detokenized"] = self._detokenized_bleu(decoded, references)
        report["decode_seconds"] = {"value": seconds, "in_training": self.seconds["val"]}
        if trainer.is_global_zero:
            self._show(trainer, split, {i: (sources[i], references[i], text) for i, text in decoded.items()})
        logged = {f"{split}/{name}": report[name]["value"] for name in report}
        model.log_dict(logged, on_step=False, on_epoch=True, sync_dist=False, batch_size=1)
        about = {
            "split": split,
            "sentences": len(decoded),
            "of": len(references),
            "decoding": complete_options(model, options),
            "detokenize": self.language,
        }
        return {f"{split}/{name}": {**entry, **about} for name, entry in report.items()}

    def _share(self, sentences: dict[int, Tensor]) -> Iterator[tuple[list[int], Tensor]]:
        """This process's batches: numbers of the sentences, and their tokens int64 ``[B, S]``."""
        numbers = sorted(sentences, key=lambda i: (-len(sentences[i]), i))
        starts = range(0, len(numbers), self.batch_size)
        for start in starts[rank() :: world_size()]:
            index = numbers[start : start + self.batch_size]
            yield index, pad_sequence([sentences[i] for i in index], batch_first=True, padding_value=PAD)

    def _detokenized_bleu(self, decoded: dict[int, str], references: list[str]) -> dict[str, Any]:
        from lit_gen.metrics.translation import detokenize

        # All processes have all sentences by now, and each scores them for itself.
        self.detokenized.reset()
        joined = [detokenize(text, self.language) for text in decoded.values()]
        wanted = [detokenize(references[i], self.language) for i in decoded]
        self.detokenized.update(joined, wanted, list(decoded))
        return self.detokenized.report()["bleu"]

    # ---------------------------------------------------------------- showing

    def _show(self, trainer: Trainer, split: str, texts: dict[int, tuple[str, str, str]]) -> None:
        rows = [list(texts[number]) for number in list(texts)[: self.shown]]
        log_table(trainer, "translations" if split == "val" else "test_translations", COLUMNS, rows)
        folder = Path(trainer.default_root_dir)
        if folder.resolve() == Path.cwd():  # Lightning's default: `lit-gen test` leaves no files where it is called
            return
        folder = folder / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"step-{trainer.global_step:06d}" if trainer.state.fn == "fit" else split
        blocks = ["".join(f"{column + ':':12}{text}\n" for column, text in zip(COLUMNS, row)) for row in rows]
        write_atomically(folder / f"{name}.txt", "\n".join(blocks))
        if split == "test":
            for column, kind in ((2, "hypotheses"), (1, "references")):
                lines = (" ".join(row[column].split()) for row in texts.values())
                write_atomically(folder / f"test.{kind}", "".join(f"{line}\n" for line in lines))


def first_sentences(data: LightningDataModule, split: str, limit: int | None) -> dict[int, Tensor]:
    """Source tokens (eos at the end, no padding) of the first sentences of a split, by number, in order."""
    sentences = {
        int(number): row[row != PAD]
        for batch in data.eval_batches(split, limit)
        for number, row in zip(batch.index, batch.source)
    }
    return {number: sentences[number] for number in sorted(sentences)[:limit]}


def complete_options(model: LightningModule, options: dict[str, Any]) -> dict[str, Any]:
    """Options of decoding with the defaults of those that are not given, where the model says what these are.

    Raises:
        UsageError: an option that the model does not have, or a value that it does not accept.
    """
    complete = getattr(model, "decoding_options", dict)
    try:
        return complete(**options)
    except TypeError as error:
        accepted = ", ".join(complete())
        raise UsageError(f"Translations: decoding = {options}: {error}; accepted: {accepted}") from error
