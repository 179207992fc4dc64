"""Running text: every token predicted exactly once from what precedes it, whatever the batches and the processes."""

from __future__ import annotations

import itertools

import pytest
import torch

from lit_gen.core.errors import UsageError
from lit_gen.core.text import BOS, PAD, StreamBatch
from lit_gen.data.text_plan import BlockPlan, EvalBlockPlan, EvalStreamPlan, StreamPlan
from lit_gen.data.text_stores import TokenSplit


def text(n: int) -> TokenSplit:
    """Token i of the text is 10 + i: a token names its place."""
    return TokenSplit(torch.arange(10, 10 + n, dtype=torch.int32))


def places(batches: list[StreamBatch]) -> list[int]:
    """Places that are predicted; asserts that each is read from the token before it, the first from bos."""
    found = []
    for batch in batches:
        assert batch.input.shape == batch.target.shape
        assert batch.input.dtype == batch.target.dtype == torch.int64
        predicted = batch.target != PAD
        target, read = batch.target[predicted], batch.input[predicted]
        assert torch.equal(read, torch.where(target == 10, BOS, target - 1))
        found += (target - 10).tolist()
    return found


def assert_rows_are_stretches(batches: list[StreamBatch]) -> None:
    """What a row reads is one stretch of the text, with padding at its end only."""
    for row in torch.cat([torch.nn.functional.pad(b.input, (0, 100 - b.input.shape[1])) for b in batches]):
        read = row[row != PAD]
        assert torch.equal(row[: len(read)], read)
        start = read[read != BOS].tolist()
        assert start == list(range(start[0], start[0] + len(start))) if start else read.tolist() == [BOS]


SIZES = [1, 7, 20, 101]


@pytest.mark.parametrize("n", [7, 20, 101])
@pytest.mark.parametrize(("world", "size"), [(1, 1), (1, 4), (2, 1), (2, 3), (3, 2)])
@pytest.mark.parametrize("block", [1, 5, 8, 200])
def test_training_streams_predict_every_token_once_and_continue_each_other(n: int, world: int, size: int, block: int):
    ranks = []
    for rank in range(world):
        plan = StreamPlan(n, size, block, world, rank)
        ranks.append(list(text(n).stream(list(plan.batches(epoch=1)))))
        assert len(ranks[-1]) == len(plan)
    assert sorted(places(list(itertools.chain(*ranks)))) == list(range(n))
    for rank in ranks:
        assert [batch.begins for batch in rank] == [True] + [False] * (len(rank) - 1)
        for before, after in itertools.pairwise(rank):
            assert before.input.shape == (size, block)
            goes_on = after.input[:, 0] != PAD
            assert torch.equal(after.input[goes_on, 0], before.target[goes_on, -1])
    for step in zip(*ranks, strict=True):
        assert len({batch.input.shape for batch in step}) == 1
        assert {batch.tokens for batch in step} == {sum(batch.amount for batch in step)}


@pytest.mark.parametrize("world", [2, 3])
def test_streams_of_all_ranks_are_those_of_one_process(world: int):
    one = list(text(97).stream(list(StreamPlan(97, 2 * world, 6).batches(4))))
    parts = [list(text(97).stream(list(StreamPlan(97, 2, 6, world, r).batches(4)))) for r in range(world)]
    for step, whole in enumerate(one):
        assert torch.equal(torch.cat([part[step].input for part in parts]), whole.input)
        assert torch.equal(torch.cat([part[step].target for part in parts]), whole.target)
        assert [part[step].key for part in parts] == [(whole.key.seed, 2 * r, 2 * world) for r in range(world)]
        assert {part[step].tokens for part in parts} == {whole.tokens}


@pytest.mark.parametrize("world", [1, 2, 3])
def test_random_blocks_are_drawn_for_the_global_batch(world: int, monkeypatch):
    n, block = 50, 8
    one = list(text(n).stream(list(BlockPlan(n, 2 * world, block, 30).batches(2))))
    parts = [list(text(n).stream(list(BlockPlan(n, 2, block, 30, world, r).batches(2)))) for r in range(world)]
    assert len(one) == 30
    for step, whole in enumerate(one):
        assert whole.begins
        assert whole.tokens == whole.input.numel() == 2 * world * block
        assert torch.equal(torch.cat([part[step].input for part in parts]), whole.input)
        assert torch.equal(torch.cat([part[step].target for part in parts]), whole.target)
    places(one)
    assert_rows_are_stretches(one)
    plan = BlockPlan(n, 2, block, 3)
    starts = {e: [p.start.tolist() for p in plan.batches(e)] for e in range(3)}
    assert starts[0] != starts[1]
    assert starts[1][1:] == [p.start.tolist() for p in plan.batches(1, first=1)]
    fixed = BlockPlan(n, 2, block, 3, reshuffle=False)
    assert [p.start.tolist() for p in fixed.batches(2)] == starts[0]
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert [p.start.tolist() for p in plan.batches(0)] != starts[0]


def test_random_blocks_come_from_all_places_equally():
    n, block, count = 12, 5, 20000
    plan = BlockPlan(n, count, block, 1)
    (planned,) = plan.batches(0)
    observed = torch.bincount(planned.start, minlength=8).double()
    assert len(observed) == n - block + 1
    expected = count / 8
    chi_square = ((observed - expected) ** 2 / expected).sum()
    assert chi_square < 24.3  # the 99.9 % point with 7 degrees of freedom
    assert len(BlockPlan(1000, 3, 8)) == 42  # 24 tokens a batch


def evaluated(plan: type, n: int, options: dict, world: int) -> list[StreamBatch]:
    batches = []
    for rank in range(world):
        mine = plan(n, **options, split="val", world_size=world, rank=rank)
        planned = list(mine.batches())
        assert len(mine) == len(planned)
        batches += text(n).stream(planned)
    for batch in batches:
        assert batch.tokens == batch.amount
    return batches


def contexts(batches: list[StreamBatch]) -> dict[int, int]:
    """For each predicted place the first place that the row's carried state has read."""
    first, found = None, {}
    for batch in batches:
        start = torch.where(batch.input[:, 0] == BOS, 0, batch.input[:, 0] - 9)
        first = start if batch.begins else first
        for row, begin in zip(batch.target, first.tolist()):
            found |= dict.fromkeys((row[row != PAD] - 10).tolist(), begin)
    return found


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("world", [1, 2, 5])
@pytest.mark.parametrize(("streams", "block"), [(1, 7), (4, 5), (10, 3), (3, 300)])
def test_evaluation_streams_predict_every_token_once_from_the_same_context(
    n: int, world: int, streams: int, block: int
):
    expected = None
    for size in (1, 3, 64):
        options = {"streams": streams, "block_size": block, "batch_size": size}
        batches = evaluated(EvalStreamPlan, n, options, world)
        assert sorted(places(batches)) == list(range(n))
        seen = contexts(batches)
        expected = expected or contexts(evaluated(EvalStreamPlan, n, options, 1))
        assert seen == expected, "the context of a token depends on the batch size or on the processes"
    assert len(set(expected.values())) == min(streams, n)


def test_a_process_without_a_stream_has_one_batch_without_a_target():
    plan = EvalStreamPlan(40, 1, 8, 4, "val", world_size=2, rank=1)
    (batch,) = text(40).stream(list(plan.batches()))
    assert len(plan) == 1
    assert (batch.input.tolist(), batch.target.tolist(), batch.tokens, batch.begins) == ([[BOS]], [[PAD]], 0, True)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("world", [1, 2, 5])
@pytest.mark.parametrize(("block", "stride"), [(7, 7), (7, 3), (300, 300), (20, 10), (1, 1)])
def test_evaluation_blocks_predict_every_token_once_with_context(n: int, world: int, block: int, stride: int):
    expected = None
    for size in (1, 3, 64):
        batches = evaluated(EvalBlockPlan, n, {"block_size": block, "stride": stride, "batch_size": size}, world)
        assert all(batch.begins for batch in batches)
        assert sorted(places(batches)) == list(range(n))
        assert_rows_are_stretches(batches)
        seen = contexts(batches)
        expected = expected or seen
        assert seen == expected
        assert {batch.input.shape[1] for batch in batches} == {min(block, n)}
    for place, begin in expected.items():
        assert place - begin >= min(block - stride, place)
        assert place - begin < block


def test_evaluation_batches_are_the_same_for_any_number_of_processes():
    options = {"block_size": 6, "stride": 4, "batch_size": 2}
    one = evaluated(EvalBlockPlan, 90, options, 1)
    two = evaluated(EvalBlockPlan, 90, options, 2)
    assert {b.key: b.target.tolist() for b in one} == {b.key: b.target.tolist() for b in two}
    streams = {"streams": 6, "block_size": 4, "batch_size": 2}
    one, two = (evaluated(EvalStreamPlan, 90, streams, world) for world in (1, 2))
    assert {b.key: b.target.tolist() for b in one} == {b.key: b.target.tolist() for b in two}
    assert len({b.key for b in one}) == len(one)


@pytest.mark.parametrize("plan", [StreamPlan(3, 2, 8, world_size=1), BlockPlan(8, 2, 8)])
def test_the_shortest_text_that_is_accepted(plan):
    assert len(list(plan.batches(0))) == len(plan)


@pytest.mark.parametrize(("plan", "options"), [(StreamPlan, (3, 2, 8, 2)), (BlockPlan, (7, 2, 8))])
def test_too_short_a_text_is_refused_in_one_line(plan: type, options: tuple):
    with pytest.raises(UsageError, match="at most") as caught:
        plan(*options)
    assert "\n" not in str(caught.value)
