"""Translations, random blocks and texts while a model trains: values known beforehand, the same in two processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import torch
from pytorch_lightning import seed_everything
from pytorch_lightning.loggers import WandbLogger
from small_translation import SENTENCES, Bigram, Echo, Pairs, Stream, bigram_nats, echoed, trainer

from lit_gen.callbacks.random_block_loss import RandomBlockLoss
from lit_gen.callbacks.text_samples import write_texts
from lit_gen.callbacks.translations import Translations
from lit_gen.core.errors import UsageError
from lit_gen.core.loggers import log_table, markdown_table
from lit_gen.core.random import seeded_generator
from lit_gen.core.run_dir import RunDir, write_result
from lit_gen.core.text import PAD
from lit_gen.metrics.translation import detokenize
from tests.metrics.metrics_processes import in_two_processes

OPTIONS = {"max_sentences": 5, "tokenize": "none", "detokenize": "en", "batch_size": 3, "shown": 2}


def fit_and_test(folder: Any, strategy: str = "auto", devices: int = 1, **options: Any) -> dict[str, Any]:
    """Logged values of a validation and of the test, and the test's record."""
    callback = Translations(**(OPTIONS | options))
    worker = trainer(folder, callback, strategy=strategy, devices=devices)
    model, data = Echo(), Pairs()
    worker.fit(model, datamodule=data)
    validated = {name: float(value) for name, value in worker.callback_metrics.items()}
    tested = worker.test(model, datamodule=data, verbose=False)[0]
    return {"values": {**validated, **tested}, "record": callback.record}


def without_clock(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if "seconds" not in name}


def test_values_are_those_of_the_first_sentences(tmp_path: Path) -> None:
    found = fit_and_test(tmp_path)["values"]
    for split, n in (("val", 5), ("test", len(SENTENCES))):
        references, hypotheses = SENTENCES[:n], [echoed(text) for text in SENTENCES[:n]]
        bleu = sacrebleu.corpus_bleu(hypotheses, [references], tokenize="none", force=True).score
        assert found[f"{split}/bleu"] == pytest.approx(bleu)
        assert found[f"{split}/chrf"] == pytest.approx(sacrebleu.corpus_chrf(hypotheses, [references]).score)
        matches = sum(h == r for h, r in zip(hypotheses, references))
        assert found[f"{split}/exact_match"] == pytest.approx(matches / n)
        joined = [[detokenize(text, "en") for text in texts] for texts in (hypotheses, references)]
        assert found[f"{split}/bleu_detokenized"] == pytest.approx(sacrebleu.corpus_bleu(joined[0], [joined[1]]).score)
        assert found[f"{split}/bleu_detokenized"] != pytest.approx(bleu, abs=0.01)
        assert found[f"{split}/decode_seconds"] > 0
        assert 0 < found[f"{split}/rouge_2"] < found[f"{split}/rouge_l"] < 1


def test_batch_size_changes_nothing(tmp_path: Path) -> None:
    one, other = (fit_and_test(tmp_path, batch_size=size)["values"] for size in (1, 50))
    assert without_clock(one) == without_clock(other)


def test_options_of_decoding(tmp_path: Path) -> None:
    found = fit_and_test(tmp_path, decoding={"shorten": True}, test_decoding={"beam": 4})
    shortened = [echoed(text, shorten=True) for text in SENTENCES[:5]]
    expected = sacrebleu.corpus_bleu(shortened, [SENTENCES[:5]], tokenize="none", force=True).score
    assert found["values"]["val/bleu"] == pytest.approx(expected)
    assert found["record"]["test/bleu"]["decoding"] == {"beam": 4, "shorten": False}
    assert fit_and_test(tmp_path, decoding={"beam": 2})["record"]["test/bleu"]["decoding"]["beam"] == 2


def test_record(tmp_path: Path) -> None:
    record = fit_and_test(tmp_path)["record"]
    write_result(RunDir(tmp_path), {"estimators": record})
    read = json.loads((tmp_path / "result.json").read_text())["estimators"]
    assert "|tok:none|" in read["test/bleu"]["signature"]
    assert "|tok:13a|" in read["test/bleu_detokenized"]["signature"]
    assert read["test/bleu"]["sentences"] == read["test/bleu"]["of"] == len(SENTENCES)
    assert read["test/bleu"]["detokenize"] == "en"
    assert len(read["test/bleu"]["precisions"]) == 4
    assert read["test/rouge_l"]["tokenization"] == "unicode"


def test_files(tmp_path: Path) -> None:
    fit_and_test(tmp_path)
    samples = tmp_path / "samples"
    validated = (samples / "step-000004.txt").read_text()
    assert validated.split("\n\n")[0].splitlines() == [
        f"source:     {SENTENCES[0]}", f"reference:  {SENTENCES[0]}", f"hypothesis: {echoed(SENTENCES[0])}",
    ]  # fmt: skip
    assert validated.count("hypothesis:") == (samples / "test.txt").read_text().count("hypothesis:") == 2
    assert (samples / "test.hypotheses").read_text().splitlines() == [echoed(text) for text in SENTENCES]
    assert (samples / "test.references").read_text().splitlines() == SENTENCES


def in_a_process(folder: str) -> dict[str, Any]:
    seed_everything(3, verbose=False)
    losses = blocks_losses(Path(folder), strategy="ddp", devices=2)
    return {**fit_and_test(folder, "ddp", 2), "blocks": losses}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What rank 0 and rank 1 found; processes take seconds to start."""
    folder = tmp_path_factory.mktemp("ranks")
    return in_two_processes(in_a_process, folder / "two", str(folder))


def test_two_processes_equal_one(ranks: list[dict[str, Any]], tmp_path: Path) -> None:
    one = fit_and_test(tmp_path)
    for rank in ranks:
        assert without_clock(rank["values"]) == without_clock(one["values"])
        assert without_clock(rank["record"]) == without_clock(one["record"])


class Shown(WandbLogger):
    """What would go to W&B."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._experiment = None

    @property
    def experiment(self) -> "Shown":
        return self

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def log_metrics(self, metrics: Any, step: Any = None) -> None:
        return None

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        return None

    save_dir, name, version = None, "shown", "0"


def test_table_in_wandb(tmp_path: Path) -> None:
    shown = Shown()
    worker = trainer(tmp_path, Translations(**OPTIONS), logger=shown)
    worker.fit(Echo(), datamodule=Pairs())
    (row,) = [row for row in shown.rows if "translations" in row]
    assert row["translations"].columns == ["source", "reference", "hypothesis"]
    assert row["translations"].data == [[text, text, echoed(text)] for text in SENTENCES[:2]]
    assert row["trainer/global_step"] == 4


def test_table_in_markdown() -> None:
    assert markdown_table(["a", "b"], [["x|y", "1\n2"]]) == "| a | b |\n| --- | --- |\n| x\\|y | 1<br>2 |"


def test_table_without_a_logger(tmp_path: Path) -> None:
    log_table(trainer(tmp_path), "nothing", ["a"], [["b"]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_sentences": 0}, "max_sentences = 0; accepted: 1 or more"),
        ({"max_test_sentences": -1}, "max_test_sentences = -1"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"shown": -1}, "shown = -1"),
        ({"tokenize": "moses"}, "tokenize = 'moses'"),
        ({"decoding": {"bem": 5}}, "unexpected keyword argument 'bem'; accepted: beam, shorten"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        trainer(tmp_path, Translations(**options)).fit(Echo(), datamodule=Pairs())


def test_wrong_model_or_data(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a Bigram does not translate"):
        trainer(tmp_path, Translations()).fit(Bigram(), datamodule=Stream())
    with pytest.raises(UsageError, match="the data is a Stream, not sentence pairs"):
        trainer(tmp_path, Translations()).fit(Echo(), datamodule=Stream())
    with pytest.raises(UsageError, match="a Echo is no language model"):
        trainer(tmp_path, RandomBlockLoss()).fit(Echo(), datamodule=Stream())
    with pytest.raises(UsageError, match="the data is a Pairs, not running text"):
        trainer(tmp_path, RandomBlockLoss()).fit(Bigram(), datamodule=Pairs())
    with pytest.raises(UsageError, match="batches = 0"):
        RandomBlockLoss(batches=0)


# ---------------------------------------------------------------- language models


def blocks_losses(folder: Path, **options: Any) -> dict[str, Any]:
    callback = RandomBlockLoss(batches=7, batch_size=3)
    worker = trainer(folder, callback, **options)
    model = Bigram()
    worker.fit(model, datamodule=Stream())
    validated = worker.callback_metrics["val/nll_random_blocks"].item()
    tested = worker.test(model, datamodule=Stream(), verbose=False)[0]["test/nll_random_blocks"]
    return {"val": validated, "test": tested, "record": callback.record}


def test_loss_of_random_blocks(tmp_path: Path) -> None:
    seed_everything(3, verbose=False)
    found = blocks_losses(tmp_path)
    for split in ("val", "test"):
        means = []
        for k in range(7):
            source, target = Stream().random_blocks(split, 3, 6, seeded_generator(3, "random_blocks", split, k))
            means.append(bigram_nats(source, target)[target != PAD].mean())
        means = torch.stack(means)
        assert found[split] == pytest.approx(means.mean().item(), rel=1e-5)
    record = found["record"]["test/nll_random_blocks"]
    assert record["stderr"] == pytest.approx(means.std().item() / 7**0.5, rel=1e-4)
    assert (record["batches"], record["batch_size"], record["block_size"]) == (7, 3, 6)
    assert found["val"] != found["test"]


def test_random_blocks_in_two_processes_equal_one(ranks: list[dict[str, Any]], tmp_path: Path) -> None:
    seed_everything(3, verbose=False)
    assert ranks[0]["blocks"] == ranks[1]["blocks"] == blocks_losses(tmp_path)


def test_texts_of_a_language_model(tmp_path: Path) -> None:
    model, path = Bigram().build(Stream.spec), tmp_path / "samples" / "step-000001.txt"
    texts = write_texts(trainer(tmp_path), model, 3, path)
    assert path.read_text().splitlines()[::2] == texts
    assert [len(text.split()) for text in texts] == [3, 3, 3]  # up to the eos
    assert write_texts(trainer(tmp_path), model, 3, path) == texts
