"""Sampling against the exact distribution, independence of the batch, generation beyond the context."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from lit_gen.core.errors import UsageError
from lit_gen.core.text import EOS, UNK
from lit_gen.text.cache import TensorCache
from lit_gen.text.decoding import Sampler, generate, most_probable, one_path, windowed
from tests.text.decoding_models import LanguageTable, Sentences, TableModel

LOGITS = torch.tensor([2.0, -1.0, 0.5, 1.2, -30.0, 0.0, 1.9, -0.3])


def draws(n: int, logits: Tensor = LOGITS, first: int = 2, **options: float) -> Tensor:
    """n tokens drawn from one distribution, by sixteen rows."""
    sampler = Sampler(7, range(16), **options)
    rows = torch.arange(16)
    return torch.cat([sampler(logits.expand(16, -1), first, rows, step) for step in range(n // 16)])


def head(first: int = 2, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """The distribution that is sampled from, written plainly."""
    weights = (LOGITS.double() / temperature).exp()
    weights[:first] = 0
    order = weights.argsort(descending=True)
    if top_k is not None:
        weights[order[top_k:]] = 0
    probability = weights / weights.sum()
    if top_p is not None and top_p < 1:
        n = 1 + next(i for i in range(len(order)) if probability[order[: i + 1]].sum() >= top_p)
        probability[order[n:]] = 0
    return probability / probability.sum()


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.6}, {"temperature": 2.0, "top_k": 4}, {"top_p": 0.8}, {"top_k": 5, "top_p": 0.7, "temperature": 1.3},
     {"top_k": 50}, {"top_p": 1.0}, {"top_k": 1}, {"top_p": 1e-9}],
    ids=str,
)  # fmt: skip
def test_frequencies(options: dict[str, float]) -> None:
    """The head is exactly the right set of tokens, and within it the frequencies pass a chi-square test."""
    n, expected = 16_000, head(**options)
    counts = torch.bincount(draws(n, **options), minlength=len(LOGITS)).double()
    assert not counts[expected == 0].any()
    likely = expected * n > 5
    assert (counts[likely] > 0).all()
    if likely.sum() > 1:
        assert chisquare(counts[likely], expected[likely] / expected[likely].sum() * counts[likely].sum()).pvalue > 1e-3


def test_the_first_allowed_token_is_respected() -> None:
    assert set(draws(3200, first=UNK).tolist()) == {3, 5, 6, 7}
    assert set(draws(3200, first=EOS).tolist()) == {2, 3, 5, 6, 7}


def test_the_nucleus_is_the_smallest_set() -> None:
    """Hand-worked: 0.5 + 0.3 is exactly 0.8, which two tokens reach; 0.81 takes three."""
    logits = torch.tensor([-9.0, -9.0, 0.5, 0.3, 0.15, 0.05]).clamp(min=1e-9).log()
    for top_p, size in ((0.4, 1), (0.5, 1), (0.51, 2), (0.8, 2), (0.81, 3), (0.95, 3), (0.96, 4)):
        assert len(set(draws(3200, logits, top_p=top_p).tolist())) == size


def test_temperature_zero_is_greedy_and_a_small_one_nearly() -> None:
    model, memory = TableModel(30, end=1.0), Sentences(number=torch.arange(9))
    greedy = one_path(model.advance, memory, 9, most_probable, max_length=15)
    for temperature in (0.0, 1e-6, 1e-45):
        sampler = Sampler(0, range(9), temperature)
        assert one_path(model.advance, memory, 9, sampler, max_length=15) == greedy


def test_sequences_have_the_models_distribution() -> None:
    """All sequences of two tokens, and those that end before: frequencies against exact probabilities."""
    model, n = LanguageTable(6, scale=0.7), 20_000
    found = Counter(
        (each.tokens, each.finished) for each in generate(model, n=n, length=2, seed=3, batch=5000, stop_at_eos=True)
    )
    exact = {}
    first = restricted(model.log_probabilities(0, ()))
    exact[(), True] = first[EOS]
    for a in range(UNK, 6):
        second = restricted(model.log_probabilities(0, (a,)))
        exact[(a,), True] = first[a] * second[EOS]
        exact.update({((a, b), False): first[a] * second[b] for b in range(UNK, 6)})
    assert sum(exact.values()) == pytest.approx(1.0)
    assert found.keys() <= exact.keys()
    assert chisquare([found[key] for key in exact], [float(p) * n for p in exact.values()]).pvalue > 1e-3


def restricted(log_p: Tensor) -> Tensor:
    """Renormalised without pad and bos."""
    probability = log_p.double().exp()
    probability[:EOS] = 0
    return probability / probability.sum()


def test_log_probabilities_are_the_models_own() -> None:
    model = LanguageTable(20, end=1.0)
    for each in generate(model, [5, 6], n=6, length=9, temperature=0.7, top_k=5, stop_at_eos=True):
        said = [5, 6, *each.tokens, *([EOS] if each.finished else [])]
        code_free = model.advance(torch.tensor([said]), None, None)[0][0].log_softmax(-1)
        expected = sum(float(code_free[i - 1, said[i]]) for i in range(2, len(said)))
        assert each.log_probability == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("options", [{}, {"temperature": 0.8, "top_k": 6, "top_p": 0.9}], ids=["all", "head"])
def test_texts_do_not_depend_on_the_batch(options: dict[str, float]) -> None:
    model = LanguageTable(25)
    texts = [list(generate(model, [4, 9], 13, length=150, seed=5, batch=batch, **options)) for batch in (1, 4, 13, 64)]
    assert all(each == texts[0] for each in texts)
    assert texts[0][:5] == list(generate(model, [4, 9], 5, length=150, seed=5, **options))
    assert texts[0] != list(generate(model, [4, 9], 13, length=150, seed=6, **options))
    assert len({each.tokens for each in texts[0]}) > 10


class CountingModel:
    """Says the number of tokens that it was given in its context, and remembers what it was asked to read."""

    max_context = 6
    device = torch.device("cpu")
    evaluating = LanguageTable.evaluating

    def __init__(self) -> None:
        self.read: list[list[int]] = []

    def advance(self, tokens: Tensor, memory: None, cache: TensorCache | None) -> tuple[Tensor, TensorCache]:
        seen = tokens if cache is None else torch.cat([cache[0], tokens], 1)
        assert seen.shape[1] <= self.max_context
        self.read.append(tokens[0].tolist())
        return torch.nn.functional.one_hot(torch.full(tokens.shape, 10 + seen.shape[1]), 30).float(), TensorCache(seen)


def test_beyond_the_context_its_last_half_is_read_again() -> None:
    model = CountingModel()
    (text,) = generate(model, [5, 6, 7, 8], length=10, temperature=0)
    assert text.tokens == (14, 15, 16, 13, 14, 15, 16, 13, 14, 15)
    assert [len(each) for each in model.read] == [4, 1, 1, 3, 1, 1, 1, 3, 1, 1]
    assert model.read[3] == [14, 15, 16]
    assert model.read[7] == [14, 15, 16]


def test_a_prompt_longer_than_the_context_is_cut() -> None:
    model = CountingModel()
    next(generate(model, range(4, 24), length=1, temperature=0))
    assert model.read == [list(range(18, 24))]


def test_a_window_that_is_never_full_changes_nothing() -> None:
    model = LanguageTable(25)
    assert windowed(model.advance, None) == model.advance
    plain = list(generate(model, [4], 3, length=20))
    model.max_context = 30
    assert list(generate(model, [4], 3, length=20)) == plain


def test_the_prompt_is_read_once() -> None:
    model = LanguageTable(25)
    list(generate(model, [4, 5, 6], 8, length=3))
    assert model.calls[0] == 1


def test_wrong_options() -> None:
    model = LanguageTable(9)
    for options, message in (
        ({"temperature": -0.1}, "temperature = -0.1"), ({"top_k": 0}, "top_k = 0"), ({"top_p": 0.0}, "top_p = 0.0"),
        ({"top_p": 1.5}, "top_p = 1.5"), ({"length": 0}, "length = 0"), ({"n": 0}, "n = 0"), ({"batch": 0}, "batch = 0"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            list(generate(model, **options))


def test_running_text_goes_on_after_eos() -> None:
    model = LanguageTable(12, end=2.0)
    (text,) = generate(model, length=100)
    assert len(text.tokens) == 100
    assert not text.finished
    assert EOS in text.tokens
    (sentence,) = generate(model, length=100, stop_at_eos=True)
    assert sentence.tokens == text.tokens[: text.tokens.index(EOS)]
    assert sentence.finished


def test_generation_is_lazy() -> None:
    model = LanguageTable(25, end=-20.0)
    texts = generate(model, n=10**9, length=5, batch=4)
    assert len(list(itertools.islice(texts, 6))) == 6
    assert len(model.calls) == 10
