"""Decoding of files: order, batches, memory; and its options."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch

from lit_gen.core.errors import UsageError
from lit_gen.core.text import EOS
from lit_gen.text.decoding import Decoding, decode_stream
from lit_gen.text.decoding.decode import padded
from tests.text.decoding_models import TableModel, spec_of

LINES = ["abc", "", "h", "abcabcabc", " ", "bad", "abc", "gag a", "b" * 30, "", "fad", "cab"]
WAYS = {
    "greedy": Decoding(),
    "beam": Decoding(beam=4, n_best=3),
    "power": Decoding(beam=3, penalty="power", alpha=1.0, min_length=4, max_factor=2.0, max_extra=1),
    "samples": Decoding(temperature=0.9, n_best=2, top_k=7, seed=3),
}


def model() -> TableModel:
    spec = spec_of("abcdefgh ")
    made = TableModel(spec.target.size, end=2.0)
    made.spec = spec
    return made


@pytest.mark.parametrize("way", WAYS)
def test_each_line_is_as_if_decoded_alone(way: str) -> None:
    found = list(decode_stream(model(), LINES, WAYS[way], batch=3, window=2))
    assert len(found) == len(LINES)
    assert [not each for each in found] == [not line.strip() for line in LINES]
    for batch, window in ((1, 1), (5, 1), (50, 20)):
        assert list(decode_stream(model(), LINES, WAYS[way], batch, window)) == found
    if way != "samples":  # which depend on the line's number
        for line, hypotheses in zip(LINES, found):
            assert next(decode_stream(model(), [line], WAYS[way])) == hypotheses
        assert found[0] == found[6] != found[5]
    else:
        assert found[0] != found[6]


def test_an_endless_file_is_read_a_window_at_a_time() -> None:
    taken = 0

    def endless():
        nonlocal taken
        for i in itertools.count():
            taken += 1
            yield "abcdefgh"[: i % 8 + 1]

    results = decode_stream(model(), endless(), WAYS["greedy"], batch=4, window=3)
    assert taken == 0
    next(results)
    assert taken == 12
    assert len(list(itertools.islice(results, 11))) == 11
    assert taken == 12
    next(results)
    assert taken == 24


def test_no_batch_is_larger_than_asked_for() -> None:
    seen = model()
    list(decode_stream(seen, ["abc"] * 23, WAYS["greedy"], batch=5, window=2))
    assert max(seen.calls) == 5
    seen.calls.clear()
    list(decode_stream(seen, ["abc"] * 23, WAYS["beam"], batch=5, window=2))
    assert max(seen.calls) == 20


def test_lengths() -> None:
    source = padded([[5, 6, 7, EOS], [5, EOS]])
    assert Decoding().limits(source).tolist() == [54, 52]
    assert Decoding(max_factor=1.5, max_extra=0).limits(source).tolist() == [6, 3]
    assert Decoding(max_length=53).limits(source).tolist() == [53, 52]
    assert Decoding(min_length=54, max_length=60).limits(source).tolist() == [54, 54]
    assert Decoding().limits(source, max_context=20).tolist() == [20, 20]
    for way in (Decoding(min_length=5, max_length=7), Decoding(beam=3, min_length=5, max_length=7)):
        for each in itertools.chain(*decode_stream(model(), LINES, way)):
            assert 5 <= each.length <= 7
            assert each.finished or each.length == 7


def test_scores_are_penalised_log_probabilities() -> None:
    for way in WAYS.values():
        for found in decode_stream(model(), LINES, way):
            assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
            for each in found:
                assert each.score == pytest.approx(each.log_probability / way.length_penalty(each.length), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam": 0}, "beam = 0"),
        ({"beam": 2, "n_best": 3}, "n_best = 3"),
        ({"penalty": "google"}, "penalty = google; accepted: gnmt, power"),
        ({"alpha": -0.5}, "alpha = -0.5"),
        ({"min_length": 0}, "min_length = 0"),
        ({"min_length": 8, "max_length": 7}, "max_length = 7; accepted: 8"),
        ({"max_factor": -1.0}, "max_factor = -1"),
        ({"max_factor": 0.0, "max_extra": 0}, "max_extra = 0"),
        ({"top_k": 3}, "top_k = 3"),
        ({"top_p": 0.3}, "top_p = 0.3"),
        ({"temperature": 1.0, "beam": 2}, "beam = 2"),
        ({"temperature": -1.0}, "temperature = -1"),
        ({"temperature": 1.0, "top_p": 2.0}, "top_p = 2"),
    ],
)
def test_wrong_options(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Decoding(**options)


def test_wrong_sizes() -> None:
    for options in ({"batch": 0}, {"window": 0}):
        with pytest.raises(UsageError, match=next(iter(options))):
            next(decode_stream(SimpleNamespace(), ["a"], Decoding(), **options))


def test_padding() -> None:
    assert torch.equal(padded([[4], [5, 6]]), torch.tensor([[4, 0], [5, 6]]))
