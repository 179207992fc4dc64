"""Batches of pairs: the budget, every pair once, the same steps in every epoch, the same rows for any number of processes."""

from __future__ import annotations

import itertools

import pytest
import torch

from lit_gen.core.errors import UsageError
from lit_gen.data.bucket_plan import BucketPlan, EvalBucketPlan, PairLengths, bucket_bounds

CASES = [(n, world, budget) for n in (4, 33, 200) for world in (1, 2, 3) for budget in (1, 40, 150, 5000)]


def lengths(n: int, multiple: int = 1, longest: int = 30) -> PairLengths:
    generator = torch.Generator().manual_seed(n)
    source, target = (torch.randint(1, longest + 1, (n,), generator=generator) for _ in range(2))
    return PairLengths(source, target, multiple)


def held(plan: BucketPlan, epoch: int) -> list[list[int]]:
    return [planned.rows.tolist() for planned in plan.batches(epoch)]


@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize(("n", "world", "budget"), CASES)
def test_every_pair_once_an_epoch_within_the_budget(n: int, world: int, budget: int, multiple: int):
    pairs = lengths(n, multiple)
    plans = [BucketPlan(pairs, budget, world, r) for r in range(world)]
    for epoch in (0, 3):
        ranks = [list(plan.batches(epoch)) for plan in plans]
        assert sorted(i for rank in ranks for p in rank for i in p.rows.tolist()) == list(range(n))
        for step in zip(*ranks, strict=True):
            whole = torch.cat([p.rows for p in step])
            assert all(len(p.rows) for p in step), "a rank without a row"
            assert {p.tokens for p in step} == {int(pairs.target[whole].sum())}
            for p in step:
                assert p.source_width == -(-int(pairs.source[whole].max()) // multiple) * multiple
                assert p.target_width == -(-int(pairs.target[whole].max()) // multiple) * multiple
            cost = len(whole) * max(step[0].source_width, step[0].target_width)
            assert cost <= budget * world or len(whole) < 2 * world
        assert {len(rank) for rank in ranks} == {len(plans[0])}


def test_batches_are_about_as_full_as_the_budget_allows():
    pairs = lengths(2000)
    plan = BucketPlan(pairs, 600)
    padded = [len(p.rows) * max(p.source_width, p.target_width) for p in plan.batches(0)]
    full = sum(cost > 600 - 2 * 30 for cost in padded)
    assert full >= len(padded) - 2  # all but the two that share the tail
    # pairs of like length are together: less padding on the longer side than batches in any order have
    assert sum(padded) < 1.05 * int(pairs.longer().sum())


@pytest.mark.parametrize(("n", "world", "budget"), [(200, 2, 100), (333, 4, 64), (57, 3, 300), (500, 2, 31)])
def test_ranks_together_hold_the_rows_of_one_process_with_the_budget_of_all(n: int, world: int, budget: int):
    pairs = lengths(n, longest=20)
    whole = list(BucketPlan(pairs, budget * world).batches(epoch=2))
    parts = [list(BucketPlan(pairs, budget, world, r).batches(epoch=2)) for r in range(world)]
    for step, one in enumerate(whole):
        assert torch.cat([part[step].rows for part in parts]).tolist() == one.rows.tolist()
        row = 0
        for part in parts:
            assert part[step].key == (one.key.seed, row, len(one.rows))
            assert part[step][2:] == one[2:]  # widths and tokens, hence the shapes of all noise, are those of the whole
            row += len(part[step].rows)
    assert all(len(part) == len(whole) for part in parts)


def test_epochs_have_as_many_batches_of_other_company_in_another_order(monkeypatch):
    pairs = lengths(400, longest=12)
    plan = BucketPlan(pairs, 100)
    epochs = [held(plan, e) for e in range(3)]
    assert [len(e) for e in epochs] == [len(plan)] * 3
    assert epochs[0] == held(plan, 0)
    as_sets = [{frozenset(batch) for batch in e} for e in epochs]
    assert len(as_sets[0] & as_sets[1]) < len(plan) / 10, "the same pairs together in every epoch"
    widths = [[int(pairs.longer()[batch].max()) for batch in e] for e in epochs]
    assert sorted(widths[0]) == sorted(widths[1])
    assert widths[0] != widths[1]
    assert widths[0] != sorted(widths[0], reverse=True)
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert held(plan, 0) != epochs[0]
    fixed = BucketPlan(pairs, 100, reshuffle=False)
    assert held(fixed, 0) == held(fixed, 5)


def test_keys_are_all_different_and_batches_can_start_anywhere():
    plan = BucketPlan(lengths(200), 90)
    keys = {planned.key.seed for epoch in range(4) for planned in plan.batches(epoch)}
    assert len(keys) == 4 * len(plan)
    late = [(p.rows.tolist(), p.key) for p in plan.batches(1, first=3, last=6)]
    assert late == [(p.rows.tolist(), p.key) for p in plan.batches(1)][3:6]


def test_a_pair_wider_than_the_budget_is_a_row_of_its_own():
    assert bucket_bounds([50, 10, 10, 10], 20) == [0, 1, 3, 4]
    assert bucket_bounds([50, 50, 50, 10, 10, 10, 10], 20, world_size=2) == [0, 2, 4, 7]  # nor does 1 make a tail
    assert bucket_bounds([50, 50, 50], 20, world_size=2) == [0, 3]  # the third would leave a process without a row
    assert bucket_bounds([4, 4, 4, 4, 4], 16) == [0, 3, 5]  # a tail of one shares
    assert bucket_bounds([], 16) == [0]


@pytest.mark.parametrize("n", [0, 1, 5, 40, 200])
@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_evaluation_sees_each_pair_once_in_the_same_batches(n: int, world: int):
    pairs, budget = lengths(n), 200
    one = {p.key: p.rows.tolist() for p in EvalBucketPlan(pairs, budget, "val").batches()}
    ranks = [list(EvalBucketPlan(pairs, budget, "val", world, r).batches()) for r in range(world)]
    assert [len(rank) for rank in ranks] == [len(EvalBucketPlan(pairs, budget, "val", world, r)) for r in range(world)]
    batches = [p for rank in ranks for p in rank]
    assert sorted(i for p in batches for i in p.rows.tolist()) == list(range(n))
    for p in batches:
        assert len(p.rows) == 1 or len(p.rows) * max(p.source_width, p.target_width) <= budget
        assert (p.key.start, p.key.total) == (0, len(p.rows))
        assert p.tokens == int(pairs.target[p.rows].sum())
    if len(one) >= world:
        assert {p.key: p.rows.tolist() for p in batches} == one
        dealt = [p for turn in itertools.zip_longest(*ranks) for p in turn if p is not None]
        assert [p.rows.tolist() for p in dealt] == list(one.values())
    elif n >= world:
        assert all(ranks), "Lightning leaves out the evaluation on a rank without a batch"


def test_too_few_pairs_are_refused_in_one_line():
    with pytest.raises(UsageError, match="3 training pairs for 4 processes") as caught:
        BucketPlan(lengths(3), 100, world_size=4)
    assert "\n" not in str(caught.value)
