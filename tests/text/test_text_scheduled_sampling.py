"""Scheduled sampling: coins with the right probability, predictions with the model's distribution, schedules over updates."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from lit_gen.core.random import BatchKey, RowNoise
from lit_gen.core.text import BOS, EOS, PAD
from lit_gen.text import ExponentialDecay, InverseSigmoidDecay, LinearDecay
from lit_gen.text.scheduled_sampling import mixed_input
from tests.text.test_text_seq2seq import BATCH, make

ROWS = 4000


def noise(rows: int = ROWS, seed: int = 0) -> RowNoise:
    return RowNoise(BatchKey(seed, 0, rows), rows, "scheduled sampling")


class Bigrams:
    """p(next | last) from a table; the tokens read are the cache, to see what was fed."""

    def __init__(self) -> None:
        self.logits = torch.randn(7, 7, generator=torch.Generator().manual_seed(1))

    def evaluating(self):
        return torch.no_grad()

    def advance(self, tokens: Tensor, memory: None, cache: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.logits[tokens].clone(), tokens if cache is None else torch.cat([cache, tokens], 1)


TRUTH = torch.tensor([BOS, 4, 5, 6, 4, PAD]).repeat(ROWS, 1)


def test_probability_one_is_teacher_forcing_and_zero_never_shows_the_truth() -> None:
    model = Bigrams()
    assert torch.equal(mixed_input(model, TRUTH, None, 1.0, noise()), TRUTH)
    own = mixed_input(model, TRUTH, None, 0.0, noise(), "argmax")
    expected = [BOS]
    for _ in range(4):
        logits = model.logits[expected[-1]].clone()
        logits[[PAD, BOS]] = -torch.inf
        expected.append(int(logits.argmax()))
    assert torch.equal(own, torch.tensor([*expected, PAD]).expand(ROWS, -1))


def test_coins_and_samples_have_their_distribution() -> None:
    model, probability = Bigrams(), 0.6
    mixed = mixed_input(model, TRUTH, None, probability, noise())
    assert not ((mixed[:, 1:5] == PAD) | (mixed[:, 1:5] == BOS)).any()
    for t in range(1, 5):
        # where the last token was this one, the next is the truth with the probability of the coin, else the model's
        for last in mixed[:, t - 1].unique().tolist():
            rows = mixed[mixed[:, t - 1] == last]
            logits = model.logits[last].clone()
            logits[[PAD, BOS]] = -torch.inf
            expected = (1 - probability) * logits.softmax(-1)
            expected[TRUTH[0, t]] += probability
            counts = torch.bincount(rows[:, t], minlength=7).double()
            seen = expected > 0
            chi_square = ((counts - len(rows) * expected) ** 2 / (len(rows) * expected))[seen].sum()
            assert chi_square < 25, (t, last)  # 4 degrees of freedom: p = 5e-5 for each of the 17 comparisons


def test_rows_get_the_same_coins_in_any_number_of_processes() -> None:
    model = Bigrams()
    whole = mixed_input(model, TRUTH[:8], None, 0.5, noise(8))
    parts = [
        mixed_input(model, TRUTH[:4, :width], None, 0.5, RowNoise(BatchKey(0, start, 8), 4, "scheduled sampling"))
        for start, width in ((0, 6), (4, 5))  # the second process needs no padding
    ]
    assert torch.equal(parts[0], whole[:4])
    assert torch.equal(parts[1], whole[4:, :5])


@pytest.mark.parametrize("kind", ["transformer", "bahdanau"])
@pytest.mark.parametrize("schedule", [LinearDecay(1.0, 0.5), ExponentialDecay(0.5), InverseSigmoidDecay(2.0)])
def test_the_schedule_decides_and_the_loss_is_that_of_the_mixture(kind: str, schedule, monkeypatch) -> None:
    model = make(kind, teacher_forcing=schedule)
    step = SimpleNamespace(value=0)
    monkeypatch.setattr(type(model), "global_step", property(lambda self: step.value))
    for step.value in (0, 1, 5):
        assert model.true_token_probability() == schedule(step.value)
    memory = model.read(BATCH.source)
    fed = model.decoder_input(BATCH, memory)
    assert torch.equal(fed[BATCH.target[:, :-1] == PAD], torch.full_like(fed[BATCH.target[:, :-1] == PAD], PAD))
    assert not torch.equal(fed, BATCH.target[:, :-1])
    logits, _ = model.advance(fed, memory)
    truth = BATCH.target[:, 1:]
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), truth.flatten(), ignore_index=PAD, reduction="sum"
    )
    loss = model.loss_sum(BATCH)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model.training


def test_eos_may_be_fed_and_goes_on() -> None:
    model = Bigrams()
    model.logits[:, EOS] = 50.0
    mixed = mixed_input(model, TRUTH, None, 0.0, noise())
    assert torch.equal(mixed[:, 1:5], torch.full((ROWS, 4), EOS))
