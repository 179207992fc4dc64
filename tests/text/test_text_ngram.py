"""The n-gram language model as a module: reading in pieces, evaluation, sampling, training by the Trainer, checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningDataModule, Trainer
from torch import Tensor

from lit_gen.core.checkpoint import load_model
from lit_gen.core.errors import UsageError
from lit_gen.core.images import ImageSpec
from lit_gen.core.random import BatchKey
from lit_gen.core.text import BOS, PAD, StreamBatch, TextSpec, Vocabulary
from lit_gen.text.additive import Additive
from lit_gen.text.kneser_ney import KneserNey
from lit_gen.text.ngram import NGram
from lit_gen.text.ngram_table import Smoothing
from tests.conftest import differing_weights
from tests.text.ngram_texts import SIZE, text

SPEC = TextSpec(Vocabulary(SIZE, "", "character"))
HELD_OUT = text(120, seed=1)


def trained(order: int = 4, smoothing: Smoothing | None = None) -> NGram:
    return NGram(order, smoothing).build(SPEC).fit_tokens(text())


def windows(tokens: Tensor, rows: int, width: int, carry: bool = True) -> list[StreamBatch]:
    """A text as ``rows`` streams, read ``width`` tokens at a time; the first stream begins with the text."""
    before = torch.cat((torch.tensor([BOS]), tokens[:-1])).reshape(rows, -1)
    pairs = zip(before.split(width, 1), tokens.reshape(rows, -1).split(width, 1))
    key = BatchKey(0, 0, rows)
    return [StreamBatch(x, y, key, not carry or i == 0, y.numel()) for i, (x, y) in enumerate(pairs)]


class Batches:
    """A loader of given batches."""

    def __init__(self, batches: list[StreamBatch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[StreamBatch]:
        return iter(self.batches)


class Text(LightningDataModule):
    """Running text in streams that are nothing like the whole: only ``tokens`` is."""

    name, spec = "text", SPEC

    def __init__(self, rows: int = 3) -> None:
        super().__init__()
        self.rows = rows

    def tokens(self, split: str) -> Tensor:
        return text() if split == "train" else HELD_OUT

    def train_dataloader(self) -> Batches:
        return Batches(windows(text()[:60], self.rows, 5))

    def val_dataloader(self) -> Batches:
        return Batches(windows(HELD_OUT, 1, 7))

    test_dataloader = val_dataloader


def fitted(folder: Path, rows: int = 3, resume: Path | None = None, **options) -> tuple[NGram, Trainer]:
    model = NGram(4, KneserNey())
    trainer = Trainer(accelerator="cpu", default_root_dir=folder, logger=False, enable_progress_bar=False,
                      enable_model_summary=False, enable_checkpointing=False, **options)  # fmt: skip
    trainer.fit(model, datamodule=Text(rows), ckpt_path=resume, weights_only=False)
    return model, trainer


# ---------------------------------------------------------------- evaluation


def nll(model: NGram, batches: list[StreamBatch]) -> dict[str, float]:
    model.on_validation_epoch_start()
    for i, batch in enumerate(batches):
        model.validation_step(batch, i)
    return model.perplexity.compute()


both_smoothings = pytest.mark.parametrize("smoothing", [Additive(0.3), KneserNey()], ids=["additive", "Kneser-Ney"])


@both_smoothings
@pytest.mark.parametrize("order", [1, 2, 4])
def test_perplexity_is_that_of_every_token_after_the_n_1_before_it(order: int, smoothing: Smoothing) -> None:
    model = trained(order, smoothing)
    padded = torch.cat((torch.full((order,), BOS), HELD_OUT))
    histories = padded.unfold(0, order, 1)[:-1]  # bos or the N-th token before, which is too far away, and N - 1 more
    prob = model.advance(histories)[0][:, -1].double().exp()
    of_token = prob.gather(1, HELD_OUT[:, None])[:, 0]
    expected = -float(of_token.log().sum())
    # of equally probable tokens either may count as the most probable one
    others = prob.scatter(1, HELD_OUT[:, None], 0).max(1).values
    surely, perhaps = (int((of_token > others + margin).sum()) for margin in (1e-6, -1e-6))
    for width in (1, 7, 120):
        value = nll(model, windows(HELD_OUT, 1, width))
        assert value["nll"] == pytest.approx(expected / 120, rel=1e-5)
        assert value["perplexity"] == pytest.approx(torch.tensor(expected / 120).exp().item(), rel=1e-5)
        assert surely <= round(120 * value["accuracy"]) <= perhaps
    assert perhaps - surely < 30


@both_smoothings
@pytest.mark.parametrize("order", [1, 2, 4])
def test_before_training_all_tokens_are_equally_probable(order: int, smoothing: Smoothing) -> None:
    model = NGram(order, smoothing).build(SPEC)
    assert nll(model, windows(HELD_OUT, 1, 7))["perplexity"] == pytest.approx(SIZE - 2, rel=1e-5)


def test_streams_are_read_on_and_blocks_are_not() -> None:
    model = trained()
    # the history of a stream's first tokens is lost, as it is for every model
    streams = [nll(model, windows(HELD_OUT, 4, width)) for width in (1, 5, 30)]
    assert streams[0] == streams[1] == streams[2]
    blocks = nll(model, windows(HELD_OUT, 4, 5, carry=False))
    alone = [nll(model, [batch]) for batch in windows(HELD_OUT, 4, 5)]
    assert blocks["nll"] == pytest.approx(sum(value["nll"] for value in alone) / len(alone))
    assert blocks["nll"] != streams[0]["nll"]


def test_padding_is_left_out() -> None:
    model = trained()
    (whole,) = windows(HELD_OUT, 4, 30)
    target = whole.target.clone()
    target[2, 11:] = PAD
    value = nll(model, [whole._replace(target=target)])
    assert int(model.perplexity.tokens) == 120 - 19
    nats = model.nats(whole.input, target)
    assert (nats[2, 11:] == 0).all()
    assert value["nll"] == pytest.approx(float(nats.sum()) / 101)


# ---------------------------------------------------------------- reading and sampling


def test_reading_in_pieces_is_reading_at_once() -> None:
    model, tokens = trained(), HELD_OUT.reshape(4, 30)
    whole, _ = model.advance(tokens)
    assert whole.shape == (4, 30, SIZE)
    assert whole.dtype == torch.float32
    torch.testing.assert_close(whole.exp().sum(-1), torch.ones(4, 30))
    assert (whole[..., [PAD, BOS]] == -torch.inf).all()
    cache, pieces = None, []
    for piece in tokens.split([1, 4, 1, 24], dim=1):
        logits, cache = model.advance(piece, model.read(), cache)
        pieces.append(logits)
    assert torch.equal(torch.cat(pieces, 1), whole)

    _, cache = model.advance(tokens[:, :10])
    rows = torch.tensor([3, 0, 0])
    assert torch.equal(model.advance(tokens[rows, 10:], None, cache.select(rows).detach())[0], whole[rows, 10:])


def test_a_later_token_changes_nothing_before_it() -> None:
    model, tokens = trained(), HELD_OUT.reshape(4, 30)
    changed = tokens.clone()
    changed[:, 20] = 5
    assert torch.equal(model.advance(tokens)[0][:, :20], model.advance(changed)[0][:, :20])


def test_log_prob_of_a_text_is_the_sum_over_its_tokens() -> None:
    model = trained()
    tokens = torch.cat((torch.full((4, 1), BOS), HELD_OUT.reshape(4, 30)), 1)
    logits, _ = model.advance(tokens[:, :-1])
    expected = logits.gather(2, tokens[:, 1:, None]).sum((1, 2))
    assert model.log_prob(tokens).dtype == torch.float64
    torch.testing.assert_close(model.log_prob(tokens).float(), expected)


def test_log_prob_of_all_texts_of_a_length_sums_to_one() -> None:
    model = trained(3)
    predicted = torch.tensor([token for token in range(SIZE) if token not in (PAD, BOS)])
    texts = torch.cartesian_prod(*[predicted] * 3)
    tokens = torch.cat((torch.full((len(texts), 1), BOS), texts), 1)
    assert float(model.log_prob(tokens).exp().sum()) == pytest.approx(1, rel=1e-12)


def test_samples_follow_the_model() -> None:
    model, n = trained(2), 2000
    tokens = model.sample(n, 3, generator=torch.Generator().manual_seed(0))
    assert tokens.shape == (n, 3)
    assert tokens.dtype == torch.int64
    assert torch.equal(tokens, model.sample(n, 3, generator=torch.Generator().manual_seed(0)))
    begin = torch.tensor([BOS])
    first = model.advance(begin[None])[0][0, 0].exp()
    second = first @ model.advance(torch.arange(SIZE)[:, None])[0][:, 0].exp()  # of a bigram model: a Markov chain
    for position, expected in enumerate((first, second)):
        found = torch.bincount(tokens[:, position], minlength=SIZE) / n
        error = (expected * (1 - expected) / n).sqrt()
        assert ((found - expected).abs() <= 4.5 * error).all()
        assert (found[[PAD, BOS]] == 0).all()


# ---------------------------------------------------------------- training and checkpoints


def test_the_trainer_counts_the_whole_text_once_whatever_the_batches(tmp_path: Path) -> None:
    direct = trained(4)
    for rows, options in ((3, {"max_epochs": 1}), (1, {"max_epochs": 2}), (2, {"max_steps": 1})):
        model, trainer = fitted(tmp_path, rows, **options)
        assert differing_weights(model.state_dict(), direct.state_dict()) == []
        assert trainer.global_step == (1 if "max_steps" in options else 60 // (rows * 5) * options["max_epochs"])
        assert int(trainer.callback_metrics["train/tokens"]) == 300


def test_the_logged_values_and_the_estimators(tmp_path: Path) -> None:
    model, trainer = fitted(tmp_path, max_epochs=1)
    expected = nll(trained(4), windows(HELD_OUT, 1, 120))
    (tested,) = trainer.test(model, datamodule=Text(), verbose=False)
    for name in ("nll", "perplexity", "bits_per_token", "accuracy"):
        assert float(trainer.callback_metrics[f"test/{name}"]) == pytest.approx(expected[name])
        assert tested[f"test/{name}"] == pytest.approx(expected[name])
    about = model.estimators["test/perplexity"]
    assert (about["order"], about["tokens"], about["smoothing"]) == (4, 120, "Kneser-Ney")
    assert len(about["discounts_of_orders"]) == 4


def test_a_checkpoint_holds_the_model(tmp_path: Path) -> None:
    model, trainer = fitted(tmp_path, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = load_model(tmp_path / "model.ckpt")
    assert differing_weights(loaded.state_dict(), model.state_dict()) == []
    assert nll(loaded, windows(HELD_OUT, 1, 7)) == nll(model, windows(HELD_OUT, 1, 7))
    assert torch.equal(*(each.sample(5, 9, generator=torch.Generator().manual_seed(1)) for each in (loaded, model)))


def test_a_resumed_run_does_not_count_again(tmp_path: Path) -> None:
    model, trainer = fitted(tmp_path, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    resumed, trainer = fitted(tmp_path, resume=tmp_path / "model.ckpt", max_epochs=2)
    assert trainer.global_step == 8
    assert "train/tokens" not in trainer.callback_metrics
    assert differing_weights(resumed.state_dict(), model.state_dict()) == []


def test_mistakes_are_named() -> None:
    with pytest.raises(UsageError, match="order = 0"):
        NGram(0)
    with pytest.raises(UsageError, match="data = sentence pairs; accepted: running text, for a NGram"):
        NGram(2).build(TextSpec(SPEC.target, SPEC.target))
    with pytest.raises(UsageError, match="NGram takes text, the data is images"):
        NGram(2).build(ImageSpec((1, 8, 8), 0, (0.0, 1.0)))
