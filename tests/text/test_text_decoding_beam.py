"""Beam search against all sequences, and against a search written plainly; batches against single sentences."""

from __future__ import annotations

import functools

import pytest
import torch

from lit_gen.core.errors import UsageError
from lit_gen.text.decoding import GNMTPenalty, PowerPenalty, beam_search, most_probable, one_path
from lit_gen.text.decoding.candidates import best_candidates
from tests.text.decoding_models import Sentences, TableModel, exhaustive, plain_beam_search

PENALTIES = [GNMTPenalty(0.6), GNMTPenalty(2.0), PowerPenalty(1.0), PowerPenalty(0.3), PowerPenalty(0.0)]
IDS = [f"{type(p).__name__}-{p.alpha}" for p in PENALTIES]


def test_penalties() -> None:
    assert GNMTPenalty(0.6)(7) == pytest.approx((12 / 6) ** 0.6)
    assert GNMTPenalty(0.6)(1) == 1.0
    assert PowerPenalty(0.5)(9) == pytest.approx(3.0)
    assert PowerPenalty(0.0)(9) == GNMTPenalty(0.0)(9) == 1.0
    with pytest.raises(UsageError, match="alpha = -1"):
        GNMTPenalty(-1)


@pytest.mark.parametrize("lengths", [(1, 4), (3, 4), (4, 4), (1, 1)])
@pytest.mark.parametrize("penalty", PENALTIES, ids=IDS)
def test_a_wide_beam_is_exhaustive(penalty, lengths: tuple[int, int]) -> None:
    """The n best of all sequences: their tokens, in order, with their scores."""
    vocabulary, numbers, (shortest, longest) = 6, [3, 14, 15], lengths
    for seed, end in ((0, 0.0), (1, 2.0), (2, -3.0)):
        model = TableModel(vocabulary, seed, end=end)
        found = beam_search(
            model.advance, Sentences(number=torch.tensor(numbers)), len(numbers), beam=85, n_best=20,
            min_length=shortest, max_length=longest, penalty=penalty,
        )  # fmt: skip
        for number, hypotheses in zip(numbers, found):
            log_p = functools.cache(functools.partial(model.log_probabilities, number))
            everything = exhaustive(log_p, vocabulary, shortest, longest)
            ranked = sorted(
                ((total / penalty(len(said) + ended), said, total, ended) for said, total, ended in everything),
                reverse=True,
            )[:20]
            assert len(hypotheses) == len(ranked) == min(20, len(everything))
            for mine, (score, said, total, ended) in zip(hypotheses, ranked):
                assert (mine.tokens, mine.finished) == (said, ended)
                assert mine.score == pytest.approx(score, abs=1e-5)
                assert mine.log_probability == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize("beam", [1, 2, 5])
@pytest.mark.parametrize("penalty", PENALTIES, ids=IDS)
def test_narrow_beams_equal_the_plain_search_that_never_stops_early(penalty, beam: int) -> None:
    """So the bound by which a sentence is done loses nothing; sentences of different limits share a batch."""
    generator = torch.Generator().manual_seed(beam)
    for seed, end in ((0, 1.0), (1, 3.0), (2, -2.0)):
        model = TableModel(23, seed, end=end)
        numbers = torch.randint(1000, (13,), generator=generator)
        limits = torch.randint(3, 15, (13,), generator=generator)
        memory = Sentences(number=numbers)
        found = beam_search(
            model.advance, memory, 13, beam=beam, n_best=beam, min_length=3, max_length=limits, penalty=penalty
        )
        for number, limit, hypotheses in zip(numbers.tolist(), limits.tolist(), found):
            log_p = functools.partial(model.log_probabilities, number)
            expected = plain_beam_search(log_p, beam, beam, 3, limit, penalty)
            assert [each.tokens for each in hypotheses] == [said for said, _ in expected]
            assert [each.score for each in hypotheses] == pytest.approx([score for _, score in expected], abs=1e-4)
            assert all(3 <= each.length <= limit for each in hypotheses)


def test_it_stops_early_where_nothing_can_be_won() -> None:
    model = TableModel(30, end=6.0)
    for alpha in (0.0, 0.6):
        model.calls.clear()
        beam_search(
            model.advance, Sentences(number=torch.arange(9)), 9, beam=4, max_length=200, penalty=GNMTPenalty(alpha)
        )
        assert len(model.calls) < 60
        assert model.calls[-1] < max(model.calls)  # those that are done have been taken out


@pytest.mark.parametrize("beam", [1, 3])
def test_a_batch_is_as_single_sentences(beam: int) -> None:
    model, numbers = TableModel(40, end=2.0), torch.arange(100, 131)
    options = {"beam": beam, "n_best": beam, "max_length": 20, "penalty": GNMTPenalty(0.6)}
    together = beam_search(model.advance, Sentences(number=numbers), 31, **options)
    alone = [beam_search(model.advance, Sentences(number=one.view(1)), 1, **options)[0] for one in numbers]
    assert together == alone


def test_a_beam_of_one_is_greedy_and_wider_ones_are_no_worse_than_what_they_contain() -> None:
    model, memory = TableModel(40, end=2.0), Sentences(number=torch.arange(50))
    greedy = one_path(model.advance, memory, 50, most_probable, max_length=25)
    narrow = beam_search(model.advance, memory, 50, beam=1, max_length=25)
    assert [each.tokens for each in greedy] == [each.tokens for (each,) in narrow]
    assert [each.finished for each in greedy] == [each.finished for (each,) in narrow]
    assert [each.score for each in greedy] == pytest.approx([each.score for (each,) in narrow], abs=1e-4)
    wide = beam_search(model.advance, memory, 50, beam=30, max_length=25)
    assert all(best[0].score >= each.score - 1e-5 for best, each in zip(wide, greedy))
    assert any(best[0].score > each.score + 0.1 for best, each in zip(wide, greedy))


def test_greedy_follows_the_largest_probability() -> None:
    model = TableModel(40, seed=3, end=2.0)
    limits = torch.tensor([1, 4, 30, 30, 30, 30])
    found = one_path(
        model.advance, Sentences(number=torch.arange(6)), 6, most_probable, max_length=limits, min_length=1
    )
    for number, hypothesis in enumerate(found):
        said, total = [], 0.0
        while len(said) < limits[number] and (not said or said[-1] != 2):
            log_p = model.log_probabilities(number, said)
            said.append(2 + int(log_p[2:].argmax()))
            total += float(log_p[said[-1]])
        assert (*hypothesis.tokens, *([2] if hypothesis.finished else [])) == tuple(said)
        assert hypothesis.log_probability == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize(("vocabulary", "first"), [(514, 2), (515, 3), (600, 2), (40, 3), (8, 2)])
@pytest.mark.parametrize(("width", "k"), [(1, 2), (3, 6), (5, 10), (7, 20)])
def test_candidates_are_the_largest_of_all(vocabulary: int, first: int, width: int, k: int) -> None:
    generator = torch.Generator().manual_seed(vocabulary + k)
    logits = torch.randn(4 * width, vocabulary, generator=generator) * 3
    logits[0, :first] = 60.0  # what is forbidden counts in the normaliser
    logits[1, first:] -= 200.0
    before = torch.randn(4, width, generator=generator)
    dense = (before.unsqueeze(-1) + logits.log_softmax(-1).view(4, width, -1))[:, :, first:]
    expected, index = dense.flatten(1).topk(min(k, dense[0].numel()))
    found = best_candidates(logits, before, k, first)
    n = expected.shape[1]
    torch.testing.assert_close(found.log_probability[:, :n], expected, atol=2e-5, rtol=1e-5)
    assert (found.log_probability[:, n:] == -torch.inf).all()
    assert torch.equal(found.parent[:, :n], index // (vocabulary - first))
    assert torch.equal(found.token[:, :n], index % (vocabulary - first) + first)


def test_logits_are_not_changed() -> None:
    logits = torch.randn(4, 600)
    kept = logits.clone()
    best_candidates(logits, torch.zeros(2, 2), 2, 2)
    assert torch.equal(logits, kept)


def test_no_sentence_and_wrong_options() -> None:
    model, none = TableModel(9), Sentences(number=torch.arange(0))
    assert beam_search(model.advance, none, 0, beam=3, max_length=5) == []
    assert one_path(model.advance, none, 0, most_probable, max_length=5) == []
    some = Sentences(number=torch.arange(2))
    for options, message in (
        ({"beam": 0, "max_length": 5}, "beam = 0"),
        ({"beam": 2, "n_best": 3, "max_length": 5}, "n_best = 3"),
        ({"beam": 2, "max_length": 3, "min_length": 4}, "max_length = 3"),
        ({"beam": 2, "max_length": 3, "min_length": 0}, "min_length = 0"),
    ):
        with pytest.raises(UsageError, match=message):
            beam_search(model.advance, some, 2, **options)
