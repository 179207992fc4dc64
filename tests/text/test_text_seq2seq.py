"""Sequence to sequence: the loss is a mean over tokens whatever the batches, the future is not seen, weights are shared."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lit_gen.core.errors import UsageError
from lit_gen.core.images import ImageSpec
from lit_gen.core.random import BatchKey
from lit_gen.core.text import BOS, EOS, PAD, PairBatch, TextSpec
from lit_gen.text import (
    AdditiveScore,
    ConvolutionalEncoder,
    DotScore,
    RecurrentDecoder,
    RecurrentEncoder,
    Seq2Seq,
    TransformerDecoder,
    TransformerEncoder,
)
from tests.text.decoding_models import letters_vocabulary

SMALL = {"layers": 2, "heads": 2, "feed_forward": 16, "dropout": 0.0}
PARTS = {
    "transformer": (partial(TransformerEncoder, **SMALL), partial(TransformerDecoder, **SMALL)),
    "rotary": (
        partial(TransformerEncoder, norm="pre", positions="rotary", **SMALL),
        partial(TransformerDecoder, norm="pre", positions="rotary", **SMALL),
    ),
    "plain": (partial(RecurrentEncoder, hidden=8, cell="lstm"), partial(RecurrentDecoder, hidden=8, cell="lstm")),
    "luong": (
        partial(RecurrentEncoder, hidden=8, cell="lstm"),
        partial(RecurrentDecoder, hidden=8, cell="lstm", score=DotScore),
    ),
    "bahdanau": (
        partial(RecurrentEncoder, hidden=8, bidirectional=True),
        partial(RecurrentDecoder, hidden=8, style="bahdanau", score=AdditiveScore),
    ),
    "convolutional": (
        partial(ConvolutionalEncoder, hidden=8, layers=2),
        partial(RecurrentDecoder, hidden=8, score=AdditiveScore),
    ),
    "mixed": (partial(RecurrentEncoder, hidden=12, bidirectional=True), partial(TransformerDecoder, **SMALL)),
}
every_kind = pytest.mark.parametrize("kind", PARTS)
SPEC = TextSpec(letters_vocabulary("abcdefgh "), letters_vocabulary("abcdefgh "))


def make(kind: str, **options: Any) -> Seq2Seq:
    encoder, decoder = PARTS[kind]
    return Seq2Seq(encoder, decoder, embedding_dim=8, **options).build(SPEC)


def sentences(lengths: list[int], first: int, seed: int = 0) -> Tensor:
    """Random sentences of given lengths, eos counted, padded; ``first`` is what they begin with (bos), or 0 for nothing."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.full((len(lengths), max(lengths) + bool(first)), PAD)
    for row, length in zip(tokens, lengths):
        row[bool(first) : length + bool(first)] = torch.randint(4, SPEC.target.size, (length,), generator=generator)
        row[length - 1 + bool(first)] = EOS
        if first:
            row[0] = first
    return tokens


def pairs(source_lengths: list[int], target_lengths: list[int], seed: int = 0) -> PairBatch:
    source, target = sentences(source_lengths, 0, seed), sentences(target_lengths, BOS, seed + 1)
    rows = len(source)
    return PairBatch(source, target, BatchKey(seed, 0, rows), torch.arange(rows), sum(target_lengths))


BATCH = pairs([5, 3, 7, 2], [4, 6, 2, 5])


@every_kind
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_score_equal_torchs_cross_entropy(kind: str, smoothing: float) -> None:
    model = make(kind, label_smoothing=smoothing)
    logits, _ = model.advance(BATCH.target[:, :-1], model.read(BATCH.source))
    truth = BATCH.target[:, 1:]
    cross_entropy = partial(F.cross_entropy, logits.flatten(0, 1), truth.flatten(), ignore_index=PAD)
    torch.testing.assert_close(model.loss_sum(BATCH), cross_entropy(reduction="sum", label_smoothing=smoothing))
    nats, correct = model.score(BATCH)
    expected = cross_entropy(reduction="none").view_as(truth)
    torch.testing.assert_close(nats, expected[truth != PAD])
    assert torch.equal(correct, (logits.argmax(-1) == truth)[truth != PAD])
    torch.testing.assert_close(model.log_prob(BATCH.source, BATCH.target), -expected.double().sum(1))


@every_kind
def test_a_future_token_changes_nothing_before_it_and_the_cache_changes_nothing_at_all(kind: str) -> None:
    model = make(kind).eval()
    target = BATCH.target[:, :-1]
    memory = model.read(BATCH.source)
    whole, _ = model.advance(target, memory)
    changed = target.clone()
    changed[:, 3:] = 5
    torch.testing.assert_close(model.advance(changed, memory)[0][:, :3], whole[:, :3], rtol=0, atol=1e-6)
    cache, steps = None, []
    for t in range(target.shape[1]):
        logits, cache = model.advance(target[:, t : t + 1], memory, cache)
        steps.append(logits)
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=0, atol=1e-5)


@every_kind
def test_padding_and_company_do_not_matter(kind: str) -> None:
    model = make(kind).eval()
    together = model.log_prob(BATCH.source, BATCH.target)
    for i, (source, target) in enumerate(zip(BATCH.source, BATCH.target)):
        alone = model.log_prob(source[source != PAD][None], target[target != PAD][None])
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-5)


class Given(LightningDataModule):
    """The batches of one update."""

    spec = SPEC

    def __init__(self, batches: list[PairBatch]) -> None:
        super().__init__()
        self.batches = batches

    def train_dataloader(self) -> DataLoader:
        return DataLoader([self.batches], batch_size=None, collate_fn=lambda batches: batches)


def after_one_update(kind: str, batches: list[PairBatch], folder: Path) -> Seq2Seq:
    model = make(kind, accumulate=len(batches), optimizer=partial(torch.optim.SGD, lr=1.0), label_smoothing=0.1)
    trainer = Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(model, Given(batches))
    return model


@pytest.mark.parametrize("kind", ["transformer", "bahdanau"])
def test_accumulated_gradients_are_those_of_the_large_batch(kind: str, tmp_path: Path) -> None:
    """Two micro-batches of 4 and 19 tokens: a mean of their means would weigh a token of the first five times as much."""
    first, second = pairs([3, 2], [1, 3], seed=4), pairs([6, 4, 9], [8, 7, 4], seed=8)
    whole = PairBatch(
        torch.cat([F.pad(b.source, (0, 9 - b.source.shape[1])) for b in (first, second)]),
        torch.cat([F.pad(b.target, (0, 9 - b.target.shape[1])) for b in (first, second)]),
        BatchKey(0, 0, 5), torch.arange(5), first.tokens + second.tokens,
    )  # fmt: skip
    start = make(kind).state_dict()
    one, two = (after_one_update(kind, batches, tmp_path).state_dict() for batches in ([whole], [first, second]))
    for name, value in one.items():
        torch.testing.assert_close(two[name] - start[name], value - start[name], rtol=0, atol=1e-6)
    assert any(not torch.equal(one[name], start[name]) for name in one)


def test_shared_and_tied_weights_are_one_tensor_also_after_saving(tmp_path: Path) -> None:
    model = make("transformer", share_embeddings=True, tie_weights=True)
    for each in (model, make("transformer", share_embeddings=True, tie_weights=True)):
        each.load_state_dict(model.state_dict())
        assert each.source_embedding.weight is each.target_embedding.weight is each.output.weight
    apart = make("transformer")
    assert (
        sum(p.numel() for p in apart.parameters()) - sum(p.numel() for p in model.parameters())
        == 2 * 8 * SPEC.target.size
    )


def test_embeddings_of_padding_stay_zero_and_logits_start_small() -> None:
    model = make("transformer")
    assert not model.source_embedding.weight[PAD].any()
    model.loss_sum(BATCH).backward()
    assert not model.source_embedding.weight.grad[PAD].any()
    assert 0.5 < model.target_embedding.weight[1:].std() * 8**0.5 < 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedding_dim": 0}, "embedding_dim = 0"),
        ({"teacher_forcing": 1.5}, "teacher_forcing = 1.5"),
        ({"feed": "best"}, "feed = best; accepted: sample, argmax"),
        ({"label_smoothing": 1.0}, "label_smoothing = 1.0"),
        ({"accumulate": 0}, "accumulate = 0"),
        ({"gradient_clip": 0.0}, "gradient_clip = 0.0"),
        ({"embedding_dropout": -0.1}, "embedding_dropout = -0.1"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Seq2Seq(*PARTS["transformer"], **options)


def test_parts_that_do_not_fit_the_data_or_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="takes text, the data is images"):
        Seq2Seq().build(ImageSpec((1, 8, 8), 0, (0.0, 1.0)))
    with pytest.raises(UsageError, match="data = running text"):
        Seq2Seq(*PARTS["plain"]).build(TextSpec(SPEC.target))
    other = TextSpec(SPEC.target, letters_vocabulary("xyz"))
    with pytest.raises(UsageError, match="share_embeddings = True; accepted: true with one vocabulary"):
        Seq2Seq(*PARTS["plain"], share_embeddings=True).build(other)
    with pytest.raises(UsageError, match="tie_weights = True; accepted: true with embedding_dim = 8"):
        Seq2Seq(*PARTS["plain"], embedding_dim=6, tie_weights=True).build(SPEC)
